"""Training low-shot priors on a collection: nested subsets, cards, and what the app finds."""

from __future__ import annotations

import argparse
import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from netprior_core import priors
from netprior_core.errors import InvalidSettings
from netprior_core.methods import _shots
from netprior_core.training import lowshot
from netprior_core.training._collections import COLLECTIONS, Collection


@pytest.fixture
def collection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    rng = np.random.default_rng(0)
    with zipfile.ZipFile(tmp_path / "few.zip", "w") as archive:
        for i in range(8):
            buffer = io.BytesIO()
            Image.fromarray(rng.integers(0, 256, (20, 24, 3), dtype=np.uint8)).save(buffer, "PNG")
            archive.writestr(f"few/{i:03}.png", buffer.getvalue())
    monkeypatch.setitem(COLLECTIONS, "few", Collection("few.zip", "A few", "free", 3, 6, (2, 0, 22, 20)))
    return tmp_path


def _options(data: Path, *more: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    lowshot.add_arguments(parser)
    small = ["--size", "16", "--channels", "4", "--iterations", "4", "--targets", "1", "--device", "cpu"]
    return parser.parse_args(["--collection", "few", "--data", str(data), "--out", str(data / "out"), *small, *more])


def test_smaller_numbers_of_shots_are_subsets(collection: Path) -> None:
    few = COLLECTIONS["few"]
    assert torch.equal(few.images(collection, range(3), 16), few.images(collection, range(5), 16)[:3])
    with pytest.raises(InvalidSettings, match=r"few\.zip"):
        few.images(collection / "elsewhere", range(1), 16)
    with pytest.raises(InvalidSettings, match="--data"):
        few.images(None, range(1), 16)
    with pytest.raises(InvalidSettings, match="at most 6 shots"):
        lowshot.run(_options(collection, "--shots", "7"))


@pytest.mark.parametrize("loss", ["l2", "mmd"])
def test_a_file_with_a_card_is_written_and_found_by_name(collection: Path, loss: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_shots, "KEEP_EVERY", 2)  # the state goes into a folder that does not exist yet
    lowshot.run(_options(collection, "--shots", "3", "--loss", loss))
    monkeypatch.setattr(priors, "CHECKPOINTS", collection / "out")
    card = priors.named(f"lowshot-few-3-{loss}").card
    assert card["shots"] == 3
    assert card["terms"] == "free"
    assert card["curve_of_shots_psnr"][-1][0] == 4
    assert f"--loss {loss}" in card["command"]
    assert str(collection) not in str(card)
    assert "few-3" in (collection / "out" / "README.md").read_text()
    assert list((collection / "out").glob("*.state")) == []


def test_nothing_is_measured_when_no_targets_are_wanted(collection: Path) -> None:
    lowshot.run(_options(collection, "--shots", "2", "--targets", "0"))
    assert "metrics" not in priors.card_of(collection / "out" / "lowshot-few-2-mmd.safetensors")


def test_the_cards_psnr_does_not_depend_on_the_order_of_the_drawn_images() -> None:
    shots = torch.rand((5, 3, 8, 8), generator=torch.Generator().manual_seed(0))
    drawn = (shots + 0.1 * torch.randn(shots.shape, generator=torch.Generator().manual_seed(1))).clamp(0, 1)
    paired = lowshot._drawn(drawn, shots)
    assert paired == pytest.approx(20, abs=2)
    assert lowshot._drawn(drawn.flip(0), shots) == paired


def test_other_files_in_the_folder_do_not_stop_the_readme(collection: Path) -> None:
    (collection / "out").mkdir()
    (collection / "out" / "state.safetensors").write_bytes(b"no checkpoint")
    lowshot.run(_options(collection, "--shots", "2", "--targets", "0"))
    readme = (collection / "out" / "README.md").read_text()
    assert "lowshot-few-2" in readme
    assert "state.safetensors" not in readme


def _interrupted(data: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The state of a run that was cut off after its second iteration."""
    monkeypatch.setattr(_shots, "KEEP_EVERY", 2)
    drawn, left = lowshot._drawn, iter(range(2))

    def cut_off(*some: Any) -> float:
        if next(left, None) is None:
            raise KeyboardInterrupt
        return drawn(*some)

    with monkeypatch.context() as patch:
        patch.setattr(lowshot, "_drawn", cut_off)
        with pytest.raises(KeyboardInterrupt):
            lowshot.run(_options(data, "--shots", "3", "--targets", "0"))
    (state,) = (data / "out").glob("*.state")
    return state


def test_an_interrupted_run_goes_on_exactly_and_may_grow(collection: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few, path = ["--shots", "3", "--targets", "0"], collection / "out" / "lowshot-few-3-mmd.safetensors"
    lowshot.run(_options(collection, *few, "--iterations", "6"))
    whole = priors.load(path).tensors
    path.unlink()
    state = _interrupted(collection, monkeypatch)
    lowshot.run(_options(collection, *few, "--iterations", "6", "--resume"))
    found = priors.load(path).tensors
    assert all(torch.equal(found[name], value) for name, value in whole.items())
    assert not state.exists()


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--batch", "2"], "batch 0, not 2"),
        (["--channels", "8"], "channels 4, not 8"),
        (["--size", "32"], "size 16, not 32"),
        (["--iterations", "3"], "4 iterations: .* more, not fewer"),
    ],
)
def test_a_run_with_other_settings_is_not_gone_on_with(
    collection: Path, monkeypatch: pytest.MonkeyPatch, more: list[str], words: str
) -> None:
    state = _interrupted(collection, monkeypatch)
    with pytest.raises(InvalidSettings, match=words):
        lowshot.run(_options(collection, "--shots", "3", "--resume", *more))
    # Nor is one of another collection, number or loss, under whatever name its state is.
    state.rename(state.with_name("lowshot-few-2-l2.state"))
    with pytest.raises(InvalidSettings, match="shots 3, not 2; loss mmd, not l2"):
        lowshot.run(_options(collection, "--shots", "2", "--loss", "l2", "--resume"))


def test_a_damaged_or_foreign_state_is_refused_in_words(collection: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = _interrupted(collection, monkeypatch)
    whole, kept = state.read_bytes(), torch.load(state, weights_only=True)
    resumed = _options(collection, "--shots", "3", "--resume")
    for data in (b"", b"nothing of the kind", whole[: len(whole) // 2]):
        state.write_bytes(data)
        with pytest.raises(InvalidSettings, match=r"few-3-mmd\.state is not the state of a training run"):
            lowshot.run(resumed)
    for name, words in (
        ("made", "does not say what its run was made with"),
        ("curve", "not the state"),
        ("network", "does not fit"),
    ):
        torch.save({n: v for n, v in kept.items() if n != name}, state)
        with pytest.raises(InvalidSettings, match=words):
            lowshot.run(resumed)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--shots", "0"], "--shots: .* at least one example"),
        (["--shots", "-1", "--loss", "l2"], "--shots: .* at least one example"),
        (["--shots", "1", "--loss", "mmd"], "--shots: the MMD"),
        (["--shots", "3", "--loss", "mmd", "--batch", "1"], "--batch: the MMD"),
        (["--shots", "3", "--loss", "l2", "--batch", "-1"], "--batch"),
        (["--shots", "3", "--channels", "2"], "channels"),
    ],
)
def test_what_cannot_be_learned_is_refused_before_anything_is_read(collection: Path, more: list[str], words: str) -> None:
    (collection / "few.zip").unlink()
    with pytest.raises(InvalidSettings, match=words):
        lowshot.run(_options(collection, *more))
    assert not (collection / "out").exists()


def test_one_example_can_be_learned_without_the_mmd(collection: Path) -> None:
    lowshot.run(_options(collection, "--shots", "1", "--loss", "l2", "--batch", "1", "--targets", "0"))
    assert (collection / "out" / "lowshot-few-1-l2.safetensors").is_file()
