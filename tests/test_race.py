"""The race: turns, stages, scores and failures."""

from __future__ import annotations

import math
import types
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from shared import SIDE, endless, picture, race, steps, tiny_problem

from netprior_core import metrics
from netprior_core.experiment import Experiment, race_of
from netprior_core.frames import decode, picture_of
from netprior_core.methods import Method
from netprior_core.problem import Problem, Step
from netprior_core.race import summary

Stub = Callable[..., Method]


# -- turns and stages -------------------------------------------------------------------------------------------------------


def test_by_iteration_every_lane_takes_one_step_in_turn(stub: Stub) -> None:
    order: list[str] = []

    def noted(name: str, n: int) -> Callable[[Problem, int], Iterator[Step]]:
        def solve(problem: Problem, seed: int) -> Iterator[Step]:
            for step in steps([0.5] * n)(problem, seed):
                order.append(f"{name}{step.iteration if step.stage == 'solve' else 'R'}")
                yield step

        return solve

    done = race(stub("short", noted("a", 2)), stub("long", noted("b", 4))).run()
    assert order == ["a1", "b1", "a2", "b2", "aR", "b3", "b4", "bR"]
    assert done.state == "finished"
    assert [lane.state for lane in done.lanes] == ["finished", "finished"]


def test_by_clock_the_lane_that_had_less_time_is_next(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("netprior_core.race.time", types.SimpleNamespace(perf_counter=lambda: now[0], monotonic=lambda: now[0]))
    order: list[str] = []

    def costly(name: str, cost: float) -> Callable[[Problem, int], Iterator[Step]]:
        def solve(problem: Problem, seed: int) -> Iterator[Step]:
            for step in endless(problem, seed):
                now[0] += cost
                order.append(name)
                yield step

        return solve

    running = race(stub("fast", costly("f", 1)), stub("slow", costly("s", 3)), schedule="clock")
    for _ in range(16):
        running.turn()
    assert abs(running.lanes[0].seconds - running.lanes[1].seconds) <= 3
    assert order.count("f") == pytest.approx(3 * order.count("s"), abs=3)
    running.close()


def test_preparation_is_a_stage_of_its_own_with_its_own_seconds(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("netprior_core.race.time", types.SimpleNamespace(perf_counter=lambda: now[0], monotonic=lambda: now[0]))

    def solve(problem: Problem, seed: int) -> Iterator[Step]:
        for step in steps([0.2, 0.4], prepare=3)(problem, seed):
            now[0] += 10 if step.stage == "prepare" else 1
            yield step

    running = race(stub("prepared", solve))
    lane = running.lanes[0]
    for _ in range(3):
        running.turn()
    assert lane.state == "preparing"
    assert lane.picture is not None
    assert lane.picture.kind == "shots"
    assert lane.picture.pixels.shape == (2 * SIDE, 2 * SIDE)  # three shots on a 2×2 sheet
    assert lane.prepare_seconds == 30
    assert lane.seconds == 0
    assert lane.curve.iteration == []
    assert [value for _, value in lane.learning] == pytest.approx([1, 1 / 2, 1 / 3])
    assert [seconds for seconds, _ in lane.learning] == sorted(seconds for seconds, _ in lane.learning)
    running.run()
    assert lane.prepare_seconds == 30
    assert lane.seconds == 3
    assert lane.curve.iteration == [1, 2]
    assert lane.result is not None


def test_every_iteration_is_scored_and_the_best_so_far_is_the_highest_psnr(stub: Stub) -> None:
    values = [0.1, 0.3, 0.55, 0.9, 0.7]
    _, truth = tiny_problem()
    lane = race(stub("wander", steps(values))).run().lanes[0]
    expected = [float(metrics.psnr(picture(v), truth)) for v in values]
    assert lane.curve.iteration == [1, 2, 3, 4, 5]
    assert lane.curve.psnr == pytest.approx(expected, abs=1e-4)
    assert lane.curve.objective == pytest.approx([1, 1 / 2, 1 / 3, 1 / 4, 1 / 5])
    assert len(lane.curve.seconds) == 5
    assert lane.curve.seconds == sorted(lane.curve.seconds)
    assert lane.best == (max(lane.curve.psnr), 3)
    frame = lane.frames.at(3)
    assert frame is not None
    assert frame[0] == 3
    np.testing.assert_array_equal(decode(frame[1], grey=True), picture_of(picture(0.55)))


def test_the_result_is_what_the_method_returned_not_its_last_iterate(stub: Stub) -> None:
    def solve(problem: Problem, seed: int) -> Iterator[Step]:
        for i in range(1, 6):
            yield Step(i, 5, "solve", picture(i / 5), picture(i / 5), torch.tensor([1.0]))
        yield Step(5, 5, "result", picture(0.5), picture(0.5), info={"returns": 2})

    lane = race(stub("returns-earlier", solve)).run().lanes[0]
    assert lane.result is not None
    assert lane.result.returns == 2
    np.testing.assert_array_equal(lane.result.pixels, picture_of(picture(0.5)))
    assert lane.curve.iteration[-1] == 5


def test_several_seeds_are_one_batch_and_the_median_is_scored(stub: Stub) -> None:
    _, truth = tiny_problem()

    def solve(problem: Problem, seed: int) -> Iterator[Step]:
        for stage in ("solve", "result"):
            yield Step(1, 1, stage, picture(seed / 10), picture(seed / 10), torch.tensor([float(seed)]), info={"returns": 1})

    lane = race(stub("seeded", solve), seeds=(2, 5, 9)).run().lanes[0]
    expected = sorted(float(metrics.psnr(picture(s / 10), truth)) for s in (2, 5, 9))[1]
    assert lane.curve.psnr == pytest.approx([expected], abs=1e-4)
    assert lane.curve.objective == pytest.approx([16 / 3])
    assert lane.result is not None
    assert lane.result.returns == 1


def test_of_two_seeds_the_mean_is_scored(stub: Stub) -> None:
    _, truth = tiny_problem()

    def solve(problem: Problem, seed: int) -> Iterator[Step]:
        for stage in ("solve", "result"):
            yield Step(1, 1, stage, picture(seed / 10), picture(seed / 10), torch.tensor([1.0]), info={"returns": 1})

    lane = race(stub("seeded", solve), seeds=(2, 5)).run().lanes[0]
    expected = sum(float(metrics.psnr(picture(s / 10), truth)) for s in (2, 5)) / 2
    assert lane.curve.psnr == pytest.approx([expected], abs=1e-4)
    assert lane.result is not None
    assert lane.result.psnr == pytest.approx(expected, abs=1e-4)


def test_a_turn_of_several_steps_may_begin_with_one_that_has_no_loss(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on an accelerator: a prior found in the cache is a step of preparation without an objective."""
    monkeypatch.setattr("netprior_core.race.STEPS_PER_TURN", {"cpu": 8})

    def solve(problem: Problem, seed: int) -> Iterator[Step]:
        yield Step(0, 0, "prepare", output=picture(0.5), phase="cached")
        yield from steps([0.1, 0.3, 0.5])(problem, seed)

    lane = race(stub("cached", solve)).run().lanes[0]
    assert lane.state == "finished", lane.message
    assert lane.curve.iteration == [1, 2, 3]
    assert lane.learning == []


def test_a_start_that_breaks_fails_the_race_in_words(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(tensor: torch.Tensor) -> Any:
        raise ValueError("no picture of this")

    monkeypatch.setattr("netprior_core.race.picture_of", broken)
    ended = race(stub("any", steps([0.5])))
    ended.turn()
    assert ended.state == "failed"
    assert "no picture of this" in ended.message
    assert ended.elapsed() == ended.elapsed()


# -- what goes wrong --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_no_number_fails_its_lane_only(stub: Stub, bad: float) -> None:
    def breaks(problem: Problem, seed: int) -> Iterator[Step]:
        for i in range(1, 9):
            value = bad if i >= 5 else i / 10
            yield Step(i, 8, "solve", picture(value), picture(value), torch.tensor([value]))

    done = race(stub("breaks", breaks), stub("fine", steps([0.5] * 8))).run()
    broken, fine = done.lanes
    assert broken.state == "failed"
    assert "iteration 5" in broken.message
    assert "learning rate" in broken.message
    assert broken.curve.iteration == [1, 2, 3, 4]
    assert broken.frames.iterations() == [1, 2, 3, 4]
    assert broken.picture is not None
    assert broken.picture.iteration == 4
    np.testing.assert_array_equal(broken.picture.pixels, picture_of(picture(0.4)))
    assert broken.result is None
    assert fine.state == "finished"
    assert done.state == "finished"
    assert summary(done)[0]["psnr"] is None


def test_an_estimate_that_is_no_number_is_not_scored_as_black(stub: Stub) -> None:
    values = [0.4, 0.5, math.nan, 0.5]
    lane = race(stub("nan-image", steps(values)), keep_frames=False).run().lanes[0]
    assert lane.state == "failed"
    assert "not numbers" in lane.message
    assert lane.curve.iteration == [1, 2]
    assert lane.best is not None
    assert math.isfinite(lane.best[0])
    assert lane.picture is None or lane.picture.iteration < 3


OUT_OF_MEMORY = RuntimeError(
    "[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: 9 bytes. Error code 12"
)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (MemoryError(), "Not enough memory"),
        (OUT_OF_MEMORY, "Not enough memory"),
        (torch.OutOfMemoryError("out of memory"), "smaller image"),
        (ZeroDivisionError("by zero"), "ZeroDivisionError"),
    ],
)
def test_an_exception_becomes_a_sentence_in_its_own_lane(stub: Stub, error: Exception, words: str) -> None:
    def raises(problem: Problem, seed: int) -> Iterator[Step]:
        yield Step(1, 2, "solve", picture(0.5), picture(0.5), torch.tensor([1.0]))
        raise error

    done = race(stub("raises", raises), stub("fine", steps([0.5] * 3))).run()
    assert done.lanes[0].state == "failed"
    assert words in done.lanes[0].message
    assert "Traceback" not in done.lanes[0].message
    assert done.lanes[1].state == "finished"


def test_a_method_that_ends_without_a_result_says_so(stub: Stub) -> None:
    def ends(problem: Problem, seed: int) -> Iterator[Step]:
        yield Step(1, 1, "solve", picture(0.5), picture(0.5), torch.tensor([1.0]))

    lane = race(stub("ends", ends)).run().lanes[0]
    assert lane.state == "failed"
    assert "without giving a result" in lane.message


def test_a_method_that_cannot_clean_up_does_not_take_the_others_down(stub: Stub) -> None:
    def dirty(problem: Problem, seed: int) -> Iterator[Step]:
        try:
            yield from steps([0.5])(problem, seed)
        finally:
            raise OSError("cleaning up failed")

    done = race(stub("dirty", dirty), stub("fine", steps([0.5] * 4))).run()
    assert [lane.state for lane in done.lanes] == ["finished", "finished"]
    assert done.state == "finished"


def test_a_refused_lane_says_why_and_the_others_run(stub: Stub) -> None:
    done = race(stub("picky", steps([0.5]), refuses="Only for X-rays."), stub("fine", steps([0.5]))).run()
    assert done.lanes[0].state == "refused"
    assert done.lanes[0].message == "Only for X-rays."
    assert done.lanes[0].curve.iteration == []
    assert done.lanes[1].state == "finished"


def test_a_problem_that_cannot_be_built_fails_the_race_with_its_reason(tiny: Callable[..., Experiment]) -> None:
    upload = {"source": "upload", "sha256": "0" * 64, "name": "me.png"}
    done = race_of(tiny(target=upload), {}).run()
    assert done.state == "failed"
    assert "me.png" in done.message
    assert all(lane.done for lane in done.lanes)
