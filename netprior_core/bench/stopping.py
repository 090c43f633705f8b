"""How many decibels each stopping rule loses against the best iterate, and what watching costs."""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any

import torch

from netprior_core import examples
from netprior_core.bench import Report
from netprior_core.device import pick_device
from netprior_core.methods.base import Method
from netprior_core.methods.deep_decoder import UntrainedDeepDecoder
from netprior_core.methods.dip import DeepImagePrior
from netprior_core.metrics import CONVENTION
from netprior_core.noise import GaussianNoise
from netprior_core.operators.denoising import Denoising
from netprior_core.problem import Problem
from netprior_core.race import Race
from netprior_core.stopping import StoppingRule

SUMMARY = "decibels that each stopping rule loses against the best iterate, on DIP and Deep Decoder, and what watching costs"
IMAGES = ("astronaut", "cat", "coffee", "portrait")
SIGMAS = (25, 50)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options besides --quick and --json."""
    parser.add_argument("--size", type=int, default=128, help="side of the image in pixels")
    parser.add_argument("--iterations", type=int, default=2000)
    parser.add_argument("--rules", nargs="*", default=["watching", "held-out", "sure"], help="watching, held-out, sure: a run each")
    parser.add_argument("--images", nargs="+", choices=IMAGES, default=list(IMAGES), help="which to run now")
    parser.add_argument("--methods", nargs="+", choices=list(methods(1)), default=list(methods(1)), help="which to run now")
    parser.add_argument("--device", default="auto", help="cpu, cuda, mps or auto (default)")


def rules_of(name: str) -> list[StoppingRule]:
    """The rules of one run: all that only watch, or one that changes it."""
    registry = StoppingRule.registry
    if name == "watching":
        return [cls() for cls in registry if not cls.changes_run]
    return [registry[name]()]


def methods(iterations: int) -> dict[str, Method]:
    """DIP as its raw output, which is where stopping matters, and Deep Decoder as its last network."""
    return {
        "DIP": DeepImagePrior(iterations=iterations, averaging=0.0),
        "Deep Decoder": UntrainedDeepDecoder(iterations=iterations, keep_best=False),
    }


def run(options: argparse.Namespace, report: Report) -> None:
    """A row for each run, then for each method and rule the mean loss, the worst, and how often it never fired."""
    images, size, iterations = (IMAGES[:1], 32, 150) if options.quick else (options.images, options.size, options.iterations)
    device = pick_device(options.device)
    print(f"Denoising {size}×{size}, σ = {' and '.join(map(str, SIGMAS))} of 255, {iterations} iterations, {device}; {CONVENTION}")
    print("A run that stops by a rule returns that rule's iterate; lost = best iterate of the same run minus that one, in dB.")
    report.in_parts({"size": size, "iterations": iterations})
    for group in options.rules:
        # Image by image, so that a bench that was cut off has both methods on the same images.
        for name in images:
            for sigma in SIGMAS:
                for title in options.methods:
                    key = f"{group}, {title}, {name}, {sigma}"
                    if report.cached(key) is None:
                        report.row(key, **_run(methods(iterations)[title], title, name, sigma, group, size, device))
    found: dict[tuple[str, str], list[tuple[float, bool]]] = {}
    for row in report.known().values():
        for rule, lost in row["lost"].items():
            found.setdefault((row["method"], rule), []).append((lost, row["fired"][rule]))
    for (title, rule), values in found.items():
        lost = [value for value, _ in values]
        never = sum(not fired for _, fired in values)
        report.row(method=title, rule=rule, lost_db=statistics.fmean(lost), worst_db=max(lost), runs=len(lost), never_fired=never)
    report.row(**_cost(iterations=40 if options.quick else 120, size=size, device=device))


def _race(method: Method, title: str, name: str, sigma: float, rules: list[StoppingRule], size: int, device: torch.device) -> Race:
    def build() -> tuple[Problem, torch.Tensor]:
        truth = examples.get(name).targets(size=size)[:1].to(device)
        shape: Any = tuple(truth.shape[1:])
        operator, noise = Denoising(), GaussianNoise(sigma=sigma)
        model = operator.build(shape, device=device)
        y = model.measure(truth, noise, seed=1000)
        return Problem(y, model, operator, noise, model.noise_std(noise, y), shape), truth

    return Race(build, [(method, title, "")], seeds=[0], keep_frames=False, rules=rules)


def _run(method: Method, title: str, name: str, sigma: float, group: str, size: int, device: torch.device) -> dict[str, Any]:
    lane = _race(method, title, name, sigma, rules_of(group), size, device).run().lanes[0]
    assert lane.best is not None
    best, at = lane.best
    stops = list(lane.stops.values())
    return {
        "method": title,
        "image": name,
        "sigma": sigma,
        "best": best,
        "best_at": at,
        "last": lane.curve.psnr[-1],
        "lost": {stop.title: best - stop.psnr for stop in stops if stop.psnr is not None},
        "stops": {stop.title: stop.iteration for stop in stops},
        "fired": {stop.title: stop.fired is not None for stop in stops},
        "seconds": lane.seconds,
    }


def _cost(iterations: int, size: int, device: torch.device) -> dict[str, Any]:
    """Seconds of a turn with all watching rules over those without, alternating."""
    races = {}
    for name, rules in (("plain", []), ("watched", rules_of("watching"))):
        races[name] = _race(DeepImagePrior(iterations=iterations, averaging=0.0), name, "cat", 25, rules, size, device)
    seconds: dict[str, list[float]] = {name: [] for name in races}
    while not all(race.done for race in races.values()):
        for name, race in races.items():
            start = time.perf_counter()
            race.turn()
            seconds[name].append(time.perf_counter() - start)
    # Rules look at the measurement every tenth turn: sums, not medians.
    ratio = sum(seconds["watched"][10:]) / sum(seconds["plain"][10:])
    return {
        "method": "DIP",
        "rule": "all that watch",
        "turn_ms": 1e3 * statistics.median(seconds["watched"]),
        "cost_percent": 100 * (ratio - 1),
    }
