"""How the shipped denoiser was made: a small DRUNet (Zhang et al. 2021) that knows every noise level up to 50, grey and colour."""

from __future__ import annotations

import argparse
import math
import statistics
import time
from pathlib import Path
from typing import Any

import torch

from netprior_core import priors
from netprior_core.bench import machine_words
from netprior_core.compute import choose
from netprior_core.device import pick_device
from netprior_core.metrics import psnr
from netprior_core.networks.drunet import SMALL, DRUNet, denoised
from netprior_core.networks.drunet_weights import adopt_file
from netprior_core.networks.seeded import seeded
from netprior_core.training._cards import write_readme
from netprior_core.training._loop import claimed, keep_state, left_alone, load_state, stretched, train
from netprior_core.training._noisy_patches import LEVELS, STRONGEST, NoisyPatches

SUMMARY = "train the small DRUNet on photographs and faces and write checkpoints/denoiser-small.safetensors"
FILE = "denoiser-small.safetensors"
RECIPE = 1
#: Share of the steps in which the step size rises to its peak.
RISING = 0.02


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument("--data", type=Path, help="folder with restoration/bsds500_train_200.zip and faces/lfw_3000_128x128.zip")
    parser.add_argument("--steps", type=int, default=10_000, help="steps of Adam in the whole fall of the step size")
    parser.add_argument("--minutes", type=float, default=60.0, help="stop after so long; --resume goes on")
    parser.add_argument("--resume", type=Path, help="file with the state of a run: kept there, and gone on from when it is there")
    parser.add_argument("--save-minutes", type=float, default=4.0, help="between two saves, each with a validation")
    parser.add_argument("--batch", type=int, default=8, help="patches a step")
    parser.add_argument("--side", type=int, default=64, help="side of a patch in pixels")
    parser.add_argument(
        "--learning-rate", type=float, default=1e-3, help="peak of the step size (published: 1e-4, many more steps)"
    )
    parser.add_argument("--widths", type=int, nargs="+", default=SMALL["widths"], help="channels of each scale, finest first")
    parser.add_argument("--blocks", type=int, default=SMALL["blocks"], help="residual blocks of each scale")
    parser.add_argument("--level-weight", type=float, default=0.0, help="weak noise counts more: 0 as published, 0.6 for equal dB")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=priors.CHECKPOINTS, help="folder for the file")
    parser.add_argument("--device", default="auto", help="cpu, cuda, mps or auto (default)")
    parser.add_argument("--official", type=Path, help="do not train: keep a published drunet_color.pth or drunet_gray.pth for use")


def run(options: argparse.Namespace) -> None:
    """Train until the steps or the minutes are used up; saves on the way."""
    if options.official is not None:
        print(f"kept as {adopt_file(options.official)}")
        return
    device = pick_device(options.device)
    patches = NoisyPatches(options.data, seed=options.seed, batch=options.batch, side=options.side)
    network = {**SMALL, "widths": options.widths, "blocks": options.blocks}
    trainer = Trainer(
        patches,
        device,
        steps=options.steps,
        learning_rate=options.learning_rate,
        seed=options.seed,
        network=network,
        level_weight=options.level_weight,
    )
    train(trainer, options, lambda: _keep(trainer, options))


def _keep(trainer: Trainer, options: argparse.Namespace) -> None:
    print(f"step {trainer.step} of {trainer.steps}, {trainer.seconds / 60:.1f} min: {trainer.validate()}", flush=True)
    path = options.out / FILE
    ours = claimed(path, trainer, trainer.step)  # before the state, which says so
    if options.resume is not None:
        trainer.keep(options.resume)
    if not ours:
        print(left_alone(path), flush=True)
        return
    priors.save(path, trainer.tensors(), trainer.card(trainer.command()))
    write_readme(options.out)


class Trainer:
    """The network, its moving average, Adam and how many steps were done: all that a run needs to go on exactly.

    Mean absolute error of D(x + e, σ) against x, weighted by (σ + 2/255)^−``level_weight``; the step size rises over the first
    steps and falls along a cosine to zero; the patches and the step size are functions of the step alone. The moving average of
    the weights, over the last tenth or so of the steps done (its decay at step k is (k + 1)/(k + 10), at most 0.9995), is what is
    validated and written.
    """

    def __init__(
        self,
        patches: NoisyPatches,
        device: torch.device,
        *,
        steps: int,
        learning_rate: float = 1e-3,
        seed: int = 0,
        network: dict[str, Any] | None = None,
        level_weight: float = 0.0,
    ) -> None:
        self.level_weight = level_weight
        self.patches, self.steps, self.learning_rate, self.seed = patches, steps, learning_rate, seed
        self.settings = SMALL if network is None else network
        self.compute = choose("auto", device)
        self.network = self.compute.module(seeded(lambda: DRUNet(**self.settings), seed))
        self.average = self.compute.module(seeded(lambda: DRUNet(**self.settings), seed)).requires_grad_(False)
        self.adam = torch.optim.Adam(self.network.parameters(), lr=learning_rate, betas=(0.9, 0.99), fused=True)
        self.step, self.seconds = 0, 0.0
        self.owns = ""  # the file of weights that this run wrote or goes on from, and may write over
        #: Where each stretch of the training began, its steps in all, and its learning rate.
        self.stretches: list[tuple[int, int, float]] = [(0, steps, learning_rate)]
        self.curve: list[list[float]] = []
        self.metrics: dict[str, Any] = {}
        self._validation: list[tuple[str, float, torch.Tensor, torch.Tensor]] | None = None

    def rate(self) -> float:
        """The step size of the step to come."""
        share = self.step / self.steps
        if share < RISING:
            return self.learning_rate * (0.1 + 0.9 * share / RISING)
        return self.learning_rate * (1 + math.cos(math.pi * (share - RISING) / (1 - RISING))) / 2

    def advance(self) -> None:
        """One step of Adam and of the moving average."""
        start = time.perf_counter()
        for group in self.adam.param_groups:
            group["lr"] = self.rate()
        batch = self.patches.batch(self.step)
        clean, noisy, sigma, grey = (value.to(self.compute.device) for value in (batch.clean, batch.noisy, batch.sigma, batch.grey))
        found = self.network(noisy, sigma, self.compute.dtype)
        # What comes out for a grey picture is the mean of three channels: it is also what is taught.
        found = torch.where(grey.view(-1, 1, 1, 1), found.mean(dim=1, keepdim=True), found)
        # Weak noise leaves small errors: divided by their usual size, ~ σ^0.6, a decibel would count the same at every level.
        weight = (STRONGEST / 255 / (sigma + 2 / 255)) ** self.level_weight
        loss = (weight.view(-1, 1, 1, 1) * (found - clean).abs()).mean()
        self.adam.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.adam.step()
        decay = min(0.9995, (self.step + 1) / (self.step + 10))
        mine, theirs = ([p.detach() for p in module.parameters()] for module in (self.average, self.network))
        torch._foreach_lerp_(mine, theirs, 1 - decay)
        self.step += 1
        self.seconds += time.perf_counter() - start

    @torch.no_grad()
    def validate(self) -> str:
        """Mean PSNR over the held-out pictures by colour and σ, into the curve and the metrics; in words."""
        if self._validation is None:
            self._validation = self.patches.validation()
        scores: dict[str, list[float]] = {}
        for name, level, noisy, clean in self._validation:
            noisy, clean = noisy.to(self.compute.device), clean.to(self.compute.device)
            found = denoised(self.average, noisy, level / 255, self.compute.dtype)
            scores.setdefault(f"{name} {level:g}", []).append(psnr(found, clean).item())
        means = {name: statistics.fmean(values) for name, values in scores.items()}
        for kind in ("colour", "grey"):
            self.metrics[f"{kind}, held-out pictures, σ = 15 / 25 / 50, dB"] = " / ".join(
                f"{means[f'{kind} {level}']:.2f}" for level in LEVELS if f"{kind} {level}" in means
            )
        self.curve.append([round(self.seconds / 60, 1), self.step, round(statistics.fmean(means.values()), 2)])
        return "; ".join(f"{name} {value:.2f}" for name, value in means.items())

    def command(self) -> str:
        """What to type for the whole training, stretch by stretch."""
        network = f"--widths {' '.join(map(str, self.settings['widths']))} --blocks {self.settings['blocks']}"
        resume = " --resume STATE" if len(self.stretches) > 1 else ""
        ends = [*(first for first, _, _ in self.stretches[1:]), self.stretches[-1][1]]
        lines = []
        for (_, steps, rate), end in zip(self.stretches, ends, strict=True):
            line = f"python -m netprior_core train denoiser --data DIR --steps {steps} --minutes 600 --batch {self.patches.count} "
            line += f"--side {self.patches.side} --learning-rate {rate:g} {network} --level-weight {self.level_weight:g} "
            lines.append(f"{line}--seed {self.seed}{resume}" + (f" (ended at step {end})" if end < steps else ""))
        return " && ".join(lines)

    def tensors(self) -> dict[str, torch.Tensor]:
        """The averaged weights under the names of the shipped file."""
        return {f"network.{name}": value.contiguous() for name, value in self.average.state_dict().items()}

    def card(self, command: str) -> dict[str, Any]:
        """What the shipped file says of itself."""
        where = machine_words(self.compute.device)
        points = self.curve[:: max(1, math.ceil(len(self.curve) / 8))]
        curve = ", ".join(f"{decibels:.2f} dB after {minutes:g} min" for minutes, _, decibels in points)
        done = "" if self.step >= self.steps else f" (of {self.steps} planned: cut short)"
        widths = ", ".join(map(str, self.settings["widths"]))
        count = sum(p.numel() for p in self.network.parameters())
        return {
            "key": priors.key_of(None, method="denoiser", recipe=RECIPE),
            "recipe": RECIPE,
            "method": "denoiser",
            "title": "Small DRUNet: denoiser for colour and grey, σ up to 50 of 255",
            "network": f"DRUNet without biases, widths {widths}, {self.settings['blocks']} blocks, {count:,} parameters",
            "shape": ["1 or 3", "any height", "any width"],
            "settings": self.settings,
            "data": f"{self.patches.side}×{self.patches.side} {self.patches.data}; batch {self.patches.count}",
            "terms": self.patches.terms,
            "steps": f"{self.step}{done}",
            "seed": self.seed,
            "seconds": round(self.seconds),
            "machine": where,
            "command": command,
            "metrics": {**self.metrics, "mean of all these": curve, "on": f"{where}, shared with other work"},
            "curve": self.curve,
        }

    def keep(self, path: Path) -> None:
        """Write the state, all or nothing."""
        about = {**self._identity(), "step": self.step, "seconds": self.seconds, "curve": self.curve, "stretches": self.stretches}
        keep_state(path, self._modules(), self.adam, {**about, "owns": self.owns})

    def resume(self, path: Path) -> None:
        """Go on from a state, with other steps in all or another learning rate where these changed: the card says so.

        Raises InvalidSettings when it is not one, or of another seed, network or batch.
        """
        about = load_state(path, self._modules(), self.adam, self.compute, self._identity())
        self.step, self.seconds, self.curve = about["step"], about["seconds"], about["curve"]
        self.owns = about.get("owns", "")
        known = about.get("stretches") or [(0, self.step, self.learning_rate)]  # states of before have none
        self.stretches = stretched(known, (self.step, self.steps, self.learning_rate))

    def _modules(self) -> dict[str, torch.nn.Module]:
        return {"network": self.network, "average": self.average}

    def _identity(self) -> dict[str, Any]:
        """What must be the same for a run to go on."""
        batch = [self.patches.count, self.patches.side]
        return {"task": "denoiser", "seed": self.seed, "network": self.settings, "batch": batch, "level_weight": self.level_weight}
