"""Deep Image Prior with total variation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, ClassVar, Literal

import torch

from netprior_core.compute import Precision, choose, precision_setting
from netprior_core.methods._common import due, finite, squares
from netprior_core.methods.base import Method
from netprior_core.networks.seeded import seeded
from netprior_core.networks.skip import Skip, scales_for
from netprior_core.problem import Problem, Step
from netprior_core.settings import setting

#: Half-quadratic splitting doubles its penalty this often over a run.
DOUBLINGS = 4

Mode = Literal["gradient", "half-quadratic splitting", "ADMM"]


class DIPTV(Method):
    """DIP + TV: a Deep Image Prior that also pays for every jump in its output.

    min over θ of ‖A f(z; θ) − y‖² + λ TV(f(z; θ)), z ~ U[0, 0.1] fixed with fresh jitter at each iteration, Adam; sums over
    measurements and pixels, colour channels one by one. TV is Σ |∂x f| + |∂y f| (anisotropic, as in the code of Otero Baguer et
    al.) or Σ √((∂x f)² + (∂y f)²) (isotropic).

    gradient: Adam on the whole, TV by its subgradient (Liu et al. 2019; Otero Baguer et al. 2020, DIP + TV).
    half-quadratic splitting: u stands for ∇f; Adam on ‖A f − y‖² + (β/2) ‖∇f − u‖², and every few steps u = shrink(∇f, λ/β), the
    exact minimiser over u; β doubles four times until it is ``penalty`` (Geman & Yang 1995; Wang, Yang, Yin & Zhang 2008).
    ADMM: the same with the multiplier b, u = shrink(∇f + b, λ/β), b ← b + ∇f − u, and a fixed β (Cascarano et al. 2021).

    The objective shown is that of the first line whatever the mode. Network and optimiser are those of DIP. λ is ours (the
    papers tune it for each task; their values could not be checked): a 64×64 colour crop with σ = 25 and a width of 32 ended
    at 25.94 dB with 0.02, at 25.67 with 0.05 and at 25.51 without TV after 1200 iterations. u is updated at every step: between
    updates u holds ∇f at its own past; ten steps in between cost 0.4 to 1 dB after 800 iterations (width 16).

    There is no start to choose: no weights were learned for this network, which is DIP's.
    """

    title: ClassVar[str] = "DIP + TV"
    family: ClassVar[str] = "Untrained"
    order: ClassVar[int] = 15
    citation: ClassVar[str] = (
        "J. Liu, Y. Sun, X. Xu, U. Kamilov, Image Restoration using Total Variation Regularized Deep Image Prior, ICASSP 2019; "
        "D. Otero Baguer, J. Leuschner, M. Schmidt, Computed Tomography Reconstruction using Deep Image Prior and Learned "
        "Reconstruction Methods, 2020"
    )
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "gradient": {},
        "half-quadratic splitting": {"mode": "half-quadratic splitting"},
        "ADMM": {"mode": "ADMM"},
    }

    kind: Literal["dip-tv"] = "dip-tv"
    iterations: int = setting(3000, "Stop after so many steps of Adam.", ge=1, le=50_000, main=True, log=True)
    tv_weight: float = setting(0.02, "Weight λ of the total variation.", ge=0, le=100, label="TV weight", main=True)
    mode: Mode = setting("gradient", "How the total variation is minimised.", main=True)
    variation: Literal["anisotropic", "isotropic"] = setting(
        "anisotropic", "Anisotropic: jumps along rows and columns count apart. Isotropic: as one length."
    )
    penalty: float = setting(1.0, "Penalty β of splitting: how closely ∇f must follow u (at the end).", ge=1e-4, le=1e4, log=True)
    inner: int = setting(1, "Steps of Adam between updates of u.", ge=1, le=1000, label="Steps before each shrinkage")
    learning_rate: float = setting(0.01, "Step size of Adam.", ge=1e-6, le=1.0, log=True)
    jitter: float = setting(1 / 30, "Standard deviation of the noise added to the network's input at each iteration.", ge=0, le=1)
    averaging: float = setting(
        0.99, "Weight of the past in the average of outputs that is returned; 0 returns the raw output.", ge=0, le=0.9999
    )
    channels: int = setting(128, "Channels of every scale, down and up.", ge=4, le=256, label="Width")
    skip_channels: int = setting(4, "Channels of the skip branch of every scale.", ge=0, le=256)
    scales: int = setting(5, "Halvings of the image inside the network (fewer on small images).", ge=1, le=7)
    input_channels: int = setting(32, "Channels of the fixed random input z.", ge=1, le=128)
    precision: Precision = precision_setting()

    def suited(self, operator: Any) -> DIPTV:
        return self

    def _solve(self, problem: Problem, seed: int, prepared: Any) -> Iterator[Step]:
        compute = choose(self.precision, problem.device)
        channels, height, width = problem.shape
        generator = torch.Generator().manual_seed(seed)
        scales = scales_for(height, width, self.scales)

        def build() -> Skip:
            return Skip(channels, inputs=self.input_channels, channels=self.channels, skip=self.skip_channels, scales=scales)

        network = compute.module(seeded(build, generator))
        z = torch.rand((1, self.input_channels, height, width), generator=generator) * 0.1
        noise = torch.empty_like(z)
        adam = torch.optim.Adam(network.parameters(), lr=self.learning_rate, fused=True)
        isotropic, m = self.variation == "isotropic", problem.model.m
        split = None if self.mode == "gradient" else _Split(self, problem)
        average: torch.Tensor | None = None
        for iteration in range(1, self.iterations + 1):
            jittered = z + noise.normal_(0.0, self.jitter, generator=generator) if self.jitter else z
            image = network(compute.activations(jittered))
            misfit = squares(problem.model.forward(image) - problem.measurement).mean()
            jumps = gradient(image)
            objective = misfit + self.tv_weight / m * total_variation(jumps, isotropic)
            if due(iteration, self.iterations):
                finite(objective, self.title, iteration)
            loss = objective if split is None else misfit + split.pull(jumps, iteration) / m
            adam.zero_grad(set_to_none=True)
            loss.backward()
            adam.step()
            output = image.detach()
            average = output.clone() if average is None else average.lerp_(output, 1 - self.averaging)
            estimate = average if self.averaging else output
            phase = "" if split is None else f"β = {split.penalty:.3g}"
            step = Step(iteration, self.iterations, "solve", output, estimate, objective.detach()[None], phase)
            yield step
        yield replace(step, stage="result", info={"returns": self.iterations})


class _Split:
    """The auxiliary u for ∇f, its multiplier b (0 in half-quadratic splitting) and the penalty β."""

    def __init__(self, settings: DIPTV, problem: Problem) -> None:
        self.settings = settings
        self.isotropic = settings.variation == "isotropic"
        self.penalty = 0.0
        self.target = torch.zeros((2, 1, *problem.shape), device=problem.device)  # u − b
        self.multiplier = torch.zeros_like(self.target)

    def pull(self, jumps: torch.Tensor, iteration: int) -> torch.Tensor:
        """(β/2) ‖∇f − u + b‖², after u, b and β were brought up to date where it is their turn."""
        options = self.settings
        admm = options.mode == "ADMM"
        stage = min((iteration - 1) * (DOUBLINGS + 1) // options.iterations, DOUBLINGS)
        self.penalty = options.penalty if admm else options.penalty / 2 ** (DOUBLINGS - stage)
        if (iteration - 1) % options.inner == 0:
            now = jumps.detach()
            wanted = now + self.multiplier
            u = shrink(wanted, options.tv_weight / self.penalty, self.isotropic)
            if admm and iteration > 1:  # the first ∇f belongs to random weights
                self.multiplier = wanted - u
            self.target = u - self.multiplier
        return self.penalty / 2 * (jumps - self.target).square().sum()


def gradient(x: torch.Tensor) -> torch.Tensor:
    """Forward differences ``(2, B, C, H, W)`` of ``(B, C, H, W)`` down and across, 0 at the far border."""
    down, across = torch.zeros_like(x), torch.zeros_like(x)
    down[..., :-1, :] = x[..., 1:, :] - x[..., :-1, :]
    across[..., :, :-1] = x[..., :, 1:] - x[..., :, :-1]
    return torch.stack([down, across])


def total_variation(jumps: torch.Tensor, isotropic: bool) -> torch.Tensor:
    """TV, summed, from the :func:`gradient`; isotropic lengths are √(· + 1e-12), so that flat places have a gradient."""
    return (jumps.square().sum(dim=0) + 1e-12).sqrt().sum() if isotropic else jumps.abs().sum()


def shrink(jumps: torch.Tensor, threshold: float, isotropic: bool) -> torch.Tensor:
    """argmin over u of threshold · TV(u) + ½ ‖u − jumps‖²: soft thresholding of each value, or of each pixel's length."""
    if not isotropic:
        return jumps.sign() * (jumps.abs() - threshold).clamp_min(0)
    length = jumps.square().sum(dim=0, keepdim=True).sqrt()
    return jumps * (1 - threshold / length.clamp_min(1e-12)).clamp_min(0)
