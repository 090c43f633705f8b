"""What is particular to CS-DIP."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from netprior_core.methods._common import signed_misfit, total_variation
from netprior_core.methods.csdip import CSDIP
from netprior_core.operators import Operator
from netprior_core.problem import to_signed

TINY = {"channels": 8, "latent": 8, "iterations": 30, "tv_weight": 0.0}


def _steps(method: CSDIP, problem: Any) -> list[tuple[torch.Tensor, float, torch.Tensor, str, dict[str, Any]]]:
    return [
        (s.output.clone(), float(s.objective), s.estimate.clone(), s.phase, dict(s.info)) for s in method.solve(problem, seeds=[3])
    ]


def test_misfit_is_that_of_signed_images(make_problem: Any) -> None:
    problem, truth = make_problem("compressed-sensing", ratio=0.2)
    image = torch.rand_like(truth)
    signed_y = 2 * problem.measurement - problem.model.forward(torch.ones_like(truth))
    direct = (problem.model.forward(to_signed(image)) - signed_y).square().sum()
    torch.testing.assert_close(signed_misfit(problem, image), direct, rtol=1e-4, atol=1e-3)


def test_estimate_is_the_best_of_the_last_k(make_problem: Any) -> None:
    problem, _ = make_problem("compressed-sensing", ratio=0.2)
    *solve, result = _steps(CSDIP(last_k=7, **TINY), problem)
    losses = [loss for _, loss, _, _, _ in solve]
    for i, (_, _, estimate, _, _) in enumerate(solve):
        window = range(max(0, i - 6), i + 1)
        assert torch.equal(estimate, solve[min(window, key=lambda j: losses[j])][0])
    assert result[4]["returns"] == 1 + min(range(23, 30), key=lambda j: losses[j])


def test_restarts_keep_the_best_fit_and_say_which(make_problem: Any) -> None:
    problem, _ = make_problem("compressed-sensing", ratio=0.2)
    *solve, result = _steps(CSDIP(restarts=3, last_k=1, **TINY), problem)
    assert [phase for _, _, _, phase, _ in solve[::30]] == [f"restart {i} of 3" for i in (1, 2, 3)]
    ends = [solve[i] for i in (29, 59, 89)]
    assert not torch.equal(ends[0][0], ends[1][0])
    best = min(range(3), key=lambda i: ends[i][1])
    assert torch.equal(result[2], ends[best][0])
    assert result[4]["returns"] == (best + 1) * 30


def test_total_loss_can_select(make_problem: Any) -> None:
    problem, _ = make_problem("compressed-sensing", ratio=0.2)
    settings = {**TINY, "tv_weight": 10.0}
    *solve, result = _steps(CSDIP(last_k=30, select_by="total loss", **settings), problem)
    losses = [loss for _, loss, _, _, _ in solve]
    assert result[4]["returns"] == 1 + min(range(30), key=lambda j: losses[j])


def test_total_variation_counts_every_jump_once() -> None:
    x = torch.zeros(1, 1, 4, 4)
    x[..., 1:, :] = 1.0
    assert total_variation(x).item() == 4.0
    assert total_variation(x.transpose(-1, -2)).item() == 4.0


@pytest.mark.parametrize(("ratio", "iterations"), [(0.025, 350), (0.05, 500), (0.5, 500), (0.9, 1000)])
def test_the_low_shot_papers_baseline_adapts_to_the_ratio(ratio: float, iterations: int) -> None:
    baseline = CSDIP.preset("low-shot paper's baseline, m/n ≤ 0.5")
    assert baseline.suited(Operator.registry["compressed-sensing"](ratio=ratio)).iterations == iterations


def test_suited_keeps_the_variant() -> None:
    released = CSDIP.preset("as released, x-ray")
    assert released.suited(Operator.registry["denoising"]()) == released
    assert CSDIP(iterations=17).suited(Operator.registry["denoising"]()).preset_name() == "as published"
