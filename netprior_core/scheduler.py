"""The scheduler owns the device: one worker thread turns one race at a time; the others wait in line and can be told their place.

A single thread does all computing, so generators are only ever advanced and closed there, and no thread pool is made twice.
A paused race gives up its turn, and is ended when nobody comes back to it.
"""

from __future__ import annotations

import logging
import threading
import time

from netprior_core.memory import give_memory_back
from netprior_core.race import Race

log = logging.getLogger("netprior")

PAUSE_LIMIT = 15 * 60.0  # seconds until a paused race is ended


class Scheduler:
    """Turns races in order of arrival on one daemon thread."""

    def __init__(self, pause_limit: float = PAUSE_LIMIT) -> None:
        self.pause_limit = pause_limit
        self._condition = threading.Condition()
        self._line: list[Race] = []
        self._held: list[Race] = []
        self._thread: threading.Thread | None = None

    def submit(self, race: Race) -> None:
        """Put a race at the end of the line."""
        with self._condition:
            self._line.append(race)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="netprior-worker", daemon=True)
                self._thread.start()
            self._condition.notify_all()

    def wake(self) -> None:
        """Say that a race was resumed, stepped or stopped."""
        with self._condition:
            self._condition.notify_all()

    def place(self, race: Race) -> int:
        """How many races are ahead of this one: 0 when it is being computed (or is not in line)."""
        with self._condition:
            return self._line.index(race) if race in self._line else 0

    def busy(self) -> bool:
        """Whether a race is being computed, or is about to be. A paused one is not."""
        with self._condition:
            return bool(self._line)

    def _work(self) -> None:
        while True:
            race = self._next()
            try:
                race.turn()
            except BaseException as error:  # the worker outlives whatever a race does
                log.exception("the worker's race broke")
                race.break_off(error)
            if race.done:
                with self._condition:
                    if race in self._line:
                        self._line.remove(race)
                give_memory_back()
            elif race.state == "paused":
                with self._condition:
                    if race in self._line:
                        self._line.remove(race)
                    self._held.append(race)
            del race  # while it waits for work, the worker keeps nothing of the last race alive

    def _next(self) -> Race:
        """The race whose turn it is. Held races that were asked to go on join the end of the line; those to be ended go first."""
        with self._condition:
            while True:
                now = time.monotonic()
                for race in list(self._held):
                    if now - race.touched > self.pause_limit:
                        race.message = "Paused for too long, so the run was ended. What it found is kept."
                        race.stop()
                    if race.wants_turn:
                        self._held.remove(race)
                        self._line.append(race)
                ending = next((race for race in self._line if race._stop), None)
                if ending is not None:
                    return ending
                if self._line:
                    return self._line[0]
                self._condition.wait(timeout=min(5.0, max(0.05, self.pause_limit)) if self._held else None)
