"""DRUNet: a U-Net of residual blocks without biases that is told the noise level by a map beside the picture."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from netprior_core import interrupt, priors
from netprior_core.compute import choose
from netprior_core.errors import MissingPrior

#: The network of the shipped file; the widths of the scales, finest first.
SMALL: dict[str, Any] = {"channels": 3, "widths": [32, 48, 96, 128], "blocks": 2, "residual": True}
#: The published networks (Zhang et al. 2021): 32,640,960 parameters in colour, 32,638,656 in grey.
FULL: dict[str, Any] = {"widths": [64, 128, 256, 512], "blocks": 4, "residual": False}


class _Conv(nn.Conv2d):
    """A 3×3 convolution (or a 2×2 one of stride 2) without bias that computes in the precision of its input."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> None:
        super().__init__(inputs, outputs, kernel, stride, kernel // 2 if stride == 1 else 0, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.conv2d(x, self.weight.to(x.dtype), None, self.stride, self.padding)


class _Larger(nn.ConvTranspose2d):
    """The 2×2 transposed convolution of stride 2, without bias, in the precision of its input."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 2, 2, bias=False)

    def forward(self, x: torch.Tensor, output_size: list[int] | None = None) -> torch.Tensor:
        return F.conv_transpose2d(x, self.weight.to(x.dtype), None, self.stride)


class _Block(nn.Module):
    """``x + W₂ relu(W₁ x)``."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = _Conv(width, width), _Conv(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.second(F.relu(self.first(x), inplace=not torch.is_grad_enabled()))


def _blocks(width: int, count: int) -> nn.Sequential:
    return nn.Sequential(*(_Block(width) for _ in range(count)))


class DRUNet(nn.Module):
    """``D(x, σ)``: a noisy picture ``(B, C, H, W)`` and its noise level to the clean picture, same shape, float32.

    ``len(widths)`` scales of ``blocks`` residual blocks each (on the way down and again on the way up), entered by a 2×2
    convolution of stride 2 and left by a 2×2 transposed one; branches are joined by addition; σ comes as a constant (or any) map
    beside the colours. There is no bias anywhere, so that D(a x, a σ) = a D(x, σ) for a > 0: one network knows all noise levels
    (Zhang et al. 2021, section III; Mohan et al. 2020). ``residual``: the network's output is added to the noisy picture; the
    published network has no such shortcut, the small one learns faster with it.

    Sides that are no multiple of 8 (of 2^(scales − 1)) are extended by mirroring, and the result is cropped. The noise level is
    in the unit of x. Feature maps have the precision and layout of ``compute_dtype`` and of x; weights stay float32.
    """

    def __init__(
        self, *, channels: int = 3, widths: Sequence[int] = (64, 128, 256, 512), blocks: int = 4, residual: bool = False
    ) -> None:
        super().__init__()
        self.channels, self.residual, self.multiple = channels, residual, 2 ** (len(widths) - 1)
        steps = list(pairwise(widths))
        self.head = _Conv(channels + 1, widths[0])
        self.down = nn.ModuleList(nn.Sequential(_blocks(fine, blocks), _Conv(fine, coarse, 2, 2)) for fine, coarse in steps)
        self.body = _blocks(widths[-1], blocks)
        self.up = nn.ModuleList(nn.Sequential(_Larger(coarse, fine), _blocks(fine, blocks)) for fine, coarse in reversed(steps))
        self.tail = _Conv(widths[0], channels)

    def forward(self, x: torch.Tensor, sigma: float | torch.Tensor, dtype: torch.dtype | None = None) -> torch.Tensor:
        """``x`` ``(B, C, H, W)`` and σ, a number, ``(B,)`` or anything that broadcasts to ``(B, 1, H, W)``; ``dtype`` of the maps.

        Raises ValueError when ``x`` has another number of channels.
        """
        if x.ndim != 4 or x.shape[1] != self.channels:
            raise ValueError(f"this DRUNet takes {self.channels} channels; it was given {tuple(x.shape)}")
        height, width = x.shape[-2:]
        level = torch.as_tensor(sigma, dtype=x.dtype, device=x.device)
        level = level.view(-1, 1, 1, 1) if level.ndim == 1 else level
        z = extended(torch.cat([x, level.expand(len(x), 1, height, width)], dim=1), self.multiple)
        z = z.to(dtype=dtype or x.dtype, memory_format=torch.channels_last)
        features = [self.head(z)]
        for down in self.down:
            interrupt.check()
            features.append(down(features[-1]))
        found = self.body(features[-1])
        for up in self.up:
            interrupt.check()
            found = up(found + features.pop())
        found = self.tail((found + features.pop()).float())[..., :height, :width].contiguous()  # bfloat16 would round the picture
        return x + found if self.residual else found


def extended(x: torch.Tensor, multiple: int) -> torch.Tensor:
    """``x`` mirrored beyond its right and lower edge until both sides are multiples; sides of any length, one pixel included."""
    for axis in (-2, -1):
        side = x.shape[axis]
        more = -side % multiple
        if more and side == 1:
            x = x.repeat_interleave(1 + more, dim=axis)
        elif more:
            period = 2 * (side - 1)
            position = torch.arange(side + more, device=x.device) % period
            x = x.index_select(axis % x.ndim, torch.minimum(position, period - position))
    return x


def denoised(network: DRUNet, x: torch.Tensor, sigma: float | torch.Tensor, dtype: torch.dtype | None = None) -> torch.Tensor:
    """``network`` on grey or colour: a grey picture goes through a network of three channels as three equal ones, averaged after.

    That is how the small network was trained: it tells grey from colour by the noise, which is then equal in all channels. The
    published colour network was not, and is not to be given grey (``drunet_weights.refuses``). A colour picture goes through a
    grey network channel by channel.
    """
    channels = x.shape[1]
    if channels == network.channels:
        return network(x, sigma, dtype)
    if channels == 1:
        return network(x.expand(-1, network.channels, -1, -1), sigma, dtype).mean(dim=1, keepdim=True)
    if network.channels == 1 and not isinstance(sigma, torch.Tensor):
        return network(x.reshape(-1, 1, *x.shape[-2:]), sigma, dtype).view_as(x)
    raise ValueError(f"{channels} channels cannot go through a network of {network.channels}")


def network_of(prior: priors.Prior) -> DRUNet:
    """The network of a file that holds one, with its weights, float32 on the CPU. Raises MissingPrior when it does not fit."""
    try:
        with torch.device("meta"):  # without drawing weights that are replaced at once
            network = DRUNet(**prior.card["settings"])
    except (KeyError, TypeError, ValueError):
        raise MissingPrior("The denoiser's file does not say its network. Fetch it again.") from None
    network = network.to_empty(device="cpu")
    prior.load_into(network)
    return network.eval().requires_grad_(False)


def denoiser(prior: priors.Prior, device: torch.device | str) -> Callable[[torch.Tensor, float], torch.Tensor]:
    """``(x (B, 1 or 3, H, W) in [0, 1], σ in that unit) -> x̂``, detached, on ``device``, in the precision that is fast there.

    The network lives as long as what is returned. Raises MissingPrior when the file does not fit.
    """
    compute = choose("auto", device)
    network = compute.module(network_of(prior))

    def denoise(x: torch.Tensor, sigma: float) -> torch.Tensor:
        with torch.no_grad():
            return denoised(network, x.float(), sigma, compute.dtype).to(x.dtype)

    return denoise
