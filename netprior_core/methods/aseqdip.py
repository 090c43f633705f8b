"""Autoencoding Sequential Deep Image Prior."""

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


class ASeqDIP(Method):
    """aSeqDIP: an untrained autoencoder whose input is replaced by its own output every few steps, so that it denoises in stages.

    For k = 0 … K−1: N steps of Adam on ‖A f(z_k; θ) − y‖² + λ ‖f(z_k; θ) − z_k‖², θ going on from the stage before, then
    z_{k+1} = f(z_k; θ); z_0 = Aᴴ y (the operator's cheap first picture). The estimate is the latest output, no average is taken
    (Alkhouri et al. 2024, algorithm 1). The input has the channels of the image.

    Both terms are divided by the number m of measurements here; Adam does not mind. N = 2, K = 2000, λ = 1 and Adam's 1e-4
    are those of the released denoiser, which uses a U-Net with weights from N(0, 0.02²): "as released". The network here is
    that of DIP, for which 1e-4 is slow: hence our default. z_{k+1} is, as in the released code, the output that the last of
    the N steps was taken from: one evaluation fewer than printed.
    """

    title: ClassVar[str] = "aSeqDIP"
    family: ClassVar[str] = "Untrained"
    order: ClassVar[int] = 17
    citation: ClassVar[str] = (
        "I. Alkhouri, S. Liang, E. Bell, Q. Qu, R. Wang, S. Ravishankar, "
        "Image Reconstruction via Autoencoding Sequential Deep Image Prior, NeurIPS 2024"
    )
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "live": {},
        "as released": {"learning_rate": 1e-4},
    }

    kind: Literal["aseqdip"] = "aseqdip"
    iterations: int = setting(2000, "How often the input is replaced, K.", ge=1, le=50_000, main=True, log=True, label="Stages")
    inner: int = setting(2, "Steps of Adam between replacements, N.", ge=1, le=1000, label="Steps in a stage")
    learning_rate: float = setting(1e-3, "Step size of Adam.", ge=1e-6, le=1.0, main=True, log=True)
    autoencoding: float = setting(1.0, "Weight λ of the distance between the network's output and input.", ge=0, le=100, main=True)
    channels: int = setting(128, "Channels of every scale, down and up.", ge=4, le=256, label="Width")
    skip_channels: int = setting(4, "Channels of the skip branch of every scale.", ge=0, le=256)
    scales: int = setting(5, "Halvings of the image inside the network (fewer on small images).", ge=1, le=7)
    precision: Precision = precision_setting()

    def suited(self, operator: Any) -> ASeqDIP:
        return self  # the paper has the same settings for all its tasks

    def _solve(self, problem: Problem, seed: int, prepared: Any) -> Iterator[Step]:
        compute = choose(self.precision, problem.device)
        channels, height, width = problem.shape
        scales = scales_for(height, width, self.scales)

        def build() -> Skip:
            return Skip(channels, inputs=channels, channels=self.channels, skip=self.skip_channels, scales=scales)

        network = compute.module(seeded(build, seed))
        adam = torch.optim.Adam(network.parameters(), lr=self.learning_rate, fused=True)
        z = problem.model.initial(problem.measurement).detach().float()
        total = self.iterations * self.inner
        for iteration in range(1, total + 1):
            image = network(compute.activations(z))
            loss = squares(problem.model.forward(image) - problem.measurement).mean()
            if self.autoencoding:
                loss = loss + self.autoencoding / problem.model.m * (image - z).square().sum()
            if due(iteration, total):
                finite(loss, self.title, iteration)
            adam.zero_grad(set_to_none=True)
            loss.backward()
            adam.step()
            output = image.detach()
            if iteration % self.inner == 0:
                z = output
            step = Step(iteration, total, "solve", output, output, loss.detach()[None])
            yield step
        yield replace(step, stage="result", info={"returns": total})
