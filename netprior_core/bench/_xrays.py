"""CS-DIP's comparison on chest x-rays (its figure 1a and table 2), with one A, one y and one noise for all methods."""

from __future__ import annotations

import argparse
import io
import statistics
import time
import zipfile
from pathlib import Path
from typing import Any

import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from netprior_core import examples
from netprior_core.bench import Report, stamp
from netprior_core.bench._data import from_zip
from netprior_core.bench.learned_regularisation import FIRST_VALIDATION, XRAYS
from netprior_core.device import pick_device
from netprior_core.errors import InvalidSettings, Unsolvable
from netprior_core.methods import _tuned
from netprior_core.methods.amp import DAMP
from netprior_core.methods.base import Method
from netprior_core.methods.csdip import CSDIP
from netprior_core.methods.lasso import Lasso
from netprior_core.methods.tv import TotalVariation
from netprior_core.methods.tval3 import TVAL3
from netprior_core.noise import GaussianNoise
from netprior_core.operators.compressed_sensing import CompressedSensing
from netprior_core.problem import Problem

COUNTS = (1000, 2000, 4000, 8000)
METHODS = ("CS-DIP", "CS-DIP, gentle start", "BM3D-AMP", "TV-AMP", "TVAL3", "TV", "Lasso DCT", "Lasso wavelets")
#: Seconds of the paper's table 2, CS-DIP on a GTX 1080 Ti, the others on a CPU.
PAPER_SECONDS = {
    "CS-DIP": (15.6, 17.1, 20.4, 29.9),
    "BM3D-AMP": (51.1, 54.0, 67.8, 71.2),
    "TVAL3": (13.8, 22.1, 31.9, 56.7),
    "Lasso DCT": (27.1, 33.0, 52.2, 96.4),
}


def method(name: str, quick: bool) -> Method:
    """The settings of a row: defaults, made for no image; CS-DIP as released for x-rays, and with a gentle start."""
    less: dict[str, Any] = {"iterations": 60, "channels": 16} if quick else {}
    made: dict[str, Method] = {
        "CS-DIP": CSDIP.preset("as released, x-ray", **less),
        "CS-DIP, gentle start": CSDIP.preset("as released, x-ray", **{"warm_up": 300, **less}),
        "BM3D-AMP": DAMP(denoiser="bm3d", iterations=2 if quick else 30),
        "TV-AMP": DAMP(),
        "TVAL3": TVAL3.preset("CS-DIP"),
        "TV": TotalVariation(),
        "Lasso DCT": Lasso(),
        "Lasso wavelets": Lasso(basis="db4"),
    }
    return made[name]


def run(options: argparse.Namespace, report: Report) -> None:
    """A row for each image, m and method; then mean MSE (figure 1a) and seconds (table 2), laid out as in the paper."""
    device = pick_device(options.device)
    counts = (100, 400) if options.quick else tuple(options.counts)
    pictures = _pictures(options)
    side = pictures[0][1].shape[-1]
    print(
        f"chest x-rays {side}×{side}, no noise; A: randomly signed, subsampled Hartley transform, one draw for each image and m, "
        "the same for all methods; MSE per pixel for images in [−1, 1], four times that in [0, 1]"
    )
    rows = []
    for i, (name, truth) in enumerate(pictures):
        for count in counts:
            for label in options.methods:
                solver = method(label, options.quick)
                key = f"xray {name} {side} {count} {label} {stamp(solver, _tuned.WEIGHTS)}"
                row = report.cached(key)
                if row is None:
                    problem = _problem(truth.to(device), count, i)
                    if (reason := solver.accepts(problem)) is not None:
                        print(f"{label} left out: {reason}")
                        continue
                    row = report.row(key, image=name, m=count, method=label, **_measure(solver, problem, truth.to(device)))
                rows.append(row)
    for label in options.methods:
        _tables(report, label, [row for row in rows if row["method"] == label], counts)
    if options.curve is not None and rows:
        options.curve.parent.mkdir(parents=True, exist_ok=True)
        options.curve.write_bytes(curve(rows, side))
        print(f"{options.curve}: mean squared error against m")


def curve(rows: list[dict[str, Any]], side: int) -> bytes:
    """PNG of mean squared error against m, a line for each method; crosses where a run failed. Laid out as figure 1a."""
    figure = Figure(figsize=(6.4, 4.2), dpi=120, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for number, label in enumerate(dict.fromkeys(row["method"] for row in rows)):
        by_count: dict[int, list[dict[str, Any]]] = {}
        for row in rows:
            if row["method"] == label:
                by_count.setdefault(row["m"], []).append(row)
        counts = sorted(by_count)
        means = [statistics.fmean(row["mse"] for row in by_count[count]) for count in counts]
        colour, dash = f"C{number}", ("-", "--", ":")[number % 3]
        axes.plot(counts, means, dash, color=colour, marker="o", markersize=4, label=label)
        failed = [i for i, count in enumerate(counts) if any(row["failed"] for row in by_count[count])]
        axes.plot([counts[i] for i in failed], [means[i] for i in failed], "x", color=colour, markersize=10)
    axes.set(
        xscale="log", yscale="log", xlabel=f"measurements m (of {side * side:,} pixels)", ylabel="MSE per pixel, images in [−1, 1]"
    )
    axes.set_xticks(sorted({row["m"] for row in rows}), [f"{m:,}" for m in sorted({row["m"] for row in rows})], minor=False)
    axes.minorticks_off()
    axes.grid(color="0.9")
    axes.legend(fontsize=8, frameon=False)
    written = io.BytesIO()
    figure.savefig(written, format="png")
    return written.getvalue()


def _problem(truth: torch.Tensor, count: int, index: int) -> Problem:
    shape: Any = tuple(truth.shape[1:])
    operator, noise = CompressedSensing(count=count, matrix="structured"), GaussianNoise(sigma=0)
    model = operator.build(shape, seed=3000 + index, device=truth.device)
    y = model.measure(truth, noise, seed=0)
    return Problem(y, model, operator, noise, 0.0, shape)


def _measure(solver: Method, problem: Problem, truth: torch.Tensor) -> dict[str, Any]:
    """MSE of the result, or of the last picture of a run that failed."""
    estimate, failed, start = torch.zeros_like(truth), "", time.perf_counter()
    try:
        for step in solver.solve(problem, seeds=[0]):
            if step.estimate is not None:
                estimate = step.estimate.clone()
    except Unsolvable as error:
        failed = str(error)
    seconds = time.perf_counter() - start
    # Estimates are not clipped in the paper; a failed run's error is shown as it is.
    return {"mse": 4 * float((estimate - truth).square().mean()), "seconds": seconds, "failed": failed}


def _tables(report: Report, label: str, rows: list[dict[str, Any]], counts: tuple[int, ...]) -> None:
    if not rows:
        return
    by_count = {count: [row for row in rows if row["m"] == count] for count in counts}
    mse: dict[str, Any] = {
        f"m={count}": statistics.fmean(r["mse"] for r in some) if some else "" for count, some in by_count.items()
    }
    failed = {f"m={count}": sum(bool(r["failed"]) for r in some) for count, some in by_count.items()}
    seconds: dict[str, Any] = {
        f"m={count}": statistics.fmean(r["seconds"] for r in some) if some else "" for count, some in by_count.items()
    }
    report.row(table="MSE (figure 1a)", algorithm=label, **mse, failed=sum(failed.values()), of=len(rows))
    report.row(table="seconds (table 2)", algorithm=label, **seconds)
    if label in PAPER_SECONDS and tuple(counts) == COUNTS:
        paper: dict[str, Any] = {f"m={count}": value for count, value in zip(COUNTS, PAPER_SECONDS[label], strict=True)}
        report.row(table="seconds, published", algorithm=label, **paper)


def _pictures(options: argparse.Namespace) -> list[tuple[str, torch.Tensor]]:
    if options.quick:
        return [("phantom", examples.get("phantoms").targets(size=32)[:1])]
    path = (options.data or Path("no folder given")) / XRAYS
    if not path.is_file():
        raise InvalidSettings(f"There is no {XRAYS} in the folder given with --data.")
    with zipfile.ZipFile(path) as archive:
        names = sorted(name for name in archive.namelist() if name.endswith(".jpg"))[FIRST_VALIDATION:]
    return [(Path(name).stem, from_zip(options.data, XRAYS, name, channels=1)) for name in names[: options.images]]
