"""Tomography against scikit-image: seconds of forward model + adjoint, and quality of filtered back-projection."""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from skimage.data import shepp_logan_phantom
from skimage.transform import iradon, radon, resize

from netprior_core.bench import Report
from netprior_core.metrics import CONVENTION, psnr
from netprior_core.operators.tomography import Tomography, TomographyModel

SUMMARY = "seconds of tomography's forward model + adjoint, and PSNR of filtered back-projection, against scikit-image"
SIZES, QUICK_SIZES = (64, 128, 256, 512), (64, 128)
COUNTS = (15, 30, 60, 90, 180)
QUALITY_SIZE = 128


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options besides --quick and --json."""
    parser.add_argument("--views", type=int, default=60, help="of the timed geometries, over 180°")
    parser.add_argument(
        "--repeats", type=int, default=7, help="timed pairs of ours and scikit-image's at each size; medians are shown"
    )


def run(options: argparse.Namespace, report: Report) -> None:
    """Time both in turns at every size, then compare what each finds in its own sinogram of the Shepp-Logan phantom."""
    sizes, repeats = (QUICK_SIZES, 3) if options.quick else (SIZES, options.repeats)
    print(f"{options.views} views, float32, {torch.get_num_threads()} threads; as adjoint, iradon without filter; {CONVENTION}")
    for size in sizes:
        key = f"time {size}"
        if not report.cached(key):
            report.row(key, **_timed(size, options.views, repeats))
    for views in COUNTS:
        key = f"quality {views}"
        if not report.cached(key):
            report.row(key, **_compared(QUALITY_SIZE, views))


def phantom(size: int) -> np.ndarray:
    """The Shepp-Logan phantom, ``(size, size)`` float64 in [0, 1], antialiased."""
    picture: np.ndarray = resize(shepp_logan_phantom(), (size, size), anti_aliasing=True)
    return picture


def _model(size: int, views: int) -> TomographyModel:
    model = Tomography(angles=views).build((1, size, size))
    assert isinstance(model, TomographyModel)
    return model


def _timed(size: int, views: int, repeats: int) -> dict[str, Any]:
    picture, angles = phantom(size), np.arange(views) * 180 / views
    start = time.perf_counter()
    model = _model(size, views)
    build = time.perf_counter() - start
    x = torch.from_numpy(picture).float()[None, None]
    y, sinogram = model.forward(x), radon(picture, angles, circle=False)
    works: dict[str, Callable[[], object]] = {
        "ours_forward": lambda: model.forward(x),
        "skimage_forward": lambda: radon(picture, angles, circle=False),
        "ours_adjoint": lambda: model.adjoint(y),
        "skimage_adjoint": lambda: iradon(sinogram, angles, filter_name=None, circle=False),
    }
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for repeat in range(repeats + 1):
        for name, work in works.items():
            start = time.perf_counter()
            work()
            if repeat:  # the first time warms up
                seconds[name].append(time.perf_counter() - start)
    ms = {f"{name}_ms": 1e3 * statistics.median(values) for name, values in seconds.items()}
    ratio = (ms["ours_forward_ms"] + ms["ours_adjoint_ms"]) / (ms["skimage_forward_ms"] + ms["skimage_adjoint_ms"])
    stored = model.projector.bytes_if_stored / 2**20 * model.projector.stored / views
    return {"size": size, "views": views, **ms, "ratio": ratio, "build_ms": 1e3 * build, "stored_MiB": stored}


def _compared(size: int, views: int) -> dict[str, Any]:
    picture, angles = phantom(size), np.arange(views) * 180 / views
    truth = torch.from_numpy(picture)[None, None]
    model = _model(size, views)
    ours = model.initial(model.forward(truth.float())).double()
    theirs = torch.from_numpy(iradon(radon(picture, angles, circle=False), angles, circle=False))[None, None]
    line = torch.arange(size) - (size - 1) / 2
    circle = line**2 + line[:, None] ** 2 <= (size / 2) ** 2
    row: dict[str, Any] = {"size": size, "views": views}
    for where, seen in (("", torch.ones_like(circle)), ("_circle", circle)):
        # Zero on both sides adds no error: the mean is over the whole picture in either case.
        found = {name: float(psnr(value * seen, truth * seen)) for name, value in (("ours", ours), ("skimage", theirs))}
        row |= {f"ours_psnr{where}": found["ours"], f"skimage_psnr{where}": found["skimage"]}
        row[f"difference{where}"] = found["ours"] - found["skimage"]
    return row
