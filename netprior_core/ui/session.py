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

from netprior_core.experiment import MAX_SHOTS, Experiment
from netprior_core.race import Race
from netprior_core.scheduler import Scheduler

MAX_SESSIONS = 64
MAX_IMAGE_BYTES = (MAX_SHOTS + 1) * 1024 * 1024 * 3  # of decoded uploads kept per tab: a whole set-up at the largest size fits


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
    tuning: threading.Event | None = None  # while the settings of a lane are searched; set, it ends the search
    editing: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @property
    def busy(self) -> bool:
        """A race of this tab is being computed."""
        return any(not race.done for _, race in self.runs())

    def runs(self) -> list[tuple[str, Race]]:
        """The tab's races by their runs' names: the last one, and the one aside."""
        last = [(self.run, self.race)] if self.race is not None else []
        return last + ([self.aside] if self.aside is not None else [])

    def stop(self) -> None:
        """Ask every race of the tab to end."""
        for _, race in self.runs():
            race.stop()

    def edit(self, known: Experiment, change: Callable[[Experiment], Experiment]) -> tuple[Experiment, Experiment]:
        """The set-up before and after a change, one change at a time; before is ``known`` where none is kept."""
        with self.editing:
            before = self.setup or known
            self.setup = change(before)
            return before, self.setup

    def keep(self, sha256: str, pixels: np.ndarray) -> None:
        """Keep an uploaded image; the oldest go when there are too many."""
        self.images[sha256] = pixels
        while len(self.images) > 1 and sum(p.nbytes for p in self.images.values()) > MAX_IMAGE_BYTES:
            self.images.popitem(last=False)

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
        """The session of a tab, made when it is new."""
        key = key or "api"
        with self._lock:
            found = self._sessions.setdefault(key, Session())
            self._sessions.move_to_end(key)
            old = [self._sessions.pop(k) for k in list(self._sessions)[: max(0, len(self._sessions) - MAX_SESSIONS)]]
        for session in old:
            self._end(session)
        return found

    def setup(self, key: str | None, known: Experiment | None) -> Experiment | None:
        """The set-up of a tab as last edited; ``known`` where none is kept."""
        return self.session(key).setup or known

    def start(self, session: Session, race: Race, experiment: Experiment) -> str:
        """Submit a race for a tab, ending the one it had; returns the run's unguessable name."""
        session.stop()
        session.race, session.experiment, session.run = race, experiment, secrets.token_urlsafe(12)
        self.scheduler.submit(race)
        return session.run

    def start_aside(self, session: Session, race: Race) -> str:
        """Submit a race that leaves the tab's last run what it is; returns the run's unguessable name."""
        session.stop()
        session.aside = secrets.token_urlsafe(12), race
        self.scheduler.submit(race)
        return session.aside[0]

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
        return {"ok": False, "message": "This run has ended."}
    actions = {"pause": race.pause, "resume": race.resume, "step": race.step, "stop": race.stop, "enough": race.enough}
    if action not in actions:
        return {"ok": False, "message": "Unknown action."}
    actions[action]()
    app.scheduler.wake()
    return {"ok": True, "message": ""}
