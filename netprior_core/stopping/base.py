"""The contract of stopping rules, and what watches a run."""

from __future__ import annotations

from functools import cached_property
from typing import Annotated, Any, ClassVar

import torch
from pydantic import BeforeValidator, SerializeAsAny

from netprior_core.problem import Problem, Step
from netprior_core.settings import Registry, Settings

#: Rules look at the measurement, and say what they have found, at every tenth iteration.
READ_EVERY = 10


class Look:
    """One step as the rules see it. What several of them need is computed once, when first asked for."""

    def __init__(self, step: Step, problem: Problem, twin: Step | None = None) -> None:
        assert step.output is not None
        assert step.estimate is not None
        self.iteration, self.output, self.estimate = step.iteration, step.output.detach(), step.estimate.detach()
        self.problem, self.twin = problem, twin

    @property
    def due(self) -> bool:
        """Whether this is an iteration at which the measurement is looked at."""
        return self.iteration % READ_EVERY == 0

    @cached_property
    def predicted(self) -> torch.Tensor:
        """``A x̂`` ``(R, *measurement_shape)`` of the estimate, all measurements, held-out ones included."""
        with torch.no_grad():
            return self.problem.model.forward(self.estimate.to(self.problem.model.dtype))

    @cached_property
    def misfit(self) -> torch.Tensor:
        """``A x̂ − y`` ``(R, m)``."""
        return (self.predicted - self.problem.measurement).flatten(1)


class Watcher:
    """A rule at work on one run. ``candidate`` and ``fired`` are known up to the last :meth:`read`."""

    def __init__(self, rule: StoppingRule) -> None:
        self.rule = rule
        self.candidate: int | None = None
        self.fired: int | None = None
        self.estimate: torch.Tensor | None = None

    def see(self, look: Look) -> None:
        """Take one step in. Reads no number from the device."""
        raise NotImplementedError

    def read(self, iteration: int) -> None:
        """Find out where the rule is; every tenth iteration and at the end."""
        raise NotImplementedError


class Least(Watcher):
    """Keeps the iterate of least score; fires when there was no lower one for ``patience`` iterations."""

    def __init__(self, rule: StoppingRule, patience: int) -> None:
        super().__init__(rule)
        self.patience = patience
        self._best: torch.Tensor | None = None
        self._where: torch.Tensor | None = None

    def offer(self, score: torch.Tensor, look: Look) -> None:
        """A score (scalar, on the device) for this iteration."""
        if self.fired is not None:
            return
        now = torch.full_like(score, look.iteration)
        if self._best is None or self._where is None or self.estimate is None:
            self._best, self._where, self.estimate = score.clone(), now, look.estimate.clone()
            return
        better = score < self._best
        self._best = torch.minimum(score, self._best)
        self._where = torch.where(better, now, self._where)
        torch.where(better, look.estimate, self.estimate, out=self.estimate)

    def read(self, iteration: int) -> None:
        if self._where is None or self.fired is not None:
            return
        self.candidate = int(self._where)
        if iteration - self.candidate >= self.patience:
            self.fired = iteration


class StoppingRule(Settings):
    """When to stop. ``changes_run`` marks rules that alter what the method computes; ``cost`` says what that costs."""

    registry: ClassVar[Registry[Any]] = Registry("stopping rule")
    order: ClassVar[int] = 100
    changes_run: ClassVar[bool] = False
    cost: ClassVar[str] = "next to nothing"
    citation: ClassVar[str] = ""

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        cls.registry.add(cls)

    def refuses(self, problem: Problem) -> str | None:
        """Why this rule cannot watch a run on this problem, or None."""
        return None

    def prepare(self, problem: Problem, seed: int) -> Problem:
        """The problem that the method is to solve instead (held-out measurements are taken away)."""
        return problem

    def twin(self, problem: Problem, seed: int) -> Problem | None:
        """A second problem, to be solved side by side from the same seed, or None."""
        return None

    def watch(self, problem: Problem, seed: int) -> Watcher:
        """A watcher of one run on ``problem`` (with all its measurements)."""
        raise NotImplementedError


AnyRule = Annotated[SerializeAsAny[StoppingRule], BeforeValidator(StoppingRule.registry.parse)]
