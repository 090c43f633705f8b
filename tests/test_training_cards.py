"""The README of the checkpoints: what it makes of the cards, and that the shipped one is up to date."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from netprior_core import priors
from netprior_core.methods.metadip import MetaDIP, MetaSIREN
from netprior_core.training._cards import GAN_FLOOR, thinned, write_readme


def _rows(folder: Path, **card: Any) -> dict[str, str]:
    """The rows of the README for one file with this card."""
    priors.save(folder / "one.safetensors", {"network.w": torch.zeros(1)}, {"key": "k", "shape": [1, 8, 8], **card})
    lines = write_readme(folder).read_text(encoding="utf-8").splitlines()
    return dict(line.removeprefix("- **").split("**: ", 1) for line in lines if line.startswith("- **"))


def test_a_long_curve_is_thinned_evenly_with_both_ends() -> None:
    assert thinned(range(101)) == [0, 20, 40, 60, 80, 100]
    assert thinned([3, 4]) == [3, 4]
    assert thinned([]) == []


def test_a_generator_s_curve_has_its_floor_its_loss_and_how_the_examples_were_shown(tmp_path: Path) -> None:
    card = {
        "method": "gan",
        "loss": "non-saturating loss, R1 penalty",
        "shots": 9500,
        "mirrored": True,
        "metrics": {GAN_FLOOR: 23.9},
        "curve": [[1000 * i, 4.0 * i, 300.5 - i] for i in range(11)],
    }
    rows = _rows(tmp_path, **card)
    assert rows["Loss"] == "non-saturating loss, R1 penalty"
    assert rows["Examples"] == "9,500 and their mirror images"
    assert "300.5 after 0 min (step 0), 298.5 after 8 min (step 2,000)," in rows["Curve"]
    assert rows["Curve"].endswith("290.5 after 40 min (step 10,000); between two sets of real images 23.9")
    assert rows["Curve"].count("after") == 6
    rows = _rows(tmp_path, **{**card, "mirrored": False, "curve": []})
    assert not {"Examples", "Curve"} & set(rows)


def test_mirrored_examples_of_a_low_shot_prior_are_said(tmp_path: Path) -> None:
    assert _rows(tmp_path, shots=10, settings={"mirror": True})["Examples"] == "10 and their mirror images"
    assert "Examples" not in _rows(tmp_path, shots=10, settings={"mirror": False})


def test_a_projector_s_curve_is_shown_at_every_noise(tmp_path: Path) -> None:
    curve = [[996, 4.0, 21.17, 21.0, 20.5, 20.0, 19.0, 17.68], [1512, 6.0, 21.77, 21.5, 21.0, 20.5, 19.5, 17.88]]
    words = _rows(tmp_path, method="projector", curve=curve)["Curve"]
    assert "at noise 0 / 0.1 / 0.5 / 1 / 2 / 4: 21.17 / 21.00 / 20.50 / 20.00 / 19.00 / 17.68 dB after 4 min (step 996)" in words
    assert words.endswith("17.88 dB after 6 min (step 1,512)")


@pytest.mark.parametrize(("method", "name"), [("edip", "mean on held-out pairs"), ("denoiser", "mean of all these")])
def test_the_mean_over_held_out_pictures_is_shown_once(tmp_path: Path, method: str, name: str) -> None:
    metrics = {name: "26.44 dB after 3 min", "other": 1}
    rows = _rows(tmp_path, method=method, metrics=metrics, curve=[[3.0, 323, 26.4], [14.9, 1250, 28.16]])
    assert rows["Measured"] == "other 1"
    assert rows["Curve"].endswith("26.40 dB after 3 min (step 323), 28.16 dB after 14.9 min (step 1,250)")


def test_a_meta_learned_start_s_curve_is_its_validation_at_two_numbers_of_inner_steps(tmp_path: Path) -> None:
    history = [
        {"step": step, "seconds": 60 * step, "psnr": {n: {5: 20.0, 20: 25.0 + step, 50: 29.0 + step} for n in "abc"}}
        for step in (0, 1, 2)
    ]
    words = _rows(tmp_path, validation=history)["Curve"]
    first, second = words.split("; ")
    assert first.startswith(
        "a, PSNR after 20 / 50 inner steps: 25.00 / 29.00 dB after 0 min (step 0), 26.00 / 30.00 dB after 1 min"
    )
    assert second.startswith("b, ")


def test_what_differs_from_the_paper_is_said(tmp_path: Path) -> None:
    shape = [3, 64, 64]
    assert (
        "crops of 64×64, the paper's on 128×128" in _rows(tmp_path, shape=shape, settings={"kind": "metadip"})["Beside the paper"]
    )
    siren = {"settings": {"kind": "metasiren"}, "layers": 5, "width": 128, "omega": 30.0}
    words = _rows(tmp_path, shape=shape, **siren)["Beside the paper"]
    assert "with 5 layers of 128 units, ω0 = 30.0; the paper's" in words
    assert words.endswith("learnit's 5 layers of 256 units, ω0 = 200")
    assert "Beside the paper" not in _rows(tmp_path)


def test_the_docstrings_of_the_meta_learned_say_what_their_files_are() -> None:
    dip, siren = (priors.card_of(priors.CHECKPOINTS / f"{name}-faces.safetensors") for name in ("metadip", "metasiren"))
    assert dip["shape"] == siren["shape"] == [3, 64, 64]
    assert "64×64 crops" in (MetaDIP.__doc__ or "")
    own = f"{siren['layers']} layers of {siren['width']} units and ω0 = {siren['omega']:g}"
    assert own in " ".join((MetaSIREN.__doc__ or "").split())


def test_the_shipped_readme_is_what_the_cards_say(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    for path in priors.CHECKPOINTS.glob("*.safetensors"):
        (folder / path.name).symlink_to(path)
    shipped = (priors.CHECKPOINTS / "README.md").read_text(encoding="utf-8")
    without = write_readme(folder).read_text(encoding="utf-8")
    (tmp_path / "assets").symlink_to(priors.CHECKPOINTS.parent / "assets")
    assert write_readme(folder).read_text(encoding="utf-8") == shipped
    # Sheets are linked where they are, one for each GAN.
    assert "- **Samples**" not in without
    linked = re.findall(r"^- \*\*Samples\*\*: \[drawn at random\]\((.+)\)$", shipped, re.MULTILINE)
    assert linked == ["../assets/gan_celeba_samples.png", "../assets/gan_mnist_samples.png"]
    for link in linked:
        assert (priors.CHECKPOINTS / link).is_file()
    for name in ("gan-", "projector-", "metadip-", "metasiren-", "edip-", "denoiser-"):
        for part in shipped.split("\n## ")[1:]:
            if part.startswith(name):
                assert "- **Curve**: " in part, part.splitlines()[0]
