"""Educated DIP against the same network untrained, on CT: PSNR and rise time (Barbano et al. 2021)."""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from netprior_core.bench import Report
from netprior_core.bench.tomography import phantom
from netprior_core.device import pick_device
from netprior_core.errors import InvalidSettings
from netprior_core.methods.edip import EducatedDIP
from netprior_core.metrics import CONVENTION, psnr
from netprior_core.noise import RelativeNoise
from netprior_core.operators.tomography import Tomography
from netprior_core.phantoms import ellipse_phantom
from netprior_core.problem import Problem

SUMMARY = "Educated DIP against the same network untrained, on CT: PSNR of FBP, DIP and EDIP, and rise time"
SLICES = "medical/ct_tcia_80_hu_256x256.npz"
#: Hounsfield units shown as 0 and 1.
WINDOW = (-1000.0, 1000.0)
PHANTOMS, CT_SLICES = 5, 5
#: Seeds of the phantoms; training and its validation never use these.
HELD_OUT = 20_000_000
WITHIN = 0.1
AVERAGED = ("fbp", "educated", "dip", "edip", "dip_result", "edip_result")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options besides --quick and --json."""
    parser.add_argument("--data", type=Path, help=f"folder that holds {SLICES}; without it only phantoms are used")
    parser.add_argument("--size", type=int, default=128, help="side of the image in pixels; CT slices need a divisor of 256")
    parser.add_argument("--views", type=int, default=60)
    parser.add_argument("--level", type=float, default=5.0, help="noise in %% of mean |y|")
    parser.add_argument("--iterations", type=int, default=1000)
    parser.add_argument("--runs", type=int, default=5, help="random starts of DIP, whose median curve counts")
    parser.add_argument("--learning-rates", type=float, nargs="*", default=[1e-4, 1e-3], help="of DIP: each is tried")
    parser.add_argument("--edip-learning-rate", type=float, default=1e-4, help="of EDIP")
    parser.add_argument("--tv-weight", type=float, default=1e-4, help="γ of both, beside the summed misfit; ours: 1e-3")
    parser.add_argument("--pictures", type=int, default=0, help="only so many pictures; 0 takes all")
    parser.add_argument("--device", default="auto", help="cpu, cuda, mps or auto (default)")


def run(options: argparse.Namespace, report: Report) -> None:
    """Rows for each picture, DIP's step size and method, then means."""
    size, iterations, runs = (64, 150, 1) if options.quick else (options.size, options.iterations, options.runs)
    rates = options.learning_rates[-1:] if options.quick else options.learning_rates
    device = pick_device(options.device)
    print(f"CT, {size}×{size}, {options.views} views, noise {options.level:g}% of mean |y|, {iterations} iterations, {device}")
    print(f"PSNR of the raw output at every iteration, {CONVENTION}; DIP: the same U-Net with random weights, median of {runs}.")
    print(f"Total variation's weight {options.tv_weight:g} in both.")
    print(f"steady: median of the last third; rise: first iteration within {WITHIN} dB of DIP's steady PSNR.")
    rows: list[dict[str, Any]] = []
    for name, truth in pictures(size, options.data):
        if rows and len(rows) >= len(rates) * (1 if options.quick else options.pictures or math.inf):
            break
        problem = _problem(truth.to(device), options.views, options.level)
        for rate in rates:
            key = f"{name}, {rate:g}"
            found = report.cached(key)
            if found is None:
                compared = _compare(problem, truth, iterations, runs, rate, options.edip_learning_rate, options.tv_weight)
                found = report.row(key, image=name, **compared)
            rows.append(found)
    for rate in rates:
        same = [row for row in rows if row["dip_rate"] == rate]
        means: dict[str, Any] = {name: statistics.fmean(row[name] for row in same) for name in AVERAGED}
        ratios = [row["shorter"] for row in same if row["shorter"] is not None]
        shorter = statistics.median(ratios) if ratios else None
        report.row(image=f"mean of {len(same)}", dip_rate=rate, **means, shorter=shorter, edip_rose=f"{len(ratios)} of {len(same)}")


def pictures(size: int, data: Path | None) -> Iterator[tuple[str, torch.Tensor]]:
    """Names and pictures ``(1, 1, size, size)`` in [0, 1]: Shepp-Logan, phantoms never trained on, CT slices when there are any."""
    yield "Shepp-Logan", torch.from_numpy(phantom(size)).float()[None, None]
    for i in range(PHANTOMS):
        drawn = ellipse_phantom(size, np.random.default_rng(HELD_OUT + i))
        yield f"ellipses {i}", torch.from_numpy(drawn).float()[None, None]
    if data is None:
        return
    path = data / SLICES
    if not path.is_file():
        raise InvalidSettings(f"There is no {SLICES} in the folder given with --data.")
    with np.load(path, allow_pickle=False) as file:
        stack = file["images"][:: len(file["images"]) // CT_SLICES][:CT_SLICES].astype(np.float32)
    if stack.shape[-1] % size:
        raise InvalidSettings(f"CT slices of {stack.shape[-1]} pixels cannot be averaged to {size}: choose a divisor.")
    scaled = torch.from_numpy((stack - WINDOW[0]) / (WINDOW[1] - WINDOW[0])).clamp(0, 1)[:, None]
    scaled = torch.nn.functional.avg_pool2d(scaled, stack.shape[-1] // size)
    for i, picture in enumerate(scaled):
        yield f"CT slice {i}", picture[None]


def _problem(truth: torch.Tensor, views: int, level: float) -> Problem:
    shape: Any = tuple(truth.shape[1:])
    operator, noise = Tomography(angles=views), RelativeNoise(level=level)
    model = operator.build(shape, device=truth.device)
    y = model.measure(truth, noise, seed=1000)
    return Problem(y, model, operator, noise, model.noise_std(noise, y), shape)


def _compare(
    problem: Problem, truth: torch.Tensor, iterations: int, runs: int, rate: float, edip_rate: float, weight: float
) -> dict[str, Any]:
    same: dict[str, Any] = {"iterations": iterations, "tv_weight": weight}
    truth = truth.to(problem.device)
    start = time.perf_counter()
    dips, results = [], []
    for seed in range(runs):
        curve, result = _curve(EducatedDIP(start="random", learning_rate=rate, **same), problem, truth, seed)
        dips.append(curve)
        results.append(result)
    dip_seconds = (time.perf_counter() - start) / runs
    educated = EducatedDIP(learning_rate=edip_rate, **same)
    edip, result = _curve(educated, problem, truth, 0)  # no seed changes it
    dip = [statistics.median(values) for values in zip(*dips, strict=True)]
    goal = steady(dip)
    rises = rise_time(dip, goal), rise_time(edip, goal)
    return {
        "dip_rate": rate,
        "fbp": psnr(problem.model.initial(problem.measurement), truth).item(),
        "educated": edip[0],
        "dip": goal,
        "edip": steady(edip),
        "dip_result": statistics.median(results),
        "edip_result": result,
        "dip_rise": rises[0],
        "edip_rise": rises[1],
        "shorter": None if None in rises else rises[0] / max(rises[1] or 0, 1),  # type: ignore[operator]
        "dip_s": dip_seconds,
    }


def _curve(method: EducatedDIP, problem: Problem, truth: torch.Tensor, seed: int) -> tuple[list[float], float]:
    """PSNR of the raw output at iteration 0, 1, …, and of what is returned."""
    values, last = [], 0.0
    for step in method.solve(problem, seeds=[seed]):
        assert step.output is not None
        assert step.estimate is not None
        if step.stage == "solve":
            values.append(psnr(step.output, truth))
        else:
            last = psnr(step.estimate, truth).item()
    return torch.cat(values).tolist(), last


def steady(curve: Sequence[float]) -> float:
    """The median of the last third of a curve."""
    return statistics.median(curve[-max(1, len(curve) // 3) :])


def rise_time(curve: Sequence[float], goal: float, within: float = WITHIN) -> int | None:
    """The first iteration at which a curve is within so many dB of the goal (or above it); None when it never is."""
    return next((i for i, value in enumerate(curve) if value >= goal - within), None)
