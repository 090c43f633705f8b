"""Total variation: the picture with the least sum of jumps that explains the measurement."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, ClassVar, Literal

import torch

from netprior_core.methods import _classical
from netprior_core.methods._common import due
from netprior_core.methods._tunable import Grid, Tunable
from netprior_core.problem import Problem, Step
from netprior_core.settings import setting
from netprior_core.variation import GRADIENT_NORM_SQUARED, dual_projection, gradient, gradient_adjoint, project, total_variation

#: The primal step of PDHG times λ: jumps of a picture in [0, 1] against dual variables of size λ. Of 0.001 to 1, what brought the
#: objective nearest to its minimum (1.2e-3 at worst) within 300 iterations, for sensing, inpainting, deblurring and tomography.
PRIMAL_STEP = 0.01


class TotalVariation(Tunable):
    """Total variation: few and small jumps, whatever the operator, as long as it is linear.

    Penalised: min over x of ½ ‖A x − y‖² + λ TV(x). Constrained: min TV(x) with ‖A x − y‖ ≤ τ σ √m, which needs σ but no λ.
    TV is Σ √((∂y x)² + (∂x x)²) (isotropic; Rudin, Osher & Fatemi 1992) or Σ |∂y x| + |∂x x| (anisotropic), channel by channel.

    Primal-dual hybrid gradient (Chambolle & Pock 2011, algorithm 1) with A and ∇ both in the dual, so that no system is solved:
    q ← prox(q + s_A (A x̄ − y)), p ← project(p + s_∇ ∇x̄), x⁺ = clip(x − τ (Aᵀq + ∇ᵀp)), x̄ = 2 x⁺ − x, with
    τ (s_A ‖A‖² + 8 s_∇) = 1, half of it each. For denoising, the projection in the dual of Chambolle 2004 with Nesterov's momentum.

    λ = 0 stands for c g σ: σ the noise of the measurement, g the gain of A, c tuned once per operator. The objective shown is the
    minimised one (TV alone when constrained); PDHG's need not fall at every step.
    """

    title: ClassVar[str] = "Total variation"
    family: ClassVar[str] = _classical.FAMILY
    order: ClassVar[int] = 61
    citation: ClassVar[str] = (
        "L. Rudin, S. Osher, E. Fatemi, Nonlinear total variation based noise removal algorithms, Physica D 1992; A. Chambolle, "
        "T. Pock, A first-order primal-dual algorithm for convex problems with applications to imaging, JMIV 2011"
    )
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "penalised": {},
        "constrained": {"form": "constrained"},
        "anisotropic": {"variation": "anisotropic"},
    }

    tunable: ClassVar[Mapping[str, Grid]] = {"weight": (1 / 9, 1 / 3, 3, 9), "slack": (0.5, 0.7, 1.4, 2)}

    kind: Literal["tv"] = "tv"
    form: Literal["penalised", "constrained"] = setting(
        "penalised", "Weigh the jumps against the misfit, or allow as much misfit as there is noise.", main=True
    )
    weight: float = setting(
        0.0,
        "λ, the price of a jump. 0: from the noise, by a factor tuned once for each operator.",
        ge=0,
        le=1e4,
        log=True,
        label="Weight λ",
        main=True,
        when=("form", "penalised"),
    )
    slack: float = setting(
        1.0, "τ: the misfit allowed, in units of σ √m.", ge=0, le=10, label="Misfit allowed", when=("form", "constrained")
    )
    variation: Literal["isotropic", "anisotropic"] = setting(
        "isotropic", "Isotropic: the length of a jump. Anisotropic: rows and columns count apart, which favours upright edges."
    )
    bounded: bool = setting(True, "Keep the picture within [0, 1].", label="Within [0, 1]")
    iterations: int = setting(300, "Steps of the primal-dual method.", ge=1, le=20_000, main=True, log=True)

    def accepts(self, problem: Problem) -> str | None:
        if self.form == "constrained" and problem.noise_std is None:
            return f"{self.title}: the constrained form needs to know the noise, and nobody does here. Choose “penalised”."
        return _classical.needs_linear(self, problem) or super().accepts(problem)

    def written_out(self, problem: Problem) -> Tunable:
        if self.weight or self.form == "constrained":
            return self
        return self.model_copy(update={"weight": _classical.tuned_weight("tv", problem)})

    def _solve(self, problem: Problem, seed: int, prepared: Any) -> Iterator[Step]:
        if self.form == "constrained":
            yield from self._primal_dual(problem, 1.0)
            return
        weight = self.weight or _classical.tuned_weight("tv", problem)
        whole = problem.operator.kind == "denoising" and problem.measurement.ndim == 4  # nothing of it is held out
        solve = self._denoise if whole else self._primal_dual
        yield from solve(problem, weight)

    def _denoise(self, problem: Problem, weight: float) -> Iterator[Step]:
        y, isotropic = problem.measurement, self.variation == "isotropic"
        stream = dual_projection(y, weight, self.iterations, isotropic)
        for iteration, found in enumerate(_from(y, stream)):
            # The best picture within bounds is the best one, clipped: for anisotropic variation exactly, for isotropic nearly
            # (on a 16×16 picture the objective was 7e-5 above the least, relatively).
            x = found.clamp(0, 1) if self.bounded else found
            objective = (x - y).square().sum(dim=(1, 2, 3)) / 2 + weight * total_variation(x, isotropic)
            if due(iteration, self.iterations):
                _classical.checked(objective, self.title, iteration)
            yield (step := Step(iteration, self.iterations, "solve", x, x, objective))
        yield replace(step, stage="result", info={"returns": iteration, "note": f"λ = {weight:.3g}"})

    def _primal_dual(self, problem: Problem, weight: float) -> Iterator[Step]:
        model, y = _classical.linear(problem), problem.measurement
        isotropic, constrained = self.variation == "isotropic", self.form == "constrained"
        allowed = self.slack * (problem.noise_std or 0.0) * model.m**0.5
        norm = max(model.norm(), 1e-12) * 1.001  # ‖A‖ is exact to a few digits only
        tau = PRIMAL_STEP / weight
        s_data, s_jumps = 1 / (2 * tau * norm**2), 1 / (2 * tau * GRADIENT_NORM_SQUARED)

        def price(x: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
            jumps = weight * total_variation(x, isotropic)
            return jumps if constrained else jumps + residual.square().sum() / 2

        x = model.initial(y)
        x = x.clamp(0, 1) if self.bounded else x
        image = model.forward(x)
        ahead, image_ahead = x, image
        q, p = torch.zeros_like(y), x.new_zeros((2, *x.shape))
        slope = torch.zeros_like(p)
        yield Step(0, self.iterations, "solve", x, x, price(x, image - y))
        for iteration in range(1, self.iterations + 1):
            q = q + s_data * (image_ahead - y)
            q = q * (1 - s_data * allowed / q.norm().clamp_min(1e-30)).clamp_min(0) if constrained else q / (1 + s_data)
            p = project(p.add_(gradient(ahead, slope), alpha=s_jumps), weight, isotropic)
            following = x - tau * (model.adjoint(q) + gradient_adjoint(p))
            following = following.clamp_(0, 1) if self.bounded else following
            there = model.forward(following)
            ahead, image_ahead = 2 * following - x, 2 * there - image
            x, image = following, there
            objective = price(x, image - y)
            if due(iteration, self.iterations):
                _classical.checked(objective, self.title, iteration)
            yield (step := Step(iteration, self.iterations, "solve", x, x, objective))
        note = "least total variation within the noise" if constrained else f"λ = {weight:.3g}"
        yield replace(step, stage="result", info={"returns": self.iterations, "note": note})


def _from(first: torch.Tensor, rest: Iterator[torch.Tensor]) -> Iterator[torch.Tensor]:
    yield first
    yield from rest
