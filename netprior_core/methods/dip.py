"""Deep Image Prior."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal

import torch

from netprior_core.compute import Precision, choose, precision_setting
from netprior_core.methods._common import due, finite, squares
from netprior_core.methods.base import Method
from netprior_core.muon import Muon
from netprior_core.networks.seeded import seeded
from netprior_core.networks.skip import Skip, scales_for
from netprior_core.problem import Problem, Step
from netprior_core.settings import setting

#: Muon's rate for kernels of 128 channels, as a multiple of Adam's for biases and scales.
KERNELS = 0.5
#: A rollback to the same weights is tried so often before a worse fit is accepted, so that no run can hang on it.
MOST_ROLLBACKS = 5


class DeepImagePrior(Method):
    """Deep Image Prior: fit an untrained convolutional network to the one measurement, and stop before it fits the noise.

    min over θ of (1/m) ‖A f(z + ε_t; θ) − y‖², with z ~ U[0, 0.1] fixed, fresh jitter ε_t ~ N(0, s²) at each iteration, Adam;
    the estimate is the running average x̄ ← a x̄ + (1 − a) f of the outputs. Where the fit to y suddenly drops by more than
    5 dB the last good weights are restored, as the released denoiser does (checked every ten iterations here, to leave the device
    undisturbed). On small images the network has fewer scales, so that its deepest map keeps 4×4 pixels.

    Settings as in the paper's section 3 and the released notebooks; the paper has none for compressed sensing and colorization:
    there the settings are those of the vanilla baseline of MetaDIP (1000 iterations with jitter and averaging).

    "Orthogonalised steps" are ours: each kernel moves along the orthogonalised momentum (Muon, Jordan et al. 2024), so that weak
    directions, which draw fine detail, move as far as strong ones; biases and scales have Adam; all step sizes fade to 0 by the
    last iteration. 150 of them against 1000 averaged iterations of Adam, a face / a natural patch at 128×128: denoising σ = 25
    +0.8 / +1.2 dB, compressed sensing at 1/8 −0.6 / −0.4 dB. With an average over 10 steps instead of 33 it is 0.4 to 0.7 dB less.
    100 steps do for σ = 25, where 200 fit the noise of smooth faces; detailed pictures and weaker noise want more.

    There is no "start from": a learned start is one of a certain network, and none was learned for this one. The methods that
    have one (MetaDIP, Educated DIP, low-shot, CS-DIP) show the same run without it.
    """

    title: ClassVar[str] = "DIP"
    family: ClassVar[str] = "Untrained"
    order: ClassVar[int] = 10
    citation: ClassVar[str] = "D. Ulyanov, A. Vedaldi, V. Lempitsky, Deep Image Prior, CVPR 2018"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "denoising": {},
        "denoising, σ = 50": {"jitter": 1 / 20},
        "super-resolution ×4": {"iterations": 2000, "jitter": 0.03, "averaging": 0.0, "rollback": False},
        "super-resolution ×8": {"iterations": 4000, "jitter": 0.05, "averaging": 0.0, "rollback": False},
        "inpainting": {
            "iterations": 6001,
            "jitter": 0.03,
            "averaging": 0.0,
            "rollback": False,
            "skip_channels": 128,
            "upsampling": "nearest",
        },
        "inpainting, 50% random pixels": {
            "iterations": 11000,
            "learning_rate": 0.001,
            "jitter": 0.03,
            "averaging": 0.0,
            "rollback": False,
        },
        "1000 iterations": {"iterations": 1000},
        "50 iterations": {"iterations": 50},
        "50 iterations, not averaged": {"iterations": 50, "averaging": 0.0},
        "orthogonalised steps (ours)": {"optimiser": "Muon", "iterations": 150, "averaging": 0.97},
    }

    kind: Literal["dip"] = "dip"
    iterations: int = setting(3000, "Stop after so many steps.", ge=1, le=50_000, main=True, log=True)
    learning_rate: float = setting(0.01, "Step size.", ge=1e-6, le=1.0, main=True, log=True)
    optimiser: Literal["Adam", "Muon"] = setting(
        "Adam",
        "Adam: as published. Muon: kernels move along orthogonalised momenta, and step sizes fade to 0 by the last iteration.",
    )
    jitter: float = setting(1 / 30, "Standard deviation of the noise added to the network's input at each iteration.", ge=0, le=1)
    averaging: float = setting(
        0.99, "Weight of the past in the average of outputs that is returned; 0 returns the raw output.", ge=0, le=0.9999, main=True
    )
    rollback: bool = setting(True, "Restore the last good weights when the fit suddenly drops by more than 5 dB.")
    channels: int = setting(128, "Channels of every scale, down and up.", ge=4, le=256, label="Width")
    skip_channels: int = setting(4, "Channels of the skip branch of every scale.", ge=0, le=256)
    scales: int = setting(5, "Halvings of the image inside the network (fewer on small images).", ge=1, le=7)
    upsampling: Literal["bilinear", "nearest"] = setting("bilinear", "How feature maps are enlarged on the way up.")
    input_channels: int = setting(32, "Channels of the fixed random input z.", ge=1, le=128)
    precision: Precision = precision_setting()

    def suited(self, operator: Any) -> DeepImagePrior:
        name = "1000 iterations"
        if operator.kind == "denoising":
            name = "denoising"
        elif operator.kind == "super-resolution":
            name = "super-resolution ×8" if operator.factor >= 8 else "super-resolution ×4"
        elif operator.kind == "inpainting":
            name = "inpainting, 50% random pixels" if getattr(operator, "pattern", "") == "random" else "inpainting"
        return type(self).preset(name, precision=self.precision)

    def _solve(self, problem: Problem, seed: int, prepared: Any) -> Iterator[Step]:
        compute = choose(self.precision, problem.device)
        channels, height, width = problem.shape
        generator = torch.Generator().manual_seed(seed)
        scales = scales_for(height, width, self.scales)
        network = compute.module(seeded(lambda: self._network(channels, scales), generator))
        z = torch.rand((1, self.input_channels, height, width), generator=generator) * 0.1
        parameters = list(network.parameters())
        move = self._moves(parameters)
        guard = _Rollback(parameters) if self.rollback else None
        noise = torch.empty_like(z)
        average: torch.Tensor | None = None
        for iteration in range(1, self.iterations + 1):
            jittered = z + noise.normal_(0.0, self.jitter, generator=generator) if self.jitter else z
            image = network(compute.activations(jittered))
            loss = squares(problem.model.forward(image) - problem.measurement).mean()
            good = True
            if due(iteration, self.iterations):
                value = finite(loss, self.title, iteration)
                good = guard is None or not guard.restored(value)
            if good:  # else this gradient belongs to weights that are gone
                network.zero_grad(set_to_none=True)
                loss.backward()
                move(1 - (iteration - 1) / self.iterations)
            output = image.detach()
            average = output.clone() if average is None else average.lerp_(output, 1 - self.averaging)
            estimate = average if self.averaging else output
            step = Step(iteration, self.iterations, "solve", output, estimate, loss.detach()[None])
            yield step
        yield replace(step, stage="result", info={"returns": self.iterations})

    def _moves(self, parameters: Sequence[torch.Tensor]) -> Callable[[float], object]:
        """What moves the weights along their gradients, told the share of the run that is left."""
        if self.optimiser == "Muon":
            wide = (128 / self.channels) ** 0.5  # so that a step's norm, as a share of a kernel's, is the same at every width
            return Muon(parameters, KERNELS * wide * self.learning_rate, other_rate=self.learning_rate).step
        adam = torch.optim.Adam(parameters, lr=self.learning_rate, fused=True)
        return lambda left: adam.step()

    def _network(self, outputs: int, scales: int) -> Skip:
        return Skip(
            outputs,
            inputs=self.input_channels,
            channels=self.channels,
            skip=self.skip_channels,
            scales=scales,
            upsampling=self.upsampling,
        )


class _Rollback:
    """Remembers the last good weights; restores them when the fit −10 log10(loss) drops by more than 5 dB between two readings."""

    def __init__(self, parameters: Sequence[torch.Tensor]) -> None:
        self.parameters = list(parameters)
        self.kept = [p.detach().clone() for p in parameters]
        self.loss = float("inf")
        self.tries = 0

    @torch.no_grad()
    def restored(self, loss: float) -> bool:
        """Whether the weights were put back, given the loss just read (every READ_EVERY iterations)."""
        dropped = loss > self.loss * 10**0.5 and self.tries < MOST_ROLLBACKS
        if dropped:
            self.tries += 1
            torch._foreach_copy_(self.parameters, self.kept)
        else:
            self.tries = 0
            self.loss = loss
            torch._foreach_copy_(self.kept, self.parameters)
        return dropped
