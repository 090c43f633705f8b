"""What the server keeps for each open tab: uploaded images, the running race and its files. Freed when the tab closes."""

from __future__ import annotations

import secrets
import shutil
import tempfile
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from netprior_core import priors
from netprior_core.errors import Unsolvable
from netprior_core.experiment import MAX_SHOTS, Experiment, uploads_of
from netprior_core.race import Race
from netprior_core.scheduler import Scheduler

MAX_SESSIONS = 64  # tabs without a race that are remembered, and tabs with one
MAX_IMAGE_BYTES = 2 * (MAX_SHOTS + 1) * 1024 * 1024 * 3  # of uploads per tab: the set-up's and those to replace them, at full size
MAX_ALL_BYTES = 1024**3  # of all tabs' uploads
MAX_LEARNED = 12  # priors that a tab learned and offers by name


@dataclass
class Session:
    """One tab."""

    images: OrderedDict[str, np.ndarray] = field(default_factory=OrderedDict)
    race: Race | None = None
    experiment: Experiment | None = None
    run: str = ""
    aside: tuple[str, Race] | None = None  # a run of the data axis, which does not take the place of the last one
    folder: Path | None = None
    #: The set-up as last edited. Handlers run side by side and gradio hands each the state from when it began: what counts is here.
    setup: Experiment | None = None
    shown: Experiment | None = None  # the set-up that the live view shows, or whose recording it shows
    learned: list[str] = field(default_factory=list)  # names of priors that this tab learned, the last one first
    #: Which methods refuse the set-up that the menus were last marked for, and what that depends on (``ui.offers``).
    offered: tuple[str, dict[str, str]] = ("", {})
    tuning: threading.Event | None = None  # while the settings of a lane are searched; set, it ends the search
    editing: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @property
    def busy(self) -> bool:
        """A race of this tab is being computed."""
        return any(not race.done for _, race in self.runs())

    @property
    def racing(self) -> bool:
        """A race is on the screen, where a search never is."""
        return self.busy and self.tuning is None

    @property
    def why_busy(self) -> str:
        """What has to end before something else is computed, and how; "" when nothing."""
        if self.tuning is not None:
            return "A search is going on in this tab: press “Stop the search” under its method first."
        return "A race is running in this tab: stop it first." if self.busy else ""

    def overtaken(self, last: Race | None, aside: Race | None) -> bool:
        """Whether another run began since ``last`` was the last one and ``aside``, if any, was computed beside it."""
        return self.race is not last or (aside is not None and (self.aside is None or self.aside[1] is not aside))

    def runs(self) -> list[tuple[str, Race]]:
        """The tab's races by their runs' names: the last one, and the one aside."""
        last = [(self.run, self.race)] if self.race is not None else []
        return last + ([self.aside] if self.aside is not None else [])

    def stop(self) -> None:
        """Ask every race of the tab to end."""
        for _, race in self.runs():
            race.stop()

    def learned_by(self, race: Race) -> None:
        """Remember what a race has learned, so that it can be chosen by name; what ended early is found in no other way."""
        names = [lane.prior for lane in race.lanes if lane.prior and lane.prior not in priors.shipped()]
        self.learned = list(dict.fromkeys([*names, *self.learned]))[:MAX_LEARNED]

    def edit(self, known: Experiment, change: Callable[[Experiment], Experiment]) -> tuple[Experiment, Experiment]:
        """The set-up before and after a change, one change at a time; before is ``known`` where none is kept."""
        with self.editing:
            before = self.setup or known
            self.setup = change(before)
            return before, self.setup

    def keep(self, sha256: str, pixels: np.ndarray) -> None:
        """Keep an uploaded image; the oldest go when there are too many, but none that the set-up uses."""
        self.images[sha256] = pixels
        self.images.move_to_end(sha256)
        used = {sha256, *(uploads_of(self.setup) if self.setup else ())}
        for old in list(self.images):
            if self.held() <= MAX_IMAGE_BYTES:
                return
            if old not in used:
                del self.images[old]

    def held(self) -> int:
        """Bytes of uploads."""
        return sum(pixels.nbytes for pixels in self.images.values())

    def scratch(self) -> Path:
        """A temporary folder of this tab. Raises OSError when the disk is full."""
        if self.folder is None or not self.folder.exists():
            self.folder = Path(tempfile.mkdtemp(prefix="netprior-"))
            weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)  # also when the server ends
        return self.folder


class App:
    """The state of the server: device, limits, scheduler and sessions."""

    def __init__(self, device: torch.device, max_size: int, fps: float = 8.0) -> None:
        self.device, self.max_size, self.fps = device, max_size, fps
        self.scheduler = Scheduler()
        self._sessions: OrderedDict[str, Session] = OrderedDict()
        self._lock = threading.Lock()

    def session(self, key: str | None) -> Session:
        """The session of a tab, made when it is new. Of too many the one idle for longest goes, never one that computes."""
        key = key or "api"
        with self._lock:
            found = self._sessions.setdefault(key, Session())
            self._sessions.move_to_end(key)
            idle = [name for name, session in self._sessions.items() if session is not found and not session.why_busy]
            old = [self._sessions.pop(name) for name in idle[: max(0, len(idle) - MAX_SESSIONS + 1)]]
        for session in old:
            self._end(session)
        return found

    def trim(self, mine: Session) -> None:
        """Forget uploads of other tabs, those idle for longest first, until all tabs' together fit into MAX_ALL_BYTES."""
        with self._lock:
            known = list(self._sessions.values())
        held = sum(session.held() for session in known)
        for session in known:
            if held <= MAX_ALL_BYTES:
                return
            if session is not mine and not session.why_busy:
                held -= session.held()
                session.images.clear()

    def setup(self, key: str | None, known: Experiment | None) -> Experiment | None:
        """The set-up of a tab as last edited; ``known`` where none is kept."""
        return self.session(key).setup or known

    def start(self, session: Session, race: Race, experiment: Experiment) -> str:
        """Submit a race for a tab, ending the one it had; returns the run's unguessable name.

        Raises Unsolvable when as many tabs as are remembered have a race already.
        """
        self._room(session)
        session.stop()
        session.race, session.experiment, session.run = race, experiment, secrets.token_urlsafe(12)
        self.scheduler.submit(race)
        return session.run

    def start_aside(self, session: Session, race: Race) -> str:
        """Submit a race that leaves the tab's last run what it is; returns the run's unguessable name. Raises as :meth:`start`."""
        self._room(session)
        session.stop()
        session.aside = secrets.token_urlsafe(12), race
        self.scheduler.submit(race)
        return session.aside[0]

    def _room(self, mine: Session) -> None:
        with self._lock:
            waiting = sum(session.busy for session in self._sessions.values() if session is not mine)
        if waiting >= MAX_SESSIONS:
            raise Unsolvable(f"{waiting} races wait in line on this server: try again in a few minutes.")

    def find(self, run: str) -> Race | None:
        """The race of a run's name."""
        with self._lock:
            return next((race for s in self._sessions.values() for name, race in s.runs() if name == run), None)

    def close(self, key: str | None) -> None:
        """The tab was closed: end its race, forget its images, remove its files. May be called twice."""
        with self._lock:
            session = self._sessions.pop(key or "", None)
        if session is not None:
            self._end(session)

    def _end(self, session: Session) -> None:
        session.stop()
        self.scheduler.wake()
        if session.folder is not None:
            shutil.rmtree(session.folder, ignore_errors=True)


def control(app: App, run: str, action: str) -> dict[str, object]:
    """Pause, resume, step or stop a run, or end its preparation. Only sets flags: the worker acts on them between two steps."""
    race = app.find(run)
    if race is None or race.done:
        if race is not None and action == "stop":
            race.stop()  # of a series, which goes no further
        return {"ok": False, "message": "This run has ended."}
    actions = {"pause": race.pause, "resume": race.resume, "step": race.step, "stop": race.stop, "enough": race.enough}
    if action not in actions:
        return {"ok": False, "message": "Unknown action."}
    actions[action]()
    app.scheduler.wake()
    return {"ok": True, "message": ""}
