"""The data axis: one target and operator, a growing number of examples, from none to all that there are."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from netprior_core import examples, generators, priors
from netprior_core.errors import InvalidSettings, MissingPrior
from netprior_core.experiment import Experiment, parse
from netprior_core.methods import Method
from netprior_core.methods.csdip import CSDIP, baseline_for
from netprior_core.methods.lowshot import LowShot

#: Numbers of examples of the low-shot paper, and two for small sets.
COUNTS = (2, 5, 10, 15, 25, 50, 100)
#: Learned regularisation fits a network to every example: a few of them, as in its paper.
LEARNED_COUNTS = (2, 5, 10)
#: What can be drawn, by name, with the words for it.
CURVES: Mapping[str, str] = {
    "low-shot": "Low-shot",
    "learned": "CS-DIP, learned regularisation",
    "shipped": "Shipped: CelebA faces, GAN",
    "shipped-cats": "Shipped: cats",
    "shipped-xray": "Shipped: chest x-rays",
    "shipped-mnist": "Shipped: digits, GAN",
}
#: Curves of shipped priors, and the collection that these were learned from: a part of their files' names.
COLLECTED: Mapping[str, str] = {"shipped": "celeba", "shipped-cats": "cats", "shipped-xray": "xray", "shipped-mnist": "mnist"}


@dataclass(frozen=True)
class Point:
    """One place on the axis: how many examples, what is solved with them, the experiment that does it, and its curve."""

    shots: int
    label: str
    experiment: Experiment
    curve: str = "low-shot"


def points(experiment: Experiment, curves: Sequence[str] = ("low-shot",)) -> list[Point]:
    """The experiments of the axis, curve by curve, each from few examples to many; every point has the same target, operator,
    noise and seed.

    low-shot: untrained, then the prior learned from the first S examples. learned: CS-DIP without learned regularisation, then
    with it from S examples. shipped: whatever the examples are, low-shot priors of the first S images of a collection, and at the
    end its GAN of thousands, where there is one, searched and refined like those (IAGAN). Methods that ``experiment`` has keep
    their settings. A curve that :func:`refusal` speaks against is left out.
    Raises InvalidSettings when none is left.
    """
    reasons = [refusal(experiment, curve) for curve in curves]
    drawn = [curve for curve, reason in zip(curves, reasons, strict=True) if reason is None]
    if not drawn:
        raise InvalidSettings(next((reason for reason in reasons if reason), "Choose at least one curve of the data axis."))
    available = _available(experiment)
    untrained = (
        [] if type(experiment.operator).needs_shots else [_point(experiment, 0, _untrained(experiment), available, drawn[0])]
    )
    found: list[Point] = []
    for curve in drawn:
        if curve == "learned":
            found += _learned(experiment, available)
            continue
        found += untrained
        untrained = []  # the same for low-shot and shipped ones: once is enough
        found += _low_shot(experiment, available) if curve == "low-shot" else _shipped_points(experiment, available, curve)
    return found


def refusal(experiment: Experiment, curve: str) -> str | None:
    """Why a curve cannot be drawn for this experiment, in a sentence for a person, or None when it can."""
    if curve not in CURVES:
        return f"There is no curve '{curve[:40]}' of the data axis."
    if experiment.target_is != "truth":
        return "The data axis compares with the truth: choose a target that is the truth, not a measurement."
    if curve not in COLLECTED:
        if _available(experiment) < 2:
            return "The data axis needs at least two example images: choose a set that has some, or upload your own."
        return None
    cards = shipped(curve)
    if not cards:
        return f"{CURVES[curve]}: there are no shipped priors of this kind here: the checkpoints folder has none."
    shapes = dict.fromkeys(tuple(card["shape"]) for card in cards.values())
    if tuple(experiment.shape) in shapes:
        return None
    have = "; ".join(f"{'colour' if c == 3 else 'grey'} images of {side} pixels" for c, side, _ in shapes)
    colours, side, _ = experiment.shape
    mine = f"{'colour' if colours == 3 else 'grey'} of {side} pixels"
    return f"{CURVES[curve]}: these draw {have}, and your image is {mine}: change size or channels to add them."


def shipped(curve: str) -> dict[str, dict[str, Any]]:
    """Cards by name: low-shot priors of the curve's collection, of two with equally many shots the MMD's, fewest first; its GAN."""
    collection = COLLECTED[curve]
    best: dict[int, tuple[str, dict[str, Any]]] = {}
    for path in sorted(priors.CHECKPOINTS.glob(f"lowshot-{collection}-*.safetensors")):
        with contextlib.suppress(MissingPrior, KeyError, TypeError, ValueError):
            card = priors.card_of(path)
            shots, loss = int(card["shots"]), card["settings"]["loss"]
            if len(card["shape"]) == 3 and (shots not in best or loss == "mmd"):
                best[shots] = path.stem, card
    gan = generators.shipped().get(f"gan-{collection}", {})
    return {name: card for _, (name, card) in sorted(best.items())} | ({f"gan-{collection}": gan} if gan.get("shots") else {})


def _untrained(experiment: Experiment) -> dict[str, Any]:
    """The paper's baseline for this operator, as wide as the generator that learns: CS-DIP on a DCGAN."""
    channels = _lane(experiment, "low-shot").get("channels", LowShot().channels)
    return CSDIP.preset(baseline_for(0), channels=channels).suited(experiment.operator).model_dump(mode="json")


def _low_shot(experiment: Experiment, available: int) -> list[Point]:
    method = _lane(experiment, "low-shot") | {"prior": "", "start": "low-shot", "left_out": False}
    counts = sorted({count for count in COUNTS if count < available} | {available})
    return [_point(experiment, count, method, available, "low-shot") for count in counts]


def _learned(experiment: Experiment, available: int) -> list[Point]:
    method = next((m for m in experiment.methods if isinstance(m, CSDIP) and m.regularisation != "none"), None)
    with_it = (method or CSDIP.preset("learned, mild")).model_dump(mode="json")
    none = [] if type(experiment.operator).needs_shots else [(0, {**with_it, "regularisation": "none"})]
    few = [(count, {**with_it, "learning_images": count}) for count in LEARNED_COUNTS if count <= available]
    return [_point(experiment, count, method, available, "learned") for count, method in [*none, *few]]


def _shipped_points(experiment: Experiment, available: int, curve: str) -> list[Point]:
    low_shot = _lane(experiment, "low-shot") | {"start": "low-shot"}
    gan = _lane(experiment, "iagan")
    found = []
    for name, card in shipped(curve).items():
        if tuple(card["shape"]) == tuple(experiment.shape):
            method = {**gan, "generator": name} if name.startswith("gan-") else {**low_shot, "prior": name}
            point = _point(experiment, 0, method, available, curve)
            found.append(Point(int(card["shots"]), str(card.get("title", name))[:80], point.experiment, curve))
    return found


def _lane(experiment: Experiment, kind: str) -> dict[str, Any]:
    return next((m.model_dump(mode="json") for m in experiment.methods if m.kind == kind), {"kind": kind})


def _available(experiment: Experiment) -> int:
    if experiment.shots.source == "embedded":
        return examples.get(experiment.shots.set).n_shots
    return len(experiment.shots.images)


def _point(experiment: Experiment, count: int, method: dict[str, Any], available: int, curve: str) -> Point:
    data = experiment.model_dump(mode="json")
    if data["shots"]["source"] == "embedded":
        data["shots"]["count"] = count or min(10, available)
    else:
        data["shots"]["images"] = data["shots"]["images"][: count or None]
    data |= {"methods": [method], "stopping": [], "stop_by": "", "seeds": 1, "schedule": "iteration"}
    title = CURVES[curve] if curve == "learned" else Method.registry[method["kind"]].title
    if not count:
        return Point(0, "CS-DIP, nothing learned" if curve == "learned" else f"{title}, untrained", parse(data), curve)
    return Point(count, f"{title}, {count} examples", parse(data), curve)
