"""The race: stop, pause and step."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from shared import endless, picture, race, steps

from netprior_core import interrupt
from netprior_core.methods import Method
from netprior_core.methods.base import lockstep
from netprior_core.problem import Problem, Step
from netprior_core.race import Race, summary

Stub = Callable[..., Method]


def test_stop_keeps_the_last_estimate_as_the_result(stub: Stub) -> None:
    running = race(stub("endless", endless), stub("short", steps([0.25])))
    for _ in range(5):
        running.turn()
    running.stop()
    running.turn()
    assert running.state == "stopped"
    stopped, finished = running.lanes
    assert stopped.state == "stopped"
    assert stopped.result is not None
    assert stopped.result.returns == 5
    assert stopped.result.psnr == pytest.approx(stopped.curve.psnr[-1])
    assert finished.state == "finished"
    version = running.version
    running.turn()
    assert running.version == version  # a race that has ended stays as it is


def test_stop_before_the_first_turn_ends_it_without_computing(stub: Stub) -> None:
    running = race(stub("endless", endless), problem=lambda: pytest.fail("nothing is to be built"))
    running.stop()
    running.turn()
    assert running.state == "stopped"
    assert running.lanes[0].state == "stopped"
    assert running.lanes[0].result is None


def test_stop_while_preparing_invents_no_result(stub: Stub) -> None:
    running = race(stub("prepares", steps([0.5], prepare=50)))
    for _ in range(3):
        running.turn()
    running.stop()
    running.turn()
    assert running.lanes[0].state == "stopped"
    assert running.lanes[0].result is None
    assert summary(running)[0]["psnr"] is None


def test_stop_ends_a_step_that_looks_for_it_and_keeps_what_came_before(stub: Stub) -> None:
    def slow(problem: Problem, seed: int) -> Iterator[Step]:
        yield Step(1, 2, "solve", picture(0.5), picture(0.5), torch.tensor([1.0]))
        running.stop()  # as another thread would, in the middle of a long step
        interrupt.check()
        pytest.fail("the step went on")

    running = race(stub("slow", slow), stub("other", endless))
    while not running.done:
        running.turn()
    lane = running.lanes[0]
    assert (running.state, lane.state, lane.message) == ("stopped", "stopped", "")
    assert lane.result is not None
    assert lane.result.returns == 1
    interrupt.check()  # nobody listens any more


def test_stop_is_heard_between_the_seeds_of_one_step() -> None:
    asked: list[int] = []

    def run(number: int) -> Iterator[Step]:
        for iteration in (1, 2):
            asked.append(number)
            yield Step(iteration, 2, "solve", picture(0.5), picture(0.5), torch.tensor([1.0]))

    both = lockstep([run(0), run(1), run(2)])
    assert next(both).estimate.shape[0] == 3  # type: ignore[union-attr]
    with interrupt.listening(lambda: len(asked) == 4), pytest.raises(interrupt.Interrupted):
        next(both)
    assert asked == [0, 1, 2, 0]


def test_runs_of_one_method_end_together() -> None:
    step = Step(1, 1, "solve", picture(0.5), picture(0.5), torch.tensor([1.0]))
    with pytest.raises(ValueError, match="different steps"):
        list(lockstep([(one for one in [step]), (one for one in [step, step])]))  # type: ignore[list-item]


def test_stop_while_a_problem_is_built(stub: Stub) -> None:
    def long() -> Any:
        running.stop()
        interrupt.check()
        pytest.fail("the building went on")

    running = Race(long, [(stub("other", endless), "other", "")])
    running.turn()
    assert running.state == "stopped"


def test_who_listens_outside_is_heard_inside_too() -> None:
    outside, inside = threading.Event(), threading.Event()
    with interrupt.listening(outside.is_set):
        with interrupt.listening(inside.is_set):
            assert not interrupt.asked()
            outside.set()
            with pytest.raises(interrupt.Interrupted):
                interrupt.check()
            outside.clear()
            inside.set()
            assert interrupt.asked()
        assert not interrupt.asked()
    assert not interrupt.asked()


def test_what_cannot_be_told_to_stop_is_left_to_itself() -> None:
    release, asked = threading.Event(), threading.Event()

    def package() -> int:
        asked.set()
        release.wait(20)
        return 7

    with interrupt.listening(asked.is_set), pytest.raises(interrupt.Interrupted):
        interrupt.interruptible(package)
    release.set()
    with interrupt.listening(lambda: False):
        assert interrupt.interruptible(lambda: 7) == 7
        with pytest.raises(ZeroDivisionError):
            interrupt.interruptible(lambda: 1 // 0)


def test_pause_step_resume(stub: Stub) -> None:
    running = race(stub("a", endless), stub("b", steps([0.5] * 100)), schedule="clock")
    running.turn()
    running.pause()
    assert running.wants_turn is False
    running.turn()
    assert running.state == "paused"
    at = [lane.iteration for lane in running.lanes]
    running.turn()
    assert [lane.iteration for lane in running.lanes] == at
    running.step()
    assert running.wants_turn is True
    running.turn()
    assert running.state == "paused"
    assert [lane.iteration for lane in running.lanes] == [i + 1 for i in at]  # every lane, also when racing by the clock
    assert all(lane.picture is not None and lane.picture.iteration == lane.iteration for lane in running.lanes)
    running.resume()
    for _ in range(4):
        running.turn()
    assert running.state == "running"
    assert sum(lane.iteration for lane in running.lanes) == sum(at) + 6
    running.close()


def test_a_paused_race_can_be_stopped(stub: Stub) -> None:
    running = race(stub("endless", endless))
    running.turn()
    running.pause()
    running.turn()
    running.stop()
    assert running.wants_turn
    running.turn()
    assert running.state == "stopped"
    assert running.lanes[0].result is not None
