"""The race: turns, stages, failures, pausing, scores, and what it lets go of."""

from __future__ import annotations

import gc
import math
import threading
import types
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from shared import SIDE, picture, steps, tiny_problem

from netprior_core import interrupt, metrics
from netprior_core.experiment import Experiment, build, race_of
from netprior_core.frames import LIMIT, decode, picture_of
from netprior_core.methods import Method
from netprior_core.problem import Problem, Step
from netprior_core.race import Race, summary

Stub = Callable[..., Method]


def race(*methods: Method, **options: Any) -> Race:
    known = options.pop("problem", tiny_problem)
    return Race(known, [(method, method.title, "") for method in methods], **options)


def endless(problem: Problem, seed: int) -> Iterator[Step]:
    for i in range(1, 10_000):
        yield Step(i, 10_000, "solve", picture(0.5), picture(0.5), torch.tensor([1.0]))


# -- turns and stages ---------------------------------------------------------------------------------------------------------


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
    assert lane.prepare_loss == pytest.approx([1, 1 / 2, 1 / 3])
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
    assert lane.prepare_loss == []


def test_a_start_that_breaks_fails_the_race_in_words(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(tensor: torch.Tensor) -> Any:
        raise ValueError("no picture of this")

    monkeypatch.setattr("netprior_core.race.picture_of", broken)
    ended = race(stub("any", steps([0.5])))
    ended.turn()
    assert ended.state == "failed"
    assert "no picture of this" in ended.message
    assert ended.elapsed() == ended.elapsed()


# -- what goes wrong ----------------------------------------------------------------------------------------------------------


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


# -- stop, pause, step --------------------------------------------------------------------------------------------------------


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


def test_stop_while_a_problem_is_built(stub: Stub) -> None:
    def long() -> Any:
        running.stop()
        interrupt.check()
        pytest.fail("the building went on")

    running = Race(long, [(stub("other", endless), "other", "")])
    running.turn()
    assert running.state == "stopped"


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


# -- what it holds and lets go of ---------------------------------------------------------------------------------------------


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


def reachable(root: Any, limit: int = 200_000) -> list[torch.Tensor]:
    """Every tensor that can be reached from an object by following references (not into modules, classes or functions' globals)."""
    seen: set[int] = set()
    queue, tensors = [root], []
    skipped = (type, types.ModuleType, types.FrameType, types.BuiltinFunctionType)
    while queue and len(seen) < limit:
        thing = queue.pop()
        if id(thing) in seen or isinstance(thing, skipped):
            continue
        seen.add(id(thing))
        if isinstance(thing, torch.Tensor):
            tensors.append(thing)
        if isinstance(thing, types.FunctionType):
            queue += [cell.cell_contents for cell in thing.__closure__ or ()] + list(thing.__defaults__ or ())
        else:
            queue += gc.get_referents(thing)
    return tensors


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
