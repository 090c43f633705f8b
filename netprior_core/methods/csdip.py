"""CS-DIP: an untrained DCGAN fitted to compressed measurements."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, ClassVar, Literal

import torch

from netprior_core.compute import Precision, choose, precision_setting
from netprior_core.methods._common import due, finite, signed_misfit, total_variation
from netprior_core.methods.base import Method
from netprior_core.networks.dcgan import DCGAN, Layers
from netprior_core.networks.seeded import seeded
from netprior_core.problem import Problem, Step, to_unit
from netprior_core.settings import setting

_LOW_SHOT = {"layers": "dcgan", "last_k": 1}
_RELEASED = {"last_k": 51, "select_by": "total loss"}


class CSDIP(Method):
    """CS-DIP: fit the weights of an untrained DCGAN generator, its latent fixed, to the measurements, with some total variation.

    min over w of ‖A G(z; w) − y‖² + λ TV(G(z; w)), images in [−1, 1] (so y and its noise double), z ~ N(0, I) fixed, both terms
    summed, TV anisotropic; RMSprop with momentum. The estimate is the iterate of least measurement loss among the last k.
    Restarts draw new weights and a new z; the one of least measurement loss is kept.

    Settings as in appendix A. The released code differs ("as released"): other weights of TV and latents for each data set, and the
    least *total* loss among the last 51. The low-shot paper's untrained baseline stops earlier and returns its last iterate;
    the paper does not mention TV there: the weight of CS-DIP is kept, as without it the fit is several dB worse.

    Neither paper says how weights start: here N(0, 0.02²) as for DCGAN, which ends several dB above PyTorch's default.
    """

    title: ClassVar[str] = "CS-DIP"
    family: ClassVar[str] = "Untrained"
    order: ClassVar[int] = 20
    citation: ClassVar[str] = (
        "D. Van Veen, A. Jalal, M. Soltanolkotabi, E. Price, S. Vishwanath, A. Dimakis, "
        "Compressed Sensing with Deep Image Prior and Learned Regularization, 2018"
    )
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "as published": {},
        "as published, MNIST": {"restarts": 5},
        "as released, x-ray": {**_RELEASED, "latent": 64, "tv_weight": 0.05},
        "as released, retina": {**_RELEASED, "latent": 32, "tv_weight": 0.02},
        "as released, MNIST": {**_RELEASED, "latent": 128, "tv_weight": 0.01, "restarts": 5},
        "low-shot paper's baseline, m/n ≤ 0.025": {**_LOW_SHOT, "iterations": 350},
        "low-shot paper's baseline, m/n ≤ 0.5": {**_LOW_SHOT, "iterations": 500},
        "low-shot paper's baseline, m/n > 0.5": {**_LOW_SHOT, "iterations": 1000},
    }

    kind: Literal["cs-dip"] = "cs-dip"
    iterations: int = setting(1000, "Steps of RMSprop in each restart.", ge=1, le=50_000, main=True, log=True)
    learning_rate: float = setting(1e-3, "Step size of RMSprop.", ge=1e-6, le=1.0, main=True, log=True)
    momentum: float = setting(0.9, "Momentum of RMSprop.", ge=0, le=0.999)
    tv_weight: float = setting(0.01, "Weight λ of the total variation.", ge=0, le=100, label="TV weight", main=True)
    last_k: int = setting(20, "Return the best of so many last iterations.", ge=1, le=1000, label="Best of the last")
    select_by: Literal["measurement loss", "total loss"] = setting("measurement loss", "What the best iteration has least of.")
    restarts: int = setting(1, "Independent initialisations tried one after the other; the best fit is kept.", ge=1, le=20)
    latent: int = setting(128, "Length of the fixed latent z.", ge=1, le=512)
    channels: int = setting(64, "Width of the generator (of its last layer, for DCGAN's).", ge=4, le=128, label="Width")
    layers: Layers = setting("cs-dip", "cs-dip: equal widths, 6×6 kernels, as released. dcgan: widths halving, 4×4 kernels.")
    precision: Precision = precision_setting()

    def suited(self, operator: Any) -> CSDIP:
        baseline = self.layers == "dcgan"
        if not baseline:
            return self if (self.preset_name() or "").startswith("as ") else type(self)(precision=self.precision)
        ratio = getattr(operator, "ratio", 1.0)
        name = "m/n ≤ 0.025" if ratio <= 0.025 else "m/n ≤ 0.5" if ratio <= 0.5 else "m/n > 0.5"
        return type(self).preset(f"low-shot paper's baseline, {name}", precision=self.precision)

    def _solve(self, problem: Problem, seed: int, prepared: Any) -> Iterator[Step]:
        generator = torch.Generator().manual_seed(seed)
        total = self.iterations * self.restarts
        kept: _Best | None = None
        for restart in range(self.restarts):
            phase = f"restart {restart + 1} of {self.restarts}" if self.restarts > 1 else ""
            best = _Best(self.last_k, before=kept)
            for i, output, loss, score in self._fit(problem, generator):
                iteration = restart * self.iterations + i
                best.add(iteration, output, score)
                step = Step(iteration, total, "solve", output, best.estimate(), loss, phase)
                yield step
            kept = best
        assert kept is not None
        yield replace(step, stage="result", info={"returns": kept.iteration()})

    def _fit(self, problem: Problem, generator: torch.Generator) -> Iterator[tuple[int, torch.Tensor, torch.Tensor, torch.Tensor]]:
        """One restart: iteration, output in [0, 1], total loss (1,), the loss to select by (1,)."""
        compute = choose(self.precision, problem.device)
        channels, height, width = problem.shape

        def build() -> DCGAN:
            return DCGAN(height, width, channels, latent=self.latent, channels=self.channels, layers=self.layers)

        network = compute.module(seeded(build, generator, scheme="dcgan"))
        z = compute.activations(torch.randn((1, self.latent), generator=generator))
        rmsprop = torch.optim.RMSprop(network.parameters(), lr=self.learning_rate, momentum=self.momentum)
        for iteration in range(1, self.iterations + 1):
            signed = network(z)
            image = to_unit(signed)
            misfit = signed_misfit(problem, image)
            loss = misfit + self.tv_weight * total_variation(signed) if self.tv_weight else misfit
            if due(iteration, self.iterations):
                finite(loss, self.title, iteration)
            rmsprop.zero_grad(set_to_none=True)
            loss.backward()
            rmsprop.step()
            score = misfit if self.select_by == "measurement loss" else loss
            yield iteration, image.detach(), loss.detach()[None], score.detach()[None]


class _Best:
    """The output of least score among the last k, and among restarts finished before, all without reading a number."""

    def __init__(self, k: int, before: _Best | None = None) -> None:
        self.k = k
        self.last: list[tuple[int, torch.Tensor, torch.Tensor]] = []
        self.before = before.settled() if before is not None else None

    def add(self, iteration: int, output: torch.Tensor, score: torch.Tensor) -> None:
        self.last = [*self.last[-(self.k - 1) :], (iteration, output, score)] if self.k > 1 else [(iteration, output, score)]

    def _candidates(self) -> list[tuple[int, torch.Tensor, torch.Tensor]]:
        return self.last if self.before is None else [self.before, *self.last]

    def _index(self) -> torch.Tensor:
        return torch.cat([score for _, _, score in self._candidates()]).argmin()

    def estimate(self) -> torch.Tensor:
        candidates = self._candidates()
        if len(candidates) == 1:
            return candidates[0][1]
        return torch.cat([output for _, output, _ in candidates]).index_select(0, self._index()[None])

    def iteration(self) -> int:
        return self._candidates()[int(self._index())][0]

    def settled(self) -> tuple[int, torch.Tensor, torch.Tensor]:
        """The best of this restart, to be kept beside the next one's."""
        return self._candidates()[int(self._index())]
