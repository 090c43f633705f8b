"""What the curves mark: the iterate returned, where each stopping rule would stop, and the best iterate (the oracle)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from netprior_core.experiment import Experiment
from netprior_core.lane import Lane
from netprior_core.race import Race


def marks_of(race: Race) -> list[dict[str, Any]]:
    """The marks of a race as it stands.

    A method of one iteration has no choice of iterates, and a demonstration that is not about PSNR no best one: none is marked.
    """
    marks = []
    for lane in race.lanes:
        if lane.total <= 1 or lane.method.compare != "psnr":
            continue
        if lane.result is not None and lane.state == "finished" and lane.curve.iteration:
            marks.append({"lane": lane.index, "kind": "result", "iteration": lane.result.returns, "label": "returned"})
        marks += [mark for mark in lane_stops(lane) if mark["fired"] is not None or lane.done]
        if lane.best is not None and race.done:
            marks.append({"lane": lane.index, "kind": "oracle", "iteration": lane.best[1], "label": "oracle"})
    return marks


def recorded_marks(index: int, row: Mapping[str, Any], compare: str = "psnr") -> list[dict[str, Any]]:
    """The marks of a recorded lane, from its row of the summary; ``compare`` as its method has it."""
    marks: list[dict[str, Any]] = []
    if (row.get("iterations") or 0) <= 1 or compare != "psnr":
        return marks
    if row.get("returns") is not None:
        marks.append({"lane": index, "kind": "result", "iteration": row["returns"], "label": "returned"})
    best = row.get("best_psnr")
    marks += [
        stop_mark(index, stop["rule"], stop["iteration"], stop["fired"], stop["psnr"], best)
        for stop in row.get("stops", [])
        if stop["iteration"] is not None
    ]
    if best is not None:
        marks.append({"lane": index, "kind": "oracle", "iteration": row["best_iteration"], "label": "oracle"})
    return marks


def stop_mark(lane: int, title: str, iteration: int, fired: int | None, psnr: float | None, best: float | None) -> dict[str, Any]:
    """A rule's mark: the iterate it stands for, when it fired (None: it did not), and the dB lost where the truth is known."""
    known = best is not None and psnr is not None and math.isfinite(best) and math.isfinite(psnr)
    lost = round(max(0.0, best - psnr), 2) if known else None  # type: ignore[operator]
    label = title if lost is None else f"{title} −{lost:.2f} dB"
    return {"lane": lane, "kind": "stop", "iteration": iteration, "label": label, "rule": title, "lost": lost, "fired": fired}


def stop_words(mark: Mapping[str, Any]) -> str:
    """``it 95, −0.47 dB`` or ``it 200, −2.06 dB (did not fire)``."""
    lost = "" if mark["lost"] is None else f", −{mark['lost']:.2f} dB"
    return f"it {mark['iteration']:,}{lost}" + ("" if mark["fired"] is not None else " (did not fire)")


def lane_stops(lane: Lane) -> list[dict[str, Any]]:
    """The marks of the rules that watched a lane."""
    best = lane.best[0] if lane.best is not None else None
    return [stop_mark(lane.index, s.title, s.iteration, s.fired, s.psnr, best) for s in list(lane.stops.values())]


def rules_of(experiment: Experiment, notes: Mapping[str, str]) -> Sequence[dict[str, Any]]:
    """The chosen rules: their title, why one is not at work ("" where it is), and whether it really stops the methods."""
    return [
        {"title": rule.title, "note": notes.get(rule.kind, ""), "stops": rule.kind == experiment.stop_by}
        for rule in experiment.stopping
    ]
