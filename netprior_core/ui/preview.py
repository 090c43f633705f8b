"""What the page shows of a set-up before it is run: strip and lanes, and which methods could solve it."""

from __future__ import annotations

from typing import Any

import gradio as gr

from netprior_core.compute import apart
from netprior_core.errors import NetPriorError
from netprior_core.experiment import MAX_LANES, Experiment, build
from netprior_core.ui import offers, setup
from netprior_core.ui.drawn import Changes, Drawn
from netprior_core.ui.session import Session
from netprior_core.ui.wire import setup_message

NOTHING = ""  # the empty choice of a lane


class Previewed(Drawn):
    """The live view of what is set up, the marks in the menus of methods and the reasons beside the lanes.

    All of them need the problem, which takes up to a second to build: it is built once for all, after the controls have changed.
    """

    live: Any
    methods: list[gr.Dropdown]
    refused: list[gr.HTML]

    def shows(self, experiment: Experiment, request: gr.Request) -> None:
        """The live view has a recording of this experiment: no preview is to take its place."""
        self.app.session(request.session_hash).shown = experiment

    def menu(self, experiment: Experiment, lane: int, session: Session) -> Any:
        """The methods for a lane, those that are known to refuse the problem marked, with the one in use."""
        here = lane < len(experiment.methods)
        only = lane == 0 and len(experiment.methods) == 1
        choices = offers.method_choices(session.offered[1])
        return gr.update(
            choices=choices if only else [("none", NOTHING), *choices], value=experiment.methods[lane].kind if here else NOTHING
        )

    def looked_at(self, now: Experiment | None, request: gr.Request) -> Any:
        """The event of a changed experiment."""
        return self.seen(now, request) or gr.skip()

    def seen(self, now: Experiment | None, request: gr.Request) -> Changes:
        """Strip and lanes of what is set up, marks and reasons. The live view stays while a race is on it, which a search never is.

        The set-up may change again, and a race begin, while the problem is built: then it comes too late.
        """
        session = self.app.session(request.session_hash)
        experiment = session.setup or now
        if experiment is None:
            return {}
        wanted, key = not session.racing and session.shown != experiment, offers.decided_by(experiment)
        if not wanted and session.offered[0] == key:
            return self._reasons([session.offered[1].get(method.kind, "") for method in experiment.methods])
        found: dict[str, str] = {}
        try:
            setup.check_size(experiment, self.app.max_size)
            message, found = apart(_built, experiment, dict(session.images))
            reasons = [lane["message"] for lane in message["lanes"]]
        except NetPriorError as error:
            message, reasons = setup_message(experiment, None, None, note=str(error)), []
        if (session.setup or experiment) != experiment:
            return {}
        marked = set(found) != set(session.offered[1])
        session.offered = key, found
        changes = self._reasons(reasons)
        if marked:
            changes |= {self.methods[lane]: self.menu(experiment, lane, session) for lane in range(MAX_LANES)}
        if wanted and not session.racing:
            session.shown = experiment
            changes[self.live] = message
        return changes

    def _reasons(self, reasons: list[str]) -> Changes:
        """The lines beside the lanes; lanes without a reason have none."""
        return {line: offers.beside(reasons[lane] if lane < len(reasons) else "") for lane, line in enumerate(self.refused)}


def _built(experiment: Experiment, images: dict[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    problem, truth = build(experiment, images)
    return setup_message(experiment, problem, truth), offers.refusals(problem)
