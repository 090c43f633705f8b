"""D-AMP: compressed sensing with a denoiser in the loop, and the correction that keeps its input looking like plain noise."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, ClassVar, Literal

import torch

from netprior_core import denoisers
from netprior_core.errors import Unsolvable
from netprior_core.methods import _classical
from netprior_core.methods._tunable import Grid, Tunable
from netprior_core.problem import Problem, Step
from netprior_core.settings import setting

#: The probe of the divergence, over the largest value of the picture (Metzler, Maleki & Baraniuk 2016).
PROBE = 1e-3
#: Times its first value at which σ̂ counts as diverged; share of it that must be left behind by the end.
DIVERGED, NO_PROGRESS = 1.5, 0.9
#: Times the measurement's own noise at which σ̂ counts as having arrived.
NEAR_NOISE = 1.1
#: The ratio m/n below which too few measurements are what is wrong.
ENOUGH = 0.1


class DAMP(Tunable):
    """D-AMP: denoise, measure what is left over, correct, again: a denoiser as prior for compressed sensing.

    x ← D(x + Aᵀz; σ̂), z ← y − A x + z · div D / m, σ̂ = ‖z‖/√m (Metzler, Maleki & Baraniuk 2016), from x = 0, z = y. The last
    (Onsager) term makes x + Aᵀz the truth plus white Gaussian noise of σ̂, which is what D is made for; its divergence is that of a
    random probe, ηᵀ(D(r + εη) − D(r))/ε with ε = max|r|/1000: D is called twice an iteration. The objective shown is σ̂².

    The theory is for A of independent entries with columns of length 1: A and y are divided by the gain ‖A‖_F/√n, so that any
    scale of A will do. For other operators, and where there are fewer measurements than about a tenth of the unknowns,
    it may not converge (Van Veen et al. 2018 report the same, figure 1): then σ̂ grows, and the method stops and says so.
    """

    title: ClassVar[str] = "D-AMP"
    family: ClassVar[str] = _classical.FAMILY
    order: ClassVar[int] = 64
    citation: ClassVar[str] = (
        "C. Metzler, A. Maleki, R. Baraniuk, From denoising to compressed sensing, IEEE Trans. Information Theory 2016; "
        "the same, BM3D-AMP: a new image recovery algorithm based on BM3D denoising, ICIP 2015"
    )
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "TV-AMP": {},
        "BM3D-AMP": {"denoiser": "bm3d"},
        "neural": {"denoiser": "neural"},
    }

    tunable: ClassVar[Mapping[str, Grid]] = {"iterations": (1 / 3, 1 / 2, 2)}

    kind: Literal["d-amp"] = "d-amp"
    denoiser: denoisers.Name = setting(
        "tv",
        "What D is: total variation, BM3D (a package with a non-commercial licence), a small network of ours, or the published one "
        "from a file of yours.",
        main=True,
        widget="denoiser",
    )
    iterations: int = setting(30, "Denoising steps.", ge=1, le=1000, main=True)

    def label(self) -> str:
        return f"{self.title}, {denoisers.get(self.denoiser).title}"

    def accepts(self, problem: Problem) -> str | None:
        missing = denoisers.reason(self.denoiser, problem.shape[0])
        reason = f"{self.label()}: {missing}" if missing else None
        return _classical.needs_linear(self, problem) or reason or super().accepts(problem)

    def _solve(self, problem: Problem, seed: int, prepared: Any) -> Iterator[Step]:
        _classical.finite_measurement(problem, self.title)
        model = _classical.linear(problem)
        scale = _classical.gain(model)  # A/scale has columns of length 1, on average
        y, root_m = problem.measurement / scale, model.m**0.5
        denoise = denoisers.load(self.denoiser, problem.device)
        generator = torch.Generator().manual_seed(seed)
        x, z = torch.zeros((1, *model.shape), device=problem.device, dtype=y.dtype), y
        first = sigma = float(z.norm()) / root_m
        for iteration in range(1, self.iterations + 1):
            noisy = x + model.adjoint(z) / scale
            x = denoise(noisy, sigma)
            probe = torch.randn(noisy.shape, generator=generator).to(noisy)
            epsilon = PROBE * float(noisy.abs().max()) + 1e-12
            divergence = float((probe * (denoise(noisy + epsilon * probe, sigma) - x)).sum()) / epsilon
            z = y - model.forward(x) / scale + z * (divergence / model.m)
            sigma = float(z.norm()) / root_m
            if not sigma <= DIVERGED * first:  # not a number ends here too
                raise Unsolvable(self._failed(problem, f"diverged at iteration {iteration}"))
            objective = y.new_tensor([(sigma * scale) ** 2])
            yield (step := Step(iteration, self.iterations, "solve", x, x, objective))
        floor = NEAR_NOISE * (problem.noise_std or 0.0) / scale  # what is left over is then the noise of the measurement
        if self.iterations > 1 and sigma > max(NO_PROGRESS * first, floor):
            raise Unsolvable(self._failed(problem, "did not converge"))
        yield replace(step, stage="result", info={"returns": self.iterations, "note": f"σ̂ = {255 * sigma:.1f} of 255 at the end"})

    def _failed(self, problem: Problem, what: str) -> str:
        model = problem.model
        kind = problem.operator.kind
        if kind in ("compressed-sensing", "designed-sensing"):
            ratio = model.m / model.n
            if ratio >= ENOUGH:
                return f"{self.title} {what} with this denoiser. Choose another one, or total variation."
            return (
                f"{self.title} {what}: {model.m:,} measurements of {model.n:,} values ({ratio:.1%}) are too few for it. "
                "Raise the ratio to 10% or more, or choose total variation."
            )
        return (
            f"{self.title} {what}: it is made for random sums, and {type(problem.operator).title.lower()} is not one. "
            "Choose total variation or a plug-and-play method."
        )
