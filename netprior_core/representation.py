"""Representation error: how near a generator comes to a picture when it is shown the picture itself."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch

from netprior_core.compute import Compute
from netprior_core.generators import Drawing
from netprior_core.metrics import psnr
from netprior_core.problem import to_unit

#: Steps between two looks at how far the search is.
STRIDE = 20
#: The search has settled when so many looks in a row bring less than this together, in dB.
LOOKS, SETTLED = 5, 0.01


class Best(NamedTuple):
    """What a search found of one generator, for results: its title, PSNR in dB, SSIM, steps, and the picture, uint8."""

    title: str
    psnr: float
    ssim: float
    steps: int
    pixels: np.ndarray


@torch.no_grad()
def best_possible(
    drawing: Drawing,
    compute: Compute,
    truth: torch.Tensor,
    *,
    restarts: int = 4,
    iterations: int = 200,
    refinements: int = 1800,
    seed: int = 0,
) -> Iterator[tuple[int, torch.Tensor, float]]:
    """The best that a prior could do, from below: min over z of ‖G(z) − x‖² for the true x ``(1, C, H, W)`` in [0, 1].

    Adam 0.1 for ``iterations`` steps from ``restarts`` latents in one batch finds a good valley; L-BFGS (Nocedal and Wright 2006,
    algorithm 7.5) then follows the best of them for at most ``refinements`` steps, less when they bring nothing any more. On ten
    embedded digits that is 6 to 18 dB more than 300 steps of Adam, and 5 to 8 dB more than 1,000 on four of them: G's valleys are
    long and narrow. On six CelebA faces it is 0.3 to 0.8 dB more than 300 steps.

    Yields (steps, best image so far ``(1, C, H, W)`` in [0, 1], its PSNR in dB) every twentieth step and at the end. The true best
    is at least that: the search may end in another valley. What is missing to x is the representation error, which no number of
    measurements removes. It uses the truth: a diagnostic, no method.
    """
    network, truth = drawing.network(compute), truth.to(compute.device)
    best, value = truth, -math.inf

    def draw(z: torch.Tensor) -> torch.Tensor:
        return to_unit(network(compute.activations(z)))

    z = drawing.sample(restarts, torch.Generator().manual_seed(seed)).to(compute.device).requires_grad_()
    adam = torch.optim.Adam([z], lr=0.1 * drawing.spread())
    for iteration in range(iterations + 1):
        with torch.enable_grad():
            images = draw(z)
            (z.grad,) = torch.autograd.grad((images - truth).square().sum(), [z])
        last = iteration == iterations
        if iteration % STRIDE == 0 or last:
            found = psnr(images, truth)
            place = int(found.argmax())
            if float(found[place]) > value:
                best, value = images.detach()[place : place + 1].clone(), float(found[place])
            yield iteration, best, value
        if not last:
            adam.step()

    z = z.detach()[place : place + 1].clone().requires_grad_()
    follow = torch.optim.LBFGS([z], max_iter=STRIDE, history_size=50, tolerance_change=0, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        error = (draw(z) - truth).square().sum()
        (z.grad,) = torch.autograd.grad(error, [z])
        return error

    values = [value]
    for iteration in range(iterations + STRIDE, iterations + refinements + 1, STRIDE):
        follow.step(loss)
        image = draw(z)
        if (now := float(psnr(image, truth))) > value:
            best, value = image.detach().clone(), now
        values.append(value)
        yield iteration, best, value
        if len(values) > LOOKS and value - values[-1 - LOOKS] < SETTLED:
            return
