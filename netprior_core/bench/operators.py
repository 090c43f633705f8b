"""What forward models cost: A and its adjoint beside the obvious way of computing the same, and beside a dense matrix."""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

from netprior_core.bench import Report
from netprior_core.device import pick_device
from netprior_core.errors import InvalidSettings
from netprior_core.operators import ForwardModel, LinearModel, Operator
from netprior_core.operators.compressed_sensing import DenseModel
from netprior_core.operators.deblurring import BlurModel
from netprior_core.operators.fourier import FourierModel
from netprior_core.operators.super_resolution import SuperResolutionModel

SUMMARY = "milliseconds and memory of A and its adjoint beside the obvious implementation and a dense matrix, 64² to 1024²"
DENSE_BYTES = 512 * 2**20
#: Settings that differ from the defaults, by kind.
CASES: dict[str, list[dict[str, Any]]] = {
    "compressed-sensing": [{"ratio": 0.1, "matrix": "dense"}, {"ratio": 0.1, "matrix": "structured"}],
    "fourier": [{"lines": 20}, {"pattern": "cartesian"}],
    "deblurring": [
        {"width": 0.5},
        {"width": 2.0},
        {"kernel": "disk", "width": 8.0},
        {"kernel": "motion", "width": 15.0, "boundary": "reflect"},
    ],
    "super-resolution": [{"factor": 4, "kernel": "bicubic"}],
    "inpainting": [{"keep": 0.5}],
}
COLOUR = {"colorization"}
Job = Callable[[], object]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options besides --quick and --json."""
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 128, 256, 512, 1024], help="sides of the square images")
    parser.add_argument("--only", nargs="+", default=[], help="kinds of operators; all of them otherwise")
    parser.add_argument("--rounds", type=int, default=7, help="alternating rounds; the median is reported")
    parser.add_argument("--threads", type=int, default=1, help="more than one times the waiting for each other at small sizes")
    parser.add_argument("--device", default="auto", help="cpu, cuda, mps or auto (default)")


def run(options: argparse.Namespace, report: Report) -> None:
    """One row per operator, settings and size. Linear: A then Aᵀ; others: A and the gradient of the data fit."""
    sizes, rounds = ([64, 128], 3) if options.quick else (options.sizes, options.rounds)
    device, threads = pick_device(options.device), torch.get_num_threads()
    print(f"forward + adjoint, grey (colorization: colour), float32, {options.threads} threads, {device}")
    torch.set_num_threads(options.threads)
    try:
        _table(sizes, rounds, options.only, device, report)
    finally:
        torch.set_num_threads(threads)


def _table(sizes: list[int], rounds: int, only: list[str], device: torch.device, report: Report) -> None:
    for cls in Operator.registry:
        kind = cls.model_fields["kind"].default
        if only and kind not in only:
            continue
        for changes in CASES.get(kind, [{}]):
            for size in sizes:
                key = " ".join([kind, *(f"{name}={value}" for name, value in changes.items()), str(size)])
                if report.cached(key) is None:
                    report.row(key, **_row(cls(**changes), changes, size, rounds, device))


def _row(operator: Operator, changes: dict[str, Any], size: int, rounds: int, device: torch.device) -> dict[str, Any]:
    columns: dict[str, Any] = {"operator": operator.kind, "settings": ",".join(map(str, changes.values())), "size": size}
    shape = (3 if operator.kind in COLOUR else 1, size, size)
    generator = torch.Generator().manual_seed(0)
    shots = torch.rand((12, *shape), generator=generator) if operator.needs_shots else None
    try:
        start = time.perf_counter()
        model = operator.build(shape, device=device, shots=shots)
        columns["build_ms"] = 1e3 * (time.perf_counter() - start)
    except InvalidSettings as error:
        return {**columns, "reference": str(error)}
    if changes.get("matrix") == "dense" and not isinstance(model, DenseModel):
        return {**columns, "reference": "over the memory budget: see structured"}
    x = torch.rand((1, *shape), generator=generator).to(device)
    with torch.no_grad():
        y = model.forward(x)
        jobs: dict[str, Job] = {"ours": _ours(model, x, y)}
        name, obvious = _obvious(model, x, y)
        if obvious is not None:
            jobs["reference"] = obvious
        dense_bytes = 4 * model.m * model.n
        if model.linear and dense_bytes <= DENSE_BYTES and not isinstance(model, DenseModel):
            matrix = torch.rand((model.m, model.n), generator=generator).to(device)
            jobs["dense"] = _products(matrix, x, y)
        ms = alternating(jobs, rounds, device)
    columns |= {"ours_ms": ms["ours"], "ours_mib": bytes_held(model) / 2**20, "reference": name}
    columns |= {"reference_ms": ms.get("reference", ""), "ratio": ms["ours"] / ms["reference"] if "reference" in ms else ""}
    columns |= {"dense_ms": ms.get("dense", ""), "dense_ratio": ms["ours"] / ms["dense"] if "dense" in ms else ""}
    return {**columns, "dense_mib": dense_bytes / 2**20}


def _ours(model: ForwardModel, x: torch.Tensor, y: torch.Tensor) -> Job:
    if isinstance(model, LinearModel):
        return lambda: (model.forward(x), model.adjoint(y))
    return lambda: (model.forward(x), model.gradient(x, y))


def _products(matrix: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> Job:
    flat, measured = x.flatten(1), y.flatten(1)
    return lambda: (flat @ matrix.T, measured @ matrix)


def _obvious(model: ForwardModel, x: torch.Tensor, y: torch.Tensor) -> tuple[str, Job | None]:
    """What one would write first, with torch's own functions, for the same forward and adjoint; its name."""
    if isinstance(model, DenseModel):
        return "bare products, same matrix", _products(model.matrix, x, y)
    if isinstance(model, FourierModel):
        mask = model.pattern.to(x.dtype)
        grid = torch.fft.fft2(x, norm="ortho") * mask
        return "complex fft2 and a mask", lambda: (
            torch.fft.fft2(x, norm="ortho") * mask,
            torch.fft.ifft2(grid * mask, norm="ortho").real,
        )
    if isinstance(model, BlurModel):
        kernel = model.kernel.to(x)[None, None]
        reach = [kernel.shape[3] // 2] * 2 + [kernel.shape[2] // 2] * 2
        if min(x.shape[2:]) <= max(reach):
            return "", None
        # The flipped kernel is the adjoint on a circle; at a mirrored edge it only costs the same.
        mode, flipped = ("circular" if model.boundary == "circular" else "reflect"), kernel.flip(2, 3)
        return f"conv2d, {kernel.shape[2]}×{kernel.shape[3]}", lambda: (
            F.conv2d(F.pad(x, reach, mode=mode), flipped),
            F.conv2d(F.pad(y, reach, mode=mode), kernel),
        )
    if isinstance(model, SuperResolutionModel):
        return "interpolate(antialias) and autograd", lambda: _interpolated(x, y)
    return "", None


def _interpolated(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        small = F.interpolate(x, size=tuple(y.shape[2:]), mode="bicubic", antialias=True)
        return torch.autograd.grad(small, x, y)[0]


def alternating(jobs: dict[str, Job], rounds: int, device: torch.device, least: float = 0.004) -> dict[str, float]:
    """Median milliseconds of each job, taking turns; a short job is repeated within its turn for ``least`` seconds."""
    repeats = {}
    for name, job in jobs.items():
        _seconds(job, 1, device)  # warm-up
        repeats[name] = max(1, min(200, int(least / max(_seconds(job, 1, device), 1e-6))))
    taken: dict[str, list[float]] = {name: [] for name in jobs}
    for _ in range(rounds):
        for name, job in jobs.items():
            taken[name].append(_seconds(job, repeats[name], device))
    return {name: 1e3 * statistics.median(values) for name, values in taken.items()}


def _seconds(job: Job, repeats: int, device: torch.device) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        job()
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
    return (time.perf_counter() - start) / repeats


def bytes_held(model: object) -> int:
    """Bytes of all tensors that a model holds, each storage once."""
    found: dict[int, int] = {}
    seen: set[int] = set()
    waiting: list[Any] = [model]
    while waiting:
        value = waiting.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, torch.Tensor):
            for part in _parts(value):
                found[part.untyped_storage().data_ptr()] = part.untyped_storage().nbytes()
        elif isinstance(value, dict):
            waiting += value.values()
        elif isinstance(value, list | tuple):
            waiting += value
        elif type(value).__module__.startswith("netprior_core."):
            waiting += vars(value).values() if hasattr(value, "__dict__") else ()
    return sum(found.values())


def _parts(tensor: torch.Tensor) -> list[torch.Tensor]:
    if tensor.layout == torch.sparse_csr:
        return [tensor.crow_indices(), tensor.col_indices(), tensor.values()]
    return [tensor]
