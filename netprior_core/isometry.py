"""How well a measurement keeps apart what a generator draws: the condition under which searching its range works."""

from __future__ import annotations

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
    the best scaling of A: projected gradient descent on the set converges where it is near enough to 1.
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

    def words(self) -> str:
        """One line for a person."""
        return (
            f"‖A d‖/‖d‖ over {self.pairs:,} differences: {self.least:.3f} to {self.largest:.3f}, "
            f"90% of them {self.low:.3f} to {self.high:.3f} of median {self.median:.3f}"
        )


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
