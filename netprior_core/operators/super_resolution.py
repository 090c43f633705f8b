"""Super-resolution: the measurement is the picture scaled down with an antialiasing kernel."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F

from netprior_core.operators.base import Draw, ForwardModel, LinearModel, Operator
from netprior_core.problem import Shape
from netprior_core.settings import setting

Kernel = Literal["lanczos", "bicubic", "box"]
#: Half-width of each kernel in low-resolution pixels.
SUPPORT: dict[str, float] = {"lanczos": 3.0, "bicubic": 2.0, "box": 0.5}
MIN_MEASURED = 4
#: Strongest over weakest singular value up to which A⁺ is offered.
WORST_CONDITION = 1e2
#: Up to this side the two factors are applied as dense matrices, which is faster there; beyond, as bands: O(n).
DENSE_SIDE = 512


class SuperResolution(Operator):
    """Super-resolution: a small picture is to become a large one.

    y = D x + e with D x = W_h x W_wᵀ per channel, the separable antialiased downsampling of Pillow's ``resize`` (Lanczos with
    three lobes, bicubic with a = −1/2, or box averaging). Factors 4 and 8 with Lanczos are those of Ulyanov, Vedaldi &
    Lempitsky 2018, "Deep Image Prior", section 3.
    """

    title: ClassVar[str] = "Super-resolution"
    order: ClassVar[int] = 40
    equation: ClassVar[str] = "y = D x + e"
    measures_images: ClassVar[bool] = True
    error_means: ClassVar[str] = "the kernel is taken to be half as wide again as it was"
    lesson: ClassVar[str] = (
        "The camera's pixels are too large: each measured value averages a patch of the scene, weighted by a kernel. Enlarging the "
        "picture by interpolation gives a smooth one that explains the measurement no better than many sharper ones. A prior "
        "chooses among those."
    )

    kind: Literal["super-resolution"] = "super-resolution"
    factor: Literal[2, 4, 8] = setting(4, "How many times smaller the measured picture is along each side.", unit="×", main=True)
    kernel: Literal["lanczos", "bicubic", "box"] = setting("lanczos", "Antialiasing filter of the downsampling.", main=True)

    def _build(self, shape: Shape, draw: Draw) -> ForwardModel:
        return SuperResolutionModel(shape, self.factor, self.kernel, draw.device, draw.dtype, stretch=1 + draw.error / 2)

    def refuses(self, shape: Shape) -> str | None:
        _, height, width = shape
        if height % self.factor or width % self.factor:
            return (
                f"Super-resolution ×{self.factor} needs sides that are multiples of {self.factor}; "
                f"this picture is {height} × {width}. Choose another size or factor."
            )
        if min(height, width) // self.factor < MIN_MEASURED:
            return (
                f"Super-resolution ×{self.factor} of a {height} × {width} picture leaves fewer than {MIN_MEASURED} pixels a side. "
                "Choose a larger picture or a smaller factor."
            )
        return None

    def shape_of_measured(self, image_shape: Shape) -> Shape:
        channels, height, width = image_shape
        return channels, height * self.factor, width * self.factor


class SuperResolutionModel(LinearModel):
    """``A = W_h ⊗ W_w`` on each channel: both factors are small dense matrices, so adjoint and pseudo-inverse are exact.

    ``has_pinv``: unless A, stretched by its mismatch, hardly measures some pictures: there A⁺ would be the noise many times over.
    """

    def __init__(
        self, shape: Shape, factor: int, kernel: Kernel, device: torch.device, dtype: torch.dtype, *, stretch: float = 1.0
    ) -> None:
        channels, height, width = shape
        super().__init__(shape, (channels, height // factor, width // factor), device, dtype)
        self.factor, self.kernel = factor, kernel
        rows, columns = (downsampling_matrix(side, factor, kernel, stretch) for side in (height, width))
        singular = torch.outer(torch.linalg.svdvals(rows), torch.linalg.svdvals(columns))
        self._norm = float(singular[0, 0])
        self.has_pinv = self._norm < WORST_CONDITION * float(singular[-1, -1])
        self._bands: tuple[Band, Band] | None = None
        if max(height, width) > DENSE_SIDE:
            taps, device, dtype = block_taps(factor, kernel, stretch), self.device, self.dtype
            self._bands = Band(taps, height // factor, device, dtype), Band(taps, width // factor, device, dtype)
        self.rows, self.columns = rows.to(self.device, dtype), columns.to(self.device, dtype)
        self._up_rows, self._up_columns = (torch.linalg.pinv(w).to(self.device, dtype) for w in (rows, columns))

    def norm(self) -> float:
        """``‖W_h‖ ‖W_w‖``: the norm of a Kronecker product."""
        return self._norm

    def describe(self) -> str:
        _, height, width = self.measurement_shape
        return f"{height} × {width} pixels of {self.shape[1]} × {self.shape[2]} ({self.kernel}, ×{self.factor})"

    def _forward(self, x: torch.Tensor) -> torch.Tensor:
        if self._bands is not None:
            rows, columns = self._bands
            return columns.down(rows.down(x).mT).mT
        return self.rows @ x @ self.columns.T

    def _adjoint(self, y: torch.Tensor) -> torch.Tensor:
        if self._bands is not None:
            rows, columns = self._bands
            return rows.up(columns.up(y.mT).mT)
        return self.rows.T @ y @ self.columns

    def _pinv(self, y: torch.Tensor) -> torch.Tensor:
        return self._up_rows @ y @ self._up_columns.T

    def _initial(self, y: torch.Tensor) -> torch.Tensor:
        """Bicubic enlargement, not clipped."""
        return F.interpolate(y, size=self.shape[1:], mode="bicubic", align_corners=False)

    def _preview(self, y: torch.Tensor) -> torch.Tensor:
        return y


class Band:
    """The same matrix as :func:`downsampling_matrix`, applied along the second last axis in O(n).

    Output i is a weighted sum over 2r + 1 blocks of ``factor`` inputs around block i, with weights ``taps`` that do not depend on
    i, divided by the sum of those that fall inside.
    """

    def __init__(self, taps: torch.Tensor, outputs: int, device: torch.device, dtype: torch.dtype) -> None:
        self.reach = len(taps) // 2
        inside = torch.zeros(outputs, dtype=torch.float64)
        for d, weight in enumerate(taps.sum(dim=1).tolist()):
            i = torch.arange(outputs) + d - self.reach
            inside += weight * ((i >= 0) & (i < outputs))
        self.taps, self.scale = taps.to(device, dtype), (1 / inside).view(-1, 1).to(device, dtype)

    def down(self, x: torch.Tensor) -> torch.Tensor:
        """``(B, C, outputs · factor, W)`` to ``(B, C, outputs, W)``."""
        outputs, reach = len(self.scale), self.reach
        blocks = x.unflatten(2, (outputs, -1))
        parts = F.pad(torch.matmul(self.taps, blocks).transpose(2, 3), (0, 0, reach, reach))
        total = parts[:, :, 0, :outputs]
        for d in range(1, len(self.taps)):
            total = total + parts[:, :, d, d : d + outputs]
        return total * self.scale

    def up(self, y: torch.Tensor) -> torch.Tensor:
        """The transpose of :meth:`down`."""
        outputs, reach = len(self.scale), self.reach
        padded = F.pad(y * self.scale, (0, 0, reach, reach))
        parts = torch.stack([padded[:, :, 2 * reach - d : 2 * reach - d + outputs] for d in range(len(self.taps))], dim=3)
        return torch.matmul(self.taps.T, parts).flatten(2, 3)


def block_taps(factor: int, kernel: Kernel, stretch: float = 1.0) -> torch.Tensor:
    """``(2r + 1, factor)`` float64: the unnormalised weights of the pixels of 2r + 1 blocks around the one of an output."""
    reach = math.ceil(SUPPORT[kernel] * stretch + 0.5)
    pixels = torch.arange(-reach * factor, (reach + 1) * factor, dtype=torch.float64) + 0.5
    distance = (pixels - factor / 2) / (factor * stretch)
    weights = torch.where(distance.abs() <= SUPPORT[kernel], _kernel(distance, kernel), 0.0)
    return weights.view(2 * reach + 1, factor)


def downsampling_matrix(side: int, factor: int, kernel: Kernel, stretch: float = 1.0) -> torch.Tensor:
    """``(side / factor, side)`` float64: row i holds the weights of output pixel i.

    The kernel is stretched by the factor (times ``stretch``) and centred at ``(i + 1/2)·factor`` (pixel j spans
    [j, j + 1]); weights beyond the border are dropped and the rest scaled to sum to 1, as Pillow does.
    """
    centres = (torch.arange(side // factor, dtype=torch.float64) + 0.5) * factor
    distance = (torch.arange(side, dtype=torch.float64) + 0.5 - centres[:, None]) / (factor * stretch)
    weights = torch.where(distance.abs() <= SUPPORT[kernel], _kernel(distance, kernel), 0.0)
    return weights / weights.sum(dim=1, keepdim=True)


def _kernel(t: torch.Tensor, kernel: Kernel) -> torch.Tensor:
    if kernel == "lanczos":
        return torch.sinc(t) * torch.sinc(t / 3)
    if kernel == "box":
        return torch.ones_like(t)
    t, a = t.abs(), -0.5  # Keys 1981, eq. 4
    near = ((a + 2) * t - (a + 3)) * t * t + 1
    far = (((t - 5) * t + 8) * t - 4) * a
    return torch.where(t < 1, near, far)
