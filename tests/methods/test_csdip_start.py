"""CS-DIP from a low-shot prior: where it starts, that all else stays as it is, and how it says no."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from netprior_core import examples, priors
from netprior_core.methods._shots import Pretrained
from netprior_core.methods.csdip import CSDIP
from netprior_core.methods.lowshot import LowShot
from netprior_core.operators import Operator
from netprior_core.problem import Problem, to_unit

NETWORK: dict[str, Any] = {"channels": 8, "latent": 8}
TINY: dict[str, Any] = {**NETWORK, "iterations": 12, "tv_weight": 0.0, "precision": "float32"}


@pytest.fixture
def problem(make_problem: Any) -> Problem:
    return make_problem("compressed-sensing", ratio=0.2)[0]  # type: ignore[no-any-return]


@pytest.fixture
def name(problem: Problem) -> str:
    """A prior of 150 steps on the problem's shots, as a person's file."""
    method = LowShot(pretrain_iterations=150, latent_iterations=0, joint_iterations=0, precision="float32", **NETWORK)
    for _ in method.solve(problem, seeds=[0]):
        pass
    return priors.adopt((priors.cache_folder() / f"{method.key(problem.shots)}.safetensors").read_bytes())  # type: ignore[arg-type]


def _start(**changes: Any) -> CSDIP:
    return CSDIP.preset("low-shot start", **{**TINY, **changes})


def _steps(method: CSDIP, problem: Problem, seed: int = 3) -> list[Any]:
    return [replace(s, output=s.output.clone()) for s in method.solve(problem, seeds=[seed]) if s.output is not None]


def test_the_first_picture_is_a_draw_of_the_prior(problem: Problem, name: str) -> None:
    steps = _steps(_start(prior=name), problem)
    known = LowShot(prior=name).learned(None, problem.shape)
    assert known is not None
    method = _start()
    network = method._network(problem, torch.Generator().manual_seed(3))
    network.load_state_dict(known.weights)
    draw = torch.Generator().manual_seed(3)
    method._network(problem, draw)
    expected = to_unit(network(known.sample(draw)))
    assert "Starts from the prior" in steps[0].info["note"]
    first = next(step for step in steps if step.stage == "solve")
    torch.testing.assert_close(first.output, expected.detach(), atol=1e-5, rtol=0)


def test_restarts_and_seeds_draw_other_latents_of_the_same_weights(problem: Problem, name: str, monkeypatch: Any) -> None:
    drawn: list[torch.Tensor] = []
    sample = Pretrained.sample
    monkeypatch.setattr(Pretrained, "sample", lambda self, generator: drawn.append(sample(self, generator)) or drawn[-1])
    runs = [_steps(_start(prior=name, restarts=2), problem, seed) for seed in (3, 3, 4)]
    assert len(drawn) == 6
    assert not torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[4])
    assert torch.equal(runs[0][-1].output, runs[1][-1].output)


def test_all_but_the_start_is_the_same_as_in_the_control(problem: Problem, name: str) -> None:
    start, control = (CSDIP.preset(preset) for preset in ("low-shot start", "untrained, as a control"))
    assert control.model_copy(update={"start": "low-shot"}) == start
    count = [
        [(s.stage, s.iteration, s.total) for s in _steps(m, problem) if s.stage != "prepare"]
        for m in (_start(prior=name), _start(start="random"))
    ]
    assert count[0] == count[1]


def test_examples_are_learned_once_and_as_low_shot_learns_them(problem: Problem, monkeypatch: Any) -> None:
    own = CSDIP._network_settings
    monkeypatch.setattr(CSDIP, "_network_settings", lambda self: {**own(self), "pretrain_iterations": 20})
    first = _steps(_start(), problem)
    assert sum(step.stage == "prepare" for step in first) >= 20
    again = _steps(_start(), problem)
    assert [step.info["note"] for step in again if step.stage == "prepare"] == ["These examples were learned before."]
    assert torch.equal(first[-1].output, again[-1].output)
    method = LowShot(pretrain_iterations=20, **NETWORK)
    assert priors.where(method.key(problem.shots)) is not None  # type: ignore[arg-type]


def test_the_shipped_prior_of_the_examples_is_taken_where_it_is_of_this_network(problem: Problem) -> None:
    known = replace(problem, shots=examples.get("histology").shots(64, 3), shape=(3, 64, 64))
    assert CSDIP.preset("low-shot start", channels=16)._low_shot(known).preset_name() == "shipped"
    assert CSDIP.preset("low-shot start")._low_shot(known) == LowShot()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"layers": "cs-dip"}, "Set layers to dcgan"),
        ({"channels": 16}, "has width 8 and latents of 8, these settings 16 and 8"),
        ({"latent": 16}, "these settings 8 and 16"),
        ({"regularisation": "published"}, "Choose one of the two"),
    ],
)
def test_a_network_that_does_not_fit_is_refused_in_words(problem: Problem, name: str, changes: dict[str, Any], words: str) -> None:
    assert _start(prior=name).accepts(problem) is None
    assert words in (_start(prior=name, **changes).accepts(problem) or "")


def test_no_examples_another_size_and_a_missing_prior_are_refused_in_words(make_problem: Any, problem: Problem, name: str) -> None:
    bare = replace(problem, shots=None)
    assert "upload examples" in (_start().accepts(bare) or "")
    assert _start(prior=name).accepts(bare) is None
    assert "not here" in (_start(prior="own-nothing").accepts(bare) or "")
    grey, _ = make_problem("compressed-sensing", ratio=0.2, channels=1)
    assert "3×32×32" in (_start(prior=name).accepts(grey) or "")


def test_another_operator_keeps_the_start() -> None:
    method = CSDIP.preset("low-shot start", prior="some", latent=64)
    suited = method.suited(Operator.registry["compressed-sensing"](ratio=0.01))
    assert (suited.start, suited.prior, suited.latent, suited.channels, suited.iterations) == ("low-shot", "some", 64, 32, 350)
    assert CSDIP.preset("untrained, as a control").suited(Operator.registry["denoising"]()).start == "random"
