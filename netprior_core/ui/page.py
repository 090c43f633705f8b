"""The page: set-up on the left, the live view with results and cards on the right."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr
import torch

from netprior_core import examples, link
from netprior_core.errors import InvalidSettings, NetPriorError
from netprior_core.experiment import MAX_LANES, Experiment, build, race_of
from netprior_core.methods import Method
from netprior_core.operators import Operator
from netprior_core.ui import api, files, learn, results, setup
from netprior_core.ui.controls import control, split
from netprior_core.ui.live import PARTS, live_view
from netprior_core.ui.session import App
from netprior_core.ui.session import control as control_run
from netprior_core.ui.stream import stream
from netprior_core.ui.theme import CSS, theme
from netprior_core.ui.wire import Feed, recorded_frames, recording_message, setup_message

MAX_FILE_SIZE = "20mb"
SIZES = (32, 64, 128, 256, 512, 1024)
HIDEABLE = (*PARTS, "setup", "results", "learn")
QUIET: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
NOTHING = ""  # the empty choice of a lane
ASSETS = Path(__file__).resolve().parents[2] / "assets"
FIRST_VISIT = ASSETS / "first_visit.zip"
SETUP_CSS = ASSETS / "setup.css"


class Page:
    """Builds the Blocks and holds what its handlers share: the app's state and the components they update."""

    def __init__(self, app: App) -> None:
        self.app = app
        self.sizes = [size for size in SIZES if size <= app.max_size] or [app.max_size]
        self.sets = examples.sets()

    # -- building -----------------------------------------------------------------------------------------------------------

    def build(self) -> gr.Blocks:
        """The whole page."""
        with gr.Blocks(title="NetPrior", analytics_enabled=False, delete_cache=(3600, 3600)) as demo:
            self.experiment = gr.State(None)
            self.nonce = gr.State(0)
            self.shape_of_operator = gr.State("")
            self.shape_of_lanes = [gr.State("") for _ in range(MAX_LANES)]
            with gr.Row(elem_id="np-page"):
                with gr.Column(scale=3, min_width=300, elem_id="np-setup") as self.column:
                    self._setup_column()
                with gr.Column(scale=9, min_width=340, elem_id="np-main"):
                    self.live = live_view(None, [self._control(), self._frames()])
                    with gr.Tabs(elem_id="np-tabs"):
                        with gr.Tab("Results") as self.results_tab:
                            self._results()
                        with gr.Tab("Learn") as self.learn_tab:
                            self._learn()
            self._wire(demo)
            api.add(self.app)
        return demo

    def _setup_column(self) -> None:
        gr.HTML(
            "<h1>NetPrior</h1><p>Recover an image from an incomplete measurement, with priors that learned from nothing, "
            "from a few images, or from many.</p>",
            elem_id="np-title",
        )
        gr.HTML("<h2><b>1</b> Examples <i>shots</i></h2>", elem_classes="np-step")
        self.gallery = gr.Gallery(
            value=[(files.thumbnail(found.key), found.title) for found in self.sets],
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
            common: dict[str, Any] = {"type": "filepath", "file_types": ["image"], "height": 110}
            self.shot_files = gr.File(
                label="Examples (shots): 2 to 100 images", file_count="multiple", elem_id="np-shot-files", **common
            )
            self.target_file = gr.File(label="Target image", elem_id="np-target-file", **common)
            self.target_is = gr.Radio(
                [("the truth: measure it for me", "truth"), ("the measurement itself", "measurement")],
                value="truth",
                label="The target is",
                info="A measurement has no truth to compare with, so no PSNR. Denoising, inpainting and super-resolution only.",
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
        for lane in range(MAX_LANES):
            with gr.Group(elem_classes=f"np-lane np-lane-{lane}") as group:
                self.lanes.append(group)
                with gr.Row():
                    choices: dict[str, Any] = {"filterable": False, "interactive": True, "min_width": 120}
                    self.methods.append(gr.Dropdown([], label=f"Method {lane + 1}", elem_id=f"np-method-{lane}", **choices))
                    self.presets.append(gr.Dropdown([], label="Settings", elem_id=f"np-preset-{lane}", **choices))
                self._render_lane(lane)
        gr.HTML("<h2><b>5</b> Run</h2>", elem_classes="np-step")
        with gr.Row():
            self.seed = gr.Number(
                label="Seed", precision=0, minimum=0, maximum=2**31 - 1, interactive=True, min_width=100, elem_id="np-seed"
            )
            self.schedule = gr.Dropdown(
                [("by iteration", "iteration"), ("by clock", "clock")],
                label="Race",
                filterable=False,
                interactive=True,
                min_width=140,
            )
        with gr.Accordion("Share and restore", open=False):
            self.link = gr.Textbox(label="Link to this set-up", interactive=False, buttons=["copy"], elem_id="np-link", max_lines=2)
            self.file = gr.File(
                label="Open an experiment.json or a recording's zip",
                file_types=[".json", ".zip"],
                type="filepath",
                height=110,
                elem_id="np-open",
            )

    def _render_operator(self) -> None:
        @gr.render(inputs=[self.experiment], triggers=[self.shape_of_operator.change])
        def operator_settings(experiment: Experiment | None) -> None:
            if experiment is None:
                return
            main, more = split(experiment.operator)
            for field in main:
                self._field(experiment, ["operator"], field, "operator")
            if getattr(experiment.operator, "pattern", "") == "drawn":
                self._mask_editor(experiment)
            for field in experiment.noise.fields():
                self._field(experiment, ["noise"], field, "noise")
            if [field for field in more if not field.widget]:
                with gr.Accordion("More about this operator", open=False):
                    for field in more:
                        self._field(experiment, ["operator"], field, "operator")

    def _render_lane(self, lane: int) -> None:
        @gr.render(inputs=[self.experiment], triggers=[self.shape_of_lanes[lane].change])
        def lane_settings(experiment: Experiment | None) -> None:
            if experiment is None or lane >= len(experiment.methods):
                return
            method = experiment.methods[lane]
            main, more = split(method)
            if not main:
                return
            with gr.Accordion(f"{method.title} settings", open=False):
                for field in main:
                    self._field(experiment, ["methods", lane], field, f"method-{lane}")
                if more:
                    with gr.Accordion("All other settings", open=False):
                        for field in more:
                            self._field(experiment, ["methods", lane], field, f"method-{lane}")
                if method.citation:
                    gr.Markdown(method.citation, elem_classes="np-citation")

    def _field(self, experiment: Experiment, path: list[str | int], field: Any, key: str) -> None:
        settings: Any = experiment.operator if path[0] == "operator" else experiment.noise
        if path[0] == "methods":
            settings = experiment.methods[int(path[1])]
        component = control(field, getattr(settings, field.name), key)
        if component is None:
            return
        reshape = path[0] == "operator" and field.type == "choice"

        def changed(value: Any, now: Experiment, nonce: int, request: gr.Request) -> Any:
            if value is None and not field.optional:
                return gr.skip(), gr.skip(), gr.skip(), gr.skip(), gr.skip()
            value = int(value) if field.type == "int" and value is not None else value
            new, message = self._try(now, lambda: setup.change(now, [*path, field.name], value), request)
            shape = f"{new.operator.kind}/{nonce}/{value}" if reshape else gr.skip()
            name = self._preset_update(new, int(path[1])) if path[0] == "methods" else gr.skip()
            return new, message, self._link_text(new), shape, name

        lane = int(path[1]) if path[0] == "methods" else 0
        outputs = [self.experiment, self.live, self.link, self.shape_of_operator, self.presets[lane]]
        inputs = [component, self.experiment, self.nonce]
        component.input(changed, inputs, outputs, trigger_mode="always_last", **QUIET)  # type: ignore[attr-defined]

    def _mask_editor(self, experiment: Experiment) -> None:
        editor = gr.ImageEditor(
            value=files.editor_background(experiment),  # type: ignore[arg-type]
            label="Draw over what is to be hidden",
            type="numpy",
            image_mode="RGBA",
            brush=gr.Brush(default_size=18, colors=["#ffffff"], color_mode="fixed"),
            layers=False,
            transforms=(),
            sources=(),
            height=340,
            interactive=True,
            elem_id="np-mask",
        )

        def drawn(value: Any, now: Experiment, request: gr.Request) -> Any:
            mask = files.mask_of(value, now.size)
            if mask is None:
                return gr.skip(), gr.skip()
            return self._try(now, lambda: setup.change(now, ["operator", "mask"], mask), request)

        editor.change(drawn, [editor, self.experiment], [self.experiment, self.live], trigger_mode="always_last", **QUIET)

    def _results(self) -> None:
        self.table = gr.HTML(results.EMPTY, elem_id="np-results")
        with gr.Row():
            self.again = gr.Button("Show this run again", interactive=False, scale=0, min_width=200, elem_id="np-again")
            self.download = gr.DownloadButton(
                "Download everything (zip)", interactive=False, elem_id="np-download", scale=0, min_width=240
            )
        self.sheet = gr.Image(
            label="Contact sheet",
            interactive=False,
            type="filepath",
            format="png",
            visible=False,
            buttons=["download", "fullscreen"],
            elem_id="np-sheet",
        )

    def _learn(self) -> None:
        self.tries: list[tuple[gr.Button, learn.Card]] = []
        with gr.Row(elem_id="np-cards"):
            for card in learn.CARDS:
                with gr.Column(elem_classes="np-card", min_width=260):
                    gr.HTML(card.html())
                    self.tries.append((gr.Button("Try it", size="sm", scale=0), card))

    # -- wiring -------------------------------------------------------------------------------------------------------------

    def _wire(self, demo: gr.Blocks) -> None:
        everything = self._everything()
        outputs, keep = [self.experiment, self.live, self.link], [self.experiment]

        def value_of(component: Any, path: list[str | int], event: str = "input") -> None:
            def changed(value: Any, now: Experiment, request: gr.Request) -> Any:
                new, message = self._try(now, lambda: setup.change(now, path, value), request)
                return new, message, self._link_text(new)

            getattr(component, event)(changed, [component, *keep], outputs, trigger_mode="always_last", **QUIET)

        value_of(self.seed, ["seed"])
        value_of(self.schedule, ["schedule"])
        value_of(self.size, ["size"])
        value_of(self.channels, ["channels"])

        def all_of(listener: Callable[..., Any], component: Any, change: Callable[..., Experiment]) -> None:
            """An event after which every control is set anew."""

            def changed(value: Any, now: Experiment, nonce: int, request: gr.Request) -> Any:
                return self._show_change(now, nonce, lambda: change(now, value), request)

            listener(changed, [component, self.experiment, self.nonce], everything, trigger_mode="always_last", **QUIET)

        all_of(self.operator.input, self.operator, setup.with_operator)
        all_of(self.target.input, self.target, setup.with_target)
        all_of(self.count.input, self.count, setup.with_count)
        all_of(self.target_is.input, self.target_is, lambda now, value: setup.change(now, ["target_is"], value))
        for lane, (method, preset) in enumerate(zip(self.methods, self.presets, strict=True)):
            all_of(method.input, method, partial(setup.with_method, lane=lane))
            all_of(preset.input, preset, partial(setup.with_preset, lane=lane))
        for button, card in self.tries:
            all_of(button.click, self.nonce, card.instead_of)

        def pick_set(now: Experiment, nonce: int, event: gr.SelectData, request: gr.Request) -> Any:
            return self._show_change(now, nonce, lambda: setup.from_set(self.sets[event.index].key, now.seed), request)

        self.gallery.select(pick_set, [self.experiment, self.nonce], everything, **QUIET)

        def target_uploaded(path: str | None, now: Experiment, nonce: int, request: gr.Request) -> Any:
            if path is None:
                return [gr.skip()] * len(everything)
            image = files.take(self.app.session(request.session_hash), [path])
            return self._show_change(now, nonce, lambda: setup.with_uploads(now, image[0] if image else None, None), request)

        def shots_uploaded(paths: list[str] | None, now: Experiment, nonce: int, request: gr.Request) -> Any:
            if not paths:
                return [gr.skip()] * len(everything)
            shots = files.take(self.app.session(request.session_hash), paths)
            return self._show_change(now, nonce, lambda: setup.with_uploads(now, None, shots or None), request)

        self.target_file.upload(target_uploaded, [self.target_file, self.experiment, self.nonce], everything, **QUIET)
        self.shot_files.upload(shots_uploaded, [self.shot_files, self.experiment, self.nonce], everything, **QUIET)

        def opened(path: str | None, now: Experiment, nonce: int, request: gr.Request) -> Any:
            if path is None:
                return [gr.skip()] * len(everything)
            session = self.app.session(request.session_hash)
            try:
                recording = files.open_recording(path)
                setup.check_size(recording.experiment, self.app.max_size)
            except NetPriorError as error:
                gr.Warning(str(error))
                return [gr.skip()] * len(everything)
            for sha256, pixels in recording.images.items():
                session.keep(sha256, pixels)
            shown = self._show(recording.experiment, nonce + 1, request)
            if recording.lanes and not self._busy(request):
                shown[1] = recording_message(recording, "A recording from a file. Press Run to compute it again.")
            return shown

        self.file.upload(opened, [self.file, self.experiment, self.nonce], everything, **QUIET)
        run = self.live.submit(self._run, [self.experiment], [self.live], concurrency_limit=None, **QUIET)
        run.then(self._finish, [], [self.table, self.again, self.download, self.sheet], concurrency_limit=None, **QUIET)
        self.again.click(self._again, [], [self.live], **QUIET)
        hidden = [self.column, self.results_tab, self.learn_tab]
        demo.load(self._load, [], [*everything, *hidden], **QUIET)

        def unload(request: gr.Request) -> None:
            self.app.close(request.session_hash)

        demo.unload(unload)

    def _everything(self) -> list[Any]:
        """Every component that shows a part of the experiment, in the order of :meth:`_show`."""
        fixed = [self.experiment, self.live, self.link, self.nonce, self.shape_of_operator, *self.shape_of_lanes]
        controls = [
            self.blurb,
            self.count,
            self.target_is,
            self.target,
            self.size,
            self.channels,
            self.operator,
            self.seed,
            self.schedule,
        ]
        return [*fixed, *controls, *self.lanes, *self.methods, *self.presets]

    # -- handlers -----------------------------------------------------------------------------------------------------------

    def _show(self, experiment: Experiment, nonce: int, request: gr.Request) -> list[Any]:
        """Values for :meth:`_everything`."""
        lanes = [f"{m.kind}/{nonce}" for m in experiment.methods] + ["none"] * (MAX_LANES - len(experiment.methods))
        message = self._preview(experiment, request)
        fixed = [experiment, message, self._link_text(experiment), nonce, f"{experiment.operator.kind}/{nonce}", *lanes]
        available, used = setup.shot_counts(experiment)
        uploads = experiment.shots.source == "upload"
        targets, chosen = setup.target_choices(experiment)
        controls = [
            setup.blurb(experiment),
            gr.update(maximum=max(1, available), value=used, visible=available > 0 and not uploads),
            experiment.target_is,
            gr.update(choices=targets, value=chosen),
            experiment.size
            if experiment.size in self.sizes
            else gr.update(choices=[*self.sizes, experiment.size], value=experiment.size),
            experiment.channels,
            experiment.operator.kind,
            experiment.seed,
            experiment.schedule,
        ]
        kinds = [(cls.title, cls.model_fields["kind"].default) for cls in Method.registry]
        groups = [gr.update(visible=lane <= len(experiment.methods)) for lane in range(MAX_LANES)]
        methods, presets = [], []
        for lane in range(MAX_LANES):
            here = lane < len(experiment.methods)
            choices = kinds if lane == 0 and len(experiment.methods) == 1 else [("none", NOTHING), *kinds]
            value = experiment.methods[lane].kind if here else NOTHING
            methods.append(gr.update(choices=choices, value=value))
            presets.append(self._preset_update(experiment, lane))
        return [*fixed, *controls, *groups, *methods, *presets]

    def _show_change(self, now: Experiment, nonce: int, change: Callable[[], Experiment], request: gr.Request) -> list[Any]:
        try:
            experiment = change()
        except NetPriorError as error:
            gr.Warning(str(error))
            experiment = now
        return self._show(experiment, nonce + 1, request)

    def _try(self, now: Experiment, change: Callable[[], Experiment], request: gr.Request) -> tuple[Experiment, Any]:
        try:
            new = change()
        except NetPriorError as error:
            gr.Warning(str(error))
            return now, gr.skip()
        return new, self._preview(new, request)

    def _preset_update(self, experiment: Experiment, lane: int) -> Any:
        if lane >= len(experiment.methods):
            return gr.update(choices=[], value=None, visible=False)
        names, used = setup.preset_choices(experiment, lane)
        return gr.update(choices=names, value=used, visible=True)

    def _busy(self, request: gr.Request) -> bool:
        race = self.app.session(request.session_hash).race
        return race is not None and not race.done

    def _preview(self, experiment: Experiment, request: gr.Request) -> Any:
        """The strip and the lanes of what is set up; nothing while a race is on the screen."""
        if self._busy(request):
            return gr.skip()
        try:
            setup.check_size(experiment, self.app.max_size)
            problem, truth = build(experiment, dict(self.app.session(request.session_hash).images))
        except NetPriorError as error:
            return setup_message(experiment, None, None, note=str(error))
        return setup_message(experiment, problem, truth)

    def _link_text(self, experiment: Experiment) -> str:
        text = link.encode(experiment)
        return f"?x={text}" if text else "Uploaded images cannot be in a link: share the zip of a run instead."

    async def _run(self, experiment: Experiment | None, request: gr.Request) -> AsyncIterator[Any]:
        if experiment is None:
            return
        try:
            setup.check_size(experiment, self.app.max_size)
        except InvalidSettings as error:
            yield setup_message(experiment, None, None, note=str(error))
            return
        session = self.app.session(request.session_hash)
        race = race_of(experiment, dict(session.images), self.app.device)
        run = self.app.start(session, race, experiment)
        text = link.encode(experiment)
        async for message in stream(self.app, race, experiment, run, f"?x={text}" if text else None):
            yield message

    def _finish(self, request: gr.Request) -> Any:
        """After a run: the table, the zip, the contact sheet."""
        session = self.app.session(request.session_hash)
        race, experiment = session.race, session.experiment
        if race is None or experiment is None or not race.done:
            return gr.skip(), gr.skip(), gr.skip(), gr.skip()
        table, again = results.table(race, experiment), gr.update(interactive=True)
        try:
            archive, sheet = files.save(session, race, experiment)
        except OSError as error:
            gr.Warning(
                f"The zip could not be written: {error.strerror}. Make room on the disk, then press “Show this run again” "
                "and run once more; the results stay on the page."
            )
            return table, again, gr.update(interactive=False), gr.update(visible=False)
        return table, again, gr.update(value=archive, interactive=True), gr.update(value=sheet, visible=True)

    def _again(self, request: gr.Request) -> Any:
        """The tab's last run back in the live view, after the set-up was changed."""
        session = self.app.session(request.session_hash)
        if session.race is None or session.experiment is None or not session.race.done:
            return gr.skip()
        return Feed(session.race, session.experiment, session.run, None).message(lossless=True)

    def _load(self, request: gr.Request) -> Any:
        """A fresh page: the link's set-up or the default one, and on a first visit a recorded race to scrub."""
        query = dict(request.query_params)
        hide = [name for name in str(query.get("hide", "")).split(",") if name in HIDEABLE]
        experiment, linked = setup.from_set(setup.DEFAULT_SET), False
        if query.get("x"):
            try:
                experiment, linked = link.decode(str(query["x"])), True
                setup.check_size(experiment, self.app.max_size)
            except NetPriorError as error:
                gr.Warning(str(error))
                experiment, linked = setup.from_set(setup.DEFAULT_SET), False
        shown = self._show(experiment, 1, request)
        if not linked and FIRST_VISIT.exists():
            shown[1] = files.first_visit(FIRST_VISIT)
        if hide and isinstance(shown[1], dict):
            shown[1] = gr.update(value=shown[1], hide=[name for name in hide if name in PARTS])
        visible = [gr.update(visible=name not in hide) for name in ("setup", "results", "learn")]
        return [*shown, *visible]

    def _control(self) -> Callable[..., Any]:
        app = self.app

        def control(run: str, action: str) -> dict[str, object]:
            return control_run(app, str(run), str(action))

        return control

    def _frames(self) -> Callable[..., Any]:
        app = self.app

        def frames(run: str, iteration: int) -> dict[str, object]:
            return recorded_frames(app.find(str(run)), iteration)

        return frames


def launch(*, host: str, port: int, device: torch.device, max_size: int, fps: float, block: bool = True) -> gr.Blocks:
    """Build the page and serve it, on the next free port when ``port`` is taken."""
    demo = Page(App(device, max_size, fps)).build()
    demo.queue(max_size=64, default_concurrency_limit=8)
    common: dict[str, Any] = {
        "server_name": host,
        "theme": theme(),
        "css": CSS + SETUP_CSS.read_text(encoding="utf-8"),
        "max_file_size": MAX_FILE_SIZE,
        "run_history": False,
    }
    common |= {"footer_links": [], "ssr_mode": False, "share": False, "prevent_thread_lock": not block, "enable_monitoring": False}
    demo.launch(server_port=free_port(host, port), **common)
    return demo


def free_port(host: str, port: int) -> int:
    """``port``, or the next one that can be bound. Raises OSError when none of fifty can."""
    for candidate in range(port, min(port + 50, 65536)):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, candidate))
            return candidate
    raise OSError(f"No free port between {port} and {port + 49}. Choose one with --port.")
