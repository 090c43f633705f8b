"""Shipped priors: small, documented, and found by the sets they were made for."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from netprior_core import examples, priors
from netprior_core.methods.lowshot import LowShot
from netprior_core.noise import GaussianNoise
from netprior_core.operators import Operator
from netprior_core.problem import Problem
from netprior_core.training.lowshot import PRESET, SHIPPED, train

LOW_SHOT = sorted(priors.CHECKPOINTS.glob("lowshot-*.safetensors"))


def test_every_set_that_should_have_a_prior_has_one() -> None:
    assert [path.stem.removeprefix("lowshot-") for path in LOW_SHOT] == sorted(SHIPPED)


def test_all_embedded_sets_together_stay_small() -> None:
    assert sum(path.stat().st_size for path in LOW_SHOT) <= 4 * 2**20


@pytest.mark.parametrize("path", LOW_SHOT, ids=lambda p: p.stem)
def test_a_card_says_what_it_is_and_the_readme_has_it(path: Path) -> None:
    card = priors.load(path).card
    for name in ("network", "data", "terms", "steps", "seed", "command", "metrics", "settings", "key"):
        assert card[name] not in ("", None), name
    readme = (priors.CHECKPOINTS / "README.md").read_text(encoding="utf-8")
    assert path.name in readme
    assert card["command"] in readme
    assert str(card["metrics"]["psnr_of_targets"]) in readme


@pytest.mark.parametrize("name", SHIPPED)
def test_an_examples_prior_is_found_so_that_it_starts_solving_at_once(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NETPRIOR_CACHE", str(tmp_path))
    found = examples.get(name)
    truth = found.targets()[:1]
    shape = (truth.shape[1], truth.shape[2], truth.shape[3])
    model = Operator.registry["denoising"]().build(shape)
    problem = Problem(truth, model, Operator.registry["denoising"](), GaussianNoise(), 0.1, shape, found.shots())
    stream = LowShot.preset(PRESET).solve(problem, seeds=[0])
    step = next(iter(stream))
    assert (step.stage, step.phase) == ("prepare", "cached")
    assert step.output is not None
    assert step.output.shape == found.shots().shape
    assert next(iter(stream)).stage == "solve"


def test_training_writes_what_the_app_will_find(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LowShot.presets, PRESET, {"channels": 4, "latent": 8, "pretrain_iterations": 3})  # type: ignore[misc]
    path = train("faces", tmp_path, targets=1, device=torch.device("cpu"))
    card = priors.load(path).card
    assert card["key"] == LowShot.preset(PRESET).key(examples.get("faces").shots())
    assert card["metrics"]["targets"] == 1
    assert card["steps"] == 3
