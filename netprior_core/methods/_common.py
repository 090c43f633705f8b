"""What several methods share: reading losses rarely, smoothing, total variation."""

from __future__ import annotations

import torch

from netprior_core.errors import Unsolvable
from netprior_core.problem import Problem

#: A loss is read every so many iterations: reading it is what makes the processor wait for the device.
READ_EVERY = 10


def finite(loss: torch.Tensor, title: str, iteration: int) -> float:
    """The value of a scalar loss. Raises Unsolvable, in words for a person, when it is not a finite number."""
    value = float(loss.detach())
    if value != value or value in (float("inf"), float("-inf")):
        raise Unsolvable(
            f"{title}: the loss is not a number any more at iteration {iteration}. "
            "Lower the learning rate, and check that the measurement holds no invalid values."
        )
    return value


def due(iteration: int, total: int) -> bool:
    """Whether to read the loss at this iteration: the first, every tenth and the last."""
    return iteration == 1 or iteration == total or iteration % READ_EVERY == 0


def squares(difference: torch.Tensor) -> torch.Tensor:
    """|d|², real for complex measurements too."""
    return difference.abs().square() if difference.is_complex() else difference.square()


def total_variation(x: torch.Tensor) -> torch.Tensor:
    """Anisotropic total variation ``Σ |x[i+1, j] - x[i, j]| + |x[i, j+1] - x[i, j]|`` of ``(B, C, H, W)``, summed."""
    return (x[..., 1:, :] - x[..., :-1, :]).abs().sum() + (x[..., :, 1:] - x[..., :, :-1]).abs().sum()


def signed_misfit(problem: Problem, image: torch.Tensor) -> torch.Tensor:
    """``‖A G − y'‖²`` in [-1, 1] units, summed over the measurements; a scalar. ``image`` is ``G`` mapped to [0, 1].

    With ``y' = 2 y − A 1`` a linear A gives ``A G − y' = 2 (A x − y)`` for ``G = 2 x − 1``, and noise twice as strong. The
    right-hand side needs no ``y'`` and holds for nonlinear A too.
    """
    return 4 * squares(problem.model.forward(image) - problem.measurement).sum()


def partial(problem: Problem, title: str) -> str | None:
    """Why a method that takes the measurement for a picture cannot when some of it is held out; None when it is whole."""
    if problem.measurement.ndim == 4:
        return None
    return f"{title} takes the measurement for a picture, and some of it is held out: switch held-out measurements off."
