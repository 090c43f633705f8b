"""PGDGAN: projected gradient descent onto a generator's range, with a search as the projection (Shah & Hegde 2018)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, ClassVar, Literal

import torch

from netprior_core.compute import choose
from netprior_core.generators import Drawing
from netprior_core.methods._common import finite
from netprior_core.methods._generative import Generative, gradient_step, linear_only, misfits, scale_on
from netprior_core.problem import Problem, Step, to_unit
from netprior_core.settings import setting


class PGDGAN(Generative):
    """PGDGAN: a gradient step on the image, then the nearest image that the generator can draw, found by a search; and again.

    w = x + η Aᵀ(y − A x); x ← G(ẑ) with ẑ = argmin over z of ‖w − G(z)‖² by Adam, started from the last ẑ (Shah & Hegde 2018,
    algorithm 1). It starts from x = 0 in [-1, 1]. η is counted in 1/s², s the typical ‖A d‖/‖d‖ over differences of the
    generator's images: for A ~ N(0, 1/m), where s = 1, as published.

    "as released, faces": the numbers of the authors' script for faces, whose search is another: momentum 0.9 on the mean of the
    squares, here as in all presets Adam on their sum.

    The objective that is shown is the misfit ‖A x − y‖² after each projection; between two of them it stands still.
    """

    title: ClassVar[str] = "PGDGAN"
    order: ClassVar[int] = 46
    citation: ClassVar[str] = "V. Shah, C. Hegde, Solving Linear Inverse Problems Using GAN Priors, ICASSP 2018"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "as published": {"outer": 15, "inner": 200, "step_size": 0.5},
        "as released, faces": {"outer": 10, "inner": 100, "step_size": 0.5},
        "live": {},
    }

    kind: Literal["pgdgan"] = "pgdgan"
    outer: int = setting(15, "Gradient steps, each with a projection.", ge=1, le=1000, main=True)
    inner: int = setting(50, "Steps of Adam in each projection.", ge=1, le=5000, main=True, log=True)
    step_size: float = setting(0.5, "Step size η of the gradient step.", ge=1e-3, le=10.0, log=True, main=True)
    learning_rate: float = setting(0.1, "Step size of Adam on the latent.", ge=1e-5, le=1.0, log=True)

    def accepts(self, problem: Problem) -> str | None:
        return super().accepts(problem) or linear_only(problem, self.title)

    def _solve(self, problem: Problem, seed: int, prepared: Drawing) -> Iterator[Step]:
        compute = choose(self.precision, problem.device)
        network = prepared.network(compute)
        eta = self.step_size / scale_on(problem, prepared, compute) ** 2
        z = prepared.sample(1, torch.Generator().manual_seed(seed)).to(compute.device).requires_grad_()
        rate, total = self.learning_rate * prepared.spread(), self.outer * self.inner
        x = torch.full((1, *problem.shape), 0.5, device=compute.device)
        with torch.no_grad():
            drawn = to_unit(network(compute.activations(z)))
        objective = misfits(problem, x)
        yield Step(0, total, "solve", drawn, x, objective, "projection")
        for turn in range(self.outer):
            finite(objective.sum(), self.title, turn * self.inner)
            target = 2 * gradient_step(problem, x, eta) - 1
            adam = torch.optim.Adam([z], lr=rate)
            for inner in range(self.inner):
                with torch.enable_grad():
                    signed = network(compute.activations(z))
                    (z.grad,) = torch.autograd.grad((signed - target).square().sum(), [z])
                adam.step()
                image = to_unit(signed.detach())
                iteration = turn * self.inner + inner + 1
                if inner < self.inner - 1:
                    yield Step(iteration, total, "solve", image, image, objective, "projection")
            with torch.no_grad():
                x = to_unit(network(compute.activations(z)))
            objective = misfits(problem, x)
            step = Step(iteration, total, "solve", x, x, objective, "projection")
            yield step
        finite(objective.sum(), self.title, total)
        yield replace(step, stage="result", info={"returns": total})
