"""DCGAN generators: the published one (Radford, Metz, Chintala 2016) and the flat one of CS-DIP's released code."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn

Layers = Literal["dcgan", "cs-dip"]

SMALLEST_SIDE = 16


def side_for(height: int, width: int) -> int:
    """Side of the square that the generator draws for an image of this size: the next power of two, at least 16."""
    side = SMALLEST_SIDE
    while side < max(height, width):
        side *= 2
    return side


class ConvT(nn.ConvTranspose2d):
    """A transposed convolution without bias that computes in the precision of its input; its weights stay float32."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, border: int) -> None:
        super().__init__(inputs, outputs, kernel, stride, border, bias=False)
        self.border = border

    def forward(self, x: torch.Tensor, output_size: list[int] | None = None) -> torch.Tensor:
        return F.conv_transpose2d(x, self.weight.to(x.dtype), None, self.stride, self.border)


class DCGAN(nn.Module):
    """``G(z; θ)``: latents ``(B, latent)`` to images ``(B, outputs, height, width)`` in [-1, 1].

    A 4×4 map is drawn from the latent and doubled up to the next power of two, with BatchNorm and ReLU after every layer but
    the last, which ends in tanh. Images of other sizes are the middle of that square.

    layers "dcgan": 4×4 kernels, widths halving from 8·``channels`` down to ``channels`` (published: 64).
    layers "cs-dip": ``channels`` everywhere, ConvT(4, 1, 0), then ConvT(6, 2, 2) repeated, then ConvT(4, 2, 1):
    seven layers at 256×256 (x-ray), six at 128×128 (retina).

    The network works in the precision of ``z``; the result is float32.
    """

    def __init__(
        self, height: int, width: int, outputs: int, *, latent: int = 128, channels: int = 64, layers: Layers = "dcgan"
    ) -> None:
        super().__init__()
        self.latent, self.height, self.width = latent, height, width
        doublings = (side_for(height, width) // 4).bit_length() - 1
        kernel, border = (6, 2) if layers == "cs-dip" else (4, 1)
        if layers == "cs-dip":
            widths = [channels] * doublings
        else:
            widths = [channels * min(8, 2 ** (doublings - 1 - i)) for i in range(doublings)]
        body: list[nn.Module] = [ConvT(latent, widths[0], 4, 1, 0), nn.BatchNorm2d(widths[0]), nn.ReLU(inplace=True)]
        for before, after in pairwise(widths):
            body += [ConvT(before, after, kernel, 2, border), nn.BatchNorm2d(after), nn.ReLU(inplace=True)]
        self.body = nn.Sequential(*body)
        self.head = ConvT(widths[-1], outputs, 4, 2, 1)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        square = torch.tanh(self.head(self.body(z[:, :, None, None])).float())
        top, left = (square.shape[-2] - self.height) // 2, (square.shape[-1] - self.width) // 2
        return square[..., top : top + self.height, left : left + self.width]
