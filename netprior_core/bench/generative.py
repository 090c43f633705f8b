"""Generative priors: CSGM, PGDGAN, NPGD and IAGAN beside low-shot and untrained priors, on faces and digits."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from netprior_core import generators, priors
from netprior_core.bench import Report, _generative, chosen
from netprior_core.bench._data import cache_of
from netprior_core.bench._data_axis import name_of, named_files, prior_files, solved, validation_faces
from netprior_core.bench._generative import Lane, problem_of
from netprior_core.compute import choose
from netprior_core.device import pick_device
from netprior_core.errors import MissingPrior
from netprior_core.isometry import isometry
from netprior_core.metrics import CONVENTION
from netprior_core.operators import Operator
from netprior_core.training._gan_data import digits

SUMMARY = "PSNR and seconds of generative priors against m, on faces and digits; designed A; restarts as one batch; near-isometry"

FACE, DIGIT = (3, 64, 64), (1, 28, 28)
#: The first of each are those that are cheap.
PARTS = ("isometry", "restarts", "faces", "digits", "designed")
COUNTS = {"faces": (200, 500, 2000), "digits": (25, 50, 75, 100, 200), "designed": (50, 100, 200), "isometry": (50, 200, 500, 2000)}
FACES, DIGITS = 8, 20
RESTARTS = 8
#: Samples that near-isometry is measured on: others than those a design is made from.
SAMPLES = 200


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options besides --quick and --json."""
    parser.add_argument("--data", type=Path, help="folder with the faces and the digits")
    parser.add_argument("--generators", type=Path, default=priors.CHECKPOINTS, help="folder with gan-* and projector-*.safetensors")
    parser.add_argument("--priors", type=Path, default=priors.CHECKPOINTS, help="folder with lowshot-celeba-*.safetensors")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="which parts to run now")
    parser.add_argument("--images", type=int, default=0, help=f"images of each part; 0: {FACES} faces, {DIGITS} digits")
    parser.add_argument("--counts", type=int, nargs="+", help="which m to run now; default: all of the part")
    parser.add_argument("--methods", nargs="+", default=[""], help="run methods whose title holds one of these words")
    parser.add_argument("--device", default="auto", help="cpu, cuda, mps or auto (default)")


def run(options: argparse.Namespace, report: Report) -> None:
    """A row for each image, m and method; then means and what they say. Rows of other parts stay in the file."""
    device = pick_device(options.device)
    report.in_parts({"quick": options.quick})
    print(f"One A for each image and m, shared by all methods; no noise; A ~ N(0, 1/m). {CONVENTION}. {device}")
    with cache_of(_files(options.generators, options.priors)):
        for part in options.parts:
            print(f"\n{part}", flush=True)
            {"isometry": _isometry, "restarts": _restarts, "designed": _designed}.get(part, _images)(options, report, device, part)
    lines = _generative.conclusions(report.known())
    for columns in _generative.means(report.known()):
        report.row(**columns)
    if options.quick:
        lines.append("--quick: a few iterations show that the bench works, and nothing else.")
    print("\n".join(["", *lines]))


def _images(options: argparse.Namespace, report: Report, device: torch.device, part: str) -> None:
    low_shot = _low_shot(options.priors) if part == "faces" else {}
    for i, truth in _truths(options, part, device):
        for count in _counts(options, part):
            problem = problem_of(Operator.registry["compressed-sensing"](count=count), truth, 2000 + i)
            for lane in chosen(_generative.lanes(part, low_shot, options.quick, count), options.methods):
                _row(report, part, lane, truth, problem, i, count)


def _designed(options: argparse.Namespace, report: Report, device: torch.device, part: str) -> None:
    """The same search with a random A, and with one made from the generator's samples."""
    if not _has(FACE):
        return
    for i, truth in _truths(options, part, device):
        for count in _counts(options, part):
            for name, operator in _matrices(count).items():
                problem = problem_of(operator, truth, 2000 + i)
                for lane in chosen(_generative.lanes(part, {}, options.quick, count), options.methods):
                    _row(report, part, lane, truth, problem, i, count, matrix=name)


def _row(report: Report, part: str, lane: Lane, truth: torch.Tensor, problem: Any, image: int, count: int, **more: Any) -> None:
    key = f"{part} {lane.title} {lane.stamp} {count} {image} {' '.join(more.values())}"
    if report.cached(key) is not None:
        return
    reason = lane.method.accepts(problem)
    if reason is not None:
        print(f"left out: {reason}", flush=True)
        return
    _, value, seconds = solved(lane.method, problem, truth, image)
    numbers = {"psnr": round(value, 3), "seconds": round(seconds, 3)}
    report.row(key, part=part, image=image, m=count, **more, method=lane.title, stamp=lane.stamp, **numbers)


def _restarts(options: argparse.Namespace, report: Report, device: torch.device, part: str) -> None:
    """Restarts of CSGM as one batch, against one after another; alternating, the least of three of each."""
    few = 2 if options.quick else RESTARTS
    iterations = 5 if options.quick else 25
    for shape, name in ((FACE, "faces"), (DIGIT, "digits")):
        if not _has(shape):
            continue
        drawing = generators.generator_for(shape)
        key = f"{part} {name} {drawing.digest()}"
        if report.cached(key) is not None:
            continue
        truth = generators.samples(drawing, choose("float32", "cpu"), 1, seed=5).to(device)
        problem = problem_of(Operator.registry["compressed-sensing"](count=100), truth, 1)
        together, apart = [], []
        for _ in range(1 if options.quick else 3):
            together.append(_seconds(_generative.csgm(few, iterations), problem, [0]))
            apart.append(sum(_seconds(_generative.csgm(1, iterations), problem, [seed]) for seed in range(few)))
        share = min(together) / min(apart)
        report.row(key, part=part, set=name, restarts=few, together=min(together), apart=min(apart), share=round(share, 3))


def _isometry(options: argparse.Namespace, report: Report, device: torch.device, part: str) -> None:
    """The near-isometry of random and designed A on differences of samples."""
    for shape, name in ((FACE, "faces"), (DIGIT, "digits")):
        if not _has(shape):
            continue
        drawing = generators.generator_for(shape)
        images = generators.samples(drawing, choose("float32", "cpu"), 20 if options.quick else SAMPLES, seed=9)
        for count in (c for c in _counts(options, part) if c < 784 or shape == FACE):
            for matrix, operator in _matrices(count).items():
                key = f"{part} {name} {count} {matrix} {drawing.digest()}"
                if report.cached(key) is not None:
                    continue
                found = isometry(operator.build(shape, seed=1), images)
                numbers = {n: round(v, 4) for n, v in asdict(found).items()}
                report.row(key, part=part, set=name, m=count, matrix=matrix, **numbers, alpha=round(found.alpha, 4))


def _matrices(count: int) -> dict[str, Any]:
    return {
        "random": Operator.registry["compressed-sensing"](count=count),
        "designed": Operator.registry["designed-sensing"](count=count, source="generator", normalisation="isometry"),
    }


def _truths(options: argparse.Namespace, part: str, device: torch.device) -> Iterator[tuple[int, torch.Tensor]]:
    """Numbers and images ``(1, C, H, W)``; few of them are the first of many."""
    count = 1 if options.quick else options.images or (DIGITS if part == "digits" else FACES)
    if part == "digits":
        # Spread over the first hundred, which the CS-DIP paper uses.
        numbers = [i * (100 // DIGITS) % 100 for i in range(count)]
        found = digits(options.data, "t10k")[numbers].float() / 255
    else:
        numbers, found = list(range(count)), validation_faces(options.data, count)
    yield from ((number, truth[None].to(device)) for number, truth in zip(numbers, found, strict=True))


def _counts(options: argparse.Namespace, part: str) -> tuple[int, ...]:
    known = COUNTS[part]
    if options.quick:
        return known[1:2]
    return tuple(c for c in known if options.counts is None or c in options.counts)


def _has(shape: tuple[int, int, int]) -> bool:
    try:
        generators.generator_for(shape)
    except MissingPrior as error:
        print(f"left out: {error}", flush=True)
        return False
    return True


def _seconds(method: Any, problem: Any, seeds: list[int]) -> float:
    start = time.perf_counter()
    for step in method.solve(problem, seeds=seeds):
        if step.stage == "prepare":
            start = time.perf_counter()
    return time.perf_counter() - start


def _low_shot(folder: Path) -> dict[int, str]:
    """Names of the low-shot priors of 10 and 100 faces, by shots; of two the MMD's."""
    found: dict[int, str] = {}
    for path in prior_files(folder):
        card = priors.card_of(path)
        if card["shots"] in (10, 100) and (card["shots"] not in found or card["settings"]["loss"] == "mmd"):
            found[int(card["shots"])] = name_of(path)
    return found


def _files(folder: Path, low_shot: Path) -> dict[str, Path]:
    """The folder's generators and projectors under their keys, and the low-shot priors under names, for :func:`cache_of`."""
    trained = [*folder.glob("gan-*.safetensors"), *folder.glob("projector-*.safetensors")]
    return {str(priors.card_of(path).get("key")): path for path in trained} | named_files(low_shot)
