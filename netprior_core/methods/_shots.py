"""Pre-training a generator on a few example images: latents and weights jointly (low-shot paper, section 2)."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from scipy.optimize import linear_sum_assignment
from torch import nn

from netprior_core.compute import Compute
from netprior_core.errors import InvalidSettings
from netprior_core.generators import KINDS
from netprior_core.interrupt import check
from netprior_core.methods._common import due, finite
from netprior_core.networks.seeded import seeded
from netprior_core.problem import Shape, Step, to_signed, to_unit

#: A long training keeps its state so often.
KEEP_EVERY = 500
#: How often the left-out images are looked at: thirty small steps each time, some ten percent of the work.
PROBE_EVERY = 100

#: Latents of a generator that learned nothing: enough for BatchNorm's statistics.
UNTRAINED_DRAWS = 32

ShotLoss = Literal["l2", "mmd"]
Layers = Literal["dcgan", "upsampling"]
#: What cards call the generators.
NAMES: Mapping[Layers, str] = {"dcgan": "DCGAN", "upsampling": "upsampling generator"}


@dataclass(frozen=True, eq=False)
class Pretrained:
    """Weights by name and the latents ``ẑ_i`` ``(S, latent)``, float32 on the CPU, at the fp16 levels that files keep."""

    weights: dict[str, torch.Tensor]
    latents: torch.Tensor
    # Width and kind of the generator, where they are not the method's own settings.
    channels: int = 0
    layers: Layers | None = None
    mirrored: bool = False  # the second half of the latents is of the mirror images of the first
    steps: int = 0  # of pre-training, where it was done just now

    @property
    def examples(self) -> torch.Tensor:
        """The latents of the examples, without those of their mirror images."""
        return self.latents[: len(self.latents) // 2] if self.mirrored else self.latents

    def tensors(self) -> dict[str, torch.Tensor]:
        """As named in a prior's file."""
        return {"latents": self.latents, **{f"network.{name}": value for name, value in self.weights.items()}}

    def sample(self, generator: torch.Generator) -> torch.Tensor:
        """A draw ``(1, latent)`` from the Gaussian fitted to the latents, ``N(μ, Σ)`` of rank ≤ S − 1.

        z = μ + Σ_i c_i (ẑ_i − μ) / √(S − 1), c ~ N(0, I), has exactly that mean and covariance without forming Σ.
        """
        mean = self.latents.mean(dim=0, keepdim=True)
        shots = len(self.latents)
        c = torch.randn((1, shots), generator=generator)
        return mean + c @ (self.latents - mean) / max(shots - 1, 1) ** 0.5


def build(shape: Shape, latent: int, channels: int, layers: Layers = "dcgan") -> nn.Module:
    """The generator for images of ``shape``."""
    outputs, height, width = shape
    return KINDS[NAMES[layers]](height, width, outputs, latent=latent, channels=channels)


def seeded_build(shape: Shape, latent: int, channels: int, layers: Layers, generator: torch.Generator) -> nn.Module:
    """The same with its weights drawn from ``generator``: N(0, 0.02²) as for DCGAN, or U(±1/√fan_in)."""
    return seeded(lambda: build(shape, latent, channels, layers), generator, scheme="dcgan" if layers == "dcgan" else "uniform")


def pretrain(
    shots: torch.Tensor,
    compute: Compute,
    *,
    loss: ShotLoss,
    iterations: int,
    learning_rate: float,
    latent: int,
    channels: int,
    jitter: float,
    batch: int,
    kernel_width: float,
    seed: int,
    layers: Layers = "dcgan",
    title: str = "Low-shot",
    enough: Callable[[], bool] = lambda: False,
    resume: Mapping[str, Any] | None = None,
    keep: Callable[[Mapping[str, Any]], None] | None = None,
    left_out: torch.Tensor | None = None,
) -> Generator[Step, None, Pretrained]:
    """Fit latents and weights to the shots ``(S, C, H, W)`` in [0, 1]; yields a step an iteration, with all shots as drawn now.

    l2: min over θ and z_1…z_S of (1/S) Σ ‖G(z_i + ε_i; θ) − x_i‖² (eq. 4). mmd: eq. 5, see :func:`mmd`. ``jitter`` is the standard
    deviation of ε, fresh at each iteration (0 as published); ``batch`` shots are visited at a time (0: all). It ends early once
    ``enough()``. ``keep`` is given the state every KEEP_EVERY iterations, from which ``resume`` goes on exactly.
    Under the MMD the latents are put into the order of the shots they draw at the end (:func:`paired`).
    ``left_out`` images ``(L, C, H, W)`` are not learned: every PROBE_EVERY iterations the steps' "note" says how well they
    can be drawn, and "left_out" has (iteration, PSNR in dB).
    Raises Unsolvable when the loss stops being a number, InvalidSettings when ``resume`` does not fit.
    """
    generator = torch.Generator().manual_seed(seed)
    count, shape = len(shots), (int(shots.shape[1]), int(shots.shape[2]), int(shots.shape[3]))
    network = compute.module(seeded_build(shape, latent, channels, layers, generator))
    z = torch.randn((count, latent), generator=generator).to(compute.device).requires_grad_()
    truth = to_signed(shots.to(compute.device))
    adam = torch.optim.Adam([*network.parameters(), z], lr=learning_rate, fused=True)
    drawn = torch.full_like(shots, 0.5, device=compute.device)
    size = count if batch <= 0 else min(batch, count)
    first = 1
    if resume is not None:
        try:
            network.load_state_dict(resume["network"])
            with torch.no_grad():
                z.copy_(resume["z"])
            adam.load_state_dict(resume["adam"])
            generator.set_state(resume["generator"])
            first = int(resume["iteration"]) + 1
        except (LookupError, TypeError, ValueError, AttributeError, RuntimeError):
            raise InvalidSettings(f"{title}: the state to go on from does not fit this training, or it is damaged.") from None
    note: dict[str, Any] = {}
    best = (0.0, 0)
    iteration, objective = first - 1, torch.zeros((), device=compute.device)
    for iteration in range(first, iterations + 1):
        inputs, targets = z, truth
        index = None
        if size < count:
            index = torch.randperm(count, generator=generator)[:size].to(compute.device)
            inputs, targets = z[index], truth[index]
        if jitter:
            inputs = inputs + jitter * torch.randn((size, latent), generator=generator).to(compute.device)
        images = network(compute.activations(inputs))
        objective = (images - targets).square().mean() if loss == "l2" else mmd(images, targets, kernel_width)
        if due(iteration, iterations):
            finite(objective, title, iteration)
        adam.zero_grad(set_to_none=True)
        check()  # with many shots at full width a step takes seconds
        objective.backward()
        check()
        adam.step()
        now = to_unit(images.detach())
        drawn = now if index is None else drawn.index_copy(0, index, now)
        if keep is not None and iteration % KEEP_EVERY == 0:
            state = {"network": network.state_dict(), "z": z.detach(), "adam": adam.state_dict()}
            keep({**state, "generator": generator.get_state(), "iteration": iteration})
        if left_out is not None and (iteration % PROBE_EVERY == 0 or iteration == 1):
            found = drawable(network, z.detach(), to_signed(left_out.to(compute.device)), compute)
            best = max(best, (found, iteration))
            words = f"{best[0]:.1f} dB after {best[1]:,} steps"
            said = f"The left-out example can be drawn at {found:.1f} dB; best so far {words}."
            note = {"note": said, "left_out": (iteration, found)}
        yield Step(iteration, iterations, "prepare", drawn, None, objective.detach()[None], "pre-training", note)
        if enough():
            break
    images, latents = settle(network, compute.activations(z.detach())), z.detach()
    if loss == "mmd":
        order = paired(images, truth)
        images, latents = images[order], latents[order]
    yield Step(iteration, iterations, "prepare", to_unit(images), None, objective.detach()[None], "pre-trained")
    weights = {name: _as_kept(value) for name, value in network.state_dict().items()}
    return Pretrained(weights, _as_kept(latents), steps=iteration)


def paired(drawn: torch.Tensor, shots: torch.Tensor) -> torch.Tensor:
    """For each shot the index ``(S,)`` of the drawn image that is its own: one to one, of least total squared distance.

    The MMD compares sets, so that nothing ties the i-th latent to the i-th shot until this is done.
    """
    squared = torch.cdist(shots.flatten(1).float().cpu(), drawn.flatten(1).float().cpu()).square()
    return torch.from_numpy(linear_sum_assignment(squared.numpy())[1]).to(drawn.device)


def untrained(shape: Shape, latent: int, channels: int, layers: Layers, seed: int) -> Pretrained:
    """A generator that learned nothing, with as many draws of N(0, I) for latents; BatchNorm has the statistics of those draws."""
    generator = torch.Generator().manual_seed(seed)
    network = seeded_build(shape, latent, channels, layers, generator)
    z = torch.randn((UNTRAINED_DRAWS, latent), generator=generator)
    settle(network, z)
    return Pretrained(dict(network.state_dict()), z, channels, layers)


def drawable(network: nn.Module, z: torch.Tensor, images: torch.Tensor, compute: Compute, steps: int = 30) -> float:
    """PSNR in dB at which the network as it is can draw images it did not learn: the best latents for them, from the mean of ``z``.

    A meter of the prior that needs no truth. images ``(L, C, H, W)`` in [-1, 1]; the network is left as it was.
    """
    training = network.training
    network.eval()
    latents = z.mean(dim=0, keepdim=True).repeat(len(images), 1).requires_grad_()
    adam = torch.optim.Adam([latents], lr=0.1)
    error = torch.zeros(())
    for _ in range(steps):
        error = (network(compute.activations(latents)) - images).square().mean()
        (latents.grad,) = torch.autograd.grad(error, [latents])
        adam.step()
    network.train(training)
    return float(-10 * torch.log10(error.detach() / 4))


def settle(network: nn.Module, z: torch.Tensor) -> torch.Tensor:
    """Set BatchNorm's running statistics to those of all shots together, and return the shots as drawn ``(S, C, H, W)`` in [-1, 1].

    Solving then uses these fixed statistics (evaluation mode): an image normalised by its own statistics alone is not what
    the weights were trained for, and ends about 2 dB lower.
    """
    norms = [layer for layer in network.modules() if isinstance(layer, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    network.train()
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad():
        images = network(z)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    network.eval()
    return images


def mmd(drawn: torch.Tensor, shots: torch.Tensor, width: float = 0.0) -> torch.Tensor:
    """Kernel maximum mean discrepancy between two sets of images, Gaussian kernel ``k(a, b) = exp(−‖a − b‖² / α)``.

    mean_{i≠i'} k(g_i, g_i') + mean_{j≠j'} k(x_j, x_j') − 2 mean_{i,j} k(g_i, x_j): the unbiased estimate of Gretton et al.
    2012, eq. 3.

    As printed in the low-shot paper (eq. 5) the sums run over ordered pairs and are divided by C(S, 2), which is this times two,
    and the cross term leaves out i = j, though nothing pairs g_i with x_i under this loss: here it runs over all pairs.
    ``width`` is α; the paper does not give it. 0 takes the median of ‖x_j − x_j'‖² over pairs of shots.
    """
    a, b = drawn.flatten(1), shots.flatten(1)
    count = len(a)
    apart = ~torch.eye(count, dtype=torch.bool, device=a.device)
    between = _squared_distances(b, b)
    alpha = torch.as_tensor(width, device=a.device) if width > 0 else between[apart].median().clamp_min(1e-12)
    pairs = count * (count - 1)
    within = torch.exp(-_squared_distances(a, a) / alpha)[apart].sum() / pairs
    fixed = torch.exp(-between / alpha)[apart].sum() / pairs
    return within + fixed - 2 * torch.exp(-_squared_distances(a, b) / alpha).mean()


def _squared_distances(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    # Differences rather than a Gram matrix: near zero the latter loses all its digits, and there the gradient matters.
    return torch.stack([(row - b).square().sum(dim=1) for row in a])


def _as_kept(value: torch.Tensor) -> torch.Tensor:
    # Files hold fp16: rounding at once makes the first run and a run from the cache the same, bit for bit.
    value = value.detach().cpu()
    return value.half().float().contiguous() if value.is_floating_point() else value.clone()
