"""Learned regularisation of CS-DIP on chest x-rays: the cut in error, beside table 1 of the paper."""

from __future__ import annotations

import argparse
import io
import statistics
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from netprior_core import examples
from netprior_core.bench import Report
from netprior_core.bench._data import cache_of
from netprior_core.device import pick_device
from netprior_core.errors import InvalidSettings
from netprior_core.methods.csdip import CSDIP, RECIPE
from netprior_core.noise import TotalVarianceNoise
from netprior_core.operators import Operator
from netprior_core.problem import Problem

SUMMARY = "MSE of CS-DIP with and without learned regularisation, chest x-rays, m = 500 and 2000, σ² = 0 and 1000"
XRAYS = "medical/chest_xray_nih_400_256x256.zip"
FIRST_VALIDATION = 300  # images 1-300 are to learn from, the rest to test on
PAPER_SIDE = 256
#: Van Veen et al., table 1: cut in MSE in per cent, by m and σ². Shenzhen x-rays there, NIH ones here: compare trends.
PAPER = {
    500: {0: 9.9, 10: 11.6, 100: 14.9, 1000: 37.4},
    1000: {0: 2.9, 10: 4.6, 100: 19.2, 1000: 30.6},
    2000: {0: 0.2, 10: 4.5, 100: 5.0, 1000: 19.8},
    4000: {0: 2.0, 10: 2.4, 100: 3.9, 1000: 3.0},
    8000: {0: 0.6, 10: 1.0, 100: 2.8, 1000: 6.2},
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options besides --quick and --json."""
    parser.add_argument("--data", type=Path, help=f"folder that holds {XRAYS}; --quick takes embedded images without it")
    parser.add_argument("--learn", type=int, default=10, help="images whose measurements are learned from")
    parser.add_argument("--images", type=int, default=10, help="other images to test on")
    parser.add_argument("--counts", type=int, nargs="+", default=[500, 2000], help="numbers of measurements m to run now")
    parser.add_argument("--variances", type=float, nargs="+", default=[0, 1000], help="σ² at 256×256; scaled with the pixels")
    parser.add_argument("--forms", nargs="+", choices=["published", "released"], default=["released", "published"])
    parser.add_argument("--weight", type=float, default=100.0, help="weight λ_L of the released form (paper and code: 100)")
    parser.add_argument(
        "--published-weight",
        type=float,
        default=0.001,
        help="λ_L of the published form, a sum over all weights: 100 drowns the data",
    )
    parser.add_argument("--size", type=int, default=PAPER_SIDE, help="side of the images in pixels")
    parser.add_argument("--iterations", type=int, default=1000)
    parser.add_argument("--restarts", type=int, default=1, help="initialisations for each image, the best fit kept (paper: 1)")
    parser.add_argument("--warm-up", type=int, default=0, help="iterations in which the step size rises (paper: 0)")
    parser.add_argument("--device", default="auto", help="cpu, cuda, mps or auto (default)")


def run(options: argparse.Namespace, report: Report) -> None:
    """For each m and σ²: a row without learned regularisation, then one for each form of it with the cut in MSE."""
    if options.quick:
        options = argparse.Namespace(**{**vars(options), **_QUICK})
    device = pick_device(options.device)
    shots, targets = _images(options)
    fixed = ("learn", "images", "weight", "published_weight", "iterations", "restarts", *(["warm_up"] if options.warm_up else []))
    report.in_parts({"recipe": RECIPE, **{name: getattr(options, name) for name in fixed}})
    print(f"CS-DIP as released for x-rays, {options.iterations} iterations, {options.size}×{options.size}, {device}")
    print(f"Learned from measurements of {len(shots)} images, each with its own A; tested on {len(targets)} others.")
    print("MSE per pixel for images in [−1, 1], four times that in [0, 1].")
    if options.size != PAPER_SIDE:
        print(f"σ² is scaled by ({options.size}/{PAPER_SIDE})², λ_L too, λ_T by its power 0.32; m is not.")
    for count in options.counts:
        for variance in options.variances:
            cell = {"m": count, "σ²": variance}
            title = f"{options.size}, {count}, {variance:g}"
            for form in options.forms:
                none = "none" if form == "released" else f"{form}, none"
                without = _row(report, f"{title}, {none}", cell, none, shots, targets, options, device)
                _row(report, f"{title}, {form}", cell, form, shots, targets, options, device, without)


_QUICK: dict[str, Any] = {
    "learn": 2,
    "images": 2,
    "counts": [100],
    "variances": [1000],
    "forms": ["released"],
    "size": 32,
    "iterations": 80,
}


def method(form: str, options: argparse.Namespace) -> CSDIP:
    """The settings of a row: the published form's with those of the paper's appendix, all others with the released code's.

    Squares of y grow with the pixels, total variation of these x-rays as the side to the power 1.35 (401, 1012, 2601 from 64×64
    to 256×256), distances of weights not at all. So that a smaller picture is pulled as a large one is, both weights are scaled.
    """
    scale = (options.size / PAPER_SIDE) ** 0.65
    channels = {"channels": 16} if options.quick else {}
    preset = "as published" if form.startswith("published") else "as released, x-ray"
    pull = {"regularisation": "none"} if "none" in form else {"regularisation": form, "learning_images": max(options.learn, 1)}
    weights = {"regularisation_weight": _weight(form, options), "tv_weight": CSDIP.preset(preset).tv_weight * scale}
    lengths = {"iterations": options.iterations, "restarts": options.restarts, "warm_up": options.warm_up}
    return CSDIP.preset(preset, **lengths, **pull, **weights, **channels)


def _weight(form: str, options: argparse.Namespace) -> float:
    """λ_L at this size."""
    of = {"released": options.weight, "published": options.published_weight}.get(form, 0.0)
    return float(of * (options.size / PAPER_SIDE) ** 2)


def _row(
    report: Report,
    key: str,
    cell: dict[str, Any],
    form: str,
    shots: torch.Tensor,
    targets: torch.Tensor,
    options: argparse.Namespace,
    device: torch.device,
    without: dict[str, Any] | None = None,
) -> dict[str, Any]:
    known = report.cached(key)
    if known is not None:
        return known
    measured = _measure(method(form, options), cell, shots.to(device), targets.to(device), options)
    columns = {**cell, "regularisation": form, "λ_L": _weight(form, options), **measured}
    if without is not None:
        columns["cut_%"] = 100 * (1 - measured["mse"] / without["mse"])
        # One run that ends in another basin outweighs all others in the mean: the median says what usually happens.
        cuts = [100 * (1 - a / b) for a, b in zip(measured["each"], without["each"], strict=True)]
        columns["median_cut_%"] = statistics.median(cuts)
        columns["cut_error_%"] = statistics.stdev(cuts) / len(cuts) ** 0.5 if len(cuts) > 1 else 0.0
        if options.size == PAPER_SIDE:
            columns["paper_cut_%"] = PAPER.get(cell["m"], {}).get(int(cell["σ²"]), "")
    return report.row(key, **columns)


def _measure(
    solver: CSDIP, cell: dict[str, Any], shots: torch.Tensor, targets: torch.Tensor, options: argparse.Namespace
) -> dict[str, Any]:
    errors, learning, start = [], 0.0, time.perf_counter()
    with cache_of({}):  # learned once for all targets: the statistics depend on the shots, the operator and the noise alone
        for i, target in enumerate(targets):
            problem = _problem(target[None], shots, cell, options.size, seed=i)
            for step in solver.solve(problem, seeds=[i]):
                if step.stage == "prepare":
                    learning = time.perf_counter() - start
            assert step.estimate is not None
            errors.append(4 * float((step.estimate - target[None]).square().mean()))
    return {
        "images": len(errors),
        "mse": statistics.fmean(errors),
        "learning_s": learning,
        "solve_s": (time.perf_counter() - start - learning) / len(errors),
        "each": [round(error, 6) for error in errors],
    }


def _problem(truth: torch.Tensor, shots: torch.Tensor, cell: dict[str, Any], size: int, seed: int) -> Problem:
    """A draw of A and of the noise for each image, the same with and without learned regularisation."""
    shape: Any = tuple(truth.shape[1:])
    operator = Operator.registry["compressed-sensing"](count=cell["m"])
    noise = TotalVarianceNoise(variance=cell["σ²"] * (size / PAPER_SIDE) ** 2)
    model = operator.build(shape, seed=2000 + seed, device=truth.device)
    y = model.measure(truth, noise, seed=1000 + seed)
    return Problem(y, model, operator, noise, model.noise_std(noise, y), shape, shots)


def _images(options: argparse.Namespace) -> tuple[torch.Tensor, torch.Tensor]:
    """Images to learn from and others to test on, ``(S, 1, H, W)`` in [0, 1]."""
    if options.data is None:
        if not options.quick:
            raise InvalidSettings(f"Name the folder that holds {XRAYS} with --data.")
        found = examples.get("coins")
        return found.shots(size=options.size)[: options.learn], found.targets(size=options.size)[: options.images]
    path = options.data / XRAYS
    if not path.is_file():
        raise InvalidSettings(f"There is no {XRAYS} in the folder given with --data.")
    with zipfile.ZipFile(path) as archive:
        names = sorted(name for name in archive.namelist() if name.endswith(".jpg"))
        learn, test = names[: min(options.learn, FIRST_VALIDATION)], names[FIRST_VALIDATION:][: options.images]
        return tuple(torch.stack([_grey(archive.read(n), options.size) for n in part]) for part in (learn, test))  # type: ignore[return-value]


def _grey(data: bytes, size: int) -> torch.Tensor:
    picture = Image.open(io.BytesIO(data)).convert("L").resize((size, size), Image.Resampling.LANCZOS)
    return torch.from_numpy(np.asarray(picture).copy()).float()[None] / 255
