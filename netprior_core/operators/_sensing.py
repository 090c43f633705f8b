"""What operators share whose measurement is a list of numbers: how many there are, wrong gains, and the strip that shows them."""

from __future__ import annotations

import math

import torch

from netprior_core.operators.base import Draw, LinearModel
from netprior_core.problem import Shape

#: Standard deviation of the rows' gains where A is to be wrong.
GAIN_ERROR = 0.1
GAIN_ERROR_MEANS = "every row of A is taken with a wrong gain, off by 10% (standard deviation)"
#: Most measurements that can be asked for by number: all values of a grey picture of 256 × 256.
MOST = 65_536


def values_of(shape: Shape) -> int:
    """n = C·H·W."""
    return shape[0] * shape[1] * shape[2]


def rows_of(n: int, ratio: float, count: int) -> int:
    """m: ``count`` where it is given, else ``ratio`` · n, at least 1."""
    return count or max(1, round(ratio * n))


def too_many(shape: Shape, count: int) -> str | None:
    """Words for a ``count`` of more measurements than the image has values, or None."""
    n = values_of(shape)
    if count <= n:
        return None
    size = "×".join(map(str, shape[1:]))
    return f"{count:,} measurements were asked for, and an image of {size} has only {n:,} values. Lower the count or set it to 0."


def gains_of(draw: Draw, m: int) -> torch.Tensor | None:
    """The wrong gains of m rows, N(1, (0.1 · error)²) from a stream of their own; None where A is to be right."""
    if not draw.error:
        return None
    gains = 1 + GAIN_ERROR * draw.error * torch.randn(m, generator=draw.generator(use=1))
    return gains.to(draw.device, draw.dtype)


def strip(values: torch.Tensor) -> torch.Tensor:
    """Numbers ``(B, m)`` row by row as a near-square picture ``(B, 1, h, w)``; cells that are left over are 0.5."""
    m = values.shape[1]
    width = math.ceil(math.sqrt(m))
    height = math.ceil(m / width)
    padded = torch.nn.functional.pad(values - 0.5, (0, width * height - m)) + 0.5
    return padded.view(-1, 1, height, width)


def root_mean_square(y: torch.Tensor) -> torch.Tensor:
    """Of every measurement ``(B, m)``, ``(B, 1)``; never 0."""
    return y.square().mean(dim=1, keepdim=True).sqrt().clamp_min(1e-12)


def words_of_bytes(count: int) -> str:
    """A number of bytes for people: 36.0 GiB."""
    for unit, size in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if count >= size:
            return f"{count / size:,.1f} {unit}"
    return f"{count} B"


class SensingModel(LinearModel):
    """A linear A of m rows, each a weighted sum of all n image values."""

    def __init__(self, shape: Shape, m: int, draw: Draw) -> None:
        super().__init__(shape, (m,), draw.device, draw.dtype)
        self.gains = gains_of(draw, m)

    def _preview(self, y: torch.Tensor) -> torch.Tensor:
        """The m values row by row in a near-square strip: grey is 0, black and white are ±3 times their root mean square."""
        return strip(y / (6 * root_mean_square(y)) + 0.5)
