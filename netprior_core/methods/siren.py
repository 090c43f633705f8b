"""SIREN, untrained: a coordinate network fitted to the one measurement."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, ClassVar, Literal

import torch

from netprior_core.methods._common import due, finite, squares
from netprior_core.methods._start import start_setting
from netprior_core.methods.base import Method
from netprior_core.methods.metadip import SIREN_TRAINED, refusal, shipped, siren
from netprior_core.networks.metadip import picture
from netprior_core.networks.seeded import seeded
from netprior_core.networks.siren import Siren, coordinates
from netprior_core.problem import Problem, Step, to_unit
from netprior_core.settings import setting


class UntrainedSiren(Method):
    """SIREN: fit a network that maps the coordinates of a pixel to its colour, with sines for activations.

    min over θ of (1/m) ‖A x − y‖², x the image f(p; θ) over all pixels p, Adam; the estimate is the last iterate. The frequency ω0
    decides how fine the detail is that appears first: the network is a prior for smooth images only as long as it is stopped
    early, and it has no regularisation of its own.

    "Sitzmann et al.": section 4.1 and the authors' code, coordinates and colours in [−1, 1], so x = (f + 1)/2. "learnit": the SIREN
    of Tancik et al. (2021), learned initializations, which MetaDIP's MetaSIREN uses: ω0 = 200, coordinates in [0, 1), biases 0,
    x = f + 1/2. The network computes in float32: a phase of ω0 times a rounded number would be noise in bfloat16.

    Started from "meta-learned", the network is MetaSIREN's with its learned weights, fitted by Adam in place of MetaSIREN's few
    large steps; width, layers, ω0 and convention are then those of its file. A grey image is the mean of its three channels.
    """

    title: ClassVar[str] = "SIREN"
    family: ClassVar[str] = "Untrained"
    order: ClassVar[int] = 14
    citation: ClassVar[str] = (
        "V. Sitzmann, J. Martel, A. Bergman, D. Lindell, G. Wetzstein, "
        "Implicit Neural Representations with Periodic Activation Functions, NeurIPS 2020"
    )
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "Sitzmann et al.": {},
        "learnit": {"omega": 200.0, "convention": "learnit"},
    }

    kind: Literal["siren"] = "siren"
    start: Literal["random", "meta-learned"] = start_setting("random", "random", "meta-learned")
    iterations: int = setting(1000, "Stop after so many steps of Adam.", ge=1, le=50_000, main=True, log=True)
    learning_rate: float = setting(1e-4, "Step size of Adam.", ge=1e-7, le=1.0, log=True)
    omega: float = setting(
        30.0,
        "Factor before every sine: the highest frequencies at the start.",
        ge=1,
        le=1000,
        label="ω0",
        main=True,
        when=("start", "random"),
    )
    width: int = setting(256, "Units of every hidden layer.", ge=4, le=1024, when=("start", "random"))
    layers: int = setting(5, "Linear layers, the last without a sine.", ge=2, le=12, when=("start", "random"))
    convention: Literal["Sitzmann", "learnit"] = setting(
        "Sitzmann",
        "Sitzmann: coordinates in [−1, 1], x = (f + 1)/2, random biases. learnit: in [0, 1), x = f + 1/2, biases 0.",
        when=("start", "random"),
    )

    def accepts(self, problem: Problem) -> str | None:
        learned = refusal("metasiren", self.title, SIREN_TRAINED) if self.start == "meta-learned" else None
        return super().accepts(problem) or learned

    def _solve(self, problem: Problem, seed: int, prepared: Any) -> Iterator[Step]:
        channels, height, width = problem.shape
        learned = self.start == "meta-learned"
        learnit = learned or self.convention == "learnit"
        generator = torch.Generator().manual_seed(seed)
        if learned:
            prior = shipped("metasiren", SIREN_TRAINED)
            network = siren(prior.card, generator)
            prior.load_into(network)
        else:
            network = seeded(lambda: Siren(channels, layers=self.layers, width=self.width, omega=self.omega), generator)
            network.initialise(generator, zero_bias=learnit)
        network.to(problem.device)
        grid = coordinates(height, width, signed=not learnit).to(problem.device)
        adam = torch.optim.Adam(network.parameters(), lr=self.learning_rate, fused=True)
        for iteration in range(1, self.iterations + 1):
            values = network(grid)
            image = picture(values + 0.5, channels, height, width) if learnit else to_unit(values)
            loss = squares(problem.model.forward(image) - problem.measurement).mean()
            if due(iteration, self.iterations):
                finite(loss, self.title, iteration)
            adam.zero_grad(set_to_none=True)
            loss.backward()
            adam.step()
            step = Step(iteration, self.iterations, "solve", image.detach(), image.detach(), loss.detach()[None])
            yield step
        yield replace(step, stage="result", info={"returns": self.iterations})
