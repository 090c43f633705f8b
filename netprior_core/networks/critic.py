"""DCGAN's other half (Radford, Metz, Chintala 2016): strided convolutions from an image to numbers.

One number: the critic of a GAN. As many as a latent has: NPGD's projector, "similar to D except last layer produces latent vector".
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn

from netprior_core.networks.dcgan import side_for


class Conv(nn.Conv2d):
    """A convolution that computes in the precision of its input; its weights stay float32."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        bias = None if self.bias is None else self.bias.to(input.dtype)
        return F.conv2d(input, self.weight.to(input.dtype), bias, self.stride, self.padding)


class Critic(nn.Module):
    """``D(x; φ)``: images ``(B, inputs, height, width)`` in [-1, 1] to ``(B, outputs)``, float32.

    4×4 kernels, stride 2, widths doubling from ``channels`` up to 8·``channels`` at 4×4, LeakyReLU 0.2, then one 4×4 kernel over
    all of it. Images are continued at their borders to the next power of two, as the generator cuts them out of one.

    ``norm`` puts BatchNorm after every convolution but the first and the last. A critic has none: gradient penalties are of one
    image, which BatchNorm would mix with others (Gulrajani et al. 2017, section 4). A projector is better with it.
    """

    def __init__(self, height: int, width: int, inputs: int, *, channels: int = 32, outputs: int = 1, norm: bool = False) -> None:
        super().__init__()
        self.side, self.height, self.width = side_for(height, width), height, width
        doublings = (self.side // 4).bit_length() - 1
        widths = [channels * min(8, 2**i) for i in range(doublings)]
        body: list[nn.Module] = [Conv(inputs, widths[0], 4, 2, 1), nn.LeakyReLU(0.2)]
        for before, after in pairwise(widths):
            body.append(Conv(before, after, 4, 2, 1, bias=not norm))
            if norm:
                body.append(nn.BatchNorm2d(after))
            body.append(nn.LeakyReLU(0.2))
        self.body = nn.Sequential(*body)
        self.head = Conv(widths[-1], outputs, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        top, left = (self.side - self.height) // 2, (self.side - self.width) // 2
        if (self.height, self.width) != (self.side, self.side):
            x = F.pad(x, (left, self.side - self.width - left, top, self.side - self.height - top), mode="replicate")
        return self.head(self.body(x)).flatten(1).float()


class Projector(Critic):
    """NPGD's ``G†``: images of any noise ``(B, C, height, width)`` in [-1, 1] to latents ``(B, latent)``.

    Each image is divided by √(1 + mean x²) first: a gradient step from few measurements carries noise several times as strong as
    the image, and BatchNorm's fixed statistics are for one size of numbers.
    """

    def __init__(self, height: int, width: int, inputs: int, *, channels: int, latent: int) -> None:
        super().__init__(height, width, inputs, channels=channels, outputs=latent, norm=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        size = (1 + x.float().square().mean(dim=(1, 2, 3), keepdim=True)).sqrt()
        return super().forward(x / size.to(x.dtype))
