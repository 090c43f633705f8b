"""One method in a race: its state, its curve, what it kept and what it returned."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np
import torch

from netprior_core.frames import FrameStore
from netprior_core.methods.base import Method
from netprior_core.problem import Stage, Step
from netprior_core.stopping import Watcher

LaneState = Literal["ready", "preparing", "running", "finished", "failed", "refused", "stopped"]


@dataclass
class Curve:
    """The metrics of one lane, append-only. ``seconds`` is the lane's own solving time, preparation excluded."""

    iteration: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    objective: list[float] = field(default_factory=list)
    psnr: list[float] = field(default_factory=list)
    spread: list[tuple[float, float]] = field(default_factory=list)  # least and largest PSNR, where there are several seeds
    psnr_output: list[float] = field(default_factory=list)
    ssim: list[tuple[int, float, float]] = field(default_factory=list)
    residual: list[tuple[int, float, float]] = field(default_factory=list)


@dataclass(frozen=True)
class Picture:
    """What a tile shows: 8-bit pixels, the iteration they belong to, and whether they are an estimate or the drawn shots."""

    pixels: np.ndarray
    iteration: int
    kind: Literal["estimate", "shots"]


@dataclass(frozen=True)
class Result:
    """What a method returned: which iteration it stands for and its scores (None without a ground truth)."""

    returns: int
    psnr: float | None
    ssim: float | None
    residual: float | None
    pixels: np.ndarray


@dataclass(frozen=True)
class Stop:
    """Where a stopping rule stands: the iterate it would return, when it fired (None: not yet), and the PSNR of that iterate."""

    title: str
    iteration: int
    fired: int | None
    psnr: float | None


class Score(NamedTuple):
    """The scores of one step, still on the device; ``iteration`` is −1 while preparing.

    ``measured``: the step has an objective; ``estimated``: a PSNR. What a step does not have may be no number.
    """

    iteration: int
    seconds: float
    values: torch.Tensor
    measured: bool
    estimated: bool


class Lane:
    """One method in a race. Written by whoever turns the race; reading it from another thread is safe."""

    def __init__(self, index: int, method: Method, name: str, detail: str) -> None:
        self.index, self.method, self.name, self.detail = index, method, name, detail
        self.state: LaneState = "ready"
        self.phase = ""
        self.iteration = self.total = 0
        self.seconds = self.prepare_seconds = 0.0
        self.message = ""
        self.prior = ""  # name of what it has learned from the examples, as priors.named knows it
        self.curve = Curve()
        self.learning: list[tuple[float, float]] = []  # (seconds, objective) of every step of the preparation that has one
        self.left_out: list[tuple[int, float, float]] = []  # (step, seconds, PSNR at which what was left out can be drawn)
        self.best: tuple[float, int] | None = None  # (PSNR, iteration): the oracle
        self.result: Result | None = None
        self.frames = FrameStore()
        self.picture: Picture | None = None
        self.picture_wanted = True
        self.spread: np.ndarray | None = None  # standard deviation over the seeds, pixel by pixel
        self.stops: dict[str, Stop] = {}  # by kind of rule
        self._steps: Iterator[Step] | None = None
        self._twin: Iterator[Step] | None = None
        self._watchers: list[Watcher] = []
        self._last: Step | None = None
        self._pending: list[Score] = []
        self._twin_last: Step | None = None
        self._best_estimate: torch.Tensor | None = None
        self._best_psnr: torch.Tensor | None = None
        self._speed: list[tuple[float, int]] = []

    @property
    def done(self) -> bool:
        """Nothing more will come of this lane."""
        return self.state in ("finished", "failed", "refused", "stopped")

    def beside(self, step: Step) -> Step | None:
        """The twin run's step of the same iteration, or its last where it ended sooner; None where there is no twin."""
        if self._twin is None or step.stage != "solve":
            return None
        self._twin_last = next((twin for twin in self._twin if twin.stage != "prepare"), self._twin_last)
        return self._twin_last

    def spend(self, stage: Stage, seconds: float) -> None:
        """Add to the clock of the stage."""
        if stage == "prepare":
            self.prepare_seconds += seconds
        else:
            self.seconds += seconds

    def mark_speed(self) -> None:
        """Note how far the lane is, for :meth:`rate`."""
        own = self.prepare_seconds + self.seconds
        self._speed.append((own, self.iteration))
        while len(self._speed) > 2 and self._speed[1][0] < own - 2:
            self._speed.pop(0)

    def forget_from(self, iteration: int) -> None:
        """Drop the pictures of a broken iteration and of those after it, so that the last good one is what stays."""
        if iteration < 0:
            return
        self.frames.drop_from(iteration)
        if self.picture is not None and self.picture.kind == "estimate" and self.picture.iteration >= iteration:
            self.picture = None

    def rate(self) -> float | None:
        """Iterations per second of the lane's own computing time, over about its last two seconds."""
        marks = tuple(self._speed)  # the turning thread may empty the list meanwhile
        if len(marks) < 2 or marks[-1][0] <= marks[0][0] or marks[-1][1] <= marks[0][1]:
            return None
        return (marks[-1][1] - marks[0][1]) / (marks[-1][0] - marks[0][0])

    def eta(self) -> float | None:
        """Seconds of its own computing time left in this stage, or None when not known."""
        rate = self.rate()
        return (self.total - self.iteration) / rate if rate and self.total and not self.done else None
