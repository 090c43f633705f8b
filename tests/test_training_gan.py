"""Training GANs and projectors: exact resuming, cards, files that methods find, and the distances that judge them."""

from __future__ import annotations

import argparse
import gzip
import io
import math
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from netprior_core import generators, priors
from netprior_core.errors import InvalidSettings
from netprior_core.networks.critic import Critic, Projector
from netprior_core.networks.seeded import seeded
from netprior_core.training import _gan_data, gan, projector
from netprior_core.training._collections import COLLECTIONS, Collection
from netprior_core.training._gan_data import Images, nearest, signed, sliced_wasserstein

CPU = torch.device("cpu")


@pytest.fixture
def few() -> Images:
    levels = torch.randint(0, 256, (24, 1, 16, 16), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return Images("few", "A few, GAN (16)", "images 1 to 16", "free", levels[:16], levels[16:], True)


@pytest.fixture
def collection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    rng = np.random.default_rng(0)
    with zipfile.ZipFile(tmp_path / "few.zip", "w") as archive:
        for i in range(12):
            buffer = io.BytesIO()
            Image.fromarray(rng.integers(0, 256, (20, 24, 3), dtype=np.uint8)).save(buffer, "PNG")
            archive.writestr(f"few/{i:03}.png", buffer.getvalue())
    monkeypatch.setitem(COLLECTIONS, "few", Collection("few.zip", "A few", "free", 3, 8, (2, 0, 22, 20)))
    monkeypatch.setattr(gan, "SHEET", 2)
    return tmp_path


def _options(module: object, *words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    module.add_arguments(parser)  # type: ignore[attr-defined]
    return parser.parse_args([*words, "--device", "cpu", "--batch", "4", "--channels", "4", "--minutes", "1"])


def _same(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


@pytest.mark.parametrize(("loss", "optimiser"), [("r1", "muon"), ("r1", "adam"), ("wgan-gp", "adam")])
def test_a_run_in_two_parts_is_the_run(few: Images, loss: str, optimiser: str, tmp_path: Path) -> None:
    same = {"loss": loss, "optimiser": optimiser, "channels": 4}
    whole, part = (gan.Trainer(few, CPU, batch=4, **same) for _ in range(2))
    for _ in range(11):
        whole.advance()
    for _ in range(6):
        part.advance()
    part.keep(tmp_path / "state")
    rest = gan.Trainer(few, CPU, batch=4, **same)
    rest.resume(tmp_path / "state")
    for _ in range(5):
        rest.advance()
    assert rest.step == whole.step == 11
    assert _same(rest.generator, whole.generator)
    assert _same(rest.critic, whole.critic)
    assert _same(rest.average, whole.average)
    assert not _same(rest.average, part.average)
    other = "adam" if optimiser == "muon" else "muon"
    with pytest.raises(InvalidSettings, match=f"settings: optimiser {optimiser}, not {other}; channels 4, not 8; batch 4, not 2"):
        gan.Trainer(few, CPU, loss=loss, optimiser=other, channels=8, batch=2).resume(tmp_path / "state")


@pytest.mark.parametrize("module", [gan, projector])
def test_what_is_no_number_any_more_is_said_and_never_kept(few: Images, module: Any) -> None:
    trainer = gan.Trainer(few, CPU, channels=4, batch=4)
    if module is projector:
        trainer.judge()
        weights = {name.removeprefix("network."): value for name, value in trainer.tensors().items()}
        trainer = projector.Trainer(generators.Drawing(weights, (1, 16, 16), gan.LATENT, 4), CPU, channels=4, batch=4)
    trainer.judge()
    for weight in trainer.average.parameters():
        weight.fill_(torch.nan)
    with pytest.raises(InvalidSettings, match="no numbers any more"):
        trainer.judge()
    assert len(trainer.curve) == 1


def test_a_mirrored_copy_is_a_copy(few: Images, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = gan.Trainer(few, CPU, channels=4, batch=4)
    monkeypatch.setattr(trainer, "draw", lambda count, seed: signed(few.train[:count].flip(-1)))
    found, _ = trainer.copies()
    assert found["rms distance to the nearest training image, mirrored or not, samples: median (least)"].startswith("0.000")


def _drawing(seed: int = 0) -> generators.Drawing:
    return generators.Drawing(seeded(lambda: gan.build((1, 16, 16), 8, 4), seed).state_dict(), (1, 16, 16), 8, 4)


def test_a_resumed_projector_takes_the_rate_it_is_given_and_its_command_says_both(tmp_path: Path) -> None:
    first, second, third = (projector.Trainer(_drawing(), CPU, channels=4, batch=4, learning_rate=r) for r in (1e-3, 1e-4, 1e-4))
    first.advance()
    first.keep(tmp_path / "state")
    second.resume(tmp_path / "state")
    assert (second.muon.rate, second.muon.other_rate) == (1e-3, 1e-4)
    torch.testing.assert_close(second.muon.velocity, first.muon.velocity)
    second.advance()
    assert second.muon.adam is not None
    assert [group["lr"] for group in second.muon.adam.param_groups] == [1e-4 * gan.faded(1)]
    second.keep(tmp_path / "state")
    third.resume(tmp_path / "state")
    third.advance()
    one, two = third.command("train").split(" && ")
    assert "--learning-rate 0.001 " in one
    assert one.endswith("--steps 1 --minutes 6000")
    assert "--learning-rate 0.0001 " in two
    assert two.endswith("--steps 3 --minutes 6000 --resume")


def test_a_projector_goes_on_with_a_later_generator_and_its_card_says_so_but_not_with_another_batch(tmp_path: Path) -> None:
    first = projector.Trainer(_drawing(), CPU, channels=4, batch=4)
    first.advance()
    first.keep(tmp_path / "state")
    same, later = (projector.Trainer(_drawing(seed), CPU, channels=4, batch=4) for seed in (0, 1))
    for trainer in (same, later):
        trainer.resume(tmp_path / "state")
        trainer.advance()
        trainer.judge()
    assert "earlier" not in same.card("")["data"]
    assert "up to step 1 an earlier version" in later.card("")["data"]
    later.keep(tmp_path / "state")
    again = projector.Trainer(_drawing(1), CPU, channels=4, batch=4)
    again.resume(tmp_path / "state")
    assert "up to step 1 an earlier version" in again.card("")["data"]
    with pytest.raises(InvalidSettings, match="batch 4, not 8"):
        projector.Trainer(_drawing(), CPU, channels=4, batch=8).resume(tmp_path / "state")


@pytest.mark.parametrize("module", [gan, projector])
def test_a_damaged_or_foreign_state_is_refused_in_words(few: Images, module: Any, tmp_path: Path) -> None:
    def trainer() -> Any:
        if module is gan:
            return gan.Trainer(few, CPU, channels=4, batch=4)
        return projector.Trainer(_drawing(), CPU, channels=4, batch=4)

    path = tmp_path / "one.state"
    trainer().keep(path)
    whole, kept = path.read_bytes(), torch.load(path, weights_only=True)
    for data in (b"", b"nothing of the kind", whole[: len(whole) // 2], pickle.dumps(path, 2)):
        path.write_bytes(data)
        with pytest.raises(InvalidSettings, match=r"one\.state is not the state of a training run"):
            trainer().resume(path)
    for foreign in ([1, 2], {"made": kept["made"]}, {**kept, "modules": {}, "projector": {}}):
        torch.save(foreign, path)
        with pytest.raises(InvalidSettings, match=r"one\.state is not the state of a training run"):
            trainer().resume(path)
    torch.save({**kept, "made": {n: v for n, v in kept["made"].items() if n != "batch"}}, path)
    with pytest.raises(InvalidSettings, match="batch not noted, not 4"):
        trainer().resume(path)
    torch.save({n: v for n, v in kept.items() if n != "made"}, path)
    with pytest.raises(InvalidSettings, match="does not say what its run was made with"):
        trainer().resume(path)


def test_no_limit_reaches_the_held_out_images(collection: Path) -> None:
    whole, more = (_gan_data.load("few", collection, 16, limit) for limit in (0, 11))
    assert len(more.train) == len(whole.train) == 8
    assert more.title == whole.title


@pytest.mark.parametrize("optimiser", ["muon", "adam"])
def test_the_critic_learns_to_tell_apart_and_the_generator_to_answer(
    few: Images, optimiser: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(gan.LOSSES["r1"], "rate", 2e-3)
    flat = Images("flat", "", "", "", torch.full_like(few.train, 230), torch.full_like(few.held_out, 230), False)
    trainer = gan.Trainer(flat, CPU, optimiser=optimiser, channels=4, batch=8)
    before = trainer.judge()
    start = float(trainer.draw(8).mean())
    for _ in range(120):
        trainer.advance()
    assert trainer.judge() < before
    assert float(trainer.draw(8).mean()) > start + 0.2  # towards 230/127.5 − 1
    assert [entry[0] for entry in trainer.curve] == [0, 120]


def test_rates_fall_for_ever_and_the_average_looks_back_further() -> None:
    assert gan.faded(0) == 1
    assert gan.faded(3 * gan.FADE) == 0.5
    for step in (1000, 50_000):
        assert math.prod(gan.kept(s) for s in range(round(0.93 * step), step)) == pytest.approx(0.5, rel=0.05)


def test_the_penalty_is_the_squared_slope(few: Images) -> None:
    trainer = gan.Trainer(few, CPU, channels=4, batch=4)
    x = signed(few.train[:3])
    slopes = trainer._slopes(x)
    nudge = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    leaf = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(trainer.critic(leaf).sum(), leaf)
    moved = (trainer.critic(x + 1e-3 * nudge) - trainer.critic(x - 1e-3 * nudge))[:, 0] / 2e-3
    torch.testing.assert_close((gradient * nudge).sum(dim=(1, 2, 3)), moved.detach(), rtol=0.05, atol=1e-3)
    torch.testing.assert_close(slopes, gradient.flatten(1).norm(dim=1), rtol=1e-3, atol=1e-6)


def test_files_are_written_and_found_and_go_on(collection: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = collection / "out"
    words = ["--collection", "few", "--data", str(collection), "--size", "16", "--out", str(out), "--resume"]
    gan.run(_options(gan, *words, "--steps", "3"))
    gan.run(_options(gan, *words, "--steps", "5"))
    monkeypatch.setattr(priors, "CHECKPOINTS", out)
    monkeypatch.setenv("NETPRIOR_CACHE", str(collection / "cache"))
    card = generators.shipped()["gan-few"]
    assert (card["steps"], card["shape"], card["title"]) == (5, [3, 16, 16], "A few, GAN (8)")
    assert [entry[0] for entry in card["curve"]] == [3, 5]
    assert "--steps 5" in card["command"]
    assert "--size 16" in card["command"]
    assert "--limit" not in card["command"]
    assert str(collection) not in str(card)
    assert any("nearest training image" in name for name in card["metrics"])
    assert "gan-few" in (out / "README.md").read_text()
    drawing = generators.generator_for((3, 16, 16))
    assert drawing.latent == gan.LATENT
    with Image.open(out / "gan-few-samples.png") as picture:
        assert picture.size == (32, 32)
    projector.run(_options(projector, "--collection", "few", "--out", str(out), "--steps", "3", "--resume"))
    projector.run(_options(projector, "--collection", "few", "--out", str(out), "--steps", "4", "--resume"))
    found = priors.find(generators.projector_key(drawing.digest()))
    assert found is not None
    assert (found.card["steps"], found.card["name"]) == (4, "projector-few")
    assert [entry[0] for entry in found.card["curve"]] == [3, 4]
    with pytest.raises(InvalidSettings, match="other settings"):
        projector.run(_options(projector, "--collection", "few", "--out", str(out), "--resume", "--seed", "1"))


def test_a_projector_gets_nearer() -> None:
    network = seeded(lambda: gan.build((1, 16, 16), 8, 4), 0)
    gan.settle(network, torch.randn((64, 8), generator=torch.Generator().manual_seed(1)))
    drawing = generators.Drawing(network.state_dict(), (1, 16, 16), 8, 4)
    trainer = projector.Trainer(drawing, CPU, channels=8, batch=16, learning_rate=3e-3)
    trainer.judge()
    for _ in range(80):
        trainer.advance()
    trainer.judge()
    before, after = trainer.curve
    assert after[2] > before[2] + 1  # without noise
    assert after[2] > after[-1]  # noise costs


def test_a_projector_learns_from_real_images_too_and_says_so(few: Images) -> None:
    network = seeded(lambda: gan.build((1, 16, 16), 8, 4), 0)
    gan.settle(network, torch.randn((64, 8), generator=torch.Generator().manual_seed(1)))
    drawing = generators.Drawing(network.state_dict(), (1, 16, 16), 8, 4)
    both, samples = (
        projector.Trainer(drawing, CPU, channels=8, batch=16, real=real, images=few if real else None) for real in (0.75, 0.0)
    )
    for trainer in (both, samples):
        for _ in range(60):
            trainer.advance()
        trainer.judge()
    real = signed(few.train)

    def misfit(trainer: projector.Trainer) -> float:
        with torch.no_grad():
            drawn = trainer.generator(trainer.compute.activations(trainer.average(trainer.compute.activations(real))))
        return float((drawn - real).square().mean())

    assert misfit(both) < misfit(samples)
    assert both.curve[0][2] < samples.curve[0][2]  # what it costs on samples
    assert "and, 75% of each batch, images 1 to 16" in both.card("")["data"]
    assert any("8 held-out images" in name for name in both.metrics)
    assert not any("held-out" in name for name in samples.metrics)
    for share, images in ((0.5, None), (1.0, few), (-0.1, few)):
        with pytest.raises(InvalidSettings, match="--real"):
            projector.Trainer(drawing, CPU, real=share, images=images)


def test_the_projector_takes_any_noise() -> None:
    network = Projector(28, 28, 1, channels=4, latent=8).eval()
    strong = network(100 * torch.randn((2, 1, 28, 28), generator=torch.Generator().manual_seed(0)))
    assert strong.shape == (2, 8)
    assert float(strong.detach().abs().max()) < 10
    assert Critic(28, 28, 1, channels=4)(torch.zeros(3, 1, 28, 28)).shape == (3, 1)
    assert network(torch.zeros(1, 1, 28, 28)).dtype == torch.float32


def test_sliced_wasserstein_is_small_for_one_distribution_and_grows_with_difference() -> None:
    g = torch.Generator().manual_seed(0)
    a, b = (torch.randn((40, 1, 32, 32), generator=g) * 0.3 for _ in range(2))
    same, shifted, rougher = sliced_wasserstein(a, b), sliced_wasserstein(a + 0.2, b), sliced_wasserstein(2 * a, b)
    assert sliced_wasserstein(a, a.flip(0)) < 2 * same
    assert same < 0.2 * shifted
    assert same < 0.2 * rougher


def test_nearest_by_hand() -> None:
    levels = torch.tensor([0, 100, 255], dtype=torch.uint8).view(3, 1, 1, 1).expand(3, 1, 4, 4)
    found, index = nearest(signed(torch.tensor([110, 255], dtype=torch.uint8).view(2, 1, 1, 1).expand(2, 1, 4, 4)), levels)
    assert index.tolist() == [1, 2]
    assert found.tolist() == pytest.approx([10 / 255, 0.0], abs=1e-3)


def test_digits_are_read_and_refused_in_words(tmp_path: Path) -> None:
    (tmp_path / "mnist").mkdir()
    pixels = np.arange(2 * 28 * 28, dtype=np.uint8)
    header = np.array([2051, 2, 28, 28], dtype=">u4").tobytes()
    path = tmp_path / "mnist" / "t10k-images-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(header + pixels.tobytes()))
    found = _gan_data.digits(tmp_path, "t10k")
    assert found.shape == (2, 1, 28, 28)
    assert np.array_equal(found.numpy().ravel(), pixels)
    for cut in (path.read_bytes()[:-9], b"no gzip", gzip.compress(b"short")):
        path.write_bytes(cut)
        with pytest.raises(InvalidSettings, match="complete"):
            _gan_data.digits(tmp_path, "t10k")
    path.write_bytes(gzip.compress(header + pixels.tobytes()[:-1]))
    with pytest.raises(InvalidSettings, match="complete"):
        _gan_data.digits(tmp_path, "t10k")
    with pytest.raises(InvalidSettings, match="--data"):
        _gan_data.digits(tmp_path, "train")


@pytest.mark.parametrize("name", ["generators", "representation", "training.projector"])
def test_modules_can_be_imported_first(name: str) -> None:
    done = subprocess.run([sys.executable, "-c", f"import netprior_core.{name}"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_all_files_together_are_small() -> None:
    def size(module: torch.nn.Module) -> int:
        return 2 * sum(value.numel() for value in module.state_dict().values())  # fp16

    widths = []
    for module in (gan, projector):
        parser = argparse.ArgumentParser()
        module.add_arguments(parser)
        widths.append(parser.parse_args([]).channels)
    shapes = ((3, 64, 64), (1, 28, 28))
    total = sum(size(gan.build(shape, gan.LATENT, widths[0])) for shape in shapes)
    total += sum(size(Projector(h, w, c, channels=widths[1], latent=gan.LATENT)) for c, h, w in shapes)
    assert total < 6 * 2**20
    found = [*priors.CHECKPOINTS.glob("gan-*.safetensors"), *priors.CHECKPOINTS.glob("projector-*.safetensors")]
    assert sum(path.stat().st_size for path in found) <= 6 * 2**20
    for path in found:
        card = priors.card_of(path)
        assert card["name"] == path.stem
        for name in ("network", "data", "terms", "steps", "seed", "command", "metrics", "settings", "key", "curve"):
            assert card[name] not in ("", None), name
