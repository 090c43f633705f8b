"""Computed tomography: the picture is seen as its shadows, sums along parallel rays from several sides."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import numpy as np
import torch

from netprior_core.errors import InvalidSettings
from netprior_core.operators import _radon
from netprior_core.operators.base import Draw, ForwardModel, LinearModel, Operator
from netprior_core.problem import Shape
from netprior_core.settings import setting

Filter = Literal["ramp", "shepp-logan", "cosine", "hamming", "hann", "none"]
FULL = 180.0
LEAST_DETECTORS = 8
#: Standard deviation in degrees of the views' angles where A is to be wrong.
ANGLE_ERROR = 1.0
#: No ray sum of a picture in [0, 1] exceeds √2; noise may. A measurement beyond this is in other units.
LARGEST = 4.0


class Tomography(Operator):
    """Computed tomography: every view is a shadow of the picture, its sums along parallel rays.

    y_θ(d) = ∫∫ x over the strip of detector d under the angle θ, per channel: the parallel-beam Radon transform (Kak & Slaney 1988,
    chapter 3), for views at start + k·arc/angles degrees, k = 0, 1, …. At 0° the rays run down the picture's columns; angles grow
    as in scikit-image's ``radon``. Detectors are one pixel wide; the axis, the picture's centre, falls on the middle of their row.

    Unit: a ray sum in pixels divided by the picture's longer side, that is the mean grey value along a ray as long as the picture.
    A white picture measures 1 straight across (√2 along the diagonal of a square), so that σ in 8-bit units and 5% of mean |y|
    (Barbano et al. 2021) both mean what they mean elsewhere.
    """

    title: ClassVar[str] = "Computed tomography"
    order: ClassVar[int] = 70
    equation: ClassVar[str] = "y = Rθ x + e"
    shows: ClassVar[str] = "sinogram: each row is the shadow seen from one direction"
    simulates_finer: ClassVar[bool] = True
    error_means: ClassVar[str] = "every view is taken to be turned by a random angle, 1° (standard deviation)"
    lesson: ClassVar[str] = (
        "X-rays cross the object along parallel lines, and a row of detectors reports what each line met on its way: a shadow. The "
        "scanner turns a little and takes the next one. All shadows under each other are the sinogram, in which every point of the "
        "object draws a wave. From many views, filtered back-projection, which smears the sharpened shadows back across the "
        "picture, finds the object again. With few views it leaves streaks, and where a range of angles is missing, edges vanish: "
        "a prior has to supply what no view has seen."
    )
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "sparse view, 30 angles": {"angles": 30},
        "limited angle, 120°": {"angles": 60, "arc": 120.0},
    }

    kind: Literal["tomography"] = "tomography"
    angles: int = setting(
        30, "Number of views, evenly spread over the arc. Fewer leave streaks.", ge=2, le=720, label="Views", main=True, log=True
    )
    arc: float = setting(
        FULL,
        "Range of angles that is measured. 180 sees the object from all sides; edges seen by no view of a smaller arc are lost.",
        ge=5,
        le=FULL,
        unit="°",
        main=True,
    )
    start: float = setting(0.0, "Angle of the first view. At 0 the rays run down the columns.", ge=-180, le=180, unit="°")
    detectors: int = setting(
        0,
        "Number of detectors, each one pixel wide. 0: as many as see the whole picture. As many as the picture is wide see its "
        "inscribed circle.",
        ge=0,
        le=2048,
    )
    axis: float = setting(
        0.0,
        "Where the axis of rotation falls: so many detectors to the right of the middle of their row, in halves. For a measurement "
        "of your own; scikit-image's sinograms with an even number of detectors have it at 0.5.",
        ge=-20,
        le=20,
        step=0.5,
        label="Axis offset",
        unit="detectors",
    )
    filter: Filter = setting(
        "ramp",
        "Filter of the back-projection, the first picture. The further down the list, the more it damps noise and fine detail. "
        "None: no filter, which leaves the picture blurred.",
        main=True,
    )

    def _build(self, shape: Shape, draw: Draw) -> ForwardModel:
        angles = self.views()
        if draw.error:
            turned = torch.randn(len(angles), generator=draw.generator(use=1), dtype=torch.float64)
            angles = angles + draw.error * ANGLE_ERROR * turned
        return TomographyModel(shape, self, angles, draw.device, draw.dtype)

    def build_finer(
        self, shape: Shape, *, seed: int = 0, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
    ) -> ForwardModel:
        """For images of twice the sides: the same views and detectors, each the mean of two rays one fine pixel wide."""
        self.require(shape)
        return TomographyModel(shape, self, self.views(), torch.device(device), dtype, finer=2)

    def views(self) -> torch.Tensor:
        """The angles of the views in degrees, float64 ``(angles,)``; the end of the arc is left out, as 180° repeats 0°."""
        return self.start + torch.arange(self.angles, dtype=torch.float64) * (self.arc / self.angles)

    def detectors_for(self, shape: Shape) -> int:
        """How many detectors images of ``shape`` are measured with: those asked for, else as many as the diagonal is long.

        One more than that where it makes the detectors of the view at 0° meet whole columns: half of each of two is a blur that
        costs filtered back-projection most of a decibel.
        """
        if self.detectors:
            return self.detectors
        diagonal = math.ceil(math.hypot(*shape[1:]))
        return diagonal + (diagonal - shape[2]) % 2

    def refuses(self, shape: Shape) -> str | None:
        if 0 < self.detectors < LEAST_DETECTORS:
            return f"Tomography needs at least {LEAST_DETECTORS} detectors, or 0 for as many as see the whole picture."
        if 2 * abs(self.axis) >= self.detectors_for(shape):
            return (
                f"The axis offset of {self.axis:g} puts the axis of rotation beyond the row of {self.detectors_for(shape)} "
                "detectors. Choose a smaller offset or more detectors."
            )
        if 2 * self.axis % 1:
            return f"The axis offset is a multiple of half a detector; {self.axis:g} is not. Choose {round(2 * self.axis) / 2:g}."
        return None


class TomographyModel(LinearModel):
    """``A``: the projections of every channel, ``(C, views, detectors)``; see :class:`Tomography` for angles and unit.

    ``finer``: how many times finer than the detectors the image's grid is. ``shape`` is that of the coarse image.
    """

    def __init__(
        self,
        shape: Shape,
        operator: Tomography,
        angles: torch.Tensor,
        device: torch.device,
        dtype: torch.dtype,
        *,
        finer: int = 1,
    ) -> None:
        channels, height, width = shape
        detectors = operator.detectors_for(shape)
        super().__init__((channels, finer * height, finer * width), (channels, len(angles), detectors), device, dtype)
        self.operator, self.angles, self.side = operator, angles, max(height, width)
        # The axis falls on the middle of a longer row, of which the first or the last detectors are there.
        self._beside = round(2 * abs(operator.axis))
        # Twice finer, a strip as wide holds twice the pixels across and twice along: the sum is divided by both.
        self.projector = _radon.Projector(
            *self.shape[1:],
            torch.deg2rad(angles),
            detectors + self._beside,
            bin=finer,
            scale=1 / (self.side * finer**2),
            device=self.device,
            dtype=dtype,
        )
        self.sees_all = detectors - self._beside >= math.floor(math.hypot(height, width))
        self._response: torch.Tensor | None = None
        if operator.filter != "none":
            self._response = _radon.ramp(detectors, operator.filter).to(self.device, dtype)
        self._finer = finer
        self._seen = self._circle()
        self._total: torch.Tensor | None = None

    def describe(self) -> str:
        _, views, detectors = self.measurement_shape
        where = "" if self.sees_all else ", which see a circle of the picture"
        line = f"{views} views over {self.operator.arc:g}° × {detectors} detectors{where}"
        stored, size = self.projector.stored, f"{self.projector.bytes_if_stored / 2**20:.0f} MiB"
        if stored == views:
            return f"{line}; A and Aᵀ stored, {size}"
        line += f"; weights of {views - stored} views computed at every use (slower)"
        if self.projector.bytes_if_stored <= _radon.MEMORY_BUDGET:
            return line
        return line + f", since to store all would take {size} (budget {_radon.MEMORY_BUDGET / 2**20:.0f} MiB)"

    def measurement_from(self, array: np.ndarray) -> torch.Tensor:
        """A sinogram ``(views, detectors)``, per channel where there are several, or each turned as scikit-image does it.

        Raises InvalidSettings when the numbers of views and detectors are others, or the values are in another unit.
        """
        channels, views, detectors = self.measurement_shape
        array = np.asarray(array)
        while array.ndim > 2 and array.shape[0] == 1:
            array = array[0]
        if array.shape[-2:] == (detectors, views) and views != detectors:
            array = np.swapaxes(array, -1, -2)
        if array.ndim == 2 and array.shape == (views, detectors) and channels > 1:
            raise InvalidSettings(
                f"Your sinogram has one channel and the picture has {channels}. Choose grey pictures, or upload "
                f"{channels}×{views}×{detectors} numbers."
            )
        if array.ndim == 2 and channels == 1 and array.shape != (views, detectors) and views in array.shape:
            other = array.shape[1 - array.shape.index(views)]
            raise InvalidSettings(
                f"Your sinogram has {views} views of {other} detectors; {detectors} detectors are needed with these settings. "
                f"Set the number of detectors to {other}, or change the image size."
            )
        y = super().measurement_from(array)
        largest = float(y.abs().max())
        if not largest <= LARGEST:
            raise InvalidSettings(
                f"Your sinogram holds values up to {largest:.3g}; for a picture in [0, 1] they are about 1 at most. Divide ray "
                f"sums in pixels, as scikit-image makes them, by the picture's longer side ({self.side})."
            )
        return y

    def _forward(self, x: torch.Tensor) -> torch.Tensor:
        row = self.projector.forward(x.reshape(-1, x.shape[-2] * x.shape[-1]))
        detectors = self.measurement_shape[2]
        row = row[..., :detectors] if self.operator.axis >= 0 else row[..., -detectors:]
        return row.reshape(len(x), *self.measurement_shape)

    def _adjoint(self, y: torch.Tensor) -> torch.Tensor:
        beside = (0, self._beside) if self.operator.axis >= 0 else (self._beside, 0)
        row = torch.nn.functional.pad(y.reshape(-1, *y.shape[-2:]), beside)
        return self.projector.adjoint(row).view(len(y), *self.shape)

    def _initial(self, y: torch.Tensor) -> torch.Tensor:
        """Filtered back-projection ``x = Δθ Σ_θ (h ∗ y_θ)``, Δθ = arc/angles, not clipped (Kak & Slaney 1988, section 3.3).

        What the circle of too few detectors leaves out is 0. With a part of the arc missing, the frequencies that no view has seen
        are missing too, the picture's level in good part among them: a constant is added so that the mean of A x is that of y.
        Without a filter it is the mean over the views of what each detector saw.
        """
        views, detectors = self.measurement_shape[1:]
        if self._response is None:
            return self._adjoint(y) * (self.side * self._finer**2 / views)
        length = _radon.padded(detectors)
        filtered = torch.fft.irfft(torch.fft.rfft(y, length) * self._response, length)[..., :detectors]
        step = math.radians(self.operator.arc) / views
        # In pixels a view is side·y, and Aᵀ without its scale (side·finer²) puts every bin back with weight 1.
        x = self._adjoint(filtered) * (step * (self.side * self._finer) ** 2)
        if self._seen is not None:
            x = x * self._seen
        return x if self.operator.arc == FULL else self._lifted(x, y)

    def _lifted(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        if self._total is None:
            self._total = self._adjoint(torch.ones((1, *self.measurement_shape), device=self.device, dtype=self.dtype))
        flat = torch.ones_like(self._total) if self._seen is None else self._seen.expand_as(self._total)
        axes = (-2, -1)
        missing = y.sum(axes, keepdim=True) - (self._total * x).sum(axes, keepdim=True)
        return x + flat * (missing / (self._total * flat).sum(axes, keepdim=True))

    def _circle(self) -> torch.Tensor | None:
        """1 where a pixel's centre is seen from everywhere, ``(height, width)``; None when that is the whole picture."""
        if self.sees_all:
            return None
        rows, columns = ((torch.arange(side) + 0.5 - side / 2) / self._finer for side in self.shape[1:])
        inside = rows[:, None] ** 2 + columns**2 <= (max(0, self.measurement_shape[2] - self._beside) / 2) ** 2
        return inside.to(self.device, self.dtype)

    def _preview(self, y: torch.Tensor) -> torch.Tensor:
        """The sinogram, detectors across and views down, from 0 (black) to its largest value; few views become broad bands."""
        _, views, detectors = self.measurement_shape
        largest = y.flatten(1).amax(dim=1).clamp_min(1e-12)
        bands = max(1, round(detectors / (2 * views)))
        return (y / largest[:, None, None, None]).repeat_interleave(bands, dim=2)
