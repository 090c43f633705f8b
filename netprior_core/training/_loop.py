"""What trainings that save and resume have in common."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol


class Resumable(Protocol):
    """A run that knows how far it is and can go on from a file."""

    step: int
    steps: int

    def advance(self) -> None:
        """Do one step."""

    def resume(self, path: Path) -> None:
        """Go on from a saved state. Raises InvalidSettings when it is of another run."""


def train(trainer: Resumable, options: argparse.Namespace, keep: Callable[[], None]) -> None:
    """Train until the steps or ``options.minutes`` are used up; ``keep`` is called every ``options.save_minutes`` and at the end.

    Goes on from ``options.resume`` where that file exists.
    """
    if options.resume is not None and options.resume.exists():
        trainer.resume(options.resume)
        print(f"goes on after step {trainer.step} of {trainer.steps}", flush=True)
    start = saved = time.perf_counter()
    while trainer.step < trainer.steps and time.perf_counter() - start < 60 * options.minutes:
        trainer.advance()
        if time.perf_counter() - saved > 60 * options.save_minutes and trainer.step < trainer.steps:
            keep()
            saved = time.perf_counter()
    keep()
