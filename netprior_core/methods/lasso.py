"""Lasso: a picture that is sparse in cosines or wavelets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, ClassVar, Literal

import torch

from netprior_core import bases
from netprior_core.methods import _classical
from netprior_core.methods._tunable import Grid, Tunable
from netprior_core.problem import Problem, Step
from netprior_core.settings import setting

#: λ starts at this share of ‖W Aᵀ y‖∞ and is down after this share of the run.
PATH_START, PATH_SHARE = 0.1, 0.5
#: The curvature assumed falls by EASE with every step; one that is found too small is raised to MARGIN times what was measured.
EASE, MARGIN = 0.9, 1.02


class Lasso(Tunable):
    """Lasso: of all pictures that fit the measurement, one with few cosines or wavelets in it.

    min over c of ½ ‖A Wᵀ c − y‖² + λ ‖c‖₁, x̂ = Wᵀ c, for the orthonormal basis W: the DCT, or Daubechies' wavelets with four
    vanishing moments ("db4", 8 taps), periodised. All coefficients are penalised, and there is no intercept (scikit-learn's Lasso,
    which CS-DIP's code calls, fits one unless told not to; the page's other methods have nothing like it).

    In colour W first turns red, green and blue into grey and two differences (orthonormal): channels that move together are paid
    for once. With the channels apart, and a luma to explain, the cheapest picture is a green one.

    FISTA (Beck & Teboulle 2009): gradient step of length 1/L, then the exact proximal step, soft thresholding of W x by λ/L. L is
    not ‖A‖² but the curvature ‖A d‖²/‖d‖² along the steps d that are taken, which is several times less: it comes down step by
    step, and is raised, and the step taken again, where it was too low (Scheinberg, Goldfarb & Bai 2014). Momentum is dropped, and
    the step taken again, whenever the objective would rise, so that it never does (O'Donoghue & Candès 2015). One product with A
    and one with Aᵀ an iteration, and one more with A where L was too low.

    With few measurements and a small λ that alone would take many thousands of steps. So λ comes down to its value over the first
    half of the run, from a tenth of the least λ for which x = 0 is the answer (Hale, Yin & Zhang 2008); the objective shown is that
    of the λ of the moment, and still never rises.

    λ = 0 stands for c g² σ: σ the noise in units of the picture, g the gain of A, c tuned once per operator. "As released" is
    α = 1e-5 of scikit-learn's 1/(2m) ‖A x − y‖² + α ‖c‖₁ for pictures in [−1, 1]: half of that in [0, 1] (but for the mean).
    """

    title: ClassVar[str] = "Lasso"
    family: ClassVar[str] = _classical.FAMILY
    order: ClassVar[int] = 60
    citation: ClassVar[str] = (
        "R. Tibshirani, Regression shrinkage and selection via the lasso, J. R. Stat. Soc. B 1996; A. Beck, M. Teboulle, A Fast "
        "Iterative Shrinkage-Thresholding Algorithm for Linear Inverse Problems, SIAM J. Imaging Sciences 2009"
    )
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "DCT": {},
        "wavelets": {"basis": "db4"},
        "CS-DIP, as released": {"weight": 5e-6, "misfit": "mean", "iterations": 1000, "colours": "rgb"},
    }

    tunable: ClassVar[Mapping[str, Grid]] = {"weight": (1 / 9, 1 / 3, 3, 9)}

    kind: Literal["lasso"] = "lasso"
    basis: bases.Name = setting("dct", "Cosines of the whole picture, or Daubechies' wavelets (db4).", main=True)
    weight: float = setting(
        0.0,
        "λ, the price of a coefficient. 0: from the noise, by a factor tuned once for each operator.",
        ge=0,
        le=1e4,
        log=True,
        label="Weight λ",
        main=True,
    )
    misfit: Literal["sum", "mean"] = setting(
        "sum", "What λ is weighed against: ½ ‖A x − y‖², or ‖A x − y‖² / (2 m) as in scikit-learn."
    )
    path: bool = setting(True, "Start from x = 0 with a large λ that comes down to its value.", label="Lower λ on the way")
    colours: Literal["opponent", "rgb"] = setting(
        "opponent", "What is sparse in a colour picture: its grey and two colour differences, or red, green and blue apart."
    )
    iterations: int = setting(300, "Proximal gradient steps.", ge=1, le=20_000, main=True, log=True)

    def label(self) -> str:
        return f"{self.title}, {'DCT' if self.basis == 'dct' else 'wavelets'}"

    def accepts(self, problem: Problem) -> str | None:
        height, width = problem.shape[1:]
        if self.basis == "db4" and not bases.levels_for(height, width):
            return f"{self.title}: wavelets need even sides of at least {2 * bases.COARSEST} pixels; these are {height}×{width}."
        return _classical.needs_linear(self, problem) or super().accepts(problem)

    def written_out(self, problem: Problem) -> Tunable:
        if self.weight:
            return self
        weight = _classical.tuned_weight(f"lasso-{self.basis}", problem)
        return self.model_copy(update={"weight": weight / (problem.model.m if self.misfit == "mean" else 1)})

    def _solve(self, problem: Problem, seed: int, prepared: Any) -> Iterator[Step]:
        model, y = _classical.linear(problem), problem.measurement
        basis = bases.Basis(self.basis, *problem.shape[1:], problem.device, y.dtype, opponent=self.colours == "opponent")
        weight = self.weight * (problem.model.m if self.misfit == "mean" else 1)
        weight = weight or _classical.tuned_weight(f"lasso-{self.basis}", problem)
        share = 1 / model.m if self.misfit == "mean" else 1.0

        x = torch.zeros_like(model.initial(y)) if self.path else model.initial(y)
        c, residual = basis.coefficients(x), model.forward(x) - y
        most = float(basis.coefficients(model.adjoint(y)).abs().max())  # from here on x = 0 is the answer
        first = max(PATH_START * most, weight) if self.path else weight
        rate = (weight / first) ** (1 / max(1, round(PATH_SHARE * self.iterations)))

        def price(misfit: torch.Tensor, c: torch.Tensor, price_now: float) -> torch.Tensor:
            return share * (misfit.square().sum() / 2 + price_now * c.abs().sum())

        slope = model.adjoint(residual)
        steep = curvature(slope, model.forward(slope), x) or 1.0
        at = first
        objective = price(residual, c, at)
        _classical.checked(objective, self.title, 0)
        yield (step_ := Step(0, self.iterations, "solve", x, x, objective[None]))
        ahead, ahead_residual, t = x, residual, 1.0
        for iteration in range(1, self.iterations + 1):
            at = max(weight, first * rate**iteration)
            now = float(price(residual, c, at))
            while True:
                slope = model.adjoint(ahead_residual)
                while True:
                    found = soft(basis.coefficients(ahead - slope / steep), at / steep)
                    following = basis.picture(found)
                    there = model.forward(following) - y
                    needed = curvature(following - ahead, there - ahead_residual, following)
                    if not needed > steep:  # nor where it is no number: that is said below
                        break
                    steep = max(MARGIN * needed, 1.2 * steep)
                objective = price(there, found, at)
                value = _classical.checked(objective, self.title, iteration)
                if value <= now * (1 + 1e-6) or t == 1.0:
                    break
                ahead, ahead_residual, t = x, residual, 1.0
            if float(((ahead - following) * (following - x)).sum()) > 0:  # the momentum points uphill
                t = 1.0
            steep *= EASE
            later = (1 + (1 + 4 * EASE * t * t) ** 0.5) / 2
            momentum = (t - 1) / later
            ahead = torch.lerp(x, following, 1 + momentum)
            ahead_residual = torch.lerp(residual, there, 1 + momentum)
            x, c, residual, t = following, found, there, later
            yield (step_ := Step(iteration, self.iterations, "solve", x, x, objective[None]))
        yield replace(step_, stage="result", info={"returns": self.iterations, "note": f"λ = {weight:.3g}"})


def curvature(moved: torch.Tensor, measured: torch.Tensor, x: torch.Tensor) -> float:
    """‖A d‖²/‖d‖² of a step d that measures as ``measured``; 0 for a step lost in the rounding of x."""
    size = float(moved.square().sum())
    lost = size <= 1e-10 * float(x.square().sum())  # 0 <= 0 too
    return 0.0 if lost else float(measured.square().sum()) / size


def soft(c: torch.Tensor, threshold: float) -> torch.Tensor:
    """argmin over z of ½ ‖z − c‖² + threshold · ‖z‖₁: sign(c) · max(|c| − threshold, 0)."""
    return torch.nn.functional.softshrink(c, threshold)
