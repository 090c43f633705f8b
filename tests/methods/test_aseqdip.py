"""What is particular to aSeqDIP."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from netprior_core.methods import aseqdip
from netprior_core.methods.aseqdip import ASeqDIP
from netprior_core.networks.skip import Skip

TINY = {"channels": 8, "scales": 2, "precision": "float32"}


class _Recorded(Skip):
    """Keeps the inputs it was given."""

    inputs: list[torch.Tensor]

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        self.inputs.append(z.detach().clone())
        return super().forward(z)


@pytest.fixture
def inputs(monkeypatch: pytest.MonkeyPatch) -> list[torch.Tensor]:
    _Recorded.inputs = []
    monkeypatch.setattr(aseqdip, "Skip", _Recorded)
    return _Recorded.inputs


def _steps(problem: Any, **settings: Any) -> list[tuple[torch.Tensor, float, int, int]]:
    method = ASeqDIP(**{**TINY, **settings})
    return [(s.output.clone(), float(s.objective), s.iteration, s.total) for s in method.solve(problem, seeds=[3])]


def test_the_input_is_replaced_by_the_output_every_few_steps(make_problem: Any, inputs: list[torch.Tensor]) -> None:
    problem, _ = make_problem("compressed-sensing", ratio=0.2, side=16)
    *steps, result = _steps(problem, iterations=3, inner=2)
    assert [iteration for _, _, iteration, _ in steps] == [1, 2, 3, 4, 5, 6]
    assert result[2:] == (6, 6)
    torch.testing.assert_close(inputs[0], problem.model.initial(problem.measurement))
    assert torch.equal(inputs[1], inputs[0])
    for stage in (1, 2):
        assert torch.equal(inputs[2 * stage], steps[2 * stage - 1][0])
        assert torch.equal(inputs[2 * stage + 1], inputs[2 * stage])


def test_the_loss_is_misfit_and_autoencoding(make_problem: Any) -> None:
    problem, _ = make_problem("compressed-sensing", ratio=0.2, side=16)
    *steps, _ = _steps(problem, iterations=2, inner=1, autoencoding=3.0)
    z = problem.model.initial(problem.measurement)
    for output, loss, _, _ in steps:
        whole = (problem.model.forward(output) - problem.measurement).square().sum() + 3 * (output - z).square().sum()
        assert loss * problem.model.m == pytest.approx(float(whole), rel=1e-4)
        z = output


def test_a_strong_autoencoder_stays_closer_to_its_input(make_problem: Any, inputs: list[torch.Tensor]) -> None:
    problem, _ = make_problem("denoising", side=16, sigma=50.0)
    apart = []
    for weight in (0.0, 50.0):
        inputs.clear()
        *steps, _ = _steps(problem, iterations=40, inner=2, autoencoding=weight, learning_rate=0.01)
        apart.append((steps[-1][0] - inputs[-1]).square().mean().item())
    assert apart[1] < apart[0]


def test_works_for_a_nonlinear_model(make_problem: Any) -> None:
    problem, _ = make_problem("phase-retrieval", channels=1, side=16)
    *_, result = _steps(problem, iterations=2)
    assert torch.isfinite(result[0]).all()
