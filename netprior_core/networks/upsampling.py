"""A generator with upsampling in place of transposed convolutions."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from netprior_core.networks.dcgan import side_for


class Conv(nn.Conv2d):
    """A convolution that computes in the precision of its input; its weights stay float32."""

    def __init__(self, inputs: int, outputs: int, kernel: int, *, bias: bool = False) -> None:
        super().__init__(inputs, outputs, kernel, padding=kernel // 2, bias=bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        bias = None if self.bias is None else self.bias.to(x.dtype)
        return F.conv2d(x, self.weight.to(x.dtype), bias, 1, self.padding)


class UpsamplingGenerator(nn.Module):
    """``G(z; θ)``: latents ``(B, latent)`` to images ``(B, outputs, height, width)`` in [-1, 1], as DCGAN's.

    A linear layer draws a 4×4 map of ``channels`` from the latent. Each doubling is a bilinear upsampling, a 3×3 and a 1×1
    convolution, each with BatchNorm and a leaky ReLU (0.2); a 1×1 convolution and tanh end it. So what is not learned is smooth,
    where transposed convolutions leave checkerboards, and the width is the same at every size. Images of other sizes than a power
    of two are the middle of the next one.

    The network works in the precision of ``z``; the result is float32.
    """

    def __init__(self, height: int, width: int, outputs: int, *, latent: int = 128, channels: int = 32) -> None:
        super().__init__()
        self.latent, self.height, self.width, self.channels = latent, height, width, channels
        self.first = Conv(latent, channels * 16, 1)
        body: list[nn.Module] = [nn.BatchNorm2d(channels)]
        for _ in range((side_for(height, width) // 4).bit_length() - 1):
            body.append(nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False))
            for kernel in (3, 1):
                body += [Conv(channels, channels, kernel), nn.BatchNorm2d(channels), nn.LeakyReLU(0.2, inplace=True)]
        self.body = nn.Sequential(*body)
        self.head = Conv(channels, outputs, 1, bias=True)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        small = self.first(z[:, :, None, None]).view(-1, self.channels, 4, 4)
        square = torch.tanh(self.head(self.body(small)).float())
        top, left = (square.shape[-2] - self.height) // 2, (square.shape[-1] - self.width) // 2
        return square[..., top : top + self.height, left : left + self.width]
