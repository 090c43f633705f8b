"""Representation error: how near a generator comes to a picture when it is shown the picture itself."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch

from netprior_core.compute import Compute
from netprior_core.generators import Drawing
from netprior_core.metrics import psnr
from netprior_core.problem import to_unit


@torch.no_grad()
def best_possible(
    drawing: Drawing, compute: Compute, truth: torch.Tensor, *, iterations: int = 300, restarts: int = 4, seed: int = 0
) -> Iterator[tuple[int, torch.Tensor, float]]:
    """The best that a prior could do: min over z of ‖G(z) − x‖² for the true x ``(1, C, H, W)`` in [0, 1], by Adam 0.1.

    Yields (iteration, best image so far ``(1, C, H, W)`` in [0, 1], its PSNR in dB) every twentieth iteration and at the end. What
    is missing to x is the representation error, which no number of measurements removes. It uses the
    truth: a diagnostic, no method.
    """
    network, truth = drawing.network(compute), truth.to(compute.device)
    z = drawing.sample(restarts, torch.Generator().manual_seed(seed)).to(compute.device).requires_grad_()
    adam = torch.optim.Adam([z], lr=0.1 * drawing.spread())
    best, value = truth, -math.inf
    for iteration in range(iterations + 1):
        with torch.enable_grad():
            images = to_unit(network(compute.activations(z)))
            (z.grad,) = torch.autograd.grad((images - truth).square().sum(), [z])
        if iteration % 20 == 0 or iteration == iterations:
            found = psnr(images.detach(), truth)
            place = int(found.argmax())
            if float(found[place]) > value:
                best, value = images.detach()[place : place + 1].clone(), float(found[place])
            yield iteration, best, value
        adam.step()
