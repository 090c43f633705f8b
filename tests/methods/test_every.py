"""What every registered method must do, on a tiny problem. A new method is tried by being registered.

``SMALL`` may name settings that make a method quick; without an entry ``QUICK``'s fields apply as far as the method has them.
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from netprior_core.errors import Unsolvable
from netprior_core.methods import Method
from netprior_core.metrics import psnr
from netprior_core.problem import Problem, Step

KINDS = [cls.model_fields["kind"].default for cls in Method.registry]
QUICK = {"iterations": 100, "channels": 16}
SMALL: dict[str, dict[str, Any]] = {
    "metadip": {"iterations": 50},
    "metasiren": {"iterations": 50},
    "dip": {"iterations": 120, "channels": 16, "averaging": 0.9},
    "cs-dip": {"iterations": 150, "channels": 16},
    "dip-tv": {"iterations": 120, "channels": 16, "averaging": 0.9},
    "self-guided-dip": {"iterations": 150, "channels": 16, "draws": 2, "averaging": 0.9, "learning_rate": 0.01},
    "aseqdip": {"iterations": 80, "channels": 16, "learning_rate": 0.01},
    "deep-decoder": {"iterations": 100, "channels": 16},
    "siren": {"iterations": 100, "width": 32, "layers": 4, "learning_rate": 3e-3, "omega": 10.0},
    "edip": {"start": "random", "iterations": 60, "learning_rate": 0.003, "clip": 1e3},
    "denoiser": {"denoiser": "tv"},
    "pnp-admm": {"denoiser": "tv", "iterations": 15},
    "dpir": {"denoiser": "tv", "iterations": 15},
    "red": {"denoiser": "tv", "iterations": 20, "strength": 20.0},
    "csgm": {"iterations": 100},
    "pgdgan": {"outer": 8, "inner": 25},
    "npgd": {"iterations": 20},
    "iagan": {"latent_iterations": 80, "joint_iterations": 40},
    "lasso": {"iterations": 60},
    "tv": {"iterations": 100},
    "tval3": {"iterations": 150},
    "d-amp": {"iterations": 12},
    "low-shot": {"pretrain_iterations": 150, "latent_iterations": 60, "joint_iterations": 60, "channels": 8},
}
#: The operator each method is tried on, where compressed sensing is not the one to beat.
TRIED_ON: dict[str, tuple[str, dict[str, Any]]] = {
    "noise-impedance": ("denoising", {}),
    "bicubic": ("super-resolution", {"factor": 2}),
    "denoiser": ("denoising", {}),
    "bm3d": ("denoising", {}),
    "d-amp": ("compressed-sensing", {"ratio": 0.5}),
    "fbp": ("tomography", {"angles": 60}),
}
#: These draw nothing (learned weights, or none): the seed changes nothing.
DETERMINISTIC = {"metadip", "metasiren", "npgd", "pnp-admm", "dpir", "red", "lasso", "tv", "tval3", "d-amp"}
#: These are the trivial baselines themselves, or done in one pass.
TRIVIAL = {"adjoint", "pseudo-inverse", "bicubic", "denoiser", "bm3d", "fbp"}


def _method(kind: str) -> Method:
    cls = Method.registry[kind]
    known = {name: value for name, value in QUICK.items() if name in cls.model_fields}
    return cls(**SMALL.get(kind, known))


@pytest.fixture
def case(
    make_problem: Callable[..., tuple[Problem, torch.Tensor]], request: pytest.FixtureRequest
) -> Callable[..., tuple[Method, Problem, torch.Tensor]]:
    def make(kind: str, channels: int = 3) -> tuple[Method, Problem, torch.Tensor]:
        if kind == "bm3d":
            pytest.importorskip("bm3d")
        operator, settings = TRIED_ON.get(kind, ("compressed-sensing", {"ratio": 0.2}))
        problem, truth = make_problem(operator, channels=channels, **settings)
        if Method.registry[kind].family == "Generative":
            request.getfixturevalue("generator")
        return _method(kind), problem, truth

    return make


def _first(stream: Any, count: int) -> list[Step]:
    """The first steps with tensors that stay."""
    kept = []
    for step in stream:
        copies = {n: None if (v := getattr(step, n)) is None else v.clone() for n in ("output", "estimate", "objective")}
        kept.append(replace(step, **copies))
        if len(kept) == count:
            break
    stream.close()
    return kept


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_solves_a_tiny_problem(case: Any, kind: str, channels: int) -> None:
    method, problem, truth = case(kind, channels)
    stages, losses, phases = [], [], []
    for step in method.solve(problem, seeds=[0]):
        stages.append(step.stage)
        if step.stage != "prepare":
            assert step.estimate.shape == step.output.shape == truth.shape
            assert not step.estimate.requires_grad
            assert step.objective.shape == (1,)
            losses.append(float(step.objective))
            phases.append(step.phase)
            assert 0 <= step.iteration <= step.total
    assert stages == sorted(stages, key=["prepare", "solve", "result"].index)
    assert stages.count("result") == 1
    assert step.info["returns"] <= step.total
    if kind not in TRIVIAL:
        same = [loss for loss, phase in zip(losses, phases, strict=True) if phase == phases[0]]
        assert same[-1] < 0.5 * same[0]
        start = problem.model.initial(problem.measurement)
        assert psnr(step.estimate, truth).item() > psnr(start, truth).item() + 1


@pytest.mark.parametrize("kind", KINDS)
def test_same_seed_same_steps_another_seed_other_steps(case: Any, kind: str) -> None:
    method, problem, _ = case(kind)
    steps = []
    for seed in (5, 5, 6):
        torch.rand(seed)  # the global random state must not matter
        steps.append(_first(_solve_stage(method, problem, seed), 8))
    for a, b in zip(steps[0], steps[1], strict=True):
        assert torch.equal(a.output, b.output)
        assert torch.equal(a.estimate, b.estimate)
        assert torch.equal(a.objective, b.objective)
    if kind not in TRIVIAL | DETERMINISTIC:
        assert not torch.equal(steps[0][0].output, steps[2][0].output)


def _solve_stage(method: Method, problem: Problem, *seeds: int) -> Any:
    return (step for step in method.solve(problem, seeds=seeds) if step.stage != "prepare")


@pytest.mark.parametrize("kind", KINDS)
def test_seeds_are_one_batch_of_independent_runs(case: Any, kind: str) -> None:
    method, problem, _ = case(kind)
    both, second = _first(_solve_stage(method, problem, 5, 6), 4), _first(_solve_stage(method, problem, 6), 4)
    for pair, alone in zip(both, second, strict=False):
        assert pair.estimate.shape[0] == pair.objective.shape[0] == 2
        torch.testing.assert_close(pair.estimate[1:], alone.estimate)


@pytest.mark.parametrize("kind", KINDS)
def test_closing_frees_the_network(case: Any, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    method, problem, _ = case(kind)
    made: list[weakref.ref[torch.nn.Module]] = []
    original = torch.nn.Module.__init__

    def spy(self: torch.nn.Module, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        made.append(weakref.ref(self))

    monkeypatch.setattr(torch.nn.Module, "__init__", spy)
    stream = method.solve(problem, seeds=[0])
    step = next(stream)
    while step.stage == "prepare":
        step = next(stream)
    stream.close()  # type: ignore[attr-defined]
    del stream, step
    gc.collect()
    assert [ref for ref in made if ref() is not None] == []


@pytest.mark.parametrize("kind", KINDS)
def test_invalid_measurements_end_in_words(case: Any, kind: str) -> None:
    method, problem, _ = case(kind)
    bad = replace(problem, measurement=torch.full_like(problem.measurement, float("nan")))
    with pytest.raises(Unsolvable, match="not a number"):
        for _ in method.solve(bad, seeds=[0]):
            pass


@pytest.mark.parametrize("kind", KINDS)
def test_presets_are_valid_and_suited_keeps_to_them(case: Any, kind: str) -> None:
    cls = Method.registry[kind]
    _, problem, _ = case(kind)
    for name in cls.presets:
        assert cls.preset(name).preset_name() is not None
    assert isinstance(cls().suited(problem.operator), cls)


@pytest.mark.parametrize("kind", KINDS)
def test_refuses_in_a_sentence_without_shots(case: Any, kind: str) -> None:
    method, problem, _ = case(kind)
    alone = replace(problem, shots=None)
    if type(method).needs_shots:
        with pytest.raises(Unsolvable, match="shot"):
            next(iter(method.solve(alone, seeds=[0])))
    else:
        assert method.accepts(alone) is None
