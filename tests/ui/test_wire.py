"""Messages of a race: complete, append-only, small, and only what JSON can carry."""

from __future__ import annotations

import base64
import io
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from shared import dip, picture, steps, tiny_problem

from netprior_core.experiment import Experiment, build, race_of
from netprior_core.methods import Method
from netprior_core.problem import Problem, Step
from netprior_core.race import Race
from netprior_core.recording import _row, read, write
from netprior_core.ui.live import pack
from netprior_core.ui.marks import recorded_marks, stop_mark, stop_words
from netprior_core.ui.wire import FIRST_POINTS, MAX_POINTS, Feed, recorded_frames, recording_message, setup_message, uri

Tiny = Callable[..., Experiment]
Stub = Callable[..., Method]


def pixels_of(source: str) -> np.ndarray:
    kind, data = source.split(";base64,")
    assert kind in ("data:image/webp", "data:image/jpeg")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))


def checked(message: dict[str, Any]) -> dict[str, Any]:
    """The message as the browser sees it: strict JSON."""
    return json.loads(json.dumps(message, allow_nan=False))  # type: ignore[no-any-return]


def race(*methods: Method, **options: Any) -> Race:
    return Race(tiny_problem, [(method, method.title, "detail") for method in methods], **options)


def test_exact_pictures_are_exact_and_previews_are_near() -> None:
    image = np.random.default_rng(0).integers(0, 256, (24, 20, 3), dtype=np.uint8)
    np.testing.assert_array_equal(pixels_of(uri(image, lossless=True)), image)
    smooth = np.linspace(0, 255, 24 * 20).astype(np.uint8).reshape(24, 20)
    assert np.abs(pixels_of(uri(smooth, lossless=False)).astype(int) - smooth).max() <= 4


def test_the_setup_message_says_what_is_refused_and_why(tiny: Tiny) -> None:
    experiment = tiny(methods=[{"kind": "bicubic"}, {"kind": "adjoint"}])
    problem, truth = build(experiment, {})
    message = checked(setup_message(experiment, problem, truth))
    assert [lane["state"] for lane in message["lanes"]] == ["refused", "ready"]
    assert "super-resolution" in message["lanes"][0]["message"]
    assert message["strip"]["shots"]["total"] == 4
    assert len(message["strip"]["shots"]["srcs"]) == 4
    assert truth is not None
    np.testing.assert_array_equal(pixels_of(message["strip"]["truth"]["src"])[..., 0], (truth[0, 0] * 255).round().byte().numpy())
    strip = checked(setup_message(experiment, None, None, note="no"))["strip"]
    assert strip["operator"]["title"] == experiment.operator.title
    assert strip["truth"] is strip["measurement"] is strip["shots"] is None


def test_curves_arrive_in_pieces_that_join_into_the_whole(tiny: Tiny) -> None:
    experiment = tiny(methods=[dip(25), {"kind": "adjoint"}])
    running = race_of(experiment, {})
    feed = Feed(running, experiment, "run", None)
    joined: list[dict[str, list[Any]]] = [
        {k: [] for k in ("iteration", "psnr", "seconds", "objective", "ssim", "residual")} for _ in range(2)
    ]
    sequence = []
    while True:
        message = checked(feed.message())
        sequence.append(message["seq"])
        for part in message["curves"]:
            mine = joined[part["lane"]]
            for name, values in mine.items():
                start = part.get(f"{name}_from", part["from"])
                assert start == len(values)  # no hole, nothing twice
                values += part[name]
        if running.done:
            break
        for _ in range(3):
            running.turn()
    assert sequence == sorted(set(sequence))
    for lane, mine in zip(running.lanes, joined, strict=True):
        assert mine["iteration"] == lane.curve.iteration
        assert mine["psnr"] == pytest.approx(lane.curve.psnr, rel=1e-4)
        assert [point[0] for point in mine["residual"]] == [point[0] for point in lane.curve.residual]


def test_pictures_travel_when_they_are_new_and_once_more_when_exact(stub: Stub, tiny: Tiny) -> None:
    running = race(stub("s", steps([0.1, 0.4, 0.9])))
    feed = Feed(running, tiny(), "run", None)
    running.turn()
    first = checked(feed.message())["lanes"][0]["picture"]
    assert first["lossless"] is False
    assert "picture" not in feed.message()["lanes"][0]
    running.pause()
    running.turn()
    exact = checked(feed.message(lossless=True))["lanes"][0]["picture"]
    assert exact["lossless"] is True
    assert exact["iteration"] == 1
    assert "picture" not in feed.message(lossless=True)["lanes"][0]
    running.resume()
    running.run()
    final = checked(feed.message(lossless=True))
    assert final["lanes"][0]["picture"]["iteration"] == 3
    assert final["state"] == "finished"
    assert final["marks"][0] == {"lane": 0, "kind": "result", "iteration": 3, "label": "returned"}


def test_the_strip_is_sent_once_when_it_is_known_and_the_link_always(stub: Stub, tiny: Tiny) -> None:
    running = race(stub("s", steps([0.1, 0.4])))
    feed = Feed(running, tiny(), "run", "?x=abc")
    assert "strip" not in feed.message()
    running.turn()
    assert "strip" in feed.message()
    assert "strip" not in feed.message()
    assert feed.message()["link"] == "?x=abc"


def test_who_waits_is_told_the_place_and_who_was_resumed_too(stub: Stub, tiny: Tiny) -> None:
    running = race(stub("s", steps([0.1, 0.4])))
    feed = Feed(running, tiny(), "run", None)
    waiting = feed.message(place=2)
    assert (waiting["state"], waiting["place"]) == ("waiting", 2)
    assert feed.message(place=0)["state"] == "running"
    running.turn()
    assert (feed.message(place=0)["state"], feed.message(place=0)["place"]) == ("running", None)
    running.pause()
    running.turn()
    assert feed.message(place=0)["state"] == "paused"
    assert feed.message(place=1)["state"] == "waiting"
    running.stop()
    running.turn()
    assert feed.message(place=1)["state"] == "stopped"


def test_a_failing_lane_sends_its_message_and_no_number_json_cannot_carry(stub: Stub, tiny: Tiny) -> None:
    running = race(stub("s", steps([0.1, 0.2, 0.3], losses=[1, math.inf, 1])), stub("t", steps([math.nan, 0.5])))
    feed = Feed(running, tiny(), "run", None)
    while not running.done:
        checked(feed.message())
        running.turn()
    message = checked(feed.message(lossless=True))
    assert [lane["state"] for lane in message["lanes"]] == ["failed", "failed"]
    assert "inf at iteration 2" in message["lanes"][0]["message"]
    assert message["lanes"][0]["psnr"] is not None
    assert message["marks"][0]["kind"] == "oracle"


def test_an_exact_recovery_is_carried_as_no_number(stub: Stub, tiny: Tiny) -> None:
    _, truth = tiny_problem()

    def solve(problem: Problem, seed: int) -> Iterator[Step]:
        for stage in ("solve", "result"):
            yield Step(1, 1, stage, truth, truth, torch.tensor([0.0]))

    running = race(stub("oracle", solve)).run()
    assert running.lanes[0].curve.psnr == [math.inf]
    checked(Feed(running, tiny(), "run", None).message())


@pytest.mark.parametrize(("psnr", "best", "lost"), [(20.0, 21.5, 1.5), (20.0, math.inf, None), (math.inf, math.inf, None)])
def test_what_a_rule_loses_against_a_perfect_iterate_is_not_said(psnr: float, best: float, lost: float | None) -> None:
    mark = stop_mark(0, "WMV", 5, 9, psnr, best)
    assert mark["lost"] == lost
    pack({"marks": [mark]})


def test_long_curves_are_whole_at_first_and_then_thinned_evenly(stub: Stub, tiny: Tiny) -> None:
    total = 3 * MAX_POINTS + 17

    def many(problem: Problem, seed: int) -> Iterator[Step]:
        for i in range(1, total + 1):
            yield Step(i, total, "solve", None, None, torch.tensor([1.0 / i]))
        yield Step(total, total, "result", picture(0.5), picture(0.5))

    running = race(stub("many", many), keep_frames=False)
    feed = Feed(running, tiny(), "run", None)
    sent: list[int] = []
    while not running.done:
        for _ in range(700):
            running.turn()
        part = feed.message()["curves"][0]
        assert part["from"] == len(sent)
        sent += part["iteration"]
    assert len(sent) <= FIRST_POINTS + MAX_POINTS + 1
    assert sent[:FIRST_POINTS] == list(range(1, FIRST_POINTS + 1))
    assert set(np.diff(sent[FIRST_POINTS:-1])) == {4}
    assert sent[-1] == total  # the last point, wherever it falls
    assert feed.message()["curves"][0]["iteration"] == []


def test_what_is_learned_arrives_in_pieces_that_join(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NETPRIOR_CACHE", str(tmp_path))
    settings = {"pretrain_iterations": 110, "channels": 4, "latent": 4, "latent_iterations": 2, "joint_iterations": 2}
    experiment = tiny(methods=[{"kind": "low-shot", "left_out": True, "mirror": False, **settings}])
    running = race_of(experiment, {})
    feed = Feed(running, experiment, "run", None)
    learning: list[Any] = []
    left_out: list[Any] = []
    while not running.done:
        running.turn()
        part = checked(feed.message())["curves"][0]
        assert (part["learning_from"], part["left_out_from"]) == (len(learning), len(left_out))
        learning, left_out = learning + part["learning"], left_out + part["left_out"]
    assert [step for step, *_ in learning] == [*range(1, 112)]  # the last is of the network as it is kept
    assert [step for step, *_ in left_out] == [1, 100]
    assert left_out[-1][2] > left_out[0][2]
    assert learning[-1][2] < learning[0][2]


def test_frames_of_an_iteration_are_exact_and_scored(tiny: Tiny) -> None:
    experiment = tiny(methods=[dip(20), {"kind": "adjoint"}])
    done = race_of(experiment, {}).run()
    found = checked(recorded_frames(done, 7))
    assert found["iteration"] == 7
    lane, other = found["lanes"]
    assert lane["iteration"] == 7
    assert lane["psnr"] == pytest.approx(done.lanes[0].curve.psnr[6], rel=1e-4)
    frame = done.lanes[0].frames.at(7)
    assert frame is not None
    assert lane["src"].endswith(base64.b64encode(frame[1]).decode())
    assert other["iteration"] == 1
    assert recorded_frames(None, 3) == {"iteration": 3, "lanes": []}
    assert [lane["iteration"] for lane in recorded_frames(done, -5)["lanes"]] == [1, 1]
    assert [lane["iteration"] for lane in recorded_frames(done, 10**9)["lanes"]] == [20, 1]


def test_marks_say_where_rules_would_stop_and_what_that_loses(tiny: Tiny, tmp_path: Path) -> None:
    rules = [{"kind": "fixed", "iterations": 10}, {"kind": "emv", "patience": 500, "start": 2}, {"kind": "discrepancy"}]
    experiment = tiny(methods=[dip(20), {"kind": "adjoint"}], stopping=rules, stop_by="emv", noise={"kind": "gaussian", "sigma": 0})
    done = race_of(experiment, {}).run()
    message = checked(Feed(done, experiment, "run", None).message())
    best, at = done.lanes[0].best or (0.0, 0)
    fixed, emv = [mark for mark in message["marks"] if mark["kind"] == "stop"]
    assert (fixed["rule"], fixed["iteration"], fixed["fired"]) == ("Fixed budget", 10, 10)
    assert fixed["lost"] == pytest.approx(best - done.lanes[0].curve.psnr[9], abs=0.01)
    assert emv["fired"] is None
    assert stop_words(emv).endswith("(did not fire)")
    assert [mark["iteration"] for mark in message["marks"] if mark["kind"] == "oracle"] == [at]
    assert {mark["lane"] for mark in message["marks"]} == {0}  # a method of one iteration has none to choose from
    notes = [(rule["title"], bool(rule["note"]), rule["stops"]) for rule in message["rules"]]
    assert notes == [("Fixed budget", False, False), ("EMV", False, True), ("Discrepancy", True, False)]
    assert checked(setup_message(experiment, *build(experiment, {})))["rules"] == message["rules"]

    write(done, experiment, {}, tmp_path / "run.zip")
    recorded = recording_message(read((tmp_path / "run.zip").read_bytes()), "label")
    assert [mark for mark in checked(recorded)["marks"] if mark["kind"] == "stop"] == [fixed, emv]


def test_a_strangers_stops_are_numbers_or_nothing() -> None:
    row = {
        "iterations": 5,
        "stops": [{"rule": "<b>", "iteration": "5", "psnr": {}}, 3, {"rule": 7, "iteration": 4.0, "fired": None}],
    }
    found = recorded_marks(0, _row(row))
    assert [(mark["rule"], mark["iteration"], mark["lost"], mark["fired"]) for mark in found] == [("", 4, None, None)]
