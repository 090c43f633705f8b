"""Denoising: the measurement is the image itself, with noise."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch

from netprior_core.operators.base import ForwardModel, LinearModel, Operator
from netprior_core.problem import Shape


class Denoising(Operator):
    """Denoising: every pixel is measured, each with its own noise.

    y = x + e, that is A = I. Noise levels of the literature are σ = 15, 25 and 50 in 8-bit units
    (Ulyanov, Vedaldi & Lempitsky 2018, "Deep Image Prior", section 3).
    """

    title: ClassVar[str] = "Denoising"
    order: ClassVar[int] = 10
    equation: ClassVar[str] = "y = x + e"
    measures_images: ClassVar[bool] = True

    kind: Literal["denoising"] = "denoising"

    def build(
        self, shape: Shape, *, seed: int = 0, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
    ) -> ForwardModel:
        return IdentityModel(shape, shape, torch.device(device), dtype)


class IdentityModel(LinearModel):
    """A = I. ``forward`` returns its argument, not a copy."""

    has_pinv = True

    def norm(self) -> float:
        """1."""
        return 1.0

    def describe(self) -> str:
        return f"all {self.n:,} values, each measured once"

    def _forward(self, x: torch.Tensor) -> torch.Tensor:
        return x

    def _adjoint(self, y: torch.Tensor) -> torch.Tensor:
        return y

    def _pinv(self, y: torch.Tensor) -> torch.Tensor:
        return y
