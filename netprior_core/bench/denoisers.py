"""Denoisers on the standard test sets: CBSD68, its grey version and Set12 at σ = 15, 25, 50, noise not clipped."""

from __future__ import annotations

import argparse
import hashlib
import json
import statistics
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from netprior_core import denoisers, examples, priors
from netprior_core.bench import Report
from netprior_core.bench._data import from_zip
from netprior_core.device import pick_device
from netprior_core.errors import InvalidSettings
from netprior_core.metrics import CONVENTION, psnr

SUMMARY = "the small DRUNet and BM3D on CBSD68, grey BSD68 and Set12 at σ = 15, 25 and 50"
LEVELS = (15, 25, 50)
#: Published PSNR at these levels (Zhang et al. 2021, tables 1-3; BM3D on grey BSD68: Zhang et al. 2017, table 2).
PUBLISHED: dict[tuple[str, str], tuple[float, float, float]] = {
    ("CBSD68", "DRUNet, full size"): (34.30, 31.69, 28.51),
    ("BSD68", "DRUNet, full size"): (31.91, 29.48, 26.59),
    ("Set12", "DRUNet, full size"): (33.25, 30.94, 27.90),
    ("BSD68", "BM3D"): (31.07, 28.57, 25.62),
    ("BSD68", "DnCNN"): (31.73, 29.23, 26.23),
}
#: Zip and channels of each set.
SETS = {"CBSD68": ("restoration/cbsd68.zip", 3), "BSD68": ("restoration/cbsd68.zip", 1), "Set12": ("restoration/set12.zip", 1)}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options besides --quick and --json."""
    parser.add_argument("--data", type=Path, help="folder that holds restoration/cbsd68.zip and restoration/set12.zip")
    parser.add_argument("--denoisers", nargs="*", choices=list(denoisers.DENOISERS), default=["neural"])
    parser.add_argument("--sets", nargs="*", choices=list(SETS), default=list(SETS))
    parser.add_argument("--images", type=int, default=1000, help="at most so many pictures of each set")
    parser.add_argument("--device", default="auto", help="cpu, cuda, mps or auto (default)")


def run(options: argparse.Namespace, report: Report) -> None:
    """A row for each picture, level and denoiser; rows of earlier runs with the same weights are kept. Then the means."""
    report.in_parts({"noise": "white, not clipped", "quick": options.quick})
    device = pick_device(options.device)
    print(f"white Gaussian noise, not clipped, one draw for each picture and level; {CONVENTION}")
    rows: list[dict[str, Any]] = []
    for name in options.denoisers:
        if (reason := denoisers.get(name).available()) is not None:
            print(f"{denoisers.get(name).title} left out: {reason}")
            continue
        which, denoise = fingerprint(name), denoisers.load(name, device)
        pictures = _quick() if options.quick else _pictures(options)
        for group, picture, truth in pictures:
            for level in LEVELS[1:2] if options.quick else LEVELS:
                key = f"{group} | {picture} | {level} | {name} {which}"
                row = report.cached(key)
                if row is None:
                    clean = truth.to(device)
                    noise = torch.randn(truth.shape, generator=torch.Generator().manual_seed(_seed(picture, level)))
                    noisy = clean + level / 255 * noise.to(device)
                    start = time.perf_counter()
                    found = psnr(denoise(noisy, level / 255), clean).item()
                    seconds = time.perf_counter() - start
                    row = report.row(key, set=group, image=picture, sigma=level, denoiser=name, psnr=found, seconds=seconds)
                rows.append(row)
    _means(report, rows)


def fingerprint(name: str) -> str:
    """What tells the weights of a learned denoiser from others: a short hash of the card; "" for the rest."""
    if name != "neural":
        return ""
    card = priors.named(denoisers.NEURAL).card
    return hashlib.sha256(json.dumps(card, sort_keys=True).encode()).hexdigest()[:8]


def grey(x: torch.Tensor) -> torch.Tensor:
    """``(1, 3, H, W)`` to the grey of BSD68, ``floor(0.298936 R + 0.587043 G + 0.114021 B + 0.5)`` in 8-bit levels."""
    weights = torch.tensor([0.298936, 0.587043, 0.114021], dtype=torch.float64).view(1, 3, 1, 1)
    return ((x.double() * 255 * weights).sum(dim=1, keepdim=True) + 0.5).floor().float() / 255


def _seed(picture: str, level: int) -> int:
    """The seed of the noise of a picture: from its name, so that leaving out others changes nothing."""
    return int.from_bytes(hashlib.sha256(f"{picture} {level}".encode()).digest()[:4], "big")


def _pictures(options: argparse.Namespace) -> Iterator[tuple[str, str, torch.Tensor]]:
    for group in options.sets:
        archive, channels = SETS[group]
        path = (options.data or Path("no folder given")) / archive
        if not path.is_file():
            raise InvalidSettings(f"There is no {archive} in the folder given with --data.")
        with zipfile.ZipFile(path) as file:
            names = sorted(entry for entry in file.namelist() if entry.endswith(".png"))
        for name in names[: options.images]:
            three = archive.endswith("cbsd68.zip")
            picture = from_zip(options.data, archive, name, channels=3 if three else 1)
            yield group, Path(name).stem, grey(picture) if three and channels == 1 else picture


def _quick() -> Iterator[tuple[str, str, torch.Tensor]]:
    """Two embedded pictures, in colour and grey: no data needed."""
    for name in ("portrait", "coffee"):
        picture = examples.get(name).targets(size=96)[:1]
        yield "colour", name, picture
        yield "grey", name, grey(picture)


def _means(report: Report, rows: list[dict[str, Any]]) -> None:
    """A line for each set and denoiser: mean PSNR at each level and seconds, the published beside."""
    for group, name in dict.fromkeys((row["set"], row["denoiser"]) for row in rows):
        some = [row for row in rows if (row["set"], row["denoiser"]) == (group, name)]
        means: dict[str, Any] = {
            f"σ={level}": round(statistics.fmean(row["psnr"] for row in some if row["sigma"] == level), 2)
            for level in dict.fromkeys(row["sigma"] for row in some)
        }
        pictures = len({row["image"] for row in some})
        seconds = round(statistics.fmean(row["seconds"] for row in some), 3)
        report.row(set=group, pictures=pictures, method=denoisers.get(name).title, **means, seconds=seconds)
    for (group, title), values in PUBLISHED.items():
        if group in {row["set"] for row in rows}:
            named: dict[str, Any] = {f"σ={level}": value for level, value in zip(LEVELS, values, strict=True)}
            report.row(set=group, method=f"{title}, published", **named)
