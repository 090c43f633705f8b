"""A race as the messages that the live view draws: small, append-only, pictures only when somebody sees them."""

from __future__ import annotations

import io
import json
import math
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from netprior_core.experiment import Experiment
from netprior_core.frames import encode, picture_of
from netprior_core.images import data_uri
from netprior_core.lane import Lane
from netprior_core.metrics import CONVENTION
from netprior_core.problem import Problem
from netprior_core.race import SHOTS_SHOWN, Race
from netprior_core.recording import Recording
from netprior_core.ui.marks import marks_of, recorded_marks, rules_of

MAX_POINTS = 2000  # of a curve sent to the browser, beside the first ones
FIRST_POINTS = 500  # of which all are sent
LEARNING_STRIDE = 20  # of the steps of a preparation after these: how long it will be is not known when the next ones are sent
#: Parts of a curve that are lists of [iteration, seconds, value].
SPARSE = ("ssim", "residual", "learning", "left_out")


def uri(pixels: np.ndarray, *, lossless: bool) -> str:
    """8-bit pixels as a data URI: lossless WebP, or JPEG quality 90 without chroma subsampling (0.5 ms for 256²)."""
    if lossless:
        return webp_uri(encode(pixels))
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=90, subsampling=0)
    return data_uri(buffer.getvalue(), "image/jpeg")


def webp_uri(data: bytes) -> str:
    """Lossless WebP bytes as a data URI."""
    return data_uri(data, "image/webp")


def shape_words(pixels: np.ndarray) -> str:
    """``64×64 grey``."""
    return f"{pixels.shape[1]}×{pixels.shape[0]} {'grey' if pixels.ndim == 2 else 'colour'}"


def first_metric(experiment: Experiment) -> str:
    """The curve shown until a person chooses another."""
    wanted = {method.compare for method in experiment.methods}
    return wanted.pop() if len(wanted) == 1 else "psnr"


def measurement_words(experiment: Experiment) -> str:
    """What the measurement's picture shows, and its noise; of a measurement of one's own only the former."""
    noise = experiment.noise.describe() if experiment.target_is == "truth" else "your measurement"
    return "; ".join(filter(None, [experiment.operator.shows, noise]))


def strip(
    experiment: Experiment,
    description: str,
    truth: np.ndarray | None,
    measurement: np.ndarray,
    shots: Sequence[np.ndarray],
    shots_total: int,
    noise_std: float | None = None,
) -> dict[str, Any]:
    """The top strip ``x → A → y`` and the shots. ``noise_std``, in units of the measurement, is drawn in the residual's plot."""
    operator = experiment.operator
    return {
        "truth": None if truth is None else {"src": uri(truth, lossless=True), "caption": shape_words(truth)},
        "operator": {"title": operator.title, "equation": operator.equation, "caption": description},
        "measurement": {
            "src": uri(measurement, lossless=True),
            "caption": measurement_words(experiment),
            "noise_std": _number(noise_std or None),
        },
        "shots": {"srcs": [uri(shot, lossless=True) for shot in shots], "total": shots_total} if shots else None,
    }


def setup_message(experiment: Experiment, problem: Problem | None, truth: Any, note: str = "") -> dict[str, Any]:
    """What is about to be run: strip and lanes, refusals included."""
    lanes = []
    for index, (method, name, detail) in enumerate(experiment.lanes()):
        reason = method.accepts(problem) if problem is not None else note
        state = "refused" if reason else "ready"
        lanes.append({"id": index, "name": name, "detail": detail, "state": state, "message": reason or ""})
    message: dict[str, Any] = {"v": 1, "type": "setup", "run": "", "seq": 0, "state": "idle", "note": note}
    notes = {} if problem is None else {r.kind: reason for r in experiment.stopping if (reason := r.refuses(problem))}
    message |= {"metric": first_metric(experiment), "rules": rules_of(experiment, notes), "seeds": experiment.seeds}
    message |= {"lanes": lanes, "curves": [], "convention": "" if problem is not None and truth is None else CONVENTION}
    if problem is not None:
        shots = [] if problem.shots is None else [picture_of(shot) for shot in problem.shots[:SHOTS_SHOWN]]
        message["strip"] = strip(
            experiment,
            "; ".join(filter(None, [problem.model.describe(), experiment.mismatch.describe(experiment.operator)])),
            None if truth is None else picture_of(truth),
            picture_of(problem.model.preview(problem.measurement)),
            shots,
            0 if problem.shots is None else len(problem.shots),
            problem.noise_std,
        )
    else:  # nothing of what was set up before may stand under the name of what cannot be
        operator = experiment.operator
        named = {"title": operator.title, "equation": operator.equation, "caption": "cannot be set up so"}
        message["strip"] = {"truth": None, "operator": named, "measurement": None, "shots": None}
    return message


class Feed:
    """Turns the state of one race into messages for one viewer; remembers what was sent."""

    def __init__(self, race: Race, experiment: Experiment, run: str, link: str | None) -> None:
        self.race, self.experiment, self.run, self.link = race, experiment, run, link
        self.sequence = 0
        self._strip_sent = False
        self._points = [0] * len(race.lanes)
        self._sparse = [[0] * len(SPARSE) for _ in race.lanes]
        self._pictures: list[Any] = [None] * len(race.lanes)
        self._exact = [False] * len(race.lanes)

    def message(self, *, place: int = 0, lossless: bool = False) -> dict[str, Any]:
        """The next message. ``lossless`` sends exact pictures (paused, finished)."""
        race = self.race
        self.sequence += 1
        waiting = place > 0 and race.state in ("ready", "paused")  # a resumed race goes to the end of the line
        state = "waiting" if waiting else "running" if race.state == "ready" else race.state
        message: dict[str, Any] = {
            "v": 1,
            "type": "race",
            "run": self.run,
            "seq": self.sequence,
            "state": state,
            "note": race.message,
            "place": place if waiting else None,
            "schedule": race.schedule,
            "metric": first_metric(self.experiment),
            "eta": race.eta(),
            "elapsed": round(race.elapsed(), 2),
            "lanes": [self._lane(lane, lossless) for lane in race.lanes],
            "curves": [self._curve(lane) for lane in race.lanes],
            "marks": marks_of(race),
            "rules": rules_of(self.experiment, race.rule_notes),
            "seeds": len(race.seeds),
            "convention": CONVENTION if race.has_truth else "",
        }
        if not self._strip_sent and race.measurement_picture is not None:
            self._strip_sent = True
            pictures = (race.truth_picture, race.measurement_picture, race.shot_pictures, race.shots_total, race.noise_std)
            message["strip"] = strip(self.experiment, race.description, *pictures)
        if self.link:
            message["link"] = self.link
        return message

    def _lane(self, lane: Lane, lossless: bool) -> dict[str, Any]:
        curve = lane.curve
        result = lane.result
        psnr = result.psnr if result else (curve.psnr[-1] if curve.psnr else None)
        found = {
            "id": lane.index,
            "name": lane.name,
            "detail": lane.detail,
            "state": lane.state,
            "phase": lane.phase,
            "iteration": lane.iteration,
            "total": lane.total,
            "seconds": round(lane.seconds, 2),
            "prepare_seconds": round(lane.prepare_seconds, 2),
            "rate": _number(lane.rate()),
            "eta": _number(lane.eta()),
            "psnr": _number(psnr, 8),
            "ssim": _number(result.ssim if result else (curve.ssim[-1][2] if curve.ssim else None), 8),
            "residual": _number(result.residual if result else (curve.residual[-1][2] if curve.residual else None)),
            "best": {"psnr": _number(lane.best[0], 8), "iteration": lane.best[1]} if lane.best else None,
            "message": lane.message,
        }
        picture = lane.picture
        if picture is not None and (picture is not self._pictures[lane.index] or (lossless and not self._exact[lane.index])):
            self._pictures[lane.index], self._exact[lane.index] = picture, lossless
            found["picture"] = {
                "src": uri(picture.pixels, lossless=lossless),
                "lossless": lossless,
                "iteration": picture.iteration,
                "kind": picture.kind,
            }
        if lane.spread is not None:
            found["spread"] = uri(lane.spread, lossless=lossless)
        lane.picture_wanted = True
        return found

    def _curve(self, lane: Lane) -> dict[str, Any]:
        curve, index = lane.curve, lane.index
        done = lane.done  # read first: what is appended before it is there, then
        count = len(curve.psnr_output)  # appended last: the other columns are at least as long
        places = _places(count, max(1, math.ceil(lane.total / MAX_POINTS)), last=done)
        start = self._points[index]
        picked = places[start:]
        self._points[index] = len(places)
        found: dict[str, Any] = {
            "lane": index,
            "from": start,
            "iteration": [curve.iteration[i] for i in picked],
            "seconds": [round(curve.seconds[i], 3) for i in picked],
            "psnr": [_number(curve.psnr[i]) for i in picked] if self.race.has_truth else None,
            "low": [_number(curve.spread[i][0]) for i in picked] if curve.spread else None,
            "high": [_number(curve.spread[i][1]) for i in picked] if curve.spread else None,
            "objective": [_number(curve.objective[i]) for i in picked],
        }
        learning = [(i + 1, *lane.learning[i]) for i in _places(len(lane.learning), LEARNING_STRIDE, last=False)]
        for place, (name, values) in enumerate(zip(SPARSE, (curve.ssim, curve.residual, learning, lane.left_out), strict=True)):
            sent = self._sparse[index][place]
            new = values[sent:]
            found[name], found[f"{name}_from"] = [[i, round(s, 3), _number(v)] for i, s, v in new], sent
            self._sparse[index][place] = sent + len(new)
        return found


def _places(count: int, stride: int, *, last: bool) -> list[int]:
    """The first points all, then every ``stride``-th of ``count``, and the last, wherever it falls, if it is to be among them.

    Of a long race most happens at its beginning, and a stopped one has nothing else.
    """
    found = [*range(min(count, FIRST_POINTS)), *range(FIRST_POINTS, count, stride)]
    return [*found, count - 1] if last and count and found[-1] != count - 1 else found


def _number(value: float | None, digits: int = 5) -> float | None:
    """A finite number with few digits, else None: JSON has no NaN."""
    return None if value is None or not math.isfinite(value) else float(f"{value:.{digits}g}")


def recorded_frames(race: Race | None, iteration: int) -> dict[str, Any]:
    """The lossless kept frames of every lane at or before an iteration."""
    lanes: list[dict[str, Any]] = []
    iteration = int(iteration)
    for lane in race.lanes if race is not None else []:
        found = lane.frames.at(iteration)
        if found is None:
            continue
        at, data = found
        curve = lane.curve
        count = len(curve.psnr_output)
        index = min(max(at - (curve.iteration[0] if count else 0), 0), count - 1)
        psnr = curve.psnr[index] if count and curve.iteration[index] == at else None
        ssim = next((value for i, _, value in curve.ssim if i == at), None)
        lanes.append(
            {
                "id": lane.index,
                "iteration": at,
                "src": webp_uri(data),
                "psnr": _number(psnr),
                "ssim": _number(ssim),
                "phase": lane.phase,
            }
        )
    return {"iteration": iteration, "lanes": lanes}


RECORDED_FRAMES = 40  # per lane, sent to replay a recording


def recording_message(recording: Recording, label: str) -> dict[str, Any]:
    """A recording to scrub through without a server."""
    lanes, curves, frames = [], [], []
    marks: list[dict[str, Any]] = []
    details = [detail for *_, detail in recording.experiment.lanes()]  # in today's words
    for index, lane in enumerate(recording.lanes):
        row, metrics = lane.summary, lane.metrics
        iterations = [int(i or 0) for i in metrics["iteration"]]
        stride = max(1, math.ceil(len(iterations) / MAX_POINTS))
        kept = sorted(lane.frames)
        picked = sorted({kept[round(i * (len(kept) - 1) / (RECORDED_FRAMES - 1))] for i in range(RECORDED_FRAMES)}) if kept else []
        frames += [{"lane": index, "iteration": i, "src": webp_uri(lane.frames[i])} for i in picked]
        best = {"psnr": row.get("best_psnr"), "iteration": row.get("best_iteration")} if row.get("best_psnr") is not None else None
        last = picked[-1] if picked else 0
        lanes.append(
            {
                "id": index,
                "name": str(row.get("method", ""))[:80],
                "detail": details[index] if index < len(details) else str(row.get("settings", ""))[:80],
                "state": str(row.get("state", "finished")),
                "phase": "",
                "iteration": iterations[-1] if iterations else 0,
                "total": iterations[-1] if iterations else 0,
                "seconds": row.get("seconds"),
                "prepare_seconds": row.get("prepare_seconds"),
                "rate": None,
                "eta": None,
                "psnr": row.get("psnr"),
                "ssim": row.get("ssim"),
                "residual": row.get("residual"),
                "best": best,
                "message": str(row.get("message", ""))[:300],
                "picture": {"src": webp_uri(lane.frames[last]), "lossless": True, "iteration": last, "kind": "estimate"}
                if picked
                else None,
                **({"spread": data_uri(lane.spread, "image/png")} if lane.spread is not None else {}),
            }
        )
        seconds = metrics["seconds"]
        sparse = {
            name: [[i, s, v] for i, s, v in zip(iterations, seconds, metrics[name], strict=False) if v is not None]
            for name in ("ssim", "residual")
        }
        has_truth = any(v is not None for v in metrics["psnr"])
        places = _places(len(iterations), stride, last=True)

        def thinned(values: list[Any], places: list[int] = places) -> list[Any]:
            return [values[i] for i in places]

        curve = {"lane": index, "from": 0, "iteration": thinned(iterations), "seconds": thinned(seconds)}
        curve |= {"psnr": thinned(metrics["psnr"]) if has_truth else None, "objective": thinned(metrics["objective"])}
        if any(v is not None for v in metrics["psnr_least"]):
            curve |= {"low": thinned(metrics["psnr_least"]), "high": thinned(metrics["psnr_most"])}
        curves.append({**curve, **sparse, "ssim_from": 0, "residual_from": 0})
        compare = recording.experiment.methods[index].compare if index < len(recording.experiment.methods) else "psnr"
        marks += recorded_marks(index, row, compare)
    experiment = recording.experiment
    operator = experiment.operator
    pictures = {name: recording.pictures.get(f"{name}.png") for name in ("truth", "measurement")}
    caption = f"{experiment.size}×{experiment.size} {'grey' if experiment.channels == 1 else 'colour'}"
    truth, measurement = (data and data_uri(data, "image/png") for data in pictures.values())
    return {
        "v": 1,
        "type": "recording",
        "run": f"recording-{zlib.crc32(json.dumps(recording.summary, sort_keys=True).encode()):08x}",
        "seq": 1,
        "state": "finished",
        "note": "",
        "schedule": experiment.schedule,
        "strip": {
            "truth": {"src": truth, "caption": caption} if truth else None,
            "operator": {
                "title": operator.title,
                "equation": operator.equation,
                "caption": str(recording.summary.get("operator", "")),
            },
            "measurement": {"src": measurement, "caption": measurement_words(experiment)} if measurement else None,
            "shots": None,
        },
        "lanes": lanes,
        "curves": curves,
        "marks": marks,
        "rules": rules_of(experiment, {}),
        "seeds": experiment.seeds,
        "metric": first_metric(experiment),
        "convention": CONVENTION if truth else "",
        "recorded": {"label": label, "frames": frames},
    }
