"""Subsampled Fourier: the spectrum of the picture, as in magnetic resonance imaging, known on lines only."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import field_validator

from netprior_core.arrays import decode
from netprior_core.errors import InvalidSettings
from netprior_core.operators._linear import applied
from netprior_core.operators.base import Draw, ForwardModel, LinearModel, Operator
from netprior_core.problem import Shape
from netprior_core.settings import setting

MASK_CHARACTERS = 200_000
MASK_PIXELS = 4_000_000
#: Pixels by which the picture is taken to be shifted where A is to be wrong.
SHIFT = 0.5


class Fourier(Operator):
    """Subsampled Fourier: some coefficients of the picture's Fourier transform are measured, the others are not.

    y = P F x + e per channel, with F the orthonormal two-dimensional DFT. A picture is real, so that the coefficient at −k is the
    conjugate of that at k: a pattern is made symmetric first, and y is a list of *real* numbers, as many as there are
    coefficients in the symmetric pattern: √2 Re and √2 Im of one of each pair ±k, and the value itself where k = −k. With this
    A Aᵀ = I, ‖A‖ = 1, A⁺ = Aᵀ, and white noise on y is white noise on the pixels, of the same σ.

    Radial lines are those of Candès, Romberg & Tao 2006 ("Robust uncertainty principles", whose code draws them); CS-DIP (Van
    Veen et al. 2018, section 5) measures 3, 5, 10 and 20 of them at 256×256: 381, 634, 1260 and 2500 coefficients in a half-plane
    without the mean. Cartesian rows with a density that falls off from the centre: Lustig, Donoho & Pauly 2007, "Sparse MRI".
    """

    title: ClassVar[str] = "Subsampled Fourier"
    order: ClassVar[int] = 32
    equation: ClassVar[str] = "y = P F x + e"
    shows: ClassVar[str] = "left: the measured part of the spectrum, log scale; right: the picture without the rest"
    error_means: ClassVar[str] = "the phase drifts as if the picture had moved by half a pixel"
    lesson: ClassVar[str] = (
        "A magnetic resonance scanner does not see pixels: it measures how much of each wave the picture contains, slow waves for "
        "the broad shapes and fast ones for the edges, one line of them after another. Stopping early saves the patient time. If "
        "nothing stands in for the waves left out, the picture comes with streaks and ghosts; a prior tells those from anatomy."
    )
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "CS-DIP, 3 lines": {"lines": 3},
        "CS-DIP, 5 lines": {"lines": 5},
        "CS-DIP, 10 lines": {"lines": 10},
        "CS-DIP, 20 lines": {"lines": 20},
        "Cartesian, 4 times faster": {"pattern": "cartesian", "acceleration": 4.0, "center_fraction": 0.08},
        "Cartesian, 8 times faster": {"pattern": "cartesian", "acceleration": 8.0, "center_fraction": 0.04},
    }

    kind: Literal["fourier"] = "fourier"
    pattern: Literal["radial", "cartesian", "own"] = setting(
        "radial", "Where the spectrum is measured: lines through its centre, whole rows, or a pattern of your own.", main=True
    )
    lines: int = setting(
        20,
        "Lines through the centre, at equal angles.",
        ge=1,
        le=400,
        unit="lines",
        main=True,
        log=True,
        when=("pattern", "radial"),
    )
    acceleration: float = setting(
        4.0,
        "How many times fewer rows are measured than there are.",
        ge=1,
        le=20,
        unit="×",
        main=True,
        when=("pattern", "cartesian"),
    )
    center_fraction: float = setting(
        0.08,
        "Share of the rows, those of the slowest waves, that is always measured.",
        ge=0,
        le=0.5,
        unit="of the rows",
        label="Centre",
        when=("pattern", "cartesian"),
    )
    density: float = setting(
        2.0,
        "How fast the density of the other rows falls off from the centre: 0 is uniform.",
        ge=0,
        le=8,
        label="Density power",
        when=("pattern", "cartesian"),
    )
    mask: str = setting(
        "",
        "Your sampling pattern: a .npy array or a PNG of the picture's size, nonzero (not black) where a coefficient was measured.",
        max_length=MASK_CHARACTERS,
        label="Pattern file",
        widget="pattern",
        when=("pattern", "own"),
    )
    centred: bool = setting(
        True,
        "Arrays of your own, patterns and measurements, have the mean (frequency 0) in their middle; else in their first corner.",
        label="Centred arrays",
    )

    @field_validator("mask")
    @classmethod
    def _readable(cls, value: str) -> str:
        if value:
            _decoded(value)
        return value

    def _build(self, shape: Shape, draw: Draw) -> ForwardModel:
        measured = self.sampled(shape[1], shape[2], draw.seed)
        words = {"radial": f" on {self.lines} line{'s' * (self.lines > 1)}", "own": " on your pattern"}.get(self.pattern, "")
        if self.pattern == "cartesian":
            words = f" on {int(symmetric(measured).any(1).sum())} of {shape[1]} rows"
        return FourierModel(shape, measured, draw, where=words, centred=self.centred)

    def sampled(self, height: int, width: int, seed: int = 0) -> torch.Tensor:
        """``(H, W)`` bool, True where measured, frequency 0 at [0, 0]. Own patterns as given, not yet made symmetric."""
        if self.pattern == "radial":
            return radial_lines(height, width, self.lines)
        if self.pattern == "cartesian":
            generator = torch.Generator().manual_seed(seed)
            rows = dense_centre_rows(height, self.acceleration, self.center_fraction, self.density, generator)
            return rows[:, None].expand(height, width).clone()
        if not self.mask:
            raise InvalidSettings("Subsampled Fourier: there is no pattern yet. Upload one, or choose another kind.")
        array = _decoded(self.mask)
        if array.shape != (height, width):
            raise InvalidSettings(
                f"The sampling pattern is {array.shape[0]}×{array.shape[1]} and the image is {height}×{width}. "
                "Choose that image size, or upload another pattern."
            )
        if not array.any():
            raise InvalidSettings("The sampling pattern measures nothing: it is zero (black) everywhere. Upload another one.")
        measured = torch.from_numpy(array != 0)
        return torch.fft.ifftshift(measured) if self.centred else measured


def _decoded(text: str) -> np.ndarray:
    return decode(text, what="the sampling pattern", max_characters=MASK_CHARACTERS, max_values=MASK_PIXELS, ndim=2)


def radial_lines(height: int, width: int, lines: int) -> torch.Tensor:
    """``(H, W)`` bool, frequency 0 at [0, 0]: ``lines`` digital lines through it at angles π l / lines.

    A line takes one coefficient per column where it is flat in index space and one per row where it is steep, up to, not
    including, the Nyquist frequency: 763, 1269, 2521 and 5001 of 256×256 for 3, 5, 10 and 20. Angles are those of the waves:
    in a picture that is not square, indices are scaled by the sides.
    """
    measured = torch.zeros((height, width), dtype=torch.bool)
    last_row, last_column = (height - 1) // 2, (width - 1) // 2
    for line in range(lines):
        angle = math.pi * line / lines
        down, across = math.sin(angle) * height, math.cos(angle) * width
        if abs(down) <= abs(across):
            columns = torch.arange(-last_column, last_column + 1)
            rows = _nearest(columns * (down / across))
        else:
            rows = torch.arange(-last_row, last_row + 1)
            columns = _nearest(rows * (across / down))
        inside = (rows.abs() <= last_row) & (columns.abs() <= last_column)
        measured[rows[inside] % height, columns[inside] % width] = True
    return measured


def _nearest(values: torch.Tensor) -> torch.Tensor:
    """Nearest integers, halves away from zero whatever the last bit says, so that lines are symmetric."""
    return (values.sign() * (values.double().abs() + 0.5 + 1e-9).floor()).long()


def dense_centre_rows(
    height: int, acceleration: float, center_fraction: float, density: float, generator: torch.Generator
) -> torch.Tensor:
    """``(H,)`` bool, frequency 0 first: about ``height / acceleration`` rows in pairs ±k, the slowest always among them.

    The others are drawn without replacement with weights (1 − |k| / (H/2 + 1))^density (Efraimidis & Spirakis 2006).
    """
    target = max(1, round(height / acceleration))
    distance = torch.arange(height // 2 + 1)
    copies = torch.where((distance == 0) | (2 * distance == height), 1, 2)
    centre = (max(1, round(center_fraction * height)) - 1) // 2
    chance = torch.rand(len(distance), generator=generator, dtype=torch.float64).clamp_min(1e-12)
    race = -chance.log() / (1 - distance / (height / 2 + 1)).pow(density)
    race[: centre + 1] = -1.0
    kept, rows = 0, torch.zeros(height, dtype=torch.bool)
    for k in race.argsort(stable=True).tolist():
        if k > centre and kept + int(copies[k]) > target:
            break
        rows[[k, -k % height]] = True
        kept += int(copies[k])
    return rows


def mirrored(plane: torch.Tensor) -> torch.Tensor:
    """The plane ``(..., H, W)`` at −k, frequency 0 at [0, 0]."""
    return plane.flip(-2, -1).roll((1, 1), (-2, -1))


def symmetric(measured: torch.Tensor) -> torch.Tensor:
    """The pattern with the mirror image of what it measures: a real picture's other half comes for free."""
    return measured | mirrored(measured)


class FourierModel(LinearModel):
    """``A x`` ``(B, C, M)`` real: the self-conjugate coefficients, then √2 Re, then √2 Im of one of each pair.

    Only the half of the spectrum that ``rfft2`` gives is computed. A wrong model turns every pair by the phase of a shift, so
    that its rows stay orthonormal; what has no sign (Nyquist) is left as it is.
    """

    has_pinv = True

    def __init__(self, shape: Shape, measured: torch.Tensor, draw: Draw, *, where: str = "", centred: bool = True) -> None:
        height, width = shape[1:]
        full = symmetric(measured)
        super().__init__(shape, (shape[0], int(full.sum())), draw.device, draw.dtype)
        self.pattern = full.to(self.device)
        self._where, self._centred, self._half = where, centred, width // 2 + 1
        rows, columns = full.nonzero(as_tuple=True)
        flat, other = rows * width + columns, (-rows % height) * width + (-columns % width)
        alone = flat == other
        # One of each pair, within the half spectrum; in its first and last columns both are there.
        first = ~alone & (columns < self._half) & ((flat < other) | (-columns % width >= self._half))
        order = torch.cat([alone.nonzero()[:, 0], first.nonzero()[:, 0]])
        self._alone, self._pairs = int(alone.sum()), int(first.sum())
        rows, columns, other = rows[order], columns[order], other[order]
        self._at = torch.stack([rows * width + columns, other]).to(self.device)  # in the whole plane, for pictures of it
        here = 2 * (rows * self._half + columns)  # of the real part, in the half spectrum
        alone_here, pairs_here = here.split([self._alone, self._pairs])
        take = torch.cat([alone_here, pairs_here, pairs_here + 1])
        # Back: in the first and last columns of the half spectrum the conjugate has its place too.
        twice = (other[self._alone :] % width < self._half).nonzero()[:, 0]
        there = other[self._alone :][twice]
        there = 2 * (there // width * self._half + there % width)
        source = torch.cat([torch.arange(len(take)), self._alone + twice, self._alone + self._pairs + twice])
        half = torch.tensor(0.5, dtype=torch.float64).sqrt()
        share = torch.cat([torch.ones(self._alone), half.expand(2 * self._pairs + len(twice)), -half.expand(len(twice))])
        self._take, self._weight = take.to(self.device), (1 / share[: len(take)]).to(self.device, self.dtype)
        self._source, self._target = source.to(self.device), torch.cat([take, there, there + 1]).to(self.device)
        self._share = share.to(self.device, self.dtype)
        self._kept = full[:, : self._half].to(self.device, self.dtype)
        self._measured = measured
        self._turn: tuple[torch.Tensor, torch.Tensor] | None = None
        if draw.error:
            signed = torch.where(2 * columns < width, columns, columns - width) * (2 * columns != width)
            phase = -2 * math.pi * SHIFT * draw.error * signed[self._alone :].double() / width
            self._turn = phase.cos().to(self.device, self.dtype), phase.sin().to(self.device, self.dtype)

    def norm(self) -> float:
        """1: A Aᵀ = I."""
        return 1.0

    def describe(self) -> str:
        kept, all_of_them = self.measurement_shape[1], self.shape[1] * self.shape[2]
        each = " per channel" if self.shape[0] > 1 else ""
        return f"{kept:,} of {all_of_them:,} coefficients ({kept / all_of_them:.1%}){self._where}, as {kept:,} real numbers{each}"

    def measurement_from(self, array: np.ndarray) -> torch.Tensor:
        """The real vector ``(C, M)``, or a complex k-space grid ``(H, W)`` or ``(C, H, W)`` of orthonormal scale.

        Of a grid, what lies on the pattern is used. Where both k and −k were measured their real part is kept, that is the mean
        of one and the other's conjugate: what an imaginary part of the image contributes is dropped.
        """
        if not np.iscomplexobj(array):
            return super().measurement_from(array)
        while array.ndim > 3 and array.shape[0] == 1:
            array = array[0]
        grid = array[None] if array.ndim == 2 else array
        if grid.shape != self.shape:
            have, need = ("×".join(map(str, sides)) for sides in (array.shape, self.shape[self.shape[0] == 1 :]))
            raise InvalidSettings(
                f"Your k-space has the shape {have}; {need} complex numbers are needed here. "
                "Change the image size or the number of channels, or upload another file."
            )
        spectrum = torch.from_numpy(np.ascontiguousarray(grid, dtype=np.complex128))
        if self._centred:
            spectrum = torch.fft.ifftshift(spectrum, dim=(-2, -1))
        seen = self._measured.to(torch.float64)
        both = (spectrum * seen + mirrored(spectrum * seen).conj()) / (seen + mirrored(seen)).clamp_min(1)
        values = torch.view_as_real(both[..., : self._half].contiguous()).flatten(1)[None]
        return (values[..., self._take.cpu()] * self._weight.cpu()).to(self.device, self.dtype)

    def _size(self, y: torch.Tensor) -> torch.Tensor:
        """The magnitude ``(B, C, S + P)`` of the coefficients that the real measurement stands for."""
        alone, real, imaginary = y.split([self._alone, self._pairs, self._pairs], dim=-1)
        return torch.cat([alone.abs(), torch.hypot(real, imaginary) * math.sqrt(0.5)], dim=-1)

    def _turned(self, y: torch.Tensor, sign: int) -> torch.Tensor:
        if self._turn is None:
            return y
        alone, real, imaginary = y.split([self._alone, self._pairs, self._pairs], dim=-1)
        cos, sin = self._turn[0], sign * self._turn[1]
        return torch.cat([alone, cos * real - sin * imaginary, sin * real + cos * imaginary], dim=-1)

    def _all(self, index: torch.Tensor, batch: torch.Tensor) -> torch.Tensor:
        """An index for every channel of every image: ``gather`` is several times as fast as ``index_select``."""
        return index.expand(len(batch), self.shape[0], -1)

    def _gathered(self, x: torch.Tensor) -> torch.Tensor:
        spectrum = torch.view_as_real(torch.fft.rfft2(x, norm="ortho")).flatten(2)
        return self._turned(spectrum.gather(2, self._all(self._take, x)) * self._weight, 1)

    def _spread(self, y: torch.Tensor) -> torch.Tensor:
        values = self._turned(y, -1).gather(2, self._all(self._source, y)) * self._share
        height, width = self.shape[1:]
        spectrum = values.new_zeros((len(y), self.shape[0], 2 * height * self._half))
        spectrum.scatter_(2, self._all(self._target, y), values)
        half = torch.view_as_complex(spectrum.view(len(y), self.shape[0], height, self._half, 2))
        return torch.fft.irfft2(half, s=(height, width), norm="ortho")

    def _filtered(self, x: torch.Tensor) -> torch.Tensor:
        return torch.fft.irfft2(torch.fft.rfft2(x, norm="ortho") * self._kept, s=self.shape[1:], norm="ortho")

    def _forward(self, x: torch.Tensor) -> torch.Tensor:
        return applied(x, self._gathered, self._spread)

    def _adjoint(self, y: torch.Tensor) -> torch.Tensor:
        return applied(y, self._spread, self._gathered)

    def _normal(self, x: torch.Tensor) -> torch.Tensor:
        return applied(x, self._filtered, self._filtered)

    def _pinv(self, y: torch.Tensor) -> torch.Tensor:
        return self._adjoint(y)

    def _preview(self, y: torch.Tensor) -> torch.Tensor:
        """Left the log-magnitude of what was measured, mean in the middle and black elsewhere; right the zero-filled image."""
        height, width = self.shape[1:]
        size = self._size(y)
        plane = size.new_zeros((len(y), self.shape[0], height * width))
        shade = (1 + 1e3 * size / size.amax(dim=(1, 2), keepdim=True).clamp_min(1e-12)).log() / math.log(1 + 1e3)
        shade = 0.15 + 0.85 * shade  # what was measured and is 0 is not black
        for at in self._at:
            plane = plane.index_copy(2, at, shade)
        k_space = torch.fft.fftshift(plane.view(-1, *self.shape), dim=(-2, -1))
        gap = k_space.new_full((len(y), self.shape[0], height, max(1, width // 64)), 0.5)
        return torch.cat([k_space, gap, self._adjoint(y)], dim=-1)
