"""The data axis: one target and operator, a growing number of examples, from none to all that there are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from netprior_core import examples
from netprior_core.errors import InvalidSettings
from netprior_core.experiment import Experiment, parse
from netprior_core.methods import Method

#: Numbers of examples of the low-shot paper, and two for small sets.
COUNTS = (2, 5, 10, 15, 25, 50, 100)
UNTRAINED = {"kind": "cs-dip", "layers": "dcgan", "last_k": 1, "iterations": 500}


@dataclass(frozen=True)
class Point:
    """One place on the axis: how many examples, what is solved with them, and the experiment that does it."""

    shots: int
    label: str
    experiment: Experiment


def points(experiment: Experiment) -> list[Point]:
    """The experiments of the axis, in order: untrained, then the low-shot prior on the first S examples for growing S.

    The low-shot method keeps the settings it has in ``experiment``, if it is there; else it has its defaults. Every point has
    the same target, operator, noise and seed. Raises InvalidSettings when there is no truth to score against, or no examples.
    """
    if experiment.target_is != "truth":
        raise InvalidSettings("The data axis compares with the truth: choose a target that is the truth, not a measurement.")
    available = _available(experiment)
    if available < 2:
        raise InvalidSettings("The data axis needs at least two example images: choose a set that has some, or upload your own.")
    method = next((m.model_dump(mode="json") for m in experiment.methods if m.kind == "low-shot"), {"kind": "low-shot"})
    counts = sorted({count for count in COUNTS if count < available} | {available})
    found = [] if type(experiment.operator).needs_shots else [_point(experiment, 0, UNTRAINED, available)]
    return [*found, *(_point(experiment, count, method, available) for count in counts)]


def _available(experiment: Experiment) -> int:
    if experiment.shots.source == "embedded":
        return examples.get(experiment.shots.set).n_shots
    return len(experiment.shots.images)


def _point(experiment: Experiment, count: int, method: dict[str, Any], available: int) -> Point:
    data = experiment.model_dump(mode="json")
    if data["shots"]["source"] == "embedded":
        data["shots"]["count"] = count or min(10, available)
    else:
        data["shots"]["images"] = data["shots"]["images"][: count or None]
    data |= {"methods": [method], "stopping": [], "stop_by": "", "seeds": 1, "schedule": "iteration"}
    title = Method.registry[method["kind"]].title
    return Point(count, f"{title}, {count} examples" if count else f"{title}, untrained", parse(data))
