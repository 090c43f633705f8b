"""“Tune on this image”: the search of one lane's settings, its progress, and what it found back into the lane."""

from __future__ import annotations

import asyncio
import html
import threading
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from functools import partial

import gradio as gr

from netprior_core import tuning
from netprior_core.errors import NetPriorError, Unsolvable
from netprior_core.experiment import MAX_LANES, Experiment
from netprior_core.ui import setup
from netprior_core.ui.drawn import QUIET, Changes, Drawn
from netprior_core.ui.say import inform, warn
from netprior_core.ui.session import App, Session

HELP = "Looks at the truth: an upper bound of what these settings can do, not a fair result. The method is marked afterwards."
OVERTAKEN = "Another run began in this tab, so the search was ended. Your settings are as they were."
#: Seconds between two looks at a trial, and between two words about it.
LOOK, SPEAK = 0.02, 0.3


class Tuner:
    """The controls of the search, in every lane. Trials are computed by the scheduler's worker, in line with everybody's races."""

    def __init__(self, app: App) -> None:
        self.app = app
        self.asked: list[gr.State] = []  # counts the presses: the button itself may be drawn anew while its search goes on
        self.words: list[gr.HTML] = []
        self.stops: list[gr.Button] = []

    def build(self, lane: int) -> None:
        """What a lane shows while it is tuned."""
        self.asked.append(gr.State(0))
        self.words.append(gr.HTML("", visible=False, elem_id=f"np-tuning-{lane}"))
        self.stops.append(gr.Button("Stop the search", size="sm", visible=False, elem_id=f"np-tune-stop-{lane}"))

    def button(self, lane: int) -> None:
        """The button, among the settings of a lane that are drawn now."""
        button = gr.Button("Tune on this image", size="sm", elem_id=f"np-tune-{lane}")
        gr.HTML(f"<p class='np-info'>{HELP}</p>")
        button.click(lambda count: count + 1, [self.asked[lane]], [self.asked[lane]], **QUIET)

    def wire(self, column: Drawn) -> None:
        """Connect the events of every lane."""
        for lane in range(MAX_LANES):
            outputs = [self.words[lane], self.stops[lane], column.experiment, column.presets[lane], column.shape_of_lanes[lane]]

            pressed = self._pressed(column, lane)
            self.asked[lane].change(pressed, [column.experiment], outputs, concurrency_limit=None, trigger_mode="once", **QUIET)
            self.stops[lane].click(self.stop, [], [], queue=False, **QUIET)

    def _pressed(self, column: Drawn, lane: int) -> Callable[..., AsyncGenerator[Changes, None]]:
        async def pressed(now: Experiment | None, request: gr.Request) -> AsyncGenerator[Changes, None]:
            async with aclosing(self.tune(column, lane, now, request)) as found:
                async for changes in found:
                    yield changes

        return pressed

    def stop(self, request: gr.Request) -> None:
        """End the tab's search; the best so far is kept."""
        if (asked := self.app.session(request.session_hash).tuning) is not None:
            asked.set()

    async def tune(self, column: Drawn, lane: int, now: Experiment | None, request: gr.Request) -> AsyncGenerator[Changes, None]:
        """Words on the search of a lane's settings while it goes on, then what was found in the lane; or a sentence why not."""
        now, session = self.app.setup(request.session_hash, now), self.app.session(request.session_hash)
        # Every way out says so: a handler that says nothing empties its outputs.
        done: Changes = {self.words[lane]: gr.update(value="", visible=False), self.stops[lane]: gr.update(visible=False)}
        if now is None:
            yield done
            return
        try:
            if session.why_busy:
                raise Unsolvable(session.why_busy)
            setup.check_size(now, self.app.max_size)
            search = tuning.Search(now, lane, dict(session.images), self.app.device)
        except NetPriorError as error:
            warn(str(error))
            yield done
            return
        session.tuning = threading.Event()
        try:
            async with aclosing(self._searching(search, session, session.tuning)) as progress:
                async for words in progress:
                    shown = f"<p class='np-info' role='status'>{html.escape(words)}</p>"
                    yield {self.words[lane]: gr.update(value=shown, visible=True), self.stops[lane]: gr.update(visible=True)}
        except NetPriorError as error:
            warn(str(error))
            yield done
            return
        finally:
            session.tuning = None
        if search.method is not search.given:
            changes = column.attempt(now, partial(setup.with_tuned, lane=lane, began=now, found=search.method), request)
            if column.experiment not in changes:  # the set-up has changed meanwhile, and was said so
                yield done
                return
            changes[column.presets[lane]] = column.preset_of(changes[column.experiment], lane)
            changes[column.shape_of_lanes[lane]] = f"{search.method.kind}/tuned/{time.monotonic_ns()}"  # drawn anew
            done |= changes
        inform(_outcome(search))
        yield done

    async def _searching(self, search: tuning.Search, session: Session, asked: threading.Event) -> AsyncGenerator[str, None]:
        """Has the trials computed one by one; yields how far it is. Raises Unsolvable when another run takes their place."""
        last, spoke, spent = session.race, 0.0, 0.0
        for trial in search.trials():
            race = trial.race
            if asked.is_set():
                return
            self.app.start_aside(session, race)
            try:
                while not race.done:
                    if asked.is_set():
                        race.stop()
                        self.app.scheduler.wake()
                    if time.monotonic() - spoke > SPEAK:
                        spoke = time.monotonic()
                        yield _progress(trial, search, spent, self.app.scheduler.place(race))
                    await asyncio.sleep(LOOK)
            finally:  # also when the tab was closed
                if not race.done:
                    race.stop()
                    self.app.scheduler.wake()
            if session.overtaken(last, race):
                raise Unsolvable(OVERTAKEN)
            spent += race.elapsed()


def _progress(trial: tuning.Trial, search: tuning.Search, spent: float, place: int) -> str:
    """Where a search is. spent: seconds of the trials before; place: how many races are ahead in line."""
    words = f"Trial {trial.number} of at most {trial.total}: {trial.words}."
    if search.psnr is not None:
        words += f" Best {search.psnr:.2f} dB"
        words += f" (your settings {search.first:.2f} dB)." if search.first is not None else "."
    if place:
        return f"{words} {place} {'run is' if place == 1 else 'runs are'} ahead."
    if trial.number > 1:
        each = spent / (trial.number - 1)
        left = each * (trial.total - trial.number) + max(0.0, each - trial.race.elapsed())
        words += f" About {left:.0f} s left."
    return words


def _outcome(search: tuning.Search) -> str:
    if search.psnr is None:
        return "The search was ended before anything was found: your settings are as they were."
    if search.method is search.given:
        return f"Nothing that was tried does better on this image than your settings ({search.psnr:.2f} dB): they stay."
    gain = f", your settings {search.first:.2f} dB" if search.first is not None else ""
    changed = tuning.changes(search.given, search.method)
    return f"{search.psnr:.2f} dB with {changed}{gain}. The search looked at the truth: no method could have found this by itself."
