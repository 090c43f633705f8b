"""The scheduler: one race computes at a time, the others know their place, and nothing a race does stops the worker."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from collections.abc import Callable, Iterator

import pytest
import torch
from shared import picture, steps, tiny_problem

from netprior_core.methods import Method
from netprior_core.problem import Problem, Step
from netprior_core.race import Race
from netprior_core.scheduler import Scheduler, give_memory_back

Stub = Callable[..., Method]
PATIENCE = 20.0  # seconds until something that never happens is given up; nothing here measures speed


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.005)


class Gate:
    """A method whose iterations wait to be let through, one at a time or all at once."""

    def __init__(self) -> None:
        self.passes = threading.Semaphore(0)
        self.open = threading.Event()
        self.inside = threading.Event()
        self.threads: set[str] = set()

    def solve(self, problem: Problem, seed: int) -> Iterator[Step]:
        for i in range(1, 100_000):
            self.inside.set()
            self.threads.add(threading.current_thread().name)
            while not self.open.is_set() and not self.passes.acquire(timeout=0.02):
                pass
            time.sleep(0.001)
            yield Step(i, 100_000, "solve", picture(0.5), picture(0.5), torch.tensor([1.0]))


def race(method: Method) -> Race:
    return Race(tiny_problem, [(method, method.title, "")])


@pytest.fixture
def scheduler() -> Scheduler:
    return Scheduler()


def test_one_computes_the_other_waits_and_knows_its_place(stub: Stub, scheduler: Scheduler) -> None:
    gate = Gate()
    first, second, third = race(stub("gate", gate.solve)), race(stub("s", steps([0.5]))), race(stub("t", steps([0.5])))
    for one in (first, second, third):
        scheduler.submit(one)
    assert gate.inside.wait(PATIENCE)
    assert [scheduler.place(one) for one in (first, second, third)] == [0, 1, 2]
    gate.passes.release(3)
    until(lambda: first.lanes[0].iteration >= 3)
    assert second.state == "ready"
    assert third.state == "ready"
    first.stop()
    gate.open.set()
    until(lambda: second.done and third.done)
    assert scheduler.place(second) == 0
    assert [one.state for one in (first, second, third)] == ["stopped", "finished", "finished"]
    assert gate.threads == {"netprior-worker"}


def test_a_paused_race_gives_up_its_turn_and_rejoins_at_the_end(stub: Stub, scheduler: Scheduler) -> None:
    gate, other = Gate(), Gate()
    gate.open.set()
    paused, running = race(stub("gate", gate.solve)), race(stub("other", other.solve))
    scheduler.submit(paused)
    until(lambda: paused.lanes[0].iteration > 0)
    paused.pause()
    until(lambda: paused.state == "paused")
    at = paused.lanes[0].iteration
    scheduler.submit(running)
    assert other.inside.wait(PATIENCE)  # the other computes although the first is not done
    assert scheduler.place(paused) == 0
    paused.resume()
    scheduler.wake()
    other.passes.release(2)
    until(lambda: running.lanes[0].iteration >= 2)
    assert scheduler.place(paused) == 1
    assert paused.lanes[0].iteration == at
    running.stop()
    other.open.set()
    until(lambda: paused.state == "running" and paused.lanes[0].iteration > at)
    paused.stop()
    until(lambda: paused.done)


def test_a_step_of_a_paused_race_is_one_iteration(stub: Stub, scheduler: Scheduler) -> None:
    gate = Gate()
    gate.open.set()
    one = race(stub("gate", gate.solve))
    scheduler.submit(one)
    until(lambda: one.lanes[0].iteration > 0)
    one.pause()
    until(lambda: one.state == "paused")
    at, version = one.lanes[0].iteration, one.version
    one.step()
    scheduler.wake()
    until(lambda: one.version > version and one.state == "paused")
    assert one.lanes[0].iteration == at + 1
    one.stop()
    scheduler.wake()
    until(lambda: one.done)


def test_a_race_paused_for_too_long_is_ended_and_keeps_what_it_found(stub: Stub) -> None:
    scheduler = Scheduler(pause_limit=0.1)
    gate = Gate()
    gate.open.set()
    one = race(stub("gate", gate.solve))
    scheduler.submit(one)
    until(lambda: one.lanes[0].iteration > 0)
    one.pause()
    until(lambda: one.done)
    assert one.state == "stopped"
    assert "Paused for too long" in one.message
    assert one.lanes[0].result is not None


def test_a_waiting_race_that_is_stopped_ends_while_another_computes(stub: Stub, scheduler: Scheduler) -> None:
    gate = Gate()
    gate.open.set()
    first, second, third = race(stub("gate", gate.solve)), race(stub("s", steps([0.5]))), race(stub("t", steps([0.5])))
    for one in (first, second, third):
        scheduler.submit(one)
    until(lambda: first.lanes[0].iteration > 0)
    second.stop()
    scheduler.wake()
    until(lambda: second.done)
    assert second.state == "stopped"
    assert not first.done
    assert scheduler.place(third) == 1
    first.stop()
    until(lambda: third.done)


class Broken(Race):
    """A race whose turn raises, which a race's turn never should."""

    def turn(self) -> None:
        raise SystemError("beyond repair")


def test_a_race_whose_turn_raises_fails_and_the_worker_goes_on(stub: Stub, scheduler: Scheduler) -> None:
    broken = Broken(tiny_problem, [(stub("a", steps([0.5])), "A", "")])
    fine = race(stub("b", steps([0.5])))
    scheduler.submit(broken)
    scheduler.submit(fine)
    until(lambda: fine.done)
    assert fine.state == "finished"
    assert broken.state == "failed"
    assert "beyond repair" in broken.message
    assert broken.lanes[0].state == "failed"
    assert scheduler.place(broken) == 0


def test_the_worker_keeps_nothing_of_a_finished_race(stub: Stub, scheduler: Scheduler) -> None:
    def finished() -> weakref.ref[Race]:
        one = race(stub("a", steps([0.5])))
        scheduler.submit(one)
        until(lambda: one.done and scheduler._line == [])
        return weakref.ref(one)

    held = finished()

    def gone() -> bool:
        gc.collect()
        return held() is None

    until(gone)


def test_giving_memory_back_is_harmless() -> None:
    give_memory_back()
