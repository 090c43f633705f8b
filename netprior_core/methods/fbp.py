"""Filtered back-projection, and what a denoiser makes of it."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Literal

import torch

from netprior_core import denoisers
from netprior_core.methods import _classical
from netprior_core.methods._tunable import Grid, Tunable
from netprior_core.operators import _radon
from netprior_core.operators.tomography import TomographyModel
from netprior_core.problem import Problem, Step
from netprior_core.settings import setting


class FilteredBackProjection(Tunable):
    """Filtered back-projection: sharpen every shadow, smear all of them back. With a denoiser: clean the picture once.

    x = Δθ Σ_θ (h ∗ y_θ) (Kak & Slaney 1988, section 3.3), the operator's own first picture with a filter of choice. A denoiser is
    then told the noise of *that picture*: the filter makes noise of the shadows into noise of the picture, whose standard deviation
    is found by back-projecting a draw of pure noise, times ``strength``. That noise is not white, and streaks of missing views are
    no noise at all: a factor above 1 removes more of both.
    """

    title: ClassVar[str] = "Filtered back-projection"
    family: ClassVar[str] = _classical.FAMILY
    order: ClassVar[int] = 65
    citation: ClassVar[str] = "A. Kak, M. Slaney, Principles of Computerized Tomographic Imaging, IEEE Press 1988"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "plain": {},
        "with total variation": {"denoiser": "tv"},
        "with BM3D": {"denoiser": "bm3d"},
        "with the small DRUNet": {"denoiser": "neural"},
    }

    tunable: ClassVar[Mapping[str, Grid]] = {
        "filter": ("operator", "ramp", "shepp-logan", "cosine", "hamming", "hann"),
        "strength": (1 / 4, 1 / 2, 2, 4),
    }

    kind: Literal["fbp"] = "fbp"
    filter: Literal["operator", "ramp", "shepp-logan", "cosine", "hamming", "hann"] = setting(
        "operator", "Operator: the one set there. Down the list they damp noise, and fine detail, more.", main=True
    )
    denoiser: Literal["none", "tv", "bm3d", "neural", "drunet"] = setting(
        "none", "What cleans the picture afterwards.", main=True, widget="denoiser"
    )
    strength: float = setting(
        1.0, "σ the denoiser is told, over that of the noise in the picture.", ge=0.05, le=20, unit="× σ", main=True
    )

    def label(self) -> str:
        return "FBP" if self.denoiser == "none" else f"FBP + {denoisers.get(self.denoiser).title}"

    def accepts(self, problem: Problem) -> str | None:
        if problem.operator.kind != "tomography":
            return f"{self.title} is for computed tomography only."
        if not isinstance(problem.model, TomographyModel):
            return f"{self.title} needs the whole sinogram, and some of it is held out: switch held-out measurements off."
        missing = None if self.denoiser == "none" else denoisers.reason(self.denoiser, problem.shape[0])
        return f"{self.label()}: {missing}" if missing else super().accepts(problem)

    def searched(self) -> dict[str, Grid]:
        found = super().searched()
        return {name: grid for name, grid in found.items() if name != "strength" or self.denoiser != "none"}

    def _solve(self, problem: Problem, seed: int, prepared: Any) -> Iterator[Step]:
        _classical.finite_measurement(problem, self.title)
        assert isinstance(problem.model, TomographyModel)
        model = copy.copy(problem.model)
        if self.filter != "operator":
            model._response = _radon.ramp(model.measurement_shape[2], self.filter).to(model.device, model.dtype)
        x = model.initial(problem.measurement)
        if self.denoiser == "none":
            yield from _classical.at_once(self, problem, x)
            return
        sigma = self.strength * self._noise(problem, model)
        denoise = denoisers.load(self.denoiser, problem.device)
        yield from _classical.at_once(self, problem, denoise(x, sigma), note=f"σ = {255 * sigma:.1f} of 255 in the picture")

    def _noise(self, problem: Problem, model: TomographyModel) -> float:
        """σ of the noise in the picture, at least half an 8-bit level; five levels where the measurement's is not known."""
        if problem.noise_std is None:
            return _classical.UNKNOWN_NOISE
        draw = torch.randn((1, *model.measurement_shape), generator=torch.Generator().manual_seed(0)).to(problem.measurement)
        return max(float(model.initial(draw * problem.noise_std).std()), _classical.LEAST_NOISE)
