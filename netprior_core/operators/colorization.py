"""Colorization: only the luma of a colour picture is measured."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch

from netprior_core.images import LUMA
from netprior_core.operators.base import Draw, ForwardModel, LinearModel, Operator
from netprior_core.problem import Shape

BT709 = (0.2126, 0.7152, 0.0722)


class Colorization(Operator):
    """Colorization: a grey picture is to get its colours back.

    y = 0.299 R + 0.587 G + 0.114 B + e, the luma of ITU-R BT.601 (Pillow's "L"), as in the low-shot paper
    (Leong & Sakla 2019, section on colorization). Nothing in y says which colour:
    a method has to know what such pictures look like.
    """

    title: ClassVar[str] = "Colorization"
    order: ClassVar[int] = 50
    equation: ClassVar[str] = "y = luma(x) + e"
    measures_images: ClassVar[bool] = True
    error_means: ClassVar[str] = "the weights are those of high-definition video (BT.709) instead"
    lesson: ClassVar[str] = (
        "A black-and-white camera adds up red, green and blue with fixed weights and forgets the rest: one number is kept of "
        "three. Every grey value could have come from countless colours, so the measurement alone can never decide. A prior that "
        "has seen such pictures can: it knows that skin is not green."
    )

    kind: Literal["colorization"] = "colorization"

    def _build(self, shape: Shape, draw: Draw) -> ForwardModel:
        weights = tuple(a + draw.error * (b - a) for a, b in zip(LUMA, BT709, strict=True))
        return LumaModel(shape, draw.device, draw.dtype, weights=weights)

    def refuses(self, shape: Shape) -> str | None:
        if shape[0] != 3:
            return "Colorization needs a colour picture; this one is grey. Choose a colour target or another operator."
        return None

    def shape_of_measured(self, image_shape: Shape) -> Shape:
        """A grey (or colour) picture stands for the luma of an unknown colour one."""
        return 3, image_shape[1], image_shape[2]


class LumaModel(LinearModel):
    """``A = wᵀ ⊗ I`` with w = (0.299, 0.587, 0.114): ``(B, 3, H, W)`` to ``(B, 1, H, W)``. Weights sum to 1."""

    has_pinv = True

    def __init__(self, shape: Shape, device: torch.device, dtype: torch.dtype, *, weights: tuple[float, ...] = LUMA) -> None:
        super().__init__(shape, (1, *shape[1:]), device, dtype)
        self.weights = torch.tensor(weights, dtype=dtype, device=self.device).view(1, 3, 1, 1)
        self._square = sum(w * w for w in weights)

    def norm(self) -> float:
        """``‖w‖`` = 0.669."""
        return self._square**0.5

    def describe(self) -> str:
        return f"one luma value for the three colours of each of {self.shape[1] * self.shape[2]:,} pixels"

    def _forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x * self.weights).sum(dim=1, keepdim=True)

    def _adjoint(self, y: torch.Tensor) -> torch.Tensor:
        return y * self.weights

    def _pinv(self, y: torch.Tensor) -> torch.Tensor:
        return y * (self.weights / self._square)

    def _initial(self, y: torch.Tensor) -> torch.Tensor:
        """The grey picture: luma in all three channels (the weights sum to 1, so it measures as y)."""
        return y.expand(-1, 3, -1, -1).clone()

    def _preview(self, y: torch.Tensor) -> torch.Tensor:
        return y
