"""Compressive phase retrieval: only the size of complex random sums is seen, and their phase is lost."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import numpy as np
import torch

from netprior_core.errors import InvalidSettings
from netprior_core.noise import Noise
from netprior_core.operators import compressed_sensing
from netprior_core.operators._sensing import (
    GAIN_ERROR_MEANS,
    MOST,
    gains_of,
    root_mean_square,
    rows_of,
    strip,
    values_of,
    words_of_bytes,
)
from netprior_core.operators.base import Draw, ForwardModel, Operator, largest_eigenvalue
from netprior_core.problem import Shape
from netprior_core.settings import setting

#: Most measurements per image value.
MOST_RATIO = 4.0
#: δ of the rounded modulus. Values of A x are near 1 for a picture, so it is far below any noise.
ROUNDING = 1e-6
POWER_ITERATIONS = 20


class PhaseRetrieval(Operator):
    """Compressive phase retrieval: the moduli of complex random sums of all pixels; their phases are not recorded.

    y = |A x + e| with A ∈ C^{m×n} of independent CN(0, 1/m) entries (real and imaginary part N(0, 1/(2m)) each), n = C·H·W, x in
    [0, 1]; noise is complex and inside the modulus (MetaDIP, section 4.6, table 3: m/n = 1/4 and 1/8). E‖A x‖² = ‖x‖².

    Dense within the memory budget of compressed sensing (two real matrices, 8 bytes an entry in float32). Beyond it, ⌈m/n⌉ coded
    diffraction patterns stand in: random unit phases, a Fourier transform and a random choice of m of its values, scaled alike
    (Candès, Li & Soltanolkotabi 2015, "Phase retrieval from coded diffraction patterns"): O(n log n).

    x and −x measure alike: that images are positive decides.
    """

    title: ClassVar[str] = "Phase retrieval"
    order: ClassVar[int] = 35
    equation: ClassVar[str] = "y = |A x + e|"
    shows: ClassVar[str] = "each grey value is one measured modulus"
    error_means: ClassVar[str] = GAIN_ERROR_MEANS
    lesson: ClassVar[str] = (
        "Light is a wave, and a detector counts its energy: how strong the wave was, but not where in its cycle (its phase). Here "
        "the picture is mixed into a few complex sums, of which only the sizes are seen. Without phases the measurement is no "
        "longer linear: the sum of two pictures does not measure as the sum of their measurements, and a picture and its negative "
        "measure the same. A method that descends the misfit must start well or have a good prior."
    )
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "MetaDIP, m/n = 1/4": {"ratio": 0.25},
        "MetaDIP, m/n = 1/8": {"ratio": 0.125},
    }

    kind: Literal["phase-retrieval"] = "phase-retrieval"
    ratio: float = setting(
        0.25,
        "Moduli per image value. Above 2 or so a picture can be found without any prior.",
        ge=0.005,
        le=MOST_RATIO,
        label="Ratio m/n",
        main=True,
        log=True,
        when=("count", 0),
    )
    count: int = setting(0, "Exact number of measurements m. 0 takes the ratio.", ge=0, le=MOST, label="Count m")
    matrix: Literal["auto", "dense", "structured"] = setting(
        "auto",
        "Dense: independent complex Gaussian entries, exact, within a memory budget. Structured: random phases and a fast Fourier "
        "transform. Auto: dense where it fits.",
    )

    def refuses(self, shape: Shape) -> str | None:
        most = int(MOST_RATIO * values_of(shape))
        if self.count <= most:
            return None
        size = "×".join(map(str, shape[1:]))
        return f"{self.count:,} measurements of an image of {size} were asked for; at most {most:,} are made. Lower the count."

    def _build(self, shape: Shape, draw: Draw) -> ForwardModel:
        n = values_of(shape)
        m = rows_of(n, self.ratio, self.count)
        if self.matrix == "structured" or m * n * 8 > compressed_sensing.MEMORY_BUDGET:
            return CodedModel(shape, m, draw, wanted_dense=self.matrix != "structured")
        return DensePhaseModel(shape, m, draw)


class PhaseModel(ForwardModel):
    """``|A x|``; subclasses write the complex linear part ``_linear`` and its adjoint.

    The modulus is rounded at 0, √(re² + im² + δ²) with δ = 1e-6, so that all derivatives exist: the gradient there is 0.
    """

    def __init__(self, shape: Shape, m: int, draw: Draw) -> None:
        super().__init__(shape, (m,), draw.device, draw.dtype)
        self.gains = gains_of(draw, m)

    def linear_forward(self, x: torch.Tensor) -> torch.Tensor:
        """``A x``, complex ``(B, m)``, before the modulus. Raises ValueError on another shape than ``(B, C, H, W)``."""
        if tuple(x.shape[1:]) != self.shape:
            raise ValueError(f"{type(self).__name__} takes images of shape {self.shape}; it was given {tuple(x.shape)}")
        return self._linear(x)

    def linear_adjoint(self, z: torch.Tensor) -> torch.Tensor:
        """``Re(Aᴴ z)``, the adjoint over real images: complex ``(B, m)`` to ``(B, C, H, W)``; Re⟨A x, z⟩ = ⟨x, Re(Aᴴ z)⟩."""
        if tuple(z.shape[1:]) != self.measurement_shape:
            raise ValueError(f"{type(self).__name__} takes {self.measurement_shape} values; it was given {tuple(z.shape)}")
        return self._linear_adjoint(z)

    def linear_norm(self) -> float:
        """``‖A‖`` over real images or a close upper bound: ``1 / linear_norm()²`` is a safe step for a descent on the misfit."""
        start = torch.randn((1, *self.shape), generator=torch.Generator().manual_seed(0)).to(self.device, self.dtype)
        with torch.no_grad():
            return largest_eigenvalue(lambda x: self._linear_adjoint(self._linear(x)), start) ** 0.5

    def measure(self, x: torch.Tensor, noise: Noise, *, seed: int) -> torch.Tensor:
        """``|A x + e|``: Gaussian noise is complex and inside the modulus, E|e|² = s², s the ``noise.std`` of the clean moduli.

        Real and imaginary part are N(0, s²/2) each. Noise of another kind (photon counts, lost values) acts on the moduli.
        """
        clean = self.forward(x)
        if not noise.additive:
            return noise.apply(clean, seed=seed)
        std = noise.std(clean)
        if not std:
            return clean
        draw = torch.randn((2, *clean.shape), generator=torch.Generator().manual_seed(seed)).to(clean) * (std / math.sqrt(2))
        return (self._linear(x) + torch.complex(draw[0], draw[1])).abs()

    def noise_std(self, noise: Noise, y: torch.Tensor) -> float | None:
        """Of the complex noise the modulus keeps the part along A x alone: s/√2, but for moduli as small as the noise."""
        std = noise.std(y)
        return std / math.sqrt(2) if std is not None and noise.additive else std

    def measurement_from(self, array: np.ndarray) -> torch.Tensor:
        """As in :class:`ForwardModel`; negative values are refused too."""
        y = super().measurement_from(array)
        if bool((y < 0).any()):
            raise InvalidSettings("Your measurement has negative values; phase retrieval needs sizes |A x|, which are 0 or more.")
        return y

    @abstractmethod
    def _linear(self, x: torch.Tensor) -> torch.Tensor: ...

    @abstractmethod
    def _linear_adjoint(self, z: torch.Tensor) -> torch.Tensor: ...

    def _forward(self, x: torch.Tensor) -> torch.Tensor:
        z = self._linear(x)
        return _modulus(z.real, z.imag)

    def _initial(self, y: torch.Tensor) -> torch.Tensor:
        """Spectral initialisation among smooth real images; detached.

        The leading eigenvector u of W Re(Aᴴ diag(f) A) W, by power iteration from the flat picture, gives x ∝ W u. The weights
        f = (t − 1) / (t + 0.1), t = y² / mean y², are those of Luo, Alghamdi & Lu 2019 and Mondelli & Montanari 2019, rounded at 0.
        W divides the frequency k (cycles per picture) by 1 + |k|, as the spectrum of a picture falls: below m/n ≈ 1/2 an image
        without such a prior cannot be told from any other. Sign: a positive mean. Size: ‖x‖² = m · mean y².

        Six pictures of 64 × 64, σ = 25/255, m/n = 1/4: correlation with the truth 0.68, 21.0 dB; the flat picture 17.2 dB;
        without W 0.1 and 9 dB. At 1/8: 0.59, 19.7 dB.
        """
        power = y.square()
        mean = power.mean(dim=1, keepdim=True).clamp_min(1e-24)
        t = power / mean
        weights = (t - 1) / (t + 0.1)
        smooth = _smoothness(self.shape).to(self.device, self.dtype)
        with torch.no_grad():

            def weighted(u: torch.Tensor) -> torch.Tensor:
                return _filtered(self._linear_adjoint(weights * self._linear(_filtered(u, smooth))), smooth)

            u = torch.ones((len(y), *self.shape), device=y.device, dtype=y.dtype) / math.sqrt(self.n)
            flat = u
            for _ in range(POWER_ITERATIONS):
                # The weights are negative where y is small: adding u keeps the negative eigenvalues from leading.
                u = u + weighted(u)
                u = u / _length(u)
            # Far below m/n = 0.02 they lead in spite of it: then nothing is known, and flat is the better start.
            u = torch.where((u * weighted(u)).sum(dim=(1, 2, 3), keepdim=True) < 0, flat, u)
            x = _filtered(u, smooth)
            sign = torch.where(x.mean(dim=(1, 2, 3), keepdim=True) < 0, -1.0, 1.0)
            return x * sign * ((self.m * mean).sqrt().view(-1, 1, 1, 1) / _length(x))

    def _preview(self, y: torch.Tensor) -> torch.Tensor:
        """The m moduli row by row in a near-square strip: black is 0, white 2.5 times their root mean square."""
        return strip(y / (2.5 * root_mean_square(y)))


class DensePhaseModel(PhaseModel):
    """Independent CN(0, 1/m) entries: the real over the imaginary part, 2m × n, so that one real product gives both.

    A complex matrix would need the real image made complex first: measured, 1.6 (32 × 32) to 7 times (64 × 64) slower.
    """

    def __init__(self, shape: Shape, m: int, draw: Draw) -> None:
        super().__init__(shape, m, draw)
        parts = torch.empty((2 * m, self.n), dtype=torch.float32).normal_(generator=draw.generator()).mul_(1 / math.sqrt(2 * m))
        self.parts = parts.to(self.device, self.dtype)
        if self.gains is not None:
            self.parts *= self.gains.repeat(2)[:, None]

    def describe(self) -> str:
        return f"dense complex Gaussian A, exact: {self.m:,} × {self.n:,}, {words_of_bytes(self.m * self.n * 8)}"

    def _linear(self, x: torch.Tensor) -> torch.Tensor:
        real, imaginary = (x.flatten(1) @ self.parts.T).chunk(2, dim=1)
        return torch.complex(real, imaginary)

    def _forward(self, x: torch.Tensor) -> torch.Tensor:
        real, imaginary = (x.flatten(1) @ self.parts.T).chunk(2, dim=1)
        return _modulus(real, imaginary)

    def _linear_adjoint(self, z: torch.Tensor) -> torch.Tensor:
        return (torch.cat([z.real, z.imag], dim=1) @ self.parts).view(-1, *self.shape)


class CodedModel(PhaseModel):
    """``A = √(n/m) · R F D_l``: unit phases D_l, the orthonormal Fourier transform F of all n values, and a choice R of m values.

    As many patterns l as ⌈m/n⌉; every entry has E|a|² = 1/m, as in the dense matrix.
    """

    def __init__(self, shape: Shape, m: int, draw: Draw, *, wanted_dense: bool) -> None:
        super().__init__(shape, m, draw)
        generator = draw.generator()
        self.patterns = math.ceil(m / self.n)
        phases = torch.rand((self.patterns, self.n), generator=generator) * (2 * math.pi)
        size = torch.tensor(math.sqrt(self.n / m), dtype=draw.dtype)
        self.codes = torch.polar(size.expand(phases.shape), phases.to(draw.dtype)).to(self.device)
        self.rows = torch.randperm(self.patterns * self.n, generator=generator)[:m].sort().values.to(self.device)
        self._wanted_dense = wanted_dense

    def describe(self) -> str:
        many = f"{self.patterns} patterns of random phases" if self.patterns > 1 else "random phases"
        line = f"structured A, {many} and {self.m:,} of {self.patterns * self.n:,} Fourier coefficients"
        if self._wanted_dense:
            need, budget = words_of_bytes(self.m * self.n * 8), words_of_bytes(compressed_sensing.MEMORY_BUDGET)
            line += f", since a dense one would need {need} (budget {budget})"
        return line

    def linear_norm(self) -> float:
        """An upper bound, ``√(n/m · patterns)`` times the largest gain: F and D_l keep lengths, and R shortens them."""
        largest = 1.0 if self.gains is None else float(self.gains.abs().max())
        return math.sqrt(self.n / self.m * self.patterns) * largest

    def _linear(self, x: torch.Tensor) -> torch.Tensor:
        spectrum = torch.fft.fft(x.flatten(1)[:, None] * self.codes, norm="ortho")
        z = spectrum.flatten(1).index_select(1, self.rows)
        return z if self.gains is None else z * self.gains

    def _linear_adjoint(self, z: torch.Tensor) -> torch.Tensor:
        if self.gains is not None:
            z = z * self.gains
        spectrum = z.new_zeros((len(z), self.patterns * self.n)).index_copy(1, self.rows, z)
        back = torch.fft.ifft(spectrum.view(-1, self.patterns, self.n), norm="ortho") * self.codes.conj()
        return back.real.sum(dim=1).view(-1, *self.shape)


def _modulus(real: torch.Tensor, imaginary: torch.Tensor) -> torch.Tensor:
    return (real.square() + imaginary.square() + ROUNDING**2).sqrt()


def _length(x: torch.Tensor) -> torch.Tensor:
    return x.square().sum(dim=(1, 2, 3), keepdim=True).sqrt().clamp_min(1e-30)


def _smoothness(shape: Shape) -> torch.Tensor:
    """``1 / (1 + |k|)`` on the grid of ``rfft2``, k in cycles per picture."""
    _, height, width = shape
    down = torch.fft.fftfreq(height, 1 / height, dtype=torch.float64)[:, None]
    across = torch.fft.rfftfreq(width, 1 / width, dtype=torch.float64)
    return 1 / (1 + (down.square() + across.square()).sqrt())


def _filtered(x: torch.Tensor, response: torch.Tensor) -> torch.Tensor:
    return torch.fft.irfft2(torch.fft.rfft2(x) * response, s=x.shape[-2:])
