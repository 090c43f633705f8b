"""Low-shot priors: of the embedded sets, exactly as the app would learn them live, and of collections of images in a folder."""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from netprior_core import examples, priors
from netprior_core.compute import choose
from netprior_core.device import pick_device
from netprior_core.errors import InvalidSettings
from netprior_core.methods import Method
from netprior_core.methods._shots import paired
from netprior_core.methods.lowshot import LowShot
from netprior_core.metrics import psnr
from netprior_core.noise import GaussianNoise
from netprior_core.operators import Operator
from netprior_core.problem import Problem
from netprior_core.training._cards import write_readme
from netprior_core.training._collections import COLLECTIONS
from netprior_core.training._loop import load_pickled, readable

SUMMARY = "pre-train low-shot priors on the shots of embedded sets, or on the first images of a collection in --data"

#: Sets whose priors are shipped; all files together stay below 4 MiB in fp16.
SHIPPED = ("faces", "coins", "histology", "phantoms", "digits")
PRESET = "shipped"
#: How the held-out targets are measured for the card: compressed sensing, m/n and σ in 8-bit units.
RATIO, SIGMA = 0.05, 1.0
#: Options of a collection's prior that must stay the same when it is gone on with; the iterations may grow.
MADE = ("collection", "shots", "loss", "channels", "batch", "size")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    known = [found.key for found in examples.sets() if found.n_shots]
    parser.add_argument("--set", nargs="*", default=list(SHIPPED), choices=known, help="embedded sets (default: all shipped)")
    parser.add_argument("--data", type=Path, help="folder with a collection's zip; needs --collection")
    parser.add_argument(
        "--collection", choices=list(COLLECTIONS), help="train on the first --shots images of it instead of embedded sets"
    )
    parser.add_argument("--shots", type=int, default=10, help="number of examples; smaller numbers are subsets of larger ones")
    parser.add_argument("--loss", choices=("l2", "mmd"), default="mmd")
    parser.add_argument("--channels", type=int, default=32)
    parser.add_argument("--iterations", type=int, default=50_000)
    parser.add_argument("--batch", type=int, default=0, help="examples at a time; 0: all")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--resume", action="store_true", help="go on from the state kept beside the file")
    parser.add_argument("--out", type=Path, default=priors.CHECKPOINTS, help="folder for the files")
    parser.add_argument("--targets", type=int, default=4, help="held-out targets measured for the card")
    parser.add_argument("--device", default="auto", help="cpu, cuda, mps or auto (default)")


def run(options: argparse.Namespace) -> None:
    """Pre-train and write each set, or the collection, with its card."""
    if options.collection:
        path = train_collection(options)
        print(f"{path.name}: {path.stat().st_size / 2**20:.2f} MiB")
        write_readme(options.out)
        return
    for name in options.set:
        path = train(name, options.out, targets=options.targets, device=pick_device(options.device))
        print(f"{path.name}: {path.stat().st_size / 2**20:.2f} MiB")
        write_readme(options.out)


def train(name: str, folder: Path, *, targets: int, device: torch.device) -> Path:
    """Pre-train on one set's shots and write its checkpoint; returns its path."""
    found, method = examples.get(name), LowShot.preset(PRESET)
    shots = found.shots()
    stream = method.pretraining(shots, choose(method.precision, device))
    start, shown = time.perf_counter(), 0.0
    while True:
        try:
            step = next(stream)
        except StopIteration as stop:
            trained = stop.value
            break
        if (now := time.perf_counter()) - shown > 5:
            shown = now
            print(f"{name}: {step.iteration} of {step.total}, {now - start:.0f} s", flush=True)
    seconds = time.perf_counter() - start
    assert step.output is not None
    card: dict[str, Any] = {
        **method.card(shots),
        "title": f"Low-shot prior: {found.title}",
        "data": f"the {found.n_shots} shots of the embedded set '{name}'",
        "terms": found.credit,
        "command": f"python -m netprior_core train lowshot --set {name}",
        "seconds": round(seconds),
        "key": method.key(shots),
        "metrics": {"psnr_of_shots": _drawn(step.output.cpu(), shots)},
    }
    path = priors.save(folder / f"lowshot-{name}.safetensors", trained.tensors(), card)
    if targets:
        card["metrics"] |= _held_out(method, found.targets()[:targets], shots, trained)
        priors.save(path, trained.tensors(), card)
    print(f"{name}: {card['metrics']}", flush=True)
    return path


def train_collection(options: argparse.Namespace) -> Path:
    """Pre-train on the first images of a collection as the paper does; keeps its state, resumes, writes the file at the end.

    Raises InvalidSettings when that cannot be learned, or when the state to go on from is none or of a run with other settings.
    """
    method = _method(options)
    collection, device = COLLECTIONS[options.collection], pick_device(options.device)
    shots = collection.shots(options.data, options.shots, options.size)
    held_out = range(collection.first_held_out, collection.first_held_out + options.targets)
    name = f"{options.collection}-{options.shots}-{options.loss}"
    path = options.out / f"lowshot-{name}.safetensors"
    state_file = options.out / f"lowshot-{name}.state"
    options.out.mkdir(parents=True, exist_ok=True)
    made = {name: getattr(options, name) for name in MADE}
    state: dict[str, Any] | None = None
    before, curve = 0.0, list[list[float]]()
    if options.resume and state_file.exists():
        state, before, curve = _resumed(state_file, made, options.iterations)
    start, shown = time.perf_counter(), 0.0

    def keep(now: Mapping[str, Any]) -> None:
        partial = state_file.with_suffix(".partial")
        about = {"made": made, "planned": options.iterations, "curve": curve}
        torch.save({**now, **about, "seconds": before + time.perf_counter() - start}, partial)
        partial.replace(state_file)

    stream = method.pretraining(shots, choose(method.precision, device), resume=state, keep=keep)
    while True:
        try:
            step = next(stream)
        except StopIteration as stop:
            trained = stop.value
            break
        if step.iteration % (options.iterations // 20 or 1) == 0 and step.output is not None and step.phase == "pre-training":
            curve.append([step.iteration, _drawn(step.output.cpu(), shots)])
        if (now := time.perf_counter()) - shown > 20:
            shown = now
            print(f"{name}: {step.iteration} of {step.total}, {before + now - start:.0f} s, {curve[-1:]}", flush=True)
    command = f"train lowshot --collection {options.collection} --shots {options.shots} --loss {options.loss}"
    command += f" --channels {options.channels} --iterations {options.iterations} --batch {options.batch} --data DIR"
    card: dict[str, Any] = {
        **method.card(shots),
        "name": f"lowshot-{name}",
        "title": f"{collection.title}, {options.shots} shots, {options.loss}",
        "data": f"{collection.title}: images 1 to {options.shots} of {collection.archive}",
        "terms": collection.terms,
        "command": f"python -m netprior_core {command}",
        "seconds": round(before + time.perf_counter() - start),
        "key": method.key(shots),
        "curve_of_shots_psnr": curve,
    }
    if options.targets:
        card["metrics"] = _held_out(method, collection.images(options.data, held_out, options.size), shots, trained)
    priors.save(path, trained.tensors(), card)
    state_file.unlink(missing_ok=True)
    print(f"{name}: {card.get('metrics', 'not measured')}", flush=True)
    return path


def _method(options: argparse.Namespace) -> LowShot:
    """What learns the shots. Raises InvalidSettings when these options make no sense together."""
    if options.shots < 1:
        raise InvalidSettings("--shots: there must be at least one example to learn.")
    if options.batch < 0:
        raise InvalidSettings("--batch: a number of examples, or 0 for all of them.")
    if options.loss == "mmd" and options.shots < 2:
        raise InvalidSettings(
            "--shots: the MMD compares sets of images, so it needs at least two examples. Take two, or --loss l2."
        )
    if options.loss == "mmd" and options.batch == 1:
        raise InvalidSettings(
            "--batch: the MMD compares sets of images, so a batch is at least two examples. Take two, or 0 for all, or --loss l2."
        )
    settings = {
        **LowShot.presets["as published"],
        "kind": "low-shot",
        "loss": options.loss,
        "channels": options.channels,
        "pretrain_iterations": options.iterations,
        "batch": options.batch,
        "tv_weight": LowShot().tv_weight,
    }
    method = Method.registry.parse(settings)
    assert isinstance(method, LowShot)
    return method


def _resumed(path: Path, made: Mapping[str, Any], iterations: int) -> tuple[dict[str, Any], float, list[list[float]]]:
    """The state in a file, the seconds that it took, and its curve. Raises InvalidSettings when it is of another run."""
    state = load_pickled(path, made)
    with readable(path):
        seconds, curve, planned = float(state["seconds"]), list(state["curve"]), int(state["planned"])
        if iterations < planned:
            raise InvalidSettings(f"{path.name} belongs to a run of {planned:,} iterations: --iterations can be more, not fewer.")
    return state, seconds, curve


def _drawn(images: torch.Tensor, shots: torch.Tensor) -> float:
    """Mean PSNR of the shots as drawn, each by the image that is its own: the MMD pairs no latent with a shot on the way."""
    return round(float(psnr(images[paired(images, shots)], shots).mean()), 2)


def _held_out(method: LowShot, targets: torch.Tensor, shots: torch.Tensor, trained: Any) -> dict[str, Any]:
    values = []
    for i, truth in enumerate(targets):
        shape: Any = tuple(truth.shape)
        operator, noise = Operator.registry["compressed-sensing"](ratio=RATIO), GaussianNoise(sigma=SIGMA)
        model = operator.build(shape, seed=2000 + i)  # never the seed of a method: the same bits
        y = model.measure(truth[None], noise, seed=1000 + i)
        problem = Problem(y, model, operator, noise, model.noise_std(noise, y), shape, shots)
        *_, last = method._solve(problem, i, trained)
        assert last.estimate is not None
        values.append(psnr(last.estimate, truth[None]).item())
    return {
        "psnr_of_targets": round(sum(values) / len(values), 2),
        "targets": len(values),
        "measured_with": f"compressed sensing, m/n = {RATIO}, sigma = {SIGMA}/255, TV weight {method.tv_weight:g}",
    }
