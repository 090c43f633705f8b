"""Race: several methods on one problem, turn by turn, every step scored.

A race is passive: :meth:`Race.turn` advances it by one round and returns. The scheduler's worker thread (browser) or the caller
(command line, tests) turns it; any other thread may read it, and may ask it to pause, step or stop by setting flags.
Only the race has the ground truth: its :class:`~netprior_core.scoring.Scorer` keeps it. Whatever the race keeps outlives the run;
networks and tensors on the device do not.
"""

from __future__ import annotations

import gc
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import torch

from netprior_core import interrupt
from netprior_core.errors import NetPriorError
from netprior_core.frames import picture_of
from netprior_core.lane import Lane, Picture
from netprior_core.methods.base import Method
from netprior_core.problem import Problem
from netprior_core.scoring import Scorer, show
from netprior_core.stopping import StoppingRule

log = logging.getLogger("netprior")

RaceState = Literal["ready", "running", "paused", "finished", "stopped", "failed"]
Schedule = Literal["iteration", "clock"]

SHOTS_SHOWN = 12
#: Accelerators run ahead of Python; reading a number waits for them, so they get several steps a turn.
STEPS_PER_TURN = {"cpu": 1}
DEFAULT_STEPS_PER_TURN = 8


class Race:
    """Several methods on one problem.

    build: makes the problem and the ground truth (or None) when the race starts, on the thread that turns it.
    lanes: (method, name, detail) each. seeds: one network per seed in every lane, as a batch. remark: more to say about the
    problem than its model knows.
    rules: stopping rules that watch every lane; the one of kind ``stop_by`` ends it.
    schedule: "iteration" (one step each in turn) or "clock" (the lane that has had the least time is next).
    """

    def __init__(
        self,
        build: Callable[[], tuple[Problem, torch.Tensor | None]],
        lanes: Sequence[tuple[Method, str, str]],
        *,
        seeds: Sequence[int] = (0,),
        schedule: Schedule = "iteration",
        keep_frames: bool = True,
        remark: str = "",
        rules: Sequence[StoppingRule] = (),
        stop_by: str = "",
    ) -> None:
        self._build: Callable[[], tuple[Problem, torch.Tensor | None]] | None = build
        self.lanes = [Lane(i, *lane) for i, lane in enumerate(lanes)]
        self.seeds, self.schedule, self.keep_frames = tuple(seeds), schedule, keep_frames
        self.state: RaceState = "ready"
        self.message = ""
        self.has_truth = True
        self.description = ""
        self.measurement_picture: np.ndarray | None = None
        self.truth_picture: np.ndarray | None = None
        self.noise_std: float | None = None  # of the measurement, where it is known
        self.shot_pictures: list[np.ndarray] = []
        self.shots_total = 0
        self.version = 0
        self.touched = time.monotonic()
        self.started_at = self.ended_at = 0.0
        self._problem: Problem | None = None
        self._scorer: Scorer | None = None
        self._stop = self._pause = False
        self._single = 0
        self.ended_early = False  # what was being learned
        self._remark = remark
        self.rules, self.stop_by = tuple(rules), stop_by
        self.rule_notes: dict[str, str] = {}  # why a rule is not at work

    # -- asked for by any thread -------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """Ask the race to end; the turning thread does it at its next turn."""
        self._stop = True

    @property
    def unwanted(self) -> bool:
        """Whether the end was asked for, be it too late."""
        return self._stop

    def pause(self) -> None:
        """Ask the race to hold after the current step."""
        self._pause = True

    def resume(self) -> None:
        """Take a pause back."""
        self._pause, self._single = False, 0

    def step(self) -> None:
        """Ask for one iteration of every lane, then a pause."""
        self._pause, self._single = True, self._single + 1

    def enough(self) -> None:
        """End whatever is being prepared, and solve with it as it is."""
        if self._problem is not None:
            self.ended_early = self.ended_early or any(lane.state == "preparing" for lane in self.lanes)
            self._problem.enough.set()

    @property
    def done(self) -> bool:
        """The race has ended, one way or another."""
        return self.state in ("finished", "stopped", "failed")

    @property
    def wants_turn(self) -> bool:
        """Whether a turn would do anything: not while it is paused and nobody asked for a step or the end."""
        return not self.done and (self._stop or not self._pause or self._single > 0)

    def elapsed(self) -> float:
        """Seconds since the race began to be computed, pauses included; of the whole race once it is done."""
        return (self.ended_at or time.monotonic()) - self.started_at if self.started_at else 0.0

    def eta(self) -> float | None:
        """Seconds until every lane is done, as far as it can be known now."""
        left = [lane.eta() for lane in self.lanes if not lane.done]
        return sum(x for x in left if x is not None) if left and all(x is not None for x in left) else None

    # -- done by the turning thread ----------------------------------------------------------------------------------------

    def run(self, on_turn: Callable[[Race], None] | None = None) -> Race:
        """Turn until the race is done (headless use). ``on_turn`` is called after every turn."""
        try:
            while not self.done:
                self.turn()
                if on_turn:
                    on_turn(self)
        finally:
            self.close()
        return self

    def turn(self) -> None:
        """Advance by one round: one step of every lane, or of the lane whose turn it is by the clock. Never raises."""
        if self.done:
            return
        if self._stop:
            self._end("stopped")
            return
        if self.state == "ready" and not self._start():
            return
        if self._pause and not self._single:
            self._hold()
            return
        self.state = "running"
        waiting = [lane for lane in self.lanes if not lane.done]
        if self.schedule == "clock" and not self._single and waiting:
            waiting = [min(waiting, key=lambda lane: lane.seconds + lane.prepare_seconds)]
        for lane in waiting:
            self._advance(lane)
            if self._stop:
                break
        self._single = max(0, self._single - 1)
        self.version += 1
        if all(lane.done for lane in self.lanes):
            self._end("finished")
        elif self._pause and not self._single:
            self._hold()

    def close(self) -> None:
        """Close every generator and let go of everything on the device. Idempotent; only for the turning thread."""
        for lane in self.lanes:
            self._free(lane)
        device = self._problem.device if self._problem is not None else None
        self._problem = self._scorer = None
        gc.collect()
        if device is not None and device.type != "cpu":
            getattr(torch, device.type).empty_cache()

    def break_off(self, error: BaseException) -> None:
        """The last resort of the turning thread, when :meth:`turn` raised in spite of itself: the race has failed."""
        message = _explain(error)
        for lane in self.lanes:
            if not lane.done:
                lane.state, lane.message = "failed", message
        self.message = message
        try:
            self.close()
        except Exception:
            log.exception("closing a broken race")
        self.ended_at = time.monotonic()
        self.state = "failed"
        self.version += 1

    def _start(self) -> bool:
        self.started_at = time.monotonic()
        try:
            with interrupt.listening(lambda: self._stop):
                build, self._build = self._build, None  # which keeps uploads, or a problem of its own
                assert build is not None
                self._problem, truth = build()
                self._scorer = Scorer(
                    self._problem, truth, seeds=len(self.seeds), keep_frames=self.keep_frames, stop_by=self.stop_by
                )
                self._prepare(self._problem, truth)
        except interrupt.Interrupted:
            self._end("stopped")
            return False
        except Exception as error:
            self.message = _explain(error)
            self._end("failed")
            return False
        self.state = "running"
        self.version += 1
        return True

    def _prepare(self, problem: Problem, truth: torch.Tensor | None) -> None:
        """Everything between the problem and the first step: pictures, rules, who refuses."""
        self.has_truth = truth is not None
        self.description = "; ".join(filter(None, [problem.model.describe(), self._remark]))
        self.noise_std = problem.noise_std
        self.measurement_picture = picture_of(problem.model.preview(problem.measurement))
        self.truth_picture = picture_of(truth) if truth is not None else None
        if problem.shots is not None:
            self.shot_pictures = [picture_of(shot) for shot in problem.shots[:SHOTS_SHOWN]]
            self.shots_total = len(problem.shots)
        self.rule_notes = {rule.kind: reason for rule in self.rules if (reason := rule.refuses(problem))}
        rules = [rule for rule in self.rules if rule.kind not in self.rule_notes]
        given, twin = problem, None
        for rule in rules:
            given = rule.prepare(given, self.seeds[0])
            twin = rule.twin(given, self.seeds[0]) or twin
        for lane in self.lanes:
            reason = lane.method.accepts(given)
            if reason:
                lane.state, lane.message = "refused", reason
                continue
            lane._steps = lane.method.solve(given, seeds=self.seeds)
            lane._twin = lane.method.solve(twin, seeds=self.seeds) if twin is not None else None
            lane._watchers = [rule.watch(problem, self.seeds[0]) for rule in rules]

    def _hold(self) -> None:
        assert self._scorer is not None
        for lane in self.lanes:
            self._scorer.flush(lane)
            show(lane)
        self.state = "paused"
        self.touched = time.monotonic()
        self.version += 1

    def _end(self, state: RaceState) -> None:
        for lane in self.lanes:
            if not lane.done:
                try:
                    self._conclude(lane)
                except Exception as error:
                    self._fail(lane, _explain(error))
                if not lane.done:
                    lane.state = "stopped"
        self.close()
        self.state = state
        self.touched = self.ended_at = time.monotonic()
        self.version += 1

    def _advance(self, lane: Lane) -> None:
        """One turn of one lane. Its clock runs while the method computes, not while the race scores."""
        assert self._problem is not None
        assert self._scorer is not None
        assert lane._steps is not None
        try:
            for _ in range(1 if self._single else STEPS_PER_TURN.get(self._problem.device.type, DEFAULT_STEPS_PER_TURN)):
                start = time.perf_counter()
                with interrupt.listening(lambda: self._stop):
                    step = next(lane._steps)
                    twin = lane.beside(step)
                lane.spend(step.stage, time.perf_counter() - start)
                step = self._scorer.take(lane, step, twin)
                if step.stage == "result":
                    break
            start = time.perf_counter()
            self._scorer.flush(lane)
            lane.spend(step.stage, time.perf_counter() - start)
            lane.mark_speed()
            if step.stage == "result":
                self._conclude(lane)
        except interrupt.Interrupted:  # the next turn ends the race, with what there is
            pass
        except Exception as error:  # a generator that ends without a result lands here too, as StopIteration
            self._fail(lane, _explain(error))

    def _conclude(self, lane: Lane) -> None:
        """Keep the outcome of a lane that ended or was stopped, then close it."""
        finished = lane._last is not None and lane._last.stage == "result"
        if self._scorer is not None:
            self._scorer.flush(lane)
            self._scorer.conclude(lane)
        lane.state = "finished" if finished else "stopped"
        self._free(lane)

    def _fail(self, lane: Lane, message: str) -> None:
        """One lane breaks; its last good frame stays, and the others go on."""
        lane._pending.clear()
        lane.state, lane.message = "failed", message
        last = lane.frames.last()
        if last is not None and (lane.picture is None or lane.picture.kind == "shots" or lane.picture.iteration < last[0]):
            lane.picture = Picture(last[1], last[0], "estimate")
        self._free(lane)

    def _free(self, lane: Lane) -> None:
        for steps in (lane._steps, lane._twin):
            try:
                if steps is not None:
                    steps.close()  # type: ignore[attr-defined]
            except Exception:  # a method that cannot clean up must not take the others down
                log.exception("closing %s", lane.name)
        lane._steps = lane._twin = None
        lane._watchers = []
        lane._last = lane._twin_last = lane._best_estimate = lane._best_psnr = None
        lane._pending.clear()


def _explain(error: BaseException) -> str:
    """Words for the person at the screen; the traceback of what nobody foresaw goes to the log."""
    if isinstance(error, NetPriorError):
        return str(error)
    if isinstance(error, StopIteration):
        return "This method ended without giving a result."
    text = str(error)
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "allocate memory" in text or "out of memory" in text:
        return "Not enough memory for this method at this size. Choose a smaller image, fewer channels or fewer methods at once."
    log.error("a method broke", exc_info=error)
    return f"Something broke that should not have: {type(error).__name__}: {text[:200]}"


def summary(race: Race) -> list[dict[str, Any]]:
    """One row per lane for a results table: scores of what each method returned, its best iterate (oracle) and its seconds."""
    rows = []
    for lane in race.lanes:
        result = lane.result
        rows.append(
            {
                "method": lane.name,
                "settings": lane.detail,
                "state": lane.state,
                "psnr": result.psnr if result else None,
                "ssim": result.ssim if result else None,
                "residual": result.residual if result else None,
                "returns": result.returns if result else None,
                "best_psnr": lane.best[0] if lane.best else None,
                "best_iteration": lane.best[1] if lane.best else None,
                "iterations": lane.curve.iteration[-1] if lane.curve.iteration else 0,
                "prepare_seconds": lane.prepare_seconds,
                "seconds": lane.seconds,
                "message": lane.message,
                "stops": [
                    {"rule": stop.title, "iteration": stop.iteration, "fired": stop.fired, "psnr": stop.psnr}
                    for stop in lane.stops.values()
                ],
            }
        )
    return rows
