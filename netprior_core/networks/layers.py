"""Two operations that encoder-decoders share, in a form that is fast on a CPU."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn

Upsampling = Literal["bilinear", "nearest"]


def doubled(x: torch.Tensor, mode: Upsampling = "bilinear") -> torch.Tensor:
    """Upsampling ×2, pixel areas aligned: ``(B, C, H, W)`` to ``(B, C, 2H, 2W)``.

    The gradient is laid out densely before it goes back through: where the map was joined with a skip branch it is a slice of the
    joined one's, on which PyTorch's backward of channels_last maps is several times slower.
    """
    y = F.interpolate(x, scale_factor=2, mode=mode, align_corners=False if mode == "bilinear" else None)
    if y.requires_grad:
        y.register_hook(torch.clone)
    return y


def pointwise(x: torch.Tensor, convolution: nn.Conv2d) -> torch.Tensor:
    """A 1×1 ``convolution`` with few outputs, as sums over each pixel's channels: ``(B, C, H, W)`` to ``(B, outputs, H, W)``.

    PyTorch's float32 convolution of one image unfolds the map first, and its backward fills one with zeros.
    """
    return F.linear(x.movedim(1, -1), convolution.weight.flatten(1), convolution.bias).movedim(-1, 1)
