"""Plug-and-play: a denoiser takes the place of a prior in an algorithm that splits misfit and prior."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Literal

import torch

from netprior_core import denoisers
from netprior_core.errors import Unsolvable
from netprior_core.methods._data_step import DataStep, solvable
from netprior_core.methods._pnp_tuned import TUNED
from netprior_core.methods._tunable import Grid, Tunable
from netprior_core.methods.base import Method
from netprior_core.operators.super_resolution import SuperResolution
from netprior_core.problem import Problem, Step
from netprior_core.settings import setting

#: A denoiser is never asked for less than this, so that a measurement without noise has a prior at all.
LEAST_LEVEL = 0.6 / 255
Turn = tuple[torch.Tensor, torch.Tensor, torch.Tensor, float]


def denoiser_setting() -> Any:
    """The ``denoiser`` field of this family."""
    return setting(
        "neural",
        "What stands for the prior: a small network of ours, the published one from a file of yours, BM3D (a package for "
        "non-commercial use), or total variation.",
        main=True,
        widget="denoiser",
    )


class PlugAndPlay(Tunable):
    """What the methods of this family share: the denoiser, and settings found once for each operator.

    An experiment that does not give a setting means that of its operator (``methods/_pnp_tuned.py``): the page, files and links
    then show the number. What it gives stays. The defaults of the class are for operators without an entry.
    """

    family: ClassVar[str] = "Plug-and-play"

    denoiser: denoisers.Name = denoiser_setting()

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        if isinstance(cls.model_fields["kind"].default, str):  # this class itself is not one to choose
            super().__pydantic_init_subclass__(**kwargs)

    def accepts(self, problem: Problem) -> str | None:
        reason = super().accepts(problem) or refused(self.title, self.denoiser, problem.shape[0])
        if reason is None and (why := solvable(problem)) is not None:
            reason = f"{self.title}: {why}"
        return reason

    def at_hand(self) -> Method:
        return self.model_copy(update={"denoiser": denoiser_at_hand(self.denoiser)})

    def completed(self, operator: Any) -> Method:
        known = self.presets.get(preset_of(operator.kind), {})
        return self.model_copy(update={name: value for name, value in known.items() if name not in self.model_fields_set})

    def suited(self, operator: Any) -> Method:
        changes: dict[str, Any] = {**self.presets.get(preset_of(operator.kind), {}), "denoiser": self.denoiser}
        return type(self)(**changes)

    def _steps(self, problem: Problem, pairs: Iterator[Turn], total: int) -> Iterator[Step]:
        """Steps from (output, estimate, objective ``(B,)``, the denoiser's noise level) of iterations 0, 1, …"""
        step = None
        for iteration, (output, estimate, objective, level) in enumerate(pairs):
            if not bool(torch.isfinite(objective).all()):
                raise Unsolvable(
                    f"{self.title}: the objective is not a number any more at iteration {iteration}: it diverged. Raise the weight "
                    "of the denoiser, or give it more noise to remove."
                )
            step = Step(iteration, total, "solve", output, estimate, objective, info={"sigma": 255 * level})
            yield step
        assert step is not None
        yield Step(total, total, "result", step.output, step.estimate, step.objective, info={"returns": total})


def denoiser_at_hand(name: denoisers.Name) -> denoisers.Name:
    """This denoiser where it is available, else total variation, which always is."""
    return name if denoisers.get(name).available() is None else "tv"


def refused(title: str, name: denoisers.Name, channels: int) -> str | None:
    """Why a method cannot use this denoiser for pictures of so many channels, in a sentence for a person, or None."""
    reason = denoisers.reason(name, channels)
    if reason is None:
        return None
    other = "Another denoiser can be chosen in the settings; total variation is always there."
    return f"{title} with {denoisers.get(name).title}: {reason} {other}"


def preset_of(kind: str) -> str:
    """The name of the preset for an operator's kind."""
    return kind.replace("-", " ")


def _presets(method: str) -> dict[str, dict[str, Any]]:
    return {preset_of(kind): dict(changes) for kind, changes in TUNED[method].items()}


def levels(first: float, last: float, count: int) -> list[float]:
    """``count`` noise levels evenly spaced in their logarithm, from ``first`` down to ``last`` (the larger of both first)."""
    first = max(first, last)
    return [last * (first / last) ** (1 - k / max(count - 1, 1)) for k in range(count)]


class _Splitting(PlugAndPlay):
    """Half-quadratic splitting and ADMM: a data step and a denoiser in turns, with a noise level that falls."""

    iterations: int = setting(24, "Turns of data step and denoiser.", ge=1, le=1000, main=True)
    first: float = setting(
        49.0, "Noise level that the denoiser is told at first; it falls geometrically.", ge=0.1, le=200, unit="of 255"
    )
    last: float = setting(
        1.0, "Noise level that it is told last, as a multiple of the measurement's noise (in units of the picture).", ge=0, le=20
    )
    weight: float = setting(
        0.23,
        "λ: how strongly the data step is held to the denoised picture, ρ = λ σ²/σ_k².",
        ge=1e-4,
        le=1e4,
        log=True,
        label="Weight λ",
        main=True,
    )
    tunable: ClassVar[Mapping[str, Grid]] = {
        "weight": (1 / 9, 1 / 3, 3, 9),
        "last": (0.5, 0.7, 1.4, 2),
        "iterations": (1 / 2, 2),
    }
    #: Whether there is a dual variable (ADMM).
    _dual: ClassVar[bool] = False

    def _solve(self, problem: Problem, seed: int, prepared: Any) -> Iterator[Step]:
        yield from self._steps(problem, self._pairs(problem), self.iterations)

    def _least(self, problem: Problem) -> float:
        """The least noise level that the denoiser is told."""
        return LEAST_LEVEL

    def _pairs(self, problem: Problem) -> Iterator[Turn]:
        data = DataStep(problem)
        denoise = denoisers.load(self.denoiser, problem.device)
        v = problem.model.initial(problem.measurement).detach().clamp(0, 1)
        u = torch.zeros_like(v)
        yield v, v, data.misfit(v), self.first / 255
        before = 0.0
        for level in levels(self.first / 255, max(self.last * data.level, self._least(problem)), self.iterations):
            rho = self.weight * (data.noise / level) ** 2
            u = u * (before / rho)  # ρ u is the multiplier: it stays when ρ changes
            before = rho
            x = data(v - u, rho)
            v = denoise(x + u, level)
            if self._dual:
                u = u + x - v
            yield x, v, data.misfit(v), level


class DPIR(_Splitting):
    """DPIR: half-quadratic splitting with a denoiser, from strong noise to the measurement's own in a few turns.

    x = argmin_x ½ ‖A x − y‖² + (ρ_k/2) ‖x − v‖²; v = D(x, σ_k); σ_k falls geometrically from 49/255 to σ, ρ_k = λ σ²/σ_k²,
    λ = 0.23; 8 iterations for deblurring, 24 for super-resolution (Zhang et al. 2021, eq. 6-8 and section V), where σ_k ends at
    s/255 for enlargement by s if that is more than σ, as in the released code. The estimate is the last v. Where measured values
    are no pixels σ_k ends at σ/g, g² the mean square of A's columns (1 in compressed sensing).
    Other operators than the paper's have settings of our own. The data step is exact where the operator has a closed form, else
    by conjugate gradients, or 10 subgradient steps in phase retrieval.
    """

    title: ClassVar[str] = "DPIR"
    order: ClassVar[int] = 82
    citation: ClassVar[str] = (
        "K. Zhang, Y. Li, W. Zuo, L. Zhang, L. Van Gool, R. Timofte, Plug-and-Play Image Restoration with Deep Denoiser Prior, "
        "TPAMI 2021"
    )
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = _presets("dpir")

    kind: Literal["dpir"] = "dpir"

    def _least(self, problem: Problem) -> float:
        operator = problem.operator
        return max(super()._least(problem), operator.factor / 255 if isinstance(operator, SuperResolution) else 0.0)


class PnPADMM(_Splitting):
    """Plug-and-play ADMM: data step, denoiser and a dual variable in turns.

    x = argmin_x ½ ‖A x − y‖² + (ρ_k/2) ‖x − (v − u)‖²; v = D(x + u, σ_k); u ← u + x − v (Venkatakrishnan, Bouman & Wohlberg 2013;
    Chan, Wang & Elgendy 2017). σ_k falls geometrically, ρ_k = λ σ²/σ_k² as in DPIR; u is scaled with 1/ρ. The estimate is v.
    MetaDIP (section 4.5) searched strength, penalty and number of iterations for each problem, with 10 subgradient steps as the
    data step of phase retrieval; so do these settings, once for each operator. The data step is exact where it can be.
    """

    title: ClassVar[str] = "PnP-ADMM"
    order: ClassVar[int] = 81
    citation: ClassVar[str] = (
        "S. Venkatakrishnan, C. Bouman, B. Wohlberg, Plug-and-Play Priors for Model Based Reconstruction, 2013"
    )
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = _presets("pnp-admm")
    _dual: ClassVar[bool] = True

    kind: Literal["pnp-admm"] = "pnp-admm"


class RED(PlugAndPlay):
    """Regularisation by denoising: what the denoiser would take away is the gradient of the prior.

    E(x) = ½ ‖A x − y‖² + (ρ/2) xᵀ(x − D(x, σ_f)), ρ = λ σ²/σ_f² (Romano, Elad & Milanfar 2017; λ = 0.21 and σ_f = 3.25 of 255 are
    its deblurring settings in these units). Fixed point: x ← (AᵀA + ρ)⁻¹ (Aᵀ y + ρ D(x)); gradient:
    x ← x − (∇ ½‖A x − y‖² + ρ (x − D(x))) / (‖A‖² + ρ). The objective is E, summed over the picture.
    """

    title: ClassVar[str] = "RED"
    order: ClassVar[int] = 83
    citation: ClassVar[str] = (
        "Y. Romano, M. Elad, P. Milanfar, The Little Engine That Could: Regularization by Denoising, SIAM J. Imaging Sci. 2017"
    )
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = _presets("red")

    tunable: ClassVar[Mapping[str, Grid]] = {
        "strength": (1 / 4, 1 / 2, 2, 4),
        "weight": (1 / 9, 1 / 3, 3, 9),
        "iterations": (1 / 2, 2),
    }

    kind: Literal["red"] = "red"
    iterations: int = setting(50, "Turns of data step and denoiser.", ge=1, le=5000, main=True)
    strength: float = setting(3.25, "σ_f, the noise level that the denoiser is told.", ge=0.2, le=100, unit="of 255", main=True)
    weight: float = setting(0.21, "λ, the weight of the prior.", ge=1e-4, le=1e4, log=True, label="Weight λ")
    form: Literal["fixed point", "gradient"] = setting(
        "fixed point", "Fixed point: the data step is solved at every turn. Gradient: one step of descent, cheaper and slower."
    )

    def _solve(self, problem: Problem, seed: int, prepared: Any) -> Iterator[Step]:
        yield from self._steps(problem, self._pairs(problem), self.iterations)

    def _pairs(self, problem: Problem) -> Iterator[Turn]:
        data, model, y = DataStep(problem), problem.model, problem.measurement
        denoise = denoisers.load(self.denoiser, problem.device)
        level = self.strength / 255
        rho = self.weight * (data.noise / level) ** 2
        length = 1 / (_norm(model) ** 2 + rho) if self.form == "gradient" else math.nan
        x = model.initial(y).detach().clamp(0, 1)
        for iteration in range(self.iterations + 1):
            clean = denoise(x, level)
            half = data.misfit(x) * (y[0].numel() / 2)
            yield clean, x, half + rho / 2 * (x * (x - clean)).flatten(1).sum(dim=1), level
            if iteration == self.iterations:
                return
            x = x - length * (model.gradient(x, y) + rho * (x - clean)) if self.form == "gradient" else data(clean, rho)


def _norm(model: Any) -> float:
    """‖A‖, of the linear part where only that is linear."""
    return float(model.norm() if model.linear else model.linear_norm())
