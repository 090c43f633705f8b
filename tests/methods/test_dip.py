"""What is particular to Deep Image Prior."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from netprior_core import examples
from netprior_core.methods.dip import MOST_ROLLBACKS, DeepImagePrior, _Rollback
from netprior_core.metrics import psnr
from netprior_core.operators import Operator

TINY = {"channels": 8, "iterations": 12}


def test_estimate_is_the_running_average_of_outputs(make_problem: Any) -> None:
    problem, _ = make_problem("denoising")
    average = None
    for step in DeepImagePrior(averaging=0.9, **TINY).solve(problem, seeds=[0]):
        if step.stage == "solve":
            average = step.output.clone() if average is None else 0.9 * average + 0.1 * step.output
        torch.testing.assert_close(step.estimate, average)


def test_without_averaging_the_raw_output_is_returned(make_problem: Any) -> None:
    problem, _ = make_problem("denoising")
    for step in DeepImagePrior(averaging=0.0, **TINY).solve(problem, seeds=[0]):
        assert torch.equal(step.estimate, step.output)


def test_jitter_changes_the_run_and_none_is_possible(make_problem: Any) -> None:
    problem, _ = make_problem("denoising")
    with_jitter, without = (list(DeepImagePrior(jitter=j, **TINY).solve(problem, seeds=[0]))[-1] for j in (0.03, 0.0))
    assert not torch.equal(with_jitter.output, without.output)


def test_rollback_restores_the_last_good_weights() -> None:
    weight = torch.zeros(3)
    guard = _Rollback([weight])
    assert not guard.restored(1.0)
    weight.fill_(1.0)
    assert not guard.restored(0.1)
    weight.fill_(2.0)
    assert not guard.restored(0.3)  # 4.8 dB worse: tolerated
    weight.fill_(3.0)
    assert guard.restored(1.0)  # 5.2 dB worse
    assert torch.equal(weight, torch.full((3,), 2.0))


def test_rollback_gives_in_before_it_could_hang() -> None:
    guard = _Rollback([torch.zeros(1)])
    guard.restored(0.001)
    assert [guard.restored(1.0) for _ in range(MOST_ROLLBACKS + 2)] == [True] * MOST_ROLLBACKS + [False, False]


def test_a_sudden_drop_is_rolled_back_in_a_run(make_problem: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    problem, _ = make_problem("denoising")
    seen: list[bool] = []
    original = _Rollback.restored

    def spoil(self: _Rollback, loss: float) -> bool:
        seen.append(original(self, loss * 100 if len(seen) == 2 else loss))
        return seen[-1]

    monkeypatch.setattr(_Rollback, "restored", spoil)
    list(DeepImagePrior(channels=8, iterations=40).solve(problem, seeds=[0]))
    assert seen[:2] == [False, False]
    assert seen[2]


@pytest.mark.parametrize(
    ("kind", "settings", "preset"),
    [
        ("denoising", {}, "denoising"),
        ("super-resolution", {"factor": 4}, "super-resolution ×4"),
        ("super-resolution", {"factor": 8}, "super-resolution ×8"),
        ("inpainting", {"pattern": "random"}, "inpainting, 50% random pixels"),
        ("inpainting", {"pattern": "box"}, "inpainting"),
        ("compressed-sensing", {}, "1000 iterations"),
        ("colorization", {}, "1000 iterations"),
    ],
)
def test_suited_picks_the_papers_settings(kind: str, settings: dict[str, Any], preset: str) -> None:
    assert DeepImagePrior().suited(Operator.registry[kind](**settings)).preset_name() == preset


def test_orthogonalised_steps_are_nearer_after_as_many_and_fade(make_problem: Any) -> None:
    problem, _ = make_problem("denoising", side=64)
    truth = examples.get("portrait").targets(size=64)[:1]
    noise = 0.1 * torch.randn(truth.shape, generator=torch.Generator().manual_seed(0))
    problem = replace(problem, measurement=truth + noise)
    few: dict[str, Any] = {"iterations": 120, "channels": 16, "averaging": 0.0, "jitter": 0.0}
    adam, muon = (list(DeepImagePrior(optimiser=name, **few).solve(problem, seeds=[0])) for name in ("Adam", "Muon"))
    assert psnr(muon[-1].estimate, truth).item() > psnr(adam[-1].estimate, truth).item() + 0.5
    early, late = (float((muon[k].output - muon[k - 1].output).norm()) for k in (5, 119))
    assert late < early / 10


def test_bfloat16_ends_as_well_as_float32(make_problem: Any) -> None:
    problem, truth = make_problem("denoising", sigma=25)
    finals = {}
    for precision in ("float32", "bfloat16"):
        *_, last = DeepImagePrior(channels=8, iterations=60, averaging=0.95, precision=precision).solve(problem, seeds=[0])
        finals[precision] = psnr(last.estimate, truth).mean().item()
    assert finals["bfloat16"] == pytest.approx(finals["float32"], abs=0.8)
