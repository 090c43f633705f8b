"""The classical methods: against well-kept libraries, BM3D against its published figures, and beside CS-DIP on chest x-rays."""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from netprior_core import bases, denoisers, examples, variation
from netprior_core.bench import Report, _classical_tuning, _unseen, _xrays
from netprior_core.bench import denoisers as denoiser_bench
from netprior_core.bench.operators import alternating
from netprior_core.methods.lasso import Lasso
from netprior_core.metrics import CONVENTION, psnr
from netprior_core.noise import GaussianNoise
from netprior_core.operators.compressed_sensing import CompressedSensing, DenseModel
from netprior_core.problem import Problem

SUMMARY = "TV and Lasso against scikit-image and scikit-learn, BM3D on BSD68, and all of them beside CS-DIP on chest x-rays"
PARTS = ("tv", "lasso", "bm3d", "tval3", "xrays")
#: How much above the reference's an objective may be, relatively.
CLOSE = 1e-3
CPU = torch.device("cpu")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options besides --quick and --json."""
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument(
        "--tune",
        nargs="*",
        choices=_classical_tuning.SOLVERS,
        help="only find the weights of methods/_tuned.py again, and print them (none named: all)",
    )
    parser.add_argument("--data", type=Path, help=f"folder that holds restoration/cbsd68.zip and {_xrays.XRAYS}")
    parser.add_argument("--images", type=int, default=3, help="chest x-rays")
    parser.add_argument("--photos", type=int, default=68, help="pictures of grey BSD68 for BM3D")
    parser.add_argument("--counts", type=int, nargs="+", default=list(_xrays.COUNTS), help="numbers of measurements m")
    parser.add_argument("--methods", nargs="+", choices=_xrays.METHODS, default=list(_xrays.METHODS), help="on the x-rays")
    parser.add_argument("--curve", type=Path, help="PNG to write: mean squared error on the x-rays against m, as in figure 1a")
    parser.add_argument("--device", default="auto", help="cpu, cuda, mps or auto (default); the libraries work on the CPU")


def run(options: argparse.Namespace, report: Report) -> None:
    """The parts that were asked for; what is already in the JSON file is not run again."""
    report.in_parts({"quick": options.quick, "tune": options.tune is not None})
    if options.tune is not None:
        _classical_tuning.run(options.quick, report, options.tune)
        return
    print(f"{torch.get_num_threads()} threads; {CONVENTION}")
    parts: dict[str, Callable[[argparse.Namespace, Report], None]] = {
        "tv": _against_scikit_image,
        "lasso": _against_scikit_learn,
        "bm3d": _published_bm3d,
        "tval3": lambda options, report: _unseen.run(options.quick, report),
        "xrays": _xrays.run,
    }
    for name in options.parts:
        parts[name](options, report)


# Total variation: scikit-image


def _against_scikit_image(options: argparse.Namespace, report: Report) -> None:
    """Time to within 1e-3 of the objective that ``denoise_tv_chambolle`` ends with, at its default tolerance and at a tight one."""
    for size in (64, 128) if options.quick else (64, 128, 256, 512):
        for eps, most in ((2e-4, 200), (1e-6, 2000)):
            key = f"tv {size} {eps:g} {CLOSE:g}"
            if report.cached(key) is None:
                report.row(key, **_chambolle(size, eps, most, 3 if options.quick else 7))


def _chambolle(size: int, eps: float, most: int, rounds: int) -> dict[str, Any]:
    from skimage.restoration import denoise_tv_chambolle

    truth, weight = examples.get("camera").targets(size=size), 25 / 255
    y = truth + weight * torch.randn(truth.shape, generator=torch.Generator().manual_seed(0))
    picture = y[0, 0].numpy()

    def objective(x: torch.Tensor) -> float:
        x = x.double()
        return float(weight * variation.total_variation(x) + (x - y.double()).square().sum() / 2)

    theirs = torch.from_numpy(denoise_tv_chambolle(picture, weight=weight, eps=eps, max_num_iter=most))[None, None]
    goal = objective(theirs)
    needed = 0
    for needed, x in enumerate(variation.dual_projection(y, weight, 5 * most), start=1):  # noqa: B007
        if objective(x) <= goal * (1 + CLOSE):
            break
    ours = objective(x)
    least = objective(variation.denoise(y, weight, iterations=3000, tolerance=0))
    ms = alternating(
        {
            "ours": lambda: variation.denoise(y, weight, iterations=needed, tolerance=0),
            "scikit-image": lambda: denoise_tv_chambolle(picture, weight=weight, eps=eps, max_num_iter=most),
        },
        rounds,
        CPU,
    )
    return {
        "problem": "TV denoising, σ = 25",
        "size": size,
        "eps": eps,
        "objective": goal,
        "ours": ours,
        "least": least,
        "above_least": goal / least - 1,
        "iterations": needed,
        "ours_ms": ms["ours"],
        "scikit-image_ms": ms["scikit-image"],
        "ratio": ms["ours"] / ms["scikit-image"],
        "difference_dB": float(psnr(x, truth) - psnr(theirs.float(), truth)),
    }


# Lasso: scikit-learn


def _against_scikit_learn(options: argparse.Namespace, report: Report) -> None:
    """Time of FISTA to within 1e-3 of the objective of coordinate descent, on the same dense matrix."""
    try:
        import sklearn  # noqa: F401
    except ImportError:
        print("scikit-learn is not installed: Lasso is not compared. To install it: pip install scikit-learn")
        return
    for side in (16, 24) if options.quick else (16, 32, 48):
        for weight in (0.05, 0.5):
            key = f"lasso {side} {weight:g}"
            if report.cached(key) is None:
                report.row(key, **_coordinate_descent(side, weight, 3 if options.quick else 5))


def dense_problem(side: int) -> tuple[Problem, np.ndarray, np.ndarray]:
    """Compressed sensing at m/n = ½ with σ = 10 of the camera picture; ``X = A Wᵀ`` (DCT) and y as double-precision arrays."""
    shape = (1, side, side)
    truth = examples.get("camera").targets(size=side)
    operator, noise = CompressedSensing(ratio=0.5, matrix="dense"), GaussianNoise(sigma=10)
    model = operator.build(shape)
    assert isinstance(model, DenseModel)
    y = model.measure(truth, noise, seed=1)
    problem = Problem(y, model, operator, noise, model.noise_std(noise, y), shape)
    return problem, _design(problem), y[0].double().numpy()


def _design(problem: Problem) -> np.ndarray:
    assert isinstance(problem.model, DenseModel)
    basis = bases.Basis("dct", *problem.shape[1:], CPU, torch.float64)
    return basis.coefficients(problem.model.matrix.double().view(-1, *problem.shape)).flatten(1).numpy()


def _coordinate_descent(side: int, weight: float, rounds: int) -> dict[str, Any]:
    from sklearn.linear_model import Lasso as Reference

    problem, design, y = dense_problem(side)
    reference = Reference(alpha=weight / len(y), fit_intercept=False, tol=1e-4, max_iter=100_000)
    c = reference.fit(design, y).coef_
    goal = float(np.square(design @ c - y).sum() / 2 + weight * np.abs(c).sum())
    needed, found = 0, math.inf
    for step in Lasso(weight=weight, iterations=5000, path=False).solve(problem, seeds=[0]):
        assert step.objective is not None
        needed, found = step.iteration, float(step.objective)
        if found <= goal * (1 + CLOSE):
            break
    solver = Lasso(weight=weight, iterations=max(needed, 1), path=False)
    ms = alternating(
        {
            "ours": lambda: list(solver.solve(problem, seeds=[0])),
            "scikit-learn": lambda: reference.fit(design, y),
            "design": lambda: _design(problem),
        },
        rounds,
        CPU,
    )
    return {
        "problem": "Lasso, DCT, m/n = 1/2",
        "size": side,
        "λ": weight,
        "objective": goal,
        "ours": found,
        "above": found / goal - 1,
        "iterations": needed,
        "ours_ms": ms["ours"],
        "scikit-learn_ms": ms["scikit-learn"],
        "making_its_matrix_ms": ms["design"],
        "ratio": ms["ours"] / ms["scikit-learn"],
        "ratio_with_matrix": ms["ours"] / (ms["scikit-learn"] + ms["design"]),
    }


# BM3D: its published figures


def _published_bm3d(options: argparse.Namespace, report: Report) -> None:
    """BM3D on grey BSD68 with the pictures and noise of ``bench denoisers``; the means, the published beside."""
    if (reason := denoisers.get("bm3d").available()) is not None:
        print(f"BM3D left out: {reason}")
        return
    denoise = denoisers.load("bm3d", CPU)
    wanted = argparse.Namespace(data=options.data, sets=["BSD68"], images=options.photos)
    pictures = _small_photo() if options.quick else denoiser_bench._pictures(wanted)
    rows = []
    for group, name, truth in pictures:
        for level in denoiser_bench.LEVELS[1:2] if options.quick else denoiser_bench.LEVELS:
            key = f"bm3d {group} {name} {level}"
            row = report.cached(key)
            if row is None:
                generator = torch.Generator().manual_seed(denoiser_bench._seed(name, level))
                noisy = truth + level / 255 * torch.randn(truth.shape, generator=generator)
                start = time.perf_counter()
                value = psnr(denoise(noisy, level / 255), truth).item()
                row = report.row(key, set=group, image=name, sigma=level, psnr=value, seconds=time.perf_counter() - start)
            rows.append(row)
    published = dict(zip(denoiser_bench.LEVELS, denoiser_bench.PUBLISHED["BSD68", "BM3D"], strict=True))
    for level in dict.fromkeys(row["sigma"] for row in rows):
        values = [row["psnr"] for row in rows if row["sigma"] == level]
        beside: dict[str, Any] = (
            {} if options.quick else {"published": published[level], "difference": statistics.fmean(values) - published[level]}
        )
        report.row(method="BM3D", set=rows[0]["set"], sigma=level, pictures=len(values), psnr=statistics.fmean(values), **beside)


def _small_photo() -> list[tuple[str, str, torch.Tensor]]:
    return [("grey", "camera", examples.get("camera").targets(size=64))]
