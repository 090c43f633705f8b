"""The trivial baselines every comparison needs: one product with A and no prior."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F

from netprior_core.errors import Unsolvable
from netprior_core.methods._common import partial, squares
from netprior_core.methods.base import Method
from netprior_core.problem import Problem, Step


def _at_once(method: Method, problem: Problem, estimate: torch.Tensor) -> Iterator[Step]:
    """The steps of a method that has its answer at once: one solve step, then the result."""
    misfit = squares(problem.model.forward(estimate) - problem.measurement).flatten(1).mean(dim=1)
    if not bool(torch.isfinite(misfit).all()):
        raise Unsolvable(f"{method.title}: the measurement holds invalid values (not a number, or infinite).")
    yield Step(1, 1, "solve", estimate, estimate, misfit)
    yield Step(1, 1, "result", estimate, estimate, misfit, info={"returns": 1})


class Adjoint(Method):
    """The cheapest picture of the measurement: zero-filled or adjoint, ``x̂ = Aᵀ y`` (what the operator calls its initial picture).

    Deterministic; nothing is learned or iterated.
    """

    title: ClassVar[str] = "Zero-filled / adjoint"
    family: ClassVar[str] = "Baseline"
    order: ClassVar[int] = 90

    kind: Literal["adjoint"] = "adjoint"

    def _solve(self, problem: Problem, seed: int, prepared: Any) -> Iterator[Step]:
        yield from _at_once(self, problem, problem.model.initial(problem.measurement))


class PseudoInverse(Method):
    """The minimum-norm least-squares solution ``x̂ = A⁺ y`` (Moore-Penrose), where the operator has one in closed form."""

    title: ClassVar[str] = "Pseudo-inverse"
    family: ClassVar[str] = "Baseline"
    order: ClassVar[int] = 91

    kind: Literal["pseudo-inverse"] = "pseudo-inverse"

    def accepts(self, problem: Problem) -> str | None:
        if not getattr(problem.model, "has_pinv", False):
            return f"{self.title}: {_name(problem)} has no pseudo-inverse in closed form. Use “{Adjoint.title}” instead."
        return super().accepts(problem)

    def _solve(self, problem: Problem, seed: int, prepared: Any) -> Iterator[Step]:
        yield from _at_once(self, problem, problem.model.pinv(problem.measurement))  # type: ignore[attr-defined]


class Bicubic(Method):
    """Bicubic interpolation of the small picture (Keys 1981, a = -0.75), the yardstick of super-resolution.

    ``y`` ``(1, C, h, w)`` to ``(1, C, H, W)``; borders are replicated.
    """

    title: ClassVar[str] = "Bicubic"
    citation: ClassVar[str] = "R. Keys, Cubic convolution interpolation for digital image processing, IEEE Trans. ASSP 1981"
    family: ClassVar[str] = "Baseline"
    order: ClassVar[int] = 92

    kind: Literal["bicubic"] = "bicubic"

    def accepts(self, problem: Problem) -> str | None:
        if problem.operator.kind != "super-resolution":
            return f"{self.title} enlarges small pictures: it solves super-resolution only, not {_name(problem)}."
        return super().accepts(problem) or partial(problem, self.title)

    def _solve(self, problem: Problem, seed: int, prepared: Any) -> Iterator[Step]:
        enlarged = F.interpolate(problem.measurement, size=problem.shape[1:], mode="bicubic", align_corners=False)
        yield from _at_once(self, problem, enlarged)


def _name(problem: Problem) -> str:
    return type(problem.operator).title.lower() or problem.operator.kind
