"""The scores of a race: PSNR, SSIM and residual of every step, what the stopping rules see, and what each lane returned."""

from __future__ import annotations

import math
from dataclasses import replace

import torch

from netprior_core import metrics
from netprior_core.errors import NetPriorError
from netprior_core.frames import picture_of, sheet_of, spread_of
from netprior_core.lane import Lane, Picture, Result, Score, Stop
from netprior_core.problem import Problem, Step
from netprior_core.stopping import Look


class Scorer:
    """Scores the lanes of one race against the ground truth, which only it has; ``truth`` is None where there is none.

    seeds: how many. keep_frames: keep pictures in the lanes. stop_by: kind of the stopping rule that ends a lane.
    """

    def __init__(self, problem: Problem, truth: torch.Tensor | None, *, seeds: int, keep_frames: bool, stop_by: str) -> None:
        self.problem, self.truth = problem, truth
        self.seeds, self.keep_frames, self.stop_by = seeds, keep_frames, stop_by

    def take(self, lane: Lane, step: Step, twin: Step | None) -> Step:
        """Score one step. Nothing here reads a number from the device, but every tenth iteration where rules watch.

        Returns the step, or the result in its place when the rule that may stop the lane has fired.
        """
        if lane._last is None or step.stage != lane._last.stage:
            lane._speed.clear()
        lane._last = step
        lane.phase, lane.iteration, lane.total = step.phase, step.iteration, step.total
        lane.message = str(step.info.get("note", lane.message))
        lane.prior = str(step.info.get("prior", lane.prior))
        nan = torch.full((), math.nan, device=self.problem.device)
        objective = step.objective.detach().float().mean() if step.objective is not None else nan
        measured = step.objective is not None
        if step.stage == "prepare":
            lane.state = "preparing"
            if measured:
                lane._pending.append(Score(-1, lane.prepare_seconds, objective.view(1), measured=True, estimated=False))
            at, value = step.info.get("left_out", (0, 0.0))
            if at and (not lane.left_out or lane.left_out[-1][0] != at):
                lane.left_out.append((at, lane.prepare_seconds, value))
        elif step.stage == "solve":
            lane.state = "running"
            scores = torch.stack([objective, *self._psnrs(lane, step, nan)])
            estimated = self.truth is not None and step.estimate is not None
            lane._pending.append(Score(step.iteration, lane.seconds, scores, measured, estimated))
            keep = self.keep_frames and lane.frames.due(step.iteration)
            if step.estimate is not None and step.output is not None:
                look = Look(step, self.problem, twin)
                for watcher in lane._watchers:
                    watcher.see(look)
                if keep or look.due:
                    self._measure(lane, look, ssim=keep)
                if look.due and lane._watchers:
                    self._read(lane)
                    step = lane._last = self._stopped(lane, step)
            if keep and step.estimate is not None:
                lane.frames.add(step.iteration, picture_of(step.estimate))
        if lane.picture_wanted:
            show(lane)
        return step

    def _read(self, lane: Lane) -> None:
        """What each rule has found so far."""
        for watcher in lane._watchers:
            watcher.read(lane.iteration)
            if watcher.candidate is None or watcher.estimate is None:
                continue
            known = lane.stops.get(watcher.rule.kind)
            if known is not None and (known.iteration, known.fired) == (watcher.candidate, watcher.fired):
                continue
            value = None if self.truth is None else float(middle(metrics.psnr(watcher.estimate, self.truth)))
            lane.stops[watcher.rule.kind] = Stop(type(watcher.rule).title, watcher.candidate, watcher.fired, value)

    def _stopped(self, lane: Lane, step: Step) -> Step:
        """The result that the chosen rule stands for, once it has fired; else the step."""
        watcher = next((w for w in lane._watchers if w.rule.kind == self.stop_by and w.fired is not None), None)
        if watcher is None or watcher.estimate is None:
            return step
        note = f"Stopped by {type(watcher.rule).title} at iteration {watcher.fired}: returns iteration {watcher.candidate}."
        lane.message = note
        if self.keep_frames and step.estimate is not None:  # what the curve ends with, which is not what is returned
            lane.frames.pin(step.iteration, picture_of(step.estimate))
        info = {"returns": watcher.candidate, "note": note}
        return replace(step, iteration=watcher.candidate or 0, stage="result", estimate=watcher.estimate, info=info)

    def _psnrs(self, lane: Lane, step: Step, nan: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """PSNR of estimate and output (medians over the seeds), and the least and largest of the estimates."""
        if self.truth is None or step.estimate is None:
            return nan, nan, nan, nan
        values = metrics.psnr(step.estimate, self.truth)
        value = middle(values)
        if lane._best_psnr is None:
            lane._best_psnr, lane._best_estimate = value, step.estimate[:1].clone()
        else:  # no branch on the value: the device is not waited for
            better = value > lane._best_psnr
            lane._best_psnr = torch.maximum(value, lane._best_psnr)
            assert lane._best_estimate is not None
            torch.where(better, step.estimate[:1], lane._best_estimate, out=lane._best_estimate)
        if step.output is None or step.output is step.estimate:
            return value, value, values.min(), values.max()
        return value, middle(metrics.psnr(step.output, self.truth)), values.min(), values.max()

    def _measure(self, lane: Lane, look: Look, *, ssim: bool) -> None:
        with torch.no_grad():
            value = middle(look.misfit.square().mean(dim=1).sqrt())
            lane.curve.residual.append((look.iteration, lane.seconds, float(value)))
            if ssim and self.truth is not None:
                lane.curve.ssim.append((look.iteration, lane.seconds, float(middle(metrics.ssim(look.estimate, self.truth)))))

    def flush(self, lane: Lane) -> None:
        """Read the scores of the steps since the last flush: the one place that waits for the device."""
        pending, lane._pending = lane._pending, []
        for iteration, seconds, scores, measured, estimated in pending:
            values = scores.tolist()
            if measured and not math.isfinite(values[0]):
                lane.forget_from(iteration)
                raise NetPriorError(
                    f"The loss became {values[0]:g} at iteration {max(iteration, 0)}. "
                    "Lower the learning rate, or check the measurement for values that are not numbers."
                )
            if iteration < 0:
                lane.learning.append((seconds, values[0]))
                continue
            objective, psnr, psnr_output, least, most = values
            if estimated and math.isnan(psnr):
                lane.forget_from(iteration)
                raise NetPriorError(
                    f"The estimate holds values that are not numbers at iteration {iteration}. Lower the learning rate."
                )
            lane.curve.iteration.append(iteration)
            lane.curve.seconds.append(seconds)
            lane.curve.objective.append(objective)
            lane.curve.psnr.append(psnr)
            if self.seeds > 1:
                lane.curve.spread.append((least, most))
            lane.curve.psnr_output.append(psnr_output)
            if not math.isnan(psnr) and (lane.best is None or psnr > lane.best[0]):
                lane.best = (psnr, iteration)

    def conclude(self, lane: Lane) -> None:
        """Keep the outcome of a lane that ended or was stopped: result, last points of its curves, pictures."""
        step = lane._last
        self._read(lane)
        if step is not None and step.estimate is not None:
            estimate = step.estimate
            lane.spread = spread_of(estimate)
            returns = step.info.get("returns", step.iteration)
            pixels = picture_of(estimate)
            lane.result = Result(
                returns=int(returns[0] if isinstance(returns, (list, tuple)) else returns),
                psnr=float(middle(metrics.psnr(estimate, self.truth))) if self.truth is not None else None,
                ssim=float(middle(metrics.ssim(estimate, self.truth))) if self.truth is not None else None,
                residual=float(middle(metrics.residual(self.problem.model, estimate, self.problem.measurement))),
                pixels=pixels,
            )
            last = lane.curve.seconds[-1] if lane.curve.seconds else lane.seconds
            for curve, value in ((lane.curve.residual, lane.result.residual), (lane.curve.ssim, lane.result.ssim)):
                if value is not None and (not curve or curve[-1][0] < step.iteration):
                    curve.append((step.iteration, last, value))
            lane.picture = Picture(pixels, lane.result.returns, "estimate")
            if self.keep_frames:
                if lane.best is not None and lane._best_estimate is not None:
                    lane.frames.pin(lane.best[1], picture_of(lane._best_estimate))
                for watcher in lane._watchers:
                    if watcher.candidate is not None and watcher.estimate is not None:
                        lane.frames.pin(watcher.candidate, picture_of(watcher.estimate))
                lane.frames.pin(step.iteration, pixels)


def show(lane: Lane) -> None:
    """The lane's tile: the last estimate, or the shots as they are drawn while preparing."""
    step = lane._last
    if step is None or lane.done:
        return
    if step.stage == "prepare":
        if step.output is not None:
            lane.picture = Picture(picture_of(sheet_of(step.output)), step.iteration, "shots")
            lane.picture_wanted = False
    elif step.estimate is not None:
        lane.picture = Picture(picture_of(step.estimate), step.iteration, "estimate")
        lane.spread = spread_of(step.estimate)
        lane.picture_wanted = False


def middle(values: torch.Tensor) -> torch.Tensor:
    """The median over the seeds: of an even number the mean of the middle two, where torch takes the lower one."""
    ordered = values.sort().values
    return (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2
