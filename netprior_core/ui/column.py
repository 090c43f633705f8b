"""The set-up column: controls that show an experiment, and the events that change it.

Every event handler returns a dict of component to new value; what is not in it stays as it is.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr

from netprior_core import examples, link
from netprior_core.compute import apart
from netprior_core.errors import NetPriorError
from netprior_core.experiment import MAX_LANES, Experiment, UploadedImage
from netprior_core.operators import Operator
from netprior_core.settings import field_spec
from netprior_core.stopping import StoppingRule
from netprior_core.ui import files, setup
from netprior_core.ui.drawn import QUIET, Change, Changes
from netprior_core.ui.preview import Previewed
from netprior_core.ui.say import inform, warn
from netprior_core.ui.session import App
from netprior_core.ui.tuner import Tuner
from netprior_core.ui.wire import recording_message

SIZES = (28, 32, 64, 128, 256, 512, 1024)
TO_THE_LIVE_VIEW = """() => {
  const calm = matchMedia('(prefers-reduced-motion: reduce)').matches;
  document.querySelector('#live').scrollIntoView({ behavior: calm ? 'auto' : 'smooth' });
  document.querySelector('#live [data-ref=run]').focus({ preventScroll: true });
}"""
#: With the keyboard it is sixty stops from the first control to Run.
SKIP = "document.querySelector('#live .np-buttons button:not(:disabled)').focus()"
TO_LEARN = (
    "const tab = [...document.querySelectorAll('#np-tabs [role=tab]')].find((t) => t.textContent.trim() === 'Learn');"
    "tab.click(); tab.scrollIntoView({ block: 'start' }); tab.focus({ preventScroll: true })"
)
NO_LINK = "Uploaded images cannot be in a link: share the zip of a run instead."


class Column(Previewed):
    """Builds the controls. ``live``, the live view, is set by the page before :meth:`wire`."""

    def __init__(self, app: App) -> None:
        self.app = app
        self.sizes = [size for size in SIZES if size <= app.max_size] or [app.max_size]
        self.sets = examples.sets()
        self.tuner = Tuner(app)
        self.experiment = gr.State(None)
        self.nonce = gr.State(0)  # counts the times that the controls were set anew
        self.shape_of_operator = gr.State("")  # when one of these changes, its settings are drawn anew
        self.shape_of_rules = gr.State("")
        self.shape_of_lanes = [gr.State("") for _ in range(MAX_LANES)]

    def build(self) -> None:
        """All controls, from examples to sharing."""
        gr.HTML(
            f"<button type='button' class='np-skip' onclick=\"{SKIP}\">Go to the race</button><h1>NetPrior</h1>"
            "<p>Recover an image from an incomplete measurement, with priors that learned from nothing, "
            "from a few images, or from many. "
            f"<button type='button' class='np-new' onclick=\"{TO_LEARN}\">New here?</button></p>",
            elem_id="np-title",
        )
        gr.HTML("<h2><b>1</b> Examples <i>shots</i></h2>", elem_classes="np-step")
        self.gallery = gr.Gallery(
            value=[(apart(files.thumbnail, found.key), found.title) for found in self.sets],
            columns=4,
            height=None,
            allow_preview=False,
            show_label=False,
            label="Embedded examples",
            interactive=False,
            buttons=[],
            elem_id="np-sets",
        )
        self.blurb = gr.HTML("", elem_id="np-blurb")
        self.count = gr.Slider(
            0, 100, value=10, step=1, label="Shots", info="Example images that a prior may learn from.", interactive=True
        )
        with gr.Accordion("Use your own images", open=False):
            common: dict[str, Any] = {"type": "filepath", "file_types": ["image"], "height": 140}
            self.shot_files = gr.File(
                label="Examples (shots): 2 to 100 images", file_count="multiple", elem_id="np-shot-files", **common
            )
            common["file_types"] = ["image", ".npy"]
            self.target_file = gr.File(
                label="Target: an image, or your measurement as numbers (.npy)", elem_id="np-target-file", **common
            )
            self.target_is = gr.Radio(
                [("the truth: measure it for me", "truth"), ("the measurement itself", "measurement")],
                value="truth",
                label="The target is",
                info="A measurement has no truth to compare with, so no PSNR. A picture can be the measurement of denoising, "
                "inpainting, super-resolution, deblurring and colorization; of any other operator, upload the numbers.",
                interactive=True,
            )
        gr.HTML("<h2><b>2</b> Target <i>x</i></h2>", elem_classes="np-step")
        self.target = gr.Dropdown(
            [], label="Image, held out from the shots", filterable=False, interactive=True, elem_id="np-target"
        )
        with gr.Row():
            self.size = gr.Dropdown(self.sizes, label="Size (pixels)", filterable=False, interactive=True, min_width=100)
            self.channels = gr.Dropdown(
                [("grey", 1), ("colour", 3)], label="Channels", filterable=False, interactive=True, min_width=100
            )
        gr.HTML("<h2><b>3</b> Operator <i>A</i></h2>", elem_classes="np-step")
        kinds = [(cls.title, cls.model_fields["kind"].default) for cls in Operator.registry]
        self.operator = gr.Dropdown(kinds, label="What the camera did", filterable=False, interactive=True, elem_id="np-operator")
        self._render_operator()
        gr.HTML("<h2><b>4</b> Methods <i>x̂</i></h2>", elem_classes="np-step")
        self.lanes: list[gr.Group] = []
        self.methods: list[gr.Dropdown] = []
        self.presets: list[gr.Dropdown] = []
        self.refused: list[gr.HTML] = []
        for lane in range(MAX_LANES):
            with gr.Group(elem_classes=f"np-lane np-lane-{lane}") as group:
                self.lanes.append(group)
                with gr.Row():
                    choices: dict[str, Any] = {"filterable": False, "interactive": True, "min_width": 120}
                    self.methods.append(gr.Dropdown([], label=f"Method {lane + 1}", elem_id=f"np-method-{lane}", **choices))
                    self.presets.append(gr.Dropdown([], label="Settings", elem_id=f"np-preset-{lane}", **choices))
                self.refused.append(gr.HTML("", visible=False, elem_id=f"np-why-{lane}"))
                self._render_lane(lane)
                self.tuner.build(lane)
        gr.HTML("<h2><b>5</b> Run</h2>", elem_classes="np-step")
        with gr.Row():
            self.seed = gr.Number(
                label="Seed",
                info="Draws A, the noise and every network.",
                interactive=True,
                min_width=100,
                elem_id="np-seed",
            )
            self.seeds = gr.Number(
                label="Runs of each method",
                info="From several seeds: median, range, spread map.",
                interactive=True,
                min_width=100,
                elem_id="np-seeds",
            )
        with gr.Row():
            self.schedule = gr.Dropdown(
                [("by iteration", "iteration"), ("by clock", "clock")],
                label="Race",
                info="Whose turn it is: one step each, or equal seconds.",
                filterable=False,
                interactive=True,
                min_width=140,
            )
            self.stop_by = gr.Dropdown(
                setup.stop_choices(),
                label="Stopped by",
                info="What really ends each method.",
                filterable=False,
                interactive=True,
                min_width=120,
                elem_id="np-stop-by",
            )
        with gr.Accordion("Stopping rules", open=False) as self.rules_box:
            self.rules = gr.CheckboxGroup(
                [(cls.title, cls.model_fields["kind"].default) for cls in StoppingRule.registry],
                label="Rules that watch",
                info="They do not know the truth. Where each would stop is marked in the curves.",
                interactive=True,
                elem_id="np-rules",
            )
            self._render_rules()
        with gr.Accordion("Share and restore", open=False):
            self.link = gr.Textbox(label="Link to this set-up", interactive=False, buttons=["copy"], elem_id="np-link", max_lines=2)
            self.file = gr.File(
                label="Open an experiment.json or a recording's zip",
                file_types=[".json", ".zip"],
                type="filepath",
                height=110,
                elem_id="np-open",
            )

    def wire(self, tries: list[tuple[Any, Callable[..., Experiment], str]]) -> None:
        """Connect the events. ``tries``: buttons, the experiment each fills in, the recording shown with it ("": none)."""
        everything = self.everything()
        shown = [self.live, *self.methods, *self.refused]
        self.experiment.change(self.looked_at, [self.experiment], shown, trigger_mode="always_last", **QUIET)
        self.experiment.change(self.linked, [self.experiment], [self.link], trigger_mode="always_last", **QUIET)

        def value_of(component: Any, name: str) -> None:
            """A control that stands for one value of the experiment."""
            field = replace(field_spec(name, Experiment.model_fields[name]), label=str(component.label))
            inputs = [component, self.experiment]
            component.input(self.typed(field, []), inputs, self.of_a_value(), trigger_mode="always_last", **QUIET)
            if isinstance(component, gr.Number):
                self.settle(component, field, [])

        def all_of(listener: Callable[..., Any], component: Any, change: Callable[..., Experiment]) -> None:
            """An event after which every control is set anew."""

            def changed(value: Any, now: Experiment, nonce: int, request: gr.Request) -> Changes:
                return self.renew(now, nonce, lambda base: change(base, value), request)

            listener(changed, [component, self.experiment, self.nonce], everything, trigger_mode="always_last", **QUIET)

        value_of(self.seed, "seed")
        value_of(self.seeds, "seeds")
        all_of(self.rules.input, self.rules, setup.with_rules)
        all_of(self.stop_by.input, self.stop_by, setup.with_stop_by)
        value_of(self.schedule, "schedule")
        value_of(self.size, "size")
        value_of(self.channels, "channels")
        all_of(self.operator.input, self.operator, setup.with_operator)
        all_of(self.target.input, self.target, setup.with_target)
        all_of(self.count.input, self.count, setup.with_count)
        all_of(self.target_is.input, self.target_is, lambda now, value: setup.change(now, ["target_is"], value))
        for lane, (method, preset) in enumerate(zip(self.methods, self.presets, strict=True)):
            all_of(method.input, method, partial(setup.with_method, lane=lane))
            all_of(preset.input, preset, partial(setup.with_preset, lane=lane))
        self.tuner.wire(self)
        for button, change, recording in tries:
            self._wire_try(button, change, recording)

        boxes: Changes = {self.shot_files: None, self.target_file: None}  # emptied: what they show is not in use any more

        def pick_set(now: Experiment, nonce: int, event: gr.SelectData, request: gr.Request) -> Changes:
            changes = self.renew(now, nonce, lambda base: setup.from_set(self.sets[event.index].key, base.seed), request)
            return {**changes, **boxes}

        def target_uploaded(path: str | None, now: Experiment, nonce: int, request: gr.Request) -> Changes:
            session = self.app.session(request.session_hash)
            taken = apart(files.take_target, session, path) if path else None
            self.app.trim(session)
            if taken is None:
                return {self.target_file: None}  # what is not used is not shown as if it were
            return self.renew(now, nonce, lambda base: setup.with_uploads(base, taken, None), request)

        def target_taken_back(now: Experiment, nonce: int, request: gr.Request) -> Changes:
            return self.renew(now, nonce, lambda base: setup.without_uploads(base, target=True), request)

        def shots_taken_back(paths: list[str] | None, now: Experiment, nonce: int, request: gr.Request) -> Changes:
            used = self.app.setup(request.session_hash, now)
            if used is not None and used.shots.source != "upload":  # the box still shows files that are not in use
                return {self.nonce: nonce}
            if paths:
                return shots_uploaded(paths, now, nonce, request)
            return self.renew(now, nonce, lambda base: setup.without_uploads(base, shots=True), request)

        def shots_uploaded(paths: list[str] | None, now: Experiment, nonce: int, request: gr.Request) -> Changes:
            taken = self._take(paths or [], request)
            names = [one.name for one in taken]
            kept = [path for path in paths or [] if Path(path).name[:80] in names]
            shown = {self.shot_files: kept or None} if kept != paths else {}
            if not taken:
                return shown
            return {**self.renew(now, nonce, lambda base: setup.with_uploads(base, None, taken), request), **shown}

        self.gallery.select(pick_set, [self.experiment, self.nonce], [*everything, *boxes], **QUIET)
        for component, handler in (
            (self.target_file, target_uploaded),
            (self.shot_files, shots_uploaded),
            (self.file, self._opened),
        ):
            component.upload(handler, [component, self.experiment, self.nonce], [*everything, component], **QUIET)
        self.target_file.clear(target_taken_back, [self.experiment, self.nonce], everything, **QUIET)
        for listener in (self.shot_files.clear, self.shot_files.delete):
            inputs = [self.shot_files, self.experiment, self.nonce]
            listener(shots_taken_back, inputs, [*everything, self.shot_files], **QUIET)

    def _wire_try(self, button: gr.Button, change: Callable[..., Experiment], recording: str) -> None:
        """A card's button: its experiment, its recording, and the eye and the keyboard back at the live view."""

        def tried(now: Experiment, nonce: int, request: gr.Request) -> Changes:
            changes = self.renew(now, nonce, lambda base: change(base, None), request)
            if self.app.session(request.session_hash).racing:
                inform("The set-up is changed. A race is running: stop it, then press Run.")
            elif recording and (recorded := files.recorded(files.ASSETS / recording)) is not None:
                changes[self.live] = recorded
                shown = self.app.setup(request.session_hash, now)
                assert shown is not None
                self.shows(shown, request)
            return changes

        button.click(tried, [self.experiment, self.nonce], self.everything(), trigger_mode="always_last", **QUIET)
        button.click(None, js=TO_THE_LIVE_VIEW)

    def everything(self) -> list[Any]:
        """Every component that shows a part of the experiment."""
        states = [self.experiment, self.nonce, self.shape_of_operator, self.shape_of_rules, *self.shape_of_lanes]
        controls = [self.gallery, self.blurb, self.count, self.target_is, self.target, self.size, self.channels, self.operator]
        run = [self.seed, self.seeds, self.schedule, self.rules, self.rules_box, self.stop_by]
        return [*states, self.live, *controls, *run, *self.lanes, *self.methods, *self.presets, *self.refused]

    def show(self, experiment: Experiment, nonce: int, request: gr.Request) -> Changes:
        """An experiment in every control; the live view follows the experiment's own change."""
        available, used = setup.shot_counts(experiment)
        targets, chosen = setup.target_choices(experiment)
        changes: Changes = {
            self.experiment: experiment,
            self.nonce: nonce,
            self.shape_of_operator: f"{experiment.operator.kind}/{nonce}",
            self.gallery: gr.update(selected_index=self._set_in_use(experiment)),
            self.blurb: setup.blurb(experiment),
            self.count: gr.update(maximum=max(1, available), value=used, visible=available > 0),
            self.target_is: experiment.target_is,
            self.target: gr.update(choices=targets, value=chosen),
            self.size: gr.update(choices=sorted({*self.sizes, experiment.size}), value=experiment.size),
            self.channels: experiment.channels,
            self.operator: experiment.operator.kind,
            self.seed: experiment.seed,
            self.seeds: experiment.seeds,
            self.schedule: experiment.schedule,
            self.rules: [rule.kind for rule in experiment.stopping],
            self.stop_by: experiment.stop_by,
            self.rules_box: gr.update(open=True) if experiment.stopping else gr.skip(),
            self.shape_of_rules: f"{'+'.join(rule.kind for rule in experiment.stopping)}/{nonce}",
        }
        session = self.app.session(request.session_hash)
        for lane in range(MAX_LANES):
            here = lane < len(experiment.methods)
            changes[self.shape_of_lanes[lane]] = f"{experiment.methods[lane].kind}/{nonce}" if here else "none"
            changes[self.lanes[lane]] = gr.update(visible=lane <= len(experiment.methods))
            changes[self.methods[lane]] = self.menu(experiment, lane, session)
            changes[self.presets[lane]] = self.preset_of(experiment, lane)
        return changes

    def linked(self, now: Experiment | None, request: gr.Request) -> str:
        """The address of this page with the set-up in it as last edited.

        Of two controls changed in quick succession the answers may come in either order: the link is not part of them.
        """
        experiment = self.app.setup(request.session_hash, now)
        text = link.encode(experiment) if experiment is not None else None
        if text is None:
            return NO_LINK
        page = request.headers.get("referer") or request.headers.get("origin") or ""
        return f"{page.split('?')[0].split('#')[0]}?x={text}"

    def attempt(self, now: Experiment, change: Change, request: gr.Request) -> Changes:
        """One changed value, or a warning and nothing."""
        try:
            before, new = self.app.session(request.session_hash).edit(now, change)
        except NetPriorError as error:
            warn(str(error))
            return gr.skip()
        changes: Changes = {self.experiment: new}
        for lane in _given_up(before, new):
            changes[self.presets[lane]] = self.preset_of(new, lane)
            changes[self.shape_of_lanes[lane]] = f"{new.methods[lane].kind}/untuned/{time.monotonic_ns()}"  # drawn anew
        return changes

    def renew(self, now: Experiment, nonce: int, change: Change, request: gr.Request) -> Changes:
        """The controls that a change concerns; after one that does not fit, every control as it was; nothing where all is the same.

        Others may have been changed by the person meanwhile, and are left as they are on the screen.
        """
        session = self.app.session(request.session_hash)
        try:
            now, new = session.edit(now, change)
        except NetPriorError as error:
            warn(str(error))
            return self.show(session.setup or now, nonce + 1, request)
        if new == now:  # a list that was only looked at reports its value, too
            return {self.nonce: nonce}
        _given_up(now, new)
        changes = self.show(new, nonce + 1, request)
        known = self.show(now, nonce + 1, request)
        kept = {self.experiment, self.nonce, self.shape_of_operator, self.shape_of_rules, *self.shape_of_lanes}
        changes = {component: value for component, value in changes.items() if component in kept or known[component] != value}
        # Settings that did not change are not drawn anew: an opened accordion stays open.
        if all(getattr(new, part) == getattr(now, part) for part in ("operator", "noise", "mismatch")):
            del changes[self.shape_of_operator]
        if new.stopping == now.stopping:
            del changes[self.shape_of_rules]
        for lane, (before, after) in enumerate(zip(now.methods, new.methods, strict=False)):
            if before == after:
                del changes[self.shape_of_lanes[lane]]
        return changes

    def anew(self, now: Experiment, nonce: int, change: Change, request: gr.Request) -> Changes:
        session = self.app.session(request.session_hash)
        _, new = session.edit(now, change)
        session.shown = None  # the live view shows what was the case before
        return {**self.show(new, nonce + 1, request), **self.seen(new, request)}

    def _take(self, paths: list[str], request: gr.Request) -> list[UploadedImage]:
        session = self.app.session(request.session_hash)
        taken = apart(files.take, session, paths)
        self.app.trim(session)
        return taken

    def _opened(self, path: str | None, now: Experiment, nonce: int, request: gr.Request) -> Changes:
        """A file from a person: an experiment or a recording."""
        if path is None:
            return gr.skip()
        session = self.app.session(request.session_hash)
        try:
            recording = files.open_recording(path)
            setup.check_size(recording.experiment, self.app.max_size)
        except NetPriorError as error:
            warn(str(error))
            return {self.file: None}
        for sha256, pixels in recording.images.items():
            session.keep(sha256, pixels)
        self.app.trim(session)
        session.edit(now, lambda _: recording.experiment)
        changes = self.show(recording.experiment, nonce + 1, request)
        if recording.lanes and session.racing:
            inform("The set-up is opened. A race is running: stop it and open the file again to see the recording, too.")
        elif recording.lanes:
            changes[self.live] = recording_message(recording, "A recording from a file. Press Run to compute it again.")
            self.shows(recording.experiment, request)
        return changes

    def _set_in_use(self, experiment: Experiment) -> int | None:
        """The place of the embedded set whose examples are in use, None for the person's own."""
        if experiment.shots.source != "embedded":
            return None
        return next((place for place, found in enumerate(self.sets) if found.key == experiment.shots.set), None)

    def preset_of(self, experiment: Experiment, lane: int) -> Any:
        if lane >= len(experiment.methods):
            return gr.update(choices=[], value=None, visible=False)
        names, used = setup.preset_choices(experiment, lane)
        return gr.update(choices=names, value=used, visible=True)

    def tune_button(self, lane: int) -> None:
        self.tuner.button(lane)


def _given_up(before: Experiment, after: Experiment) -> list[int]:
    """Lanes that are no longer as a search has left them, since the problem is another one; the person is told."""
    lanes = setup.given_up(before, after)
    if lanes:
        titles = " and ".join(dict.fromkeys(after.methods[lane].title for lane in lanes))
        inform(f"{titles}: the settings that were tuned on the image are the usual ones again, since the problem has changed.")
    return lanes
