"""Pre-training of Educated DIP: it learns, resumes exactly, and its file is found by the method."""

from __future__ import annotations

import zipfile
from argparse import ArgumentParser
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from netprior_core import priors
from netprior_core.errors import InvalidSettings
from netprior_core.methods.edip import key_of_task
from netprior_core.training import _edip_pairs, edip
from netprior_core.training._edip_pairs import Patches, Phantoms
from netprior_core.training.edip import Trainer

CPU = torch.device("cpu")
SMALL = {"width": 8, "scales": 3, "skips": [0, 4, 4]}


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_edip_pairs, "PIXELS", 2**13)
    monkeypatch.setattr(_edip_pairs, "SCANNERS", ((32, 12), (32, 20)))
    monkeypatch.setattr(edip, "SHIPPED_NETWORK", SMALL)


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a zip of a hundred pictures of smooth random colours."""
    folder = tmp_path_factory.mktemp("photographs")
    draw = np.random.default_rng(0)
    with zipfile.ZipFile(folder / "pictures.zip", "w") as archive:
        for i in range(100):
            coarse = Image.fromarray(draw.integers(0, 256, (5, 6, 3), dtype=np.uint8)).resize((140, 130), Image.Resampling.BICUBIC)
            kept = BytesIO()
            coarse.save(kept, "PNG", compress_level=1)
            archive.writestr(f"pictures/{i:03}.png", kept.getvalue())
    return folder


def _trainer(steps: int = 8, **changes: int) -> Trainer:
    return Trainer(Phantoms(CPU), CPU, steps=steps, network=SMALL, **changes)  # type: ignore[arg-type]


def test_pairs_are_a_function_of_seed_and_step() -> None:
    a, b, other = Phantoms(CPU, 1).batch(5), Phantoms(CPU, 1).batch(5), Phantoms(CPU, 2).batch(5)
    assert torch.equal(a[0], b[0])
    assert torch.equal(a[1], b[1])
    assert not torch.equal(a[1], other[1])


def test_phantoms_are_seen_by_their_scanner() -> None:
    z, x = Phantoms(CPU).batch(0)
    assert z.shape == x.shape == (8, 1, 32, 32)
    assert float(x.min()) == 0
    assert float(x.max()) == 1
    error = (z - x).square().mean().sqrt()
    assert 0.02 < float(error) < 0.4, "a first picture is near the truth, and not the truth"


def test_patches_are_grey_pictures_of_every_operator(photographs: Path) -> None:
    patches = Patches(CPU, photographs)
    for step in range(24):
        z, x = patches.batch(step)
        assert z.shape == x.shape
        assert z.shape[1:] == (1, 64, 64)
        assert z.isfinite().all()
        assert float(x.min()) >= 0
        assert float(x.max()) <= 1
    held_out = patches.validation(2)
    assert set(held_out) == {seen.kind for seen in _edip_pairs.VALIDATED}
    assert len(patches.pictures) == 80


def test_patches_need_photographs(tmp_path: Path) -> None:
    for folder in (None, tmp_path / "nowhere", tmp_path):
        with pytest.raises(InvalidSettings, match="photographs"):
            Patches(CPU, folder)


def test_training_lowers_the_error() -> None:
    trainer = _trainer(steps=60)
    trainer.validate()
    while trainer.step < trainer.steps:
        trainer.advance()
    trainer.validate()
    assert trainer.curve[-1][2] > trainer.curve[0][2] + 3


def test_the_step_size_rises_to_its_peak_and_falls_to_nothing() -> None:
    trainer = _trainer(steps=100, learning_rate=0.5)  # type: ignore[arg-type]
    rates = []
    for trainer.step in range(101):
        rates.append(trainer.rate())
    assert max(rates) == pytest.approx(0.5)
    assert rates.index(max(rates)) == 10
    assert rates[0] < 0.03
    assert rates[-1] == pytest.approx(0, abs=1e-9)
    assert rates[10:] == sorted(rates[10:], reverse=True)


def test_a_run_that_was_cut_off_goes_on_exactly(tmp_path: Path) -> None:
    whole, first, second = _trainer(), _trainer(), _trainer()
    for _ in range(8):
        whole.advance()
    for _ in range(3):
        first.advance()
    first.validate()
    first.keep(tmp_path / "state.safetensors")
    second.resume(tmp_path / "state.safetensors")
    assert (second.step, second.curve) == (3, first.curve)
    for _ in range(5):
        second.advance()
    for (name, a), b in zip(whole.tensors().items(), second.tensors().values(), strict=True):
        assert torch.equal(a, b), name


def test_another_runs_state_is_refused_in_words(tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    _trainer().keep(path)
    with pytest.raises(InvalidSettings, match="seed 0, not 3"):
        _trainer(seed=3).resume(path)
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(InvalidSettings, match="not the state"):
        _trainer().resume(path)


def test_the_command_writes_a_prior_with_a_card_and_goes_on(tmp_path: Path) -> None:
    parser = ArgumentParser()
    edip.add_arguments(parser)
    words = ["--task", "tomography", "--out", str(tmp_path), "--resume", str(tmp_path / "kept" / "state"), "--device", "cpu"]
    edip.run(parser.parse_args([*words, "--steps", "2"]))
    edip.run(parser.parse_args([*words, "--steps", "4"]))
    assert list(priors.shipped(tmp_path)) == [key_of_task("tomography")]
    card = priors.load(tmp_path / "edip-tomography.safetensors").card
    for name in ("network", "data", "terms", "steps", "seed", "command", "metrics", "settings", "machine"):
        assert card[name] not in ("", None), name
    assert [step for _, step, _ in card["curve"]] == [2, 4]
    readme = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert "edip-tomography.safetensors" in readme
    for minutes, step, psnr in card["curve"]:
        assert f"{psnr:.2f} dB after {minutes:g} min (step {step})" in readme


def test_longer_training_is_written_over_by_what_goes_on_from_it_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parser = ArgumentParser()
    edip.add_arguments(parser)
    words = ["--task", "tomography", "--out", str(tmp_path), "--device", "cpu"]
    path, state = tmp_path / "edip-tomography.safetensors", ["--resume", str(tmp_path / "kept" / "state")]
    edip.run(parser.parse_args([*words, *state, "--steps", "6"]))
    before = path.read_bytes()
    edip.run(parser.parse_args([*words, "--steps", "2"]))
    assert path.read_bytes() == before
    assert "edip-tomography.safetensors is left alone" in capsys.readouterr().out
    # The run of the state wrote it, and may write it again though somebody's card says more.
    prior = priors.load(path)
    priors.save(path, prior.tensors, {**prior.card, "steps": "5000 (of 9000 planned: cut short)"})
    edip.run(parser.parse_args([*words, *state, "--steps", "8"]))
    assert priors.card_of(path)["steps"] == "8"
    edip.run(parser.parse_args([*words, "--steps", "9", "--seed", "1"]))
    assert (priors.card_of(path)["steps"], priors.card_of(path)["seed"]) == ("9", 1)


def test_the_card_says_when_training_was_cut_short() -> None:
    trainer = _trainer(steps=8)
    trainer.advance()
    assert "cut short" in trainer.card("command")["steps"]
