"""Deep Decoder on scikit-image's astronaut, beside the figures of the released denoising notebook.

A check that comes with the figures: the notebook prints 0.0124 for the mean squared error of its noisy image at σ = 30. After
clipping that number depends on nothing but how much of the image is near black or white; for scikit-image's astronaut it is
0.0116 (printed here with every row). So the notebook's file of that name is another picture, with less in the shadows.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from typing import Any

import torch

from netprior_core import examples
from netprior_core.bench import Report
from netprior_core.device import pick_device
from netprior_core.methods.deep_decoder import UntrainedDeepDecoder
from netprior_core.metrics import CONVENTION, psnr
from netprior_core.noise import GaussianNoise
from netprior_core.operators import Operator
from netprior_core.problem import Problem

SUMMARY = "PSNR of Deep Decoder on the astronaut, 512×512 RGB, 1900 iterations, beside the released notebook's figures"


@dataclass(frozen=True)
class Setting:
    """A row of the table: width, noise (``equal`` in all channels or independent) and the figure to reach."""

    k: int
    sigma: float
    equal: bool
    wanted: float | None


TABLE = (
    Setting(128, 30, False, 28.78),
    Setting(32, 25, True, 27.00),
    Setting(64, 25, True, 29.15),
    Setting(128, 25, True, 29.22),
)
QUICK = (Setting(32, 30, False, None), Setting(32, 25, True, None))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options besides --quick and --json."""
    parser.add_argument("--size", type=int, default=512, help="side of the image in pixels (the figures are for 512)")
    parser.add_argument("--iterations", type=int, default=1900, help="steps of Adam (the figures are for 1900)")
    parser.add_argument("--seed", type=int, default=0, help="of the noise, the weights and the input")
    parser.add_argument("--device", default="auto", help="cpu, cuda, mps or auto (default)")


def run(options: argparse.Namespace, report: Report) -> None:
    """A row for each width and noise."""
    size, iterations = (128, 200) if options.quick else (options.size, options.iterations)
    device = pick_device(options.device)
    print(f"Deep Decoder, astronaut {size}×{size}, noisy image clipped to [0, 1], {iterations} iterations, {device}; {CONVENTION}")
    published = (size, iterations) == (512, 1900)
    for row in QUICK if options.quick else TABLE:
        key = f"k {row.k}, σ {row.sigma}, {'equal' if row.equal else 'independent'}"
        if report.cached(key) is None:
            columns = _measure(row, size, iterations, options.seed, device)
            wanted = row.wanted if published else None
            difference = {} if wanted is None else {"wanted": wanted, "difference": columns["psnr"] - wanted}
            seconds = columns.pop("seconds")
            noise = "equal" if row.equal else "independent"
            report.row(key, k=row.k, sigma=row.sigma, channels=noise, **columns, **difference, seconds=seconds)


def _measure(row: Setting, size: int, iterations: int, seed: int, device: torch.device) -> dict[str, Any]:
    truth = examples.get("astronaut").targets(size=size).to(device)
    shape: Any = tuple(truth.shape[1:])
    operator, noise = Operator.registry["denoising"](), GaussianNoise(sigma=row.sigma, clip=True, grey=row.equal)
    model = operator.build(shape, seed=seed, device=device)
    y = model.measure(truth, noise, seed=1000 + seed)
    problem = Problem(y, model, operator, noise, model.noise_std(noise, y), shape)
    print(f"  noisy image: mean squared error {(y - truth).square().mean().item():.5f}", flush=True)
    start = time.perf_counter()
    for step in UntrainedDeepDecoder(channels=row.k, iterations=iterations).solve(problem, seeds=[seed]):
        if step.iteration % 100 == 0 and step.stage == "solve":
            print(f"  {step.iteration}  {time.perf_counter() - start:.0f} s", flush=True)
    assert step.estimate is not None
    assert step.output is not None
    return {
        "psnr": psnr(step.estimate, truth).item(),
        "last": psnr(step.output, truth).item(),
        "returns": step.info["returns"],
        "seconds": time.perf_counter() - start,
    }
