"""How long an iteration of Deep Image Prior takes, against a plain float32 implementation of the same network, at what quality."""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterator
from typing import Any

import torch

from netprior_core import examples
from netprior_core.bench import Report
from netprior_core.device import pick_device
from netprior_core.methods.dip import DeepImagePrior
from netprior_core.metrics import CONVENTION, psnr
from netprior_core.networks.seeded import seeded
from netprior_core.networks.skip import Skip, scales_for
from netprior_core.noise import GaussianNoise
from netprior_core.operators import Operator
from netprior_core.problem import Problem

SUMMARY = "seconds of one DIP iteration against a plain float32 eager implementation of the same network, and the quality of both"
WARM_UP = 5
TIMED = 14  # iterations of a size that is timed only
DIFFERENCES = ("difference", "difference_averaged")
_T95 = {1: 12.71, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262, 11: 2.201, 15: 2.131, 19: 2.093}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options besides --quick and --json."""
    parser.add_argument("--size", type=int, default=128, help="side of the image on which quality is compared too")
    parser.add_argument("--sizes", type=int, nargs="*", default=[256, 512], help="more sides, timed only")
    parser.add_argument("--seeds", type=int, default=5, help="paired runs")
    parser.add_argument("--iterations", type=int, default=300, help="of each run; quality is the mean over the last sixth")
    parser.add_argument("--device", default="auto", help="cpu, cuda, mps or auto (default)")


def run(options: argparse.Namespace, report: Report) -> None:
    """Alternate one iteration of ours with one of the plain loop, from the same weights, latent and jitter."""
    size, seeds, iterations = (64, 1, 60) if options.quick else (options.size, options.seeds, options.iterations)
    device = pick_device(options.device)
    print(f"DIP {size}×{size}, denoising σ = 25, {iterations} iterations, {device}; {CONVENTION}")
    rows = []
    for seed in range(seeds):
        key = f"seed {seed}"
        rows.append(report.cached(key) or report.row(key, run=key, **_paired(size, iterations, seed, device)))
    columns = [name for name in rows[0] if name not in ("key", "run")]
    means: dict[str, Any] = {name: statistics.fmean(row[name] for row in rows) for name in columns}
    report.row(run="mean", **means)
    if len(rows) > 1:  # a 95% interval of the mean, by Student's t
        half = {n: _T95.get(len(rows) - 1, 2.0) * statistics.stdev(row[n] for row in rows) / len(rows) ** 0.5 for n in DIFFERENCES}
        report.row(run="± 95%", **half)
    for more in () if options.quick else options.sizes:
        key = f"{more}×{more}"
        found = report.cached(key)
        if found is None:
            timed = _paired(more, TIMED, 0, device)
            report.row(key, run=key, **{name: timed[name] for name in ("ours_ms", "plain_ms", "ratio")})


def _paired(size: int, iterations: int, seed: int, device: torch.device) -> dict[str, Any]:
    problem, truth = _problem(size, seed, device)
    method = DeepImagePrior(iterations=iterations)
    runs: dict[str, Iterator[tuple[torch.Tensor, torch.Tensor]]] = {
        "ours": ((s.output, s.estimate) for s in method.solve(problem, seeds=[seed])),  # type: ignore[misc]
        "plain": plain(problem, method, seed),
    }
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    quality: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
    for iteration in range(1, iterations + 1):
        for name, stream in runs.items():
            start = time.perf_counter()
            output, estimate = next(stream)
            if device.type != "cpu":
                torch.accelerator.synchronize(device)
            seconds[name].append(time.perf_counter() - start)
            if iteration > iterations * 5 // 6:
                quality[name].append((psnr(output, truth).item(), psnr(estimate, truth).item()))
    for stream in runs.values():
        stream.close()  # type: ignore[attr-defined]
    ms = {name: 1e3 * statistics.median(values[WARM_UP:]) for name, values in seconds.items()}
    raw, averaged = ({name: statistics.fmean(pair[i] for pair in pairs) for name, pairs in quality.items()} for i in (0, 1))
    return {
        "ours_ms": ms["ours"],
        "plain_ms": ms["plain"],
        "ratio": ms["ours"] / ms["plain"],
        "ours_psnr": raw["ours"],
        "plain_psnr": raw["plain"],
        "difference": raw["ours"] - raw["plain"],
        "difference_averaged": averaged["ours"] - averaged["plain"],
    }


def _problem(size: int, seed: int, device: torch.device) -> tuple[Problem, torch.Tensor]:
    truth = examples.get("astronaut").targets(size=size).to(device)
    shape: Any = tuple(truth.shape[1:])
    operator, noise = Operator.registry["denoising"](), GaussianNoise(sigma=25)
    model = operator.build(shape, seed=seed, device=device)
    y = model.measure(truth, noise, seed=seed)
    return Problem(y, model, operator, noise, model.noise_std(noise, y), shape), truth


def plain(problem: Problem, method: DeepImagePrior, seed: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """The reference: float32, contiguous tensors, PyTorch's ordinary Adam, no rollback; output and running average.

    It draws weights, latent and jitter in the order :class:`DeepImagePrior` does, so that both start from the same point.
    """
    channels, height, width = problem.shape
    generator = torch.Generator().manual_seed(seed)
    network = seeded(lambda: Skip(channels, scales=scales_for(height, width)), generator).to(problem.device)
    z = torch.rand((1, 32, height, width), generator=generator) * 0.1
    adam = torch.optim.Adam(network.parameters(), lr=method.learning_rate)
    average = None
    while True:
        jittered = z + torch.randn(z.shape, generator=generator) * method.jitter
        image = network(jittered.to(problem.device))
        loss = torch.nn.functional.mse_loss(problem.model.forward(image), problem.measurement)
        adam.zero_grad()
        loss.backward()
        adam.step()
        output = image.detach()
        average = output if average is None else method.averaging * average + (1 - method.averaging) * output
        yield output, average
