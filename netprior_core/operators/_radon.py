"""Parallel-beam projections as exact strip integrals of square pixels, and their transpose."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import torch

from netprior_core.operators._linear import applied

#: Bytes that the stored matrices A and Aᵀ of one geometry may take; the weights of further views are computed at every use.
MEMORY_BUDGET = 256 * 2**20
#: Pixels × views handled at once where weights are computed: temporaries stay within a processor's cache.
BLOCK = 2**17
#: Weights below this share of a pixel are left out of the stored matrices.
NOTHING = 1e-9


class Projector:
    """Strip integrals of an image ``(height, width)`` along parallel rays, for every view and detector bin.

    Bin d of view θ gets ``scale · Σ_p w_p x_p``, where w_p is the share of pixel p (a unit square) that lies in the strip
    d ≤ s/bin + detectors/2 < d + 1, with s = X cos θ + Y sin θ, X to the right and Y up from the picture's centre: the exact
    integral of the piecewise constant image over the strip. A pixel's shares sum to 1 in every view that sees all of it.

    Turning the grid by 180° mirrors every view, so that only the first half of the pixels needs weights: the rest is projected
    as further columns of the same product. The weights of as many views as fit in ``MEMORY_BUDGET`` (``stored`` of them) are kept
    twice, as compressed sparse rows of A and of Aᵀ, so that neither product scatters; those of the others, and of all on devices
    without such matrices, are computed view by view at every use.

    angles: of the views, in radians, ``(V,)``. bin: width of a detector in pixels, at least 1.
    """

    def __init__(
        self,
        height: int,
        width: int,
        angles: torch.Tensor,
        detectors: int,
        *,
        bin: int = 1,
        scale: float = 1.0,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        self.views, self.detectors, self.scale = len(angles), detectors, scale
        self.n, self.width = height * width, width
        self.half = (self.n + 1) // 2
        self.device, self.dtype = device, dtype
        self._taps = int(math.sqrt(2) / bin) + 2  # most bins that a pixel's shadow, up to √2 wide, can touch

        angles = angles.detach().cpu().double()
        cos, sin = angles.cos() / bin, angles.sin() / bin
        rows = torch.arange(-(-self.half // width), dtype=torch.float64)
        columns = torch.arange(width, dtype=torch.float64) - (width - 1) / 2
        long = torch.maximum(cos.abs(), sin.abs())[:, None]
        short = torch.minimum(cos.abs(), sin.abs()).clamp_min(1e-9)[:, None]
        # Where a pixel's centre falls, in bins from the first detector's edge, is a sum over its column and its row.
        across = cos[:, None] * columns + detectors / 2
        down = sin[:, None] * ((height - 1) / 2 - rows)
        self._tables = (across, down, long, short)

        share = float((1 + long + short).mean())  # bins touched by a pixel, on average
        self.bytes_if_stored = int(2 * self.half * self.views * share * (4 + torch.finfo(dtype).bits // 8))
        fitting = min(1.0, MEMORY_BUDGET / self.bytes_if_stored) if device.type in ("cpu", "cuda") else 0.0
        self.stored = int(fitting * self.views)
        if self.stored:
            self._rays, self._pixels = self._matrices()
        self._tables = tuple(table.to(device, dtype) for table in self._tables)  # type: ignore[assignment]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(N, height·width)`` to ``(N, views, detectors)``. Differentiable, any number of times."""
        return applied(x, self._forward, self._adjoint)

    def adjoint(self, y: torch.Tensor) -> torch.Tensor:
        """``(N, views, detectors)`` to ``(N, height·width)``, the transpose of :meth:`forward`. Differentiable likewise."""
        return applied(y, self._adjoint, self._forward)

    def _forward(self, x: torch.Tensor) -> torch.Tensor:
        count, odd = len(x), self.n % 2
        halves = torch.cat([x[:, : self.half], x.flip(1)[:, : self.half]])
        if odd:  # the middle pixel is in both halves
            halves[count:, -1] = 0
        y = self._scattered(halves)
        if self.stored:
            y[:, : self.stored] = (self._rays @ halves.T).T.view(2 * count, self.stored, self.detectors)
        y = y.view(2, count, self.views, self.detectors)
        return y[0] + y[1].flip(-1)

    def _adjoint(self, y: torch.Tensor) -> torch.Tensor:
        count, odd = len(y), self.n % 2
        both = torch.cat([y, y.flip(-1)])
        halves = self._gathered(both)
        if self.stored:
            halves += (self._pixels @ both[:, : self.stored].flatten(1).T).T
        return torch.cat([halves[:count], halves[count:, : self.half - odd].flip(1)], dim=1)

    def _weights(self, views: slice, rows: slice = slice(0, None)) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Of some views: the first bin ``(v, pixels)`` that each pixel's shadow touches, and its shares of that and the next bins.

        The pixels are those of the first half that lie in ``rows`` of the picture.

        A square's shadow is a trapezoid, the convolution of boxes as long as |cos θ| and |sin θ|: the part of it that lies
        further than t from its centre is a Huber function of the distance from t to its end.
        """
        across, down, long, short = (table[views] for table in self._tables)
        place = (down[:, rows, None] + across[:, None, :]).flatten(1)[:, : self.half - rows.start * self.width]
        reach = (long + short) / 2
        first = torch.floor(place - reach)

        def before(edge: torch.Tensor) -> torch.Tensor:
            t = edge - place
            rest = (reach - t.abs()).clamp_min(0)
            beyond = torch.where(rest < short, rest * rest / (2 * short), rest - short / 2) / long
            return torch.where(t < 0, beyond, 1 - beyond)

        edges = [before(first + j) for j in range(1, self._taps)]
        shares = [edges[0], *(b - a for a, b in pairwise(edges)), 1 - edges[-1]]
        return first.clamp(-self._taps, self.detectors).long(), [share * self.scale for share in shares]

    def _blocks(self, start: int, stop: int) -> Iterator[slice]:
        step = max(1, BLOCK // self.half)
        return (slice(i, min(i + step, stop)) for i in range(start, stop, step))

    def _scattered(self, halves: torch.Tensor) -> torch.Tensor:
        """The product with A of ``(N, half)``, weights computed on the way; 0 in the views whose weights are stored."""
        count, margin = len(halves), self._taps
        width = self.detectors + 2 * margin  # what falls beside the detectors lands in margins that are cut off
        y = halves.new_zeros(count, self.views, self.detectors)
        for views in self._blocks(self.stored, self.views):
            first, shares = self._weights(views)
            lines = torch.arange(len(first), device=first.device)[:, None]
            target = (first + margin + lines * width).flatten()
            found = halves.new_zeros(count, len(first) * width)
            for j, share in enumerate(shares):
                found.scatter_add_(1, (target + j).expand(count, -1), (halves[:, None] * share).flatten(1))
            y[:, views] = found.view(count, -1, width)[:, :, margin:-margin]
        return y

    def _gathered(self, both: torch.Tensor) -> torch.Tensor:
        """The product with Aᵀ of the views in ``(N, views, detectors)`` whose weights are not stored, computed on the way."""
        count, margin = len(both), self._taps
        padded = torch.nn.functional.pad(both, (margin, margin))
        halves = both.new_zeros(count, self.half)
        for views in self._blocks(self.stored, self.views):
            first, shares = self._weights(views)
            for j, share in enumerate(shares):
                values = padded[:, views].gather(2, (first + margin + j).expand(count, -1, -1))
                halves += (values * share).sum(1)
        return halves

    def _matrices(self) -> tuple[torch.Tensor, torch.Tensor]:
        """A of the stored views ``(stored·detectors, half)`` and its transpose, as compressed sparse rows with 32-bit indices."""
        from scipy.sparse import csr_matrix

        lines = torch.arange(self.stored)[:, None] * self.detectors
        step = max(1, BLOCK // (self.stored * self.width))
        counts, bins, values = [torch.zeros(1, dtype=torch.int64)], [], []
        for row in range(0, self._tables[1].shape[1], step):  # rows of pixels, the order in which Aᵀ is stored
            first, found = self._weights(slice(0, self.stored), slice(row, row + step))
            touched = torch.stack([first + j for j in range(self._taps)], dim=2)
            shares = torch.stack(found, dim=2)
            kept = ((touched >= 0) & (touched < self.detectors) & (shares > NOTHING * self.scale)).transpose(0, 1).contiguous()
            counts.append(kept.sum(dim=(1, 2)))
            bins.append((touched + lines[:, :, None]).int().transpose(0, 1)[kept])
            values.append(shares.to(self.dtype).transpose(0, 1)[kept])
        starts = torch.cat(counts).cumsum(0).int()
        parts = (torch.cat(values).numpy(), torch.cat(bins).numpy(), starts.numpy())
        pixels = csr_matrix(parts, shape=(self.half, self.stored * self.detectors))
        rays = pixels.tocsc()  # the rows of A, by a counting sort
        return self._sparse(rays, pixels.shape[::-1]), self._sparse(pixels, pixels.shape)

    def _sparse(self, matrix: Any, shape: tuple[int, int]) -> torch.Tensor:
        starts, indices, values = (torch.from_numpy(part) for part in (matrix.indptr, matrix.indices, matrix.data))
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
            return torch.sparse_csr_tensor(starts, indices, values, shape, check_invariants=False).to(self.device)


def ramp(detectors: int, window: str) -> torch.Tensor:
    """The response of the ramp filter at the frequencies of ``torch.fft.rfft`` of length :func:`padded`, float64.

    |f| is sampled in space: h_0 = 1/4, h_n = −1/(πn)² for odd n, 0 for even n (Kak & Slaney 1988, chapter 3, eq. 61), since
    sampling it in frequency loses the mean. The windows are those of scikit-image's ``iradon``; f is in cycles per bin.
    """
    length = padded(detectors)
    n = torch.arange(length)
    n = torch.minimum(n, length - n)
    response = torch.where(n % 2 == 1, -1 / (math.pi * n.double().clamp_min(1)) ** 2, 0.0)
    response[0] = 0.25
    f = torch.fft.rfftfreq(length, dtype=torch.float64)
    windows = {
        "ramp": torch.ones_like(f),
        "shepp-logan": torch.sinc(f),
        "cosine": torch.cos(math.pi * f),
        "hamming": 0.54 + 0.46 * torch.cos(2 * math.pi * f),
        "hann": 0.5 + 0.5 * torch.cos(2 * math.pi * f),
    }
    return torch.fft.rfft(response).real * windows[window]


def padded(detectors: int) -> int:
    """Length of the transforms: a power of two that keeps the ends of a view from meeting."""
    return int(2 ** math.ceil(math.log2(max(64, 2 * detectors))))
