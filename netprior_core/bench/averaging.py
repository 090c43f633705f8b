"""What averaging the outputs gains Deep Image Prior in denoising, as published over nine images (29.22 to 30.43 dB)."""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

from netprior_core.bench import Report
from netprior_core.bench._data import from_zip
from netprior_core.device import pick_device
from netprior_core.methods.dip import DeepImagePrior
from netprior_core.metrics import CONVENTION, psnr
from netprior_core.noise import GaussianNoise
from netprior_core.operators.denoising import Denoising
from netprior_core.problem import Problem

SUMMARY = "DIP denoising at σ = 25 with and without averaging of the outputs, 1800 iterations, colour images of Kodak and Set5"
#: Zip under restoration/ and member. Ulyanov et al. use nine images that are not all at hand; these are other ones.
IMAGES = (("kodak24.zip", "kodak24/03.png"), ("kodak24.zip", "kodak24/23.png"), ("set5.zip", "set5/butterfly.png"))
PUBLISHED = (29.22, 30.43)
EVERY = 100


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options besides --quick and --json."""
    parser.add_argument("--data", type=Path, help="folder that holds restoration/kodak24.zip and restoration/set5.zip")
    parser.add_argument("--size", type=int, default=256, help="side of the centre crop")
    parser.add_argument("--iterations", type=int, default=1800)
    parser.add_argument("--device", default="auto", help="cpu, cuda, mps or auto (default)")


def run(options: argparse.Namespace, report: Report) -> None:
    """A row for each image: one run gives both, the raw output and the average of the same iterations."""
    size, iterations, images = (64, 60, IMAGES[:1]) if options.quick else (options.size, options.iterations, IMAGES)
    device = pick_device(options.device)
    print(f"DIP, σ = 25 clipped to [0, 1], {size}×{size} centre crops, {iterations} iterations, {device}; {CONVENTION}")
    rows = []
    for archive, member in images:
        if (row := report.cached(member)) is None:
            truth = from_zip(options.data, f"restoration/{archive}", member, side=size).to(device)
            row = report.row(member, image=member, **_run(truth, iterations))
        rows.append(row)
    raw, averaged = (statistics.fmean(row[name] for row in rows) for name in ("raw", "averaged"))
    report.row(image="mean", raw=raw, averaged=averaged, gain=averaged - raw)
    report.row(image="published, nine images", raw=PUBLISHED[0], averaged=PUBLISHED[1], gain=PUBLISHED[1] - PUBLISHED[0])


def _run(truth: Any, iterations: int) -> dict[str, Any]:
    shape: Any = tuple(truth.shape[1:])
    operator, noise = Denoising(), GaussianNoise(sigma=25, clip=True)
    model = operator.build(shape, device=truth.device)
    y = model.measure(truth, noise, seed=1000)
    problem = Problem(y, model, operator, noise, model.noise_std(noise, y), shape)
    start, best = time.perf_counter(), -1.0
    for step in DeepImagePrior(iterations=iterations).solve(problem, seeds=[0]):
        if step.iteration % EVERY == 0 and step.estimate is not None:
            best = max(best, psnr(step.estimate, truth).item())
    assert step.output is not None
    assert step.estimate is not None
    raw, averaged = psnr(step.output, truth).item(), psnr(step.estimate, truth).item()
    return {
        "noisy": psnr(y, truth).item(),
        "raw": raw,
        "averaged": averaged,
        "gain": averaged - raw,
        "best_averaged": best,
        "seconds": time.perf_counter() - start,
    }
