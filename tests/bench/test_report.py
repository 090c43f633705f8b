"""The rows of a bench and the file they are kept in."""

from __future__ import annotations

from pathlib import Path

import pytest

from netprior_core.bench import Report
from netprior_core.errors import InvalidSettings


def test_rows_of_other_settings_are_not_written_over(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    Report("speed", {"size": 1}, path).row("a", ms=1.0)
    before = path.read_text()
    for report in (Report("speed", {"size": 2}, path), Report("edip", {"size": 1}, path)):
        with pytest.raises(InvalidSettings, match="name another file"):
            report.cached("a")
        with pytest.raises(InvalidSettings, match="name another file"):
            report.row("b", ms=2.0)
    assert path.read_text() == before
    in_parts = Report("speed", {"size": 2}, path)
    in_parts.in_parts({"size": 1})  # what decides after all
    assert in_parts.cached("a") == {"key": "a", "ms": 1.0}
