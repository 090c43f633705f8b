"""TVAL3 as published and as tuned for noise and operator, beside total variation, on pictures that no weight was searched on."""

from __future__ import annotations

import statistics
from typing import Any

import torch

from netprior_core import examples
from netprior_core.bench import Report
from netprior_core.methods import Method
from netprior_core.methods.tv import TotalVariation
from netprior_core.methods.tval3 import TVAL3
from netprior_core.metrics import psnr
from netprior_core.noise import GaussianNoise
from netprior_core.operators import Operator
from netprior_core.problem import Problem

SIDE = 64
PICTURES = ("coffee", "portrait")
#: Operator, its settings, noise (σ in 8-bit levels).
CASES: tuple[tuple[str, dict[str, Any], float], ...] = (
    ("denoising", {}, 25),
    ("inpainting", {"keep": 0.5}, 25),
    ("tomography", {"angles": 60}, 25),
    ("compressed-sensing", {"ratio": 0.25}, 0),
    ("compressed-sensing", {"ratio": 0.25}, 10),
    ("fourier", {}, 10),
    ("deblurring", {}, 5),
    ("super-resolution", {"factor": 2}, 5),
)


def run(quick: bool, report: Report) -> None:
    """A row for each problem: mean PSNR over the pictures."""
    methods: dict[str, Method] = {
        "TVAL3, published": TVAL3.preset("CS-DIP"),
        "TVAL3": TVAL3(),
        "Total variation": TotalVariation(),
    }
    for kind, settings, sigma in CASES[:2] if quick else CASES:
        key = f"unseen {kind} {sorted(settings.items())} {sigma}"
        if report.cached(key) is not None:
            continue
        problems = [_problem(kind, settings, sigma, name, seed) for seed, name in enumerate(PICTURES)]
        scores = {name: statistics.fmean(_psnr(method, *one) for one in problems) for name, method in methods.items()}
        report.row(key, operator=kind, **settings, sigma=sigma, **scores)


def _problem(kind: str, settings: dict[str, Any], sigma: float, name: str, seed: int) -> tuple[Problem, torch.Tensor]:
    truth = examples.get(name).targets(size=SIDE, channels=1)[:1]
    shape: Any = tuple(truth.shape[1:])
    operator, noise = Operator.registry[kind](**settings), GaussianNoise(sigma=sigma)
    model = operator.build(shape, seed=seed)
    y = model.measure(truth, noise, seed=100 + seed)
    return Problem(y, model, operator, noise, model.noise_std(noise, y), shape), truth


def _psnr(method: Method, problem: Problem, truth: torch.Tensor) -> float:
    *_, last = method.solve(problem, seeds=[0])
    assert last.estimate is not None
    return float(psnr(last.estimate, truth))
