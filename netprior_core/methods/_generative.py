"""What methods share that look for the image among those a trained generator draws: the generator, its latents, the search."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from netprior_core.compute import Compute, Precision, choose, precision_setting
from netprior_core.errors import MissingPrior
from netprior_core.generators import Drawing, generator_for, samples
from netprior_core.isometry import isometry
from netprior_core.methods._common import due, finite, squares
from netprior_core.methods.base import Method
from netprior_core.problem import Problem, Step, to_unit
from netprior_core.settings import setting


class Generative(Method):
    """What methods have in common that search the range of a trained generator; no method by itself."""

    family: ClassVar[str] = "Generative"

    generator: str = setting(
        "",
        "Whose images are searched: those of a GAN, or of a low-shot prior.",
        max_length=80,
        widget="prior",
    )
    precision: Precision = precision_setting()

    def accepts(self, problem: Problem) -> str | None:
        reason = super().accepts(problem)
        if reason is None:
            try:
                generator_for(problem.shape, self.generator)
            except MissingPrior as error:
                reason = f"{self.title}: {error}"
        return reason

    def _prepare(self, problem: Problem, seed: int) -> Generator[Step, None, Any]:
        """Load the generator and show what it believes."""
        drawing = generator_for(problem.shape, self.generator)
        compute = choose(self.precision, problem.device)
        yield Step(1, 1, "prepare", samples(drawing, compute), phase="samples", info={"note": f"Draws as {drawing.title} does."})
        return drawing


def misfits(problem: Problem, images: torch.Tensor) -> torch.Tensor:
    """``‖A G − y'‖²`` in [-1, 1] units for each of ``images`` ``(R, C, H, W)`` in [0, 1]: ``(R,)``. See ``signed_misfit``."""
    return signed_square(problem.model.forward(images) - problem.measurement)


def signed_square(residuals: torch.Tensor) -> torch.Tensor:
    """``‖r‖²`` in [-1, 1] units for each of ``residuals`` ``(R, *measurement_shape)`` of images in [0, 1]: ``(R,)``."""
    return 4 * squares(residuals).flatten(1).sum(dim=1)


@dataclass(frozen=True, eq=False)
class Place:
    """Where a search stands: latents ``(R, latent)``, what they draw in [0, 1], and each one's misfit."""

    z: torch.Tensor
    images: torch.Tensor
    misfits: torch.Tensor

    def best(self) -> torch.Tensor:
        """Index, as ``(1,)``, of the restart whose image measures most like y."""
        return self.misfits.argmin()[None]


def latent_search(
    problem: Problem,
    network: torch.nn.Module,
    drawing: Drawing,
    compute: Compute,
    *,
    restarts: int,
    iterations: int,
    learning_rate: float,
    prior_weight: float,
    seed: int,
    title: str,
    total: int,
) -> Iterator[tuple[Step, Place]]:
    """CSGM's search, min over z of ‖A G(z) − y‖² + λ ‖z‖², from ``restarts`` latents in one batch; a step an iteration.

    Adam works on each number alone, so that a batch is as many independent searches. Steps carry the restart of least misfit.
    The first step (iteration 0) is where the search starts.
    """
    generator = torch.Generator().manual_seed(seed)
    z = drawing.sample(restarts, generator).to(compute.device).requires_grad_()
    mean, spread = drawing.mean.to(compute.device), drawing.spread()
    adam = torch.optim.Adam([z], lr=learning_rate * spread)
    for iteration in range(iterations + 1):
        with torch.enable_grad():
            images = to_unit(network(compute.activations(z)))
            errors = misfits(problem, images)
            loss = errors.sum()
            if prior_weight:
                loss = loss + prior_weight * ((z - mean) / spread).square().sum()
            if iteration < iterations:
                (gradient,) = torch.autograd.grad(loss, [z])
        place = Place(z.detach().clone(), images.detach(), errors.detach())
        best = place.best()
        if due(iteration + 1, iterations + 1):
            finite(place.misfits.sum(), title, iteration)
        output = place.images.index_select(0, best)
        yield Step(iteration, total, "solve", output, output, place.misfits.index_select(0, best), "latent"), place
        if iteration < iterations:
            z.grad = gradient
            adam.step()


def linear_only(problem: Problem, title: str) -> str | None:
    """Words for a measurement without an adjoint, or None."""
    if problem.model.linear:
        return None
    return f"{title} takes gradient steps with Aᵀ: it needs a linear measurement. CSGM and IAGAN do without."


@torch.no_grad()
def scale_on(problem: Problem, drawing: Drawing, compute: Compute) -> float:
    """The median ‖A d‖/‖d‖ over differences d of samples: 1 for A ~ N(0, 1/m), √m for N(0, 1)."""
    return max(isometry(problem.model, samples(drawing, compute, 6)).median, 1e-12)


def gradient_step(problem: Problem, x: torch.Tensor, eta: float) -> torch.Tensor:
    """``x + η Aᵀ(y − A x)`` for images ``(1, C, H, W)`` in [0, 1]; the same step in [-1, 1]."""
    return x - eta * problem.model.gradient(x, problem.measurement)
