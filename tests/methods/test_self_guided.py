"""What is particular to Self-Guided DIP."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from netprior_core.methods import self_guided
from netprior_core.methods.self_guided import SelfGuidedDIP
from netprior_core.networks.skip import Skip

TINY = {"channels": 8, "scales": 2, "averaging": 0.0}


class _Recorded(Skip):
    """Keeps the inputs it was given."""

    inputs: list[torch.Tensor]

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        self.inputs.append(z.detach().clone())
        return super().forward(z)


@pytest.fixture
def inputs(monkeypatch: pytest.MonkeyPatch) -> list[torch.Tensor]:
    _Recorded.inputs = []
    monkeypatch.setattr(self_guided, "Skip", _Recorded)
    return _Recorded.inputs


def _steps(problem: Any, **settings: Any) -> list[tuple[torch.Tensor, float, torch.Tensor]]:
    method = SelfGuidedDIP(**{**TINY, "precision": "float32", **settings})
    return [(s.output.clone(), float(s.objective), s.estimate.clone()) for s in method.solve(problem, seeds=[3])]


def test_the_input_starts_as_the_first_picture_and_is_learned(make_problem: Any, inputs: list[torch.Tensor]) -> None:
    problem, _ = make_problem("compressed-sensing", ratio=0.2, side=16)
    _steps(problem, iterations=4, noise=0.0, draws=1, input_learning_rate=0.05)
    start = problem.model.initial(problem.measurement)
    torch.testing.assert_close(inputs[0], start)
    assert (inputs[1] - start).abs().max().item() == pytest.approx(0.05, rel=1e-2)  # the first step of Adam has that size


def test_a_fixed_input_stays(make_problem: Any, inputs: list[torch.Tensor]) -> None:
    problem, _ = make_problem("denoising", side=16)
    _steps(problem, iterations=3, noise=0.0, draws=1, input_learning_rate=0.0)
    assert torch.equal(inputs[0], inputs[2])


def test_draws_are_one_batch_with_fresh_noise_of_the_stated_size(make_problem: Any, inputs: list[torch.Tensor]) -> None:
    problem, _ = make_problem("denoising", side=32)
    _steps(problem, iterations=2, noise=0.3, draws=8, input_learning_rate=0.0)
    z = problem.measurement
    assert inputs[0].shape == (8, 3, 32, 32)
    assert (inputs[0] - z).std().item() == pytest.approx(0.3 * z.abs().max().item(), rel=0.05)
    assert not torch.equal(inputs[0], inputs[1])
    assert not torch.equal(inputs[0][0], inputs[0][1])


def test_the_loss_is_misfit_and_guidance_of_the_mean_of_the_draws(make_problem: Any) -> None:
    problem, _ = make_problem("compressed-sensing", ratio=0.2, side=16)
    output, loss, estimate = _steps(problem, iterations=1, guidance=3.0)[0]
    start = problem.model.initial(problem.measurement)
    whole = (problem.model.forward(output) - problem.measurement).square().sum() + 3 * (output - start).square().sum()
    assert loss * problem.model.m == pytest.approx(float(whole), rel=1e-4)
    assert output.shape == (1, 3, 16, 16)
    assert torch.equal(output, estimate)


def test_the_estimate_is_the_running_average(make_problem: Any) -> None:
    problem, _ = make_problem("denoising", side=16)
    *steps, _ = _steps(problem, iterations=5, averaging=0.8)
    expected = steps[0][0]
    for output, _, estimate in steps[1:]:
        expected = 0.8 * expected + 0.2 * output
        torch.testing.assert_close(estimate, expected)


def test_a_random_start_depends_on_the_seed_alone(make_problem: Any, inputs: list[torch.Tensor]) -> None:
    problem, _ = make_problem("denoising", side=16)
    _steps(problem, iterations=1, noise=0.0, draws=1, start="random")
    assert inputs[0].min() >= 0
    assert inputs[0].max() <= 1
    assert (inputs[0] - problem.measurement).abs().mean() > 0.1
    _steps(problem, iterations=1, noise=0.0, draws=1, start="random")
    assert torch.equal(inputs[0], inputs[1])
