"""The outer loop: Adam on tasks, validated now and then, saved so that it can go on exactly where it stopped."""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from netprior_core import priors
from netprior_core.compute import choose
from netprior_core.device import pick_device
from netprior_core.errors import InvalidSettings
from netprior_core.methods.metadip import LEARNED_STEPS, MOMENTUM, RECIPE, TV_WEIGHT, Fit, inner_step, key
from netprior_core.networks.metadip import picture
from netprior_core.training._cards import write_readme
from netprior_core.training._loop import claimed, left_alone, readable
from netprior_core.training._meta import Task, clipped, drawing, through
from netprior_core.training._meta_data import LATER, VALIDATED_AT, Measured, Tasks, in_order, mean_psnr, seen_before

#: Weight of the past in the average of outer iterates, which is what is validated and shipped.
AVERAGING = 0.98
#: A task's gradient is shrunk to at most this norm before it is added up.
CLIP = 0.3
#: Options that do not decide what is learned: a card's command leaves them out.
ASIDE = {"command", "name", "module", "data", "minutes", "resume", "begin", "mixed", "every", "validate", "out", "state", "device"}
#: Peak of Adam's step size while the start alone learns.
WARM_RATE = 2e-3
#: Outer weight of inner steps, as shares of the horizon: mostly its end.
MARKS = {0.25: 0.1, 0.5: 0.2, 1.0: 1.0}


@dataclass(frozen=True)
class Recipe:
    """What is trained: a module, its input for a measurement and a tile of the noise map, what finishes its output, its card.

    ``options`` declares those of its command.
    """

    kind: str
    trained: str
    file: str
    module: torch.nn.Module
    input_for: Callable[[Measured, tuple[int, int]], torch.Tensor]
    finish: Callable[[torch.Tensor], torch.Tensor]
    first_rate: float
    learn_rates: bool
    outer_rate: float
    card: dict[str, Any]
    options: Callable[[argparse.ArgumentParser], None]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options that both commands share."""
    parser.add_argument("--data", type=Path, required=True, help="folder that holds faces/ and restoration/ as zips")
    parser.add_argument("--minutes", type=float, default=20.0, help="stop after so many minutes of training")
    parser.add_argument("--resume", action="store_true", help="go on from the saved state, if there is one")
    parser.add_argument("--begin", type=Path, help="begin from the weights and rates of a checkpoint of the same network")
    parser.add_argument("--order", choices=["exact", "differences", "first"], default="exact", help="second order, or first")
    parser.add_argument("--batch", type=int, default=2, help="tasks whose gradients are added up before a step of Adam")
    parser.add_argument("--size", type=int, default=64, help="side of the crops in pixels (128 at most for faces)")
    parser.add_argument(
        "--tail", type=int, default=0, help="inner steps beyond the learned ones, at the held rates, at random up to this"
    )
    parser.add_argument(
        "--tiles", type=int, default=1, help="train on this many tiles of the noise map each way: 2 for images of twice its side"
    )
    parser.add_argument("--warm-up", type=int, default=0, help="outer steps in which the start alone learns, without inner steps")
    parser.add_argument("--warm-batch", type=int, default=8, help="tasks in each of those")
    parser.add_argument("--first-rate", type=float, default=0.0, help="inner step size to begin with; 0 takes the recipe's")
    parser.add_argument("--outer-rate", type=float, default=0.0, help="step size of the outer Adam; 0 takes the recipe's")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--every", type=float, default=3.0, help="minutes between validations, at which everything is saved")
    parser.add_argument("--validate", type=int, default=3, help="held-out pictures of each kind")
    parser.add_argument("--out", type=Path, default=priors.CHECKPOINTS, help="folder for the weights")
    parser.add_argument("--state", type=Path, help="file of the training state (default: in the cache folder)")
    parser.add_argument("--device", default="auto", help="cpu, cuda, mps or auto (default)")


class Outer:
    """State of the outer loop: weights, log rates, Adam's moments, averages, how far it came."""

    def __init__(self, recipe: Recipe, options: argparse.Namespace) -> None:
        self.recipe, self.options = recipe, options
        self.device = pick_device(options.device)
        self.module = recipe.module.to(self.device)
        if self.device.type == "cpu":
            self.module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.names = [name for name, _ in self.module.named_parameters()]
        self.weights = [p.detach().clone() for p in self.module.parameters()]
        columns = len(self.weights) if recipe.learn_rates else 1
        first_rate = options.first_rate or recipe.first_rate
        self.log_rates = torch.full((LEARNED_STEPS if recipe.learn_rates else 1, columns), first_rate).log().to(self.device)
        self.average = [w.clone() for w in (*self.weights, self.log_rates)]
        self.rate = options.outer_rate or recipe.outer_rate
        groups = [{"params": self.weights, "lr": self.rate}]
        if recipe.learn_rates:
            groups.append({"params": [self.log_rates], "lr": 20 * self.rate})
        self.adam = torch.optim.Adam(groups, betas=(0.9, 0.99))
        self.done, self.seconds, self.history = 0, 0.0, []  # type: ignore[var-annotated]
        self.begun = False  # from learned weights, for which the whole inner loop is not too long
        self.file = options.out / recipe.file
        #: What was learned on, in order: of the checkpoint that the run begins from, too.
        self.seen: list[str] = [recipe.card["data"]]
        self.owns = ""  # the file of weights that this run wrote or goes on from, and may write over
        #: Options of every stretch of the training, with the seconds after which it began.
        self.stretches: list[tuple[float, str]] = []

    def drawing(self, found: Measured, corner: tuple[int, int] = (0, 0)) -> Callable[[Sequence[torch.Tensor]], torch.Tensor]:
        """Weights to a picture of the size of this one."""
        height, width = found.clean.shape[-2:]
        z = choose("float32", self.device).activations(self.recipe.input_for(found, corner))
        return drawing(self.module, z, lambda output: picture(self.recipe.finish(output), 3, height, width))

    def task(self, found: Measured, corner: tuple[int, int] = (0, 0)) -> Task:
        """A measured picture as a task for the inner loop."""
        return Task(found.clean, found.measurement, found.forward, found.scale, self.drawing(found, corner))

    def corner(self, generator: torch.Generator) -> tuple[int, int]:
        """A tile of the noise map to begin with."""
        if self.options.tiles == 1:
            return 0, 0
        row, column = torch.randint(self.options.tiles, (2,), generator=generator).tolist()
        return row, column

    def step(self, tasks: Tasks) -> float:
        """One step of Adam; the mean outer loss at the end of the inner loops. Tasks without a finite gradient are left out."""
        options = self.options
        generator = torch.Generator().manual_seed(options.seed * 1_000_003 + self.done)
        warm = self.done < options.warm_up
        count = options.warm_batch if warm else options.batch
        horizon, marks = (0, {0: 1.0}) if warm else self._horizon(generator)
        # The start learns fast at first, and comes down to the step size of what follows.
        share = (1 + math.cos(math.pi * self.done / options.warm_up)) / 2 if warm else 0.0
        self.adam.param_groups[0]["lr"] = self.rate + share * max(0.0, WARM_RATE - self.rate)
        total, of_rates, losses = [torch.zeros_like(w) for w in self.weights], torch.zeros_like(self.log_rates), []
        for i in range(count):
            found = tasks[self.done * count + i]
            outcome = through(self.task(found, self.corner(generator)), self.weights, self.log_rates, marks, options.order)
            shrunk = clipped([*outcome.start, outcome.rates], CLIP)
            if shrunk is not None:
                torch._foreach_add_(total, shrunk[:-1])
                of_rates += shrunk[-1]
                losses.append(outcome.losses[horizon])
        for parameter, gradient in zip(self.weights, total, strict=True):
            parameter.grad = gradient / count
        self.log_rates.grad = of_rates / count
        self.adam.step()
        self.done += 1
        share = min(AVERAGING, self.done / (self.done + 10))
        torch._foreach_lerp_(self.average, [*self.weights, self.log_rates], 1 - share)
        return sum(losses) / len(losses) if losses else float("nan")

    def _horizon(self, generator: torch.Generator) -> tuple[int, dict[int, float]]:
        """How many inner steps a task takes now, and the outer weights of those that count."""
        options = self.options
        horizon = LEARNED_STEPS if self.begun else min(LEARNED_STEPS, 8 + (self.done - options.warm_up) // 10)
        if options.tail and horizon == LEARNED_STEPS:
            horizon += int(torch.randint(options.tail + 1, (), generator=generator))
        marks = {max(1, round(share * horizon)): weight for share, weight in MARKS.items()}
        marks[min(LEARNED_STEPS, horizon)] = 1.0
        return horizon, marks

    def validate(self, held: dict[str, list[Measured]]) -> dict[str, dict[int, float]]:
        """PSNR of the averaged start at the steps VALIDATED_AT, by task and kind of picture."""
        return {name: self._curve(some) for name, some in held.items()}

    def _curve(self, some: Sequence[Measured]) -> dict[int, float]:
        shown: dict[int, list[torch.Tensor]] = {k: [] for k in VALIDATED_AT}
        fit = Fit(self.module, lambda: torch.empty(0), self.average[-1].exp())
        for found in some:
            task = self.task(found)
            weights = [w.clone() for w in self.average[:-1]]
            velocity = [torch.zeros_like(w) for w in weights]
            for k in range(max(VALIDATED_AT) + 1):
                leaves = [w.requires_grad_() for w in weights]
                if k in shown:
                    with torch.no_grad():
                        shown[k].append(task.draw(leaves))
                slope = torch.autograd.grad(task.inner(leaves), leaves)
                inner_step(weights, velocity, slope, fit.rates_of(k))
        return {k: mean_psnr(images, [found.clean for found in some]) for k, images in shown.items()}

    # -- files ---------------------------------------------------------------------------------------------------------------

    def save(self, path: Path) -> None:
        """Everything that the next step depends on, in full precision."""
        tensors = {f"weight.{i}": w for i, w in enumerate([*self.weights, self.log_rates])}
        tensors |= {f"average.{i}": w for i, w in enumerate(self.average)}
        for i, parameter in enumerate(self._parameters()):
            for name, value in self.adam.state.get(parameter, {}).items():
                tensors[f"adam.{i}.{name}"] = torch.as_tensor(value)
        about = {"done": self.done, "seconds": self.seconds, "history": self.history, "card": self.recipe.card}
        about |= {"stretches": self.stretches, "begun": self.begun, "owns": self.owns, "seen": self.seen}
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        save_file({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, partial, {"state": json.dumps(about)})
        partial.replace(path)

    @torch.no_grad()
    def load(self, path: Path) -> None:
        """Go on from a saved state. Raises InvalidSettings when there is none, it is damaged, or it is of another network."""
        if not path.is_file():
            raise InvalidSettings(f"There is no training state {path.name} to resume from.")
        with readable(path), safe_open(path, framework="pt") as file:
            about = json.loads(file.metadata()["state"])
            card = self.recipe.card
            if {**about["card"], "data": card["data"]} != card:
                raise InvalidSettings(f"The training state {path.name} is of another network: {about['card']}.")
            for i, parameter in enumerate([*self.weights, self.log_rates]):
                parameter.copy_(file.get_tensor(f"weight.{i}"))
                self.average[i].copy_(file.get_tensor(f"average.{i}"))
            names = set(file.keys())
            for i, parameter in enumerate(self._parameters()):
                state = {n: file.get_tensor(f"adam.{i}.{n}") for n in ("step", "exp_avg", "exp_avg_sq") if f"adam.{i}.{n}" in names}
                if state:
                    self.adam.state[parameter] = {n: v if n == "step" else v.to(parameter) for n, v in state.items()}
        # What held-out pictures are may have changed in between.
        self.seen = in_order([*about.get("seen", about["card"]["data"].split(LATER)), card["data"]])
        self.done, self.seconds, self.history = about["done"], about["seconds"], about["history"]
        self.stretches = [(begun, words) for begun, words in about.get("stretches", [(0.0, "")])]
        self.begun = about.get("begun", any("--begin" in words for _, words in self.stretches))
        self.owns = about.get("owns", str(self.file.resolve()))

    @torch.no_grad()
    def begin(self, path: Path) -> None:
        """Take weights and rates of a checkpoint for a start. Raises MissingPrior when they are of another network."""
        prior = priors.load(path)
        prior.load_into(self.module)
        for parameter, value in zip(self.weights, self.module.parameters(), strict=True):
            parameter.copy_(value)
        if prior.tensors["rates"].shape != self.log_rates.shape:
            raise InvalidSettings(f"{path.name} has other learned rates than this network.")
        self.begun, self.owns = True, str(self.file.resolve())
        self.seen = in_order([*str(prior.card.get("data", "what its card does not say")).split(LATER), *self.seen])
        self.log_rates.copy_(prior.tensors["rates"])
        torch._foreach_copy_(self.average, [*self.weights, self.log_rates])

    def _parameters(self) -> list[torch.Tensor]:
        return [p for group in self.adam.param_groups for p in group["params"]]

    def ship(self) -> Path:
        """Write the averaged start with its card, and the folder's README."""
        recipe, options = self.recipe, self.options
        tensors = {f"network.{name}": w for name, w in zip(self.names, self.average[:-1], strict=True)}
        tensors |= {f"network.{name}": b for name, b in self.module.named_buffers()}
        tensors["rates"] = self.average[-1]
        last = self.history[-1] if self.history else {}
        metrics = {
            f"{name}, PSNR after {' / '.join(map(str, curve))} steps": " / ".join(f"{v:.2f}" for v in curve.values())
            for name, curve in last.get("psnr", {}).items()
        }
        data = LATER.join(self.seen)
        card = {
            **recipe.card,
            "data": data,
            **({"note": note} if (note := seen_before(data)) else {}),
            "shape": [3, options.size, options.size],
            "steps": self.done,
            "seed": options.seed,
            "seconds": round(self.seconds),
            "inner": {"learned_steps": len(self.log_rates), "momentum": MOMENTUM, "tv_weight": TV_WEIGHT},
            "outer_loss": {"weights at shares of the inner steps": MARKS, "gradient of a task shrunk to": CLIP},
            "batch": options.batch,
            "order": options.order,
            "outer_rate": options.outer_rate or recipe.outer_rate,
            "tiles": options.tiles,
            "command": self._command(),
            "metrics": metrics,
            "validation": self.history,
            "settings": {"kind": recipe.kind, "recipe": RECIPE},
            "key": key(recipe.kind, recipe.trained),
        }
        path = priors.save(self.file, tensors, card)
        write_readme(path.parent)
        return path

    def stretch(self) -> None:
        """Note the options that are in force from now on."""
        options, parser = self.options, argparse.ArgumentParser()
        self.recipe.options(parser)
        words = [
            f"--{name.replace('_', '-')} {' '.join(map(str, value)) if isinstance(value, list) else value}"
            for name, value in vars(options).items()
            if name not in ASIDE and value != parser.get_default(name)
        ]
        if options.begin and not self.done:
            words.append(f"--begin checkpoints/{options.begin.name}")
        if not self.stretches or self.stretches[-1][1].partition("--begin")[0].strip() != " ".join(words):
            self.stretches.append((self.seconds, " ".join(words)))

    def _command(self) -> str:
        """What to type for the whole training, stretch by stretch."""
        base = f"python -m netprior_core train {self.recipe.kind}{' --mixed' if self.recipe.trained == 'mixed' else ''} --data DIR"
        ends = [*(begun for begun, _ in self.stretches[1:]), self.seconds]
        lines = []
        for i, ((begun, words), end) in enumerate(zip(self.stretches, ends, strict=True)):
            minutes = f"--minutes {max(1, round((end - begun) / 60))}"
            lines.append(" ".join([base, minutes, *([words] if words else []), *(["--resume"] if i else [])]))
        return " && ".join(lines)


def train(recipe: Recipe, tasks: Tasks, options: argparse.Namespace) -> Outer:
    """Train for the minutes asked for; validates, saves and ships every few minutes and at the end."""
    outer = Outer(recipe, options)
    state = options.state or priors.cache_folder().parent / "training" / f"{recipe.file}.state"
    if options.resume and state.is_file():
        outer.load(state)
    else:
        if options.resume:
            how = f"begins from {options.begin.name}" if options.begin else "starts anew"
            print(f"There is no training state {state.name} to go on from: the training {how}.", flush=True)
        if options.begin:
            outer.begin(options.begin)
    outer.stretch()
    held = tasks.validation(options.validate)
    limit = outer.seconds + 60 * options.minutes
    checked, losses, said = outer.seconds, list[float](), False
    while True:
        if outer.done == 0 or outer.seconds - checked >= 60 * options.every or outer.seconds >= limit:
            found = outer.validate(held)
            mean = sum(losses) / len(losses) if losses else None
            outer.history.append({"step": outer.done, "seconds": round(outer.seconds), "outer_loss": mean, "psnr": found})
            print(f"{outer.done} steps, {outer.seconds:.0f} s, outer loss {mean}: {found}", flush=True)
            checked, losses = outer.seconds, []
            if outer.done:
                ours = claimed(outer.file, outer, outer.done)
                outer.save(state)
                if ours:
                    outer.ship()
                elif not said:
                    said = True
                    print(left_alone(outer.file), flush=True)
            if outer.seconds >= limit:
                return outer
        start = time.perf_counter()
        losses.append(outer.step(tasks))
        outer.seconds += time.perf_counter() - start
        if outer.done % 20 == 0:
            print(f"{outer.done} steps, {outer.seconds:.0f} s, outer loss {sum(losses[-20:]) / len(losses[-20:]):.5f}", flush=True)
