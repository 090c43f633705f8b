"""Deep Image Prior's noise impedance: how fast an untrained network fits images, and how slowly it fits noise."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, ClassVar, Literal

import torch

from netprior_core.methods._common import partial
from netprior_core.methods.dip import DeepImagePrior
from netprior_core.problem import Problem, Step
from netprior_core.settings import setting

NOISE = 25 / 255

Target = Literal["the image", "the image with noise", "its pixels shuffled", "pure noise"]


class NoiseImpedance(DeepImagePrior):
    """Noise impedance: fit one and the same untrained network to an image, that image with noise, its pixels shuffled, or noise.

    min over θ of (1/n) ‖f(z; θ) − t‖² for a target t made from the picture y: y itself, y + N(0, (25/255)²), a random
    permutation of its pixels, or U[0, 1] noise. The network offers little resistance to what looks like an image and much to
    what does not: its loss falls far faster for the first. Ulyanov, Vedaldi & Lempitsky 2018, figure 2. Compare the objectives, on
    a logarithmic axis; there is nothing to reconstruct here.
    """

    title: ClassVar[str] = "Noise impedance"
    family: ClassVar[str] = "Demonstration"
    order: ClassVar[int] = 95
    compare: ClassVar[str] = "objective"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}

    kind: Literal["noise-impedance"] = "noise-impedance"  # type: ignore[assignment]
    target: Target = setting("the image", "What the network is fitted to.", main=True)
    iterations: int = setting(2000, "Steps of Adam.", ge=1, le=50_000, main=True, log=True)
    jitter: float = setting(0.0, "Standard deviation of the noise added to the network's input at each iteration.", ge=0, le=1)
    averaging: float = setting(0.0, "Weight of the past in the average that is shown; 0 shows the raw output.", ge=0, le=0.9999)

    def label(self) -> str:
        return f"Fits {self.target}"

    def accepts(self, problem: Problem) -> str | None:
        if problem.operator.kind != "denoising":
            return f"{self.title} fits the measured picture itself: choose denoising, without noise."
        return super().accepts(problem) or partial(problem, self.title)

    def suited(self, operator: Any) -> NoiseImpedance:
        return self

    def _solve(self, problem: Problem, seed: int, prepared: Any) -> Iterator[Step]:
        made = replace(problem, measurement=self.target_of(problem.measurement, torch.Generator().manual_seed(seed + 1)))
        yield from super()._solve(made, seed, prepared)

    def target_of(self, y: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """What is fitted in place of the picture ``y`` ``(1, C, H, W)``."""
        if self.target == "the image with noise":
            return y + NOISE * torch.randn(y.shape, generator=generator).to(y)
        if self.target == "its pixels shuffled":
            order = torch.randperm(y.shape[2] * y.shape[3], generator=generator).to(y.device)
            return y.flatten(2)[:, :, order].view_as(y)
        if self.target == "pure noise":
            return torch.rand(y.shape, generator=generator).to(y)
        return y
