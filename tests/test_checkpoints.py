"""Shipped priors: small, documented, and found by the sets they were made for."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import torch

from netprior_core import examples, priors
from netprior_core.methods.lowshot import LowShot
from netprior_core.noise import GaussianNoise
from netprior_core.operators import Operator
from netprior_core.problem import Problem
from netprior_core.training._collections import COLLECTIONS
from netprior_core.training.lowshot import PRESET, SHIPPED, train

MIB = 2**20
LOW_SHOT = sorted(priors.CHECKPOINTS.glob("lowshot-*.safetensors"))
COLLECTED = [path for path in LOW_SHOT if path.stem.split("-")[1] in COLLECTIONS]
EMBEDDED = [path for path in LOW_SHOT if path not in COLLECTED]


def test_every_set_that_should_have_a_prior_has_one() -> None:
    assert [path.stem.removeprefix("lowshot-") for path in EMBEDDED] == sorted(SHIPPED)


def test_every_shipped_file_can_be_opened_and_is_found() -> None:
    files = sorted(priors.CHECKPOINTS.glob("*.safetensors"))
    assert files
    for path in files:
        assert priors.load(path).card["key"]
    assert set(priors.shipped().values()) == set(files)


def test_all_files_together_stay_small() -> None:
    def size(paths: list[Path]) -> int:
        return sum(path.stat().st_size for path in paths)

    assert size(EMBEDDED) <= 4 * MIB
    assert size(COLLECTED) <= 20 * MIB
    assert size(sorted(priors.CHECKPOINTS.glob("*.safetensors"))) <= 42 * MIB


def test_what_trainings_leave_beside_their_files_stays_out_of_the_repository() -> None:
    root = priors.CHECKPOINTS.parent
    if not (root / ".git").exists():
        pytest.skip("not a clone of the repository")
    left = [
        "lowshot-celeba-10-mmd.state",
        "gan-celeba.partial",
        "tmp1a2b.partial",
        "gan-celeba-samples.png",
        "gan-celeba-neighbours.png",
    ]
    kept = ["gan-celeba.safetensors", "README.md"]
    names = [f"checkpoints/{name}" for name in (*left, *kept)]
    done = subprocess.run(["git", "check-ignore", "--no-index", *names], cwd=root, capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == names[: len(left)]


@pytest.mark.parametrize("path", COLLECTED, ids=lambda p: p.stem)
def test_a_prior_of_a_collection_says_what_it_saw_and_draws_it(path: Path) -> None:
    _, collection, shots, loss = path.stem.split("-")
    prior = priors.load(path)
    card = prior.card
    assert card["name"] == path.stem
    assert (card["shots"], card["settings"]["loss"]) == (int(shots), loss)
    assert card["terms"] == COLLECTIONS[collection].terms
    for words in (f"--collection {collection} ", f"--shots {shots} ", f"--loss {loss} ", "--data DIR"):
        assert words in card["command"]
    assert len(card["curve_of_shots_psnr"]) >= 5
    assert not re.search(r"(^|\s)/\w", card["command"])  # no folder of the machine it was made on
    assert tuple(prior.tensors["latents"].shape) == (int(shots), card["settings"]["latent"])
    trained = LowShot(prior=path.stem)._chosen(tuple(card["shape"]))
    drawn = LowShot().walk(trained, tuple(card["shape"]), 0, 1, steps=2)
    assert tuple(drawn.shape) == (2, *card["shape"])
    assert drawn.std() > 0.05


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
