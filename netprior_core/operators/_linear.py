"""A linear map and its transpose as one differentiable step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

Map = Callable[[torch.Tensor], torch.Tensor]


class _Applied(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: torch.Tensor, apply: Map, transpose: Map) -> torch.Tensor:
        ctx.maps = apply, transpose
        return apply(value)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        apply, transpose = ctx.maps
        return applied(grads[0], transpose, apply), None, None


def applied(value: torch.Tensor, apply: Map, transpose: Map) -> torch.Tensor:
    """``apply(value)`` for a linear real map: the derivative is its transpose, at every order.

    For transforms whose own derivative torch takes by a longer way: that of ``rfft2`` is a complex FFT of the whole spectrum.
    """
    found: torch.Tensor = _Applied.apply(value, apply, transpose)
    return found
