"""Race: several methods on one problem, turn by turn, every step scored.

A race is passive: :meth:`Race.turn` advances it by one round and returns. The scheduler's worker thread (browser) or the caller
(command line, tests) turns it; any other thread may read it, and may ask it to pause, step or stop by setting flags.
Only the race has the ground truth. Whatever it keeps outlives the run; networks and tensors on the device do not.
"""

from __future__ import annotations

import gc
import logging
import math
import time
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import torch

from netprior_core import metrics
from netprior_core.errors import NetPriorError
from netprior_core.frames import picture_of, sheet_of
from netprior_core.lane import Lane, Picture, Result
from netprior_core.methods.base import Method
from netprior_core.problem import Problem, Step

log = logging.getLogger("netprior")

RaceState = Literal["ready", "running", "paused", "finished", "stopped", "failed"]
Schedule = Literal["iteration", "clock"]

#: Residuals and SSIM cost an operator or five convolutions: they are computed at these iterations only (and at kept frames).
RESIDUAL_EVERY = 10
SHOTS_SHOWN = 12
#: Accelerators run ahead of Python; reading a number waits for them, so they get several steps a turn.
STEPS_PER_TURN = {"cpu": 1}
DEFAULT_STEPS_PER_TURN = 8


class Race:
    """Several methods on one problem.

    build: makes the problem and the ground truth (or None) when the race starts, on the thread that turns it.
    lanes: (method, name, detail) each. seeds: one network per seed in every lane, as a batch. remark: more to say about the
    problem than its model knows.
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
    ) -> None:
        self._build = build
        self.lanes = [Lane(i, *lane) for i, lane in enumerate(lanes)]
        self.seeds, self.schedule, self.keep_frames = tuple(seeds), schedule, keep_frames
        self.state: RaceState = "ready"
        self.message = ""
        self.has_truth = True
        self.description = ""
        self.measurement_picture: np.ndarray | None = None
        self.truth_picture: np.ndarray | None = None
        self.shot_pictures: list[np.ndarray] = []
        self.shots_total = 0
        self.version = 0
        self.touched = time.monotonic()
        self.started_at = self.ended_at = 0.0
        self._problem: Problem | None = None
        self._truth: torch.Tensor | None = None
        self._stop = self._pause = False
        self._single = 0
        self._remark = remark

    # -- asked for by any thread -------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """Ask the race to end; the turning thread does it at its next turn."""
        self._stop = True

    def pause(self) -> None:
        """Ask the race to hold after the current step."""
        self._pause = True

    def resume(self) -> None:
        """Take a pause back."""
        self._pause, self._single = False, 0

    def step(self) -> None:
        """Ask for one iteration of every lane, then a pause."""
        self._pause, self._single = True, self._single + 1

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
        self._problem = self._truth = None
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
        self.state = "failed"
        self.version += 1

    def _start(self) -> bool:
        self.started_at = time.monotonic()
        try:
            self._problem, self._truth = self._build()
        except Exception as error:
            self.message = _explain(error)
            self._end("failed")
            return False
        problem = self._problem
        self.has_truth = self._truth is not None
        self.description = "; ".join(filter(None, [problem.model.describe(), self._remark]))
        self.measurement_picture = picture_of(problem.model.preview(problem.measurement))
        self.truth_picture = picture_of(self._truth) if self._truth is not None else None
        if problem.shots is not None:
            self.shot_pictures = [picture_of(shot) for shot in problem.shots[:SHOTS_SHOWN]]
            self.shots_total = len(problem.shots)
        for lane in self.lanes:
            reason = lane.method.accepts(problem)
            if reason:
                lane.state, lane.message = "refused", reason
            else:
                lane._steps = lane.method.solve(problem, seeds=self.seeds)
        self.state = "running"
        self.version += 1
        return True

    def _hold(self) -> None:
        for lane in self.lanes:
            self._flush(lane)
            self._show(lane)
        self.state = "paused"
        self.touched = time.monotonic()
        self.version += 1

    def _end(self, state: RaceState) -> None:
        for lane in self.lanes:
            if not lane.done:
                try:
                    self._flush(lane)
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
        assert lane._steps is not None
        try:
            for _ in range(1 if self._single else STEPS_PER_TURN.get(self._problem.device.type, DEFAULT_STEPS_PER_TURN)):
                start = time.perf_counter()
                step = next(lane._steps)
                lane.spend(step.stage, time.perf_counter() - start)
                self._take(lane, step)
                if step.stage == "result":
                    break
            start = time.perf_counter()
            self._flush(lane)
            lane.spend(step.stage, time.perf_counter() - start)
            lane.mark_speed()
            if step.stage == "result":
                self._conclude(lane)
        except Exception as error:  # a generator that ends without a result lands here too, as StopIteration
            self._fail(lane, _explain(error))

    def _take(self, lane: Lane, step: Step) -> None:
        """Score one step. Nothing here reads a number from the device."""
        if lane._last is None or step.stage != lane._last.stage:
            lane._speed.clear()
        lane._last = step
        lane.phase, lane.iteration, lane.total = step.phase, step.iteration, step.total
        lane.message = str(step.info.get("note", lane.message))
        nan = torch.full((), math.nan, device=self._problem.device)  # type: ignore[union-attr]
        objective = step.objective.detach().float().mean() if step.objective is not None else nan
        if step.stage == "prepare":
            lane.state = "preparing"
            lane._pending.append((-1, 0.0, objective.view(1)))
        elif step.stage == "solve":
            lane.state = "running"
            scores = torch.stack([objective, *self._psnr_pair(lane, step, nan)])
            lane._pending.append((step.iteration, lane.seconds, scores))
            keep = self.keep_frames and lane.frames.due(step.iteration)
            if keep or step.iteration % RESIDUAL_EVERY == 0:
                self._measure(lane, step, ssim=keep)
            if keep and step.estimate is not None:
                lane.frames.add(step.iteration, picture_of(step.estimate))
        if lane.picture_wanted:
            self._show(lane)

    def _psnr_pair(self, lane: Lane, step: Step, nan: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if self._truth is None or step.estimate is None:
            return nan, nan
        value = metrics.psnr(step.estimate, self._truth).median()
        if lane._best_psnr is None:
            lane._best_psnr, lane._best_estimate = value, step.estimate[:1].clone()
        else:  # no branch on the value: the device is not waited for
            better = value > lane._best_psnr
            lane._best_psnr = torch.maximum(value, lane._best_psnr)
            assert lane._best_estimate is not None
            torch.where(better, step.estimate[:1], lane._best_estimate, out=lane._best_estimate)
        if step.output is None or step.output is step.estimate:
            return value, value
        return value, metrics.psnr(step.output, self._truth).median()

    def _measure(self, lane: Lane, step: Step, *, ssim: bool) -> None:
        if step.estimate is None or self._problem is None:
            return
        with torch.no_grad():
            value = metrics.residual(self._problem.model, step.estimate, self._problem.measurement).median()
            lane.curve.residual.append((step.iteration, lane.seconds, float(value)))
            if ssim and self._truth is not None:
                lane.curve.ssim.append((step.iteration, lane.seconds, float(metrics.ssim(step.estimate, self._truth).median())))

    def _flush(self, lane: Lane) -> None:
        """Read the scores of the steps since the last flush: the one place that waits for the device."""
        pending, lane._pending = lane._pending, []
        estimated = self._truth is not None and lane._last is not None and lane._last.estimate is not None
        measured = lane._last is not None and lane._last.objective is not None
        for iteration, seconds, scores in pending:
            values = scores.tolist()
            if measured and not math.isfinite(values[0]):
                lane.forget_from(iteration)
                raise NetPriorError(
                    f"The loss became {values[0]:g} at iteration {max(iteration, 0)}. "
                    "Lower the learning rate, or check the measurement for values that are not numbers."
                )
            if iteration < 0:
                lane.prepare_loss.append(values[0])
                continue
            objective, psnr, psnr_output = values
            if estimated and math.isnan(psnr):
                lane.forget_from(iteration)
                raise NetPriorError(
                    f"The estimate holds values that are not numbers at iteration {iteration}. Lower the learning rate."
                )
            lane.curve.iteration.append(iteration)
            lane.curve.seconds.append(seconds)
            lane.curve.objective.append(objective)
            lane.curve.psnr.append(psnr)
            lane.curve.psnr_output.append(psnr_output)
            if not math.isnan(psnr) and (lane.best is None or psnr > lane.best[0]):
                lane.best = (psnr, iteration)

    def _show(self, lane: Lane) -> None:
        step = lane._last
        if step is None or lane.done:
            return
        if step.stage == "prepare":
            if step.output is not None:
                lane.picture = Picture(picture_of(sheet_of(step.output)), step.iteration, "shots")
                lane.picture_wanted = False
        elif step.estimate is not None:
            lane.picture = Picture(picture_of(step.estimate), step.iteration, "estimate")
            lane.picture_wanted = False

    def _conclude(self, lane: Lane) -> None:
        """Keep the outcome of a lane that ended or was stopped, then close it."""
        step = lane._last
        if step is not None and step.estimate is not None and self._problem is not None:
            estimate = step.estimate
            has = self._truth is not None
            returns = step.info.get("returns", step.iteration)
            pixels = picture_of(estimate)
            lane.result = Result(
                returns=int(returns[0] if isinstance(returns, (list, tuple)) else returns),
                psnr=float(metrics.psnr(estimate, self._truth).median()) if has and self._truth is not None else None,
                ssim=float(metrics.ssim(estimate, self._truth).median()) if has and self._truth is not None else None,
                residual=float(metrics.residual(self._problem.model, estimate, self._problem.measurement).median()),
                pixels=pixels,
            )
            last = lane.curve.seconds[-1] if lane.curve.seconds else lane.seconds
            lane.curve.residual.append((step.iteration, last, lane.result.residual or 0.0))
            if lane.result.ssim is not None:
                lane.curve.ssim.append((step.iteration, last, lane.result.ssim))
            lane.picture = Picture(pixels, lane.result.returns, "estimate")
            if self.keep_frames:
                if lane.best is not None and lane._best_estimate is not None:
                    lane.frames.pin(lane.best[1], picture_of(lane._best_estimate))
                lane.frames.pin(step.iteration, pixels)
        lane.state = "finished" if step is not None and step.stage == "result" else "stopped"
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
        steps, lane._steps = lane._steps, None
        if steps is not None:
            try:
                steps.close()  # type: ignore[attr-defined]
            except Exception:  # a method that cannot clean up must not take the others down
                log.exception("closing %s", lane.name)
        lane._last = lane._best_estimate = lane._best_psnr = None
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
            }
        )
    return rows
