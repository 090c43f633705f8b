"""The data step of splitting methods: the picture near z that explains the measurement, and the noise level it is made for."""

from __future__ import annotations

import torch

from netprior_core import interrupt
from netprior_core.errors import Unsolvable
from netprior_core.methods._classical import PROBE_SEED
from netprior_core.methods._common import squares
from netprior_core.operators.base import LinearModel
from netprior_core.problem import Problem

#: Noise is never taken to be weaker than this share of the picture's range (DPIR's released deblurring: 0.255 of 255).
LEAST_NOISE = 0.255 / 255
#: What noise of unknown strength is taken to be, as a share of the root mean square of y.
UNKNOWN_NOISE = 0.05
CG_ITERATIONS, CG_TOLERANCE = 40, 1e-4
SUBGRADIENT_STEPS = 10


class DataStep:
    """``argmin_x ½ ‖A(x) − y‖² + (ρ/2) ‖x − z‖²`` for one problem.

    Exact where the model allows: by ``model.solve`` (circular blur), or x = z + Aᵀ (D + ρ)⁻¹ (y − A z) where A Aᵀ = D is diagonal,
    which two products with A tell (denoising, inpainting, Fourier and structured sensing, colorization). Other linear models:
    conjugate gradients on (AᵀA + ρ) x = Aᵀ y + ρ z from z, up to 40 products or a residual of 1e-4. Nonlinear ones: 10
    (sub)gradient steps of size 1/(‖A‖² + ρ) from z (MetaDIP, section 4.5).

    ``noise``: σ in units of y, with a floor; ``level``: the same in units of the picture, σ/g: g = 1 where a measured value is one
    of a picture (``Operator.measures_images``), else g² = ‖A‖²_F / n, the mean square of A's columns, from one random picture (1 in
    compressed sensing, whatever m). ``how``: in words.
    """

    def __init__(self, problem: Problem) -> None:
        self.problem, self.model, self.y = problem, problem.model, problem.measurement
        if not bool(torch.isfinite(torch.view_as_real(self.y) if self.y.is_complex() else self.y).all()):
            raise Unsolvable("The measurement holds invalid values (not a number, or infinite).")
        self._diagonal: torch.Tensor | None = None
        self._step = 0.0
        columns = self._look()
        gain = 1.0 if problem.operator.measures_images else columns
        known = problem.noise_std
        if known is None:
            known = UNKNOWN_NOISE * float(squares(self.y).mean()) ** 0.5
        self.noise = max(known, LEAST_NOISE * gain)
        self.level = self.noise / gain

    def __call__(self, z: torch.Tensor, rho: float) -> torch.Tensor:
        """The minimiser ``(B, C, H, W)`` for z of that shape."""
        if self.how == "in closed form":
            return self.model.solve(z, self.y, rho)  # type: ignore[attr-defined]
        if self._diagonal is not None:
            assert isinstance(self.model, LinearModel)
            return z + self.model.adjoint((self.y - self.model.forward(z)) / (self._diagonal + rho))
        if isinstance(self.model, LinearModel):
            return z + self._conjugate_gradients(self.model, self.model.adjoint(self.y - self.model.forward(z)), rho)
        x = z
        for _ in range(SUBGRADIENT_STEPS):
            interrupt.check()
            x = x - (self.model.gradient(x, self.y) + rho * (x - z)) / (self._step + rho)
        return x

    def misfit(self, x: torch.Tensor) -> torch.Tensor:
        """Mean of ``|A(x) − y|²`` over the measurements: ``(B,)``."""
        return squares(self.model.forward(x) - self.y).flatten(1).mean(dim=1)

    def _look(self) -> float:
        """Find out how to solve; returns the root mean square of the columns' lengths."""
        generator = torch.Generator().manual_seed(PROBE_SEED)
        probe = torch.randn((1, *self.problem.shape), generator=generator).to(self.model.device, self.model.dtype)
        if not isinstance(self.model, LinearModel):
            seen = self.model.linear_forward(probe)  # type: ignore[attr-defined]
            self.how, self._step = f"{SUBGRADIENT_STEPS} subgradient steps", self.model.linear_norm() ** 2  # type: ignore[attr-defined]
            return _size(seen) / _size(probe)
        seen = self.model.forward(probe)
        if getattr(self.model, "boundary", "") == "circular" and hasattr(self.model, "solve"):
            self.how = "in closed form"
        else:
            both = self.model.forward(self.model.adjoint(torch.ones_like(seen)))
            again = self.model.forward(self.model.adjoint(seen))
            # A Aᵀ 1 is the diagonal, if it is one; a random y tells.
            diagonal = bool(both.min() > 0) and _size(again - both * seen) <= 1e-4 * _size(again)
            self._diagonal = both if diagonal else None
            self.how = "rows are orthogonal" if diagonal else "conjugate gradients"
        return _size(seen) / _size(probe)

    def _conjugate_gradients(self, model: LinearModel, right: torch.Tensor, rho: float) -> torch.Tensor:
        """``(AᵀA + ρ)⁻¹ right`` from 0."""
        x, residual = torch.zeros_like(right), right
        direction, size = residual, residual.square().sum()
        enough = CG_TOLERANCE**2 * float(size)
        for _ in range(CG_ITERATIONS):
            interrupt.check()
            if float(size) <= enough or float(size) == 0:
                break
            image = model.normal(direction) + rho * direction
            step = size / (direction * image).sum()
            x, residual = x + step * direction, residual - step * image
            before, size = size, residual.square().sum()
            direction = residual + (size / before) * direction
        return x


def _size(x: torch.Tensor) -> float:
    return float(squares(x).sum()) ** 0.5


def solvable(problem: Problem) -> str | None:
    """Why there is no data step for this problem, or None."""
    if isinstance(problem.model, LinearModel) or hasattr(problem.model, "linear_forward"):
        return None
    return f"{type(problem.operator).title} is neither linear nor the size of something linear."
