"""Gaussian compressed sensing: exact and dense within a memory budget, structured and fast beyond it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch

from netprior_core.interrupt import check
from netprior_core.operators._sensing import GAIN_ERROR_MEANS, MOST, SensingModel, rows_of, too_many, values_of, words_of_bytes
from netprior_core.operators.base import Draw, ForwardModel, Operator
from netprior_core.problem import Shape
from netprior_core.settings import setting

#: Bytes that a dense matrix may take in float32. Beyond it the structured transform stands in, and ``describe`` says so.
MEMORY_BUDGET = 256 * 2**20
#: Most rows for which the dense pseudo-inverse is offered: it factors an m × m Gram matrix in double precision.
PINV_ROWS = 4096


class CompressedSensing(Operator):
    """Gaussian compressed sensing: a few random weighted sums of all pixels.

    y = A x + e with A ∈ R^{m×n} of independent N(0, 1/m) entries, n = C·H·W (a colour image is flattened whole). With this
    scale E‖A x‖² = ‖x‖², as in Van Veen et al. 2018 (CS-DIP, section 5.1) and in MetaDIP; the low-shot paper
    (Leong & Sakla 2019) draws N(0, 1), under which the same noise is m times weaker in variance.

    A dense A beyond the memory budget is replaced by a randomly signed, randomly subsampled orthogonal transform,
    scaled to the same E‖A x‖² (fast Johnson-Lindenstrauss / subsampled randomised transform: Ailon & Chazelle 2009; Do, Gan,
    Nguyen & Tran 2012): O(n log n), and no storage to speak of.
    """

    title: ClassVar[str] = "Compressed sensing"
    order: ClassVar[int] = 30
    equation: ClassVar[str] = "y = A x + e"
    shows: ClassVar[str] = "each grey value is one measured number"
    error_means: ClassVar[str] = GAIN_ERROR_MEANS
    lesson: ClassVar[str] = (
        "A single detector looks at the whole picture through a random pattern and reports one number: a weighted sum of all "
        "pixels. Another pattern, another number. With fewer numbers than pixels many pictures fit, but hardly any of them looks "
        "like one: among those that do, a good prior finds the right one. The strip shows the numbers as grey values; nobody can "
        "read the picture in it."
    )
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "CS-DIP and MetaDIP": {"normalisation": "1/m"},
        "low-shot paper": {"normalisation": "1"},
        "CS-DIP, MNIST digits": {"count": 75},
        "CS-DIP, chest X-rays": {"count": 2000},
    }

    kind: Literal["compressed-sensing"] = "compressed-sensing"
    ratio: float = setting(
        0.1,
        "Measurements per image value. At 0.1 there are ten times fewer measurements than unknowns.",
        ge=0.005,
        le=1.0,
        label="Ratio m/n",
        main=True,
        log=True,
        when=("count", 0),
    )
    count: int = setting(
        0,
        "Exact number of measurements m, as in papers that state it (25 to 200 for digits of 28×28, 500 to 8000 for X-rays of "
        "256×256). 0 takes the ratio.",
        ge=0,
        le=MOST,
        label="Count m",
    )
    normalisation: Literal["1/m", "1"] = setting(
        "1/m", "Variance of the entries of A. With 1/m a measurement is as strong as a pixel; with 1 noise is √m times weaker."
    )
    matrix: Literal["auto", "dense", "structured"] = setting(
        "auto",
        "Dense: independent Gaussian entries, exact, within a memory budget. Structured: a fast randomised transform. "
        "Auto: dense where it fits.",
    )

    def _build(self, shape: Shape, draw: Draw) -> ForwardModel:
        n = values_of(shape)
        m = rows_of(n, self.ratio, self.count)
        scale = 1 / math.sqrt(m) if self.normalisation == "1/m" else 1.0
        fits = m * n * 4 <= MEMORY_BUDGET
        if self.matrix == "structured" or not fits:
            return StructuredModel(shape, m, scale, draw, wanted_dense=self.matrix != "structured")
        return DenseModel(shape, m, scale, draw)

    def refuses(self, shape: Shape) -> str | None:
        return too_many(shape, self.count)


class _SensingModel(SensingModel):
    """What the dense and the structured matrix share: ``scale`` is the standard deviation of an entry."""

    def __init__(self, shape: Shape, m: int, scale: float, draw: Draw) -> None:
        super().__init__(shape, m, draw)
        self.scale = scale

    def _initial(self, y: torch.Tensor) -> torch.Tensor:
        # E[AᵀA] = m·scale²·I, so that the mean picture has the image's own contrast under either normalisation.
        return self._adjoint(y) / (self.m * self.scale**2)


class DenseModel(_SensingModel):
    """Independent N(0, scale²) entries, stored: both products are bare matrix multiplications.

    The draw is made in float32 on the CPU whatever the device and dtype, so that A depends on shape, settings and seed only.
    """

    def __init__(self, shape: Shape, m: int, scale: float, draw: Draw) -> None:
        super().__init__(shape, m, scale, draw)
        self.has_pinv = m <= PINV_ROWS
        matrix = torch.empty((m, self.n), dtype=torch.float32).normal_(generator=draw.generator()).mul_(scale)
        self.matrix = matrix.to(self.device, self.dtype)
        if self.gains is not None:
            self.matrix *= self.gains[:, None]
        self._factor: torch.Tensor | None = None

    def norm(self) -> float:
        """``‖A‖``: exactly, from the singular values, when A is small; else by Lanczos."""
        if self.m <= 512:
            return float(torch.linalg.eigvalsh(self._gram())[-1]) ** 0.5
        return super().norm()

    def describe(self) -> str:
        return f"dense Gaussian A, exact: {self.m:,} × {self.n:,}, {words_of_bytes(self.m * self.n * 4)}"

    def _forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(1) @ self.matrix.T

    def _adjoint(self, y: torch.Tensor) -> torch.Tensor:
        return (y @ self.matrix).view(-1, *self.shape)

    def _gram(self, dtype: torch.dtype = torch.float64) -> torch.Tensor:
        """A Aᵀ, summed over blocks of columns so that A itself is never copied whole."""
        device = torch.device("cpu") if self.device.type == "mps" else self.device
        gram = torch.zeros((self.m, self.m), dtype=dtype, device=device)
        for block in self.matrix.split(2048, dim=1):
            check()
            part = block.to(device).to(dtype)  # MPS has no float64 to convert to
            gram.addmm_(part, part.T)
        return gram

    def _pinv(self, y: torch.Tensor) -> torch.Tensor:
        """``Aᵀ (A Aᵀ)⁻¹ y`` by a Cholesky factor made at the first call and kept, and one step of iterative refinement."""
        if self._factor is None:
            # Up to m/n = 1/2 the condition number of A Aᵀ stays below 40 (Marchenko-Pastur), and single precision will do.
            easy = self.dtype == torch.float32 and 2 * self.m <= self.n
            self._factor = torch.linalg.cholesky(self._gram(torch.float32 if easy else torch.float64))
        x = self._adjoint(self._solved(y))
        return x + self._adjoint(self._solved(y - self._forward(x)))

    def _solved(self, y: torch.Tensor) -> torch.Tensor:
        factor = self._factor
        assert factor is not None
        return torch.cholesky_solve(y.to(factor.device).to(factor.dtype).T, factor).T.to(y.dtype).to(y.device)


class StructuredModel(_SensingModel):
    """``A = scale·√n · R H D``: random signs D, the orthonormal Hartley transform H, a random subset R of m rows.

    H = Hᵀ = H⁻¹ (Bracewell 1983), so that the adjoint is exact, A Aᵀ = n·scale²·I, and the pseudo-inverse is
    Aᵀ / (n·scale²). Entries have the variance of the dense matrix; the signs spread any image evenly over all rows.
    """

    has_pinv = True

    def __init__(self, shape: Shape, m: int, scale: float, draw: Draw, *, wanted_dense: bool = False) -> None:
        super().__init__(shape, m, scale, draw)
        generator = draw.generator()
        signs = torch.randint(0, 2, (1, self.n), generator=generator) * 2 - 1
        rows = torch.randperm(self.n, generator=generator)[:m].sort().values
        self.rows = rows.view(1, m).to(self.device)
        self.weights = (signs.to(torch.float64) * (scale * math.sqrt(self.n))).to(self.device, self.dtype)
        self._wanted_dense = wanted_dense

    def norm(self) -> float:
        """``scale·√n``: the rows are orthogonal and of that length (times the largest gain, where gains are wrong)."""
        largest = 1.0 if self.gains is None else float(self.gains.abs().max())
        return self.scale * math.sqrt(self.n) * largest

    def describe(self) -> str:
        line = f"structured A, random signs and {self.m:,} of {self.n:,} Hartley coefficients"
        if self._wanted_dense:
            line += f", since a dense one would need {words_of_bytes(self.m * self.n * 4)} (budget {words_of_bytes(MEMORY_BUDGET)})"
        return line

    def _forward(self, x: torch.Tensor) -> torch.Tensor:
        spectrum = hartley(x.flatten(1) * self.weights)
        y = spectrum.gather(1, self.rows.expand(len(x), -1))
        return y if self.gains is None else y * self.gains

    def _adjoint(self, y: torch.Tensor) -> torch.Tensor:
        if self.gains is not None:
            y = y * self.gains
        spectrum = y.new_zeros((len(y), self.n)).scatter(1, self.rows.expand(len(y), -1), y)
        return (hartley(spectrum) * self.weights).view(-1, *self.shape)

    def _pinv(self, y: torch.Tensor) -> torch.Tensor:
        if self.gains is not None:
            y = y / self.gains.square()
        return self._adjoint(y) / (self.n * self.scale**2)


def hartley(x: torch.Tensor) -> torch.Tensor:
    """Orthonormal discrete Hartley transform of the last axis, ``h_k = Σ_j x_j cas(2πjk/n) / √n`` with cas = cos + sin.

    Symmetric and its own inverse; any length; O(n log n) by one real FFT (Bracewell 1983, "Discrete Hartley transform").
    """
    n = x.shape[-1]
    half = torch.fft.rfft(x, norm="ortho")
    # The other half of a real signal's spectrum is the conjugate of this one, reversed: there h = Re + Im.
    mirrored = (half.real + half.imag)[..., 1 : (n + 1) // 2].flip(-1)
    return torch.cat([half.real - half.imag, mirrored], dim=-1)
