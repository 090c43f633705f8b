"""Whether structured sensing is a fair stand-in for the dense Gaussian: CS-DIP with both on the same images."""

from __future__ import annotations

import argparse
import statistics
from typing import Any

import torch

from netprior_core import examples
from netprior_core.bench import Report
from netprior_core.device import pick_device
from netprior_core.methods.csdip import CSDIP
from netprior_core.metrics import CONVENTION, psnr
from netprior_core.noise import GaussianNoise
from netprior_core.operators import Operator
from netprior_core.problem import Problem

SUMMARY = "PSNR of CS-DIP with structured sensing minus that with the exact dense Gaussian, m/n = 0.1 and 0.25"
IMAGES = ("astronaut", "cat", "coffee", "portrait", "camera")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options besides --quick and --json."""
    parser.add_argument("--size", type=int, default=64, help="side of the image in pixels")
    parser.add_argument("--draws", type=int, default=2, help="draws of A, noise and network for each image")
    parser.add_argument("--iterations", type=int, default=500)
    parser.add_argument("--device", default="auto", help="cpu, cuda, mps or auto (default)")


def run(options: argparse.Namespace, report: Report) -> None:
    """A row for each ratio and image, then the mean difference of each ratio."""
    images, draws, iterations = (2, 1, 60) if options.quick else (len(IMAGES), options.draws, options.iterations)
    device = pick_device(options.device)
    print(f"CS-DIP, {iterations} iterations, {options.size}×{options.size}, σ = 2/255, {device}; {CONVENTION}")
    for ratio in (0.1, 0.25):
        rows = []
        for name in IMAGES[:images]:
            key = f"{ratio}, {name}"
            if (row := report.cached(key)) is None:
                scores: dict[str, Any] = {
                    matrix: statistics.fmean(
                        _psnr(name, ratio, matrix, draw, iterations, options.size, device) for draw in range(draws)
                    )
                    for matrix in ("dense", "structured")
                }
                row = report.row(key, ratio=ratio, image=name, **scores, difference=scores["structured"] - scores["dense"])
            rows.append(row)
        means: dict[str, Any] = {c: statistics.fmean(r[c] for r in rows) for c in ("dense", "structured", "difference")}
        report.row(ratio=ratio, image="mean", **means)


def _psnr(name: str, ratio: float, matrix: str, draw: int, iterations: int, size: int, device: torch.device) -> float:
    truth = examples.get(name).targets(size=size)[:1].to(device)
    shape: Any = tuple(truth.shape[1:])
    operator, noise = Operator.registry["compressed-sensing"](ratio=ratio, matrix=matrix), GaussianNoise(sigma=2)
    model = operator.build(shape, seed=2000 + draw, device=device)
    y = model.measure(truth, noise, seed=1000 + draw)
    problem = Problem(y, model, operator, noise, model.noise_std(noise, y), shape)
    *_, last = CSDIP(iterations=iterations).solve(problem, seeds=[draw])
    assert last.estimate is not None
    return psnr(last.estimate, truth).item()
