"""Denoising: the measurement is the image itself, with noise."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch

from netprior_core.operators.base import Draw, ForwardModel, LinearModel, Operator
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
    lesson: ClassVar[str] = (
        "Every pixel is measured, and every measurement is a little off, as in a photograph taken in the dark. Nothing is missing; "
        "the question is only what is picture and what is noise. A network draws what is regular long before it draws noise, so "
        "stopping in time is enough to clean the picture."
    )

    kind: Literal["denoising"] = "denoising"

    def _build(self, shape: Shape, draw: Draw) -> ForwardModel:
        return IdentityModel(shape, shape, draw.device, draw.dtype)


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
