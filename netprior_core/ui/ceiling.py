"""The best that the priors of a race could do: searched on demand once the race is over, and shown beside its results.

It looks at the truth, which no method may: a diagnostic, marked as one wherever it is shown.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import gradio as gr
import numpy as np
import torch

from netprior_core import representation
from netprior_core.compute import apart, choose
from netprior_core.errors import NetPriorError, Unsolvable
from netprior_core.experiment import Experiment, target_image
from netprior_core.frames import enlarged, picture_of
from netprior_core.generators import Drawing, generator_for
from netprior_core.methods._generative import Generative
from netprior_core.metrics import ssim
from netprior_core.race import Race
from netprior_core.representation import Best
from netprior_core.ui import files, results
from netprior_core.ui.say import warn
from netprior_core.ui.session import App

BUTTON = "Best this prior could do (looks at the truth)"
#: Seconds after which the search for the best picture of one generator ends with what it has.
LONGEST = 20.0
BUSY = "A run is being computed, and this would slow it down: pause it, or wait for its end."
#: Searches, here and in the sampler, are one thing at a time, for all tabs.
QUIET: dict[str, Any] = {
    "show_progress": "hidden",
    "api_visibility": "private",
    "concurrency_limit": 1,
    "concurrency_id": "sampler",
}


class Found(NamedTuple):
    """How far a search is: steps, the nearest picture so far ``(1, C, H, W)`` in [0, 1], and its PSNR in dB."""

    steps: int
    image: torch.Tensor
    psnr: float


def idle(app: App) -> None:
    """Raises Unsolvable while a run is being computed: its seconds are shown, and are to be its own."""
    if app.scheduler.busy():
        raise Unsolvable(BUSY)


def search(app: App, drawing: Drawing, truth: torch.Tensor) -> Iterator[Found]:
    """The best picture of a generator for the truth ``(1, C, H, W)``, as it gets better, for LONGEST seconds at most.

    Raises Unsolvable as soon as a run is computed.
    """
    idle(app)
    steps = representation.best_possible(drawing, choose("float32", "cpu"), truth)
    end = time.monotonic() + LONGEST
    while (found := apart(next, steps, None)) is not None:
        yield Found(*found)
        if time.monotonic() > end:
            return
        idle(app)


def side_by_side(*pictures: np.ndarray) -> np.ndarray:
    """Pictures, uint8, beside each other, large enough to look at."""
    return np.concatenate([enlarged(one, 256) for one in pictures], axis=1)


def priors_of(race: Race, experiment: Experiment) -> list[str]:
    """The names of the generators that the race's methods searched, each once ("" is the GAN for this size).

    None without a truth, or before the race has ended.
    """
    if not race.done or not race.has_truth:
        return []
    lanes = zip(race.lanes, experiment.methods, strict=True)
    found = [method.generator for lane, method in lanes if isinstance(method, Generative) and lane.result is not None]
    return list(dict.fromkeys(found))


class Ceiling:
    """A part of the Results tab: a button once there is something to search, rows in the table, and pictures."""

    def __init__(self, app: App) -> None:
        self.app = app

    def build(self) -> None:
        """The button and the picture, both hidden at first; the picture is to be rendered where it belongs."""
        self.button = gr.Button(BUTTON, visible=False, scale=0, min_width=320, elem_id="np-ceiling")
        self.picture = gr.Image(
            render=False,
            label="The truth, and the nearest picture that each generator draws (uses the truth)",
            interactive=False,
            visible=False,
            buttons=["download"],
            format="png",
            elem_id="np-ceiling-picture",
        )

    def wire(self, table: gr.HTML, download: gr.DownloadButton, sheet: gr.Image) -> None:
        """What the button does: the table and the picture as the search goes on, then the files of the run with what it found."""
        self.button.click(self._search, [], [table, self.picture, download, sheet], **QUIET)

    def offer(self, race: Race, experiment: Experiment) -> tuple[Any, Any]:
        """Button and picture after a race."""
        return gr.update(visible=bool(priors_of(race, experiment))), gr.update(visible=False, value=None)

    def _search(self, request: gr.Request) -> Iterator[tuple[Any, Any, Any, Any]]:
        """Rows and pictures for each generator as the search goes on, at its end the files; no more once another run is there."""
        session = self.app.session(request.session_hash)
        race, experiment, images = session.race, session.experiment, dict(session.images)
        if race is None or experiment is None:
            return
        rows: dict[str, Best] = {}  # by the generator's digest: "" may be one that another method was told by name
        try:
            truth = apart(target_image, experiment, images)
            for name in priors_of(race, experiment):
                drawing = apart(generator_for, experiment.shape, name)
                key = drawing.digest()
                if key in rows:
                    continue
                for found in search(self.app, drawing, truth):
                    if session.race is not race:
                        return
                    score = float(apart(ssim, found.image, truth))
                    rows[key] = Best(drawing.title, found.psnr, score, found.steps, picture_of(found.image))
                    table = results.table(race, experiment, list(rows.values()))
                    pictures = side_by_side(picture_of(truth), *(one.pixels for one in rows.values()))
                    yield table, gr.update(value=pictures, visible=True), gr.skip(), gr.skip()
            if session.race is not race:  # begun since the last look: the files are its own
                return
            archive, sheet = files.save(session, race, experiment, list(rows.values()))
            yield gr.skip(), gr.skip(), gr.update(value=archive), gr.update(value=sheet)
        except NetPriorError as error:
            warn(str(error))
            yield (gr.skip(),) * 4
        except OSError as error:
            warn(f"What was found could not be added to the zip: {error.strerror}. It stays on the page.")
            yield (gr.skip(),) * 4
