"""What is particular to methods that search a trained generator's range."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from netprior_core import generators, priors, representation
from netprior_core.compute import choose
from netprior_core.errors import InvalidSettings, MissingPrior
from netprior_core.isometry import isometry
from netprior_core.methods._generative import misfits, scale_on
from netprior_core.methods.csgm import CSGM
from netprior_core.methods.iagan import IAGAN
from netprior_core.methods.npgd import NPGD
from netprior_core.methods.pgdgan import PGDGAN
from netprior_core.metrics import psnr
from netprior_core.operators import Operator

CPU = choose("float32", "cpu")
SHAPE = (3, 32, 32)
METHODS = {
    "csgm": CSGM(iterations=60, precision="float32"),
    "pgdgan": PGDGAN(outer=15, inner=20, precision="float32"),
    "npgd": NPGD(iterations=20, precision="float32"),
    "iagan": IAGAN(latent_iterations=60, joint_iterations=40, precision="float32"),
}


@pytest.fixture(autouse=True)
def _nothing_shipped(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(priors, "CHECKPOINTS", tmp_path / "checkpoints")


def _last(method: Any, problem: Any, *seeds: int) -> Any:
    *_, last = method.solve(problem, seeds=seeds or [0])
    return last


@pytest.fixture
def drawn(make_problem: Any, generator: None) -> Any:
    """A noiseless measurement of a picture that the generator can draw."""
    problem, _ = make_problem("compressed-sensing", count=150, sigma=0.0)
    truth = generators.samples(generators.generator_for(SHAPE), CPU, 1, seed=77)
    return replace(problem, measurement=problem.model.forward(truth)), truth


@pytest.mark.parametrize("kind", METHODS)
def test_pictures_in_the_range_are_found(drawn: Any, kind: str) -> None:
    problem, _ = drawn
    random = generators.samples(generators.generator_for(SHAPE), CPU, 8, seed=5)
    gains = []
    for truth in generators.samples(generators.generator_for(SHAPE), CPU, 4, seed=77).split(1):
        found = _last(METHODS[kind], replace(problem, measurement=problem.model.forward(truth))).estimate
        gains.append(psnr(found, truth).item() - psnr(random, truth).max().item())
    assert sum(gains) / len(gains) > 2
    assert min(gains) > (0 if kind == "npgd" else 2)  # what a projector taught for seconds makes of a single picture varies


@pytest.mark.parametrize("kind", METHODS)
def test_another_size_and_no_generator_are_said_in_words(make_problem: Any, kind: str) -> None:
    problem, _ = make_problem("compressed-sensing", ratio=0.2)
    assert "no trained generator here" in (METHODS[kind].accepts(problem) or "")
    card = {"network": "DCGAN", "title": "Tiny", "shape": [1, 28, 28], "key": "k"}
    priors.save(priors.CHECKPOINTS / "gan-tiny.safetensors", {"network.body.0.weight": torch.zeros(2, 2, 4, 4)}, card)
    words = METHODS[kind].accepts(problem) or ""
    assert words.startswith(METHODS[kind].title)
    assert "3×32×32" in words
    assert "1×28×28 (Tiny)" in words


@pytest.mark.usefixtures("generator")
def test_a_low_shot_prior_may_be_the_generator(make_problem: Any) -> None:
    problem, _ = make_problem("compressed-sensing", ratio=0.2)
    name = generators.generator_key(SHAPE)  # the cache's file goes by its key
    method = METHODS["csgm"].model_copy(update={"generator": name})
    assert method.accepts(problem) is None
    drawing = generators.generator_for(SHAPE, name)
    assert drawing.factor is not None
    z = drawing.sample(4000, torch.Generator().manual_seed(0))
    latents = priors.named(name).tensors["latents"]
    torch.testing.assert_close(z.mean(0), latents.mean(0), atol=0.1, rtol=0)
    torch.testing.assert_close(z.T.cov(), latents.T.cov(), atol=0.2, rtol=0.1)
    grey, _ = make_problem("compressed-sensing", ratio=0.2, channels=1)
    assert "3×32×32" in (method.accepts(grey) or "")
    assert "not here" in (METHODS["csgm"].model_copy(update={"generator": "nowhere"}).accepts(problem) or "")
    assert "lower-case" in (METHODS["csgm"].model_copy(update={"generator": "../x"}).accepts(problem) or "")


@pytest.mark.usefixtures("generator")
def test_the_prior_of_a_single_example_can_be_searched_too(make_problem: Any) -> None:
    problem, _ = make_problem("compressed-sensing", ratio=0.2)
    key = generators.generator_key(SHAPE)
    prior = priors.named(key)
    priors.remember(key, {**prior.tensors, "latents": prior.tensors["latents"][:1]}, prior.card)
    objectives = [float(s.objective) for s in METHODS["csgm"].solve(problem, seeds=[0]) if s.stage == "solve"]
    assert objectives[-1] < 0.9 * objectives[0]


def test_a_file_that_is_no_generator_is_refused() -> None:
    with pytest.raises(MissingPrior, match="no generator"):
        generators.drawing_of(priors.Prior({"a": torch.zeros(1)}, {"network": "U-Net", "shape": [1, 8, 8]}))
    weights = {"network.body.0.weight": torch.zeros(8, 4, 4, 4)}
    broken = generators.drawing_of(priors.Prior(weights, {"network": "DCGAN", "shape": [1, 32, 32], "settings": {"channels": 8}}))
    with pytest.raises(MissingPrior, match="does not fit"):
        broken.network(CPU)


def test_restarts_are_independent_and_the_best_by_measurement_error_is_returned(drawn: Any) -> None:
    problem, _ = drawn
    many = _last(METHODS["csgm"].model_copy(update={"restarts": 4}), problem)
    alone = _last(METHODS["csgm"].model_copy(update={"restarts": 1}), problem)
    assert float(many.objective) <= float(alone.objective) * 1.001
    assert float(misfits(problem, many.estimate)) == pytest.approx(float(many.objective), rel=1e-3)
    drawing = generators.generator_for(SHAPE)
    first, both = (drawing.sample(n, torch.Generator().manual_seed(3)) for n in (1, 2))
    assert torch.equal(first, both[:1])  # the first restart of many is the only one of one


def test_the_latents_prior_pulls_towards_the_mean(drawn: Any) -> None:
    problem, _ = drawn
    drawing = generators.generator_for(SHAPE)
    middle = (drawing.network(CPU)(drawing.mean[None]) + 1) / 2
    loose, tight = (
        _last(METHODS["csgm"].model_copy(update={"prior_weight": weight, "restarts": 1}), problem).estimate
        for weight in (0.0, 100.0)
    )
    assert psnr(tight, middle).item() > psnr(loose, middle).item() + 3


def test_iagan_leaves_the_range_and_back_projection_fits_exactly(make_problem: Any, generator: None) -> None:
    problem, truth = make_problem("compressed-sensing", count=400, sigma=0.0)
    steps = [(s.phase, float(s.objective)) for s in METHODS["iagan"].solve(problem, seeds=[0]) if s.stage == "solve"]
    latent = [value for phase, value in steps if phase == "latent"]
    assert [phase for phase, _ in steps] == ["latent"] * 61 + ["joint"] * 40
    assert steps[-1][1] < 0.7 * latent[-1]
    *_, before, result = METHODS["iagan"].solve(problem, seeds=[0])
    assert not torch.equal(result.output, before.output)  # the last update is in it
    plain = _last(METHODS["iagan"], problem)
    back = _last(METHODS["iagan"].model_copy(update={"back_project": True}), problem)
    torch.testing.assert_close(problem.model.forward(back.estimate), problem.measurement, atol=1e-3, rtol=0)
    assert torch.equal(back.output, plain.output)
    assert psnr(back.estimate, truth).item() > psnr(plain.estimate, truth).item()
    blurred, _ = make_problem("tomography")
    if not blurred.model.has_pinv:
        assert "pseudo-inverse" in (METHODS["iagan"].model_copy(update={"back_project": True}).accepts(blurred) or "")


@pytest.mark.usefixtures("generator")
def test_gradient_steps_need_a_linear_measurement_and_know_its_scale(make_problem: Any) -> None:
    nonlinear, _ = make_problem("phase-retrieval", ratio=0.5)
    for kind in ("pgdgan", "npgd"):
        assert "linear" in (METHODS[kind].accepts(nonlinear) or "")
    assert METHODS["csgm"].accepts(nonlinear) is None
    drawing = generators.generator_for(SHAPE)
    one, other = (make_problem("compressed-sensing", count=200, normalisation=n, sigma=0.0)[0] for n in ("1/m", "1"))
    assert scale_on(one, drawing, CPU) == pytest.approx(1, rel=0.25)
    assert scale_on(other, drawing, CPU) == pytest.approx(scale_on(one, drawing, CPU) * 200**0.5, rel=1e-3)
    torch.testing.assert_close(_last(METHODS["npgd"], one).estimate, _last(METHODS["npgd"], other).estimate, atol=1e-3, rtol=0)


def test_polishing_goes_on_from_the_projections_to_a_smaller_misfit(drawn: Any) -> None:
    problem, truth = drawn
    plain = METHODS["npgd"]
    steps = list(plain.model_copy(update={"polish": 40, "prior_weight": 0.01}).solve(problem, seeds=[0]))
    solved = [step for step in steps if step.stage == "solve"]
    assert [step.iteration for step in solved] == list(range(plain.iterations + 41))
    assert {step.total for step in solved} == {plain.iterations + 40}
    before = _last(plain, problem)
    assert steps[-1].objective.item() < 0.7 * before.objective.item()
    assert psnr(steps[-1].estimate, truth).item() > psnr(before.estimate, truth).item() + 1
    measured = 4 * (problem.model.forward(steps[-1].estimate) - problem.measurement).square().sum().item()
    assert steps[-1].objective.item() == pytest.approx(measured, rel=1e-3)  # its prior is no part of it


def test_a_projector_belongs_to_one_generator(make_problem: Any, generator: None) -> None:
    problem, _ = make_problem("compressed-sensing", ratio=0.2)
    assert METHODS["npgd"].accepts(problem) is None
    prior = priors.find(generators.generator_key(SHAPE))
    assert prior is not None
    changed = {**prior.tensors, "network.head.weight": prior.tensors["network.head.weight"] * 1.1}
    priors.remember(generators.generator_key(SHAPE), changed, prior.card)
    assert "no projector" in (METHODS["npgd"].accepts(problem) or "")
    assert METHODS["pgdgan"].accepts(problem) is None


def test_rows_designed_for_the_generator_are_nearer_to_an_isometry_on_it(generator: None) -> None:
    images = generators.samples(generators.generator_for(SHAPE), CPU, 40, seed=4)
    designed = Operator.registry["designed-sensing"](count=8, source="generator", normalisation="isometry")
    random = Operator.registry["compressed-sensing"](count=8)
    spreads = [isometry(operator.build(SHAPE, seed=1), images).spread for operator in (designed, random)]
    assert spreads[0] < 0.7 * spreads[1]
    assert "rows from the generator's pictures" in designed.build(SHAPE, seed=1).describe()
    with pytest.raises(InvalidSettings, match="no trained generator"):
        designed.build((3, 24, 24))


def test_the_best_a_prior_could_do_is_all_of_its_own_pictures_and_less_of_others(drawn: Any, make_problem: Any) -> None:
    drawing = generators.generator_for(SHAPE)
    _, inside = drawn
    found = [value for *_, value in representation.best_possible(drawing, CPU, inside, iterations=200)]
    assert found == sorted(found)
    noise = torch.rand((1, *SHAPE), generator=torch.Generator().manual_seed(0))
    *_, (_, image, value) = representation.best_possible(drawing, CPU, noise, iterations=60)
    assert found[-1] > 30 > value
    assert value == pytest.approx(psnr(image, noise).item(), abs=1e-4)


@pytest.mark.usefixtures("generator")
def test_a_walk_begins_and_ends_at_its_pictures() -> None:
    drawing = generators.generator_for(SHAPE)
    way = generators.between(drawing, CPU, 5, 6, 4)
    torch.testing.assert_close(way[:1], generators.samples(drawing, CPU, 1, seed=5), atol=1e-5, rtol=0)
    torch.testing.assert_close(way[-1:], generators.samples(drawing, CPU, 1, seed=6), atol=1e-5, rtol=0)
    assert (way[1] - way[0]).abs().max() > 0.01
    still = generators.between(drawing, CPU, 5, 5, 3)
    assert torch.equal(still[0], still[2])
