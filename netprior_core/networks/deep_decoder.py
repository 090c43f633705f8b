"""The Deep Decoder (Heckel and Hand 2019): 1×1 convolutions and fixed upsampling, nothing else that mixes pixels."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from netprior_core.networks.skip import scales_for

Size = tuple[int, int]


def sizes_for(height: int, width: int, doublings: int = 5, start: int = 0) -> list[Size]:
    """Sizes of the feature maps, from the random input to the image: one more than there are upsamplings.

    ``start`` 0: halves of halves of the image, rounded up, ``doublings`` of them (fewer on small images, so that the input keeps
    4×4 pixels). Else the input is ``start``×``start`` (at most half the image) and ``doublings`` equal factors lead from it to the
    image, as in the released code for compressed sensing: 16, 28, 49, 85, 148, 256.
    """
    if not start:
        count = scales_for(height, width, doublings)
        return [(-(-height // 2**i), -(-width // 2**i)) for i in range(count, -1, -1)]

    def between(side: int, step: int) -> int:
        first = min(start, -(-side // 2))
        return math.ceil(first * (side / first) ** (step / doublings) - 1e-9)

    return [(between(height, i), between(width, i)) for i in range(doublings + 1)]


class Mix(nn.Conv2d):
    """A 1×1 convolution without bias that computes in the precision of its input; its weights stay float32."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.conv2d(x, self.weight.to(x.dtype))


def upsample(x: torch.Tensor, size: Size) -> torch.Tensor:
    """Bilinear upsampling with pixel areas aligned (``align_corners=False``: what the released code does by default).

    To a size that is not twice the old one, but one pixel less, it is ×2 and a crop, so that the factor stays exact.
    """
    doubled = (2 * x.shape[-2], 2 * x.shape[-1])
    if all(0 <= d - s <= 1 for d, s in zip(doubled, size, strict=True)):
        y = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
        return y if doubled == size else y[..., : size[0], : size[1]]
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)


class DeepDecoder(nn.Module):
    """``G(z; C)``: ``(B, k, h, w)`` to ``(B, outputs, H, W)`` in [0, 1].

    ``B_{i+1} = cn(relu(U_i B_i C_i))``, ``x = sigmoid(B_d C_d)``, with C 1×1 convolutions without bias, U bilinear upsampling and
    cn an affine normalisation of every channel by its own mean and variance over the image (*after* the rectifier). A last layer
    without upsampling (``plain``) follows the upsampled ones, as in the released code. With five upsamplings, that layer and
    three outputs it has 25,536 parameters for k = 64 and 100,224 for k = 128.

    A 1×1 convolution mixes channels and upsampling mixes pixels, so they commute: convolving first, on the small map, is the same
    function at a quarter of the products. The network works in the precision and memory format of ``z``; the image is float32.
    """

    def __init__(self, outputs: int, sizes: Sequence[Size], *, channels: int = 128, plain: bool = True) -> None:
        super().__init__()
        self.sizes = list(sizes[1:])
        count = len(self.sizes) + plain
        self.mixes = nn.ModuleList(Mix(channels, channels) for _ in range(count))
        # Always the statistics of the one image being fitted: there is nothing to run on later.
        self.norms = nn.ModuleList(nn.BatchNorm2d(channels, track_running_stats=False) for _ in range(count))
        self.head = Mix(channels, outputs)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        x = z
        for i, (mix, norm) in enumerate(zip(self.mixes, self.norms, strict=True)):
            x = mix(x)
            if i < len(self.sizes):
                x = upsample(x, self.sizes[i])
            x = norm(F.relu(x, inplace=True))  # in place: nothing before it needs its output for the gradient
        return torch.sigmoid(self.head(x).float())
