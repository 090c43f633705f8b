"""NPGD: projected gradient descent onto a generator's range with a learned projector (Raj, Li, Bresler 2019)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, ClassVar, Literal

import torch

from netprior_core import priors
from netprior_core.compute import Compute, choose
from netprior_core.errors import MissingPrior
from netprior_core.generators import Drawing, generator_for, projector_key
from netprior_core.methods._classical import linear
from netprior_core.methods._common import finite
from netprior_core.methods._generative import Generative, gradient_step, linear_only, misfits, scale_on, signed_square
from netprior_core.networks.critic import Projector
from netprior_core.problem import Problem, Step, to_unit
from netprior_core.settings import setting


class NPGD(Generative):
    """NPGD: a gradient step on the image, then a learned network G† that says at once which latent draws something like it.

    w = x + η Aᵀ(y − A x); x ← G(G†(w)) (Raj et al. 2019, algorithm 1), images in [-1, 1]. The first w is Aᵀ y itself, which is
    what the formula gives from x = Aᵀ y where A Aᵀ = I; other A would blow it up. No gradient of a network is ever taken, so that
    a step costs two forward passes. G† was learned from noisy samples of this G, for no operator in particular. η is counted as
    in PGDGAN.

    G†(G(z)) is only nearly z, so that this ends where the projector's error stops it. "safeguarded" (ours) has a second candidate,
    z + s (G†(w) − G†(x)): the latent moves by what the gradient step changes in G†'s answer, and where that is nothing it stays.
    Of both the one of less misfit is taken; if neither is better than x, x stays and s is halved. So the misfit never grows.

    ``polish`` (ours) goes on from there with L-BFGS on the latent, min ‖A G(z) − y‖² + λ ‖z‖², which is CSGM's objective and
    takes gradients of G. From random latents the same 40 steps end 4 to 15 dB lower on six digits, and on four faces twice as
    many end where these do.

    "As released" has the iterations and steps of the authors' scripts for compressed sensing. Their projectors were taught with
    noise of one strength (σ = 1 on [−1, 1]) and a latent's weight of 0.1 on mean errors, ours with many strengths, on sums of
    errors, and half of each batch are real images (its card). After eight steps nothing changes by more than 0.02 dB (six faces).
    """

    title: ClassVar[str] = "NPGD"
    order: ClassVar[int] = 47
    citation: ClassVar[str] = (
        "A. Raj, Y. Li, Y. Bresler, GAN-based Projector for Faster Recovery with Convergence Guarantees in Linear Inverse "
        "Problems, ICCV 2019"
    )
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "as released, faces": {"update": "projection", "iterations": 30, "step_size": 0.5},
        "as released, digits": {"update": "projection", "iterations": 30, "step_size": 1.0},
        "live": {},
        "ours, projection only": {"update": "projection"},
        "polished (ours)": {"iterations": 4, "polish": 40},
        "briefly polished (ours)": {"iterations": 4, "polish": 10},
    }

    kind: Literal["npgd"] = "npgd"
    iterations: int = setting(8, "Gradient steps, each with a projection.", ge=1, le=5000, main=True, log=True)
    step_size: float = setting(1.0, "Step size η of the gradient step.", ge=1e-3, le=10.0, log=True)
    update: Literal["projection", "safeguarded"] = setting(
        "safeguarded",
        "projection: x is G(G†(w)), as published. safeguarded: or the latent moves by the change in G†, if that measures better.",
        main=True,
    )
    polish: int = setting(
        0,
        "Steps of L-BFGS on the latent after the projections (ours): slower, and nearer to y.",
        ge=0,
        le=500,
        main=True,
    )
    prior_weight: float = setting(0.1, "Weight λ of ‖z‖² while it is polished.", ge=0, le=100)

    @property
    def total(self) -> int:
        """Projections and polishing steps."""
        return self.iterations + self.polish

    def accepts(self, problem: Problem) -> str | None:
        reason = super().accepts(problem) or linear_only(problem, self.title)
        if reason is None:
            drawing = generator_for(problem.shape, self.generator)
            try:
                self._projector(drawing, choose("float32", "cpu"))
            except MissingPrior as error:
                reason = f"{self.title}: {error}"
        return reason

    def _projector(self, drawing: Drawing, compute: Compute) -> Projector:
        """The projector learned for this generator. Raises MissingPrior."""
        prior = priors.find(projector_key(drawing.digest()))
        if prior is None:
            raise MissingPrior(
                f"no projector was learned for the generator “{drawing.title}”. Choose the GAN, or learn one with "
                "`python -m netprior_core train projector`."
            )
        channels, height, width = drawing.shape
        settings = prior.card.get("settings", {})
        with torch.device("meta"):
            network = Projector(height, width, channels, channels=int(settings.get("channels", 0)) or 1, latent=drawing.latent)
        network = network.to_empty(device="cpu")
        prior.load_into(network)
        return compute.module(network).eval().requires_grad_(False)

    @torch.no_grad()
    def _solve(self, problem: Problem, seed: int, prepared: Drawing) -> Iterator[Step]:
        compute, model = choose(self.precision, problem.device), linear(problem)
        network, projector = prepared.network(compute), self._projector(prepared, compute)
        whole = 1 / scale_on(problem, prepared, compute) ** 2
        eta = self.step_size * whole
        # In [-1, 1] this is Aᵀ y, whatever the step size of what follows.
        x = gradient_step(problem, torch.full((1, *problem.shape), 0.5, device=compute.device), whole)
        residual = model.forward(x) - problem.measurement
        objective = signed_square(residual)
        yield Step(0, self.total, "solve", x, x, objective, "projection")
        z: torch.Tensor | None = None
        share = 1.0
        for iteration in range(1, self.iterations + 1):
            finite(objective.sum(), self.title, iteration - 1)
            w = x if z is None else x - eta * model.adjoint(residual)
            if z is None or self.update == "projection":
                z = projector(compute.activations(2 * w - 1))
                x = to_unit(network(compute.activations(z)))
                residual = model.forward(x) - problem.measurement
                objective = signed_square(residual)
            else:
                there, here = projector(compute.activations(2 * torch.cat([w, x]) - 1)).split(1)
                latents = torch.cat([there, z + share * (there - here)])
                images = to_unit(network(compute.activations(latents)))
                residuals = model.forward(images) - problem.measurement
                errors = signed_square(residuals)
                best = errors.argmin()[None]
                if bool(errors.min() < objective):
                    z, x, residual, objective = latents[best], images[best], residuals[best], errors[best]
                    share = min(1.0, 1.5 * share)
                else:
                    share /= 2
            step = Step(iteration, self.total, "solve", x, x, objective, "projection")
            yield step
        finite(objective.sum(), self.title, self.iterations)
        if self.polish and z is not None:
            for step in self._polished(problem, network, compute, z):
                yield step
        yield replace(step, stage="result", info={"returns": self.total})

    def _polished(self, problem: Problem, network: torch.nn.Module, compute: Compute, z: torch.Tensor) -> Iterator[Step]:
        z = z.clone().requires_grad_()
        search = torch.optim.LBFGS([z], max_iter=1, max_eval=20, history_size=20, tolerance_change=0, line_search_fn="strong_wolfe")
        seen: dict[str, torch.Tensor] = {}

        def loss() -> torch.Tensor:
            """At the latent of now. A step of L-BFGS begins where the last one ended: nothing is computed twice there."""
            if not seen or not torch.equal(z, seen["z"]):
                with torch.enable_grad():
                    images = to_unit(network(compute.activations(z)))
                    errors = misfits(problem, images)
                    value = errors.sum() + self.prior_weight * z.square().sum()
                    (slope,) = torch.autograd.grad(value, [z])
                seen.update(z=z.detach().clone(), x=images.detach(), errors=errors.detach(), value=value.detach(), slope=slope)
            z.grad = seen["slope"]
            return seen["value"]

        for iteration in range(self.iterations + 1, self.total + 1):
            search.step(loss)
            finite(loss(), self.title, iteration)
            yield Step(iteration, self.total, "solve", seen["x"], seen["x"], seen["errors"], "polish")
