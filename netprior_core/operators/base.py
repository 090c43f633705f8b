"""The contract of forward models.

An :class:`Operator` holds settings; ``build`` turns it into a :class:`ForwardModel` for one image shape, device and dtype.
Public calls check shapes and say what was wrong; subclasses write the underscored methods.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np
import torch
from pydantic import BeforeValidator, SerializeAsAny

from netprior_core import interrupt
from netprior_core.errors import InvalidSettings
from netprior_core.problem import Shape
from netprior_core.settings import Registry, Settings

if TYPE_CHECKING:
    from netprior_core.noise import Noise

LANCZOS_STEPS = 96
#: Lanczos keeps a vector a step: on large images it takes fewer of them, never more than this.
LANCZOS_BYTES = 256 * 2**20


@dataclass(frozen=True, eq=False)
class Draw:
    """What ``Operator._build`` may use besides its settings.

    seed: of whatever is random. device, dtype: of the model's tensors. shots: the example images ``(S, C, H, W)``, or None.
    error: how wrong the model is to be, from 0 (exact) to 1, in the operator's own way (``Operator.error_means``).
    """

    seed: int
    device: torch.device
    dtype: torch.dtype
    shots: torch.Tensor | None = None
    error: float = 0.0

    def generator(self, use: int = 0) -> torch.Generator:
        """A fresh generator on the CPU; another ``use`` gives independent numbers."""
        return torch.Generator().manual_seed(self.seed + 7_919 * use)


class ForwardModel(ABC):
    """``A`` for images ``(B, C, H, W)``; measurements are ``(B, *measurement_shape)``."""

    linear: ClassVar[bool] = False

    def __init__(self, shape: Shape, measurement_shape: tuple[int, ...], device: torch.device, dtype: torch.dtype) -> None:
        self.shape = shape
        self.measurement_shape = tuple(measurement_shape)
        self.device = torch.device(device)
        self.dtype = dtype

    @property
    def n(self) -> int:
        """Number of image values, C·H·W."""
        return self.shape[0] * self.shape[1] * self.shape[2]

    @property
    def m(self) -> int:
        """Number of measured values."""
        return int(torch.Size(self.measurement_shape).numel())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``A(x)``: ``(B, C, H, W)`` to ``(B, *measurement_shape)``. Raises ValueError on another shape. Differentiable."""
        _check(x, self.shape, "image", type(self).__name__)
        return self._forward(x)

    def initial(self, y: torch.Tensor) -> torch.Tensor:
        """The cheap first picture: zero-filled, adjoint, filtered back-projection; ``(B, C, H, W)``, not clipped."""
        _check(y, self.measurement_shape, "measurement", type(self).__name__)
        return self._initial(y)

    def preview(self, y: torch.Tensor) -> torch.Tensor:
        """The picture a person is shown for a measurement: ``(B, 1 or 3, h, w)`` in [0, 1]."""
        _check(y, self.measurement_shape, "measurement", type(self).__name__)
        return self._preview(y).clamp(0, 1)

    def describe(self) -> str:
        """One line on what was built, choices made for the user included ("structured, since a dense A would need 2.4 GB")."""
        return f"{self.m:,} measurements of {self.n:,} values"

    def measure(self, x: torch.Tensor, noise: Noise, *, seed: int) -> torch.Tensor:
        """A noisy measurement of ``x``: noise is added to ``A(x)`` (inside the modulus in phase retrieval)."""
        return noise.apply(self.forward(x), seed=seed)

    def noise_std(self, noise: Noise, y: torch.Tensor) -> float | None:
        """Standard deviation of what :meth:`measure` adds, in units of ``y``; None where it has none."""
        return noise.std(y)

    def gradient(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """``∇_x ½ ‖A(x) − y‖²`` ``(B, C, H, W)``, image by image; detached."""
        x = x.detach().requires_grad_()
        with torch.enable_grad():
            misfit = (self.forward(x) - y).abs().square().sum() / 2
            (found,) = torch.autograd.grad(misfit, x)
        return found

    def measurement_from(self, array: np.ndarray) -> torch.Tensor:
        """A user's own measurement, an array of numbers, as ``(1, *measurement_shape)`` on the model's device.

        Here: an array of that shape; leading axes of length 1 may be missing or more. Raises InvalidSettings otherwise.
        """
        wanted = _squeezed(self.measurement_shape)
        if np.iscomplexobj(array):
            raise InvalidSettings(f"Your measurement is complex; {_words(self.measurement_shape)} real numbers are needed here.")
        if _squeezed(array.shape) != wanted:
            raise InvalidSettings(
                f"Your measurement has the shape {_words(array.shape)}; with these settings {_words(self.measurement_shape)} "
                "is needed. Change the image size or the operator's settings, or upload another file."
            )
        numbers = torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))
        return numbers.reshape(1, *self.measurement_shape).to(self.device, self.dtype)

    def measurement_of(self, picture: torch.Tensor) -> torch.Tensor:
        """The measurement when an uploaded ``picture`` ``(1, C, h, w)`` *is* the measurement (see ``Operator.measures_images``).

        A picture with the measurement's shape is taken as it is (denoising, super-resolution, a grey picture to colourise);
        one with the image's shape is measured without noise (inpainting keeps its visible pixels). Raises ValueError otherwise.
        """
        if tuple(picture.shape[1:]) == self.measurement_shape:
            return picture
        return self.forward(picture)

    @abstractmethod
    def _forward(self, x: torch.Tensor) -> torch.Tensor: ...

    @abstractmethod
    def _initial(self, y: torch.Tensor) -> torch.Tensor: ...

    def _preview(self, y: torch.Tensor) -> torch.Tensor:
        return self._initial(y)


class LinearModel(ForwardModel):
    """A linear ``A``, with its adjoint, normal operator, norm, and a pseudo-inverse where it has a true one."""

    linear: ClassVar[bool] = True
    #: Whether ``pinv`` is there: a fact of the class, or of the instance where it depends on the size.
    has_pinv: bool = False

    def adjoint(self, y: torch.Tensor) -> torch.Tensor:
        """``Aᵀ y``: ``(B, *measurement_shape)`` to ``(B, C, H, W)``; ⟨A x, y⟩ = ⟨x, Aᵀ y⟩ exactly."""
        _check(y, self.measurement_shape, "measurement", type(self).__name__)
        return self._adjoint(y)

    def normal(self, x: torch.Tensor) -> torch.Tensor:
        """``Aᵀ A x``."""
        _check(x, self.shape, "image", type(self).__name__)
        return self._normal(x)

    def pinv(self, y: torch.Tensor) -> torch.Tensor:
        """``A⁺ y``, the Moore-Penrose pseudo-inverse. Raises NotImplementedError where there is no true one (see ``has_pinv``)."""
        if not self.has_pinv:
            raise NotImplementedError(f"{type(self).__name__} has no pseudo-inverse; use initial()")
        _check(y, self.measurement_shape, "measurement", type(self).__name__)
        return self._pinv(y)

    def norm(self) -> float:
        """The spectral norm ``‖A‖``, in closed form where one is known, else by :func:`largest_eigenvalue` of ``AᵀA``."""
        generator = torch.Generator().manual_seed(0)
        start = torch.randn((1, *self.shape), generator=generator, dtype=torch.float32).to(self.device, self.dtype)
        with torch.no_grad():
            steps = max(8, min(LANCZOS_STEPS, LANCZOS_BYTES // (self.n * start.element_size())))
            return largest_eigenvalue(self._normal, start, steps) ** 0.5

    @abstractmethod
    def _adjoint(self, y: torch.Tensor) -> torch.Tensor: ...

    def _normal(self, x: torch.Tensor) -> torch.Tensor:
        return self._adjoint(self._forward(x))

    def _pinv(self, y: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError

    def _initial(self, y: torch.Tensor) -> torch.Tensor:
        return self._adjoint(y)


class Operator(Settings):
    """Settings of a forward model. ``build`` draws whatever is random on the CPU from ``seed``."""

    registry: ClassVar[Registry[Any]] = Registry("operator")
    order: ClassVar[int] = 100
    equation: ClassVar[str] = "y = A x + e"
    #: True when a measurement is itself a picture a user may upload (denoising, inpainting, super-resolution).
    measures_images: ClassVar[bool] = False

    #: What being wrong by 1 means for this operator ("every angle is off by 2°"); "" when it cannot be wrong.
    error_means: ClassVar[str] = ""
    #: Whether ``build_finer`` is there.
    simulates_finer: ClassVar[bool] = False
    #: Whether the model is made from the examples.
    needs_shots: ClassVar[bool] = False
    #: What the picture of a measurement shows, where it does not speak for itself.
    shows: ClassVar[str] = ""
    #: A paragraph for someone who has never met this measurement, shown in the Learn view under the equation.
    lesson: ClassVar[str] = ""

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        cls.registry.add(cls)

    def build(
        self,
        shape: Shape,
        *,
        seed: int = 0,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        shots: torch.Tensor | None = None,
        error: float = 0.0,
    ) -> ForwardModel:
        """The forward model for images of ``shape``; ``shots`` and ``error`` are those of :class:`Draw`.

        Raises InvalidSettings when settings, shape and shots do not go together.
        """
        self.require(shape)
        if self.wants_shots() and (shots is None or len(shots) == 0):
            raise InvalidSettings(f"{self.title} is made from example images: add some shots.")
        return self._build(shape, Draw(seed, torch.device(device), dtype, shots, error))

    def wants_shots(self) -> bool:
        """Whether these settings need the examples: of a kind that ``needs_shots``, some may do without."""
        return self.needs_shots

    def build_finer(
        self, shape: Shape, *, seed: int = 0, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
    ) -> ForwardModel:
        """A model for images of twice the sides of ``shape`` whose measurements stand for those of ``build(shape)``.

        Simulating on a finer grid than the one solved on avoids the "inverse crime" (Kaipio & Somersalo 2007).
        """
        raise NotImplementedError

    def _build(self, shape: Shape, draw: Draw) -> ForwardModel:
        raise NotImplementedError

    def refuses(self, shape: Shape) -> str | None:
        """Why images of this shape cannot be measured (colourising a grey image), or None."""
        return None

    def require(self, shape: Shape) -> None:
        """Raises InvalidSettings, with the reason, when images of this shape cannot be measured."""
        reason = self.refuses(shape)
        if reason:
            raise InvalidSettings(reason)

    def shape_of_measured(self, image_shape: Shape) -> Shape:
        """Shape of the unknown image when an uploaded picture of ``image_shape`` *is* the measurement."""
        return image_shape


def largest_eigenvalue(operator: Callable[[torch.Tensor], torch.Tensor], start: torch.Tensor, steps: int = LANCZOS_STEPS) -> float:
    """Largest eigenvalue of a symmetric positive semidefinite ``operator`` by Lanczos with full reorthogonalisation.

    Golub & Van Loan, *Matrix Computations*, section 10.1. Power iteration creeps where the spectrum has a soft edge, as that of
    a Gaussian matrix has: there these 96 products give more digits than thousands of its own. ``start`` fixes shape and device.
    """
    shape, vector = start.shape, start.flatten() / start.norm()
    basis: list[torch.Tensor] = []
    diagonal: list[float] = []
    beside: list[float] = []
    value = 0.0
    for _ in range(min(steps, vector.numel())):
        interrupt.check()
        basis.append(vector)
        image = operator(vector.view(shape)).flatten()
        diagonal.append(float(vector @ image))
        known = torch.stack(basis)
        for _ in range(2):  # once is not enough in floating point
            image = image - (known @ image) @ known
        size = float(image.norm())
        matrix = torch.diag(torch.tensor(diagonal, dtype=torch.float64))
        for i, b in enumerate(beside):
            matrix[i, i + 1] = matrix[i + 1, i] = b
        previous, value = value, float(torch.linalg.eigvalsh(matrix)[-1])
        if size <= 1e-6 * max(value, 1e-30) or (len(basis) > 8 and abs(value - previous) <= 1e-9 * value):
            break
        beside.append(size)
        vector = image / size
    return max(value, 0.0)


def _check(value: torch.Tensor, expected: tuple[int, ...], what: str, who: str) -> None:
    if value.ndim != len(expected) + 1 or tuple(value.shape[1:]) != tuple(expected):
        got = "×".join(map(str, value.shape))
        raise ValueError(f"{who} takes a batch of {what}s of shape {'×'.join(map(str, expected))}; it was given {got}")


def _squeezed(shape: tuple[int, ...]) -> tuple[int, ...]:
    """``shape`` without its leading axes of length 1."""
    while len(shape) > 1 and shape[0] == 1:
        shape = shape[1:]
    return tuple(shape)


def _words(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape))


AnyOperator = Annotated[SerializeAsAny[Operator], BeforeValidator(Operator.registry.parse)]
