"""The contract of methods: settings that turn a Problem into a stream of Steps."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from typing import Annotated, Any, ClassVar

import torch
from pydantic import BeforeValidator, SerializeAsAny

from netprior_core.errors import Unsolvable
from netprior_core.interrupt import check
from netprior_core.problem import Problem, Step
from netprior_core.settings import Registry, Settings


class Method(Settings):
    """A reconstruction method. Subclasses write ``_prepare`` (optional) and ``_solve``.

    Steps: any number of "prepare" steps, then "solve" steps from iteration 0 or 1 upwards, then one "result".
    Networks and tensors live inside the generators only; ``finally`` there frees them.
    """

    registry: ClassVar[Registry[Any]] = Registry("method")
    order: ClassVar[int] = 100
    family: ClassVar[str] = ""
    citation: ClassVar[str] = ""
    needs_shots: ClassVar[bool] = False
    #: The curve to look at first: "psnr", or "objective" where reconstructing is not the point.
    compare: ClassVar[str] = "psnr"

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        if not cls.model_fields["kind"].is_required():  # else it is what several methods have in common
            cls.registry.add(cls)

    def label(self) -> str:
        """The name of a lane with this method."""
        return self.title

    @property
    def total(self) -> int | None:
        """Iterations of a whole run, None where no setting says it."""
        return getattr(self, "iterations", None)

    def accepts(self, problem: Problem) -> str | None:
        """Why this method cannot solve the problem, in a sentence for a person, or None when it can."""
        if self.needs_shots and (problem.shots is None or len(problem.shots) == 0):
            return f"{self.title} learns from example images: choose a set that has shots, or upload examples of your own."
        return None

    def suited(self, operator: Any) -> Method:
        """The settings the paper uses for this operator (a preset of these), keeping the choice of variant; self if it has none."""
        return self

    def completed(self, operator: Any) -> Method:
        """These settings, and for those that whoever wrote the experiment did not give, what is right for its operator."""
        return self

    def at_hand(self) -> Method:
        """These settings, or others that work, where what they need is not installed here.

        Asked when a person picks a method, who sees the settings then; never of settings that somebody gave.
        """
        return self

    def solve(self, problem: Problem, *, seeds: Sequence[int]) -> Iterator[Step]:
        """Solve for R = len(seeds) independent initialisations; estimates are ``(R, C, H, W)``.

        Raises Unsolvable (at the first ``next``) when the problem is not accepted.
        """
        reason = self.accepts(problem)
        if reason:
            raise Unsolvable(reason)
        prepared = yield from self._prepare(problem, seeds[0])
        yield from lockstep([self._solve(problem, seed, prepared) for seed in seeds])

    def _prepare(self, problem: Problem, seed: int) -> Generator[Step, None, Any]:
        """Work before iteration 0 (pre-training); what it returns is given to every ``_solve``."""
        return None
        yield  # a generator without steps

    def _solve(self, problem: Problem, seed: int, prepared: Any) -> Iterator[Step]:
        """Solve from one seed: estimates ``(1, C, H, W)``. All randomness comes from ``seed``."""
        raise NotImplementedError


def lockstep(runs: Sequence[Iterator[Step]]) -> Iterator[Step]:
    """Advance several runs of one method together and stack their steps along the batch axis.

    Raises ValueError when one of them ends before another.
    """
    if len(runs) == 1:
        yield from runs[0]
        return
    try:
        while True:
            steps = []
            for run in runs:
                check()  # a step of all of them may take seconds
                steps.append(next(run, None))
            found = tuple(step for step in steps if step is not None)
            if not found:
                return
            if len(found) < len(runs):
                raise ValueError("runs of one method ended at different steps")
            yield _stack(found)
    finally:
        for run in runs:
            run.close()  # type: ignore[attr-defined]


def _stack(steps: tuple[Step, ...]) -> Step:
    def cat(name: str) -> torch.Tensor | None:
        values = [getattr(step, name) for step in steps]
        return torch.cat(values) if all(v is not None for v in values) else None

    first = steps[0]
    info = dict(first.info)
    if "returns" in info:
        info["returns"] = [step.info["returns"] for step in steps]
    return Step(first.iteration, first.total, first.stage, cat("output"), cat("estimate"), cat("objective"), first.phase, info)


AnyMethod = Annotated[SerializeAsAny[Method], BeforeValidator(Method.registry.parse)]
