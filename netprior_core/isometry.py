"""How well a measurement keeps apart what a generator draws: the condition under which searching its range works."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from netprior_core.errors import InvalidSettings
from netprior_core.operators.base import ForwardModel

#: Differences whose images are this close (of the largest distance) are one image drawn twice.
SAME = 1e-6


@dataclass(frozen=True)
class Isometry:
    """Of the ratios ‖A(x − x')‖ / ‖x − x'‖ over pairs of images: least, 5%, median, 95%, largest, and how many pairs.

    spread is largest / least: 1 for an isometry up to scale. alpha is least² / largest², the restricted eigenvalue constant after
    the best scaling of A, and condition its inverse β/α: see :func:`rate`.
    """

    least: float
    low: float
    median: float
    high: float
    largest: float
    pairs: int

    @property
    def spread(self) -> float:
        return self.largest / max(self.least, 1e-30)

    @property
    def alpha(self) -> float:
        return (self.least / max(self.largest, 1e-30)) ** 2

    @property
    def condition(self) -> float:
        return self.spread**2

    def words(self) -> str:
        """One line for a person."""
        return (
            f"‖A d‖/‖d‖ over {self.pairs:,} differences: {self.least:.3f} to {self.largest:.3f}, "
            f"90% of them {self.low:.3f} to {self.high:.3f} of median {self.median:.3f}"
        )


def rate(condition: float) -> float | None:
    """By what ‖A x − y‖² shrinks at least with each step of projected gradient descent, given β/α; None where nothing is promised.

    x ← P(x + η Aᵀ(y − A x)) with η = 1/β, P the exact projection onto the set S, A linear, y = A x* without noise for an x* in S:
    where α ‖d‖² ≤ ‖A d‖² ≤ β ‖d‖² for all differences d of S, ‖A x⁺ − y‖² ≤ (β/α − 1) ‖A x − y‖², which shrinks when β/α < 2
    (the argument of Raj, Li, Bresler 2019, without the error of the projector). At 2 and above it may converge all the same.
    """
    return condition - 1 if condition < 2 else None


def worst(
    model: ForwardModel, draw: Callable[[torch.Tensor], torch.Tensor], latents: torch.Tensor, *, steps: int = 40, rate: float = 0.1
) -> tuple[float, float]:
    """The least and the largest ‖A(x − x')‖ / ‖x − x'‖ found by searching pairs of what ``draw`` makes of latents.

    Adam on the logarithm of the ratio, a half of the pairs down and a half up; every latent keeps its length, so that all stay as
    probable as they were. ``latents`` ``(4 P, length)``: the first 2 P are searched with the last 2 P. A bound from inside: the
    true constant may be worse still. Raises InvalidSettings when the number of latents is no multiple of four.
    """
    pairs, rest = divmod(len(latents), 2)
    if rest or pairs % 2 or not pairs:
        raise InvalidSettings("a search over pairs, half of them down and half of them up, needs a multiple of four latents")
    lengths = latents.norm(dim=1, keepdim=True)
    z = latents.detach().clone().requires_grad_()
    way = torch.ones(pairs, device=z.device)
    way[pairs // 2 :] = -1
    adam = torch.optim.Adam([z], lr=rate)
    found = []
    for _ in range(steps + 1):
        images = draw(z)
        seen = (model.forward(images[:pairs]) - model.forward(images[pairs:])).flatten(1)
        apart = (images[:pairs] - images[pairs:]).flatten(1)
        ratios = torch.linalg.vector_norm(seen, dim=1) / torch.linalg.vector_norm(apart, dim=1).clamp_min(1e-12)
        found.append(ratios.detach())
        (z.grad,) = torch.autograd.grad((ratios.log() * way).sum(), [z])
        adam.step()
        with torch.no_grad():
            z.mul_(lengths / z.norm(dim=1, keepdim=True))
    every = torch.stack(found)
    return float(every.min()), float(every.max())


@torch.no_grad()
def isometry(model: ForwardModel, images: torch.Tensor, *, most: int = 2000, seed: int = 0) -> Isometry:
    """The near-isometry of ``model`` on differences of ``images`` ``(N, C, H, W)``: samples G(z) of a generator, say.

    The restricted eigenvalue condition of NPGD (slides, convergence analysis; Bora et al. 2017, definition 1) asks
    α ‖x − x'‖² ≤ ‖A(x − x')‖² ≤ β ‖x − x'‖² for all x, x' in range(G). Pairs of samples give the inside of that interval: the
    worst pair may be worse than the worst seen. At most ``most`` pairs, drawn from ``seed``, of the N (N − 1) / 2.
    A is linear; for others the ratio is that of A(x) − A(x'). Raises InvalidSettings with fewer than two different images.
    """
    if len(images) < 2:
        raise InvalidSettings("two images at least make a difference")
    first, second = torch.triu_indices(len(images), len(images), 1)
    if len(first) > most:
        chosen = torch.randperm(len(first), generator=torch.Generator().manual_seed(seed))[:most]
        first, second = first[chosen], second[chosen]
    images = images.to(model.device, model.dtype)
    measured = torch.cat([model.forward(part).flatten(1) for part in images.split(32)])
    flat = images.flatten(1)
    first, second = first.to(model.device), second.to(model.device)
    apart = torch.cat([(flat[i] - flat[j]).norm(dim=1) for i, j in zip(first.split(256), second.split(256), strict=True)])
    seen = torch.cat(
        [(measured[i] - measured[j]).abs().norm(dim=1) for i, j in zip(first.split(256), second.split(256), strict=True)]
    )
    different = apart > SAME * apart.max().clamp_min(1e-30)
    if not bool(different.any()):
        raise InvalidSettings("all images are the same: there is no difference to measure")
    ratios = (seen[different] / apart[different]).cpu().double()
    low, middle, high = torch.quantile(ratios, torch.tensor([0.05, 0.5, 0.95], dtype=torch.float64)).tolist()
    return Isometry(float(ratios.min()), low, middle, high, float(ratios.max()), len(ratios))
