"""``bench stopping``: parts add up."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest

from netprior_core.bench import Report, stopping


def _options(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    stopping.add_arguments(parser)
    return parser.parse_args(list(words))


def test_parts_add_up_to_one_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[tuple[str, ...]] = []

    def run(method: Any, title: str, name: str, sigma: float, group: str, size: int, device: Any) -> dict[str, Any]:
        runs.append((group, title, name))
        rule = {"watching": "WMV", "sure": "SURE"}[group]
        return {"method": title, "lost": {rule: float(len(runs))}, "fired": {rule: len(runs) % 2 == 0}}

    monkeypatch.setattr(stopping, "_run", run)
    monkeypatch.setattr(stopping, "_cost", lambda **_: {"cost_percent": 0.0})
    path = tmp_path / "rows.json"

    def bench(*words: str) -> list[dict[str, Any]]:
        report = Report("stopping", {"quick": False}, path)
        stopping.run(_options(*words), report)
        return [row for row in report.rows if "lost_db" in row]

    first = bench("--rules", "watching", "--images", "cat", "--methods", "DIP")
    assert runs == [("watching", "DIP", "cat")] * 2
    assert [(r["method"], r["rule"], r["lost_db"], r["worst_db"], r["never_fired"]) for r in first] == [("DIP", "WMV", 1.5, 2.0, 1)]
    both = bench("--rules", "sure", "--images", "cat", "coffee", "--methods", "DIP")
    assert runs[2:] == [("sure", "DIP", "cat")] * 2 + [("sure", "DIP", "coffee")] * 2
    assert [(r["rule"], r["runs"]) for r in both] == [("WMV", 2), ("SURE", 4)]
    bench("--rules", "sure", "watching", "--images", "cat", "--methods", "DIP")
    assert len(runs) == 6  # all of it was known
