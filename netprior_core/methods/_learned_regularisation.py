"""Learned regularisation of CS-DIP: statistics of the weights of networks fitted to measurements of similar images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from netprior_core.interrupt import check

Form = Literal["published", "released"]

#: Least variance of a layer's weights: below it a layer that hardly moved would be nailed to its mean.
LEAST_VARIANCE = 1e-8
#: Weights of a layer that are drawn at a time, over rounds: 2 MB for each layer.
AT_A_TIME = 250_000


@dataclass(frozen=True, eq=False)
class Statistics:
    """Mean μ ``(L,)`` and covariance Σ ``(L, L)`` of the weights of L layers (or tensors), float32 on the CPU."""

    mean: torch.Tensor
    covariance: torch.Tensor

    def as_kept(self) -> dict[str, torch.Tensor]:
        """For a file that rounds floating point to fp16, which these are too small for: their bits as integers."""
        return {"mean": self.mean.view(torch.int32), "covariance": self.covariance.view(torch.int32)}

    @staticmethod
    def from_kept(tensors: Mapping[str, torch.Tensor], count: int) -> Statistics | None:
        """What :meth:`as_kept` gave, or None when it does not fit ``count`` layers or holds invalid numbers."""
        mean, covariance = tensors.get("mean"), tensors.get("covariance")
        if mean is None or covariance is None or mean.dtype != torch.int32 or covariance.dtype != torch.int32:
            return None
        found = Statistics(mean.view(torch.float32), covariance.view(torch.float32))
        fits = tuple(mean.shape) == (count,) and tuple(covariance.shape) == (count, count)
        valid = fits and bool(torch.isfinite(found.mean).all() and torch.isfinite(found.covariance).all())
        return found if valid else None


def layers_of(network: nn.Module, form: Form) -> list[torch.Tensor]:
    """The tensors that count as layers. published: the weights of each convolution (7 at 256×256). released: those and scale and
    shift of each BatchNorm, in the network's order (19 at 256×256)."""
    if form == "released":
        return list(network.parameters())
    return [m.weight for m in network.modules() if isinstance(m, (nn.Conv2d, nn.ConvTranspose2d))]


def estimate(networks: Sequence[Sequence[torch.Tensor]], *, rounds: int, samples: int, generator: torch.Generator) -> Statistics:
    """Algorithm 1 of Van Veen et al.: μ and Σ of the layers of Q fitted networks.

    ``rounds`` (T) times: pick one of the networks, draw ``samples`` (S) weights of each of its layers with replacement into the
    rows of M; μ_t = M 1 / S and Σ_t = M Mᵀ / S − μ_t μ_tᵀ. Returned are their means over t. A BatchNorm's scales and shifts are
    taken whole and in order where there are S of them, as in the released code: so Σ holds how the two go together. Other entries
    off its diagonal are of weights drawn independently, that is, noise of order 1/√(S T).
    """
    picked = torch.randint(len(networks), (rounds,), generator=generator)
    layers = [torch.stack([tensor.detach().cpu().double().flatten() for tensor in layer]) for layer in zip(*networks, strict=True)]
    whole = [layer.ndim == 1 and layer.numel() == samples for layer in networks[0]]
    mean, covariance = torch.zeros(len(layers)).double(), torch.zeros(len(layers), len(layers)).double()
    for some in picked.split(max(1, AT_A_TIME // samples)):
        rows = []
        for weights, in_order in zip(layers, whole, strict=True):
            check()
            if in_order:
                columns = torch.arange(samples).expand(len(some), samples)
            else:
                columns = torch.randint(weights.shape[1], (len(some), samples), generator=generator)
            rows.append(weights[some[:, None], columns])
        drawn = torch.stack(rows, dim=1)  # (rounds, L, S)
        means = drawn.mean(dim=2)
        mean += means.sum(dim=0)
        covariance += (drawn @ drawn.transpose(1, 2) / samples - means[:, :, None] * means[:, None, :]).sum(dim=0)
    return Statistics((mean / rounds).float(), (covariance / rounds).float())


class Regulariser:
    """LR(w), differentiable, on the device of the network it is made for.

    published: Σ_l Σ_{i∈l} (w_i − μ_l)² / Σ_ll over all weights of the convolutions. Printed as (w − μ)ᵀ Σ⁻¹ (w − μ) (eq. 5) with
    weights within a layer sharing one Gaussian and layers independent (section 3.2.1), which is this sum.
    released: (w̄ − μ)ᵀ Σ⁻¹ (w̄ − μ) with w̄_l the *mean* of tensor l and the whole Σ, as in the released code.
    """

    def __init__(self, statistics: Statistics, form: Form, network: nn.Module) -> None:
        self.form = form
        self.layers = layers_of(network, form)
        device = self.layers[0].device
        sigma = statistics.covariance.double()
        sigma.diagonal().clamp_(min=LEAST_VARIANCE)
        self.mean = statistics.mean.to(device)
        self.precision = (
            torch.linalg.inv(sigma).float().to(device) if form == "released" else 1 / sigma.diagonal().float().to(device)
        )

    def __call__(self) -> torch.Tensor:
        if self.form == "released":
            apart = torch.stack([layer.mean() for layer in self.layers]) - self.mean
            return apart @ self.precision @ apart
        deviations = torch.stack([(w - mu).square().sum() for w, mu in zip(self.layers, self.mean, strict=True)])
        return deviations @ self.precision
