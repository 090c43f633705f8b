"""The U-Net of Educated Deep Image Prior: few and narrow skip branches, group normalisation, no sigmoid."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from netprior_core.networks.layers import doubled, pointwise

#: Channels that share their mean and variance, where the width is a multiple of it.
GROUP = 8


class _Conv(nn.Conv2d):
    """A convolution with a border of zeros that computes in the precision of its input; its weights stay float32."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert self.bias is not None
        return F.conv2d(x, self.weight.to(x.dtype), self.bias.to(x.dtype), self.stride, self.padding)


class _Norm(nn.GroupNorm):
    """Group normalisation in the precision of its input. One picture is treated as in any batch, unlike with BatchNorm."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels // GROUP if channels % GROUP == 0 else 1, channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.group_norm(x, self.num_groups, self.weight.to(x.dtype), self.bias.to(x.dtype), self.eps)


def _block(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> list[nn.Module]:
    return [_Conv(inputs, outputs, kernel, stride, kernel // 2), _Norm(outputs), nn.LeakyReLU(0.2, inplace=True)]


class _Up(nn.Module):
    """From one scale to the next finer one: enlarge, join with the skip branch, two convolutions."""

    def __init__(self, width: int, skip: int) -> None:
        super().__init__()
        self.skip = nn.Sequential(*_block(width, skip, 1)) if skip else None
        self.body = nn.Sequential(_Norm(width + skip), *_block(width + skip, width), *_block(width, width))

    def forward(self, x: torch.Tensor, finer: torch.Tensor) -> torch.Tensor:
        x = doubled(x)[..., : finer.shape[-2], : finer.shape[-1]]  # odd sides come back one pixel larger
        if self.skip is not None:
            x = torch.cat([x, self.skip(finer)], dim=1)
        return self.body(x)


class EducatedUNet(nn.Module):
    """``f(z; θ)``: ``(B, 1, H, W)``, a first picture, to ``(B, 1, H, W)``, its reconstruction; any H and W, no sigmoid.

    Scale 0 has the picture's size; each further one is entered by a 3×3 convolution of stride 2 and a 3×3 one, and left by
    bilinear enlargement, the skip branch (1×1) and two 3×3 convolutions; GroupNorm and LeakyReLU(0.2) after each; at last a 1×1
    convolution.

    ``skips[s]``: channels of the branch that joins where scale s is left for scale s − 1; ``skips[0]`` therefore belongs to
    nothing, as in the released code. The defaults are those released by Barbano et al. (2021): six scales of 128 channels and
    skips between deep scales only, so that all detail has to pass a narrow place.

    The network works in the precision and memory format of ``z``; the output layer and the result are float32. Colour pictures go
    through as one grey picture for each channel (:func:`by_channel`).
    Raises ValueError when ``skips`` has not one entry for each scale.
    """

    def __init__(self, *, width: int = 128, scales: int = 6, skips: Sequence[int] = (0, 0, 0, 0, 4, 4)) -> None:
        super().__init__()
        if len(skips) != scales or scales < 1:
            raise ValueError(f"{scales} scales need as many entries in skips, not {len(skips)}")
        self.enter = nn.Sequential(*_block(1, width))
        self.down = nn.ModuleList(nn.Sequential(*_block(width, width, 3, 2), *_block(width, width)) for _ in range(1, scales))
        self.up = nn.ModuleList(_Up(width, skips[scale]) for scale in reversed(range(1, scales)))
        self.leave = _Conv(width, 1, 1)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        features = [self.enter(z)]
        for down in self.down:
            features.append(down(features[-1]))
        x = features.pop()
        for up in self.up:
            x = up(x, features.pop())
        return pointwise(x.float(), self.leave)


def by_channel(pictures: torch.Tensor) -> torch.Tensor:
    """``(B, C, H, W)`` as ``(B·C, 1, H, W)``: the network sees every channel as a grey picture, with the same weights."""
    return pictures.reshape(-1, 1, *pictures.shape[-2:])
