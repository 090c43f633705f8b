"""Orthonormal bases of pictures: the discrete cosine transform and periodised Daubechies wavelets.

Both are products with small orthogonal matrices, ``M X Mᵀ``: exact inverses and adjoints, any device, any dtype.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Literal

import numpy as np
import torch

Name = Literal["dct", "db4"]
#: Sides of the coarsest wavelet level are not made shorter than this.
COARSEST = 8


class Basis:
    """``coefficients`` (W) and ``picture`` (Wᵀ = W⁻¹) for pictures ``(B, C, height, width)``; channels one by one, or, with
    ``opponent`` and C = 3, after an orthonormal turn of the colours into grey, red against blue, and green against both.

    dct: the orthonormal DCT-II of the whole picture (Ahmed, Natarajan & Rao 1974). db4: Daubechies' wavelets with 4 vanishing
    moments (8 taps), separable, periodised, halved while both sides are even and at least twice 8 (Mallat 1989); coefficients lie
    in the usual quadrants. Raises ValueError where not even one halving is possible (see ``levels_for``).
    """

    def __init__(
        self,
        name: Name,
        height: int,
        width: int,
        device: torch.device | str,
        dtype: torch.dtype = torch.float32,
        *,
        opponent: bool = False,
    ) -> None:
        axes = torch.tensor([[1.0, 1.0, 1.0], [1.0, 0.0, -1.0], [1.0, -2.0, 1.0]], dtype=torch.float64)
        self.colours = (axes / axes.norm(dim=1, keepdim=True)).to(device, dtype) if opponent else None
        self.levels: list[tuple[torch.Tensor, torch.Tensor]] = []
        if name == "dct":
            sides = [(height, width)]
        else:
            count = levels_for(height, width)
            if not count:
                raise ValueError(f"no wavelet level fits {height}×{width}: both sides must be even, and at least {2 * COARSEST}")
            sides = [(height >> k, width >> k) for k in range(count)]
        make = dct_matrix if name == "dct" else wavelet_matrix
        for h, w in sides:
            self.levels.append((make(h).to(device, dtype), make(w).to(device, dtype)))

    def coefficients(self, x: torch.Tensor) -> torch.Tensor:
        """``W x``."""
        whole = part = self._product(self._turned(x, back=False), *self.levels[0])
        for down, across in self.levels[1:]:
            part = part[..., : len(down), : len(across)]
            part.copy_(self._product(part, down, across))
        return whole

    @staticmethod
    def _product(x: torch.Tensor, down: torch.Tensor, across: torch.Tensor) -> torch.Tensor:
        return torch.matmul(torch.matmul(down, x), across.T)

    def picture(self, c: torch.Tensor) -> torch.Tensor:
        """``Wᵀ c``."""
        c = c.clone() if len(self.levels) > 1 else c
        for down, across in reversed(self.levels[1:]):
            part = c[..., : len(down), : len(across)]
            part.copy_(self._product(part, down.T, across.T))
        return self._turned(self._product(c, self.levels[0][0].T, self.levels[0][1].T), back=True)

    def _turned(self, x: torch.Tensor, *, back: bool) -> torch.Tensor:
        if self.colours is None or x.shape[1] != 3:
            return x
        turn = self.colours.T if back else self.colours
        return torch.matmul(turn, x.flatten(2)).view_as(x)


def levels_for(height: int, width: int) -> int:
    """How often both sides can be halved."""
    count = 0
    while height % 2 == 0 and width % 2 == 0 and min(height, width) >= 2 * COARSEST:
        height, width, count = height // 2, width // 2, count + 1
    return count


@lru_cache(maxsize=16)
def dct_matrix(n: int) -> torch.Tensor:
    """The orthonormal DCT-II, float64 ``(n, n)``: row k is √(2/n) cos(π (j + ½) k / n), row 0 is 1/√n."""
    j = torch.arange(n, dtype=torch.float64)
    matrix = torch.cos(math.pi / n * (j + 0.5) * j[:, None]) * math.sqrt(2 / n)
    matrix[0] = 1 / math.sqrt(n)
    return matrix


@lru_cache(maxsize=16)
def wavelet_matrix(n: int, moments: int = 4) -> torch.Tensor:
    """One level of the periodised Daubechies filter bank, float64 orthogonal ``(n, n)``, n even: averages above, details below."""
    low = daubechies(moments)
    high = low[::-1] * (-1.0) ** np.arange(len(low))
    matrix = np.zeros((n, n))
    taps = np.arange(len(low)) - (len(low) // 2 - 1)
    for k in range(n // 2):
        np.add.at(matrix[k], (2 * k + taps) % n, low)
        np.add.at(matrix[n // 2 + k], (2 * k + taps) % n, high)
    return torch.from_numpy(matrix)


def daubechies(moments: int) -> np.ndarray:
    """The 2p taps of Daubechies' low-pass filter with p vanishing moments, of sum √2 (Daubechies 1988, section 4).

    The half-band polynomial Σ_k C(p−1+k, k) yᵏ with y = (2 − z − 1/z)/4 is factored; of each pair of roots z, 1/z the one
    within the unit circle is kept (minimal phase).
    """
    p = moments
    # In powers of z: zᵏ y(z)ᵏ = ((−z² + 2z − 1)/4)ᵏ, brought to the common factor z^(p−1).
    polynomial = np.zeros(2 * p - 1)
    for k in range(p):
        term = np.array([1.0])
        for _ in range(k):
            term = np.convolve(term, [-0.25, 0.5, -0.25])
        polynomial[p - 1 - k : p + k] += math.comb(p - 1 + k, k) * term
    roots = np.roots(polynomial)
    filter_ = np.real(np.poly(np.concatenate([roots[abs(roots) < 1], -np.ones(p)])))
    scaled: np.ndarray = filter_ * (math.sqrt(2) / filter_.sum())
    return scaled
