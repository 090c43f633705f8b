"""Trained generators: their files, the Gaussian of their latents, and what they draw."""

from __future__ import annotations

import contextlib
import hashlib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from netprior_core import priors
from netprior_core.compute import Compute
from netprior_core.errors import MissingPrior
from netprior_core.networks.dcgan import DCGAN
from netprior_core.networks.upsampling import UpsamplingGenerator
from netprior_core.problem import Shape, to_unit

#: Part of every key: raised when the meaning of the weights changes, so that older files are not found any more.
RECIPE = 1
#: What cards call the generators.
KINDS: Mapping[str, type[DCGAN | UpsamplingGenerator]] = {"DCGAN": DCGAN, "upsampling generator": UpsamplingGenerator}
#: Samples shown before iteration 0: what the prior believes.
SHOWN = 16


def generator_key(shape: Shape) -> str:
    """Key of the file of the GAN that draws images of ``shape``."""
    return priors.key_of(recipe=RECIPE, method="gan", shape=list(shape))


def projector_key(digest: str) -> str:
    """Key of the file of the projector that was learned for the generator with this digest."""
    return priors.key_of(recipe=RECIPE, method="projector", generator=digest)


def digest_of(weights: dict[str, torch.Tensor]) -> str:
    """A hash of a generator's weights at the levels that files keep."""
    found = hashlib.sha256()
    for name in sorted(weights):
        value = weights[name]
        found.update(name.encode())
        found.update((value.half() if value.is_floating_point() else value).cpu().contiguous().numpy().tobytes())
    return found.hexdigest()[:32]


@dataclass(frozen=True, eq=False)
class Drawing:
    """A trained generator as it comes from its file: weights on the CPU, and the Gaussian that its latents come from.

    mean ``(latent,)`` and factor ``(k, latent)``: z = μ + c F with c ~ N(0, I_k). For a GAN μ = 0 and F is None, which stands for
    the identity; for a low-shot prior the Gaussian is fitted to the latents of its examples and has rank k − 1.
    """

    weights: dict[str, torch.Tensor]
    shape: Shape
    latent: int
    channels: int
    title: str = ""
    mean: torch.Tensor = field(default_factory=lambda: torch.zeros(1))
    factor: torch.Tensor | None = None
    kind: type[DCGAN | UpsamplingGenerator] = DCGAN

    def network(self, compute: Compute) -> nn.Module:
        """A network of its own with these weights, in evaluation mode, frozen. Raises MissingPrior when they do not fit."""
        channels, height, width = self.shape
        with torch.device("meta"):
            network = self.kind(height, width, channels, latent=self.latent, channels=self.channels)
        network = network.to_empty(device="cpu")
        try:
            network.load_state_dict(self.weights)
        except RuntimeError as error:
            reason = str(error).splitlines()[-1].strip()
            raise MissingPrior(f"The prior {self.title} does not fit its network: {reason}") from None
        return compute.module(network).eval().requires_grad_(False)

    def sample(self, count: int, generator: torch.Generator) -> torch.Tensor:
        """``(count, latent)`` from the Gaussian of the latents; the first of many are those of few."""
        size = self.latent if self.factor is None else len(self.factor)
        # Row by row: what a generator gives as one block depends on the block's size.
        c = torch.cat([torch.randn((1, size), generator=generator) for _ in range(count)])
        return self.mean + (c if self.factor is None else c @ self.factor)

    def spread(self) -> float:
        """Root mean square of a latent's entries about their mean; 1 where all of them are one, so that a search can leave it."""
        found = 1.0 if self.factor is None else float(self.factor.square().sum(dim=0).mean().sqrt())
        return found if found > 1e-6 else 1.0

    def digest(self) -> str:
        """What a projector's file names this generator by."""
        return digest_of(self.weights)


def drawing_of(prior: priors.Prior, title: str = "") -> Drawing:
    """The generator in a file: a GAN's, or that of a low-shot prior. Raises MissingPrior when there is none in it."""
    card = prior.card
    title = title or str(card.get("title", "of this file"))[:80]
    shape = card.get("shape", ())
    weights = {n.removeprefix("network."): v for n, v in prior.tensors.items() if n.startswith("network.")}
    kind = KINDS.get(str(card.get("network")))
    # Where a kind's first layer has the latents: its shape says how many.
    first = weights.get("body.0.weight" if kind is DCGAN else "first.weight")
    if kind is None or len(shape) != 3 or not all(isinstance(side, int) for side in shape) or first is None or first.ndim != 4:
        raise MissingPrior(f"The prior {title} is no generator of images.")
    settings, latent = card.get("settings", {}), int(first.shape[0 if kind is DCGAN else 1])
    common: dict[str, Any] = {"latent": latent, "channels": int(settings.get("channels", 0)), "title": title, "kind": kind}
    found = Drawing(weights, (int(shape[0]), int(shape[1]), int(shape[2])), **common)
    latents = prior.tensors.get("latents")
    if latents is None:
        return found
    mean = latents.mean(dim=0)
    factor = (latents - mean) / max(len(latents) - 1, 1) ** 0.5
    return Drawing(found.weights, found.shape, **common, mean=mean, factor=factor)


def generator_for(shape: Shape, name: str = "") -> Drawing:
    """The named prior's generator, or without a name the GAN that draws images of ``shape``.

    Raises MissingPrior, in words for a person, when there is none or it draws other images.
    """
    want = "×".join(map(str, shape))
    if name:
        found = drawing_of(priors.named(name))
        if found.shape != tuple(shape):
            have = "×".join(map(str, found.shape))
            raise MissingPrior(
                f"the generator “{found.title}” draws images of {have} (channels × height × width) and the image is {want}. "
                "Change size and channels, or choose another."
            )
        return found
    prior = priors.find(generator_key(shape))
    if prior is not None:
        return drawing_of(prior)
    known = shipped()
    if not known:
        raise MissingPrior("there is no trained generator here: the checkpoints folder has none.")
    words = "; ".join(f"{'×'.join(map(str, card['shape']))} ({card.get('title', name)})" for name, card in known.items())
    raise MissingPrior(
        f"no trained generator draws images of {want} (channels × height × width). There are: {words}. Change size and channels."
    )


def shipped() -> dict[str, dict[str, Any]]:
    """Cards by name of the GANs in the checkpoints folder."""
    found = {}
    for path in sorted(priors.CHECKPOINTS.glob("gan-*.safetensors")):
        with contextlib.suppress(MissingPrior):
            card = priors.card_of(path)
            if len(card.get("shape", ())) == 3:
                found[path.stem] = card
    return found


@torch.no_grad()
def samples(drawing: Drawing, compute: Compute, count: int = SHOWN, seed: int = 0) -> torch.Tensor:
    """``(count, C, H, W)`` in [0, 1] drawn at random."""
    z, network = drawing.sample(count, torch.Generator().manual_seed(seed)), drawing.network(compute)
    return torch.cat([to_unit(network(compute.activations(part))) for part in z.split(64)])


@torch.no_grad()
def by_seed(drawing: Drawing, compute: Compute, seeds: Iterable[int]) -> torch.Tensor:
    """``(len(seeds), C, H, W)`` in [0, 1], a picture for each seed."""
    z = torch.cat([drawing.sample(1, torch.Generator().manual_seed(seed)) for seed in seeds])
    return to_unit(drawing.network(compute)(compute.activations(z)))


@torch.no_grad()
def between(drawing: Drawing, compute: Compute, start: int, end: int, steps: int = 8) -> torch.Tensor:
    """``(steps, C, H, W)`` in [0, 1] on the way from the latent of one seed to that of another.

    Along the arc z(t) = μ + cos(πt/2) a + sin(πt/2) b, on which every z is as probable as the ends are: the straight line passes
    nearer to the mean than latents ever are.
    """
    first, last = (drawing.sample(1, torch.Generator().manual_seed(seed)) - drawing.mean for seed in (start, end))
    angle = torch.linspace(0, 1, steps)[:, None] * math.pi / 2
    # A seed's own latent at both ends: nothing to walk.
    z = first.expand(steps, -1) if start == end else angle.cos() * first + angle.sin() * last
    return to_unit(drawing.network(compute)(compute.activations(z + drawing.mean)))
