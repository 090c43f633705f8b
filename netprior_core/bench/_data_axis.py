"""The data axis of the low-shot paper's figure 1: priors of more and more faces beside untrained ones, m/n by m/n."""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from netprior_core import denoisers, priors
from netprior_core.bench import Report, chosen, stamp
from netprior_core.bench._data import cache_of
from netprior_core.device import pick_device
from netprior_core.methods import Method
from netprior_core.methods.csdip import CSDIP, baseline_for
from netprior_core.methods.dip import DeepImagePrior
from netprior_core.methods.lowshot import LowShot
from netprior_core.metrics import CONVENTION, psnr
from netprior_core.noise import GaussianNoise
from netprior_core.operators import Operator
from netprior_core.problem import Problem
from netprior_core.training._collections import COLLECTIONS

RATIOS = (0.02, 0.05, 0.1, 0.25)
SIGMAS = (0.0, 10.0)
IMAGES, SIZE = 10, 64
#: Number, counted from 1, of the first of the ten faces that settings are chosen on; figures are of others.
SELECTION = 9401
#: Quick: one face at the smallest ratio, few iterations.
QUICK = {"latent_iterations": 40, "joint_iterations": 40, "pretrain_iterations": 40}
#: What the issue asks for: more shots are at least as good within this, and ten shots this much ahead of the best untrained.
ALLOWED_DB, AHEAD_DB = 0.1, 1.5
#: Our presets, beside "as published": solving with the same prior, and with one learned our way from the same ten shots.
OURS, SHOTS = "ours", 10
LEARNED = {
    OURS: "ours, learned so too",
    "ours, upsampling": "ours with upsampling, learned so too",
    "ours, denoised": "ours with upsampling and a denoiser, learned so too",
}
#: A name that no shipped file has, so that the files of --priors are the ones that are measured.
_OWN = "benched-"
#: What a row is called whose prior was learned before.
SOLVED = "solved as published"


@dataclass(frozen=True)
class Row:
    """A method of the table: ``shots`` is 0 for untrained ones; ``stamp`` changes when its settings or its prior do.

    ``taught``: iterations of pre-training, and examples in each where not all of them.
    """

    title: str
    method: Method
    shots: int
    loss: str
    recipe: str
    stamp: str
    taught: str = ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``--axis`` and ``--colorization``."""
    parser.add_argument("--axis", action="store_true", help="priors of 5 to 100 CelebA faces against untrained ones, by m/n")
    parser.add_argument("--priors", type=Path, default=priors.CHECKPOINTS, help="folder with lowshot-celeba-*.safetensors")
    parser.add_argument("--ratios", type=float, nargs="+", default=list(RATIOS), help="--axis: which m/n to run now")
    parser.add_argument("--sigmas", type=float, nargs="+", default=list(SIGMAS), help="--axis: noise σ of 255 per measurement")
    parser.add_argument("--selection", action="store_true", help=f"--axis: faces {SELECTION} ff., on which settings were chosen")
    parser.add_argument("--methods", nargs="+", default=[""], help="--axis: run methods whose title holds one of these words")


def run(options: argparse.Namespace, report: Report) -> None:
    """A row for each image, m/n, σ and method; then means, and what they say. Parts can be run one after the other."""
    device = pick_device(options.device)
    ratios, sigmas = (options.ratios, options.sigmas) if not options.quick else ([0.02], [0.0])
    count = 1 if options.quick else options.images or IMAGES
    report.in_parts({"axis": True, "size": SIZE, "quick": options.quick, "selection": options.selection})
    start = SELECTION if options.selection else first()
    faces = COLLECTIONS["celeba"].images(options.data, range(start - 1, start - 1 + count), SIZE)
    shots = COLLECTIONS["celeba"].images(options.data, range(SHOTS), SIZE).to(device)
    with cache_of(named_files(options.priors)):
        table = rows(options.priors, quick=options.quick)
        print(f"CelebA faces {start} to {start + count - 1}, {SIZE} px, compressed sensing, A ~ N(0, 1/m), {device}")
        print(f"One A and noise per face for all methods. {CONVENTION}")
        some = chosen(table, options.methods)
        for i, face in enumerate(faces):
            for sigma in sigmas:
                for ratio in ratios:
                    for row in some:
                        key = _key(row, ratio, sigma, i)
                        if report.cached(key) is None:
                            report.row(key, image=start + i, **_solve(row, face[None].to(device), shots, ratio, sigma, i))
    known = report.known()
    for columns in _means(known, table):
        report.row(**columns)
    if options.quick:
        print("--quick: a few iterations on one face show that the bench works, and nothing else.")
    print("\n".join(["", *conclusions(known, table)]))


def first() -> int:
    """Number, counted from 1, of the first validation face: its file is 009501.jpg."""
    return COLLECTIONS["celeba"].first_held_out + 1


def validation_faces(data: Path | None, count: int) -> torch.Tensor:
    """The first ``count`` validation faces ``(count, 3, 64, 64)`` in [0, 1]: images 9,501, 9,502 … of the zip, never trained on."""
    collection = COLLECTIONS["celeba"]
    return collection.images(data, range(collection.first_held_out, collection.first_held_out + count), SIZE)


def named_files(folder: Path) -> dict[str, Path]:
    """The folder's CelebA files by names of their own, for :func:`cache_of`."""
    return {name_of(path): path for path in prior_files(folder)}


def name_of(path: Path) -> str:
    """What a file of --priors is called in its cache."""
    return f"{_OWN}{path.stem}"


def prior_files(folder: Path) -> list[Path]:
    """Files of the low-shot priors of CelebA faces."""
    return sorted(folder.glob("lowshot-celeba-*.safetensors"))


def rows(folder: Path, *, quick: bool = False) -> list[Row]:
    """The methods, cheap ones first: a prior's number of shots grows, then untrained ones."""
    found = []
    for path in prior_files(folder):
        card = priors.card_of(path)
        shots, loss = int(card["shots"]), str(card["settings"]["loss"])
        settings = card["settings"]
        taught = f"{settings['pretrain_iterations']:,} it" + (f" of {settings['batch']}" if settings.get("batch") else "")
        recipes = {SOLVED: "as published"} | ({"ours": OURS} if shots == 10 else {})
        for recipe, preset in recipes.items():
            # How it was learned is in the file; these settings say how it is solved with.
            method = LowShot.preset(preset, loss=loss, prior=name_of(path), **(QUICK if quick else {}))
            title = f"{shots} shots, {loss}, {recipe}"
            found.append(Row(title, method, shots, loss, recipe, stamp(method, card.get("key"), card.get("seconds")), taught))
    found.sort(key=lambda row: (row.loss != "mmd", row.shots, row.recipe))
    for preset, words in LEARNED.items():
        learned = LowShot.preset(preset, **(QUICK if quick else {}))
        denoiser = priors.named(denoisers.NEURAL).card if learned.denoiser_weight else {}
        made_of = stamp(learned, *(denoiser[name] for name in ("key", "seconds") if denoiser))
        found.append(Row(f"{SHOTS} shots, {learned.loss}, {words}", learned, SHOTS, learned.loss, preset, made_of))
    less: dict[str, Any] = {"iterations": 40, "channels": 16} if quick else {}
    untrained = {
        "CS-DIP as in the low-shot paper": CSDIP.preset(baseline_for(1), **{"channels": LowShot().channels, **less}),
        "CS-DIP": CSDIP.preset("as published", **less),
        "DIP": DeepImagePrior.preset("1000 iterations", **less),
    }
    return [*found, *(Row(f"{name}, untrained", method, 0, "", "", stamp(method)) for name, method in untrained.items())]


def _key(row: Row, ratio: float, sigma: float, image: int) -> str:
    return f"{row.title} {row.stamp}, m/n {ratio:g}, σ {sigma:g}, image {image}"


def _solve(row: Row, truth: torch.Tensor, shots: torch.Tensor, ratio: float, sigma: float, image: int) -> dict[str, Any]:
    problem = replace(sensed(truth, ratio, sigma, image), shots=shots)  # for the row that learns; the others do not look at them
    value, seconds = solved(_at(row.method, ratio), problem, truth, image)[1:]
    columns = {"ratio": ratio, "sigma": sigma, "method": row.title}
    return {**columns, "psnr": round(value, 3), "seconds": round(seconds, 2)}


def _at(method: Method, ratio: float) -> Method:
    """The low-shot paper's untrained baseline stops the earlier, the less was measured; other methods stay as they are."""
    if not isinstance(method, CSDIP) or method.layers != "dcgan":
        return method
    return method.model_copy(update={"iterations": min(method.iterations, CSDIP.preset(baseline_for(ratio)).iterations)})


def sensed(truth: torch.Tensor, ratio: float, sigma: float, image: int) -> Problem:
    """One draw of A and of the noise for each image, the same for every method; never the seed of a method."""
    shape: Any = tuple(truth.shape[1:])
    operator, noise = Operator.registry["compressed-sensing"](ratio=ratio, matrix="dense"), GaussianNoise(sigma=sigma)
    model = operator.build(shape, seed=2000 + image, device=truth.device)
    y = model.measure(truth, noise, seed=1000 + image)
    return Problem(y, model, operator, noise, model.noise_std(noise, y), shape)


def solved(method: Method, problem: Problem, truth: torch.Tensor, seed: int) -> tuple[torch.Tensor, float, float]:
    """(estimate, PSNR in dB, seconds of solving)."""
    start = time.perf_counter()
    for step in method.solve(problem, seeds=[seed]):
        if step.stage == "prepare":
            start = time.perf_counter()
    assert step.estimate is not None
    return step.estimate, psnr(step.estimate, truth).item(), time.perf_counter() - start


Known = Mapping[str, Mapping[str, Any]]


def values(known: Known, row: Row, ratio: float, sigma: float) -> dict[int, Mapping[str, Any]]:
    """The rows of one method at one m/n and σ, by image."""
    found = {i: known.get(_key(row, ratio, sigma, i)) for i in range(100)}
    return {i: value for i, value in found.items() if value is not None}


def _means(known: Known, table: list[Row]) -> list[dict[str, Any]]:
    """Mean PSNR and seconds of each method, a column for each m/n."""
    found = []
    for sigma in _sigmas(known):
        for row in table:
            columns: dict[str, Any] = {"method": row.title, "taught": row.taught, "sigma": sigma}
            for ratio in _ratios(known, sigma):
                cell = values(known, row, ratio, sigma)
                if cell:
                    columns[f"m/n {ratio:g}"] = round(statistics.fmean(one["psnr"] for one in cell.values()), 2)
                    columns[f"s {ratio:g}"] = round(statistics.fmean(one["seconds"] for one in cell.values()), 1)
                    columns["images"] = min(len(cell), columns.get("images", len(cell)))
            if "images" in columns:
                found.append(columns)
    return found


def _ratios(known: Known, sigma: float) -> list[float]:
    return sorted({row["ratio"] for row in known.values() if row["sigma"] == sigma})


def _sigmas(known: Known) -> list[float]:
    return sorted({row["sigma"] for row in known.values()})


def ahead(known: Known, a: Row, b: Row, ratio: float, sigma: float) -> float | None:
    """Mean of PSNR of a minus that of b over the images that both were run on, None without any."""
    one, other = values(known, a, ratio, sigma), values(known, b, ratio, sigma)
    both = one.keys() & other.keys()
    return statistics.fmean(one[i]["psnr"] - other[i]["psnr"] for i in both) if both else None


def conclusions(known: Known, table: list[Row]) -> list[str]:
    """Three answers in words, for each σ and m/n: does it grow with S, is 10 shots ahead, where does untrained overtake."""
    lines = []
    for sigma in _sigmas(known):
        noise = f"σ = {sigma:g}/255" if sigma else "no noise"
        for ratio in _ratios(known, sigma):
            for loss in dict.fromkeys(row.loss for row in table if row.shots):
                lines += _grows(known, [r for r in table if r.loss == loss and r.recipe == SOLVED], ratio, sigma, noise)
            untrained = _best_untrained(known, table, ratio, sigma)
            if untrained is not None:
                lines += _against(known, table, untrained, ratio, sigma, noise)
        lines += _overtaken(known, table, sigma, noise)
    return lines


def _best_untrained(known: Known, table: list[Row], ratio: float, sigma: float) -> Row | None:
    """The untrained method of the higher mean, over the images that all of them were run on."""
    cells = [(row, values(known, row, ratio, sigma)) for row in table if not row.shots]
    cells = [(row, cell) for row, cell in cells if cell]
    both = set.intersection(*(set(cell) for _, cell in cells)) if cells else set()
    if not both:
        return None
    return max(cells, key=lambda item: statistics.fmean(item[1][i]["psnr"] for i in both))[0]


def _grows(known: Known, ladder: list[Row], ratio: float, sigma: float, noise: str) -> list[str]:
    steps = []
    for a, b in pairwise(ladder):
        gain = ahead(known, b, a, ratio, sigma)
        if gain is not None:
            steps.append((a.shots, b.shots, gain))
    if not steps:
        return []
    said = ", ".join(f"{a} → {b}: {gain:+.2f}" for a, b, gain in steps)
    grows = "grows with S" if all(gain >= -ALLOWED_DB for *_, gain in steps) else "does not grow with S everywhere"
    taught = dict.fromkeys(row.taught for row in ladder)
    differently = (
        f" Learned differently: {', '.join(f'{row.shots} shots {row.taught}' for row in ladder)}." if len(taught) > 1 else ""
    )
    return [f"{noise}, m/n = {ratio:g}, {ladder[0].loss}: {grows} ({said} dB).{differently}"]


def _against(known: Known, table: list[Row], untrained: Row, ratio: float, sigma: float, noise: str) -> list[str]:
    lines = []
    for row in (row for row in table if row.shots == 10):
        gain = ahead(known, row, untrained, ratio, sigma)
        if gain is None:
            continue
        goal = "" if ratio > 0.05 else f" Goal {AHEAD_DB:g} dB at m/n ≤ 0.05: {'reached' if gain >= AHEAD_DB else 'not reached'}."
        lines.append(f"{noise}, m/n = {ratio:g}: {row.title} − {untrained.title}: {gain:+.2f} dB.{goal}")
    return lines


def _overtaken(known: Known, table: list[Row], sigma: float, noise: str) -> list[str]:
    lines = []
    for row in (row for row in table if row.shots):
        gains = []
        for ratio in _ratios(known, sigma):
            untrained = _best_untrained(known, table, ratio, sigma)
            gain = ahead(known, row, untrained, ratio, sigma) if untrained else None
            if gain is not None:
                gains.append((ratio, gain))
        if gains:
            lost = next((ratio for ratio, gain in gains if gain < 0), None)
            where = "untrained never overtakes" if lost is None else f"untrained is ahead from m/n = {lost:g}"
            lines.append(f"{noise}, {row.title}: {where} ({', '.join(f'{r:g}: {g:+.2f}' for r, g in gains)} dB).")
    return lines
