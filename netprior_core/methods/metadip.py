"""MetaDIP and MetaSIREN: networks whose start was learned, so that few steps of gradient descent suffice."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import field_validator

from netprior_core import priors
from netprior_core.compute import Precision, choose, precision_setting
from netprior_core.errors import MissingPrior
from netprior_core.methods._common import due, finite, squares
from netprior_core.methods._start import start_setting
from netprior_core.methods.base import Method
from netprior_core.muon import orthogonalised
from netprior_core.networks.metadip import MetaUNet, noise_map, picture
from netprior_core.networks.seeded import seeded
from netprior_core.networks.siren import Siren, coordinates
from netprior_core.operators.base import ForwardModel
from netprior_core.problem import Problem, Step
from netprior_core.settings import setting

#: Part of every key: raised when the meaning of the weights changes, so that older files are not found any more.
RECIPE = 1
#: Inner loop, in training and here: total variation, momentum, steps that are differentiated.
TV_WEIGHT, MOMENTUM, LEARNED_STEPS = 0.03, 0.9, 20
#: |d| is smoothed to √(d² + δ²) − δ inside the total variation, so that it can be differentiated twice.
TV_ROUNDING = 0.01
#: Orthogonalised steps: the first one, their rate at step 0, the step by which rates have come down to the share that is held.
LEARNED_ALONE, ORTHOGONAL_RATE, FADED, FAINT = 5, 0.01, 50, 0.05
#: With caution, a step is taken back where it raised the loss by more than this factor; halved rates grow back by the other.
WORSE, RECOVERY = 1.1, 1.1
#: Fields that stand for typical differences of pictures when an operator's gain is measured.
GAIN_PROBES = 4

#: What MetaSIREN's start was learned from.
SIREN_TRAINED = "faces σ = 25"
Trained = Literal["faces σ = 25", "mixed"]
#: The name of a choice in older experiments and links, which keys still hold.
FORMERLY = {("metadip", "faces σ = 25"): "faces σ = 25 (as published)"}
Start = Literal["random", "meta-learned"]


def key(kind: str, trained: str) -> str:
    """Under which a checkpoint is found."""
    return priors.key_of(method=kind, trained=FORMERLY.get((kind, trained), trained), recipe=RECIPE)


def gain(model: ForwardModel) -> float:
    """‖A(x + d) − A(x)‖² / ‖d‖², averaged over a few smooth d around a grey x: by how much the operator amplifies differences.

    One for denoising, nearly one for compressed sensing with entries N(0, 1/m), m/n for inpainting. The data term is divided by
    it and by n, so that one set of step sizes suits every operator, whatever its scale; for denoising and inpainting that is
    the mean over the m measurements. It depends on A alone.
    """
    channels, height, width = model.shape
    generator = torch.Generator().manual_seed(0)
    total = 0.0
    with torch.no_grad():
        grey = torch.full((1, channels, height, width), 0.5, device=model.device, dtype=model.dtype)
        base = model.forward(grey)
        for _ in range(GAIN_PROBES):
            d = torch.zeros(1, channels, height, width)
            for side in (2, 4, 8):
                coarse = torch.randn((1, channels, side, side), generator=generator) * 0.2 / side**0.5
                d += F.interpolate(coarse, (height, width), mode="bilinear", align_corners=False)
            d = d.to(grey)
            total += float(squares(model.forward(grey + d) - base).sum() / squares(d).sum())
    return max(total / GAIN_PROBES, 1e-12)


def inner_loss(image: torch.Tensor, forward: Callable[[torch.Tensor], torch.Tensor], y: torch.Tensor, scale: float) -> torch.Tensor:
    """‖A f − y‖² / scale + λ TV(f)/n, scale being n times the operator's :func:`gain`; a scalar."""
    down, across = image[..., 1:, :] - image[..., :-1, :], image[..., :, 1:] - image[..., :, :-1]
    variation = sum((d.square() + TV_ROUNDING**2).sqrt().sum() for d in (down, across))
    return squares(forward(image) - y).sum() / scale + TV_WEIGHT / image.numel() * variation


@torch.no_grad()
def inner_step(
    weights: Sequence[torch.Tensor],
    velocity: Sequence[torch.Tensor],
    slopes: Sequence[torch.Tensor],
    rates: Sequence[float],
    orthogonal: bool = False,
) -> None:
    """One step of the inner loop, in place: v ← μ v + g; θ ← θ − α v, with a rate α for each tensor.

    ``orthogonal``: θ ← θ − α d(g + μ v), d being :func:`orthogonalised`, for tensors of more than one dimension.
    """
    torch._foreach_mul_(list(velocity), MOMENTUM)
    torch._foreach_add_(list(velocity), list(slopes))
    moves = list(velocity)
    if orthogonal:
        moves = [orthogonalised(g + MOMENTUM * v) if v.dim() > 1 else v for v, g in zip(velocity, slopes, strict=True)]
    torch._foreach_add_(list(weights), torch._foreach_mul(moves, [-rate for rate in rates]))


@dataclass
class Fit:
    """A network to fit: its weights, what draws the picture, and the rates of each step and tensor ``(steps, tensors or 1)``.

    ``orthogonal``: after LEARNED_ALONE steps convolutions move along orthogonalised momenta, and all rates fade, since the length
    of such a step does not shrink with the gradient. ``cautious``: steps that raise the loss are taken back.
    """

    module: torch.nn.Module
    draw: Callable[[], torch.Tensor]
    rates: torch.Tensor
    orthogonal: bool = False
    cautious: bool = False

    def is_orthogonal(self, step: int) -> bool:
        """Whether the step-th update, from 0, goes along orthogonalised momenta."""
        return self.orthogonal and step >= LEARNED_ALONE

    def rates_of(self, step: int) -> list[float]:
        """The rates of the step-th update, from 0: after the learned steps the last ones, held."""
        weights = list(self.module.parameters())
        row = self.rates[min(step, len(self.rates) - 1)].tolist()
        row = row if len(row) == len(weights) else row * len(weights)
        if not self.is_orthogonal(step):
            return row
        share = max(FAINT, 1 - step / FADED)
        return [share * (ORTHOGONAL_RATE if w.dim() > 1 else rate) for w, rate in zip(weights, row, strict=True)]


def descend(problem: Problem, fit: Fit, iterations: int, title: str) -> Iterator[Step]:
    """The inner loop as steps: iteration k shows f(θ_k), from the start k = 0 on.

    With caution, iteration k shows the last θ that did not raise the loss, and goes on from there with half the rates, at rest.
    """
    weights: list[torch.Tensor] = list(fit.module.parameters())
    velocity = [torch.zeros_like(w) for w in weights]
    scale = gain(problem.model) * problem.model.n
    kept: tuple[torch.Tensor, list[torch.Tensor], tuple[torch.Tensor, ...], torch.Tensor] | None = None
    share = 1.0
    for iteration in range(iterations + 1):
        image = fit.draw()
        loss = inner_loss(image, problem.model.forward, problem.measurement, scale)
        slopes = torch.autograd.grad(loss, weights) if iteration < iterations else ()
        loss, output = loss.detach(), image.detach()
        if fit.cautious:
            if kept is not None and not bool(loss <= WORSE * kept[0]):  # nor is NaN
                loss, before, slopes, output = kept
                with torch.no_grad():
                    torch._foreach_copy_(weights, before)
                    torch._foreach_zero_(velocity)
                share /= 2
            else:
                kept = loss, [w.detach().clone() for w in weights], slopes, output
                share = min(1.0, share * RECOVERY)
        if iteration == 0 or due(iteration, iterations):
            finite(loss, title, iteration)
        if iteration < iterations:
            rates = [share * rate for rate in fit.rates_of(iteration)]
            inner_step(weights, velocity, slopes, rates, fit.is_orthogonal(iteration))
        step = Step(iteration, iterations, "solve", output, output, loss[None])
        yield step
    yield replace(step, stage="result", info={"returns": iterations})


def shipped(kind: str, trained: str) -> priors.Prior:
    """The learned start. Raises MissingPrior, in words, when its file is not there."""
    found = priors.find(key(kind, trained))
    if found is None:
        raise MissingPrior(f"The learned weights '{trained}' are not in the checkpoints folder.")
    return found


def refusal(kind: str, title: str, trained: str) -> str | None:
    """Why a method cannot start from these learned weights, in a sentence for a person, or None when they are there."""
    if key(kind, trained) in priors.shipped():
        return None
    try:
        shipped(kind, trained)
    except MissingPrior as error:
        command = f"python -m netprior_core train {kind}" + (" --mixed" if trained == "mixed" else "")
        return f"{title}: {error} Choose what else the start was learned from, or train it: {command}."
    return None


class MetaDIP(Method):
    """MetaDIP: a UNet whose start was meta-learned on denoising, so that 50 steps do what takes DIP hundreds, for any operator.

    Minimises ‖A f(z; θ) − y‖² / (n g) + λ TV(f) / n over θ by gradient descent with momentum from the learned θ₀, with a learned
    rate for each of the first 20 steps and each tensor of weights; after that the last rates are held (the paper differentiates 20
    steps, takes 50, and does not say). g is the operator's gain: 1 for denoising, so that one setting serves every operator. No
    averaging of outputs. A grey image is the mean of the network's three channels.

    z is part of the checkpoint: a noise map, with further fixed draws beside it on larger images, and Fourier features with
    wavelengths in pixels. The result does not depend on the seed, unless the start is random.

    "faces σ = 25" follows the published recipe: θ₀ from denoising faces. It was learned on 64×64 crops of faces (Labeled Faces in
    the Wild), the paper's on centre crops of 128×128 (CelebA). The outer loss weighs steps 5 and 10 a little, too, where the
    paper's is of the last step alone, and the inner loop grew from 8 to 20 steps in training. "mixed" is ours: θ₀ learned on from
    there with several operators and noise levels, faces and natural patches (378 steps).

    Steps after the learned ones, measured at 128×128, σ = 25, four held-out faces and patches each, after 50 steps: with held rates
    32.1 and 26.1 dB in denoising, 31.6 and 25.4 dB in compressed sensing at 1/4; with rates that shrink by 5% a step 0.4 to 0.6 dB
    less; the mean of the outputs from step 20 on 0.4 to 0.7 dB less. At 64×64 faces are best near step 20, then noise is fitted.

    The preset "mixed" goes further along orthogonalised momenta (``orthogonal``, Muon): after five learned steps each convolution
    moves by α (1 − k/50) times about U Vᵀ of its momentum U S Vᵀ, so that directions in which the gradient is weak, which draw fine
    detail, move as far as the strong ones. Mean over two held-out faces and two patches at 128×128, learned rates (doubled after
    step 20, which is best for them) → orthogonalised: denoising σ = 15 29.0 → 30.4 dB, compressed sensing at 1/8 26.7 → 26.9,
    phase retrieval at 1/8 26.7 → 26.6 dB. There α = 0.01 to 0.02 are level; from step 0 or 3 on σ = 15 gains 0.2 dB more and
    compressed sensing loses 0.2 to 0.5; from step 20 on half of the gain is left; without fading 0.5 to 1.2 dB are lost. Half and
    twice the TV are level, and so is a start learned on with such steps (125 outer steps at 96×96). Channels and skips 1.5 and 2
    times as wide, those added at random, take 1.8 and 2.9 times as long for +0.3 and +0.6 dB in denoising σ = 15, −0.1 and −0.4 dB
    in compressed sensing. Meant for 50 steps: after 100 noise is fitted.

    Learned rates overshoot on some pictures, most of all on contrasty ones. ``cautious``, ours, not the paper's, takes back steps
    that raise the loss: of 50 faces at σ = 15 two went from 19.8 and 21.6 to 29.3 and 31.1 dB. Nothing changes where no step does.
    """

    title: ClassVar[str] = "MetaDIP"
    family: ClassVar[str] = "Meta-learned"
    order: ClassVar[int] = 50
    citation: ClassVar[str] = (
        "K. Zhang, M. Xie, M. Gor, Y. Chen, Y. Zhou, C. Metzler, MetaDIP: Accelerating Deep Image Prior with Meta Learning, 2022"
    )
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "cautious (published recipe)": {},
        "published recipe, learned at 64 px": {"cautious": False},
        "mixed": {"trained": "mixed", "orthogonal": True},
        "untrained, as a control": {"start": "random"},
        "continued": {"iterations": 1000},
    }

    kind: Literal["metadip"] = "metadip"
    iterations: int = setting(50, "Stop after so many steps of gradient descent.", ge=1, le=10_000, main=True, log=True)
    trained: Trained = setting(
        "faces σ = 25",
        "What the start was learned from, at 64×64 pixels. mixed, ours: several operators, noise levels and kinds of pictures.",
        label="Learned from",
        main=True,
    )
    start: Start = start_setting("meta-learned", "random", "meta-learned")
    orthogonal: bool = setting(
        False,
        "After five learned steps, move all directions of a convolution's momentum alike (Muon). Fine detail comes much sooner.",
        label="Orthogonalised steps",
    )
    cautious: bool = setting(
        True, "Take a step back where it raised the loss by a tenth, and go on with half the rates: learned ones can be too large."
    )
    precision: Precision = precision_setting()

    @field_validator("trained", mode="before")
    @classmethod
    def _renamed(cls, value: Any) -> Any:
        return next((now for (_, now), before in FORMERLY.items() if value == before), value)

    def accepts(self, problem: Problem) -> str | None:
        return super().accepts(problem) or refusal(self.kind, self.title, self.trained)

    def suited(self, operator: Any) -> MetaDIP:
        return self

    def _solve(self, problem: Problem, seed: int, prepared: Any) -> Iterator[Step]:
        compute = choose(self.precision, problem.device)
        channels, height, width = problem.shape
        prior = shipped(self.kind, self.trained)
        generator = torch.Generator().manual_seed(seed)
        network = seeded(lambda: unet(prior.card), generator)
        if self.start == "meta-learned":
            prior.load_into(network)
        else:
            network.noise.copy_(noise_map(len(network.noise), generator))
        network = compute.module(network)
        first = problem.model.initial(problem.measurement) if network.first else None
        z = compute.activations(network.input(height, width, picture=first))
        fit = Fit(
            network,
            lambda: picture(network(z), channels, height, width),
            prior.tensors["rates"].exp(),
            self.orthogonal,
            self.cautious,
        )
        yield from descend(problem, fit, self.iterations, self.title)


def unet(card: Mapping[str, Any]) -> MetaUNet:
    """The UNet that a card describes. Raises MissingPrior when it describes none."""
    widths = card.get("widths")
    if not isinstance(widths, list) or not 2 <= len(widths) <= 7 or not all(isinstance(w, int) and 0 < w <= 512 for w in widths):
        raise MissingPrior("The prior's card does not say how wide its network is.")
    noise, skip = card.get("noise"), card.get("skip")
    if not (isinstance(noise, int) and isinstance(skip, int) and 0 < noise <= 256 and 0 < skip <= 256):
        raise MissingPrior("The prior's card does not say how wide its network's input and skip branches are.")
    return MetaUNet(widths, noise=noise, skip=skip, first=card.get("first") is True)


class MetaSIREN(Method):
    """MetaSIREN: a coordinate network with a meta-learned start, the same recipe as MetaDIP's but with one fixed rate.

    f maps the coordinates of a pixel, in [0, 1), to its colour, with sines for activations; the image is f + 1/2. The start was
    learned on denoising faces at σ = 25, shrunk to 32×32 and then 64×64; its card says how long. The network is narrower than
    learnit's, which the paper builds on: 5 layers of 128 units and ω0 = 30, where learnit's have 256 units and ω0 = 200. The paper
    found that learning the rates too made the training of this network diverge. It is the weaker prior: little in it ties the
    colours of neighbouring pixels together.
    """

    title: ClassVar[str] = "MetaSIREN"
    family: ClassVar[str] = "Meta-learned"
    order: ClassVar[int] = 51
    citation: ClassVar[str] = (
        "M. Tancik, B. Mildenhall, T. Wang, D. Schmidt, P. Srinivasan, J. Barron, R. Ng, "
        "Learned Initializations for Optimizing Coordinate-Based Neural Representations, CVPR 2021; as in MetaDIP (2022)"
    )
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "published recipe, smaller, 64 px": {},
        "untrained, as a control": {"start": "random"},
    }

    kind: Literal["metasiren"] = "metasiren"
    iterations: int = setting(50, "Stop after so many steps of gradient descent.", ge=1, le=10_000, main=True, log=True)
    start: Start = start_setting("meta-learned", "random", "meta-learned")

    def accepts(self, problem: Problem) -> str | None:
        return super().accepts(problem) or refusal(self.kind, self.title, SIREN_TRAINED)

    def suited(self, operator: Any) -> MetaSIREN:
        return self

    def _solve(self, problem: Problem, seed: int, prepared: Any) -> Iterator[Step]:
        channels, height, width = problem.shape
        prior = shipped(self.kind, SIREN_TRAINED)
        generator = torch.Generator().manual_seed(seed)
        network = siren(prior.card, generator)
        if self.start == "meta-learned":
            prior.load_into(network)
        network.to(problem.device)
        grid = coordinates(height, width, signed=False).to(problem.device)
        fit = Fit(network, lambda: picture(network(grid) + 0.5, channels, height, width), prior.tensors["rates"].exp())
        yield from descend(problem, fit, self.iterations, self.title)


def siren(card: Mapping[str, Any], generator: torch.Generator) -> Siren:
    """The SIREN that a card describes, untrained. Raises MissingPrior when it describes none."""
    width, layers, omega = card.get("width"), card.get("layers"), card.get("omega")
    if not (isinstance(width, int) and isinstance(layers, int) and 0 < width <= 1024 and 2 <= layers <= 12):
        raise MissingPrior("The prior's card does not say how wide its network is.")
    network = seeded(lambda: Siren(3, layers=layers, width=width, omega=float(omega or 30)), generator)
    network.initialise(generator, zero_bias=True)
    return network
