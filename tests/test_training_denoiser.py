"""Training of the small denoiser: its patches, going on exactly, and what it writes."""

from __future__ import annotations

import io
import zipfile
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from netprior_core import denoisers, priors
from netprior_core.errors import InvalidSettings, MissingPrior
from netprior_core.metrics import psnr
from netprior_core.networks.drunet import denoised, network_of
from netprior_core.training import denoiser
from netprior_core.training._meta_data import FACES, FACES_HELD, NATURAL, NATURAL_HELD
from netprior_core.training._noisy_patches import NoisyPatches

TINY: dict[str, Any] = {"channels": 3, "widths": [8, 12], "blocks": 1, "residual": True}
HELD_LEVEL = 250


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two small archives of slopes and stripes; the held-out pictures are nearly white."""
    folder = tmp_path_factory.mktemp("data")
    for name, held, side in ((NATURAL, NATURAL_HELD, 40), (FACES, FACES_HELD, 36)):
        (folder / name).parent.mkdir(exist_ok=True)
        with zipfile.ZipFile(folder / name, "w") as archive:
            for i in range(held + 3):
                y, x = np.mgrid[:side, :side]
                pixels = np.stack([60 + 2 * x + 40 * ((x + (i + c) * y) % 16 > 7) for c in range(3)], axis=-1)
                pixels = pixels if i < 3 else np.full_like(pixels, HELD_LEVEL)
                buffer = io.BytesIO()
                Image.fromarray(pixels.astype(np.uint8)).save(buffer, "PNG")
                archive.writestr(f"{i:03}.png", buffer.getvalue())
    return folder


def _patches(data: Path, **changes: Any) -> NoisyPatches:
    return NoisyPatches(data, **{"batch": 3, "side": 16, **changes})


def _trainer(data: Path, steps: int = 8, **changes: Any) -> denoiser.Trainer:
    patches = _patches(data, **{n: v for n, v in changes.items() if n in ("seed", "batch")})
    return denoiser.Trainer(patches, torch.device("cpu"), steps=steps, seed=changes.get("seed", 0), network=TINY)


def test_batches_depend_on_seed_and_step_alone(data: Path) -> None:
    a, b = _patches(data).batch(5), _patches(data).batch(5)
    assert torch.equal(a.noisy, b.noisy)
    assert torch.equal(a.sigma, b.sigma)
    assert not torch.equal(a.noisy, _patches(data).batch(6).noisy)
    assert not torch.equal(a.noisy, _patches(data, seed=1).batch(5).noisy)


def test_noise_is_as_strong_as_said_and_grey_is_grey(data: Path) -> None:
    batch = _patches(data, batch=40, side=32).batch(0)
    noise = batch.noisy - batch.clean
    torch.testing.assert_close(noise.std(dim=(1, 2, 3)), batch.sigma, rtol=0.1, atol=1e-4)
    assert 0 < batch.sigma.min() < 0.02 < 0.17 < batch.sigma.max() <= 50 / 255
    assert 5 < int(batch.grey.sum()) < 30
    equal = (batch.noisy == batch.noisy[:, :1]).flatten(1).all(dim=1)
    assert torch.equal(equal, batch.grey)
    assert bool((batch.clean.flatten(1).amax(dim=1) < HELD_LEVEL / 255).all()), "held-out pictures must not be learned from"


def test_validation_is_on_held_out_pictures_in_colour_and_grey(data: Path) -> None:
    found = _patches(data).validation()
    assert {(name, level) for name, level, *_ in found} == {(n, s) for n in ("colour", "grey") for s in (15, 25, 50)}
    for name, level, noisy, clean in found:
        assert clean.shape[1] == (3 if name == "colour" else 1)
        torch.testing.assert_close(clean, torch.full_like(clean, HELD_LEVEL / 255))
        assert float((noisy - clean).std()) == pytest.approx(level / 255, rel=0.1)


def test_a_run_that_was_cut_off_goes_on_exactly(data: Path, tmp_path: Path) -> None:
    whole, first, second = _trainer(data), _trainer(data), _trainer(data)
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
    for a, b in zip(whole.network.parameters(), second.network.parameters(), strict=True):
        assert torch.equal(a, b)


def test_another_runs_state_is_refused_in_words(data: Path, tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    _trainer(data).keep(path)
    with pytest.raises(InvalidSettings, match="seed 0, not 3"):
        _trainer(data, seed=3).resume(path)
    with pytest.raises(InvalidSettings, match=r"batch \[3, 16\], not \[4, 16\]"):
        _trainer(data, batch=4).resume(path)
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(InvalidSettings, match="not the state"):
        _trainer(data).resume(path)


def test_learning_removes_noise(data: Path) -> None:
    trainer = denoiser.Trainer(_patches(data, batch=8), torch.device("cpu"), steps=120, learning_rate=5e-3, network=TINY)
    for _ in range(120):
        trainer.advance()
    batch = _patches(data, batch=16, seed=9).batch(0)
    found = denoised(trainer.average, batch.noisy, batch.sigma)
    assert (psnr(found, batch.clean).mean() - psnr(batch.noisy, batch.clean).mean()).item() > 2


def test_the_average_follows_the_weights(data: Path) -> None:
    trainer = _trainer(data)
    start = [p.clone() for p in trainer.average.parameters()]
    trainer.advance()
    for old, now, average in zip(start, trainer.network.parameters(), trainer.average.parameters(), strict=True):
        torch.testing.assert_close(average, old + 0.9 * (now - old))


def test_the_step_size_rises_and_falls(data: Path) -> None:
    trainer, rates = _trainer(data, steps=100), []
    for trainer.step in range(101):
        rates.append(trainer.rate())
    assert rates.index(max(rates)) == 2
    assert max(rates) == pytest.approx(1e-3)
    assert rates[-1] == pytest.approx(0, abs=1e-9)
    assert rates[2:] == sorted(rates[2:], reverse=True)


def test_the_command_writes_a_denoiser_with_a_card_and_goes_on(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    parser = ArgumentParser()
    denoiser.add_arguments(parser)
    words = ["--data", str(data), "--out", str(tmp_path), "--resume", str(tmp_path / "kept" / "state"), "--device", "cpu"]
    words += ["--steps", "4", "--batch", "2", "--side", "16", "--widths", "4", "8", "--blocks", "1", "--level-weight", "0.6"]
    denoiser.run(parser.parse_args([*words, "--minutes", "0"]))
    denoiser.run(parser.parse_args(words))
    card = priors.load(tmp_path / denoiser.FILE).card
    for name in ("network", "data", "terms", "steps", "seed", "command", "metrics", "settings", "machine", "key"):
        assert card[name] not in ("", None), name
    assert [step for _, step, _ in card["curve"]] == [0, 4]
    longer, anew = (tmp_path / denoiser.FILE).read_bytes(), [word for word in words if word not in ("--resume", words[5])]
    denoiser.run(parser.parse_args([*anew, "--steps", "1"]))
    assert (tmp_path / denoiser.FILE).read_bytes() == longer
    assert f"{denoiser.FILE} is left alone" in capsys.readouterr().out
    assert str(tmp_path) not in str(card)
    assert "--level-weight 0.6" in card["command"]
    assert denoiser.FILE in (tmp_path / "README.md").read_text(encoding="utf-8")
    monkeypatch.setattr(priors, "CHECKPOINTS", tmp_path)
    assert denoisers.get("neural").available() is None
    x = torch.rand((1, 1, 16, 16), generator=torch.Generator().manual_seed(0))
    trained = network_of(priors.load(tmp_path / denoiser.FILE))
    assert (denoisers.load("neural", "cpu")(x, 0.1) - denoised(trained, x, 0.1)).abs().max() < 0.02


def test_missing_data_is_said_in_words(tmp_path: Path) -> None:
    with pytest.raises(InvalidSettings, match="--data"):
        NoisyPatches(None)
    with pytest.raises(InvalidSettings, match="bsds500"):
        NoisyPatches(tmp_path)


def test_an_official_file_that_is_not_there_is_said_in_words(tmp_path: Path) -> None:
    parser = ArgumentParser()
    denoiser.add_arguments(parser)
    with pytest.raises(MissingPrior, match="cannot be read"):
        denoiser.run(parser.parse_args(["--official", str(tmp_path / "drunet_color.pth")]))


@pytest.mark.skipif(not (priors.CHECKPOINTS / denoiser.FILE).is_file(), reason="the denoiser is not shipped here")
def test_the_shipped_denoiser_is_small_and_beats_total_variation() -> None:
    from netprior_core import examples

    path = priors.CHECKPOINTS / denoiser.FILE
    assert path.stat().st_size <= 4 * 2**20
    truth = examples.get("coffee").targets(size=96)[:1]
    for channels in (3, 1):
        clean = truth if channels == 3 else truth.mean(dim=1, keepdim=True)
        noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
        scores = [psnr(denoisers.get(n)(clean + 0.1 * noise, 0.1), clean).item() for n in ("neural", "tv")]
        assert scores[0] > scores[1] + 0.5
