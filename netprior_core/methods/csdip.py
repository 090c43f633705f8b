"""CS-DIP: an untrained DCGAN fitted to compressed measurements."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Generator, Iterator, Mapping
from dataclasses import replace
from typing import Any, ClassVar, Literal, NamedTuple

import torch

from netprior_core import priors
from netprior_core.compute import Precision, choose, precision_setting
from netprior_core.methods._common import due, finite, signed_misfit, total_variation
from netprior_core.methods._learned_regularisation import Form, Regulariser, Statistics, estimate, layers_of
from netprior_core.methods._shots import NAMES, Pretrained
from netprior_core.methods._start import start_setting
from netprior_core.methods.base import Method
from netprior_core.methods.lowshot import LowShot
from netprior_core.networks.dcgan import DCGAN, Layers
from netprior_core.networks.seeded import Scheme, seeded
from netprior_core.problem import Problem, Step, to_unit
from netprior_core.settings import setting

Start = Literal["random", "low-shot"]

_LOW_SHOT = {"layers": "dcgan", "last_k": 1}
_PAIR = {**_LOW_SHOT, "iterations": 500, "channels": 32}
_RELEASED = {"last_k": 51, "select_by": "total loss", "first_weights": "released"}
_LEARNED = {**_RELEASED, "regularisation": "released"}

#: Part of the key of learned statistics: raised when their meaning changes.
RECIPE = 2
#: Learning image q is measured with A and noise of this seed + q: draws of their own, not those of the problem.
LEARNING_SEED = 715_225_741


def baseline_for(ratio: float) -> str:
    """The preset of the low-shot paper's untrained baseline at this m/n: it stops the earlier, the less was measured."""
    return f"low-shot paper's baseline, m/n {'≤ 0.025' if ratio <= 0.025 else '≤ 0.5' if ratio <= 0.5 else '> 0.5'}"


def _share(operator: Any) -> float:
    """m/n of an operator: how much of the image it measures."""
    if operator.kind == "colorization":
        return 1 / 3
    if operator.kind == "super-resolution":
        return 1 / float(operator.factor**2)
    return float(getattr(operator, "ratio", getattr(operator, "keep", 1.0)))


class CSDIP(Method):
    """CS-DIP: fit the weights of an untrained DCGAN generator, its latent fixed, to the measurements, with some total variation.

    min over w of ‖A G(z; w) − y‖² + λ TV(G(z; w)), images in [−1, 1] (so y and its noise double), z ~ N(0, I) fixed, both terms
    summed, TV anisotropic; RMSprop with momentum. The estimate is the iterate of least measurement loss among the last k.
    Restarts draw new weights and a new z; the one of least measurement loss is kept.

    Settings as in appendix A. The released code differs ("as released"): other weights of TV and latents for each data set, and the
    least *total* loss among the last 51. The low-shot paper's untrained baseline stops earlier and returns its last iterate;
    the paper does not mention TV there: the weight of CS-DIP is kept, as without it the fit is several dB worse.

    Weights start as N(0, 0.02²), as for DCGAN (section 3.2 has "Gaussian i.i.d."), which ends several dB above PyTorch's default
    of today. The released code ran with that of PyTorch 0.4, whose BatchNorm scales are U(0, 1) ("as released").

    The first steps of RMSprop are up to a hundred times its step size (its mean square starts at zero, and the momentum adds them
    up). On some pictures, three to six of ten x-rays tried, they leave dark parts grey for good: features die there. "ours, gentle
    start" lets the step size rise over the first 300 iterations, which mends that: 28.2 and 26.2 dB after 500 iterations instead of
    16.6 and 17.9 dB after 300 on two such x-rays (128×128, m = 500), and +0.3 dB on six faces (64×64, m/n = 0.05).

    Learned regularisation (section 3.2) adds λ_L LR(w): the distance of the weights from statistics of networks fitted to
    measurements of similar images, the shots. Each is measured with a draw of A of its own and with the problem's noise, and a
    CS-DIP with these settings is fitted to the measurement: nothing but the measurements is learned from. "published" and
    "released" are the two forms of :class:`Regulariser`; S and T of algorithm 1 are not in the paper, S = 64 is the code's.
    The paper's λ_L (100 for x-rays, 1000 for retinas) suits the released form; the published sum over some 10⁵ weights drowns
    the measurements at 100 (MSE 8 times as large in a trial at 64×64, m = 500), "learned, mild" does not.
    The networks learned from are those of the iterate that would be returned (the released code takes the one nearest to the
    truth, which is not known here). Statistics are kept on disk: a second run starts solving at once.

    With layers "dcgan" this is the generator of low-shot priors, so that the weights can start from one, and z be a draw from the
    Gaussian of its examples' latents; all else stays as it is, BatchNorm included, which normalises by the picture itself. Presets
    "low-shot start" and "untrained, as a control" are the pair that shows what the examples are worth. From ten CelebA faces (ℓ2),
    mean of six others at 64×64, σ = 1: 19.2 → 20.8 dB at m/n = 0.05, 26.2 → 27.4 dB at 0.25, medians of the gains 0.8 and 0.7 dB:
    the means owe most to one face on which the untrained network fails (15.2 → 21.1, 21.8 → 26.8 dB).
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
        "as released, x-ray, learned": {**_LEARNED, "latent": 64, "tv_weight": 0.05, "regularisation_weight": 100.0},
        "as released, retina, learned": {**_LEARNED, "latent": 32, "tv_weight": 0.02, "regularisation_weight": 1000.0},
        "as published, x-ray, learned": {"regularisation": "published", "regularisation_weight": 100.0},
        "as published, retina, learned": {"regularisation": "published", "regularisation_weight": 1000.0},
        "learned, mild": {"regularisation": "published", "regularisation_weight": 0.001},
        "ours, gentle start": {"warm_up": 300},
        "low-shot paper's baseline, m/n ≤ 0.025": {**_LOW_SHOT, "iterations": 350},
        "low-shot paper's baseline, m/n ≤ 0.5": {**_LOW_SHOT, "iterations": 500},
        "low-shot paper's baseline, m/n > 0.5": {**_LOW_SHOT, "iterations": 1000},
        "low-shot start": {**_PAIR, "start": "low-shot"},
        "untrained, as a control": _PAIR,
    }

    kind: Literal["cs-dip"] = "cs-dip"
    start: Start = start_setting("random", "random", "low-shot")
    prior: str = setting(
        "",
        "For a low-shot start: a prior that was learned before, in place of your examples.",
        max_length=80,
        widget="prior",
    )
    iterations: int = setting(1000, "Steps of RMSprop in each restart.", ge=1, le=50_000, main=True, log=True)
    learning_rate: float = setting(1e-3, "Step size of RMSprop.", ge=1e-6, le=1.0, log=True)
    momentum: float = setting(0.9, "Momentum of RMSprop.", ge=0, le=0.999)
    warm_up: int = setting(
        0, "Iterations in which the step size rises to its full value; 0, as published: at once.", ge=0, le=50_000, log=True
    )
    tv_weight: float = setting(0.01, "Weight λ of the total variation.", ge=0, le=100, label="TV weight", main=True)
    last_k: int = setting(20, "Return the best of so many last iterations.", ge=1, le=1000, label="Best of the last")
    select_by: Literal["measurement loss", "total loss"] = setting("measurement loss", "What the best iteration has least of.")
    restarts: int = setting(1, "Independent initialisations tried one after the other; the best fit is kept.", ge=1, le=20)
    latent: int = setting(128, "Length of the fixed latent z.", ge=1, le=512)
    channels: int = setting(64, "Width of the generator (of its last layer, for DCGAN's).", ge=4, le=128, label="Width")
    layers: Layers = setting(
        "cs-dip", "cs-dip: equal widths, 6×6 kernels, as released. dcgan: widths halving, 4×4 kernels, as for low-shot priors."
    )
    first_weights: Literal["gaussian", "released"] = setting(
        "gaussian", "gaussian: N(0, 0.02²). released: PyTorch's defaults of 2018, with BatchNorm scales drawn from U(0, 1)."
    )
    regularisation: Literal["none", "published", "released"] = setting(
        "none",
        "Learned from measurements of the shots. published: a Gaussian over all weights of each layer. "
        "released: over the mean of each tensor.",
        label="Learned regularisation",
    )
    regularisation_weight: float = setting(100.0, "Weight λ_L of the learned regularisation.", ge=0, le=1e6, label="Its weight")
    learning_images: int = setting(10, "Shots to learn from, at most.", ge=1, le=100)
    learning_samples: int = setting(64, "Weights S drawn of each layer in a round.", ge=2, le=4096)
    learning_rounds: int = setting(1000, "Rounds T of drawing weights.", ge=1, le=10_000)
    precision: Precision = precision_setting()

    def accepts(self, problem: Problem) -> str | None:
        if self.start == "low-shot":
            return self._cannot_start(problem)
        if self.regularisation == "none":
            return super().accepts(problem)
        if problem.shots is None or len(problem.shots) == 0:
            return f"{self.title}: learned regularisation learns from measurements of example images: add at least one shot."
        if tuple(problem.shots.shape[1:]) != tuple(problem.shape):
            have, want = ("×".join(map(str, s)) for s in (problem.shots.shape[1:], problem.shape))
            return f"{self.title}: the examples are {have} and the image is {want}. Make them the same size."
        return None

    def _cannot_start(self, problem: Problem) -> str | None:
        """Why there is no low-shot start for these settings, or None."""
        if self.layers != "dcgan":
            return (
                f"{self.title}: a low-shot prior is another network. Set layers to dcgan, or choose the settings “low-shot start”."
            )
        if self.regularisation != "none":
            return f"{self.title}: learned regularisation is of weights that start at random. Choose one of the two."
        low_shot = LowShot(**self._network_settings())
        if (reason := low_shot.accepts(problem)) is not None:
            return f"{self.title}, low-shot start: {reason.removeprefix(f'{low_shot.title}: ')}"
        known = low_shot.learned(None, problem.shape) if self.prior else None
        if known is None:  # of the examples, and of this network
            return None
        title, latent = priors.title_of(self.prior), known.latents.shape[1]
        if known.layers != "dcgan":
            return f"{self.title}: the prior {title} is an {NAMES[known.layers or 'dcgan']}, not a DCGAN. Choose another one."
        if (known.channels, latent) != (self.channels, self.latent):
            return (
                f"{self.title}: the prior {title} has width {known.channels} and latents of {latent}, these settings "
                f"{self.channels} and {self.latent}. Make them the same, or choose another prior."
            )
        return None

    def _network_settings(self) -> dict[str, Any]:
        """What low-shot learning has to know of the network."""
        return {"prior": self.prior, "latent": self.latent, "channels": self.channels, "precision": self.precision}

    def _low_shot(self, problem: Problem) -> LowShot:
        """Whose prior is the start: the chosen one, the shipped one of these examples where it is of this network, or its own."""
        usual, shipped = LowShot(**self._network_settings()), LowShot.preset("shipped", **self._network_settings())
        if self.prior or usual.learned(problem.shots, problem.shape) is not None:
            return usual
        return usual if shipped.learned(problem.shots, problem.shape) is None else shipped

    def suited(self, operator: Any) -> CSDIP:
        if self.layers != "dcgan":
            if (self.preset_name() or "").startswith("as "):
                return self
            names = (
                "warm_up",
                "regularisation",
                "regularisation_weight",
                "learning_images",
                "learning_samples",
                "learning_rounds",
                "precision",
            )
            return type(self)(**{name: getattr(self, name) for name in names})
        kept = ("precision", "channels", *(("start", "prior", "latent") if self.start == "low-shot" else ()))
        return type(self).preset(baseline_for(_share(operator)), **{name: getattr(self, name) for name in kept})

    def key(self, problem: Problem) -> str:
        """Of the learned statistics: a hash of the shots, the operator, the noise and all settings that they depend on."""
        fit = ("iterations", "learning_rate", "momentum", "warm_up", "tv_weight", "latent", "channels", "layers", "first_weights")
        learned = ("last_k", "select_by", "regularisation", "learning_images", "learning_samples", "learning_rounds")
        values = {name: getattr(self, name) for name in (*fit, *learned)}
        kinds = {"operator": problem.operator.model_dump(mode="json"), "noise": problem.noise.model_dump(mode="json")}
        return priors.key_of(problem.shots, recipe=RECIPE, method=self.kind, **kinds, **values)

    def _prepare(self, problem: Problem, seed: int) -> Generator[Step, None, Statistics | Pretrained | None]:
        if self.start == "low-shot":
            return (yield from self._low_shot(problem)._prepare(problem, seed))
        if self.regularisation == "none":
            return None
        key = self.key(problem)
        known = priors.find(key)
        if known is not None:
            count = len(layers_of(self._network(problem, torch.Generator()), self.regularisation))
            kept = Statistics.from_kept(known.tensors, count)
            if kept is not None:
                return kept
        networks = yield from self._learning(problem, self.regularisation)
        draw = torch.Generator().manual_seed(LEARNING_SEED)
        found = estimate(networks, rounds=self.learning_rounds, samples=self.learning_samples, generator=draw)
        assert problem.shots is not None
        if len(networks) == len(problem.shots[: self.learning_images]):  # else: ended early, which is not what the key stands for
            card = {"method": self.kind, "what": "statistics of weights for learned regularisation", "images": len(networks)}
            priors.remember(key, found.as_kept(), card)
        return found

    def _learning(self, problem: Problem, form: Form) -> Generator[Step, None, list[list[torch.Tensor]]]:
        """Fit a network to a measurement of each shot; returns the layers of each. Steps show the shots as drawn now.

        Once a person has seen enough, it ends with the networks that are fitted to the end, of which there is at least one.
        """
        assert problem.shots is not None
        shots = problem.shots[: self.learning_images]
        total = len(shots) * self.iterations
        drawn = torch.full_like(shots, 0.5, device=problem.device)
        networks: list[list[torch.Tensor]] = []
        for q, shot in enumerate(shots):
            phase = f"learning from measurement {q + 1} of {len(shots)}"
            generator = torch.Generator().manual_seed(LEARNING_SEED + q)
            network = self._network(problem, generator)
            least, best, before = math.inf, list[torch.Tensor](), list[torch.Tensor]()
            for i, output, loss, misfit in self._fit(measured(problem, shot[None], LEARNING_SEED + q), network, generator):
                drawn = drawn.index_copy(0, torch.tensor([q], device=problem.device), output)
                late = i > self.iterations - self.last_k
                if late and before and (score := float(self._score(loss, misfit))) < least:
                    least, best = score, before  # the weights that drew this output: it was made before the step
                if i >= self.iterations - self.last_k:
                    before = [layer.detach().cpu().clone() for layer in layers_of(network, form)]
                yield Step(q * self.iterations + i, total, "prepare", drawn, None, loss, phase)
                if networks and problem.enough.is_set():
                    return networks
            networks.append(best or before)
        return networks

    def _solve(self, problem: Problem, seed: int, prepared: Any) -> Iterator[Step]:
        generator = torch.Generator().manual_seed(seed)
        total = self.iterations * self.restarts
        kept: _Best | None = None
        learned = prepared if isinstance(prepared, Statistics) else None
        for restart in range(self.restarts):
            phase = f"restart {restart + 1} of {self.restarts}" if self.restarts > 1 else ""
            best = _Best(self.last_k, before=kept)
            network = self._network(problem, generator)
            z = None
            if isinstance(prepared, Pretrained):
                network.load_state_dict(prepared.weights)
                z = prepared.sample(generator)
            for i, output, loss, misfit in self._fit(problem, network, generator, learned, z):
                iteration = restart * self.iterations + i
                best.add(iteration, output, self._score(loss, misfit), misfit)
                step = Step(iteration, total, "solve", output, best.estimate(), loss, phase)
                yield step
            kept = best
        assert kept is not None
        yield replace(step, stage="result", info={"returns": kept.settled().iteration})

    def _network(self, problem: Problem, generator: torch.Generator) -> DCGAN:
        channels, height, width = problem.shape

        def build() -> DCGAN:
            return DCGAN(height, width, channels, latent=self.latent, channels=self.channels, layers=self.layers)

        scheme: Scheme = "dcgan" if self.first_weights == "gaussian" else "torch 0.4"
        return choose(self.precision, problem.device).module(seeded(build, generator, scheme=scheme))

    def _fit(
        self,
        problem: Problem,
        network: DCGAN,
        generator: torch.Generator,
        learned: Statistics | None = None,
        z: torch.Tensor | None = None,
    ) -> Iterator[tuple[int, torch.Tensor, torch.Tensor, torch.Tensor]]:
        """One restart from ``z`` (1, latent), else a draw: iteration, output in [0, 1], total loss (1,), measurement loss (1,)."""
        z = torch.randn((1, self.latent), generator=generator) if z is None else z
        z = choose(self.precision, problem.device).activations(z)
        rmsprop = torch.optim.RMSprop(network.parameters(), lr=self.learning_rate, momentum=self.momentum)
        regulariser = None
        if learned is not None and self.regularisation != "none" and self.regularisation_weight:
            regulariser = Regulariser(learned, self.regularisation, network)
        for iteration in range(1, self.iterations + 1):
            signed = network(z)
            image = to_unit(signed)
            misfit = signed_misfit(problem, image)
            loss = misfit + self.tv_weight * total_variation(signed) if self.tv_weight else misfit
            if regulariser is not None:
                loss = loss + self.regularisation_weight * regulariser()
            if due(iteration, self.iterations):
                finite(loss, self.title, iteration)
            if iteration <= self.warm_up:
                rmsprop.param_groups[0]["lr"] = self.learning_rate * iteration / self.warm_up
            rmsprop.zero_grad(set_to_none=True)
            loss.backward()
            rmsprop.step()
            yield iteration, image.detach(), loss.detach()[None], misfit.detach()[None]

    def _score(self, loss: torch.Tensor, misfit: torch.Tensor) -> torch.Tensor:
        """What the iteration that is returned has least of."""
        return misfit if self.select_by == "measurement loss" else loss


def measured(problem: Problem, shot: torch.Tensor, seed: int) -> Problem:
    """The problem of a shot ``(1, C, H, W)`` measured as the image was, with A and noise drawn anew from ``seed``."""
    model = problem.operator.build(problem.shape, seed=seed, device=problem.device, dtype=problem.model.dtype, shots=problem.shots)
    with torch.no_grad():
        y = model.measure(shot.to(problem.device), problem.noise, seed=seed + 1_000_003)
    return replace(problem, measurement=y, model=model, noise_std=model.noise_std(problem.noise, y), shots=None)


class Candidate(NamedTuple):
    """What an iteration drew, and how well it fits."""

    iteration: int
    output: torch.Tensor
    score: torch.Tensor
    misfit: torch.Tensor


class _Best:
    """The output of least score among the last k of this restart, unless an earlier restart's has the smaller misfit.

    All without reading a number, for which the processor would have to wait for an accelerator.
    """

    def __init__(self, k: int, before: _Best | None = None) -> None:
        self.last: deque[Candidate] = deque(maxlen=k)
        self.before = before.settled() if before is not None else None

    def add(self, iteration: int, output: torch.Tensor, score: torch.Tensor, misfit: torch.Tensor) -> None:
        self.last.append(Candidate(iteration, output, score, misfit))

    def estimate(self) -> torch.Tensor:
        if len(self.last) == 1:
            output, misfit = self.last[0].output, self.last[0].misfit
        else:
            index = torch.cat([one.score for one in self.last]).argmin()[None]
            output = torch.cat([one.output for one in self.last]).index_select(0, index)
            misfit = torch.cat([one.misfit for one in self.last]).index_select(0, index)
        return output if self.before is None else torch.where(self.before.misfit <= misfit, self.before.output, output)

    def settled(self) -> Candidate:
        """The best of all restarts so far; reads numbers."""
        found = min(self.last, key=lambda one: float(one.score))
        return self.before if self.before is not None and float(self.before.misfit) <= float(found.misfit) else found
