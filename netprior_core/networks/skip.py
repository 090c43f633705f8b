"""The ``skip`` encoder-decoder of Deep Image Prior (Ulyanov, Vedaldi, Lempitsky 2018, supplementary figure 21)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from netprior_core.networks.layers import Upsampling, doubled, pointwise

#: The deepest feature map keeps at least this side: BatchNorm over fewer values than 4×4 is mostly noise,
#: and a reflection border needs two pixels.
SMALLEST_SIDE = 4


def scales_for(height: int, width: int, scales: int = 5) -> int:
    """How many of ``scales`` halvings an image of this size can take (at least one): 5 from 128×128 up, 4 at 64, 3 at 32."""
    side, fit = min(height, width), 0
    while fit < scales and (side + 1) // 2 >= SMALLEST_SIDE:
        side, fit = (side + 1) // 2, fit + 1
    return max(fit, 1)


class Conv(nn.Conv2d):
    """A convolution with a reflected border that computes in the precision of its input; its weights stay float32.

    Explicit casts rather than autocast: autocast would send upsampling and padding through float32 and back.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1) -> None:
        super().__init__(inputs, outputs, kernel, stride)
        self.border = kernel // 2

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.border:
            x = F.pad(x, (self.border,) * 4, mode="reflect")
        assert self.bias is not None
        return F.conv2d(x, self.weight.to(x.dtype), self.bias.to(x.dtype), self.stride)


def _norm(channels: int) -> nn.BatchNorm2d:
    # Always the statistics of the one image being fitted: there is nothing to run on later.
    return nn.BatchNorm2d(channels, track_running_stats=False)


def _block(inputs: int, outputs: int, kernel: int, stride: int = 1) -> list[nn.Module]:
    return [Conv(inputs, outputs, kernel, stride), _norm(outputs), nn.LeakyReLU(0.2, inplace=True)]


class _Scale(nn.Module):
    """One scale: down by two, whatever lies deeper, up by two, joined with the 1×1 skip branch."""

    def __init__(self, inputs: int, channels: int, skip: int, upsampling: Upsampling, deeper: nn.Module | None) -> None:
        super().__init__()
        self.down = nn.Sequential(*_block(inputs, channels, 3, 2), *_block(channels, channels, 3))
        self.deeper = deeper
        self.skip = nn.Sequential(*_block(inputs, skip, 1)) if skip else None
        self.norm = _norm(channels + skip)
        self.up = nn.Sequential(*_block(channels + skip, channels, 3), *_block(channels, channels, 1))
        self.upsampling = upsampling

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.down(x)
        if self.deeper is not None:
            y = self.deeper(y)
        y = doubled(y, self.upsampling)[..., : x.shape[-2], : x.shape[-1]]  # odd sides come back one pixel larger
        if self.skip is not None:
            y = torch.cat([self.skip(x), y], dim=1)
        return self.up(self.norm(y))


class Skip(nn.Module):
    """``f(z; θ)``: ``(B, inputs, H, W)`` to ``(B, outputs, H, W)`` in [0, 1], for any H and W.

    Each scale: 3×3 stride-2 and 3×3 convolutions down, a 1×1 skip branch of ``skip`` channels, ×2 upsampling, then 3×3 and 1×1
    convolutions; every convolution with reflected borders, BatchNorm and LeakyReLU(0.2); a 1×1 output layer and a sigmoid.
    With the defaults and three outputs it has the 2,217,831 parameters of the released network.

    The network works in the precision and memory format of ``z``; the output layer and the result are float32.
    """

    def __init__(
        self,
        outputs: int,
        *,
        inputs: int = 32,
        channels: int = 128,
        skip: int = 4,
        scales: int = 5,
        upsampling: Upsampling = "bilinear",
    ) -> None:
        super().__init__()
        body: nn.Module | None = None
        for scale in reversed(range(scales)):
            body = _Scale(inputs if scale == 0 else channels, channels, skip, upsampling, body)
        assert body is not None
        self.body = body
        self.head = Conv(channels, outputs, 1)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(pointwise(self.body(z).float(), self.head))
