"""IAGAN: let the generator adapt to the image once its latent is found (Hussein, Tirer, Giryes 2020)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, ClassVar, Literal

import torch

from netprior_core.compute import choose
from netprior_core.generators import Drawing
from netprior_core.methods._common import due, finite
from netprior_core.methods._generative import Generative, latent_search, misfits
from netprior_core.operators.base import LinearModel
from netprior_core.problem import Problem, Step, to_unit
from netprior_core.settings import setting


class IAGAN(Generative):
    """IAGAN: CSGM's search, then latent and generator weights together, so that the result can leave what the generator draws.

    min over z of ‖A G(z; θ) − y‖², then over z and θ from there (Hussein et al. 2020, sections 3 and 4), Adam, images in [-1, 1];
    optionally back-projected at the end: x + A⁺(y − A x), which measures exactly as y does. BatchNorm keeps the statistics of
    training.
    """

    title: ClassVar[str] = "IAGAN"
    order: ClassVar[int] = 48
    citation: ClassVar[str] = "S. A. Hussein, T. Tirer, R. Giryes, Image-Adaptive GAN based Reconstruction, AAAI 2020"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "live": {},
        "low-shot paper": {"restarts": 1, "latent_iterations": 1700, "joint_iterations": 350, "joint_learning_rate": 1e-4},
        "as released": {"restarts": 5, "latent_iterations": 1800, "joint_iterations": 300, "joint_learning_rate": 1e-3},
        "as released, back-projected": {
            "restarts": 5,
            "latent_iterations": 1800,
            "joint_iterations": 300,
            "joint_learning_rate": 1e-3,
            "back_project": True,
        },
    }

    kind: Literal["iagan"] = "iagan"
    latent_iterations: int = setting(400, "Steps of Adam on the latents alone.", ge=0, le=20_000, main=True, log=True)
    joint_iterations: int = setting(350, "Steps of Adam on latent and weights.", ge=0, le=20_000, main=True, log=True)
    restarts: int = setting(2, "Random latents to start from, in one batch; the best by measurement error goes on.", ge=1, le=64)
    latent_learning_rate: float = setting(0.1, "Step size of the latent stage.", ge=1e-5, le=1.0, log=True)
    joint_learning_rate: float = setting(3e-4, "Step size of the weights in the joint stage.", ge=1e-7, le=1.0, log=True)
    joint_latent_learning_rate: float = setting(1e-4, "Step size of the latent in the joint stage.", ge=1e-7, le=1.0, log=True)
    prior_weight: float = setting(0.0, "Weight of ‖z‖² in the latent stage.", ge=0, le=100)
    back_project: bool = setting(
        False, "Return x + A⁺(y − A x): exact on what was measured. For measurements without noise.", main=True
    )

    def accepts(self, problem: Problem) -> str | None:
        reason = super().accepts(problem)
        model = problem.model
        if reason is None and self.back_project and not (isinstance(model, LinearModel) and model.has_pinv):
            return f"{self.title}: this measurement has no pseudo-inverse to project back with. Switch “Back project” off."
        return reason

    def _solve(self, problem: Problem, seed: int, prepared: Drawing) -> Iterator[Step]:
        compute = choose(self.precision, problem.device)
        network = prepared.network(compute)
        total = self.latent_iterations + self.joint_iterations
        search = latent_search(
            problem,
            network,
            prepared,
            compute,
            restarts=self.restarts,
            iterations=self.latent_iterations,
            learning_rate=self.latent_learning_rate,
            prior_weight=self.prior_weight,
            seed=seed,
            title=self.title,
            total=total,
        )
        for now, place in search:
            z = place.z.index_select(0, place.best())
            step = replace(now, estimate=self._estimate(problem, now.output))
            yield step
        z.requires_grad_()
        weights = list(network.requires_grad_(True).parameters())
        groups: list[dict[str, Any]] = [{"params": [z], "lr": self.joint_latent_learning_rate}, {"params": weights}]
        adam = torch.optim.Adam(groups, lr=self.joint_learning_rate, fused=True)
        for iteration in range(self.latent_iterations + 1, total + 1):
            image = to_unit(network(compute.activations(z)))
            loss = misfits(problem, image)
            if due(iteration, total):
                finite(loss.sum(), self.title, iteration)
            adam.zero_grad(set_to_none=True)
            loss.sum().backward()
            adam.step()
            output = image.detach()
            step = Step(iteration, total, "solve", output, self._estimate(problem, output), loss.detach(), "joint")
            yield step
        if self.joint_iterations:  # as the last update left it
            with torch.no_grad():
                output = to_unit(network(compute.activations(z)))
            step = replace(step, output=output, estimate=self._estimate(problem, output), objective=misfits(problem, output))
        yield replace(step, stage="result", info={"returns": total})

    def _estimate(self, problem: Problem, image: torch.Tensor | None) -> torch.Tensor:
        assert image is not None
        if not self.back_project:
            return image
        model = problem.model
        assert isinstance(model, LinearModel)
        return image + model.pinv(problem.measurement - model.forward(image))
