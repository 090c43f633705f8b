"""The race: what it holds, what it lets go of, and that its numbers come again."""

from __future__ import annotations

import gc
import math
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from shared import endless, picture, race, reachable, steps, tiny_problem

from netprior_core.experiment import Experiment, build, race_of
from netprior_core.frames import LIMIT, decode, picture_of
from netprior_core.methods import Method
from netprior_core.problem import Problem, Step

Stub = Callable[..., Method]


def test_generators_are_closed_by_the_turning_thread_only(stub: Stub) -> None:
    closed_by: list[int] = []

    def noted(problem: Problem, seed: int) -> Iterator[Step]:
        try:
            yield from endless(problem, seed)
        finally:
            closed_by.append(threading.get_ident())

    running = race(stub("noted", noted), stub("second", noted))
    turned = threading.Event()

    def work() -> None:
        while not running.done:
            running.turn()
            turned.set()

    worker = threading.Thread(target=work)
    worker.start()
    assert turned.wait(10)
    running.stop()
    worker.join(10)
    assert running.state == "stopped"
    assert closed_by == [worker.ident, worker.ident]


@pytest.mark.parametrize("ending", ["finish", "stop", "fail"])
def test_everything_on_the_device_is_released(stub: Stub, ending: str) -> None:
    held: list[weakref.ref[Any]] = []

    def solve(problem: Problem, seed: int) -> Iterator[Step]:
        network = torch.nn.Linear(4, 4)
        output = picture(0.5)
        held.extend([weakref.ref(network), weakref.ref(output), weakref.ref(problem), weakref.ref(problem.measurement)])
        for i in range(1, 5 if ending != "stop" else 1000):
            loss = math.nan if ending == "fail" and i == 3 else 1.0
            yield Step(i, 5, "solve", output, output, torch.tensor([loss]) + 0 * network.weight.sum().detach())
        yield Step(5, 5, "result", output, output)

    truths: list[weakref.ref[Any]] = []

    def known() -> tuple[Problem, torch.Tensor]:
        problem, truth = tiny_problem()
        truths.append(weakref.ref(truth))
        return problem, truth

    running = race(stub("holds", solve), problem=known)
    for _ in range(3):
        running.turn()
    if ending == "stop":
        running.stop()
    running.run()
    gc.collect()
    assert len(held) == 4
    assert [ref() for ref in held + truths] == [None] * 5
    assert running.lanes[0].curve.iteration  # the numbers stay


@pytest.mark.parametrize(
    ("operator", "channels"),
    [("denoising", 1), ("inpainting", 3), ("compressed-sensing", 1), ("super-resolution", 1), ("colorization", 3)],
)
def test_the_truth_cannot_be_reached_from_the_problem(tiny: Callable[..., Experiment], operator: str, channels: int) -> None:
    problem, truth = build(tiny(operator={"kind": operator}, channels=channels, noise={"kind": "gaussian", "sigma": 10}), {})
    assert truth is not None
    tensors = reachable(problem)
    assert any(t is problem.measurement for t in tensors)  # the walk finds what is there
    storage = truth.untyped_storage().data_ptr()
    for tensor in tensors:
        assert tensor.untyped_storage().data_ptr() != storage
        if tensor.numel() == truth.numel():
            assert not torch.equal(tensor.float().flatten(), truth.flatten())


def test_at_most_200_frames_are_kept_besides_the_pinned_and_the_first_always(stub: Stub) -> None:
    def many(problem: Problem, seed: int) -> Iterator[Step]:
        for i in range(1, 3001):
            value = 0.5 if i == 1777 else i / 3000  # the best picture is not one that is due
            yield Step(i, 3000, "solve", picture(value), picture(value), torch.tensor([1.0]))
        yield Step(3000, 3000, "result", picture(1.0), picture(1.0))

    lane = race(stub("many", many)).run().lanes[0]
    kept = lane.frames.iterations()
    assert len(kept) <= LIMIT + 2
    assert kept[0] == 1
    assert kept[-1] == 3000
    assert lane.best is not None
    assert lane.best[1] in kept
    for iteration, data in lane.frames.items():
        value = 0.5 if iteration == 1777 else iteration / 3000
        np.testing.assert_array_equal(decode(data, grey=True), picture_of(picture(value)))


def test_without_keeping_frames_none_are_kept(stub: Stub) -> None:
    done = race(stub("a", steps([0.5] * 30)), stub("b", endless), keep_frames=False)
    for _ in range(40):
        done.turn()
    done.stop()
    done.run()
    assert [len(lane.frames) for lane in done.lanes] == [0, 0]
    assert all(lane.result is not None for lane in done.lanes)


def test_the_same_experiment_twice_gives_the_same_numbers_bit_by_bit(tiny: Callable[..., Experiment]) -> None:
    both = [race_of(tiny(methods=[{"kind": "dip", "channels": 16, "iterations": 10}, {"kind": "adjoint"}]), {}) for _ in range(2)]
    for one in both:
        torch.manual_seed(one is both[0])  # the global state does not matter
        one.run()
    a, b = (one.lanes[0] for one in both)
    assert len(a.curve.psnr) == 10
    assert a.curve.psnr == b.curve.psnr
    assert a.curve.objective == b.curve.objective
    assert a.frames.items() == b.frames.items()


def test_the_order_of_the_lanes_does_not_change_their_numbers(tiny: Callable[..., Experiment]) -> None:
    methods = [{"kind": "dip", "channels": 16, "iterations": 6}, {"kind": "cs-dip", "iterations": 6}]
    operator = {"kind": "compressed-sensing"}
    one = race_of(tiny(methods=methods, operator=operator), {}).run()
    other = race_of(tiny(methods=methods[::-1], operator=operator, schedule="clock"), {}).run()
    assert one.lanes[0].curve.psnr == other.lanes[1].curve.psnr
    assert one.lanes[1].curve.objective == other.lanes[0].curve.objective


def test_the_rate_never_runs_backwards_when_a_method_counts_anew(stub: Stub) -> None:
    def phases(problem: Problem, seed: int) -> Iterator[Step]:
        for phase in ("latent", "joint"):
            for i in range(1, 5):
                yield Step(i, 4, "solve", picture(0.5), picture(0.5), torch.tensor([1.0]), phase)

    running = race(stub("phases", phases))
    for _ in range(7):
        running.turn()
        rate, eta = running.lanes[0].rate(), running.lanes[0].eta()
        assert rate is None or rate > 0
        assert eta is None or eta >= 0
    running.close()
