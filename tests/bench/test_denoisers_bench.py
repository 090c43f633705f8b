"""The benches of denoisers and plug-and-play: conventions, what is cached, what the search keeps."""

from __future__ import annotations

import io
import json
import zipfile
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from netprior_core import denoisers
from netprior_core.bench import Report, plug_and_play
from netprior_core.bench import denoisers as bench
from netprior_core.denoisers import Denoiser
from netprior_core.errors import InvalidSettings, Unsolvable


def _options(module: Any, *words: str, quick: bool = False) -> Namespace:
    parser = ArgumentParser()
    module.add_arguments(parser)
    return Namespace(**vars(parser.parse_args([*words, "--device", "cpu"])), quick=quick)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "restoration").mkdir()
    for name, mode in (("cbsd68", "RGB"), ("set12", "L")):
        with zipfile.ZipFile(tmp_path / "restoration" / f"{name}.zip", "w") as archive:
            for i in range(2):
                pixels = np.random.default_rng(i).integers(0, 255, (12, 16, 3), dtype=np.uint8)
                buffer = io.BytesIO()
                Image.fromarray(pixels).convert(mode).save(buffer, "PNG")
                archive.writestr(f"{name}/{i}.png", buffer.getvalue())
    return tmp_path


def test_grey_is_that_of_bsd68() -> None:
    x = torch.tensor([10, 200, 31]).view(1, 3, 1, 1) / 255
    expected = np.floor(0.298936 * 10 + 0.587043 * 200 + 0.114021 * 31 + 0.5)
    assert (bench.grey(x) * 255).item() == pytest.approx(expected)
    white = torch.ones(1, 3, 2, 2)
    assert torch.equal(bench.grey(white), torch.ones(1, 1, 2, 2))


def test_every_picture_at_every_level_once_and_then_from_the_file(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[tuple[int, ...], float]] = []

    def noting(x: torch.Tensor, sigma: float) -> torch.Tensor:
        asked.append((tuple(x.shape), sigma))
        return x

    monkeypatch.setitem(denoisers.DENOISERS, "tv", Denoiser("tv", "Nothing", lambda: None, lambda device: noting))
    path = data / "rows.json"
    words = ["--data", str(data), "--denoisers", "tv"]
    bench.run(_options(bench, *words, "--sets", "CBSD68"), Report("denoisers", {}, path))
    assert len(asked) == 2 * 3
    bench.run(_options(bench, *words), Report("denoisers", {}, path))
    assert len(asked) == 3 * 2 * 3, "earlier rows are not computed again"
    assert {shape[1] for shape, _ in asked} == {1, 3}
    rows = json.loads(path.read_text())["rows"]
    for row in rows:
        if "image" in row:  # nothing was removed: the PSNR is that of the noise, which is not clipped before (the estimate is)
            assert -20 * np.log10(row["sigma"] / 255) <= row["psnr"] + 0.5
    means = [row for row in rows if row.get("method") == "Nothing"]
    assert {row["set"] for row in means} == {"CBSD68", "BSD68", "Set12"}
    assert all(row["σ=15"] > row["σ=25"] > row["σ=50"] for row in means)
    with pytest.raises(InvalidSettings, match="no restoration"):
        bench.run(_options(bench, "--denoisers", "tv"), Report("denoisers", {}))


def test_plug_and_play_quick_runs_without_weights(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(
        denoisers.DENOISERS, "neural", Denoiser("neural", "Small DRUNet", lambda: "not here.", lambda device: lambda x, sigma: x)
    )
    report = Report("plug-and-play", {})
    plug_and_play.run(_options(plug_and_play, "--methods", "pnp-admm", "--columns", "CS 1/4", quick=True), report)
    assert "total variation instead" in capsys.readouterr().out
    (line,) = [row for row in report.rows if "line" in row]
    assert line["line"] == "PnP-ADMM + Total variation"
    assert line["CS 1/4 faces"] > 10
    with pytest.raises(Unsolvable, match="not here"):
        plug_and_play.run(_options(plug_and_play), Report("plug-and-play", {}))


def test_the_search_ends_at_settings_no_worse_than_the_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plug_and_play, "TUNED_SIDE", 24)
    monkeypatch.setitem(plug_and_play.TUNED_ON, "inpainting", [({"keep": 0.3}, 5)])
    monkeypatch.setitem(plug_and_play.GRIDS, "dpir", {"weight": (0.05, 0.5), "last": (0.5, 2), "iterations": (4,)})
    report = Report("plug-and-play", {})
    plug_and_play.run(_options(plug_and_play, "--tune", "inpainting", "--methods", "dpir", "--denoiser", "tv"), report)
    (row,) = report.rows
    assert row["tuned"] >= row["default"] > 5
    assert set(row["settings"]) == {"weight", "last", "iterations"}


def test_the_recorded_command_searches_on_what_the_table_was_found_with() -> None:
    red, others = (list(plug_and_play._cases(name, "deblurring", torch.device("cpu"))) for name in ("red", "dpir"))
    assert [problem.operator.width for problem, _ in red] == [2, 2, 2, 2]
    assert [problem.operator.width for problem, _ in others] == [2, 2, 9, 9]
