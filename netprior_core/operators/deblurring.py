"""Deblurring: the picture is out of focus, shaken, or smeared by a kernel of one's own."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from pydantic import field_validator

from netprior_core.arrays import decode
from netprior_core.errors import InvalidSettings
from netprior_core.operators._linear import applied
from netprior_core.operators.base import Draw, ForwardModel, LinearModel, Operator
from netprior_core.problem import Shape
from netprior_core.settings import setting

KERNEL_CHARACTERS = 200_000
KERNEL_VALUES = 40_000
#: How much wider the kernel is taken to be where A is to be wrong.
WIDER = 0.25
#: Least ratio of the smallest to the largest |K| for which A⁺ is offered: single precision has seven digits.
PINV_RATIO = 1e-3
SAMPLES = 16  # per pixel, along and across


class Deblurring(Operator):
    """Deblurring: every measured pixel is a weighted mean of its neighbours.

    y = k ∗ x + e per channel, k summing to 1. Circular: the picture goes on at its other side, A = F⁻¹ diag(K) F, as in DPIR
    (Zhang et al. 2021, section 5.1) and many earlier papers. Reflect: it goes on as in a mirror at its edge (half-sample
    symmetric), which does less harm there (Hansen, Nagy & O'Leary 2006, "Deblurring Images", chapter 4). Kernels are
    integrated over the pixels, so that fractions of a pixel count.
    """

    title: ClassVar[str] = "Deblurring"
    order: ClassVar[int] = 45
    equation: ClassVar[str] = "y = k ∗ x + e"
    measures_images: ClassVar[bool] = True
    error_means: ClassVar[str] = "the kernel is taken to be 25% wider than it was"
    lesson: ClassVar[str] = (
        "A lens out of focus spreads each point over a disk, a shaking hand over a line, the air over a soft spot. Fine detail is "
        "not gone but faint: undoing the blur amplifies it, and with it the noise, which was never blurred. A prior says which of "
        "the amplified detail belongs to a picture."
    )
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "Gaussian, σ = 1.6": {"kernel": "gaussian", "width": 1.6},
        "Shaken, 15 pixels": {"kernel": "motion", "width": 15.0, "angle": 30.0},
        "Out of focus, radius 4": {"kernel": "disk", "width": 4.0},
    }

    kind: Literal["deblurring"] = "deblurring"
    kernel: Literal["gaussian", "motion", "disk", "own"] = setting(
        "gaussian", "Shape of the blur: soft, along a line, out of focus, or a kernel of your own.", main=True
    )
    width: float = setting(
        2.0,
        "Standard deviation of the Gaussian, length of the motion, radius of the disk.",
        ge=0.2,
        le=40,
        unit="pixels",
        main=True,
        log=True,
    )
    angle: float = setting(
        30.0,
        "Direction of the motion, counter-clockwise; 0 is across.",
        ge=0,
        le=180,
        unit="°",
        main=True,
        when=("kernel", "motion"),
    )
    own: str = setting(
        "",
        "Your kernel: a .npy array or a PNG, not larger than the picture; it is scaled to sum to 1.",
        max_length=KERNEL_CHARACTERS,
        label="Kernel file",
        widget="array",
        when=("kernel", "own"),
    )
    boundary: Literal["circular", "reflect"] = setting(
        "circular", "How the picture goes on beyond its edge: at the other side, as computation likes it, or as in a mirror."
    )

    @field_validator("own")
    @classmethod
    def _usable(cls, value: str) -> str:
        if value:
            _decoded(value)
        return value

    def _build(self, shape: Shape, draw: Draw) -> ForwardModel:
        return BlurModel(shape, self.kernel_of(stretch=1 + WIDER * draw.error), self.boundary, draw, what=self._words())

    def refuses(self, shape: Shape) -> str | None:
        if self.kernel != "own" or not self.own:
            return None
        kernel = _decoded(self.own)
        if kernel.shape[0] > shape[1] or kernel.shape[1] > shape[2]:
            return (
                f"The blur kernel is {kernel.shape[0]}×{kernel.shape[1]} and the image only {shape[1]}×{shape[2]}. "
                "Choose a larger image size or a smaller kernel."
            )
        return None

    def kernel_of(self, stretch: float = 1.0) -> torch.Tensor:
        """The kernel, float64, odd sides, its centre in the middle, sum 1; ``stretch`` times as wide as the settings say."""
        if self.kernel == "own":
            if not self.own:
                raise InvalidSettings("Deblurring: there is no kernel yet. Upload one, or choose another kind.")
            return stretched(_decoded(self.own), stretch)
        width = self.width * stretch
        if self.kernel == "gaussian":
            return gaussian(width)
        return motion(width, self.angle) if self.kernel == "motion" else disk(width)

    def _words(self) -> str:
        if self.kernel == "gaussian":
            return f"Gaussian blur, standard deviation {self.width:g} pixels"
        if self.kernel == "motion":
            return f"motion over {self.width:g} pixels at {self.angle:g}°"
        return f"disk of radius {self.width:g} pixels" if self.kernel == "disk" else "your kernel"


def _decoded(text: str) -> torch.Tensor:
    """An uploaded kernel, float64, scaled to sum to 1. Raises InvalidSettings."""
    array = decode(text, what="the blur kernel", max_characters=KERNEL_CHARACTERS, max_values=KERNEL_VALUES, ndim=2)
    if array.dtype.kind == "c":
        raise InvalidSettings("The blur kernel is complex; real numbers are needed.")
    kernel = torch.from_numpy(array.astype("float64"))
    total = float(kernel.sum())
    if total <= 1e-3 * float(kernel.abs().sum()):
        raise InvalidSettings("The blur kernel must have a positive sum, since it is scaled to keep the picture's brightness.")
    return kernel / total


def gaussian(std: float) -> torch.Tensor:
    """A Gaussian integrated over the pixels, out to four standard deviations."""
    reach = math.ceil(4 * std)
    edges = (torch.arange(-reach, reach + 2, dtype=torch.float64) - 0.5) / (std * math.sqrt(2))
    line = torch.erf(edges).diff()
    line = line / line.sum()
    return line[:, None] * line


def motion(length: float, angle: float) -> torch.Tensor:
    """A straight segment of ``length`` pixels at ``angle`` degrees, smoothed by the triangle of linear interpolation."""
    reach = math.ceil(length / 2) + 1
    count = SAMPLES * math.ceil(length) + 1
    along = ((torch.arange(count, dtype=torch.float64) + 0.5) / count - 0.5) * length
    grid = torch.arange(-reach, reach + 1, dtype=torch.float64)
    rows = (1 - (grid - (-math.sin(math.radians(angle)) * along)[:, None]).abs()).clamp_min(0)
    columns = (1 - (grid - (math.cos(math.radians(angle)) * along)[:, None]).abs()).clamp_min(0)
    return rows.T @ columns / count


def disk(radius: float) -> torch.Tensor:
    """A disk: the share of every pixel that it covers, on a grid of SAMPLES² points a pixel."""
    reach = math.ceil(radius)
    side = 2 * reach + 1
    points = (torch.arange(side * SAMPLES, dtype=torch.float64) + 0.5) / SAMPLES - side / 2
    half = (radius**2 - points.square()).clamp_min(0).sqrt()  # of the chord through each line of points, exact along the other axis
    edges = torch.arange(side + 1, dtype=torch.float64) - side / 2
    covered = torch.minimum(torch.maximum(edges, -half[:, None]), half[:, None]).diff(dim=1)
    kernel = covered.view(side, SAMPLES, side).mean(1)
    return (kernel + kernel.T) / (2 * kernel.sum())


def stretched(kernel: torch.Tensor, stretch: float = 1.0) -> torch.Tensor:
    """``kernel`` on odd sides about its centre (index side // 2), interpolated linearly to ``stretch`` times its width."""
    resampled = kernel
    for axis in (0, 1):
        side = resampled.shape[axis]
        reach = max(side // 2, side - 1 - side // 2)
        wide = math.ceil((reach + 1) * stretch) - 1 if stretch > 1 else reach
        old, new = torch.arange(side, dtype=torch.float64) - side // 2, torch.arange(-wide, wide + 1, dtype=torch.float64)
        weights = (1 - (new[:, None] / stretch - old).abs()).clamp_min(0)
        resampled = weights @ resampled if axis == 0 else resampled @ weights.T
    return resampled / resampled.sum()


def transfer(kernel: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """The frequency response K on a circular grid, ``(H, W // 2 + 1)`` complex, as ``torch.fft.rfft2`` orders it.

    ``kernel`` has odd sides and its centre in the middle; what is larger than the grid is wrapped around it.
    """
    rows, columns = ((torch.arange(side) - side // 2) for side in kernel.shape)
    at = (rows % height)[:, None] * width + columns % width
    plane = torch.zeros(height * width, dtype=kernel.dtype).index_add_(0, at.flatten(), kernel.flatten())
    return torch.fft.rfft2(plane.view(height, width))


class BlurModel(LinearModel):
    """``A = C K E``: the picture is extended (E) as its boundary asks, convolved on a circle by FFT (K), and cropped (C).

    Circular: E and C are the identity. Reflect: with the kernel's reach r, the sides grow by 2 r, or, where the kernel reaches
    over half the picture, to twice, the period of a mirrored picture, so that a kernel of any size is exact. The adjoint folds
    what lies beyond the edge back in. O(n log n). ``has_pinv``: circular, and no frequency is weaker than 1e-3 of the strongest.
    """

    def __init__(self, shape: Shape, kernel: torch.Tensor, boundary: str, draw: Draw, *, what: str = "") -> None:
        super().__init__(shape, shape, draw.device, draw.dtype)
        self.kernel, self.boundary, self._what = kernel, boundary, what
        sides = [_extension(side, size // 2, boundary) for side, size in zip(shape[1:], kernel.shape, strict=True)]
        self._grid = sides[0][0], sides[1][0]
        self._beyond = sides[0][1:], sides[1][1:]
        response = transfer(kernel, *self._grid)
        size = response.abs()
        self._ratio = float(size.min() / size.max())
        self.has_pinv = boundary == "circular" and self._ratio > PINV_RATIO
        self._norm: float | None = None
        if boundary == "circular":
            self._norm = float(size.max())
        elif torch.equal(kernel, kernel.flip(0)) and torch.equal(kernel, kernel.flip(1)):
            mirrored = transfer(kernel, 2 * shape[1], 2 * shape[2])  # at the frequencies of the DCT, which diagonalises A
            self._norm = float(mirrored[: shape[1], : shape[2]].abs().max())
        self.response = response.to(torch.complex128 if draw.dtype == torch.float64 else torch.complex64).to(self.device)

    def norm(self) -> float:
        """max|K| where the boundary is circular, or reflecting and the kernel symmetric; else by Lanczos."""
        return super().norm() if self._norm is None else self._norm

    def describe(self) -> str:
        line = f"{self._what}, {'going round at' if self.boundary == 'circular' else 'mirrored at'} the edges"
        if self.boundary == "circular":
            line += (
                f"; the weakest frequency keeps {self._ratio:.1%}" if self._ratio > PINV_RATIO else "; some frequencies are lost"
            )
        return line

    def solve(self, v: torch.Tensor, y: torch.Tensor, weight: float) -> torch.Tensor:
        """``argmin_x ‖A x − y‖² + weight ‖x − v‖²`` ``(B, C, H, W)``, in closed form; circular boundary only.

        The data step of half-quadratic splitting: DPIR (Zhang et al. 2021, eq. 7-8). Raises NotImplementedError for reflect.
        """
        if self.boundary != "circular":
            raise NotImplementedError("a reflecting boundary has no closed form by the FFT")
        above = self.response.conj() * torch.fft.rfft2(y) + weight * torch.fft.rfft2(v)
        return torch.fft.irfft2(above / (self.response.abs().square() + weight), s=self._grid)

    def _convolved(self, x: torch.Tensor, response: torch.Tensor) -> torch.Tensor:
        return torch.fft.irfft2(torch.fft.rfft2(x) * response, s=self._grid)

    def _blurred(self, x: torch.Tensor) -> torch.Tensor:
        for axis, grid, beyond in zip((-2, -1), self._grid, self._beyond, strict=True):
            x = _extended(x, axis, grid, *beyond)
        return self._convolved(x, self.response)[..., : self.shape[1], : self.shape[2]]

    def _folded(self, y: torch.Tensor) -> torch.Tensor:
        height, width = self.shape[1:]
        if self._grid != (height, width):
            y = torch.nn.functional.pad(y, (0, self._grid[1] - width, 0, self._grid[0] - height))
        x = self._convolved(y, self.response.conj())
        for axis, side, beyond in zip((-2, -1), (height, width), self._beyond, strict=True):
            x = _folded_back(x, axis, side, *beyond)
        return x

    def _forward(self, x: torch.Tensor) -> torch.Tensor:
        return applied(x, self._blurred, self._folded)

    def _adjoint(self, y: torch.Tensor) -> torch.Tensor:
        return applied(y, self._folded, self._blurred)

    def _normal(self, x: torch.Tensor) -> torch.Tensor:
        if self.boundary != "circular":
            return super()._normal(x)
        power = self.response.abs().square()

        def both(v: torch.Tensor) -> torch.Tensor:
            return self._convolved(v, power)

        return applied(x, both, both)

    def _pinv(self, y: torch.Tensor) -> torch.Tensor:
        return self._convolved(y, 1 / self.response)

    def _initial(self, y: torch.Tensor) -> torch.Tensor:
        """The blurred picture itself: the adjoint would blur it once more."""
        return y

    def _preview(self, y: torch.Tensor) -> torch.Tensor:
        return y


def _extension(side: int, reach: int, boundary: str) -> tuple[int, int, int]:
    """Length of the circular grid, and the values mirrored after the last and before the first."""
    if boundary == "circular":
        return side, 0, 0
    if 2 * reach >= side:
        return 2 * side, side, 0
    return _fast(side + 2 * reach), reach, reach


def _fast(length: int) -> int:
    """The next length of factors 2, 3 and 5, for which FFTs are quick."""
    while True:
        rest = length
        for factor in (2, 3, 5):
            while rest % factor == 0:
                rest //= factor
        if rest == 1:
            return length
        length += 1


def _extended(x: torch.Tensor, axis: int, grid: int, after: int, before: int) -> torch.Tensor:
    """``x`` at the start of a circular grid, its mirror images after its end and before its start, zeros between these."""
    side = x.shape[axis]
    if grid == side:
        return x
    parts = [x, x.narrow(axis, side - after, after).flip(axis)]
    if gap := grid - side - after - before:
        shape = list(x.shape)
        shape[axis] = gap
        parts.append(x.new_zeros(shape))
    if before:
        parts.append(x.narrow(axis, 0, before).flip(axis))
    return torch.cat(parts, dim=axis)


def _folded_back(x: torch.Tensor, axis: int, side: int, after: int, before: int) -> torch.Tensor:
    """The transpose of :func:`_extended`."""
    grid = x.shape[axis]
    if grid == side:
        return x
    inside = x.narrow(axis, 0, side).clone()
    inside.narrow(axis, side - after, after).add_(x.narrow(axis, side, after).flip(axis))
    if before:
        inside.narrow(axis, 0, before).add_(x.narrow(axis, grid - before, before).flip(axis))
    return inside
