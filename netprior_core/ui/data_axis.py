"""The data-axis view: PSNR against the number of examples, drawn while it is computed."""

from __future__ import annotations

import html
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import gradio as gr
import numpy as np

from netprior_core import data_axis
from netprior_core.compute import apart
from netprior_core.data_axis import Point
from netprior_core.errors import InvalidSettings, NetPriorError
from netprior_core.experiment import Experiment, race_of, shot_images
from netprior_core.frames import enlarged, tiled
from netprior_core.methods.lowshot import LowShot
from netprior_core.race import Race
from netprior_core.ui import files
from netprior_core.ui.say import warn
from netprior_core.ui.session import App, Session
from netprior_core.ui.setup import check_size
from netprior_core.ui.stream import stream

INTRO = (
    "<p class='np-empty'>How much is an example worth? The target and operator that are set up, solved with no "
    "examples, then with the first two, five, ten … of the set. Everything else stays the same. A point takes as long "
    "as learning from its examples does. Press a point to see its reconstruction.</p>"
)
#: Examples that are drawn under “What the network remembers”.
SHOWN = 24
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 640, 284, 52, 20, 28, 56
STOPPED = "You stopped it."
OVERTAKEN = "Another run began in this tab. The points so far are kept."


#: A press on a point of the chart, by pointer or key, chooses the reconstruction of the same place in the list.
SPOTS_JS = """() => {
  const press = (event) => {
    const spot = event.target.closest?.(".np-axis .spot");
    if (!spot || (event.type === "keydown" && event.key !== "Enter" && event.key !== " ")) return;
    event.preventDefault();
    document.querySelectorAll("#np-axis-choice input")[Number(spot.dataset.place)]?.click();
  };
  for (const name of ["click", "keydown"]) document.addEventListener(name, press);
}"""


@dataclass(frozen=True)
class Found:
    """A point that was computed."""

    shots: int
    label: str
    psnr: float
    seconds: float
    pixels: np.ndarray
    curve: str = "low-shot"


class DataAxis:
    """The tab: a button, a chart, and the reconstruction behind a point."""

    def __init__(self, app: App) -> None:
        self.app = app

    def build(self) -> None:
        """The components."""
        gr.HTML(INTRO)
        self.curves = gr.CheckboxGroup(
            [(words, name) for name, words in data_axis.CURVES.items()],
            value=["low-shot"],
            label="Curves",
            info="Low-shot learns from the images; learned regularisation from measurements of up to ten of them, a CS-DIP each; "
            "shipped priors know 5 to 100 faces, 10 cats or 10 x-rays already, GANs 9,500 faces or 60,000 digits: they solve at "
            "once.",
            elem_id="np-axis-curves",
        )
        with gr.Row():
            self.button = gr.Button("Draw the data axis", scale=0, min_width=200, elem_id="np-axis-run")
        self.progress = gr.HTML("", elem_id="np-axis-progress")
        self.chart = gr.HTML("", elem_id="np-axis-chart")
        self.found = gr.State([])
        self.choice = gr.Radio([], label="Show the reconstruction of", visible=False, interactive=True, elem_id="np-axis-choice")
        with gr.Row():
            common: dict[str, Any] = {
                "interactive": False,
                "visible": False,
                "height": 260,
                "buttons": ["download"],
                "format": "png",
            }
            self.picture = gr.Image(label="Reconstruction", elem_id="np-axis-picture", **common)
            self.truth = gr.Image(label="Truth", elem_id="np-axis-truth", **common)
        self.learned = gr.File(
            label="What was learned (a prior for each number of examples)",
            visible=False,
            interactive=False,
            elem_id="np-axis-priors",
        )

        gr.HTML("<h3>What the network remembers</h3>", elem_classes="np-heading")
        gr.HTML(
            "<p class='np-empty'>A low-shot prior gives every example a latent <i>z</i>, from which it draws the example again. On "
            "the way from one latent to another it draws pictures that were never shown to it: this is what it takes to be a "
            "picture of the class.</p>"
        )
        with gr.Row():
            number: dict[str, Any] = {"precision": 0, "minimum": 1, "maximum": 200, "interactive": True, "min_width": 120}
            self.first = gr.Number(1, label="Walk from example", elem_id="np-walk-from", **number)
            self.last = gr.Number(2, label="To example", elem_id="np-walk-to", **number)
            self.walk = gr.Button("Show what it remembers", scale=0, min_width=200, elem_id="np-walk")
        shown: dict[str, Any] = {"interactive": False, "visible": False, "buttons": ["download"], "format": "png"}
        self.remembered = gr.Image(label="The examples as it draws them", elem_id="np-walk-examples", **shown)
        self.steps = gr.Image(label="From one example to another", elem_id="np-walk-steps", **shown)

    def wire(self, experiment: gr.State, live: Any) -> None:
        """Connect the events."""
        quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
        shown = [self.choice, self.picture, self.truth, self.learned]
        outputs = [live, self.progress, self.chart, self.found, *shown, self.button]

        async def draw(now: Experiment | None, curves: list[str], request: gr.Request) -> AsyncIterator[dict[Any, Any]]:
            async for changes in self._draw(now, curves, live, request):
                yield changes

        self.button.click(draw, [experiment, self.curves], outputs, concurrency_limit=None, **quiet)
        self.walk.click(self._walk, [experiment, self.first, self.last], [self.remembered, self.steps], **quiet)
        self.choice.input(_picture_at, [self.choice, self.found], [self.picture], **quiet)

    def _walk(self, now: Experiment | None, first: float | None, last: float | None, request: gr.Request) -> Any:
        """Two sheets, of the examples and of the walk, or a warning that says what is missing."""
        now = self.app.setup(request.session_hash, now)
        methods = [] if now is None else now.methods
        method = next((m for m in methods if isinstance(m, LowShot) and m.start == "low-shot"), None)
        if now is None or method is None:
            warn("No method in the set-up learns a low-shot prior: choose one, or a set whose set-up has one.")
            return gr.skip(), gr.skip()
        session = self.app.session(request.session_hash)
        try:
            ends, name = (int(first or 1), int(last or 2)), _learned_last(session, now, method)
            sheets = apart(_walk_sheets, now, method, dict(session.images), *ends, name)
        except NetPriorError as error:
            warn(str(error))
            return gr.skip(), gr.skip()
        return tuple(gr.update(value=sheet, visible=True) for sheet in sheets)

    async def _draw(
        self, now: Experiment | None, curves: list[str], live: Any, request: gr.Request
    ) -> AsyncIterator[dict[Any, Any]]:
        now = self.app.setup(request.session_hash, now)
        ready = {self.button: gr.update(interactive=True)}  # every way out says so: a handler that says nothing empties its outputs
        if now is None:
            yield ready
            return
        session = self.app.session(request.session_hash)
        if session.why_busy:
            warn(session.why_busy)
            yield ready
            return
        try:
            check_size(now, self.app.max_size)
            points = data_axis.points(now, curves)
        except NetPriorError as error:
            warn(str(error))
            yield ready
            return
        for curve in curves:
            if reason := data_axis.refusal(now, curve):
                warn(reason)
        found: list[Found] = []
        kept: list[tuple[str, str]] = []  # names of what was learned, and of the files it is offered as
        last, race = session.race, None
        most, told = max(point.shots for point in points), 0.0
        empty: dict[Any, Any] = {part: gr.update(value=None, visible=False) for part in (self.picture, self.truth, self.learned)}
        empty[self.choice] = gr.update(choices=[], value=None, visible=False)
        yield {self.button: gr.update(interactive=False), self.chart: chart(found, most), self.found: found, **empty}
        for index, point in enumerate(points):
            if session.overtaken(last, race) or (race is not None and race.unwanted):
                yield {self.progress: _ended(OVERTAKEN if session.overtaken(last, race) else STOPPED, point), **ready}
                return
            race = race_of(point.experiment, dict(session.images), self.app.device, keep_frames=False)
            try:
                run = self.app.start_aside(session, race)
            except NetPriorError as error:
                yield {self.progress: _ended(str(error), point), **ready}
                return
            async with aclosing(stream(self.app, race, point.experiment, run, None)) as messages:
                async for message in messages:
                    if session.overtaken(last, race):
                        break
                    changes: dict[Any, Any] = {live: message}
                    if time.monotonic() - told > 1 or race.done:
                        told = time.monotonic()
                        changes[self.progress] = _words(race, point.label, index, len(points))
                    yield changes
            session.learned_by(race)
            kept += [(lane.prior, f"{point.shots}-examples-prior") for lane in race.lanes if lane.prior]
            one = _found(race, point)
            if one is None:
                lane = race.lanes[0]
                said = STOPPED if lane.state == "stopped" else lane.message or race.message
                said = OVERTAKEN if session.overtaken(last, race) else said
                yield {self.progress: _ended(said or "The race was stopped.", point), **ready}
                return
            found = [*found, one]
            yield self._with(found, most, race.truth_picture) | self._learned(session, kept)
        yield {self.progress: "<p class='np-empty'>Done. Choose a point to see its reconstruction.</p>", **ready}

    def _with(self, found: list[Found], most: int, truth: np.ndarray | None) -> dict[Any, Any]:
        """The chart with one more point, which is the one that is shown."""
        choices = [(f"{one.label}: {one.psnr:.2f} dB", place) for place, one in enumerate(found)]
        return {
            self.chart: chart(found, most),
            self.found: found,
            self.choice: gr.update(choices=choices, value=len(found) - 1, visible=True),
            self.picture: gr.update(**_picture(found[-1]), visible=True),
            self.truth: gr.update(value=None if truth is None else enlarged(truth), visible=True),
        }

    def _learned(self, session: Session, kept: Sequence[tuple[str, str]]) -> dict[Any, Any]:
        """What was learned, as files to download; a full disk takes nothing else away."""
        try:
            copies = files.prior_copies(session, kept)
        except OSError as error:
            warn(f"What was learned cannot be offered for download: {error.strerror}. Make room on the disk.")
            return {}
        return {self.learned: gr.update(value=copies or None, visible=bool(copies))}


def _found(race: Race, point: Point) -> Found | None:
    """The point that a race has computed, None when it did not get there."""
    lane = race.lanes[0]
    if lane.state != "finished" or lane.result is None or lane.result.psnr is None:
        return None
    seconds = lane.prepare_seconds + lane.seconds
    label = f"{point.label}, learning ended early" if race.ended_early else point.label
    return Found(point.shots, label, lane.result.psnr, seconds, lane.result.pixels, point.curve)


def _learned_last(session: Session, now: Experiment, method: LowShot) -> str:
    """The name of what the tab's last run learned with this method from these examples; "" when it did not."""
    race, ran = session.race, session.experiment
    if race is None or ran is None or (ran.shots, ran.size, ran.channels) != (now.shots, now.size, now.channels):
        return ""
    return next((lane.prior for lane in race.lanes if lane.method == method), "")


def _walk_sheets(
    now: Experiment, method: LowShot, images: dict[str, Any], first: int, last: int, name: str = ""
) -> tuple[np.ndarray, np.ndarray]:
    """The examples as drawn, and the pictures of a walk, side by side and enlarged. ``name``: of a prior that ended early."""
    trained = method.learned(shot_images(now, images), now.shape)
    if trained is None and name:
        trained = method.model_copy(update={"prior": name}).learned(None, now.shape)
    if trained is None:
        raise InvalidSettings("These examples were not learned yet with these settings: press Run once, then look.")
    count = len(trained.examples)
    if not (1 <= first <= count and 1 <= last <= count):
        raise InvalidSettings(f"This prior remembers {count} examples: choose numbers from 1 to {count}.")
    drawn = method.remembered(trained, now.shape, SHOWN)
    walk = method.walk(trained, now.shape, first - 1, last - 1)
    return tiled(drawn), tiled(walk)


def _ended(why: str, point: Point) -> str:
    return f"<p class='np-empty'>Ended at {html.escape(point.label)}: {html.escape(why)}</p>"


def _words(race: Race, label: str, index: int, total: int) -> str:
    lane = race.lanes[0]
    doing = "learning from the examples" if lane.state == "preparing" else "solving" if lane.state == "running" else race.state
    left = lane.eta()
    time_left = f", about {left:.0f} s left" if left is not None and not lane.done else ""
    of = f" {lane.iteration:,} of {lane.total:,}" if lane.total else ""
    return f"<p class='np-empty'>Point {index + 1} of {total}. {html.escape(label)}: {doing}{of}{time_left}.</p>"


def _picture_at(place: int | None, found: Sequence[Found]) -> Any:
    if place is None or not 0 <= int(place) < len(found):
        return gr.skip()
    return gr.update(**_picture(found[int(place)]))


def _picture(one: Found) -> dict[str, Any]:
    return {"value": enlarged(one.pixels), "label": f"Reconstruction: {one.label}"}


def chart(found: Sequence[Found], most: int) -> str:
    """PSNR against log(1 + S) as an SVG with a table for those who cannot see it."""
    if not found:
        return ""
    low, high = min(p.psnr for p in found), max(p.psnr for p in found)
    low, high = np.floor(low - 0.5), np.ceil(high + 0.5)

    def x(shots: int) -> float:
        return float(LEFT + (WIDTH - LEFT - RIGHT) * np.log1p(shots) / np.log1p(max(most, 1)))

    def y(psnr: float) -> float:
        return float(HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (psnr - low) / (high - low))

    lines = []
    step = max(1, round((high - low) / 5))
    for tick in np.arange(low, high + 1, step):
        lines.append(f"<line class='grid' x1='{LEFT}' x2='{WIDTH - RIGHT}' y1='{y(tick):.1f}' y2='{y(tick):.1f}'/>")
        lines.append(f"<text x='{LEFT - 8}' y='{y(tick) + 4:.1f}' text-anchor='end'>{tick:.0f}</text>")
    for s in sorted({p.shots for p in found}):
        # The last number ends with the chart: in its middle it would be cut on a phone.
        place, anchor = (x(s), "middle") if x(s) < WIDTH - 2 * RIGHT else (WIDTH, "end")
        lines.append(f"<text x='{place:.1f}' y='{HEIGHT - BOTTOM + 22}' text-anchor='{anchor}'>{s:,}</text>")
    drawn = []
    for number, curve in enumerate(dict.fromkeys(p.curve for p in found)):
        mine = [p for p in found if p.curve == curve]
        path = " ".join(f"{'M' if i == 0 else 'L'}{x(p.shots):.1f} {y(p.psnr):.1f}" for i, p in enumerate(mine))
        colour, dash = f"var(--np-lane-{number})", "" if number == 0 else f";stroke-dasharray:{7 - 3 * (number - 1)} 4"
        drawn.append(f"<path d='{path}' style='stroke:{colour}{dash}'/>")
        drawn += [_spot(p, place, x(p.shots), y(p.psnr), colour) for place, p in enumerate(found) if p.curve == curve]
    drawn += _names(found, x, y)
    words = f"<text x='{WIDTH - RIGHT}' y='{HEIGHT - 6}' text-anchor='end'>number of examples S (0: untrained)</text>"
    words += f"<text x='{LEFT}' y='18'>PSNR, dB</text>"
    rows = "".join(
        f"<tr><th scope='row'>{p.shots}</th><td>{p.psnr:.2f}</td><td>{p.seconds:.1f}</td><td>{html.escape(p.label)}</td></tr>"
        for p in found
    )
    table = f"<table class='np-hidden'><tr><th>examples</th><th>PSNR, dB</th><th>seconds</th><th>what</th></tr>{rows}</table>"
    return (
        f"<svg class='np-axis' viewBox='0 0 {WIDTH} {HEIGHT}' role='group' aria-label='PSNR against the number of examples'>"
        f"{''.join(lines)}{''.join(drawn)}{words}</svg>{table}"
    )


def _spot(point: Found, place: int, x: float, y: float, colour: str) -> str:
    """A point that can be pressed, wider than it looks; SPOTS_JS does what a press means."""
    words = f"{html.escape(point.label)}: {point.psnr:.2f} dB"
    return (
        f"<g class='spot' data-place='{place}' tabindex='0' role='button' aria-label='Show {words}'><title>{words}</title>"
        f"<circle class='reach' cx='{x:.1f}' cy='{y:.1f}' r='14'/>"
        f"<circle cx='{x:.1f}' cy='{y:.1f}' r='4' style='fill:{colour}'/></g>"
    )


def _names(found: Sequence[Found], x: Callable[[int], float], y: Callable[[float], float]) -> list[str]:
    """The name of each curve at its end, where there is more than one; names that would touch move apart."""
    ends = {p.curve: p for p in found}
    if len(ends) < 2:
        return []
    numbers = {curve: number for number, curve in enumerate(dict.fromkeys(p.curve for p in found))}
    names, lowest = [], 0.0
    for curve, p in sorted(ends.items(), key=lambda item: -item[1].psnr):
        at = max(y(p.psnr) - 9, TOP + 10, lowest)
        lowest = at + 22  # on a phone letters are 21 high
        place, anchor = (x(p.shots), "end") if x(p.shots) > WIDTH / 2 else (x(p.shots) + 8, "start")
        style = f"fill:var(--np-lane-{numbers[curve]})"
        name = html.escape(data_axis.CURVES[curve])
        names.append(f"<text x='{place:.1f}' y='{at:.1f}' text-anchor='{anchor}' style='{style}'>{name}</text>")
    return names
