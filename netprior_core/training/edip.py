"""Supervised pre-training of Educated DIP (Barbano et al. 2021, step 1): min over θ of Σ ‖f(A†y_i; θ) − x_i‖².

For patches each term is divided by ‖A†y_i − x_i‖: the first pictures' errors differ fifty-fold between operators, and with the sum
alone those of large ones decide.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path
from typing import Any

import torch

from netprior_core import priors
from netprior_core.bench import machine_words
from netprior_core.compute import choose
from netprior_core.device import pick_device
from netprior_core.methods.edip import RECIPE, SHIPPED_NETWORK, key_of_task
from netprior_core.metrics import psnr
from netprior_core.networks.edip import EducatedUNet
from netprior_core.networks.seeded import seeded
from netprior_core.training._cards import thinned, write_readme
from netprior_core.training._edip_pairs import Pairs, Patches, Phantoms
from netprior_core.training._loop import claimed, keep_state, left_alone, load_state, train

SUMMARY = "pre-train Educated DIP on generated phantoms or on patches and write checkpoints/edip-TASK.safetensors"

#: A first picture is never taken to be nearer to the truth than this, in mean squared error, where terms are divided by its error.
LEAST_ERROR = 1e-4
#: Share of the steps in which the step size rises to its peak.
RISING = 0.1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument("--task", choices=("tomography", "patches"), default="tomography", help="which prior")
    parser.add_argument("--data", type=Path, help="folder with a zip of photographs (patches only)")
    parser.add_argument("--steps", type=int, default=2000, help="steps of Adam in the whole cycle of the step size")
    parser.add_argument("--minutes", type=float, default=60.0, help="stop after so long; --resume goes on")
    parser.add_argument("--resume", type=Path, help="file with the state of a run: kept there, and gone on from when it is there")
    parser.add_argument("--save-minutes", type=float, default=3.0, help="between two saves, each with a validation")
    parser.add_argument(
        "--learning-rate", type=float, default=2e-3, help="peak of the cycle (published: 5e-4, with forty times the steps)"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=priors.CHECKPOINTS, help="folder for the file")
    parser.add_argument("--device", default="auto", help="cpu, cuda, mps or auto (default)")


def run(options: argparse.Namespace) -> None:
    """Train until the steps or the minutes are used up; saves on the way."""
    device = pick_device(options.device)
    task = Phantoms(device, options.seed) if options.task == "tomography" else Patches(device, options.data, options.seed)
    trainer = Trainer(task, device, steps=options.steps, learning_rate=options.learning_rate, seed=options.seed)
    train(trainer, options, lambda: _keep(trainer, options))


def _keep(trainer: Trainer, options: argparse.Namespace) -> None:
    found = trainer.validate()
    print(f"step {trainer.step} of {trainer.steps}, {trainer.seconds / 60:.1f} min: {found}", flush=True)
    path = options.out / f"edip-{options.task}.safetensors"
    ours = claimed(path, trainer, trainer.step)  # before the state, which says so
    if options.resume is not None:
        trainer.keep(options.resume)
    if not ours:
        print(left_alone(path), flush=True)
        return
    data = " --data DIR" if options.task == "patches" else ""
    rate = f" --learning-rate {trainer.learning_rate:g} --seed {trainer.seed} --minutes 600"
    command = f"python -m netprior_core train edip --task {options.task}{data} --steps {trainer.steps}{rate}"
    priors.save(path, trainer.tensors(), trainer.card(command))
    write_readme(options.out)


class Trainer:
    """The network, Adam, the curve so far, and how many steps were done: all that a run needs to go on exactly.

    The pairs and the step size are functions of the step alone: the step size rises along a cosine to ``learning_rate`` over the
    first tenth of the steps and falls along another to zero ("OneCycle", Smith & Topin 2019).
    """

    def __init__(
        self,
        task: Phantoms | Patches,
        device: torch.device,
        *,
        steps: int,
        learning_rate: float = 2e-3,
        seed: int = 0,
        network: dict[str, Any] | None = None,
    ) -> None:
        self.task, self.steps, self.learning_rate, self.seed = task, steps, learning_rate, seed
        self.settings = SHIPPED_NETWORK if network is None else network
        self.compute = choose("auto", device)
        self.network = self.compute.module(seeded(lambda: EducatedUNet(**self.settings), seed))
        self.adam = torch.optim.Adam(self.network.parameters(), lr=learning_rate, fused=True)
        self.step, self.seconds = 0, 0.0
        self.owns = ""  # the file of weights that this run wrote or goes on from, and may write over
        self.curve: list[list[float]] = []
        self.metrics: dict[str, Any] = {}
        self._validation: dict[str, Pairs] | None = None

    def rate(self) -> float:
        """The step size of the step to come."""
        share = self.step / self.steps
        if share < RISING:
            return self.learning_rate * (0.04 + 0.96 * (1 - math.cos(math.pi * share / RISING)) / 2)
        return self.learning_rate * (1 + math.cos(math.pi * (share - RISING) / (1 - RISING))) / 2

    def advance(self) -> None:
        """One step of Adam."""
        start = time.perf_counter()
        for group in self.adam.param_groups:
            group["lr"] = self.rate()
        z, x = self.task.batch(self.step)
        errors = (self.network(self.compute.activations(z)) - x).square().mean(dim=(1, 2, 3))
        if self.task.balanced:
            errors = errors / (z - x).square().mean(dim=(1, 2, 3)).clamp_min(LEAST_ERROR).sqrt()
        loss = errors.mean()
        self.adam.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.adam.step()
        self.step += 1
        self.seconds += time.perf_counter() - start

    @torch.no_grad()
    def validate(self) -> str:
        """PSNR over the held-out pairs, before and after the network, into the curve and the metrics; in words."""
        if self._validation is None:
            self._validation = self.task.validation()
        words, means = [], []
        for name, (z, x) in self._validation.items():
            found = torch.cat([self.network(self.compute.activations(part)) for part in z.split(4)])
            before, after = psnr(z, x).mean().item(), psnr(found, x).mean().item()
            self.metrics[f"{name}, dB"] = f"{before:.2f} → {after:.2f}"
            words.append(f"{name} {before:.2f} → {after:.2f}")
            means.append(after)
        self.curve.append([round(self.seconds / 60, 1), self.step, round(sum(means) / len(means), 2)])
        return "; ".join(words)

    def tensors(self) -> dict[str, torch.Tensor]:
        """The weights under the names of the shipped file."""
        return {f"network.{name}": value.contiguous() for name, value in self.network.state_dict().items()}

    def card(self, command: str) -> dict[str, Any]:
        """What the shipped file says of itself."""
        where = machine_words(self.compute.device)
        curve = ", ".join(f"{decibels:.2f} dB after {minutes:g} min" for minutes, _, decibels in thinned(self.curve, 8))
        done = "" if self.step >= self.steps else f" (of {self.steps} planned: cut short)"
        return {
            "key": key_of_task(self.task.name),
            "recipe": RECIPE,
            "method": "edip",
            "title": f"Educated DIP: {self.task.name}",
            "network": f"U-Net, {self.settings['scales']} scales of {self.settings['width']} channels, one grey channel at a time",
            "shape": ["1", "any height", "any width"],
            "settings": self.settings,
            "data": self.task.data,
            "terms": self.task.terms,
            "steps": f"{self.step}{done}",
            "seed": self.seed,
            "seconds": round(self.seconds),
            "machine": where,
            "command": command,
            "metrics": {**self.metrics, "mean on held-out pairs": curve, "on": f"{where}, shared with other work"},
            "curve": self.curve,
        }

    def keep(self, path: Path) -> None:
        """Write the state, all or nothing."""
        about = {**self._identity(), "step": self.step, "seconds": self.seconds, "curve": self.curve, "owns": self.owns}
        keep_state(path, {"network": self.network}, self.adam, about)

    def resume(self, path: Path) -> None:
        """Go on from a state. Raises InvalidSettings when it is not one, or of another task, seed or network."""
        about = load_state(path, {"network": self.network}, self.adam, self.compute, self._identity())
        self.step, self.seconds, self.curve = about["step"], about["seconds"], about["curve"]
        self.owns = about.get("owns", "")

    def _identity(self) -> dict[str, Any]:
        """What must be the same for a run to go on."""
        return {"task": self.task.name, "seed": self.seed, "settings": self.settings}
