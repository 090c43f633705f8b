"""What the classical methods share: refusing nonlinear operators, reading objectives, the scale of A, tuned weights."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from netprior_core.errors import Unsolvable
from netprior_core.methods._tuned import WEIGHTS
from netprior_core.methods.base import Method
from netprior_core.operators import LinearModel
from netprior_core.problem import Problem, Step

FAMILY = "Classical"
#: Noise that a weight is made for where there is less, or nobody knows how much: half an 8-bit level, and five.
LEAST_NOISE, UNKNOWN_NOISE = 0.5 / 255, 5 / 255


def needs_linear(method: Method, problem: Problem) -> str | None:
    """Words for a nonlinear operator, or None."""
    if isinstance(problem.model, LinearModel):
        return None
    return (
        f"{method.title} needs a linear operator, and {type(problem.operator).title.lower()} is not. "
        "Choose a method that follows gradients: a network, or plug-and-play."
    )


def linear(problem: Problem) -> LinearModel:
    """The model of a problem that :func:`needs_linear` has nothing against."""
    assert isinstance(problem.model, LinearModel)
    return problem.model


def checked(value: torch.Tensor, title: str, iteration: int) -> float:
    """A scalar as a number. Raises Unsolvable, in words, when it is not finite."""
    number = float(value)
    if number != number or abs(number) == float("inf"):
        raise Unsolvable(
            f"{title}: the objective is not a number any more at iteration {iteration}. "
            "Check that the measurement holds no invalid values."
        )
    return number


#: Of the draws that measure the size of A: of a seed that no A or noise has, whose own draws would make it look larger.
PROBE_SEED = 836_219_407


def gain(model: LinearModel) -> float:
    """‖A‖_F / √n, the size of the measurement of a unit of white noise in the picture; by 8 random signs (Hutchinson 1990)."""
    generator = torch.Generator().manual_seed(PROBE_SEED)
    signs = torch.randint(0, 2, (8, *model.shape), generator=generator).to(model.device, model.dtype) * 2 - 1
    size = sum(float(model.forward(sign[None]).square().sum()) for sign in signs)
    return (size / (8 * model.n)) ** 0.5 or 1.0


def noise_in_picture(problem: Problem, scale: float) -> float:
    """σ in units of the picture, the measurement's divided by the gain ``scale`` of A, within reason where it is 0 or unknown."""
    if problem.noise_std is None:
        return UNKNOWN_NOISE
    return max(problem.noise_std / scale, LEAST_NOISE)


def tuned_weight(method: str, problem: Problem) -> float:
    """λ of ½ ‖A x − y‖² + λ R(x): c g σ, with g the gain of A and c found once per operator (``methods/_tuned.py``).

    Multiplying A, y and the noise by a constant k multiplies λ by k², and leaves the solution as it is.
    """
    scale = gain(linear(problem))
    table = WEIGHTS[method]
    factor = table.get(problem.operator.kind, table["compressed-sensing"])
    return factor * scale**2 * noise_in_picture(problem, scale)


def at_once(method: Method, problem: Problem, estimate: torch.Tensor, **info: Any) -> Iterator[Step]:
    """The steps of a method that has its answer at once: one solve step, then the result."""
    misfit = (problem.model.forward(estimate) - problem.measurement).abs().square().flatten(1).mean(dim=1)
    if not bool(torch.isfinite(misfit).all()):
        raise Unsolvable(f"{method.title}: the measurement holds invalid values (not a number, or infinite).")
    yield Step(1, 1, "solve", estimate, estimate, misfit, info=info)
    yield Step(1, 1, "result", estimate, estimate, misfit, info={"returns": 1, **info})


def finite_measurement(problem: Problem, title: str) -> None:
    """Raises Unsolvable when the measurement holds invalid values: packages may hang or warn on them."""
    if not bool(torch.isfinite(problem.measurement).all()):
        raise Unsolvable(f"{title}: the measurement holds invalid values (not a number, or infinite).")
