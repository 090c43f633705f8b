"""The learned-regularisation bench: the same problems with and without, resumed rows, the paper's table beside."""

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

from netprior_core.bench import Report
from netprior_core.bench import learned_regularisation as bench
from netprior_core.errors import InvalidSettings
from netprior_core.methods.csdip import CSDIP


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with seven small x-rays, image i all of level 10 i; the first three are to learn from."""
    monkeypatch.setattr(bench, "FIRST_VALIDATION", 3)
    path = tmp_path / bench.XRAYS
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w") as archive:
        for i in reversed(range(7)):
            picture = io.BytesIO()
            Image.fromarray(np.full((32, 32), 10 * i, np.uint8)).save(picture, "JPEG", quality=100)
            archive.writestr(f"xray/{i:03d}.jpg", picture.getvalue())
    return tmp_path


def _options(data: Path | None, *more: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    bench.add_arguments(parser)
    small = ["--size", "16", "--images", "2", "--learn", "2", "--iterations", "4", "--counts", "500", "--variances", "1000"]
    return parser.parse_args([*small, "--device", "cpu", *(["--data", str(data)] if data else []), *more])


@pytest.fixture(autouse=True)
def _tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    def method(form: str, options: argparse.Namespace) -> CSDIP:
        pull: Any = "none" if "none" in form else form
        return CSDIP(channels=4, latent=4, iterations=4, regularisation=pull, regularisation_weight=1.0, learning_rounds=10)

    monkeypatch.setattr(bench, "method", method)
    # 500 measurements of 256 values are refused: the table is looked up by the m that was asked for.
    problem = bench._problem

    def fewer(truth: torch.Tensor, shots: torch.Tensor, cell: dict[str, Any], size: int, seed: int) -> Any:
        return problem(truth, shots, {**cell, "m": 50}, size, seed)

    monkeypatch.setattr(bench, "_problem", fewer)


def test_rows_state_the_cut_beside_the_papers(data: Path) -> None:
    report = Report("learned-regularisation", {})
    bench.run(_options(data), report)
    none, released, other, published = report.rows
    assert [row["regularisation"] for row in report.rows] == ["none", "released", "published, none", "published"]
    assert none["learning_s"] == 0 < released["learning_s"]
    for row, without in ((released, none), (published, other)):
        assert row["cut_%"] == pytest.approx(100 * (1 - row["mse"] / without["mse"]))
        cuts = [100 * (1 - a / b) for a, b in zip(row["each"], without["each"], strict=True)]
        assert row["median_cut_%"] == pytest.approx(sum(cuts) / 2)
        assert "paper_cut_%" not in row  # the paper's pictures are larger
        assert len(row["each"]) == row["images"] == 2


def test_settings_follow_the_form_and_the_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    options = _options(None, "--learn", "10")
    options.size = 256
    released, published = (bench.method(form, options) for form in ("released", "published"))
    assert (released.latent, released.tv_weight, released.regularisation_weight) == (64, 0.05, 100)
    assert (published.latent, published.tv_weight, published.regularisation_weight) == (128, 0.01, 0.001)
    assert bench.method("published, none", options).regularisation == "none"
    options.size = 128
    small = bench.method("released", options)
    assert small.regularisation_weight == 25
    assert small.tv_weight == pytest.approx(0.05 / 1.57, rel=0.01)


def test_a_bench_cut_off_goes_on_where_it_was(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "rows.json"
    bench.run(_options(data), Report("learned-regularisation", {"a": 1}, path))
    monkeypatch.setattr(bench, "_measure", lambda *_: pytest.fail("measured again"))
    report = Report("learned-regularisation", {"a": 1}, path)
    bench.run(_options(data), report)
    assert len(report.rows) == 4


def test_images_learned_from_are_never_tested_on(data: Path) -> None:
    options = _options(data, "--learn", "9", "--images", "9")
    shots, targets = bench._images(options)
    levels = [(255 * images.mean(dim=(1, 2, 3))).round().tolist() for images in (shots, targets)]
    assert levels == [[0, 10, 20], [30, 40, 50, 60]]
    assert shots.shape[1:] == (1, 16, 16)


def test_noise_keeps_its_ratio_to_the_signal_at_other_sizes() -> None:
    truth, shots, cell = torch.rand(1, 1, 16, 16), torch.rand(2, 1, 16, 16), {"m": 500, "σ²": 1000}
    problem = bench._problem(truth, shots, cell, 16, 0)
    assert problem.model.m == 50
    # ‖x‖² falls with the number of pixels, and so must σ²; in [0, 1] units the standard deviation is σ / (2 √m).
    assert problem.noise_std == pytest.approx((1000 * (16 / 256) ** 2) ** 0.5 / (2 * 50**0.5))
    again, other = (bench._problem(truth, shots, cell, 16, seed) for seed in (0, 1))
    assert torch.equal(problem.measurement, again.measurement)
    assert not torch.equal(problem.measurement, other.measurement)


def test_missing_data_is_explained(tmp_path: Path) -> None:
    with pytest.raises(InvalidSettings, match="--data"):
        bench._images(_options(None))
    with pytest.raises(InvalidSettings, match="chest_xray"):
        bench._images(_options(tmp_path))
