"""Plug-and-play methods on MetaDIP's tables 2 and 3, and the search for their settings on embedded pictures."""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from netprior_core import denoisers, examples
from netprior_core.bench import Report
from netprior_core.bench.denoisers import fingerprint
from netprior_core.bench.metadip import COLUMNS, _pictures, _problem, _quick_pictures
from netprior_core.device import pick_device
from netprior_core.errors import Unsolvable
from netprior_core.methods import Method
from netprior_core.metrics import CONVENTION, psnr
from netprior_core.operators import Operator

SUMMARY = "PnP-ADMM, DPIR and RED at 128×128: compressed sensing and phase retrieval at 1/4 and 1/8; --tune finds their settings"
METHODS = ("pnp-admm", "dpir", "red")
#: MetaDIP, tables 2 and 3: faces, natural patches. 30.2 for DRUNet at 1/8, above its 29.1 at 1/4, looks like a slip.
PUBLISHED: dict[str, dict[str, tuple[float, float]]] = {
    "ADMM + DRUNet": {"CS 1/4": (27.6, 27.2), "CS 1/8": (28.1, 27.7), "PR 1/4": (29.1, 29.1), "PR 1/8": (30.2, 30.2)},
    "ADMM + BM3D": {"CS 1/4": (26.0, 26.8), "CS 1/8": (27.1, 25.7), "PR 1/4": (29.4, 29.0), "PR 1/8": (28.4, 27.7)},
}
#: Operators and noise (σ of 255) that settings are searched on, by operator's kind: fixed for the operator, so several strengths.
TUNED_ON: dict[str, list[tuple[dict[str, Any], float]]] = {
    "denoising": [({}, 25)],
    "inpainting": [({"keep": 0.5}, 0), ({"keep": 0.2}, 10)],
    "compressed-sensing": [({"ratio": ratio, "matrix": "structured"}, 25) for ratio in (0.5, 0.25, 0.125)],
    "fourier": [({"lines": 20}, 0), ({"lines": 20}, 10)],
    "phase-retrieval": [({"ratio": 0.25, "matrix": "structured"}, 25), ({"ratio": 0.125, "matrix": "structured"}, 25)],
    "super-resolution": [({"factor": 4}, 0), ({"factor": 2}, 5)],
    "deblurring": [({"kernel": "gaussian"}, 2.55), ({"kernel": "motion", "width": 9.0}, 7.65)],
    "tomography": [({"angles": 30}, 1)],
    "colorization": [({}, 5)],
}
#: Where a method's settings were searched on others.
TUNED_ELSEWHERE: dict[tuple[str, str], list[tuple[dict[str, Any], float]]] = {
    ("red", "deblurring"): [({"kernel": "gaussian"}, 2.55), ({"kernel": "motion", "width": 2.0}, 7.65)],
}
GRIDS: dict[str, dict[str, tuple[float, ...]]] = {
    "pnp-admm": {
        "first": (10, 49, 100, 200),
        "weight": (0.03, 0.1, 0.23, 0.5, 0.7, 1, 2, 4, 8),
        "last": (0.25, 0.5, 0.7, 1, 1.4, 2),
        "iterations": (8, 16, 24, 48),
    },
    "dpir": {
        "first": (10, 49, 100, 200),
        "weight": (0.03, 0.1, 0.23, 0.5, 1, 3, 10, 30),
        "last": (0.25, 0.5, 0.7, 1, 1.4, 2),
        "iterations": (8, 24, 48),
    },
    "red": {"weight": (0.05, 0.21, 1, 3, 10, 30), "strength": (3.25, 6, 12, 25, 50), "iterations": (25, 50, 100)},
}
TUNED_SIDE = 64
TUNED_PICTURES = ("portrait", "coffee")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options besides --quick and --json."""
    parser.add_argument("--data", type=Path, help="folder that holds faces/lfw_3000_128x128.zip and restoration/{kodak24,set5}.zip")
    parser.add_argument("--columns", nargs="*", choices=[c.name for c in COLUMNS], default=[c.name for c in COLUMNS if c.table > 1])
    parser.add_argument("--methods", nargs="*", choices=METHODS, default=list(METHODS))
    parser.add_argument("--denoiser", choices=list(denoisers.DENOISERS), default="neural")
    parser.add_argument("--images", type=int, default=6, help="pictures of each kind")
    parser.add_argument(
        "--tune", nargs="*", choices=list(TUNED_ON), help="search the settings of these operators (none named: all)"
    )
    parser.add_argument("--device", default="auto", help="cpu, cuda, mps or auto (default)")


def run(options: argparse.Namespace, report: Report) -> None:
    """A row for each run of a method on a picture, then the table; or the search."""
    denoiser = options.denoiser
    if (reason := denoisers.get(denoiser).available()) is not None:
        if not options.quick:
            raise Unsolvable(f"{denoisers.get(denoiser).title}: {reason}")
        print(f"{denoisers.get(denoiser).title} left out: {reason}; total variation instead")
        denoiser = "tv"
    which = f"{denoiser} {fingerprint(denoiser)}"
    device = pick_device(options.device)
    if options.tune is not None:
        report.in_parts({"tune": TUNED_PICTURES, "side": TUNED_SIDE})
        for kind in options.tune or TUNED_ON:
            for name in options.methods:
                _search(report, name, kind, denoiser, which, device)
        return
    report.in_parts({"quick": options.quick})
    print(f"noise σ of 255 on each measurement, one draw of A and noise per picture; {CONVENTION}")
    pictures = _quick_pictures() if options.quick else _pictures(options.data, options.images, 128)
    columns = [c for c in COLUMNS if c.name in options.columns][:: 2 if options.quick else 1]
    rows: list[dict[str, Any]] = []
    for column in columns:
        for name in options.methods:
            method: Method = Method.registry[name](denoiser=denoiser).suited(column.build())
            for kind, some in pictures.items():
                for i, (image, truth) in enumerate(some):
                    key = f"{column.name} | {kind} | {image} | {method.model_dump_json()} | {which}"
                    row = report.cached(key)
                    if row is None:
                        problem, clean = _problem(column.build(), column.sigma, truth.to(device), i)
                        found = _measure(method, problem, clean)
                        row = report.row(key, column=column.name, pictures=kind, image=image, method=method.title, **found)
                    rows.append(row)
    _table(report, [c.name for c in columns], rows, denoisers.get(denoiser).title, published=not options.quick)


def _measure(method: Method, problem: Any, truth: torch.Tensor) -> dict[str, float]:
    """PSNR of the result, the best on the way, and seconds."""
    curve, seconds, start = [], 0.0, time.perf_counter()
    for step in method.solve(problem, seeds=[0]):
        seconds += time.perf_counter() - start
        assert step.estimate is not None
        curve.append(psnr(step.estimate, truth).item())
        start = time.perf_counter()
    return {"psnr": curve[-1], "best": max(curve), "seconds": seconds}


def _table(report: Report, columns: list[str], rows: list[dict[str, Any]], title: str, *, published: bool) -> None:
    """A line for each method, faces and patches of each column, as in the paper; its own lines below."""
    for method in dict.fromkeys(row["method"] for row in rows):
        means: dict[str, Any] = {}
        mine = [row for row in rows if row["method"] == method]
        for column in columns:
            for kind in dict.fromkeys(row["pictures"] for row in mine):
                some = [row["psnr"] for row in mine if (row["column"], row["pictures"]) == (column, kind)]
                means[f"{column} {kind}"] = round(statistics.fmean(some), 2) if some else None
        report.row(line=f"{method} + {title}", **means, seconds=round(statistics.fmean(row["seconds"] for row in mine), 2))
    for line, values in PUBLISHED.items():
        both: dict[str, Any] = {
            f"{c} {kind}": values[c][i] for c in columns if c in values for i, kind in enumerate(("faces", "patches"))
        }
        if both and published:
            report.row(line=f"{line}, published", **both)


def _search(report: Report, name: str, kind: str, denoiser: str, which: str, device: torch.device) -> None:
    """Coordinate search from the defaults: one setting after another at its best of the grid, twice round."""
    cases = list(_cases(name, kind, device))
    known: dict[str, float] = {}

    def score(changes: dict[str, Any]) -> float:
        key = f"{name} {sorted(changes.items())}"
        if key not in known:
            method = Method.registry[name](denoiser=denoiser, **changes)
            try:
                known[key] = statistics.fmean(_measure(method, problem, truth)["psnr"] for problem, truth in cases)
            except Unsolvable:
                known[key] = -math.inf
        return known[key]

    row = report.cached(f"{name} | {kind} | {which}")
    if row is not None:
        return
    cls = Method.registry[name]
    best: dict[str, Any] = {setting: cls.model_fields[setting].default for setting in GRIDS[name]}
    start = score(best)
    for _ in range(2):
        before = dict(best)
        for setting, grid in GRIDS[name].items():
            options = [{**best, setting: value} for value in dict.fromkeys([best[setting], *grid])]
            best = max(options, key=score)
        if best == before:
            break
    report.row(f"{name} | {kind} | {which}", method=name, operator=kind, default=start, tuned=score(best), settings=best)


def _cases(name: str, kind: str, device: torch.device) -> Iterator[tuple[Any, torch.Tensor]]:
    """Problems with their truths for a method: every embedded picture under every strength of the operator."""
    for settings, sigma in TUNED_ELSEWHERE.get((name, kind), TUNED_ON[kind]):
        for i, name in enumerate(TUNED_PICTURES):
            truth = examples.get(name).targets(size=TUNED_SIDE)[:1].to(device)
            yield _problem(Operator.registry[kind](**settings), sigma, truth, 500 + i)
