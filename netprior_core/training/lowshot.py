"""Low-shot priors of the embedded sets: pre-trains on a set's shots exactly as the app would live, and keeps the result."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import torch

from netprior_core import examples, priors
from netprior_core.compute import choose
from netprior_core.device import pick_device
from netprior_core.methods.lowshot import LowShot
from netprior_core.metrics import psnr
from netprior_core.noise import GaussianNoise
from netprior_core.operators import Operator
from netprior_core.problem import Problem
from netprior_core.training._cards import write_readme

SUMMARY = "pre-train the low-shot priors of embedded sets and write checkpoints/lowshot-SET.safetensors"

#: Sets whose priors are shipped; all files together stay below 4 MiB in fp16.
SHIPPED = ("faces", "coins", "histology", "phantoms")
PRESET = "shipped"
#: How the held-out targets are measured for the card: compressed sensing, m/n and σ in 8-bit units.
RATIO, SIGMA = 0.05, 1.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    known = [found.key for found in examples.sets() if found.n_shots]
    parser.add_argument("--set", nargs="*", default=list(SHIPPED), choices=known, help="embedded sets (default: all shipped)")
    parser.add_argument("--out", type=Path, default=priors.CHECKPOINTS, help="folder for the files")
    parser.add_argument("--targets", type=int, default=4, help="held-out targets measured for the card")
    parser.add_argument("--device", default="auto", help="cpu, cuda, mps or auto (default)")


def run(options: argparse.Namespace) -> None:
    """Pre-train and write each set, with its card."""
    for name in options.set:
        path = train(name, options.out, targets=options.targets, device=pick_device(options.device))
        print(f"{path.name}: {path.stat().st_size / 2**20:.2f} MiB")
        write_readme(options.out)


def train(name: str, folder: Path, *, targets: int, device: torch.device) -> Path:
    """Pre-train on one set's shots and write its checkpoint; returns its path."""
    found, method = examples.get(name), LowShot.preset(PRESET)
    shots = found.shots()
    stream = method.pretraining(shots, choose(method.precision, device))
    start, shown = time.perf_counter(), 0.0
    while True:
        try:
            step = next(stream)
        except StopIteration as stop:
            trained = stop.value
            break
        if (now := time.perf_counter()) - shown > 5:
            shown = now
            print(f"{name}: {step.iteration} of {step.total}, {now - start:.0f} s", flush=True)
    seconds = time.perf_counter() - start
    assert step.output is not None
    card: dict[str, Any] = {
        **method.card(shots),
        "title": f"Low-shot prior: {found.title}",
        "data": f"the {found.n_shots} shots of the embedded set '{name}'",
        "terms": found.credit,
        "command": f"python -m netprior_core train lowshot --set {name}",
        "seconds": round(seconds),
        "key": method.key(shots),
        "metrics": {"psnr_of_shots": round(psnr(step.output.cpu(), shots).mean().item(), 2)},
    }
    path = priors.save(folder / f"lowshot-{name}.safetensors", trained.tensors(), card)
    if targets:
        card["metrics"] |= _held_out(method, found.targets()[:targets], shots, trained)
        priors.save(path, trained.tensors(), card)
    print(f"{name}: {card['metrics']}", flush=True)
    return path


def _held_out(method: LowShot, targets: torch.Tensor, shots: torch.Tensor, trained: Any) -> dict[str, Any]:
    values = []
    for i, truth in enumerate(targets):
        shape: Any = tuple(truth.shape)
        operator, noise = Operator.registry["compressed-sensing"](ratio=RATIO), GaussianNoise(sigma=SIGMA)
        model = operator.build(shape, seed=i)
        y = model.measure(truth[None], noise, seed=1000 + i)
        problem = Problem(y, model, operator, noise, noise.std(y), shape, shots)
        *_, last = method._solve(problem, i, trained)
        assert last.estimate is not None
        values.append(psnr(last.estimate, truth[None]).item())
    return {
        "psnr_of_targets": round(sum(values) / len(values), 2),
        "targets": len(values),
        "measured_with": f"compressed sensing, m/n = {RATIO}, sigma = {SIGMA}/255",
    }
