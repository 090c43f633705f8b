"""Self-Guided Deep Image Prior."""

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


class SelfGuidedDIP(Method):
    """Self-Guided DIP: the network's input is learned too, and becomes a reference image that the network has to denoise.

    min over θ and z of ‖A E_η[f(z + η; θ)] − y‖² + α ‖E_η[f(z + η; θ)] − z‖² (Liang et al. 2024, the self-guided objective), E_η a
    mean over fresh draws of Gaussian η at each iteration, evaluated as one batch; Adam on θ and on z. z starts as Aᴴ y (the
    operator's cheap first picture) or at random and has the channels of the image. The estimate is the running average of
    E_η[f], x̄ ← a x̄ + (1 − a) E_η[f].

    The released MRI demonstration has Adam 3e-4 for a U-Net and 0.1 for z, z from U[0, 1], α = 2, and 1-norms in place of the
    squares. Here squares as printed, divided by the number m of measurements, and the network of DIP. The size and number of
    the draws η could not be checked: they are ours, relative to the largest value of z, as is the step size of z.
    BatchNorm is over the batch of draws.
    """

    title: ClassVar[str] = "Self-guided DIP"
    family: ClassVar[str] = "Untrained"
    order: ClassVar[int] = 16
    citation: ClassVar[str] = (
        "S. Liang, E. Bell, Q. Qu, R. Wang, S. Ravishankar, "
        "Analysis of Deep Image Prior and Exploiting Self-Guidance for Image Reconstruction, 2024 (IEEE TCI 2025)"
    )
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "live": {},
        "rates as released": {"learning_rate": 3e-4, "input_learning_rate": 0.1, "start": "random", "iterations": 4000},
    }

    kind: Literal["self-guided-dip"] = "self-guided-dip"
    iterations: int = setting(2000, "Stop after so many steps of Adam.", ge=1, le=50_000, main=True, log=True)
    guidance: float = setting(
        2.0, "Weight α of the distance between the network's mean output and its input.", ge=0, le=100, main=True
    )
    learning_rate: float = setting(3e-3, "Step size of Adam on the weights.", ge=1e-6, le=1.0, main=True, log=True)
    input_learning_rate: float = setting(0.01, "Step size of Adam on the input z.", ge=0, le=1.0)
    draws: int = setting(4, "Draws of the noise η at each iteration; each costs a pass through the network.", ge=1, le=32)
    noise: float = setting(
        0.1, "Standard deviation of η, as a share of the largest value of z.", ge=0, le=2, label="Noise on the input"
    )
    start: Literal["adjoint", "random"] = setting("adjoint", "What z starts as: the operator's first picture, or U[0, 1].")
    averaging: float = setting(
        0.99, "Weight of the past in the average of outputs that is returned; 0 returns the mean of the draws.", ge=0, le=0.9999
    )
    channels: int = setting(128, "Channels of every scale, down and up.", ge=4, le=256, label="Width")
    skip_channels: int = setting(4, "Channels of the skip branch of every scale.", ge=0, le=256)
    scales: int = setting(5, "Halvings of the image inside the network (fewer on small images).", ge=1, le=7)
    precision: Precision = precision_setting()

    def suited(self, operator: Any) -> SelfGuidedDIP:
        return self

    def _solve(self, problem: Problem, seed: int, prepared: Any) -> Iterator[Step]:
        compute = choose(self.precision, problem.device)
        channels, height, width = problem.shape
        generator = torch.Generator().manual_seed(seed)
        scales = scales_for(height, width, self.scales)

        def build() -> Skip:
            return Skip(channels, inputs=channels, channels=self.channels, skip=self.skip_channels, scales=scales)

        network = compute.module(seeded(build, generator))
        if self.start == "random":
            z = torch.rand((1, channels, height, width), generator=generator).to(problem.device)
        else:
            z = problem.model.initial(problem.measurement).detach().float().clone()
        z.requires_grad_()
        groups: list[dict[str, Any]] = [{"params": list(network.parameters())}, {"params": [z], "lr": self.input_learning_rate}]
        adam = torch.optim.Adam(groups, lr=self.learning_rate, fused=True)
        noise = torch.empty((self.draws, channels, height, width))
        average: torch.Tensor | None = None
        for iteration in range(1, self.iterations + 1):
            eta = noise.normal_(generator=generator).to(problem.device) * (self.noise * z.detach().abs().max())
            image = network(compute.activations(z + eta)).mean(dim=0, keepdim=True)
            loss = squares(problem.model.forward(image) - problem.measurement).mean()
            if self.guidance:
                loss = loss + self.guidance / problem.model.m * (image - z).square().sum()
            if due(iteration, self.iterations):
                finite(loss, self.title, iteration)
            adam.zero_grad(set_to_none=True)
            loss.backward()
            adam.step()
            output = image.detach()
            average = output.clone() if average is None else average.lerp_(output, 1 - self.averaging)
            estimate = average if self.averaging else output
            step = Step(iteration, self.iterations, "solve", output, estimate, loss.detach()[None])
            yield step
        yield replace(step, stage="result", info={"returns": self.iterations})
