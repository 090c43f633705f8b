"""The weights of ``methods/_tuned.py``: found on embedded pictures, so that anybody can find them again."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import Any

import torch

from netprior_core import examples, variation
from netprior_core.bench import Report
from netprior_core.methods import _classical
from netprior_core.methods.lasso import Lasso
from netprior_core.methods.tv import TotalVariation
from netprior_core.methods.tval3 import TVAL3, misfit_weight
from netprior_core.metrics import psnr
from netprior_core.noise import GaussianNoise
from netprior_core.operators import LinearModel, Operator
from netprior_core.problem import Problem

SIDE = 64
PICTURES = ("camera", "cat", "coins", "histology")
#: Settings and noise (σ in 8-bit levels) of each operator; the others have their defaults.
CASES: dict[str, tuple[dict[str, Any], tuple[float, ...]]] = {
    "denoising": ({}, (10, 25)),
    "inpainting": ({"keep": 0.5}, (5, 25)),
    "compressed-sensing": ({"ratio": 0.2}, (5, 25)),
    "fourier": ({}, (5, 25)),
    "super-resolution": ({"factor": 2}, (5, 25)),
    "deblurring": ({}, (5, 25)),
    "colorization": ({}, (5, 25)),
    "tomography": ({}, (1, 5)),
}
#: A solver of λ, by the name of its weights. As many iterations as the order of the pictures needs, TVAL3 as it runs by itself.
SOLVERS: dict[str, Callable[[float, Problem], Any]] = {
    "tv": lambda weight, problem: TotalVariation(weight=weight, iterations=150),
    "lasso-dct": lambda weight, problem: Lasso(weight=weight, iterations=100),
    "lasso-db4": lambda weight, problem: Lasso(weight=weight, iterations=100, basis="db4"),
    "tval3": lambda weight, problem: TVAL3(mu=misfit_weight(weight, problem)),
}
#: Factors c tried: powers of √2, climbing from 1 (from TV's known best, for the TV denoiser).
FINEST, COARSEST = -12, 8


def run(quick: bool, report: Report, names: Sequence[str] = ()) -> None:
    """A row for each method and operator with its best factor; the table at the end, as Python. None named: all of them."""
    table: dict[str, dict[str, float]] = {}
    for name in names or SOLVERS:
        make = SOLVERS[name]
        for kind in list(CASES)[:2] if quick else CASES:
            key = f"tune {name} {kind}"
            row = report.cached(key)
            if row is None:
                problems = _problems(kind, 1 if quick else len(PICTURES))
                scores: dict[int, float] = {}

                def score(power: int, problems: Any = problems, make: Any = make) -> float:
                    return statistics.fmean(
                        _psnr(make(2 ** (power / 2) * unit, problem), problem, truth) for problem, truth, unit in problems
                    )

                best = climb(score, scores)
                row = report.row(key, method=name, operator=kind, c=round(2 ** (best / 2), 3), psnr=scores[best], at_1=scores[0])
            table.setdefault(name, {})[kind] = row["c"]
    if not names and report.cached("tune denoiser") is None:
        report.row("tune denoiser", method="TV denoiser", c=_denoiser())
    print(f"WEIGHTS = {table}".replace("'", '"'))


def climb(score: Callable[[int], float], scores: dict[int, float]) -> int:
    """The power with the best score, uphill from 0 in steps of 4, 2 and 1, each tried once."""

    def at(power: int) -> float:
        if power not in scores:
            scores[power] = score(power)
        return scores[power]

    best = 0
    for stride in (4, 2, 1):
        while True:
            near = [p for p in (best - stride, best, best + stride) if FINEST <= p <= COARSEST]
            found = max(near, key=at)
            if found == best:
                break
            best = found
    return best


def _problems(kind: str, count: int) -> list[tuple[Problem, torch.Tensor, float]]:
    """Problems, their truths, and the weight that c = 1 stands for."""
    settings, levels = CASES[kind]
    operator = Operator.registry[kind](**settings)
    channels = 3 if kind == "colorization" else 1
    problems = []
    for i, name in enumerate(PICTURES[:count]):
        truth = examples.get(name).targets(size=SIDE, channels=channels)[:1]  # type: ignore[arg-type]
        shape: Any = tuple(truth.shape[1:])
        model = operator.build(shape, seed=i)
        assert isinstance(model, LinearModel)
        for level in levels:
            noise = GaussianNoise(sigma=level)
            y = model.measure(truth, noise, seed=100 + i)
            problem = Problem(y, model, operator, noise, model.noise_std(noise, y), shape)
            scale = _classical.gain(model)
            problems.append((problem, truth, scale**2 * _classical.noise_in_picture(problem, scale)))
    return problems


def _psnr(solver: Any, problem: Problem, truth: torch.Tensor) -> float:
    *_, last = solver.solve(problem, seeds=[0])
    return float(psnr(last.estimate, truth))


def _denoiser() -> float:
    """The factor of ``denoisers.TV_WEIGHT``: one for all σ."""
    cases = []
    for i, name in enumerate(PICTURES):
        truth = examples.get(name).targets(size=SIDE, channels=1)[:1]
        for level in (15, 25, 50):
            noise = torch.randn(truth.shape, generator=torch.Generator().manual_seed(100 + i))
            cases.append((truth, truth + level / 255 * noise, level / 255))
    factors = [k / 10 for k in range(5, 16)]

    def score(factor: float) -> float:
        return statistics.fmean(float(psnr(variation.denoise(y, factor * sigma), truth)) for truth, y, sigma in cases)

    return max(factors, key=score)
