"""What is particular to Deep Decoder."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from netprior_core.methods.deep_decoder import UntrainedDeepDecoder, _Kept
from netprior_core.metrics import psnr
from netprior_core.operators import Operator

TINY = {"channels": 8, "iterations": 25}


def _steps(method: UntrainedDeepDecoder, problem: Any) -> list[tuple[float, torch.Tensor, torch.Tensor, dict[str, Any]]]:
    return [
        (float(s.objective), s.output.clone(), s.estimate.clone(), dict(s.info))  # type: ignore[arg-type, union-attr]
        for s in method.solve(problem, seeds=[0])
    ]


def test_the_estimate_changes_only_for_a_loss_half_a_percent_less(make_problem: Any) -> None:
    problem, _ = make_problem("denoising", sigma=25)
    *steps, result = _steps(UntrainedDeepDecoder(channels=8, iterations=80, learning_rate=0.05), problem)
    best, kept, where, refused = float("inf"), torch.empty(0), 0, 0
    for i, (loss, output, estimate, _) in enumerate(steps, 1):
        if loss * 1.005 < best:
            best, kept, where = loss, output, i
        else:
            refused += 1
        assert torch.equal(estimate, kept)
    assert refused > 3
    assert result[3]["returns"] == where
    assert torch.equal(result[2], kept)


def test_half_a_percent_by_hand() -> None:
    kept = _Kept(torch.nn.Identity(), torch.zeros(1), best=True, by_weights=False)
    for iteration, loss in enumerate((1.0, 0.996, 0.994, 0.993), 1):
        kept.add(iteration, torch.tensor([float(iteration)]), torch.tensor(loss), draw=False)
    assert (int(kept.iteration), kept.estimate.item()) == (3, 3.0)  # type: ignore[union-attr]


def test_the_last_output_is_returned_when_asked(make_problem: Any) -> None:
    problem, _ = make_problem("denoising")
    for _, output, estimate, _info in _steps(UntrainedDeepDecoder(keep_best=False, learning_rate=0.1, **TINY), problem):
        assert torch.equal(output, estimate)


def test_no_number_is_read_between_the_readings(make_problem: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    problem, _ = make_problem("denoising")
    reads = []
    for name in ("__bool__", "__float__", "__int__", "item"):
        original = getattr(torch.Tensor, name)
        monkeypatch.setattr(torch.Tensor, name, lambda self, f=original: (reads.append(1), f(self))[1])
    counts = [len(reads) for _ in UntrainedDeepDecoder(channels=8, iterations=19).solve(problem, seeds=[0])]
    assert counts[2] == counts[8]
    assert counts[10] == counts[17]


def test_with_jitter_the_estimate_is_drawn_without_it(make_problem: Any) -> None:
    problem, _ = make_problem("denoising")
    steps = _steps(UntrainedDeepDecoder(jitter=0.05, keep_best=False, **TINY), problem)
    without = _steps(UntrainedDeepDecoder(keep_best=False, **TINY), problem)
    assert not torch.equal(steps[0][1], without[0][1])
    torch.testing.assert_close(steps[0][2], without[0][2])  # the first weights, before any step
    assert not torch.equal(steps[9][2], steps[9][1])
    changes = [i for i in range(1, 25) if not torch.equal(steps[i][2], steps[i - 1][2])]
    assert changes == [9, 19, 24]


def test_jitter_shrinks_as_in_the_released_code() -> None:
    method = UntrainedDeepDecoder(jitter=0.5, jitter_decay=10)
    z = torch.zeros(1, 64, 16, 16)

    class Plain:
        activations = staticmethod(lambda x: x)

    stds = [method._jittered(z, i, torch.Generator().manual_seed(0), Plain()).std().item() for i in (1, 10, 11, 21)]  # type: ignore[arg-type]
    assert stds == pytest.approx([0.35, 0.35, 0.245, 0.1715], rel=0.02)


@pytest.mark.parametrize("start", ["doubling", "16×16"])
@pytest.mark.parametrize("side", [16, 20])
def test_small_images_work(make_problem: Any, side: int, start: str) -> None:
    problem, truth = make_problem("denoising", side=side, sigma=10)
    *_, last = UntrainedDeepDecoder(channels=8, iterations=40, start=start).solve(problem, seeds=[0])  # type: ignore[arg-type]
    assert last.estimate is not None
    assert psnr(last.estimate, truth).item() > psnr(torch.full_like(truth, 0.5), truth).item()


@pytest.mark.parametrize(
    ("kind", "settings", "preset"),
    [
        ("denoising", {}, "as published, denoising"),
        ("super-resolution", {"factor": 4}, "as published, denoising"),
        ("inpainting", {"pattern": "random"}, "inpainting"),
        ("compressed-sensing", {}, "over-parameterised, compressed sensing"),
    ],
)
def test_suited_picks_the_papers_settings(kind: str, settings: dict[str, Any], preset: str) -> None:
    assert UntrainedDeepDecoder().suited(Operator.registry[kind](**settings)).preset_name() == preset


def test_suited_keeps_the_width_chosen_for_denoising() -> None:
    assert UntrainedDeepDecoder.preset("k = 64").suited(Operator.registry["denoising"]()).preset_name() == "k = 64"


def test_bfloat16_ends_as_well_as_float32(make_problem: Any) -> None:
    problem, truth = make_problem("denoising", sigma=25)
    finals = {}
    for precision in ("float32", "bfloat16"):
        *_, last = UntrainedDeepDecoder(channels=16, iterations=100, precision=precision).solve(problem, seeds=[0])  # type: ignore[arg-type]
        assert last.estimate is not None
        finals[precision] = psnr(last.estimate, truth).mean().item()
    assert finals["bfloat16"] == pytest.approx(finals["float32"], abs=0.8)
