"""GANs with the generator of the low-shot priors: the fully trained end of the data axis."""

from __future__ import annotations

import argparse
import copy
import math
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image

from netprior_core import priors
from netprior_core.bench import machine_words
from netprior_core.compute import choose
from netprior_core.device import pick_device
from netprior_core.errors import InvalidSettings
from netprior_core.generators import RECIPE, generator_key
from netprior_core.methods._shots import build, settle
from netprior_core.muon import Muon
from netprior_core.networks.critic import Critic
from netprior_core.networks.seeded import seeded
from netprior_core.training import _gan_data
from netprior_core.training._cards import GAN_FLOOR, write_readme
from netprior_core.training._gan_data import Images, nearest, sheet, signed, sliced_wasserstein
from netprior_core.training._loop import load_pickled, readable

SUMMARY = "train a GAN on a collection (CelebA faces, MNIST) in --data and write checkpoints/gan-COLLECTION.safetensors"

LATENT = 128
#: Settings of the two losses: R1 of Mescheder et al. 2018 taken every eighth step (Karras et al. 2020, section 3.1), its weight and
#: the step size ours; and as in Gulrajani et al. 2017, algorithm 1. Rate and betas are Adam's.
LOSSES: dict[str, dict[str, Any]] = {
    "r1": {"rate": 2e-4, "betas": (0.5, 0.99), "critic_steps": 1, "penalty": 20.0, "every": 8},
    "wgan-gp": {"rate": 1e-4, "betas": (0.0, 0.9), "critic_steps": 5, "penalty": 10.0, "every": 1},
}
WORDS = {"r1": "non-saturating loss, R1 penalty", "wgan-gp": "Wasserstein loss, gradient penalty"}
OPTIMISERS = {"muon": "orthogonalised gradients (Muon)", "adam": "Adam"}
#: Muon's rate for kernels. Without momentum: with 0.5 of it samples were further off after two minutes (53, not 45).
KERNELS = 0.005
#: Muon's rates fall as 1/√(1 + step/FADE).
FADE = 1000
#: Images on either side of the two-sample distance, latents that BatchNorm's fixed statistics come from, rows of the sample sheet.
JUDGED, SETTLED, SHEET = 500, 512, 8


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument("--collection", choices=_gan_data.choices(), default="celeba", help="what to train on")
    parser.add_argument("--data", type=Path, help="folder with the collection's files")
    parser.add_argument("--loss", choices=tuple(LOSSES), default="r1", help="; ".join(f"{k}: {v}" for k, v in WORDS.items()))
    parser.add_argument(
        "--optimiser", choices=tuple(OPTIMISERS), default="muon", help="; ".join(f"{k}: {v}" for k, v in OPTIMISERS.items())
    )
    parser.add_argument("--minutes", type=float, default=40.0, help="stop after so long; --resume goes on")
    parser.add_argument("--steps", type=int, default=0, help="stop after so many steps in all; 0: by the minutes alone")
    parser.add_argument("--resume", action="store_true", help="go on from the state kept beside the file")
    parser.add_argument("--judge-minutes", type=float, default=4.0, help="between two measurements of quality, each with a save")
    parser.add_argument("--channels", type=int, default=32, help="width of generator and critic")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--size", type=int, default=64, help="pixels a side (digits have 28)")
    parser.add_argument("--limit", type=int, default=0, help="train on the first so many images only")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=priors.CHECKPOINTS, help="folder for the file, its state and its samples")
    parser.add_argument("--device", default="auto", help="cpu, cuda, mps or auto (default)")


def run(options: argparse.Namespace) -> None:
    """Train until the minutes or steps are used up; measures and saves on the way."""
    images = _gan_data.load(options.collection, options.data, options.size, options.limit)
    trainer = Trainer(
        images,
        pick_device(options.device),
        loss=options.loss,
        optimiser=options.optimiser,
        channels=options.channels,
        batch=options.batch,
        seed=options.seed,
    )
    state = options.out / f"gan-{images.name}.state"
    if options.resume and state.exists():
        trainer.resume(state)
        print(f"goes on after step {trainer.step}, {trainer.seconds / 60:.1f} min", flush=True)
    start = judged = shown = time.perf_counter()
    while time.perf_counter() - start < 60 * options.minutes and not 0 < options.steps <= trainer.step:
        trainer.advance()
        now = time.perf_counter()
        if now - shown > 60:
            shown = now
            print(f"step {trainer.step}, {trainer.seconds / 60:.1f} min, {trainer.losses()}", flush=True)
        if now - judged > 60 * options.judge_minutes:
            _keep(trainer, options, state)
            judged = time.perf_counter()
    _keep(trainer, options, state, last=True)


def _keep(trainer: Trainer, options: argparse.Namespace, state: Path, last: bool = False) -> None:
    options.out.mkdir(parents=True, exist_ok=True)
    distance = trainer.judge()
    print(f"step {trainer.step}, {trainer.seconds / 60:.1f} min: sliced Wasserstein distance {distance:.1f}", flush=True)
    trainer.keep(state)
    name = f"gan-{trainer.images.name}"
    command = f"python -m netprior_core train gan --collection {trainer.images.name} --data DIR --loss {trainer.loss}"
    command += f" --optimiser {trainer.optimiser} --channels {trainer.channels}"
    command += f" --batch {trainer.batch} --seed {trainer.seed} --steps {trainer.step} --minutes 6000"
    if trainer.images.name != _gan_data.DIGITS and options.size != 64:
        command += f" --size {options.size}"
    if options.limit:
        command += f" --limit {options.limit}"
    card = trainer.card(command)
    if last:
        found, neighbours = trainer.copies()
        card["metrics"] |= found
        Image.fromarray(neighbours).save(options.out / f"{name}-neighbours.png")
        print(found, flush=True)
    Image.fromarray(sheet(trainer.draw(SHEET**2), SHEET)).save(options.out / f"{name}-samples.png")
    priors.save(options.out / f"{name}.safetensors", trainer.tensors(), {**card, "name": name})
    write_readme(options.out)


class Trainer:
    """Generator, its average, critic, both optimisers, and how far they are: all that a run needs to go on exactly.

    The draws of a step are functions of seed and step alone. With "muon" the kernels of both networks move along orthogonalised
    gradients (ours for a GAN): on 9,500 faces, the distance of :meth:`judge` is 49 after three minutes of one core, and 205 with
    Adam and the same loss.
    """

    def __init__(
        self,
        images: Images,
        device: torch.device,
        *,
        loss: str = "r1",
        optimiser: str = "muon",
        channels: int = 32,
        batch: int = 64,
        seed: int = 0,
    ) -> None:
        self.images, self.loss, self.channels, self.batch, self.seed = images, loss, channels, batch, seed
        self.optimiser, self.settings = optimiser, LOSSES[loss]
        self.compute = choose("auto", device)
        c, h, w = images.shape
        draws = torch.Generator().manual_seed(seed)
        generator = seeded(lambda: build(images.shape, LATENT, channels), draws, scheme="dcgan")
        self.generator = self.compute.module(generator)
        self.critic = self.compute.module(seeded(lambda: Critic(h, w, c, channels=channels), draws))
        self.average = copy.deepcopy(self.generator).requires_grad_(False)
        self.optimisers = {"generator": self._optimiser(self.generator), "critic": self._optimiser(self.critic)}
        self.step, self.seconds = 0, 0.0
        self.curve: list[list[float]] = []
        self.floor = 0.0
        self._losses: list[torch.Tensor] = []

    def _optimiser(self, module: torch.nn.Module) -> torch.optim.Adam | Muon:
        rate = self.settings["rate"]
        if self.optimiser == "muon":
            return Muon(module.parameters(), KERNELS, other_rate=rate, momentum=0.0)
        return torch.optim.Adam(module.parameters(), lr=rate, betas=self.settings["betas"], fused=True)

    def advance(self) -> None:
        """One step of the generator, after one (R1) or five (WGAN-GP) of the critic."""
        start = time.perf_counter()
        draws = torch.Generator().manual_seed(self.seed * 1_000_003 + self.step)
        for _ in range(self.settings["critic_steps"] - 1):
            with torch.no_grad():
                drawn = self.generator(self._latents(draws))
            self._criticise(drawn, draws)
        drawn = self.generator(self._latents(draws))
        critic_loss = self._criticise(drawn.detach(), draws)
        self.critic.requires_grad_(False)
        scores = self.critic(self.compute.activations(drawn))
        loss = F.softplus(-scores).mean() if self.loss == "r1" else -scores.mean()
        self._descend("generator", loss)
        self.critic.requires_grad_(True)
        self._losses = [critic_loss, loss.detach()]
        self.step += 1
        follow(self.average, self.generator, self.step)
        self.seconds += time.perf_counter() - start

    def _criticise(self, drawn: torch.Tensor, draws: torch.Generator) -> torch.Tensor:
        """A step of the critic: the loss, without its penalty."""
        real = self.images.drawn(self.batch, draws).to(self.compute.device)
        on_real, on_drawn = self.critic(self.compute.activations(torch.cat([real, drawn]))).split(self.batch)
        loss = on_drawn.mean() - on_real.mean()
        if self.loss == "r1":
            loss = F.softplus(-on_real).mean() + F.softplus(on_drawn).mean()
        penalised, every = loss, int(self.settings["every"])
        if self.step % every == 0:
            if self.loss == "r1":  # taken every k-th step, k times as strong
                weight = every * self.settings["penalty"] / 2
                penalised = loss + weight * self._slopes(real).square().mean()
            else:
                share = torch.rand((self.batch, 1, 1, 1), generator=draws).to(real.device)
                sizes = self._slopes(torch.lerp(real, drawn, share)).clamp_min(1e-12)
                penalised = loss + self.settings["penalty"] * (sizes - 1).square().mean()
        self._descend("critic", penalised)
        return loss.detach()

    def _slopes(self, images: torch.Tensor) -> torch.Tensor:
        """‖∇D(x)‖ for each image, to be differentiated. In float32: squares of small numbers are summed."""
        images = images.detach().requires_grad_()
        (slopes,) = torch.autograd.grad(self.critic(images).sum(), images, create_graph=True)
        return (slopes.flatten(1).square().sum(dim=1) + 1e-20).sqrt()

    def _descend(self, name: str, loss: torch.Tensor) -> None:
        optimiser = self.optimisers[name]
        getattr(self, name).zero_grad()
        loss.backward()
        if isinstance(optimiser, Muon):
            optimiser.step(faded(self.step))
        else:
            optimiser.step()

    def _latents(self, draws: torch.Generator) -> torch.Tensor:
        return self.compute.activations(torch.randn((self.batch, LATENT), generator=draws))

    def losses(self) -> str:
        """The last ones, in words. Raises InvalidSettings when they are no numbers any more."""
        critic, generator = (float(value) for value in self._losses)
        if critic != critic or generator != generator:
            raise InvalidSettings(f"The losses are no numbers any more at step {self.step}: start again with another --seed.")
        return f"critic {critic:.3f}, generator {generator:.3f}"

    @torch.no_grad()
    def draw(self, count: int, seed: int = 1) -> torch.Tensor:
        """``(count, C, H, W)`` in [-1, 1] of the averaged generator, as its file will draw them, on the CPU."""
        latents = torch.randn((count, LATENT), generator=torch.Generator().manual_seed(seed))
        return torch.cat([self.average(self.compute.activations(part)).cpu() for part in latents.split(64)])

    def judge(self) -> float:
        """Settle the average's BatchNorm; the two-sample distance between its samples and held-out images, into the curve.

        Raises InvalidSettings when what it draws are no numbers any more: then the last good file and state stay.
        """
        generator = torch.Generator().manual_seed(7)
        settle(self.average, self.compute.activations(torch.randn((SETTLED, LATENT), generator=generator)))
        held_out = signed(self.images.held_out[:JUDGED])
        count = len(held_out)
        if not self.floor:
            # Two sets of real images: as near as a perfect generator would come.
            self.floor = sliced_wasserstein(signed(self.images.train[:count]), held_out)
        distance = sliced_wasserstein(self.draw(count, seed=2), held_out)
        if not math.isfinite(distance):
            raise InvalidSettings(f"The generator draws no numbers any more at step {self.step}: start again with another --seed.")
        self.curve.append([self.step, round(self.seconds / 60, 1), round(distance, 1)])
        return distance

    def copies(self) -> tuple[dict[str, Any], Any]:
        """Whether it copies: distances to the nearest training image, of samples and of held-out images; pairs side by side."""
        count = min(200, len(self.images.held_out))
        drawn = self.draw(count, seed=3)
        learned, what = self.images.train, "rms distance to the nearest training image"
        if self.images.mirror:  # it was shown both ways round: a mirrored copy is a copy
            learned, what = torch.cat([learned, learned.flip(-1)]), f"{what}, mirrored or not"
        mine, places = nearest(drawn, learned)
        theirs, _ = nearest(signed(self.images.held_out[:count]), learned)
        found = {
            f"{what}, samples: median (least)": f"{mine.median():.3f} ({mine.min():.3f})",
            f"{what}, held-out images: median (least)": f"{theirs.median():.3f} ({theirs.min():.3f})",
        }
        few = min(10, count)
        closest = mine.argsort()[:few]
        pairs = torch.cat([drawn[closest], signed(learned[places[closest]])])
        return found, sheet(pairs, few)

    def tensors(self) -> dict[str, torch.Tensor]:
        """The averaged generator under the names of the shipped file."""
        return {f"network.{name}": value.float().contiguous() for name, value in self.average.state_dict().items()}

    def card(self, command: str) -> dict[str, Any]:
        """What the file says of itself."""
        where = machine_words(self.compute.device)
        last = self.curve[-1]
        return {
            "key": generator_key(self.images.shape),
            "recipe": RECIPE,
            "method": "gan",
            "title": self.images.title,
            "network": "DCGAN",
            "shape": list(self.images.shape),
            "shots": len(self.images.train),
            "mirrored": self.images.mirror,
            "settings": {
                "channels": self.channels,
                "latent": LATENT,
                "loss": self.loss,
                "optimiser": self.optimiser,
                "batch": self.batch,
            },
            "data": self.images.data,
            "terms": self.images.terms,
            "steps": self.step,
            "seed": self.seed,
            "seconds": round(self.seconds),
            "machine": f"{where}, shared with other work",
            "command": command,
            "loss": f"{WORDS[self.loss]}; {OPTIMISERS[self.optimiser]}",
            "metrics": {
                f"sliced Wasserstein distance × 1000 to {min(JUDGED, len(self.images.held_out))} held-out images, samples": last[2],
                GAN_FLOOR: round(self.floor, 1),
            },
            "curve": self.curve,
        }

    def keep(self, path: Path) -> None:
        """Write the state, all or nothing."""
        partial = path.with_suffix(".partial")
        modules = {"generator": self.generator, "average": self.average, "critic": self.critic}
        tensors = {name: module.state_dict() for name, module in modules.items()}
        optimisers = {name: optimiser.state_dict() for name, optimiser in self.optimisers.items()}
        about = {"step": self.step, "seconds": self.seconds, "curve": self.curve, "floor": self.floor, "made": self._made()}
        torch.save({"modules": tensors, "optimisers": optimisers, **about}, partial)
        partial.replace(path)

    def resume(self, path: Path) -> None:
        """Go on from a state. Raises InvalidSettings when it is none, or of a run with other settings."""
        state = load_pickled(path, self._made())
        with readable(path):
            for name, module in (("generator", self.generator), ("average", self.average), ("critic", self.critic)):
                module.load_state_dict(state["modules"][name])
            for name, optimiser in self.optimisers.items():
                optimiser.load_state_dict(state["optimisers"][name])
            self.step, self.seconds, self.curve, self.floor = state["step"], state["seconds"], state["curve"], state["floor"]

    def _made(self) -> dict[str, Any]:
        shape = list(self.images.shape)
        return {
            "loss": self.loss,
            "optimiser": self.optimiser,
            "channels": self.channels,
            "batch": self.batch,
            "seed": self.seed,
            "shape": shape,
            "images": len(self.images.train),
        }


def faded(step: int) -> float:
    """Share of Muon's rates at a step. Falls for ever, so that nobody has to say beforehand how long a training will be."""
    return float((1 + step / FADE) ** -0.5)


def kept(step: int) -> float:
    """Share of itself that an average of weights keeps at a step: of all its weight half is from the last 7% of the steps."""
    return step / (step + 10)


@torch.no_grad()
def follow(average: torch.nn.Module, module: torch.nn.Module, step: int) -> None:
    """Move the average's weights towards the module's after a step: :func:`kept`."""
    mine: list[torch.Tensor] = list(average.parameters())
    theirs: list[torch.Tensor] = list(module.parameters())
    torch._foreach_lerp_(mine, theirs, 1 - kept(step))
