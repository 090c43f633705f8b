"""Steps along orthogonalised momenta."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

#: Coefficients and steps of the Newton–Schulz iteration that orthogonalises, and the size of an update's entries at a rate of 1
#: (Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks", and Liu et al. 2025 for the last).
POLYNOMIAL, POLISHED, ENTRY = (3.4445, -4.7750, 2.0315), 5, 0.2


def orthogonalised(v: torch.Tensor) -> torch.Tensor:
    """About U Vᵀ of v = U S Vᵀ, a row for each output channel, its entries of size ENTRY; ``v`` of its own shape.

    Directions in which the momentum is weak move as far as strong ones. A few steps of a polynomial take the singular values to
    0.7 to 1.2 without a decomposition; those below about a thousandth of the whole remain smaller. Its steps, X ← Q X with
    Q = a + b X Xᵀ + c (X Xᵀ)², are done on the small matrix X Xᵀ, which becomes Q X Xᵀ Q, as all Q commute with it.
    """
    x = v.flatten(1)
    tall = x.shape[0] > x.shape[1]
    wide = x.T if tall else x
    wide = wide / (wide.norm() + 1e-12)
    square = wide @ wide.T
    whole = step = _polynomial(square)
    for _ in range(POLISHED - 1):
        square = step @ square @ step
        step = _polynomial(square)
        whole = step @ whole
    wide = whole @ wide
    x = wide.T if tall else wide
    return (ENTRY * max(x.shape) ** 0.5 * x).reshape(v.shape)


def _polynomial(square: torch.Tensor) -> torch.Tensor:
    a, b, c = POLYNOMIAL
    found = torch.addmm(square, square, square, beta=b, alpha=c)
    found.diagonal().add_(a)
    return found


class Muon:
    """θ ← θ − α d(g + μ v) with v ← μ v + g and d :func:`orthogonalised`, for tensors of two dimensions and more; else Adam.

    ``torch.optim.Muon`` is for matrices alone; this takes kernels of convolutions as matrices of one row an output channel.
    ``rate`` is α, ``other_rate`` Adam's for biases and scales.
    """

    def __init__(self, parameters: Iterable[torch.Tensor], rate: float, *, other_rate: float, momentum: float = 0.9) -> None:
        parameters = list(parameters)
        self.kernels = [p for p in parameters if p.dim() > 1]
        self.velocity = [torch.zeros_like(p) for p in self.kernels]
        self.rate, self.other_rate, self.momentum = rate, other_rate, momentum
        others = [p for p in parameters if p.dim() < 2]
        self.adam = torch.optim.Adam(others, lr=other_rate, fused=True) if others else None

    @torch.no_grad()
    def step(self, share: float = 1.0) -> None:
        """Move along the gradients that the parameters hold, with both rates times ``share``."""
        if self.kernels:
            slopes = [p.grad for p in self.kernels if p.grad is not None]
            torch._foreach_mul_(self.velocity, self.momentum)
            torch._foreach_add_(self.velocity, slopes)
            ahead = torch._foreach_add(slopes, self.velocity, alpha=self.momentum)
            for weight, move in zip(self.kernels, ahead, strict=True):
                weight.sub_(orthogonalised(move), alpha=self.rate * share)
        if self.adam is not None:
            for group in self.adam.param_groups:
                group["lr"] = self.other_rate * share
            self.adam.step()

    def state_dict(self) -> dict[str, Any]:
        """What a run needs to go on exactly; the rates are not of it."""
        return {"velocity": self.velocity, "adam": None if self.adam is None else self.adam.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from :meth:`state_dict`, with the rates of now."""
        for mine, theirs in zip(self.velocity, state["velocity"], strict=True):
            mine.copy_(theirs)
        if self.adam is not None:
            self.adam.load_state_dict(state["adam"])
