"""Educated DIP: where it starts, what it returns, which prior it takes, and how it says no."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from netprior_core import priors
from netprior_core.errors import MissingPrior, Unsolvable
from netprior_core.methods._common import total_variation
from netprior_core.methods.edip import EducatedDIP, key_of_task, task_of
from netprior_core.networks.edip import EducatedUNet, by_channel
from netprior_core.networks.seeded import seeded
from netprior_core.operators import Operator
from netprior_core.problem import Problem

Make = Callable[..., tuple[Problem, torch.Tensor]]
SMALL = {"width": 8, "scales": 3, "skips": [0, 4, 4]}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of checkpoints with two tiny priors, other for each task."""
    monkeypatch.setattr(priors, "CHECKPOINTS", tmp_path)
    for seed, task in enumerate(("tomography", "patches")):
        tensors = {f"network.{n}": v for n, v in _network(seed).state_dict().items()}
        priors.save(tmp_path / f"edip-{task}.safetensors", tensors, {"key": key_of_task(task), "settings": SMALL})
    return tmp_path


def _network(seed: int) -> EducatedUNet:
    network = seeded(lambda: EducatedUNet(**SMALL), seed)  # type: ignore[arg-type]
    network.load_state_dict({n: v.half().float() for n, v in network.state_dict().items()})  # as the file keeps them
    return network


def _steps(method: EducatedDIP, problem: Problem, *seeds: int) -> list[Any]:
    return list(method.solve(problem, seeds=seeds or [0]))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("kind", "seed"), [("tomography", 0), ("inpainting", 1), ("deblurring", 1)])
def test_iteration_0_is_the_educated_answer_of_the_operators_prior(
    folder: Path, make_problem: Make, kind: str, seed: int, channels: int
) -> None:
    problem, _ = make_problem(kind, channels=channels)
    steps = _steps(EducatedDIP(iterations=0, precision="float32"), problem)
    first = problem.model.initial(problem.measurement)
    expected = _network(seed)(by_channel(first)).reshape(first.shape)
    assert [(s.stage, s.iteration) for s in steps] == [("solve", 0), ("result", 0)]
    torch.testing.assert_close(steps[0].output, expected)
    assert torch.equal(steps[1].estimate, steps[0].output)


def test_the_objective_is_misfit_plus_variation_summed(folder: Path, make_problem: Make) -> None:
    problem, _ = make_problem("denoising")
    step = _steps(EducatedDIP(iterations=0, tv_weight=0.3), problem)[0]
    misfit = (problem.model.forward(step.output) - problem.measurement).square().sum()
    torch.testing.assert_close(step.objective[0], misfit + 0.3 * total_variation(step.output))


def test_the_control_is_ours_but_for_its_start() -> None:
    control = EducatedDIP.preset("untrained, as a control")
    assert control == EducatedDIP.preset("ours", start="random")
    assert control.suited(Operator.registry["tomography"]()) == control


def test_the_iterate_of_least_objective_is_returned(folder: Path, make_problem: Make) -> None:
    problem, _ = make_problem("inpainting")
    method = EducatedDIP(iterations=40, learning_rate=0.3, clip=1e6)  # too fast: the objective goes up and down
    stream = method.solve(problem, seeds=[0])
    seen = [(float(step.objective), step.output.clone(), step.estimate.clone(), step) for step in stream]
    losses = [loss for loss, *_, step in seen if step.stage == "solve"]
    best = losses.index(min(losses))
    assert best < 40, "the run was to get worse in the end"
    *_, result = seen[-1]
    assert result.info["returns"] == best
    assert torch.equal(result.estimate, seen[best][1])
    for i, (_, _, estimate, _) in enumerate(seen[:-1]):
        assert torch.equal(estimate, seen[losses.index(min(losses[: i + 1]))][1])


def test_a_step_is_as_long_as_the_clipped_gradient_allows(folder: Path, make_problem: Make) -> None:
    problem, _ = make_problem("denoising")
    free, clipped = (_steps(EducatedDIP(iterations=3, clip=clip), problem)[-2].output for clip in (1e6, 1e-6))
    assert not torch.equal(free, clipped)


def test_random_start_needs_no_file_and_depends_on_the_seed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_problem: Make
) -> None:
    monkeypatch.setattr(priors, "CHECKPOINTS", tmp_path / "nowhere")
    problem, _ = make_problem("tomography", channels=1)
    a, b = (_steps(EducatedDIP(start="random", iterations=1), problem, seed)[0].output for seed in (0, 1))
    assert not torch.equal(a, b)


def test_a_missing_file_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_problem: Make) -> None:
    monkeypatch.setattr(priors, "CHECKPOINTS", tmp_path)
    problem, _ = make_problem("tomography", channels=1)
    reason = EducatedDIP().accepts(problem)
    assert reason is not None
    assert "edip-tomography.safetensors is missing" in reason
    assert "train edip --task tomography" in reason
    with pytest.raises(Unsolvable, match="missing"):
        _steps(EducatedDIP(), problem)


def test_a_file_that_does_not_fit_is_a_sentence(folder: Path, make_problem: Make) -> None:
    problem, _ = make_problem("denoising")
    tensors = {f"network.{n}": v for n, v in _network(0).state_dict().items()}
    # A file whose card makes no sense counts as absent, and the method refuses.
    for settings, error in (({**SMALL, "width": 16}, MissingPrior), ({**SMALL, "depth": 3}, MissingPrior), (None, Unsolvable)):
        card = {"key": key_of_task("patches"), "settings": settings}
        priors.save(folder / "edip-patches.safetensors", tensors, card)
        with pytest.raises(error):
            _steps(EducatedDIP(iterations=1), problem)


def test_tiny_pictures_are_refused_in_a_sentence(folder: Path, make_problem: Make) -> None:
    problem, _ = make_problem("denoising", side=6)
    assert "at least 8×8" in (EducatedDIP().accepts(problem) or "")


def test_every_operator_has_a_prior_and_settings() -> None:
    for cls in Operator.registry:
        operator = cls()
        assert task_of(operator) == ("tomography" if operator.kind == "tomography" else "patches")
        suited = EducatedDIP(start="random").suited(operator)
        assert suited.start == "random"
        expected = {"tomography": 1e-3, "deblurring": 1e-3, "inpainting": 0.02, "denoising": 0.06}
        assert suited.tv_weight == expected.get(operator.kind, suited.tv_weight)


@pytest.mark.skipif(key_of_task("tomography") not in priors.shipped(), reason="the prior is not shipped here")
def test_the_shipped_prior_beats_filtered_back_projection_before_any_step() -> None:
    import numpy as np

    from netprior_core.metrics import psnr
    from netprior_core.noise import RelativeNoise
    from netprior_core.phantoms import ellipse_phantom

    truth = torch.from_numpy(ellipse_phantom(64, np.random.default_rng(123_456_789)))[None, None]
    operator, noise = Operator.registry["tomography"](angles=30), RelativeNoise(level=5.0)
    model = operator.build((1, 64, 64))
    y = model.measure(truth, noise, seed=3)
    step = _steps(EducatedDIP(iterations=0), Problem(y, model, operator, noise, model.noise_std(noise, y), (1, 64, 64)))[0]
    assert psnr(step.output, truth).item() > psnr(model.initial(y), truth).item() + 2
