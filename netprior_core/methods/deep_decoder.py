"""Deep Decoder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, ClassVar, Literal

import torch
from torch.func import functional_call

from netprior_core.compute import Compute, Precision, choose, precision_setting
from netprior_core.methods._common import due, finite, squares
from netprior_core.methods.base import Method
from netprior_core.networks.deep_decoder import DeepDecoder, sizes_for
from netprior_core.networks.seeded import seeded
from netprior_core.problem import Problem, Step
from netprior_core.settings import setting

#: A network replaces the one kept only where its loss is that much smaller.
BETTER_BY = 1.005
#: The jitter shrinks by this factor, at the first iteration and then every ``jitter_decay`` iterations.
JITTER_FACTOR = 0.7


class UntrainedDeepDecoder(Method):
    """Deep Decoder: an untrained network with fewer weights than the image has pixels, so that it can fit little noise.

    min over C of (1/m) ‖A G(z; C) − y‖², z ~ U[0, 0.1] fixed, at a 32nd of the image's size, Adam. G has 1×1 convolutions,
    bilinear upsampling, rectifiers, channel normalisation and a sigmoid. The estimate is the output of least loss so far; another
    takes its place only where its loss is at least 0.5% smaller, which leaves out the last steps of fitting noise.

    Settings as in the paper and the released notebooks. "compressed sensing" is the over-parameterised variant of Heckel and
    Soltanolkotabi (2020): more weights than measurements, a 16×16 input, unequal factors, no layer without upsampling.
    The released code multiplies the jitter by 0.7 before the first iteration (0.015 means 0.0105); so is it done here. With jitter
    the estimate is drawn without it from the weights kept, every ten iterations. On small images there are fewer upsamplings,
    so that the input keeps 4×4 pixels. The released code keeps the weights *after* the step whose loss was least; here the ones
    that had this loss. There is no start to choose: no weights were learned for this network.
    """

    title: ClassVar[str] = "Deep Decoder"
    family: ClassVar[str] = "Untrained"
    order: ClassVar[int] = 12
    citation: ClassVar[str] = (
        "R. Heckel, P. Hand, Deep Decoder: Concise Image Representations from Untrained Non-convolutional Networks, ICLR 2019; "
        "R. Heckel, M. Soltanolkotabi, Compressive Sensing with Un-trained Neural Networks: Gradient Descent Finds the Smoothest "
        "Approximation, ICML 2020"
    )
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "as published, denoising": {},
        "k = 64": {"channels": 64},
        "k = 32": {"channels": 32},
        "denoising, 10,000 iterations": {"iterations": 10_000, "jitter": 0.015},
        "inpainting": {
            "channels": 256,
            "learning_rate": 0.0025,
            "iterations": 40_000,
            "jitter": 0.005,
            "jitter_decay": 500,
        },
        "over-parameterised, compressed sensing": {
            "channels": 256,
            "learning_rate": 0.005,
            "iterations": 100_000,
            "start": "16×16",
            "plain_layer": False,
            "keep_best": False,
        },
    }

    kind: Literal["deep-decoder"] = "deep-decoder"
    iterations: int = setting(1900, "Stop after so many steps of Adam.", ge=1, le=100_000, main=True, log=True)
    learning_rate: float = setting(0.01, "Step size of Adam.", ge=1e-6, le=1.0, main=True, log=True)
    channels: int = setting(128, "Channels k of every layer: the size of the network.", ge=2, le=512, label="Width k", main=True)
    layers: int = setting(5, "Layers with upsampling (fewer on small images).", ge=1, le=8)
    plain_layer: bool = setting(True, "One more layer, without upsampling, after those.")
    start: Literal["doubling", "16×16"] = setting(
        "doubling",
        "Size of the random input. doubling: so that every layer doubles it. 16×16: equal factors from there up to the image.",
    )
    keep_best: bool = setting(True, "Return the output of least loss (by 0.5% at least), not the last.")
    jitter: float = setting(0.0, "Standard deviation of the noise added to the input at each iteration, times 0.7.", ge=0, le=1)
    jitter_decay: int = setting(100_000, "The jitter is multiplied by 0.7 every so many iterations.", ge=1, le=100_000, log=True)
    precision: Precision = precision_setting()

    def suited(self, operator: Any) -> UntrainedDeepDecoder:
        if operator.kind == "inpainting":
            return type(self).preset("inpainting", precision=self.precision)
        if operator.kind == "compressed-sensing":
            return type(self).preset("over-parameterised, compressed sensing", precision=self.precision)
        changes = {"channels": self.channels} if self.channels in (32, 64) else {}
        return type(self)(precision=self.precision, **changes)

    def _solve(self, problem: Problem, seed: int, prepared: Any) -> Iterator[Step]:
        compute = choose(self.precision, problem.device)
        channels, height, width = problem.shape
        generator = torch.Generator().manual_seed(seed)
        sizes = sizes_for(height, width, self.layers, 16 if self.start == "16×16" else 0)

        def build() -> DeepDecoder:
            return DeepDecoder(channels, sizes, channels=self.channels, plain=self.plain_layer)

        network = compute.module(seeded(build, generator))
        z = torch.rand((1, self.channels, *sizes[0]), generator=generator) * 0.1
        steady = compute.activations(z)
        adam = torch.optim.Adam(network.parameters(), lr=self.learning_rate, fused=True)
        kept = _Kept(network, steady, self.keep_best, by_weights=bool(self.jitter))
        for iteration in range(1, self.iterations + 1):
            image = network(self._jittered(z, iteration, generator, compute) if self.jitter else steady)
            loss = squares(problem.model.forward(image) - problem.measurement).mean()
            reading = due(iteration, self.iterations)
            if reading:
                finite(loss, self.title, iteration)
            kept.add(iteration, image.detach(), loss.detach(), draw=reading)
            adam.zero_grad(set_to_none=True)
            loss.backward()
            adam.step()
            step = Step(iteration, self.iterations, "solve", image.detach(), kept.estimate, loss.detach()[None])
            yield step
        yield replace(step, stage="result", info={"returns": int(kept.iteration)})

    def _jittered(self, z: torch.Tensor, iteration: int, generator: torch.Generator, compute: Compute) -> torch.Tensor:
        std = self.jitter * JITTER_FACTOR ** (1 + (iteration - 1) // self.jitter_decay)
        return compute.activations(z + std * torch.randn(z.shape, generator=generator))


class _Kept:
    """What would be returned now: of the iterates so far the one of least loss, all decided on the device without reading a number.

    Its output; or, ``by_weights``, what its weights draw from the steady input, as often as ``add`` is asked to draw.
    """

    def __init__(self, network: torch.nn.Module, steady: torch.Tensor, best: bool, by_weights: bool) -> None:
        self.network, self.steady, self.best = network, steady, best
        self.loss = torch.full((), float("inf"), device=steady.device)
        self.iteration = torch.zeros((), dtype=torch.long, device=steady.device)
        self.weights = {name: p.detach().clone() for name, p in network.named_parameters()} if by_weights else None
        self.estimate: torch.Tensor | None = None

    @torch.no_grad()
    def add(self, iteration: int, output: torch.Tensor, loss: torch.Tensor, *, draw: bool) -> None:
        """Keep this iterate if it is better; ``loss`` is a scalar on the device."""
        better = loss * BETTER_BY < self.loss if self.best else torch.ones_like(loss, dtype=torch.bool)
        self.loss = torch.where(better, loss, self.loss)
        self.iteration = torch.where(better, iteration, self.iteration)
        if self.weights is None:
            self.estimate = output if self.estimate is None else torch.where(better, output, self.estimate)
            return
        for name, p in self.network.named_parameters():
            torch.where(better, p, self.weights[name], out=self.weights[name])
        if draw or self.estimate is None:
            self.estimate = functional_call(self.network, self.weights, (self.steady,))
