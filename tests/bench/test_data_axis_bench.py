"""The data-axis bench: parts that add up, one A and noise for all methods, three answers in words; and colorization."""

from __future__ import annotations

import argparse
import io
import json
import os
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from netprior_core import priors
from netprior_core.bench import Report, _colorization, _data_axis, low_shot
from netprior_core.bench._data_axis import Row
from netprior_core.errors import InvalidSettings
from netprior_core.methods._shots import Pretrained, build
from netprior_core.methods.csdip import CSDIP
from netprior_core.methods.dip import DeepImagePrior
from netprior_core.methods.lowshot import LowShot
from netprior_core.training._collections import COLLECTIONS

SIDE = 16


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a tiny collection of faces and three tiny priors; methods take a few steps."""
    faces = replace(COLLECTIONS["celeba"], archive="faces.zip", first_held_out=10, crop=None)
    monkeypatch.setitem(COLLECTIONS, "celeba", faces)
    monkeypatch.setattr(_data_axis, "SIZE", SIDE)
    monkeypatch.setattr(_data_axis, "QUICK", {"latent_iterations": 2, "joint_iterations": 2, "pretrain_iterations": 2})
    random = np.random.default_rng(0)
    with zipfile.ZipFile(tmp_path / "faces.zip", "w") as archive:
        for i in range(12):
            file = io.BytesIO()
            Image.fromarray(random.integers(0, 255, (SIDE, SIDE, 3), np.uint8)).save(file, "PNG")
            archive.writestr(f"{i:03}.png", file.getvalue())
    for shots, loss in ((5, "mmd"), (10, "mmd"), (10, "l2")):
        method = LowShot(channels=4, latent=8, loss=loss)  # type: ignore[arg-type]
        tensors = Pretrained(build((3, SIDE, SIDE), 8, 4).state_dict(), torch.randn(shots, 8)).tensors()
        card = {**method.card(torch.zeros(shots, 3, SIDE, SIDE)), "key": f"{shots}-{loss}"}
        priors.save(tmp_path / f"lowshot-celeba-{shots}-{loss}.safetensors", tensors, card)
    return tmp_path


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """The untrained methods take three iterations."""
    monkeypatch.setattr(CSDIP, "presets", {name: {"iterations": 3, "channels": 4} for name in CSDIP.presets})
    monkeypatch.setattr(DeepImagePrior, "presets", {"1000 iterations": {"iterations": 3, "channels": 4}})
    low = {name: {**changes, **_data_axis.QUICK, "channels": 4} for name, changes in LowShot.presets.items()}
    monkeypatch.setattr(LowShot, "presets", low)


def _options(place: Path, *words: str, quick: bool = False) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    low_shot.add_arguments(parser)
    options = parser.parse_args(["--data", str(place), "--priors", str(place), "--device", "cpu", *words])
    options.quick = quick
    return options


@pytest.mark.usefixtures("few")
def test_parts_add_up_and_nothing_is_measured_twice(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = place / "axis.json"
    words = ["--axis", "--images", "2", "--sigmas", "0"]
    low_shot.run(_options(place, *words, "--ratios", "0.1", "--methods", "10 shots"), Report("low-shot", {"a": 1}, file))
    solved = _data_axis._solve
    done: list[tuple[Any, ...]] = []

    def watched(row: Row, truth: torch.Tensor, shots: torch.Tensor, ratio: float, sigma: float, image: int) -> dict[str, Any]:
        done.append((row.title, ratio, image))
        return solved(row, truth, shots, ratio, sigma, image)

    monkeypatch.setattr(_data_axis, "_solve", watched)
    report = Report("low-shot", {"a": 2}, file)
    low_shot.run(_options(place, *words, "--ratios", "0.1", "0.3"), report)
    assert len(done) == len(set(done)) == 2 * (4 + 11)  # at 0.1 the seven with ten shots were there
    assert not [one for one in done if one[1] == 0.1 and "10 shots" in one[0]]
    assert [one[2] for one in done] == sorted(one[2] for one in done)  # all methods of the first image first
    assert [one[0] for one in done if one[1:] == (0.3, 0)][-2:] == ["CS-DIP, untrained", "DIP, untrained"]
    low_shot.run(_options(place, *words, "--ratios", "0.3"), Report("low-shot", {"a": 3}, file))
    rows = json.loads(file.read_text())["rows"]
    assert sum("key" in row for row in rows) == 2 * 2 * 11  # rows of 0.1 stay though only 0.3 was asked for
    (mean,) = [row for row in rows if "key" not in row and row["method"] == "10 shots, l2, solved as published"]
    each = [row["psnr"] for row in rows if "key" in row and row["method"] == mean["method"] and row["ratio"] == 0.1]
    assert mean["m/n 0.1"] == pytest.approx(sum(each) / 2, abs=0.006)
    assert mean["images"] == 2


@pytest.mark.usefixtures("few")
def test_a_prior_learned_anew_is_measured_anew(place: Path) -> None:
    before = {row.title: row.stamp for row in _data_axis.rows(place)}
    path = place / "lowshot-celeba-5-mmd.safetensors"
    prior = priors.load(path)
    priors.save(path, prior.tensors, {**prior.card, "key": "another"})
    after = {row.title: row.stamp for row in _data_axis.rows(place)}
    assert [title for title in before if before[title] != after[title]] == ["5 shots, mmd, solved as published"]


def test_as_published_means_the_papers_iterations_and_ours_has_as_many_at_most(place: Path) -> None:
    rows = {row.title: row.method for row in _data_axis.rows(place)}
    published, ours = rows["10 shots, mmd, solved as published"], rows["10 shots, mmd, ours"]
    assert isinstance(published, LowShot)
    assert isinstance(ours, LowShot)
    assert (published.latent_iterations, published.joint_iterations, published.tv_weight) == (1250, 350, 0)
    assert ours.latent_iterations + ours.joint_iterations <= 1600
    assert ours.prior == published.prior


def test_the_papers_untrained_baseline_stops_the_earlier_the_less_was_measured(place: Path) -> None:
    rows = {row.title: row.method for row in _data_axis.rows(place)}
    baseline, other = rows["CS-DIP as in the low-shot paper, untrained"], rows["CS-DIP, untrained"]
    found = [_data_axis._at(baseline, ratio) for ratio in (0.02, 0.1, 0.75)]
    assert [method.iterations for method in found if isinstance(method, CSDIP)] == [350, 500, 1000]
    assert all(method.layers == "dcgan" and method.channels == LowShot().channels for method in found if isinstance(method, CSDIP))
    assert _data_axis._at(other, 0.02) == other


def test_the_same_measurement_for_every_method_and_another_for_every_image() -> None:
    truth = torch.rand(1, 3, SIDE, SIDE)
    a, b, c = (_data_axis.sensed(truth, 0.1, 10, image) for image in (0, 0, 1))
    assert torch.equal(a.measurement, b.measurement)
    assert not torch.equal(a.measurement, c.measurement)
    clean = _data_axis.sensed(truth, 0.1, 0, 0)
    noise = (a.measurement - clean.measurement).std().item()
    assert noise == pytest.approx(10 / 255, rel=0.4)
    assert clean.shots is None


def test_the_files_of_the_folder_are_measured_and_the_cache_is_left_alone(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NETPRIOR_CACHE", "mine")
    path = place / "lowshot-celeba-5-mmd.safetensors"
    with _data_axis.cache_of(_data_axis.named_files(place)):
        assert priors.named(_data_axis.name_of(path)).card["key"] == "5-mmd"
    assert os.environ["NETPRIOR_CACHE"] == "mine"


def _table(scores: dict[str, list[float]], ratios: list[float]) -> tuple[dict[str, dict[str, Any]], list[Row]]:
    kinds = {"5": (5, "mmd"), "10": (10, "mmd"), "25": (25, "mmd"), "DIP": (0, ""), "CS-DIP": (0, "")}
    table = [Row(name, LowShot(), *kinds[name], _data_axis.SOLVED, "x", f"{name} it") for name in scores]
    known = {}
    for row in table:
        for ratio, value in zip(ratios, scores[row.title], strict=True):
            for image in range(2):
                cell = {"ratio": ratio, "sigma": 0.0, "psnr": value + image}
                known[_data_axis._key(row, ratio, 0.0, image)] = {**cell, "seconds": 1.0}
    return known, table


def test_three_answers_in_words() -> None:
    scores = {"5": [20.0, 21.0], "10": [21.0, 20.5], "25": [22.0, 23.0], "DIP": [19.0, 22.0], "CS-DIP": [18.0, 18.0]}
    lines = _data_axis.conclusions(*_table(scores, [0.05, 0.1]))
    differently = "Learned differently: 5 shots 5 it, 10 shots 10 it, 25 shots 25 it."
    assert f"no noise, m/n = 0.05, mmd: grows with S (5 → 10: +1.00, 10 → 25: +1.00 dB). {differently}" in lines
    assert any("m/n = 0.1, mmd: does not grow with S everywhere (5 → 10: -0.50" in line for line in lines)
    assert "no noise, m/n = 0.05: 10 − DIP: +2.00 dB. Goal 1.5 dB at m/n ≤ 0.05: reached." in lines
    assert "no noise, m/n = 0.1: 10 − DIP: -1.50 dB." in lines
    assert any("10: untrained is ahead from m/n = 0.1" in line for line in lines)
    assert any("25: untrained never overtakes" in line for line in lines)


def test_methods_are_compared_on_the_images_that_both_have() -> None:
    known, table = _table({"10": [21.0], "DIP": [19.0]}, [0.05])
    del known[_data_axis._key(table[1], 0.05, 0.0, 1)]  # the easier one
    assert _data_axis.ahead(known, table[0], table[1], 0.05, 0.0) == pytest.approx(2.0)
    assert _data_axis.ahead({}, table[0], table[1], 0.05, 0.0) is None


def test_wrong_words_are_explained(place: Path) -> None:
    with pytest.raises(InvalidSettings, match="10 shots, mmd, ours"):
        low_shot.run(_options(place, "--axis", "--images", "2", "--methods", "nonsense"), Report("low-shot", {}))
    (place / f"{_colorization.PRIOR}.safetensors").unlink()
    with pytest.raises(InvalidSettings, match="--priors"):
        low_shot.run(_options(place, "--colorization", "--images", "2"), Report("low-shot", {}))


@pytest.mark.usefixtures("few")
def test_colorization_scores_every_method_and_draws_the_sheet(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report, sheet = Report("low-shot", {}), place / "sheet.png"
    low_shot.run(_options(place, "--colorization", "--images", "2", "--sheet", str(sheet)), report)
    titles = [_colorization.GREY, _colorization.PUBLISHED, _colorization.OURS, _colorization.NETWORK, _colorization.DIP]
    assert [row["method"] for row in report.rows if row["image"] == "mean"] == titles
    grey = [row["psnr"] for row in report.rows if row["method"] == _colorization.GREY]
    assert grey[-1] == pytest.approx(sum(grey[:2]) / 2, abs=0.02)
    with Image.open(sheet) as picture:
        assert picture.size == (2 * SIDE + 2, 5 * SIDE + 8)
        pixels = np.asarray(picture).astype(int)
    second = pixels[SIDE + 2 : 2 * SIDE + 2, :SIDE]
    assert np.ptp(second, axis=2).max() == 0  # luma is grey
    assert np.ptp(pixels[:SIDE, :SIDE], axis=2).max() > 50  # truth is not
    assert "Goal 3 dB" in capsys.readouterr().out
