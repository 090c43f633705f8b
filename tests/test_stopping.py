"""Stopping rules: what they compute, what they pick on a run with a known best iterate, and that none sees the truth."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from shared import experiment_of

from netprior_core.errors import InvalidSettings
from netprior_core.experiment import parse, race_of
from netprior_core.noise import GaussianNoise, SaltAndPepperNoise
from netprior_core.operators import Operator
from netprior_core.problem import Problem, Step
from netprior_core.race import summary
from netprior_core.stopping import Look, StoppingRule
from netprior_core.stopping.measured import Discrepancy, HeldOut, Sure
from netprior_core.stopping.variance import PIXELS, MovingVariance, WindowedVariance

KINDS = [cls.model_fields["kind"].default for cls in StoppingRule.registry]


def _problem(kind: str = "denoising", sigma: float = 25, side: int = 24) -> tuple[Problem, torch.Tensor]:
    truth = torch.linspace(0.1, 0.9, side * side).view(1, 1, side, side)
    operator, noise = Operator.registry[kind](), GaussianNoise(sigma=sigma)
    model = operator.build((1, side, side), seed=4)
    y = model.measure(truth, noise, seed=1)
    return Problem(y, model, operator, noise, model.noise_std(noise, y), (1, side, side)), truth


def _fit(problem: Problem, truth: torch.Tensor, steps: int = 300, best: int = 120, seed: int = 0) -> Iterator[Step]:
    """A mock of DIP's course in denoising: from grey to the truth at iteration ``best``, then on to the noisy measurement."""
    y = problem.model.initial(problem.measurement)
    wobble = torch.Generator().manual_seed(seed)
    unseen = y == 0  # held out: there a network draws noise of its own
    y[unseen] = (truth + 0.1 * torch.randn(truth.shape, generator=wobble))[unseen]
    for i in range(1, steps + 1):
        if i <= best:
            image = truth + (0.5 - truth) * (1 - i / best) ** 2
        else:
            image = truth + (y - truth) * min(1.0, (i - best) / (steps - best))
        image = image + 1e-4 * torch.randn(image.shape, generator=wobble)
        yield Step(i, steps, "solve", image, image)


def _watched(
    rule: StoppingRule, problem: Problem, truth: torch.Tensor, steps: int = 300, best: int = 120
) -> tuple[int, int | None]:
    watcher = rule.watch(problem, 0)
    given = rule.prepare(problem, 0)
    assert given.model.measurement_shape == tuple(given.measurement.shape[1:])
    twin_problem = rule.twin(problem, 0)
    twins = _fit(twin_problem, truth, steps, best) if twin_problem else None
    for step in _fit(given, truth, steps, best):
        watcher.see(Look(step, problem, next(twins) if twins else None))
        if step.iteration % 10 == 0:
            watcher.read(step.iteration)
    assert watcher.candidate is not None
    assert watcher.estimate is not None
    assert watcher.estimate.shape == truth.shape
    return watcher.candidate, watcher.fired


@pytest.mark.parametrize("rule", [HeldOut(share=25, patience=100), Sure(patience=100)], ids=lambda r: r.kind)
def test_rules_of_the_measurement_find_the_best_iterate(rule: StoppingRule) -> None:
    candidate, fired = _watched(rule, *_problem())
    assert abs(candidate - 120) <= 20
    assert fired is not None
    assert fired - candidate >= 100


def test_discrepancy_stops_when_the_residual_reaches_the_noise() -> None:
    problem, truth = _problem()
    candidate, fired = _watched(Discrepancy(), problem, truth)
    assert candidate == fired
    level = problem.noise_std
    assert level is not None
    residuals = {s.iteration: float((s.estimate - problem.measurement).square().mean().sqrt()) for s in _fit(problem, truth)}  # type: ignore[operator]
    assert residuals[fired] <= level < residuals[fired - 10]  # type: ignore[index,operator]


def test_discrepancy_needs_a_noise_level() -> None:
    problem, _ = _problem(sigma=0)
    assert "no noise" in (Discrepancy().refuses(problem) or "")
    assert "not known" in (Discrepancy().refuses(replace(problem, noise_std=None)) or "")
    assert "Gaussian" in (Sure().refuses(replace(problem, noise=SaltAndPepperNoise(), noise_std=0.1)) or "")
    for noise in (GaussianNoise(clip=True), GaussianNoise(grey=True)):
        assert "white" in (Sure().refuses(replace(problem, noise=noise, noise_std=0.1)) or "")


def test_windowed_variance_is_the_variance_of_the_window() -> None:
    problem, _ = _problem()
    generator = torch.Generator().manual_seed(0)
    outputs = 0.5 + 0.1 * torch.randn((40, 1, 24, 24), generator=generator) * torch.linspace(2, 0.5, 40).view(-1, 1, 1, 1)
    watcher = WindowedVariance(window=7).watch(problem, 0)
    scores: list[float] = []
    watcher.offer = lambda score, look: scores.append(float(score))  # type: ignore[attr-defined,method-assign]
    for i, output in enumerate(outputs):
        watcher.see(Look(Step(i + 1, 40, "solve", output[None], output[None]), problem))
    exact = [float(outputs[i - 6 : i + 1].var(dim=0, correction=0).mean()) for i in range(6, 40)]
    assert scores == pytest.approx(exact, rel=1e-4)


def test_windowed_variance_stays_exact_over_thousands_of_steps() -> None:
    """A rolling sum of squares in single precision would drown the small variances of a converged run."""
    problem, _ = _problem()
    generator = torch.Generator().manual_seed(0)
    watcher = WindowedVariance(window=50).watch(problem, 0)
    score: list[torch.Tensor] = []
    watcher.offer = lambda value, look: score.append(value)  # type: ignore[attr-defined,method-assign]
    for i in range(3000):
        output = 0.7 + 1e-3 * torch.randn((1, 1, 24, 24), generator=generator)
        watcher.see(Look(Step(i + 1, 3000, "solve", output, output), problem))
    assert [float(s) for s in score[-200:]] == pytest.approx([1e-6] * 200, rel=0.1)


def test_moving_variance_follows_its_definition() -> None:
    problem, _ = _problem()
    outputs = torch.rand((30, 1, 24, 24), generator=torch.Generator().manual_seed(0))
    watcher = MovingVariance(alpha=0.2, start=5).watch(problem, 0)
    scores: list[float] = []
    watcher.offer = lambda score, look: scores.append(float(score))  # type: ignore[attr-defined,method-assign]
    mean, variance, exact = outputs[0].clone(), 0.0, []
    for i, output in enumerate(outputs):
        watcher.see(Look(Step(i + 1, 30, "solve", output[None], output[None]), problem))
        if i:
            variance = 0.8 * (variance + 0.2 * float((output - mean).square().mean()))
            mean = 0.8 * mean + 0.2 * output
        if i + 1 > 5:
            exact.append(variance)
    assert scores == pytest.approx(exact, rel=1e-4)


def test_variance_rules_find_the_calm_before_the_noise() -> None:
    problem, truth = _problem()
    rules = (WindowedVariance(window=15, patience=60), MovingVariance(patience=60, start=20))
    for rule in rules:
        candidate, fired = _watched(rule, problem, truth)
        assert 90 <= candidate <= 150, rule.kind
        assert fired is not None


def test_large_pictures_are_sampled() -> None:
    problem, _ = _problem(side=256)
    watcher = WindowedVariance(window=3).watch(problem, 0)
    image = torch.zeros(1, 1, 256, 256)
    watcher.see(Look(Step(1, 1, "solve", image, image), problem))
    assert watcher._ring.shape == (3, 1, PIXELS)  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", ["denoising", "inpainting", "compressed-sensing", "super-resolution"])
def test_held_out_measurements_are_kept_from_the_method(kind: str) -> None:
    problem, truth = _problem(kind)
    rule = HeldOut(share=10)
    given = rule.prepare(problem, 0)
    assert given.model.m == problem.model.m - round(0.1 * problem.model.m)
    full = problem.measurement.flatten(1)
    kept = given.model.kept  # type: ignore[attr-defined]
    assert torch.equal(given.measurement, full[:, kept])
    model = given.model
    x, y = torch.rand(1, 1, 24, 24), torch.rand(1, model.m)
    assert float((model.forward(x) * y).sum()) == pytest.approx(float((x * model.adjoint(y)).sum()), rel=1e-4)  # type: ignore[attr-defined]
    assert model.initial(given.measurement).shape == truth.shape
    assert model.preview(given.measurement).shape[0] == 1
    out = rule.watch(problem, 0).out  # type: ignore[attr-defined]
    assert sorted([*kept.tolist(), *out.tolist()]) == list(range(problem.model.m))


@pytest.mark.parametrize("kind", KINDS)
def test_every_rule_watches_a_race_and_may_end_it(kind: str) -> None:
    quick = {"patience": 20, "window": 5, "start": 0, "iterations": 30, "tau": 3.0}
    known = {k: v for k, v in quick.items() if k in StoppingRule.registry[kind].model_fields}
    rule = {"kind": kind, **known}
    watched = experiment_of(stopping=[rule], methods=[{"kind": "dip", "iterations": 120, "channels": 8, "input_channels": 4}])
    assert parse(watched.to_json()) == watched
    race = race_of(watched, {}).run()
    lane = race.lanes[0]
    assert lane.state == "finished"
    assert lane.iteration == 120
    stop = lane.stops[kind]
    assert 1 <= stop.iteration <= 120
    assert stop.psnr is not None
    row = summary(race)[0]["stops"][0]
    assert row["rule"] == StoppingRule.registry[kind].title
    if stop.fired is None:
        return
    ended = race_of(watched.model_copy(update={"stop_by": kind}), {}).run().lanes[0]
    assert ended.state == "finished"
    assert ended.iteration == stop.fired
    assert ended.result is not None
    assert ended.result.returns == stop.iteration
    assert ended.result.psnr == pytest.approx(stop.psnr)
    for iteration in (stop.iteration, stop.fired):  # each is the picture that the curve has the score of
        kept = ended.frames.at(iteration)
        assert kept is not None
        assert kept[0] == iteration
    assert ended.curve.residual == sorted(ended.curve.residual)
    assert "Stopped by" in ended.message


def test_rules_that_only_watch_change_nothing() -> None:
    def curve(**changes: object) -> list[float]:
        return race_of(experiment_of(**changes), {}).run().lanes[0].curve.objective

    rules = [{"kind": k} for k in KINDS if not StoppingRule.registry[k].changes_run]
    assert curve() == curve(stopping=rules)


def test_a_rule_that_cannot_watch_says_why_and_the_others_go_on() -> None:
    experiment = experiment_of(
        noise={"kind": "gaussian", "sigma": 0}, stopping=[{"kind": "discrepancy"}, {"kind": "fixed", "iterations": 5}]
    )
    race = race_of(experiment, {}).run()
    assert "no noise" in race.rule_notes["discrepancy"]
    assert race.lanes[0].stops["fixed"].iteration == 5


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"stop_by": "wmv"}, "one of those that watch"),
        ({"stopping": [{"kind": "wmv"}, {"kind": "wmv"}]}, "twice"),
        ({"stopping": [{"kind": "held-out"}, {"kind": "sure"}]}, "cannot watch the same run"),
        ({"stopping": [{"kind": "intuition"}]}, "stopping rule"),
        ({"seeds": 0}, "seeds"),
        ({"seeds": 999}, "seeds"),
    ],
)
def test_rules_that_do_not_go_together_are_refused(changes: dict[str, object], words: str) -> None:
    with pytest.raises(InvalidSettings, match=words):
        experiment_of(**changes)


def test_several_seeds_give_a_median_a_range_and_a_map() -> None:
    lane = race_of(experiment_of(seeds=3), {}).run().lanes[0]
    curve = lane.curve
    assert len(curve.spread) == len(curve.psnr)
    assert all(low <= middle <= high for (low, high), middle in zip(curve.spread, curve.psnr, strict=True))
    assert any(high - low > 0.01 for low, high in curve.spread)
    assert lane.spread is not None
    assert lane.spread.shape == (32, 32)
    assert lane.spread.max() > 0
    single = race_of(experiment_of(), {}).run().lanes[0]
    assert single.curve.spread == []
    assert single.spread is None
    assert not math.isnan(single.curve.psnr[-1])


@pytest.mark.parametrize("kind", ["tv", "bm3d", "denoiser", "noise-impedance", "pseudo-inverse", "lasso", "pnp-admm"])
def test_held_out_pixels_are_taken_or_refused_in_words(kind: str) -> None:
    lane = race_of(experiment_of(methods=[{"kind": kind}], stopping=[{"kind": "held-out"}]), {}).run().lanes[0]
    assert lane.state in ("finished", "refused"), lane.message
    assert "Something broke" not in lane.message


def test_sizes_of_something_linear_stay_such_without_the_held_out_ones() -> None:
    settings = {"methods": [{"kind": "pnp-admm", "iterations": 3}], "operator": {"kind": "phase-retrieval", "ratio": 0.5}}
    lane = race_of(experiment_of(stopping=[{"kind": "held-out"}], **settings), {}).run().lanes[0]
    assert (lane.state, lane.message) == ("finished", "")
    problem, truth = _problem("phase-retrieval")
    model = HeldOut(share=10).prepare(problem, 0).model
    seen = model.linear_forward(truth)  # type: ignore[attr-defined]
    torch.testing.assert_close(seen.abs(), model.forward(truth), rtol=1e-4, atol=1e-5)
    x = torch.rand(1, 1, 24, 24)
    assert float(model.linear_forward(x).norm()) <= model.linear_norm() * float(x.norm()) * 1.01  # type: ignore[attr-defined]
