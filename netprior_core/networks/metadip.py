"""The UNet of MetaDIP: small, fully convolutional, fed with Fourier features beside a fixed noise map."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from netprior_core.networks.layers import doubled, pointwise

#: Wavelengths of the Fourier features in pixels: in pixels rather than in image sides, so that a network trained on small crops
#: meets the same input, locally, on a larger image.
WAVELENGTHS = (4.0, 8.0, 16.0, 32.0, 64.0)
#: Side of the stored noise map; larger images have further ones beside it, each another draw.
TILE = 64
#: A first picture is clipped to these values (a back-projection's can be any); the network sees its logits divided by the number.
SEEN, LOGITS = (0.02, 0.98), 4.0
#: Images are computed on a canvas of at least this side, and cropped: statistics over fewer pixels are mostly noise.
SMALLEST_CANVAS = 32


def noise_map(channels: int, generator: torch.Generator) -> torch.Tensor:
    """A noise map ``(channels, TILE, TILE)`` of independent N(0, ½) values, as strong as a Fourier feature."""
    return torch.randn((channels, TILE, TILE), generator=generator) * 0.5**0.5


def spread(first: torch.Tensor, height: int, width: int, corner: tuple[int, int] = (0, 0)) -> torch.Tensor:
    """The noise map ``first`` ``(channels, TILE, TILE)`` and others to its right and below: ``(channels, height, width)``.

    ``corner``: the row and column of the tile to begin with.

    Every tile is another draw that depends on its place alone, so that a larger image begins as a smaller one. Repeating the first
    instead would make z as periodic as the Fourier features are, and a convolutional network answers with a periodic picture: at
    128×128 that cost 5 dB after 50 steps.
    """
    rows, columns = math.ceil(height / TILE), math.ceil(width / TILE)

    def tile(row: int, column: int) -> torch.Tensor:
        if row == column == 0:
            return first
        return noise_map(len(first), torch.Generator().manual_seed(1 + 65_536 * row + column)).to(first)

    top, left = corner
    strips = [torch.cat([tile(top + row, left + column) for column in range(columns)], dim=2) for row in range(rows)]
    return torch.cat(strips, dim=1)[:, :height, :width]


def fourier_features(height: int, width: int) -> torch.Tensor:
    """sin and cos of 2π p/λ for rows and columns and all WAVELENGTHS λ: ``(4 · len(WAVELENGTHS), height, width)``.

    Tancik et al. 2020, "Fourier features let networks learn high frequency functions in low dimensional domains".
    """
    waves = 2 * math.pi / torch.tensor(WAVELENGTHS)
    rows = torch.arange(height, dtype=torch.float32)[:, None].expand(height, width)
    columns = torch.arange(width, dtype=torch.float32)[None, :].expand(height, width)
    phases = torch.cat([waves[:, None, None] * rows, waves[:, None, None] * columns])
    return torch.cat([phases.sin(), phases.cos()])


class MetaUNet(nn.Module):
    """``f(z; θ)``: an encoder-decoder with skip connections; ``(1, inputs, H, W)`` to ``(1, 3, H, W)`` in [0, 1].

    ``widths[i]`` channels at 1/2^i of the resolution. Down: a 3×3 convolution with stride 2, then (below the first scale) one
    more; up: 1×1 to the finer scale's width at the coarse resolution, bilinear ×2, joined with a 1×1 skip branch, one 3×3. Every
    convolution is followed by normalisation with the statistics of the one image (BatchNorm that keeps none) and LeakyReLU(0.2).
    Borders are zeros. Compared with the network of Deep Image Prior it does little at full resolution, where time is spent; what
    is there are wide skip branches from a wide input: with 8 channels instead of 32 of both, textures took twice the steps.

    z is no random draw of a run: it is :meth:`input`, the noise map of the checkpoint beside Fourier features, for any size.
    ``first``, ours: and beside the first picture of the measurement, in three channels, whose logits are also added to those of the
    output: what it lacks is easier to learn than to draw it.
    """

    def __init__(self, widths: Sequence[int] = (32, 32, 64, 64), *, noise: int = 32, skip: int = 32, first: bool = False) -> None:
        super().__init__()
        self.first = first
        inputs = noise + 4 * len(WAVELENGTHS) + (3 if first else 0)
        self.factor = 2 ** (len(widths) - 1)
        before = [inputs, *widths[1:]]
        self.downs = nn.ModuleList(_Block(before[i], widths[i + 1], 3, 2) for i in range(len(widths) - 1))
        self.refines = nn.ModuleList(_Block(w, w, 3) for w in widths[1:])
        self.skips = nn.ModuleList(_Block(before[i], skip, 1) for i in range(len(widths) - 1))
        self.narrows = nn.ModuleList(_Block(widths[i + 1], widths[i], 1) for i in range(len(widths) - 1))
        self.ups = nn.ModuleList(_Block(widths[i] + skip, widths[i], 3) for i in range(len(widths) - 1))
        self.head = nn.Conv2d(widths[0], 3, 1)
        self.noise: torch.Tensor
        self.register_buffer("noise", torch.zeros(noise, TILE, TILE))

    def input(self, height: int, width: int, corner: tuple[int, int] = (0, 0), picture: torch.Tensor | None = None) -> torch.Tensor:
        """z for an image of this size: ``(1, inputs, h, w)``, h and w the canvas: rounded up to what the halvings need.

        ``corner``: the tile of the noise map to begin with (training only). ``picture`` ``(1, 1 or 3, height, width)``: the first
        one, for a network that looks at it; its border is repeated up to the canvas. Raises ValueError when it is missing then.
        """
        h, w = (max(SMALLEST_CANVAS, math.ceil(side / self.factor) * self.factor) for side in (height, width))
        noise = spread(self.noise, h, w, corner)
        z = torch.cat([noise, fourier_features(h, w).to(noise)])[None]
        if not self.first:
            return z
        if picture is None:
            raise ValueError("this network looks at the first picture of the measurement: give it")
        seen = F.pad(picture.detach().to(z).expand(1, 3, height, width), (0, w - width, 0, h - height), mode="replicate")
        return torch.cat([z, seen.clamp(*SEEN).logit() / LOGITS], dim=1)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        x, kept = z, []
        for down, refine, skip in zip(self.downs, self.refines, self.skips, strict=True):
            kept.append(skip(x))
            x = refine(down(x))
        for i in reversed(range(len(kept))):
            x = self.ups[i](torch.cat([doubled(self.narrows[i](x)), kept[i]], dim=1))
        logits = pointwise(x.float(), self.head)
        return torch.sigmoid(logits + LOGITS * z[:, -3:].float() if self.first else logits)


class _Block(nn.Module):
    """Convolution, normalisation, LeakyReLU, in the precision of the input; weights stay float32."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        # No bias: the normalisation would take it out again.
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
        self.norm = nn.BatchNorm2d(outputs, track_running_stats=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.conv2d(x, self.conv.weight.to(x.dtype), None, self.conv.stride, self.conv.padding)
        return F.leaky_relu(self.norm(x), 0.2)


def picture(output: torch.Tensor, channels: int, height: int, width: int) -> torch.Tensor:
    """The image ``(1, channels, height, width)`` in the corner of the canvas; a grey one is the mean of the three channels."""
    image = output[..., :height, :width]
    return image.mean(dim=1, keepdim=True) if channels == 1 else image
