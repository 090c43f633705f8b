"""The low-shot bench: one A and noise for all methods, no cached pre-training, resumed rows."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from netprior_core.bench import Report, low_shot
from netprior_core.errors import InvalidSettings
from netprior_core.methods.csdip import CSDIP
from netprior_core.methods.lowshot import LowShot


def _options(**changes: Any) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    low_shot.add_arguments(parser)
    options = parser.parse_args(["--images", "2", "--size", "16", "--sets", "coins", "--device", "cpu"])
    for name, value in changes.items():
        setattr(options, name, value)
    return options


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = {
        "Low-shot": LowShot(channels=4, latent=8, pretrain_iterations=5, latent_iterations=3, joint_iterations=3),
        "CS-DIP": CSDIP(channels=4, latent=8, iterations=4),
    }
    monkeypatch.setattr(low_shot, "methods", lambda quick, ratio: rows)


@pytest.mark.usefixtures("tiny")
def test_table_has_a_row_for_each_and_the_difference() -> None:
    report = Report("low-shot", {})
    low_shot.run(_options(), report)
    first, second, ahead = report.rows
    assert (first["method"], second["method"]) == ("Low-shot", "CS-DIP")
    assert first["shots"] == 10
    assert first["prepare_s"] > second["prepare_s"] == 0
    assert len(first["each"]) == 2
    assert ahead["over CS-DIP"] == pytest.approx(first["psnr"] - second["psnr"])


@pytest.mark.usefixtures("tiny")
def test_a_bench_cut_off_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "rows.json"
    low_shot.run(_options(), Report("low-shot", {"a": 1}, path))
    monkeypatch.setattr(low_shot, "_measure", lambda *_: pytest.fail("measured again"))
    report = Report("low-shot", {"a": 1}, path)
    low_shot.run(_options(), report)
    assert len(report.rows) == 3


def test_the_same_measurement_for_every_method_and_another_for_every_image() -> None:
    truth, shots = torch.rand(1, 1, 16, 16), torch.rand(3, 1, 16, 16)
    a, b, c = (low_shot._problem(truth, shots, _options(), seed) for seed in (0, 0, 1))
    assert torch.equal(a.measurement, b.measurement)
    assert not torch.equal(a.measurement, c.measurement)


def test_the_users_cache_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NETPRIOR_CACHE", "mine")
    with low_shot.cache_of({}):
        assert os.environ["NETPRIOR_CACHE"] != "mine"
    assert os.environ["NETPRIOR_CACHE"] == "mine"


def test_small_sets_and_missing_data_are_explained(tmp_path: Path) -> None:
    with pytest.raises(InvalidSettings, match="shots"):
        low_shot._images("astronaut", _options(), 8)
    with pytest.raises(InvalidSettings, match="celeba"):
        low_shot._images("celeba", _options(data=tmp_path), 8)
