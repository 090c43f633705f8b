"""Rules that look at the measurement (discrepancy, held-out, SURE), and the one that looks at nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar, Literal

import torch

from netprior_core.operators.base import ForwardModel, LinearModel
from netprior_core.problem import Problem
from netprior_core.settings import setting
from netprior_core.stopping.base import READ_EVERY, Least, Look, StoppingRule, Watcher


class Discrepancy(StoppingRule):
    """Discrepancy principle: stop as soon as the residual is down at the noise, ‖A x̂ − y‖ ≤ τ σ √m (Morozov 1966).

    It needs the noise level. The residual is that of the estimate, looked at every ten iterations.
    """

    title: ClassVar[str] = "Discrepancy"
    order: ClassVar[int] = 30
    citation: ClassVar[str] = "V. A. Morozov, On the solution of functional equations by the method of regularization, 1966"

    kind: Literal["discrepancy"] = "discrepancy"
    tau: float = setting(1.0, "Stop when the residual is so many times the noise level.", ge=0.1, le=5, label="τ", main=True)

    def refuses(self, problem: Problem) -> str | None:
        if not problem.noise_std:
            why = "there is no noise" if problem.noise_std == 0 else "it is not known"
            return f"{self.title} needs the noise level, and {why}."
        return None

    def watch(self, problem: Problem, seed: int) -> Watcher:
        return _DiscrepancyWatcher(self, self.tau * (problem.noise_std or 0.0))


class _DiscrepancyWatcher(Watcher):
    def __init__(self, rule: Discrepancy, level: float) -> None:
        super().__init__(rule)
        self.level = level
        self._residual: torch.Tensor | None = None

    def see(self, look: Look) -> None:
        if self.fired is not None or not look.due:
            return
        self._residual = look.misfit.square().mean().sqrt()
        self.estimate = look.estimate.clone()

    def read(self, iteration: int) -> None:
        if self.fired is not None or self._residual is None:
            return
        self.candidate = iteration // READ_EVERY * READ_EVERY
        if float(self._residual) <= self.level:
            self.fired = iteration


class HeldOut(StoppingRule):
    """Held-out measurements: a share of y is kept from the method; its error on them falls, then rises when noise is fitted.

    The iterate of least held-out error is taken; the run ends when there was no lower one for P iterations. Needs no noise
    level and works for every operator, but the method has fewer measurements (Li et al. 2021; Yaman et al. 2020 for MRI).
    """

    title: ClassVar[str] = "Held-out"
    order: ClassVar[int] = 40
    changes_run: ClassVar[bool] = True
    cost: ClassVar[str] = "the measurements it keeps from the method, 5% by default, and one product with A every ten iterations"

    kind: Literal["held-out"] = "held-out"
    share: float = setting(5.0, "Share of the measurements kept from the method.", ge=0.5, le=50, unit="%", main=True)
    patience: int = setting(500, "Stop after so many iterations without a lower error.", ge=1, le=50_000, log=True, main=True)

    def refuses(self, problem: Problem) -> str | None:
        return None if problem.model.m >= 20 else f"{self.title}: there are too few measurements to keep any back."

    def _kept(self, problem: Problem, seed: int) -> torch.Tensor:
        order = torch.randperm(problem.model.m, generator=torch.Generator().manual_seed(seed))
        out = max(1, round(self.share / 100 * problem.model.m))
        return order[out:].sort().values.to(problem.device)

    def prepare(self, problem: Problem, seed: int) -> Problem:
        kept = self._kept(problem, seed)
        sizes = hasattr(problem.model, "linear_forward")
        part = _LinearPart if isinstance(problem.model, LinearModel) else _SizesPart if sizes else _Part
        return replace(problem, model=part(problem.model, kept), measurement=problem.measurement.flatten(1)[:, kept])

    def watch(self, problem: Problem, seed: int) -> Watcher:
        out = torch.ones(problem.model.m, dtype=torch.bool, device=problem.device)
        out[self._kept(problem, seed)] = False
        return _HeldOutWatcher(self, out.nonzero().flatten())


class _HeldOutWatcher(Least):
    def __init__(self, rule: HeldOut, out: torch.Tensor) -> None:
        super().__init__(rule, rule.patience)
        self.out = out

    def see(self, look: Look) -> None:
        if look.due:
            self.offer(look.misfit[:, self.out].square().mean(), look)


class Sure(StoppingRule):
    """SURE: Stein's unbiased estimate of the error, with the divergence measured by a second, slightly perturbed run.

    SURE(t) = ‖A x̂ − y‖²/m − σ² + (2 σ²/(ε m)) bᵀ (A x̂(y + ε b) − A x̂(y)), b ~ N(0, I): an unbiased estimate of
    ‖A x̂ − A x‖²/m for white Gaussian noise (Stein 1981; Monte-Carlo divergence: Ramani, Blu & Unser 2008, eq. 14). The twin
    starts from the same seed. In denoising it estimates the error of the image; elsewhere that of what A sees of it. Smoothed
    over five looks.
    """

    title: ClassVar[str] = "SURE"
    order: ClassVar[int] = 50
    changes_run: ClassVar[bool] = True
    cost: ClassVar[str] = "twice the time, for the second run"
    citation: ClassVar[str] = "S. Ramani, T. Blu, M. Unser, Monte-Carlo SURE, IEEE Trans. Image Processing 2008"

    kind: Literal["sure"] = "sure"
    epsilon: float = setting(0.1, "Size of the perturbation, in units of σ.", ge=1e-3, le=2, label="ε", log=True)
    patience: int = setting(500, "Stop after so many iterations without a lower estimate.", ge=1, le=50_000, log=True, main=True)

    def refuses(self, problem: Problem) -> str | None:
        if not problem.noise_std or not problem.noise.white:
            return f"{self.title} needs white Gaussian noise of a known level, not clipped and not equal in all channels."
        return None if problem.model.linear else f"{self.title} is for linear operators."

    def _direction(self, problem: Problem, seed: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed + 1)
        return torch.randn(problem.measurement.shape, generator=generator).to(problem.measurement)

    def twin(self, problem: Problem, seed: int) -> Problem | None:
        step = self.epsilon * (problem.noise_std or 0.0)
        return replace(problem, measurement=problem.measurement + step * self._direction(problem, seed))

    def watch(self, problem: Problem, seed: int) -> Watcher:
        return _SureWatcher(self, problem, self._direction(problem, seed).flatten(1))


class _SureWatcher(Least):
    def __init__(self, rule: Sure, problem: Problem, direction: torch.Tensor) -> None:
        super().__init__(rule, rule.patience)
        self.sigma, self.direction = problem.noise_std or 0.0, direction
        self.step = rule.epsilon * self.sigma
        self._recent: list[torch.Tensor] = []

    def see(self, look: Look) -> None:
        if not look.due or look.twin is None or look.twin.estimate is None:
            return
        with torch.no_grad():
            other = look.problem.model.forward(look.twin.estimate.to(look.problem.model.dtype)).flatten(1)
        divergence = (self.direction * (other - look.predicted.flatten(1))).mean() / self.step
        score = look.misfit.square().mean() - self.sigma**2 + 2 * self.sigma**2 * divergence
        self._recent = [*self._recent[-4:], score]
        self.offer(torch.stack(self._recent).mean(), look)


class FixedBudget(StoppingRule):
    """A fixed budget of iterations, as most papers stop: blind to what happens."""

    title: ClassVar[str] = "Fixed budget"
    order: ClassVar[int] = 60

    kind: Literal["fixed"] = "fixed"
    iterations: int = setting(500, "Stop after so many iterations.", ge=1, le=50_000, log=True, main=True)

    def watch(self, problem: Problem, seed: int) -> Watcher:
        return _FixedWatcher(self, self.iterations)


class _FixedWatcher(Watcher):
    def __init__(self, rule: FixedBudget, budget: int) -> None:
        super().__init__(rule)
        self.budget = budget

    def see(self, look: Look) -> None:
        if look.iteration == self.budget:
            self.estimate = look.estimate.clone()
            self.candidate = self.fired = look.iteration

    def read(self, iteration: int) -> None:
        pass


class _Part(ForwardModel):
    """``A`` with only some of its measurements: ``(B, K)``."""

    def __init__(self, model: ForwardModel, kept: torch.Tensor) -> None:
        super().__init__(model.shape, (len(kept),), model.device, model.dtype)
        self.model, self.kept = model, kept

    def describe(self) -> str:
        return f"{self.model.describe()}; {self.m:,} of {self.model.m:,} used"

    def _whole(self, y: torch.Tensor) -> torch.Tensor:
        """Measurements with zeros where one was held out."""
        whole = y.new_zeros((len(y), self.model.m)).index_copy(1, self.kept, y)
        return whole.view(len(y), *self.model.measurement_shape)

    def _forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.model.forward(x).flatten(1).index_select(1, self.kept)

    def _initial(self, y: torch.Tensor) -> torch.Tensor:
        return self.model.initial(self._whole(y))

    def _preview(self, y: torch.Tensor) -> torch.Tensor:
        return self.model.preview(self._whole(y))


class _LinearPart(_Part, LinearModel):
    def _adjoint(self, y: torch.Tensor) -> torch.Tensor:
        return self.model.adjoint(self._whole(y))  # type: ignore[attr-defined]


class _SizesPart(_Part):
    """Of a model that measures the sizes of something linear."""

    def linear_forward(self, x: torch.Tensor) -> torch.Tensor:
        linear: torch.Tensor = self.model.linear_forward(x)  # type: ignore[attr-defined]
        return linear.flatten(1).index_select(1, self.kept)

    def linear_norm(self) -> float:
        """That of the whole: an upper bound."""
        return float(self.model.linear_norm())  # type: ignore[attr-defined]
