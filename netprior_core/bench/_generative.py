"""The methods of the bench of generative priors, their means, and what these say."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from netprior_core import generators, priors
from netprior_core.bench import stamp
from netprior_core.errors import MissingPrior
from netprior_core.methods import Method
from netprior_core.methods.csdip import CSDIP, baseline_for
from netprior_core.methods.csgm import CSGM
from netprior_core.methods.iagan import IAGAN
from netprior_core.methods.lowshot import LowShot
from netprior_core.methods.npgd import NPGD
from netprior_core.methods.pgdgan import PGDGAN
from netprior_core.noise import GaussianNoise
from netprior_core.operators import Operator
from netprior_core.problem import Problem

CSGM_TITLE, NPGD_TITLES = "CSGM", ("NPGD, projection", "NPGD, safeguarded", "NPGD, briefly polished", "NPGD, polished")
#: What counts as equal.
EQUAL_DB = 0.1
#: What the issue asks for.
FASTER, BATCHED = 40.0, 0.4

Known = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Lane:
    """A method of the table; ``stamp`` changes with its settings and with the networks it starts from."""

    title: str
    method: Method
    stamp: str


def lanes(part: str, low_shot: Mapping[int, str], quick: bool, count: int) -> list[Lane]:
    """The methods of a part, cheap ones first, each as published for this m. ``low_shot``: names of priors by number of shots."""
    few: dict[str, Any] = {"iterations": 4} if quick else {}
    both: dict[str, Any] = {"latent_iterations": 4, "joint_iterations": 4} if quick else {}
    polish: dict[str, Any] = {"polish": 4} if quick else {}
    inner: dict[str, Any] = {"outer": 2, "inner": 3} if quick else {}
    published = "as published, digits" if part == "digits" else "as published, faces"
    adapted = "low-shot paper" if part == "faces" else "as released"
    shape = (1, 28, 28) if part == "digits" else (3, 64, 64)
    found: dict[str, Method] = {
        NPGD_TITLES[0]: NPGD.preset("as released, digits" if part == "digits" else "as released, faces", **few),
        NPGD_TITLES[1]: NPGD.preset("live", **few),
        NPGD_TITLES[2]: NPGD.preset("briefly polished (ours)", **few, **polish),
        NPGD_TITLES[3]: NPGD.preset("polished (ours)", **few, **polish),
        CSGM_TITLE: CSGM.preset(published, **few),
    }
    if part != "designed":
        found["PGDGAN"] = PGDGAN.preset("as published" if part == "digits" else "as released, faces", **inner)
        found["IAGAN"] = IAGAN.preset(adapted, **both)
    for shots, name in sorted(low_shot.items()):
        found[f"Low-shot {shots}"] = LowShot.preset("as published", prior=name, **both)
    if part == "faces":
        found["CS-DIP"] = CSDIP.preset(baseline_for(count / math.prod(shape)), **few)
    if part == "digits":
        found["CS-DIP"] = CSDIP.preset("as published, MNIST", **few)
    return [Lane(title, method, _stamp(method, shape)) for title, method in found.items()]


def csgm(restarts: int, iterations: int) -> CSGM:
    """For the timing of restarts."""
    return CSGM(restarts=restarts, iterations=iterations)


def problem_of(operator: Operator, truth: torch.Tensor, seed: int) -> Problem:
    """A noiseless measurement of ``truth`` ``(1, C, H, W)``."""
    shape = (int(truth.shape[1]), int(truth.shape[2]), int(truth.shape[3]))
    model = operator.build(shape, seed=seed, device=truth.device)
    noise = GaussianNoise(sigma=0)
    y = model.measure(truth, noise, seed=seed + 1)
    return Problem(y, model, operator, noise, 0.0, shape)


def current(known: Known) -> list[Mapping[str, Any]]:
    """Rows of images, without those of earlier networks or settings: of each method and m the stamp that came last counts."""
    rows = [row for row in known.values() if "psnr" in row]

    def group(row: Mapping[str, Any]) -> tuple[Any, ...]:
        return row["part"], row.get("matrix", ""), row["method"], row["m"]

    last = {group(row): row.get("stamp") for row in rows}
    return [row for row in rows if row.get("stamp") == last[group(row)]]


def means(known: Known) -> list[dict[str, Any]]:
    """Mean PSNR and seconds of each method, a column for each m, over the images that were run."""
    cells: dict[tuple[str, str, str], dict[int, list[Mapping[str, Any]]]] = {}
    for row in current(known):
        place = cells.setdefault((row["part"], row.get("matrix", ""), row["method"]), {})
        place.setdefault(row["m"], []).append(row)
    found = []
    for (part, matrix, method), by_count in cells.items():
        columns: dict[str, Any] = {"part": part, **({"matrix": matrix} if matrix else {}), "method": method}
        for count, rows in sorted(by_count.items()):
            columns[f"m {count}"] = round(statistics.fmean(row["psnr"] for row in rows), 2)
            columns[f"s {count}"] = round(statistics.fmean(row["seconds"] for row in rows), 2)
        columns["images"] = min(len(rows) for rows in by_count.values())
        found.append(columns)
    return found


def paired(known: Known, part: str, a: str, b: str, count: int, column: str = "psnr") -> list[tuple[float, float]]:
    """(a's, b's) values on the images that both were run on."""
    rows: dict[str, dict[int, float]] = {a: {}, b: {}}
    for row in current(known):
        if row["part"] == part and row["m"] == count and row["method"] in rows and column in row:
            rows[row["method"]][row["image"]] = row[column]
    return [(rows[a][i], rows[b][i]) for i in sorted(rows[a].keys() & rows[b].keys())]


def conclusions(known: Known) -> list[str]:
    """What the rows say of each of the issue's points, in words."""
    lines = []
    for part in ("faces", "digits"):
        counts = sorted({row["m"] for row in known.values() if row.get("part") == part and "psnr" in row})
        for count in counts:
            for title in NPGD_TITLES:
                lines += _faster(known, part, title, count)
            for title in ("IAGAN", "Low-shot 100", "CS-DIP", "PGDGAN"):
                gain = _gain(known, part, title, CSGM_TITLE, count)
                if gain is not None:
                    lines.append(f"{part}, m = {count}: {title} − CSGM: {gain:+.2f} dB")
    for row in known.values():
        if row.get("part") == "restarts":
            reached = "reached" if row["share"] <= BATCHED else "not reached"
            lines.append(
                f"{row['restarts']} restarts of CSGM as a batch, {row['set']}: {row['share']:.2f} of the time of one after "
                f"another. Goal {BATCHED:g}: {reached}."
            )
    return [*lines, *_fewer(known)]


def _gain(known: Known, part: str, a: str, b: str, count: int) -> float | None:
    both = paired(known, part, a, b, count)
    return statistics.fmean(x - y for x, y in both) if both else None


def _faster(known: Known, part: str, title: str, count: int) -> list[str]:
    gain = _gain(known, part, title, CSGM_TITLE, count)
    seconds = paired(known, part, title, CSGM_TITLE, count, "seconds")
    if gain is None:
        return []
    times = sum(b for _, b in seconds) / max(sum(a for a, _ in seconds), 1e-9)
    reached = "reached" if times >= FASTER and gain >= -EQUAL_DB else "not reached"
    return [f"{part}, m = {count}: {title}: {times:.0f} × as fast as CSGM, {gain:+.2f} dB. Goal {FASTER:g} ×, equal: {reached}."]


def _fewer(known: Known) -> list[str]:
    """Designed against random A: which m of the designed one does what the random one does with more."""
    lines = []
    table = {(c["matrix"], c["method"]): c for c in means(known) if c["part"] == "designed"}
    for method in dict.fromkeys(m for _, m in table):
        random, designed = table.get(("random", method)), table.get(("designed", method))
        if random and designed:
            counts = [c for c in (50, 100, 200) if f"m {c}" in random and f"m {c}" in designed]
            gains = ", ".join(f"m = {c}: {designed[f'm {c}'] - random[f'm {c}']:+.2f}" for c in counts)
            lines.append(f"designed A − random A, {method}: {gains} dB")
            for count in counts:
                least = next((c for c in counts if designed[f"m {c}"] >= random[f"m {count}"]), None)
                if least is not None and least < count:
                    lines.append(f"{method}: {least} designed rows do what {count} random ones do.")
    return lines


def _stamp(method: Method, shape: tuple[int, int, int]) -> str:
    parts: list[Any] = []
    if method.family == "Generative":
        try:
            digest = generators.generator_for(shape).digest()
        except MissingPrior:
            digest = ""
        parts.append(digest)
        if isinstance(method, NPGD) and digest:
            projector = priors.find(generators.projector_key(digest))
            parts += [projector.card.get(name) for name in ("steps", "seconds")] if projector else [""]
    elif isinstance(method, LowShot):
        card = priors.named(method.prior).card
        parts += [card.get("key"), card.get("seconds")]
    return stamp(method, *parts)
