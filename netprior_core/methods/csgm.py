"""CSGM: search the latents of a trained generator (Bora, Jalal, Price, Dimakis 2017)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, ClassVar, Literal

from netprior_core.compute import choose
from netprior_core.generators import Drawing
from netprior_core.methods._generative import Generative, latent_search
from netprior_core.problem import Problem, Step
from netprior_core.settings import setting


class CSGM(Generative):
    """CSGM: the image that a trained generator can draw whose measurement is nearest to y.

    min over z of ‖A G(z) − y‖² + λ ‖z‖², images in [-1, 1] (Bora et al. 2017, eq. 3), by Adam from several random latents at once;
    the one of least measurement error is returned. The weights never change, so that what the generator cannot draw is never
    found: PSNR stops growing with m (representation error).

    The released code draws A from N(0, 1) and takes the mean of the squared misfits: the same objective as this sum with A ~
    N(0, 1/m), which is the operator's default here. Its digits are in [0, 1], where misfits are a quarter of these: its λ = 0.1 is
    0.4 here. It keeps the restart of least objective, λ ‖z‖² included; the paper's, of least measurement error, is taken here.

    z comes from N(0, I), or for a low-shot prior from the Gaussian of its examples' latents, in whose standard deviations step
    size and λ are then counted.
    """

    title: ClassVar[str] = "CSGM"
    order: ClassVar[int] = 45
    citation: ClassVar[str] = "A. Bora, A. Jalal, E. Price, A. Dimakis, Compressed Sensing using Generative Models, ICML 2017"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "as published, faces": {},
        "as published, digits": {"restarts": 10, "iterations": 1000, "learning_rate": 0.01, "prior_weight": 0.4},
        "low-shot paper's GAN baseline": {"restarts": 1, "iterations": 1700, "prior_weight": 0.0},
        "fast": {"restarts": 4, "iterations": 150},
    }

    kind: Literal["csgm"] = "csgm"
    iterations: int = setting(500, "Steps of Adam on the latents.", ge=1, le=20_000, main=True, log=True)
    restarts: int = setting(
        2, "Random latents to start from, all in one batch; the best by measurement error is returned.", ge=1, le=64, main=True
    )
    learning_rate: float = setting(0.1, "Step size of Adam.", ge=1e-5, le=1.0, log=True)
    prior_weight: float = setting(
        0.001, "Weight λ of ‖z‖²: how much a latent has to look like those the generator was trained with.", ge=0, le=100, main=True
    )

    def _solve(self, problem: Problem, seed: int, prepared: Drawing) -> Iterator[Step]:
        compute = choose(self.precision, problem.device)
        network = prepared.network(compute)
        search = latent_search(
            problem,
            network,
            prepared,
            compute,
            restarts=self.restarts,
            iterations=self.iterations,
            learning_rate=self.learning_rate,
            prior_weight=self.prior_weight,
            seed=seed,
            title=self.title,
            total=self.iterations,
        )
        for step, _ in search:
            yield step
        yield replace(step, stage="result", info={"returns": step.iteration})
