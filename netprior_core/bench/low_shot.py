"""Low-shot priors against untrained ones in compressed sensing, in the setting of the low-shot paper's figure 1."""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

import torch

from netprior_core import examples
from netprior_core.bench import Report, _colorization, _data_axis
from netprior_core.bench._data import cache_of
from netprior_core.device import pick_device
from netprior_core.errors import InvalidSettings
from netprior_core.methods import Method
from netprior_core.methods.csdip import CSDIP, baseline_for
from netprior_core.methods.dip import DeepImagePrior
from netprior_core.methods.lowshot import LowShot
from netprior_core.metrics import CONVENTION, psnr
from netprior_core.noise import GaussianNoise
from netprior_core.operators import Operator
from netprior_core.problem import Problem
from netprior_core.training._collections import COLLECTIONS

SUMMARY = "PSNR and seconds of low-shot priors, CS-DIP and DIP on held-out images, compressed sensing at m/n = 0.05"
CELEBA = COLLECTIONS["celeba"]
IMAGES = 8


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options besides --quick and --json."""
    parser.add_argument("--data", type=Path, help=f"folder that holds {CELEBA.archive}; without it only embedded sets are used")
    parser.add_argument("--sets", nargs="*", default=["coins", "histology"], help="embedded sets with enough shots and targets")
    parser.add_argument("--shots", type=int, default=10)
    parser.add_argument("--images", type=int, default=0, help=f"held-out images; 0: {IMAGES} of each set, 10 faces with --axis")
    parser.add_argument("--ratio", type=float, default=0.05, help="m/n")
    parser.add_argument("--sigma", type=float, default=1.0, help="noise σ in 8-bit units, A ~ N(0, 1/m)")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--device", default="auto", help="cpu, cuda, mps or auto (default)")
    _data_axis.add_arguments(parser)
    _colorization.add_arguments(parser)


def methods(quick: bool, ratio: float) -> dict[str, Method]:
    """The rows of the table."""
    if quick:
        return {
            "Low-shot": LowShot(pretrain_iterations=250, latent_iterations=80, joint_iterations=80, channels=16),
            "CS-DIP, low-shot paper": CSDIP.preset(baseline_for(ratio), iterations=100, channels=16),
            "CS-DIP, published": CSDIP(iterations=100, channels=32),
            "DIP": DeepImagePrior(iterations=60, channels=32, averaging=0.95),
        }
    return {
        "Low-shot": LowShot(),
        "CS-DIP, low-shot paper": CSDIP.preset(baseline_for(ratio)),
        "CS-DIP, published": CSDIP.preset("as published"),
        "DIP": DeepImagePrior.preset("1000 iterations"),
    }


def run(options: argparse.Namespace, report: Report) -> None:
    """A row for each set and method, then how far low-shot is ahead; or what ``--axis`` or ``--colorization`` ask for."""
    if options.axis or options.colorization:
        for wanted, part in ((options.axis, _data_axis), (options.colorization, _colorization)):
            if wanted:
                part.run(options, report)
        return
    images = 2 if options.quick else options.images or IMAGES
    device = pick_device(options.device)
    print(f"Compressed sensing, m/n = {options.ratio}, A ~ N(0, 1/m), σ = {options.sigma}/255, {options.size} px, {device}")
    print(CONVENTION)
    names = options.sets[:1] if options.quick else list(options.sets)
    if options.data is not None:
        names.insert(0, "celeba")
    for name in names:
        shots, targets = _images(name, options, images)
        means = {}
        for title, method in methods(options.quick, options.ratio).items():
            key = f"{name}, {title}"
            row = report.cached(key) or report.row(key, set=name, method=title, **_measure(method, shots, targets, options, device))
            means[title] = row["psnr"]
        ahead = {f"over {title}": means["Low-shot"] - mean for title, mean in means.items() if title != "Low-shot"}
        report.row(set=name, method="Low-shot ahead by", **ahead)


def _measure(
    method: Method, shots: torch.Tensor, targets: torch.Tensor, options: argparse.Namespace, device: torch.device
) -> dict[str, Any]:
    values, seconds, prepared = [], [], 0.0
    with cache_of({}):  # so that pre-training is measured
        for i, target in enumerate(targets):
            problem = _problem(target[None].to(device), shots.to(device), options, seed=i)
            start = time.perf_counter()
            for step in method.solve(problem, seeds=[i]):
                if step.stage == "prepare":
                    now = time.perf_counter()
                    prepared, start = prepared + now - start, now
            assert step.estimate is not None
            values.append(psnr(step.estimate, target[None].to(device)).item())
            seconds.append(time.perf_counter() - start)
    return {
        "images": len(values),
        "shots": len(shots) if method.needs_shots else 0,
        "psnr": statistics.fmean(values),
        "std": statistics.stdev(values) if len(values) > 1 else 0.0,
        "prepare_s": prepared,
        "solve_s": statistics.fmean(seconds),
        "each": [round(v, 2) for v in values],
    }


def _problem(truth: torch.Tensor, shots: torch.Tensor, options: argparse.Namespace, seed: int) -> Problem:
    """One draw of A and of the noise for each image, the same for every method."""
    shape: Any = tuple(truth.shape[1:])
    operator, noise = Operator.registry["compressed-sensing"](ratio=options.ratio), GaussianNoise(sigma=options.sigma)
    model = operator.build(shape, seed=2000 + seed, device=truth.device)  # never the seed of a method: the same bits
    y = model.measure(truth, noise, seed=1000 + seed)
    return Problem(y, model, operator, noise, model.noise_std(noise, y), shape, shots)


def _images(name: str, options: argparse.Namespace, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    if name == "celeba":
        first = CELEBA.first_held_out
        shots = CELEBA.shots(options.data, options.shots, options.size)
        return shots, CELEBA.images(options.data, range(first, first + count), options.size)
    found = examples.get(name)
    if found.n_shots < options.shots or found.n_targets < count:
        raise InvalidSettings(f"The set '{name}' has {found.n_shots} shots and {found.n_targets} targets; choose another.")
    return found.shots(size=options.size)[: options.shots], found.targets(size=options.size)[:count]
