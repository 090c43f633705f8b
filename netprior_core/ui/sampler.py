"""What a trained generator believes: pictures drawn at random, the way between two, and the best it could do for a target."""

from __future__ import annotations

import html
from collections.abc import Iterator
from typing import Any

import gradio as gr
import torch

from netprior_core import generators
from netprior_core.compute import apart, choose
from netprior_core.errors import MissingPrior, NetPriorError
from netprior_core.experiment import Experiment, build, target_image
from netprior_core.frames import picture_of, tiled
from netprior_core.isometry import isometry, rate, worst
from netprior_core.problem import Shape, to_unit
from netprior_core.ui.ceiling import QUIET, idle, search, side_by_side
from netprior_core.ui.say import warn
from netprior_core.ui.session import App

INTRO = (
    "<p class='np-empty'>A generative prior draws a picture <i>G</i>(<i>z</i>) for every latent <i>z</i>, and CSGM, PGDGAN and "
    "NPGD answer with nothing else. So look at what it draws: that is what it believes. Then see how near it comes to your "
    "target when it is shown the target itself: the sets Digits and One face hold pictures of the kinds it knows.</p>"
)
NONE = (
    "<p class='np-empty'>There is no trained generator in the checkpoints folder: make one with <code>python -m netprior_core "
    "train gan</code>.</p>"
)
COLUMNS, ROWS, STEPS = 8, 2, 8
#: Samples whose differences A is looked at on.
MEASURED = 100
#: Pairs that are searched each way for the worst.
SEARCHED = 4


class Sampler:
    """A part of the Learn tab."""

    def __init__(self, app: App) -> None:
        self.app = app

    def build(self, experiment: gr.State) -> None:
        """The components and their events; only words where there is no generator."""
        known = generators.shipped()
        with gr.Accordion("What a generator believes", open=False):
            gr.HTML(INTRO if known else NONE, elem_id="np-sampler-words")
            if not known:
                return
            choices = [(str(card.get("title", name))[:80], name) for name, card in known.items()]
            number: dict[str, Any] = {"precision": 0, "interactive": True, "min_width": 120}
            picture: dict[str, Any] = {"interactive": False, "visible": False, "buttons": ["download"], "format": "png"}
            with gr.Row():
                name = gr.Dropdown(
                    choices,
                    value=choices[0][1],
                    label="Generator",
                    filterable=False,
                    interactive=True,
                    min_width=240,
                    elem_id="np-sampler-name",
                )
                first = gr.Number(1, label="Seed of the first picture", elem_id="np-sampler-from", **number)
                last = gr.Number(16, label="Seed of the second", elem_id="np-sampler-to", **number)
            with gr.Row():
                draw = gr.Button("Draw pictures", scale=0, min_width=160, elem_id="np-sampler-draw")
                walk = gr.Button("Walk from first to second", scale=0, min_width=200, elem_id="np-sampler-walk")
                best = gr.Button("Best this prior could do", scale=0, min_width=200, elem_id="np-sampler-best")
                see = gr.Button("What A tells apart", scale=0, min_width=180, elem_id="np-sampler-isometry")
            shown = gr.State(None)  # the seed of the first picture on the sheet
            said = gr.HTML("", elem_id="np-sampler-said")
            sheet = gr.Image(label="Drawn at random", elem_id="np-sampler-sheet", **picture)
        draw.click(_drawn, [name, first, shown], [sheet, said, first, last, shown], **QUIET)
        walk.click(_walked, [name, first, last], [sheet, said], **QUIET)
        best.click(self._best, [experiment, name], [sheet, said], **QUIET)
        see.click(self._seen, [experiment, name], [said], **QUIET)

    def _best(self, now: Experiment | None, name: str, request: gr.Request) -> Iterator[tuple[Any, Any]]:
        """Target and nearest drawing beside each other, while the search goes on: until it ends, or a run begins."""
        now = self.app.setup(request.session_hash, now)
        if now is None:
            return
        images = dict(self.app.session(request.session_hash).images)
        try:
            if now.target_is != "truth":
                raise NetPriorError("Your target is a measurement: there is no truth that the generator could be shown.")
            idle(self.app)
            truth = apart(target_image, now, images)
            for found in search(self.app, apart(_for, now.shape, name), truth):
                words = (
                    f"Best this prior could do: at least <b>{found.psnr:.2f} dB</b>, after {found.steps:,} steps. It was shown the "
                    "truth, which no method is: what is still missing no measurement can bring back (representation error). “At "
                    "least”: the search may have missed a nearer picture."
                )
                label = "Your target, and the nearest picture the generator draws (uses the truth)"
                yield (
                    gr.update(value=side_by_side(*map(picture_of, (truth, found.image))), label=label, visible=True),
                    _paragraph(words),
                )
        except NetPriorError as error:
            warn(str(error))
            yield gr.skip(), gr.skip()

    def _seen(self, now: Experiment | None, name: str, request: gr.Request) -> Any:
        """The near-isometry of the measurement in use, on the generator's pictures."""
        now = self.app.setup(request.session_hash, now)
        if now is None:
            return gr.skip()
        try:
            idle(self.app)
            return apart(_isometry_words, now, dict(self.app.session(request.session_hash).images), name)
        except NetPriorError as error:
            warn(str(error))
            return gr.skip()


def _isometry_words(now: Experiment, images: dict[str, Any], name: str) -> str:
    drawing, compute = _for(now.shape, name), choose("float32", "cpu")
    problem, _ = build(now, images)
    found = isometry(problem.model, generators.samples(drawing, compute, MEASURED, seed=3))
    network = drawing.network(compute)
    latents = drawing.sample(4 * SEARCHED, torch.Generator().manual_seed(4))
    least, largest = worst(problem.model, lambda z: to_unit(network(compute.activations(z))), latents)
    least, largest = min(least, found.least), max(largest, found.largest)
    words = (
        f"{html.escape(now.operator.title)}, <i>m</i> = {problem.model.m:,}: between {found.pairs:,} pairs of pictures that the "
        f"generator draws, the measurement keeps {found.least:.2f} to {found.largest:.2f} of their distance (median "
        f"{found.median:.2f}). The nearer the ratio of largest to least, <b>{found.spread:.2f}</b>, is to 1, the better can two "
        "pictures be told apart by their measurements. That is the restricted eigenvalue condition, but it asks for the worst "
        f"pair, not a random one: a short search finds {least:.2f} to {largest:.2f}, so that its constant <i>α</i>/<i>β</i> is at "
        f"most ({least:.2f} / {largest:.2f})² = {(least / largest) ** 2:.3f}, and <i>β</i>/<i>α</i> at least "
        f"<b>{(largest / max(least, 1e-30)) ** 2:.3g}</b> ({found.condition:.3g} between the random pairs). "
    )
    words += _judged((largest / max(least, 1e-30)) ** 2) if problem.model.linear else ""
    return _paragraph(words)


def _judged(condition: float) -> str:
    """What the least possible β/α says about projected gradient descent, as PGDGAN and NPGD do it."""
    words = (
        "Is that good enough? Steps <i>x</i> ← <i>P</i>(<i>x</i> + <i>η A</i>ᵀ(<i>y</i> − <i>A x</i>)), as of PGDGAN and NPGD, "
        "are sure to lead ‖<i>A x</i> − <i>y</i>‖ to 0 by a constant factor each, for a picture that the generator draws, when "
        "<i>β</i>/<i>α</i> is below 2, <i>η</i> = 1/<i>β</i>, the projection <i>P</i> is exact and nothing is noisy. "
    )
    shrinks = rate(condition)
    if shrinks is None:
        return words + "Here it is not below 2: nothing is promised, and they may still succeed."
    left = f"each step leaves at most {shrinks:.2f} of ‖<i>A x</i> − <i>y</i>‖²."
    return f"{words}No pair found here stands against it; if none is worse, {left}"


def _for(shape: Shape, name: str) -> generators.Drawing:
    """The chosen generator, if it draws images of this shape. Raises MissingPrior in a sentence that says what to set."""
    drawing = _named(name)
    if drawing.shape != tuple(shape):
        channels, height, _ = drawing.shape
        raise MissingPrior(
            f"{drawing.title} draws {'colour' if channels == 3 else 'grey'} pictures of {height} pixels, and your image is another "
            f"kind: set Size to {height} and Channels to {'colour' if channels == 3 else 'grey'}, or choose another generator."
        )
    return drawing


def _drawn(name: str, seed: float | None, shown: int | None) -> tuple[Any, ...]:
    """A sheet of pictures, a seed each, from ``seed`` on; where these are ``shown`` already, the following ones.

    Also the seeds of its first and last picture, to walk between.
    """
    count, start = COLUMNS * ROWS, _seed(seed)
    start = start + count if start == shown else start
    start = min(start, 2**31 - count)
    try:
        title, images = apart(_samples, name, range(start, start + count))
    except NetPriorError as error:
        warn(str(error))
        return (gr.skip(),) * 5
    words = _paragraph(
        f"What {html.escape(title)} draws for the seeds {start} to {start + count - 1}, row by row. None of them is a photograph."
    )
    return gr.update(value=tiled(images, COLUMNS), label="Drawn at random", visible=True), words, start, start + count - 1, start


def _seed(typed: float | None) -> int:
    """The nearest seed to what was typed; gradio's own bounds refuse without naming the box."""
    return int(min(max(typed or 0, 0), 2**31 - 1))


def _walked(name: str, first: float | None, last: float | None) -> tuple[Any, Any]:
    """Pictures between two."""
    start, end = _seed(first), _seed(last)
    try:
        images = apart(_between, name, start, end)
    except NetPriorError as error:
        warn(str(error))
        return gr.skip(), gr.skip()
    words = _paragraph(f"The way from the picture of seed {start} to that of seed {end}, through latents as probable as both.")
    return gr.update(value=tiled(images, COLUMNS), label="From one latent to another", visible=True), words


def _samples(name: str, seeds: range) -> tuple[str, Any]:
    drawing = _named(name)
    return drawing.title, generators.by_seed(drawing, choose("float32", "cpu"), seeds)


def _between(name: str, start: int, end: int) -> Any:
    return generators.between(_named(name), choose("float32", "cpu"), start, end, STEPS)


def _named(name: str) -> generators.Drawing:
    # Reading a file's numbers computes too: never outside apart.
    return generators.drawing_of(generators.priors.named(name))


def _paragraph(words: str) -> str:
    return f"<p class='np-empty'>{words}</p>"
