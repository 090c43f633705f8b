"""CS-DIP's comparison on x-rays: rows are of the settings they were made with, and the figure is a picture."""

from __future__ import annotations

import argparse
import io
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from netprior_core.bench import Report, _classical_tuning, _unseen, _xrays, classical
from netprior_core.methods import _tuned


def _options(*more: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    classical.add_arguments(parser)
    options = parser.parse_args(["--parts", "xrays", "--device", "cpu", *more])
    options.quick = True
    return options


def test_rows_are_made_again_after_the_weights_were_tuned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []

    def measure(solver: Any, *_: Any) -> dict[str, Any]:
        made.append(solver.title)
        return {"mse": 0.01, "seconds": 1.0, "failed": ""}

    monkeypatch.setattr(_xrays, "_measure", measure)
    options = _options("--methods", "Lasso DCT", "--curve", str(tmp_path / "figure.png"))
    for weights, runs in (({}, 2), ({}, 2), ({"lasso": {"changed": 2.0}}, 4)):
        monkeypatch.setattr(_tuned, "WEIGHTS", {**_tuned.WEIGHTS, **weights})
        classical.run(options, Report("classical", {}, tmp_path / "rows.json"))
        assert len(made) == runs
    assert Image.open(tmp_path / "figure.png").format == "PNG"


def test_the_figure_takes_failed_runs_and_methods_of_fewer_counts() -> None:
    rows = [{"method": "a", "m": m, "mse": 1 / m, "failed": "" if m > 100 else "diverged"} for m in (100, 400)]
    picture = Image.open(io.BytesIO(_xrays.curve([*rows, {"method": "b", "m": 400, "mse": 0.1, "failed": ""}], 32)))
    assert picture.size[0] > 300


def test_tval3_is_measured_on_pictures_that_its_weights_were_not_searched_on() -> None:
    assert not set(_unseen.PICTURES) & set(_classical_tuning.PICTURES)
    report = Report("classical", {})
    _unseen.run(True, report)
    assert [row["operator"] for row in report.rows] == ["denoising", "inpainting"]
    assert report.rows[0]["TVAL3"] > report.rows[0]["TVAL3, published"] + 3
