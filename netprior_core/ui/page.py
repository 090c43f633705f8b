"""The page: set-up on the left, the live view with results and cards on the right."""

from __future__ import annotations

import contextlib
import json
import socket
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import gradio as gr
import torch

from netprior_core import link
from netprior_core.errors import NetPriorError
from netprior_core.experiment import Experiment, race_of
from netprior_core.methods import Method
from netprior_core.networks.drunet_weights import MAX_OFFICIAL_BYTES
from netprior_core.operators import Operator
from netprior_core.recording import MAX_ZIP_BYTES
from netprior_core.ui import api, files, learn, offers, results, setup
from netprior_core.ui.ceiling import Ceiling
from netprior_core.ui.column import Column
from netprior_core.ui.data_axis import SPOTS_JS, DataAxis
from netprior_core.ui.drawn import QUIET
from netprior_core.ui.lessons import method_html
from netprior_core.ui.live import PARTS, live_view
from netprior_core.ui.sampler import Sampler
from netprior_core.ui.say import inform, warn
from netprior_core.ui.session import App
from netprior_core.ui.session import control as control_run
from netprior_core.ui.stream import stream
from netprior_core.ui.theme import CSS, theme
from netprior_core.ui.wire import Feed, recorded_frames, setup_message

#: Of a recording, or of DRUNet's published weights; what is larger than its kind may be is refused before it is read.
MAX_FILE_SIZE = max(MAX_ZIP_BYTES, MAX_OFFICIAL_BYTES)
HIDEABLE = (*PARTS, "setup", "results", "axis", "learn")
#: gradio calls the pictures of a gallery "Thumbnail 1 of 13"; who hears the page wants to know which set it is.
NAME_THE_SETS = """() => {
  for (const item of document.querySelectorAll('#np-sets .thumbnail-item')) {
    item.setAttribute('aria-label', item.querySelector('.caption-label')?.textContent.trim() || item.ariaLabel);
  }
}"""
ASSETS = Path(__file__).resolve().parents[2] / "assets"
SETUP_CSS = ASSETS / "setup.css"


class Steady(dict[Any, Any]):
    """The components of a page by id. Gradio walks over them on one thread while another adds some ("dictionary changed size")."""

    def values(self) -> Any:
        """All at once, which no other thread can come between."""
        return list(super().values())

    def __copy__(self) -> Steady:
        return Steady(self)


class Page:
    """Builds the Blocks and runs what they ask for."""

    def __init__(self, app: App) -> None:
        self.app = app

    def build(self) -> gr.Blocks:
        """The whole page."""
        with gr.Blocks(title="NetPrior", analytics_enabled=False, delete_cache=(3600, 86400)) as demo:
            self.column = Column(self.app)
            with gr.Row(elem_id="np-page"):
                with gr.Column(scale=3, min_width=300, elem_id="np-setup") as self.left:
                    self.column.build()
                with gr.Column(scale=9, min_width=340, elem_id="np-main"):
                    self.live = live_view(None, [self._control(), self._frames()])
                    with gr.Tabs(elem_id="np-tabs"):
                        with gr.Tab("Results") as self.results_tab:
                            self._results()
                        with gr.Tab("Data axis") as self.axis_tab:
                            self.axis = DataAxis(self.app)
                            self.axis.build()
                        with gr.Tab("Learn") as self.learn_tab:
                            tries = self._learn()
                            Sampler(self.app).build(self.column.experiment)
            self.column.live = self.live
            self.column.wire(tries)
            self.axis.wire(self.column.experiment, self.live)
            self._wire(demo)
            api.add(self.app)
        demo.default_config.blocks = Steady(demo.default_config.blocks)
        return demo

    def _results(self) -> None:
        self.table = gr.HTML(results.EMPTY, elem_id="np-results")
        with gr.Row():
            self.again = gr.Button("Show this run again", interactive=False, scale=0, min_width=200, elem_id="np-again")
            self.download = gr.DownloadButton(
                "Download everything (zip)", interactive=False, elem_id="np-download", scale=0, min_width=240
            )
            self.ceiling = Ceiling(self.app)
            self.ceiling.build()
        self.ceiling.picture.render()
        self.learned = gr.File(
            label="Priors learned from your examples: open one again under a low-shot method's settings",
            interactive=False,
            visible=False,
            elem_id="np-learned",
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
        self.ceiling.wire(self.table, self.download, self.sheet)

    def _learn(self) -> list[tuple[Any, Callable[..., Experiment], str]]:
        tries: list[tuple[Any, Callable[..., Experiment], str]] = []

        def card(markup: str, button: str, change: Callable[..., Experiment], recording: str = "") -> None:
            with gr.Column(elem_classes="np-card", min_width=260):
                gr.HTML(markup)
                tries.append((gr.Button(button, size="sm", scale=0), change, recording))

        with gr.Row(elem_id="np-cards", elem_classes="np-cards"):
            for one in learn.CARDS:
                card(one.markup(), "Try it", one.instead_of)
        with gr.Accordion("More races", open=False), gr.Row(elem_id="np-more", elem_classes="np-cards"):
            for one in learn.MORE:
                card(one.markup(), "Try it", one.instead_of)
        with gr.Accordion("To show in a lecture", open=True), gr.Row(elem_id="np-demonstrations", elem_classes="np-cards"):
            for one in learn.DEMONSTRATIONS:
                card(one.markup(), "Show it" if one.recording else "Try it", one.instead_of, one.recording)
        with gr.Accordion("How pictures are measured", open=False), gr.Row(elem_id="np-operators", elem_classes="np-cards"):
            for operator in Operator.registry:
                kind = operator.model_fields["kind"].default
                card(learn.operator_html(operator), "Measure this way", learn.measured_with(kind))
        with gr.Accordion("How pictures are recovered", open=False), gr.Row(elem_id="np-methods", elem_classes="np-cards"):
            for method in Method.registry:
                kind = method.model_fields["kind"].default
                card(method_html(method), "Add this method", learn.solved_with(kind))
        return tries

    def _wire(self, demo: gr.Blocks) -> None:
        run = self.live.submit(self._run, [self.column.experiment], [self.live], concurrency_limit=None, **QUIET)
        ceiling = [self.ceiling.button, self.ceiling.picture]
        finished = [self.table, self.again, self.download, self.sheet, self.learned, *ceiling]
        run.then(self._finish, [], finished, concurrency_limit=None, **QUIET)
        self.again.click(self._again, [], [self.live], **QUIET)
        hidden = [self.left, self.results_tab, self.axis_tab, self.learn_tab]
        demo.load(self._load, [], [*self.column.everything(), *hidden], **QUIET)
        demo.load(None, js=NAME_THE_SETS)
        demo.load(None, js=SPOTS_JS)

        def unload(request: gr.Request) -> None:
            self.app.close(request.session_hash)

        demo.unload(unload)

    async def _run(self, experiment: Experiment | None, request: gr.Request) -> AsyncIterator[Any]:
        experiment = self.app.setup(request.session_hash, experiment)
        if experiment is None:
            return
        session = self.app.session(request.session_hash)
        race = race_of(experiment, dict(session.images), self.app.device)
        try:
            setup.check_size(experiment, self.app.max_size)
            run = self.app.start(session, race, experiment)
        except NetPriorError as error:
            yield setup_message(experiment, None, None, note=str(error))
            return
        text = link.encode(experiment)
        async for message in stream(self.app, race, experiment, run, f"?x={text}" if text else None):
            yield message

    def _finish(self, request: gr.Request) -> Any:
        """After a run: the table, the zip, the contact sheet."""
        session = self.app.session(request.session_hash)
        race, experiment = session.race, session.experiment
        if race is None or experiment is None or not race.done:
            return (gr.skip(),) * 7
        session.learned_by(race)
        table, again = results.table(race, experiment), gr.update(interactive=True)
        ceiling = self.ceiling.offer(race, experiment)
        try:
            archive, sheet = files.save(session, race, experiment)
            learned = files.priors_of(session, race)
        except OSError as error:
            gr.Warning(
                f"The zip could not be written: {error.strerror}. Make room on the disk, then press “Show this run again” "
                "and run once more; the results stay on the page."
            )
            return table, again, gr.update(interactive=False), gr.update(visible=False), gr.update(visible=False), *ceiling
        files_made = gr.update(value=archive, interactive=True), gr.update(value=sheet, visible=True)
        return table, again, *files_made, gr.update(value=learned or None, visible=bool(learned)), *ceiling

    def _again(self, request: gr.Request) -> Any:
        """The tab's last run back in the live view, after the set-up was changed."""
        session = self.app.session(request.session_hash)
        if session.race is None or session.experiment is None or not session.race.done:
            return gr.skip()
        if session.racing:  # of the data axis: the next message of its race would not fit what is shown
            inform(session.why_busy)
            return gr.skip()
        return Feed(session.race, session.experiment, session.run, None).message(lossless=True)

    def _load(self, request: gr.Request) -> dict[Any, Any]:
        """A fresh page: the link's set-up or the default one, and on a first visit a recorded race to scrub."""
        query = dict(request.query_params)
        hide = [name for name in str(query.get("hide", "")).split(",") if name in HIDEABLE]
        experiment, linked = setup.from_set(setup.DEFAULT_SET), False
        if query.get("x"):
            try:
                found = link.decode(str(query["x"]))
                setup.check_size(found, self.app.max_size)
                experiment, linked = found, True
            except NetPriorError as error:
                warn(str(error))
        self.app.session(request.session_hash).setup = experiment
        changes = self.column.show(experiment, 1, request)
        recorded = None if linked else files.recorded(files.FIRST_VISIT)
        parts = [name for name in hide if name in PARTS]
        changes[self.live] = gr.update(hide=parts)
        if recorded is not None:
            changes[self.live] = gr.update(value=recorded, hide=parts)
            self.column.shows(experiment, request)
        for name, component in (
            ("setup", self.left),
            ("results", self.results_tab),
            ("axis", self.axis_tab),
            ("learn", self.learn_tab),
        ):
            changes[component] = gr.update(visible=name not in hide)
        return changes

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
        "css": CSS + SETUP_CSS.read_text(encoding="utf-8") + family_headings(),
        "max_file_size": MAX_FILE_SIZE,
        "run_history": False,
    }
    common |= {"footer_links": [], "ssr_mode": False, "share": False, "prevent_thread_lock": not block, "enable_monitoring": False}
    demo.launch(server_port=free_port(host, port), **common)
    return demo


def family_headings() -> str:
    """The rules that write the name of each family of methods above its first one, in lists that gradio cannot group."""
    first: dict[str, str] = {}
    for cls in Method.registry:
        first.setdefault(cls.family, cls.title)

    def named(title: str) -> str:  # with and without the mark
        return ", ".join(f"[aria-label={json.dumps(name, ensure_ascii=False)}]" for name in (title, title + offers.NOT_HERE))

    return "".join(
        f"[id^='np-method-'] li:is({named(title)})::before {{ content: {json.dumps(family)}; }}\n"
        for family, title in first.items()
    )


def free_port(host: str, port: int) -> int:
    """``port``, or the next one that can be bound. Raises OSError when none of fifty can."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for candidate in range(port, min(port + 50, 65536)):
        with socket.socket(family) as probe, contextlib.suppress(OSError):
            if sys.platform != "win32":  # there it would bind a port that is in use
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, candidate))
            return candidate
    raise OSError(f"No free port between {port} and {port + 49}. Choose one with --port.")
