"""Rules that watch how much the outputs move: WMV and EMV."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import torch

from netprior_core.problem import Problem, Shape
from netprior_core.settings import setting
from netprior_core.stopping.base import Least, Look, StoppingRule, Watcher

#: Variances are means over at most so many randomly chosen values of the image: more would not change them.
PIXELS = 2**15


class WindowedVariance(StoppingRule):
    """WMV: the variance of the outputs in a moving window falls while structure is drawn and rises again with the noise.

    VAR(t) = (1/W) Σ_{i=t−W+1…t} mean_p (x_i − x̄_W)², over the last W outputs; the minimum is taken, reported at the window's last
    iteration, and the run ends when there was no lower one for P iterations (Wang et al. 2023, Algorithm 1; W = 100, P = 1000).
    A rolling sum and sum of squares make it O(n) an iteration; the mean is over at most 32,768 randomly chosen pixels.
    """

    title: ClassVar[str] = "WMV"
    order: ClassVar[int] = 10
    citation: ClassVar[str] = "H. Wang et al., Early Stopping for Deep Image Prior, TMLR 2023"

    kind: Literal["wmv"] = "wmv"
    window: int = setting(100, "Iterations that the variance is taken over.", ge=2, le=1000, main=True)
    patience: int = setting(1000, "Stop after so many iterations without a lower variance.", ge=1, le=50_000, log=True, main=True)

    def watch(self, problem: Problem, seed: int) -> Watcher:
        return _WindowWatcher(self, _pixels(problem.shape, problem.device))


class _WindowWatcher(Least):
    def __init__(self, rule: WindowedVariance, pixels: torch.Tensor | None) -> None:
        super().__init__(rule, rule.patience)
        self.window, self.pixels, self.count = rule.window, pixels, 0
        self._ring: torch.Tensor | None = None
        self._centre = self._sum = self._squares = torch.empty(0)

    def see(self, look: Look) -> None:
        values = _chosen(look.output, self.pixels)
        if self._ring is None:
            self._ring = values.new_zeros((self.window, *values.shape))
        place = self.count % self.window
        if place == 0:  # measured from near where the outputs are, and summed afresh, rounding never adds up
            self._centre = values.clone()
            if self.count:
                old = self._ring - self._centre
                self._sum, self._squares = old.sum(dim=0), old.square().sum(dim=0)
            else:
                self._sum, self._squares = torch.zeros_like(values), torch.zeros_like(values)
        if self.count >= self.window:
            gone = self._ring[place] - self._centre
            self._sum.sub_(gone)
            self._squares.addcmul_(gone, gone, value=-1)
        self._ring[place] = values
        new = values - self._centre
        self._sum.add_(new)
        self._squares.addcmul_(new, new)
        self.count += 1
        if self.count >= self.window:
            mean = self._sum / self.window
            self.offer((self._squares / self.window).addcmul_(mean, mean, value=-1).mean(), look)


class MovingVariance(StoppingRule):
    """EMV: like WMV with an exponential window, and no memory of past outputs.

    V ← (1 − α)(V + α mean_p (x − E)²), then E ← (1 − α) E + α x (Wang et al. 2023, section 3; α = 0.1, P = 1000, from
    iteration 100).
    """

    title: ClassVar[str] = "EMV"
    order: ClassVar[int] = 20
    citation: ClassVar[str] = "H. Wang et al., Early Stopping for Deep Image Prior, TMLR 2023"

    kind: Literal["emv"] = "emv"
    alpha: float = setting(0.1, "Weight of the newest output.", ge=0.001, le=1, main=True)
    patience: int = setting(1000, "Stop after so many iterations without a lower variance.", ge=1, le=50_000, log=True, main=True)
    start: int = setting(100, "The first iterations are not looked at.", ge=0, le=10_000)

    def watch(self, problem: Problem, seed: int) -> Watcher:
        return _MovingWatcher(self, _pixels(problem.shape, problem.device))


class _MovingWatcher(Least):
    def __init__(self, rule: MovingVariance, pixels: torch.Tensor | None) -> None:
        super().__init__(rule, rule.patience)
        self.alpha, self.start, self.pixels = rule.alpha, rule.start, pixels
        self._mean: torch.Tensor | None = None
        self._variance = torch.empty(0)

    def see(self, look: Look) -> None:
        values = _chosen(look.output, self.pixels)
        if self._mean is None:
            self._mean, self._variance = values.clone(), torch.zeros((), device=values.device)
            return
        away = values - self._mean
        self._variance = (1 - self.alpha) * (self._variance + self.alpha * away.square().mean())
        self._mean.add_(away, alpha=self.alpha)
        if look.iteration > self.start:
            self.offer(self._variance, look)


def _pixels(shape: Shape, device: torch.device) -> torch.Tensor | None:
    """The values that a variance is taken over, or None for all of them."""
    count = math.prod(shape)
    if count <= PIXELS:
        return None
    return torch.randperm(count, generator=torch.Generator().manual_seed(0))[:PIXELS].sort().values.to(device)


def _chosen(output: torch.Tensor, pixels: torch.Tensor | None) -> torch.Tensor:
    flat = output.flatten(1).float()
    return flat if pixels is None else flat.index_select(1, pixels)
