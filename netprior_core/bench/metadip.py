"""MetaDIP's tables 1-3: denoising, compressed sensing and compressive phase retrieval on faces and natural patches."""

from __future__ import annotations

import argparse
import statistics
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from netprior_core import examples, priors
from netprior_core.bench import Report, called
from netprior_core.bench._data import from_zip
from netprior_core.device import pick_device
from netprior_core.errors import InvalidSettings
from netprior_core.images import to_pil
from netprior_core.methods.base import Method
from netprior_core.methods.dip import DeepImagePrior
from netprior_core.methods.metadip import SIREN_TRAINED, MetaDIP, MetaSIREN
from netprior_core.methods.metadip import key as key_of
from netprior_core.metrics import CONVENTION, psnr
from netprior_core.noise import GaussianNoise
from netprior_core.operators import Operator
from netprior_core.problem import Problem

SUMMARY = "tables 1-3 of MetaDIP at 128×128: DIP at 50 and 1000, MetaSIREN and MetaDIP at 50 iterations, faces and natural patches"
FACES, KODAK, SET5 = "faces/lfw_3000_128x128.zip", "restoration/kodak24.zip", "restoration/set5.zip"
#: Pictures of each kind that DIP at 1000 is run on, too, and those on which MetaDIP goes on for as long, not only to 200.
SLOW, LONG = 6, 1
HELD_FACES = 50
READ_AT = (20, 50, 200, 1000)
#: A picture is useful from this many decibels below the one after 50 iterations on.
USEFUL = 2.0
#: MetaDIP as the paper has it: without our caution.
PUBLISHED = MetaDIP.presets["published recipe, learned at 64 px"]
#: How many of the worst results of each of these methods are named, and drawn when a folder is given.
WORST, RANKED = 5, ("MetaDIP", "MetaDIP, mixed")


@dataclass(frozen=True)
class Column:
    """A column of a table: operator, noise, and what the paper has there (faces, patches) by method."""

    table: int
    name: str
    operator: dict[str, Any]
    sigma: float
    published: dict[str, tuple[float, float]]

    def build(self, matrix: str = "structured") -> Any:
        """The operator's settings; ``matrix`` where it has one."""
        with_matrix = {"matrix": matrix} if "ratio" in self.operator else {}
        return Operator.registry.parse({**self.operator, **with_matrix})


def _published(dip: tuple[float, float], short: tuple[float, float], siren: tuple[float, float], meta: tuple[float, float]) -> Any:
    return {"DIP (1000)": dip, "DIP (50)": short, "MetaSIREN": siren, "MetaDIP": meta}


CS, PR = "compressed-sensing", "phase-retrieval"
COLUMNS = (
    Column(1, "σ=15", {"kind": "denoising"}, 15, _published((31.6, 30.7), (10.1, 10.9), (31.4, 30.4), (32.0, 31.7))),
    Column(1, "σ=25", {"kind": "denoising"}, 25, _published((30.6, 30.1), (10.1, 10.9), (30.0, 29.0), (30.7, 30.4))),
    Column(2, "CS 1/4", {"kind": CS, "ratio": 0.25}, 25, _published((29.4, 29.2), (9.84, 10.0), (26.5, 25.1), (29.0, 28.3))),
    Column(2, "CS 1/8", {"kind": CS, "ratio": 0.125}, 25, _published((28.5, 28.3), (9.83, 10.0), (23.7, 22.0), (27.2, 26.7))),
    Column(3, "PR 1/4", {"kind": PR, "ratio": 0.25}, 25, _published((29.3, 29.3), (9.9, 9.9), (27.4, 25.7), (29.8, 28.7))),
    Column(3, "PR 1/8", {"kind": PR, "ratio": 0.125}, 25, _published((28.4, 28.3), (10.2, 10.1), (24.7, 22.5), (28.6, 27.6))),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options besides --quick and --json."""
    parser.add_argument("--data", type=Path, help="folder that holds faces/lfw_3000_128x128.zip and restoration/{kodak24,set5}.zip")
    parser.add_argument("--columns", nargs="*", choices=[c.name for c in COLUMNS], default=[c.name for c in COLUMNS])
    parser.add_argument("--slow", type=int, default=SLOW, help="pictures of each kind for DIP at 1000 and MetaDIP at 200")
    parser.add_argument("--long", type=int, default=LONG, help="of these, pictures on which MetaDIP goes on to 1000")
    parser.add_argument("--fast", type=int, default=HELD_FACES, help="pictures of each kind, at most, for the fast methods")
    parser.add_argument("--methods", nargs="+", default=[""], help="run methods whose title holds one of these words")
    parser.add_argument(
        "--dense", action="store_true", help="also the exact dense A beside the structured one, two images at 64×64"
    )
    parser.add_argument("--worst", type=Path, help="folder for pictures of MetaDIP's worst results, which are run again for it")
    parser.add_argument("--device", default="auto", help="cpu, cuda, mps or auto (default)")


Pictures = dict[str, list[tuple[str, torch.Tensor]]]
Row = dict[str, Any]


def run(options: argparse.Namespace, report: Report) -> None:
    """A row for each run of a method on a picture, then the tables."""
    device = pick_device(options.device)
    report.in_parts({"quick": options.quick})
    pictures = _quick_pictures() if options.quick else _pictures(options.data, options.fast, 128)
    length = 50 if options.quick else 1000
    print(f"noise σ of 255 on each measurement, one draw of A and noise per picture; {CONVENTION}")
    columns = [c for c in COLUMNS if c.name in options.columns][:: 3 if options.quick else 1]
    rows: list[Row] = []
    again: dict[str, Callable[[], torch.Tensor]] = {}
    for column in columns:
        for kind, some in pictures.items():
            for i, (name, truth) in enumerate(some):
                slow = 0 if i >= options.slow else length if i < options.long else min(200, length)
                for label, method in _methods(slow, length):
                    key = f"{column.name} | {kind} | {name} | {label}, {_length_of(method)}"
                    row = report.cached(key)
                    if row is None and not called(label, options.methods):
                        continue
                    if row is None:
                        problem, truth = _problem(column.build(), column.sigma, truth.to(device), i)
                        if (refused := method.accepts(problem)) is not None:
                            print(f"{label} left out: {refused}")
                            continue
                        measured = _measure(method, problem, truth)
                        row = report.row(key, column=column.name, pictures=kind, image=name, method=label, **measured)
                    rows.append(row)
                    again[key] = partial(_beside, column, truth.to(device), i, method)
    if options.dense:
        _dense(report, columns, pictures, device)
    for table in sorted({c.table for c in columns}):
        _table(report, table, [c for c in columns if c.table == table], rows)
    for title in RANKED:
        _name_worst(report, [r for r in rows if r["method"] == title], again, options.worst)


def _methods(slow: int, length: int) -> Iterator[tuple[str, DeepImagePrior | MetaDIP | MetaSIREN]]:
    """What is run on a picture, DIP for ``length`` where MetaDIP runs for more than 50 (``slow``).

    MetaDIP is read at 20, 50, 200 and 1000: its steps do not depend on how many follow.
    """
    yield "MetaDIP", MetaDIP(**PUBLISHED, iterations=slow or min(50, length))
    yield "MetaDIP, mixed", MetaDIP(**MetaDIP.presets["mixed"], iterations=slow or min(50, length))
    yield "MetaDIP, random start", MetaDIP(**PUBLISHED, start="random", iterations=min(50, length))
    yield "MetaSIREN", MetaSIREN(iterations=min(50, length))
    if slow:
        yield "DIP", DeepImagePrior(iterations=length)


def _length_of(method: DeepImagePrior | MetaDIP | MetaSIREN) -> str:
    """How long a method runs and its start was learned, for keys: rows of weights that were learned on are measured anew."""
    words = f"{method.iterations} it"
    if isinstance(method, MetaDIP) and method.orthogonal:
        words += ", orthogonalised"
    if isinstance(method, MetaDIP) and method.cautious:
        words += ", cautious"
    if isinstance(method, DeepImagePrior) or method.start == "random":
        return words
    path = priors.shipped().get(key_of(method.kind, SIREN_TRAINED if isinstance(method, MetaSIREN) else method.trained))
    return words if path is None else f"{words}, {priors.card_of(path).get('steps')} steps learned"


def _problem(operator: Any, sigma: float, truth: torch.Tensor, index: int) -> tuple[Problem, torch.Tensor]:
    shape: Any = tuple(truth.shape[1:])
    noise = GaussianNoise(sigma=sigma)
    model = operator.build(shape, seed=2000 + index, device=truth.device)
    y = model.measure(truth, noise, seed=1000 + index)
    return Problem(y, model, operator, noise, model.noise_std(noise, y), shape), truth


def _measure(method: Method, problem: Problem, truth: torch.Tensor) -> Row:
    """PSNR of what would be returned (and of the raw output) at READ_AT, the best of every tenth step, seconds at READ_AT.

    ``useful_seconds`` passed before a learned start first came within USEFUL dB of its own picture after 50 iterations, however
    long the run went on; None for a random start, whose picture after 50 is of no use.
    """
    found: Row = {f"{name}_{k}": None for name in ("at", "raw", "seconds") for k in READ_AT}
    best, seconds = -1.0, 0.0
    curve: list[tuple[float, float]] = []
    stream, start = method.solve(problem, seeds=[0]), time.perf_counter()
    for step in stream:
        looked_at = step.iteration <= 50 or step.iteration % 10 == 0
        if problem.device.type != "cpu" and looked_at:  # or the device's work would be waited for below, where no time is counted
            torch.accelerator.synchronize()
        seconds += time.perf_counter() - start
        if step.stage == "solve" and step.estimate is not None and step.output is not None:
            if step.iteration in READ_AT:
                found[f"at_{step.iteration}"] = psnr(step.estimate, truth).item()
                found[f"raw_{step.iteration}"] = psnr(step.output, truth).item()
                found[f"seconds_{step.iteration}"] = seconds
            if looked_at:
                value = psnr(step.estimate, truth).item()
                best = max(best, value)
                curve.append((seconds, value))
        start = time.perf_counter()
    useful, level = None, found["at_50"]
    if getattr(method, "start", "random") != "random" and level is not None:
        useful = next(at for at, value in curve if value >= level - USEFUL)
    return {**found, "best": best, "final": curve[-1][1], "useful_seconds": useful, "seconds": seconds}


def _useful(row: Row) -> float | None:
    """Seconds to the first useful picture. Older rows count from the picture at the end: the same only where that was after 50."""
    if "useful_seconds" not in row and row["method"] in ("MetaDIP", "MetaDIP, mixed", "MetaSIREN") and row["at_200"] is None:
        return row.get("useful_after")
    return row.get("useful_seconds")


def _dense(report: Report, columns: list[Column], pictures: Pictures, device: torch.device) -> None:
    """Whether the structured A is a fair stand-in: MetaDIP with both, at a size where the dense one fits."""
    for column in (c for c in columns if "ratio" in c.operator):
        for name, truth in [some[0] for some in pictures.values() if some]:
            for matrix in ("dense", "structured"):
                key = f"{column.name} | {matrix} | {name}"
                if report.cached(key) is None:
                    small = truth[..., 32:96, 32:96].to(device) if truth.shape[-1] == 128 else truth.to(device)
                    problem, small = _problem(column.build(matrix), column.sigma, small, 0)
                    measured = _measure(MetaDIP(**PUBLISHED), problem, small)
                    report.row(key, check=matrix, column=column.name, image=name, at_50=measured["at_50"])


def _table(report: Report, table: int, columns: list[Column], rows: list[Row]) -> None:
    """Means laid out as in the paper: a line for each method, faces and patches of each column, seconds; the published beside."""
    lines: tuple[tuple[str, str, str], ...] = (
        ("DIP (1000)", "DIP", "at_1000"),
        ("DIP (1000), raw", "DIP", "raw_1000"),
        ("DIP (oracle stop)", "DIP", "best"),
        ("DIP (50)", "DIP", "at_50"),
        ("DIP (50), raw", "DIP", "raw_50"),
        ("MetaSIREN", "MetaSIREN", "at_50"),
        ("MetaDIP", "MetaDIP", "at_50"),
        ("MetaDIP (20)", "MetaDIP", "at_20"),
        ("MetaDIP (200)", "MetaDIP", "at_200"),
        ("MetaDIP (1000)", "MetaDIP", "at_1000"),
        ("MetaDIP, mixed", "MetaDIP, mixed", "at_50"),
        ("MetaDIP, mixed (20)", "MetaDIP, mixed", "at_20"),
        ("MetaDIP, random start", "MetaDIP, random start", "at_50"),
    )
    slow = {(r["column"], r["pictures"], r["image"]) for r in rows if r["method"] == "DIP"}
    for line, method, value in lines:
        means: Row = {}
        seconds: list[float] = []
        useful: list[float] = []
        for column in columns:
            for kind in ("faces", "patches"):
                some = [r for r in rows if r["method"] == method and r["column"] == column.name and r["pictures"] == kind]
                some = [r for r in some if r.get(value) is not None]
                both = [r for r in some if (r["column"], r["pictures"], r["image"]) in slow] or some
                name = f"{column.name} {kind}"
                means[name] = round(statistics.fmean(r[value] for r in both), 2) if both else None
                if len(some) > len(both):
                    means[f"{name}, all {len(some)}"] = round(statistics.fmean(r[value] for r in some), 2)
                published = column.published.get(line)
                if published is not None:
                    means[f"{name}, published"] = published[kind != "faces"]
                at = value.rsplit("_", 1)[-1]
                seconds += [r[f"seconds_{at}"] if at.isdigit() else r["seconds"] for r in both]
                useful += [found for r in some if value == "at_50" and (found := _useful(r)) is not None]
        if seconds:
            times = {"useful, s": statistics.fmean(useful), "useful at the latest, s": max(useful)} if useful else {}
            times["finished, s"] = statistics.fmean(seconds)
            means |= {name: round(value, 2) for name, value in times.items()}
            report.row(table=table, method=line, **means)


def _name_worst(report: Report, rows: list[Row], again: dict[str, Callable[[], torch.Tensor]], folder: Path | None) -> None:
    """The results furthest below the mean of their column and kind of picture, of one method; run again for a PNG in ``folder``.

    Columns differ in difficulty by more than pictures do, so PSNR itself would only find the hardest column.
    """
    rows = [r for r in rows if r["at_50"] is not None]
    groups: dict[tuple[str, str], list[float]] = {}
    for row in rows:
        groups.setdefault((row["column"], row["pictures"]), []).append(row["at_50"])
    below = {row["key"]: row["at_50"] - statistics.fmean(groups[row["column"], row["pictures"]]) for row in rows}
    for row in sorted(rows, key=lambda r: below[r["key"]])[:WORST]:
        about = {name: row[name] for name in ("method", "column", "pictures", "at_50")}
        report.row(worst=row["image"], **about, against_mean=round(below[row["key"]], 2))
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            safe = "".join(c if c.isalnum() else "-" for c in row["key"])
            to_pil(again[row["key"]]().clamp(0, 1).cpu()).save(folder / f"{safe}.png")


def _beside(column: Column, truth: torch.Tensor, index: int, method: Method) -> torch.Tensor:
    """The estimate after 50 iterations, or at the end of a shorter run, beside the truth ``(C, H, 2W)``."""
    problem, truth = _problem(column.build(), column.sigma, truth, index)
    estimate = truth
    for step in method.solve(problem, seeds=[0]):
        if step.stage == "solve" and step.estimate is not None:
            estimate = step.estimate.clone()
            if step.iteration == 50:
                break
    return torch.cat([estimate, truth], dim=-1)[0]


def _pictures(data: Path | None, count: int, side: int) -> Pictures:
    """LFW's last faces, and natural patches: centre crops of Set5's first two and Kodak's, never trained on."""

    def names(archive: str) -> list[str]:
        path = (data or Path("no folder given")) / archive
        if not path.is_file():
            raise InvalidSettings(f"There is no {archive} in the folder given with --data.")
        with zipfile.ZipFile(path) as file:
            return sorted(entry for entry in file.namelist() if entry.endswith((".png", ".jpg")))

    faces = [(FACES, name) for name in names(FACES)[-HELD_FACES:]]
    natural = [(KODAK, name) for name in names(KODAK)]
    set5 = [(SET5, name) for name in names(SET5) if "butterfly" in name or "bird" in name]
    patches = [*natural[:4], *set5, *natural[4:]]
    chosen = {"faces": faces[:count], "patches": patches[:count]}
    return {
        kind: [(Path(name).stem, from_zip(data, archive, name, side=side)) for archive, name in some]
        for kind, some in chosen.items()
    }


def _quick_pictures() -> Pictures:
    """Two embedded pictures at 32×32: no data needed."""
    return {
        kind: [(name, examples.get(name).targets(size=32)[:1])] for kind, name in (("faces", "portrait"), ("patches", "coffee"))
    }
