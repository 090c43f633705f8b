"""Colorization with a 10-shot prior against untrained networks, as in the low-shot paper's figure 2."""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from netprior_core import priors
from netprior_core.bench import Report, _data_axis, stamp
from netprior_core.bench._data import cache_of
from netprior_core.device import pick_device
from netprior_core.errors import InvalidSettings
from netprior_core.frames import picture_of
from netprior_core.methods import Method
from netprior_core.methods.csdip import CSDIP
from netprior_core.methods.dip import DeepImagePrior
from netprior_core.methods.lowshot import LowShot
from netprior_core.metrics import CONVENTION, psnr
from netprior_core.noise import GaussianNoise
from netprior_core.operators import Operator
from netprior_core.problem import Problem

#: The paper's model for colorization.
PRIOR = "lowshot-celeba-10-mmd"
AHEAD_DB = 3.0
GREY, NETWORK, DIP = "Luma in all channels", "Low-shot's network, untrained", "DIP"
PUBLISHED, OURS = "10 shots, mmd, as published", "10 shots, mmd, ours"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options besides those of ``--axis``."""
    parser.add_argument("--colorization", action="store_true", help="colours of CelebA faces: 10 shots against untrained ones")
    parser.add_argument("--sheet", type=Path, help="--colorization: PNG to write: truth, luma, untrained, 10 shots")


def methods(folder: Path, *, quick: bool) -> dict[str, Method]:
    """The rows of the table; low-shot's own network untrained has the prior's width and the paper's baseline's settings."""
    path = folder / f"{PRIOR}.safetensors"
    if not path.is_file():
        raise InvalidSettings(f"There is no {path.name} in the folder given with --priors.")
    width = int(priors.card_of(path)["settings"]["channels"])
    few: dict[str, Any] = _data_axis.QUICK if quick else {}
    less: dict[str, Any] = {"iterations": 40} if quick else {}
    name = _data_axis.name_of(path)
    return {
        PUBLISHED: LowShot.preset("as published, MMD", prior=name, **few),
        OURS: LowShot.preset(_data_axis.OURS, loss="mmd", prior=name, **few),
        NETWORK: CSDIP.preset("low-shot paper's baseline, m/n ≤ 0.5", channels=width, **less),
        DIP: DeepImagePrior.preset("1000 iterations", **less, **({"channels": 16} if quick else {})),
    }


def run(options: argparse.Namespace, report: Report) -> None:
    """A row for each face and method, means, how far 10 shots are ahead, and the sheet."""
    device = pick_device(options.device)
    count = 2 if options.quick else options.images or _data_axis.IMAGES
    faces = _data_axis.validation_faces(options.data, count).to(device)
    first = _data_axis.first()
    print(f"Colorization of CelebA faces {first} to {first + count - 1}, no noise. {CONVENTION}")
    if options.quick:
        print("--quick: a few iterations on two faces show that the bench works, and nothing else.")
    report.in_parts({"colorization": True, "quick": options.quick})
    drawn: dict[str, list[torch.Tensor]] = {}
    scores: dict[str, list[float]] = {}
    with cache_of(_data_axis.named_files(options.priors)):
        table = methods(options.priors, quick=options.quick)
        taught = priors.card_of(options.priors / f"{PRIOR}.safetensors")
        for i, face in enumerate(faces):
            problem = _problem(face[None], i)
            grey = problem.model.initial(problem.measurement)
            drawn.setdefault(GREY, []).append(grey[0].cpu())
            scores.setdefault(GREY, []).append(psnr(grey, face[None]).item())
            report.row(image=first + i, method=GREY, psnr=round(scores[GREY][-1], 2), seconds=0.0)
            for title, method in table.items():
                key = f"{title} {stamp(method, taught.get('key'), taught.get('seconds'))}, image {first + i}"
                row = report.cached(key) if options.sheet is None else None  # a row holds no picture for the sheet
                if row is None:
                    estimate, value, seconds = _data_axis.solved(method, problem, face[None], i)
                    row = report.row(key, image=first + i, method=title, psnr=round(value, 2), seconds=round(seconds, 1))
                    drawn.setdefault(title, []).append(estimate[0].cpu())
                scores.setdefault(title, []).append(row["psnr"])
    means = {title: statistics.fmean(each) for title, each in scores.items()}
    for title, mean in means.items():
        report.row(image="mean", method=title, psnr=round(mean, 2))
    best = max((NETWORK, DIP), key=lambda title: means[title])
    for title in (PUBLISHED, OURS):
        gain = means[title] - means[best]
        better = sum(a > b for a, b in zip(scores[title], scores[best], strict=True))
        words = "reached" if gain >= AHEAD_DB else "not reached"
        print(f"{title} − {best}: {gain:+.2f} dB, better on {better} of {count} faces. Goal {AHEAD_DB:g} dB: {words}.")
    if options.sheet is not None:
        lanes = [list(faces.cpu()), drawn[GREY], drawn[best], drawn[PUBLISHED], drawn[OURS]]
        write_sheet(options.sheet, lanes)
        print(f"{options.sheet}: rows are truth, luma, {best}, {PUBLISHED}, {OURS}.")


def _problem(truth: torch.Tensor, image: int) -> Problem:
    shape: Any = tuple(truth.shape[1:])
    operator, noise = Operator.registry["colorization"](), GaussianNoise(sigma=0)
    model = operator.build(shape, seed=2000 + image, device=truth.device)
    y = model.measure(truth, noise, seed=1000 + image)
    return Problem(y, model, operator, noise, model.noise_std(noise, y), shape)


def write_sheet(path: Path, lanes: list[list[torch.Tensor]], gap: int = 2) -> None:
    """A PNG of pictures ``(3, H, W)`` in [0, 1], one row for each lane, on white."""
    height, width = lanes[0][0].shape[-2:]
    sheet = np.full((len(lanes) * (height + gap) - gap, len(lanes[0]) * (width + gap) - gap, 3), 255, np.uint8)
    for row, lane in enumerate(lanes):
        for column, picture in enumerate(lane):
            top, left = row * (height + gap), column * (width + gap)
            sheet[top : top + height, left : left + width] = picture_of(picture)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(sheet).save(path)
