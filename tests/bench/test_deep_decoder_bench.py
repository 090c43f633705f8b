"""The Deep Decoder bench: the published noise, resumed rows, no figure to reach at other sizes."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest

from netprior_core.bench import Report, deep_decoder
from netprior_core.bench.deep_decoder import Setting


def _options(**changes: Any) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    deep_decoder.add_arguments(parser)
    options = parser.parse_args(["--size", "32", "--iterations", "3", "--device", "cpu"])
    for name, value in changes.items():
        setattr(options, name, value)
    return options


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deep_decoder, "TABLE", (Setting(4, 30, False, 28.78), Setting(4, 25, True, 27.0)))


def test_the_table_holds_the_published_figures() -> None:
    wanted = {(row.k, row.sigma, row.equal): row.wanted for row in deep_decoder.TABLE}
    assert wanted == {(128, 30, False): 28.78, (32, 25, True): 27.00, (64, 25, True): 29.15, (128, 25, True): 29.22}


@pytest.mark.usefixtures("tiny")
def test_rows_at_another_size_name_no_figure_to_reach() -> None:
    report = Report("deep-decoder", {})
    deep_decoder.run(_options(), report)
    assert [row["channels"] for row in report.rows] == ["independent", "equal"]
    assert all("wanted" not in row and row["seconds"] > 0 for row in report.rows)


@pytest.mark.usefixtures("tiny")
def test_at_the_published_size_the_difference_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deep_decoder, "_measure", lambda *_: {"psnr": 28.7, "last": 28.0, "returns": 9, "seconds": 1.0})
    report = Report("deep-decoder", {})
    deep_decoder.run(_options(size=512, iterations=1900), report)
    assert [row["difference"] for row in report.rows] == pytest.approx([28.7 - 28.78, 1.7])


@pytest.mark.usefixtures("tiny")
def test_a_bench_cut_off_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "rows.json"
    deep_decoder.run(_options(), Report("deep-decoder", {"a": 1}, path))
    monkeypatch.setattr(deep_decoder, "_measure", lambda *_: pytest.fail("measured again"))
    report = Report("deep-decoder", {"a": 1}, path)
    deep_decoder.run(_options(), report)
    assert len(report.rows) == 2
