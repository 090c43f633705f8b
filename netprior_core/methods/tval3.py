"""TVAL3: total variation by an augmented Lagrangian and alternating directions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, ClassVar, Literal

import torch

from netprior_core.methods import _classical
from netprior_core.methods._tunable import Grid, Tunable
from netprior_core.problem import Problem, Step
from netprior_core.settings import setting
from netprior_core.variation import gradient, gradient_adjoint, shrink, total_variation

#: Range that the measurement of a scaled A is brought into.
LEAST_RANGE, MOST_RANGE = 0.5, 1.5
#: Steepest descent steps at most before the multipliers are updated.
INNER = 10
#: μ where A x = y is to hold in the end: it sets the pace then, not the answer (2⁸, as published).
CONSTRAINED_MU = 256.0
SUFFICIENT, SHORTER, TRIES, MEMORY = 1e-5, 0.6, 5, 0.9995


class TVAL3(Tunable):
    """TVAL3: total variation with the jumps as unknowns of their own, tied to the picture ever more closely.

    min Σ ‖w_i‖ with w = ∇x and A x = y, by the augmented Lagrangian
    Σ ‖w_i‖ − νᵀ(∇x − w) + β/2 ‖∇x − w‖² − δᵀ(A x − y) + μ/2 ‖A x − y‖²: w by shrinkage, x by one steepest descent step of Barzilai
    and Borwein's length with a nonmonotone line search (Zhang & Hager 2004), and when x moves by less than the tolerance, or
    after ten steps, ν ← ν − β(∇x − w), δ ← δ − μ(A x − y). Li, Yin, Jiang & Zhang 2013. Penalised: δ stays 0, and what is minimised
    is TV(x) + μ/2 ‖A x − y‖²; "auto" penalises when there is noise.

    **Scaling**, on which the meaning of μ and β hangs: A and y are divided by ‖A‖ where that is above 1, then y, and x with it, is
    multiplied by s so that its values span 0.5 to 1.5 (s = 1 where they do). So penalised TVAL3 is total variation with
    λ = max(‖A‖, 1)²/(μ s), and the unit of x (0 to 255, as CS-DIP has it, or 0 to 1) does not matter. This is our reading of the
    users' guide: the MATLAB code was not run beside it, and there it constrains even with noise unless told otherwise. The run
    ends when two updates of the multipliers in a row moved x by less than the tolerance, relatively (constrained: and ‖A x − y‖ is
    below ten tolerances of ‖y‖). TV is isotropic, channel by channel.

    μ = 0 stands for the μ of λ = c g² σ, as for total variation: σ the noise in units of the picture, g the gain of A, c tuned once
    per operator; and for 2⁸ where A x = y is to hold. "CS-DIP" has μ = 2⁸ and β = 2⁵ whatever the noise, as published there.
    """

    title: ClassVar[str] = "TVAL3"
    family: ClassVar[str] = _classical.FAMILY
    order: ClassVar[int] = 62
    citation: ClassVar[str] = (
        "C. Li, W. Yin, H. Jiang, Y. Zhang, An efficient augmented Lagrangian method with applications to total variation "
        "minimization, Computational Optimization and Applications 2013"
    )
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "from the noise": {},
        "CS-DIP": {"mu": 256.0},
        "CS-DIP, penalised": {"mu": 256.0, "data": "penalised"},
        "constrained": {"data": "constrained"},
    }

    tunable: ClassVar[Mapping[str, Grid]] = {"mu": (1 / 9, 1 / 3, 3, 9), "beta": (1 / 3, 3)}

    kind: Literal["tval3"] = "tval3"
    mu: float = setting(
        0.0,
        "μ, the weight of the misfit. 0: from the noise, by a factor tuned once for each operator.",
        ge=0,
        le=1e9,
        log=True,
        label="Misfit weight μ",
        main=True,
    )
    beta: float = setting(
        32.0, "β, how closely the jumps are tied to the picture (2⁵).", ge=1e-3, le=1e9, log=True, label="Tie β", main=True
    )
    data: Literal["auto", "penalised", "constrained"] = setting(
        "auto", "Constrained: A x = y in the end. Penalised: as the misfit weight says. Auto: constrained without noise."
    )
    tolerance: float = setting(1e-3, "Stop when the multipliers' updates move x by less, relatively.", ge=0, le=1)
    iterations: int = setting(300, "Steepest descent steps at most.", ge=1, le=20_000, main=True, log=True)

    def accepts(self, problem: Problem) -> str | None:
        return _classical.needs_linear(self, problem) or super().accepts(problem)

    def written_out(self, problem: Problem) -> Tunable:
        return self.model_copy(update={"mu": self._mu(problem)})

    def _constrains(self, problem: Problem) -> bool:
        return self.data == "constrained" or (self.data == "auto" and problem.noise_std == 0)

    def _mu(self, problem: Problem) -> float:
        """μ, with the number that 0 stands for."""
        if self.mu or self._constrains(problem):
            return self.mu or CONSTRAINED_MU
        return misfit_weight(_classical.tuned_weight("tval3", problem), problem)

    def _solve(self, problem: Problem, seed: int, prepared: Any) -> Iterator[Step]:
        model = _classical.linear(problem)
        norm = max(model.norm(), 1.0)  # as the released code: only what is larger is made smaller
        scale = scaling(problem.measurement, norm)
        y, mu, beta = scale / norm * problem.measurement, self._mu(problem), self.beta
        constrained = self._constrains(problem)

        x = scale * model.initial(problem.measurement)
        image, jumps = model.forward(x) / norm, gradient(x)
        nu, delta = torch.zeros_like(jumps), torch.zeros_like(y)

        def shown(iteration: int) -> Step:
            objective = total_variation(x).sum() + mu / 2 * (image - y).square().sum()
            _classical.checked(objective, self.title, iteration)
            estimate = x / scale
            return Step(iteration, self.iterations, "solve", estimate, estimate, objective[None])

        def lagrangian(jumps: torch.Tensor, image: torch.Tensor) -> float:  # of x; w is fixed
            apart, misfit = jumps - w, image - y
            return float(
                beta / 2 * apart.square().sum() - (nu * apart).sum() + mu / 2 * misfit.square().sum() - (delta * misfit).sum()
            )

        yield (step := shown(0))
        outer, inner, still = x, 0, 0
        before: tuple[torch.Tensor, torch.Tensor, torch.Tensor] | None = None
        average, count = 0.0, 0.0
        for iteration in range(1, self.iterations + 1):
            w = shrink(jumps - nu / beta, 1 / beta)
            now = lagrangian(jumps, image)
            # The average of past values that the line search compares with starts anew with every update of the multipliers.
            average, count = ((average * count * MEMORY + now) / (count * MEMORY + 1), count * MEMORY + 1) if inner else (now, 1.0)
            slope = gradient_adjoint(beta * (jumps - w) - nu) + model.adjoint(mu * (image - y) - delta) / norm
            steep_jumps, steep_image = gradient(slope), model.forward(slope) / norm
            square = float(slope.square().sum())
            exact = square / max(beta * float(steep_jumps.square().sum()) + mu * float(steep_image.square().sum()), 1e-30)
            length = exact
            if before is not None:
                dx, djumps, dimage = x - before[0], jumps - before[1], image - before[2]
                bend = beta * float(djumps.square().sum()) + mu * float(dimage.square().sum())
                length = float(dx.square().sum()) / bend if bend > 0 else exact
            before = x, jumps, image
            for _ in range(TRIES):
                trial = lagrangian(jumps - length * steep_jumps, image - length * steep_image)
                if trial <= max(average, now) - SUFFICIENT * length * square:
                    break
                length *= SHORTER
            else:
                length = exact
            x, jumps, image = x - length * slope, jumps - length * steep_jumps, image - length * steep_image
            if iteration % 50 == 0:  # sums of steps drift
                jumps, image = gradient(x), model.forward(x) / norm
            inner += 1
            yield (step := shown(iteration))
            size = max(float(x.norm()), 1e-12)
            if float((x - before[0]).norm()) <= self.tolerance * size or inner >= INNER:
                nu = nu - beta * (jumps - w)
                delta = delta - mu * (image - y) if constrained else delta
                fits = not constrained or float((image - y).norm()) <= 10 * self.tolerance * float(y.norm())
                still = still + 1 if fits and float((x - outer).norm()) <= self.tolerance * size else 0
                outer, inner, before = x, 0, None
                if still == 2:
                    break
        note = f"{'constrained' if constrained else f'λ = {norm**2 / (mu * scale):.3g}'}, {step.iteration} steps"
        yield replace(step, stage="result", info={"returns": step.iteration, "note": note})


def misfit_weight(weight: float, problem: Problem) -> float:
    """μ with which penalised TVAL3 is total variation of this λ, of ½ ‖A x − y‖² + λ TV(x): max(‖A‖, 1)²/(λ s)."""
    norm = max(_classical.linear(problem).norm(), 1.0)
    return norm**2 / (weight * scaling(problem.measurement, norm))


def scaling(y: torch.Tensor, norm: float) -> float:
    """s such that the values of s y/‖A‖ span 0.5 to 1.5; 1 where they do already, or are all equal."""
    span = float(y.max() - y.min()) / norm
    if not span > 0:
        return 1.0
    return min(max(1.0, LEAST_RANGE / span), MOST_RANGE / span)
