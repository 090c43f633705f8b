"""Paper tables and speed, as commands: ``python -m netprior_core bench NAME [--quick] [--json FILE]``.

Each module (``low_shot.py`` is the bench ``low-shot``) has ``SUMMARY`` (one line), ``add_arguments(parser)`` and
``run(options, report)``, which calls ``report.row(...)`` as results come in.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch

from netprior_core.device import pick_device
from netprior_core.errors import InvalidSettings
from netprior_core.settings import Settings


def machine(device: torch.device | None = None) -> dict[str, Any]:
    """What the figures were measured on; ``device``: None is the CPU."""
    name = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    gpu = None
    if device is not None and device.type != "cpu":
        gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{device.type.upper()} of this machine"
    return {
        "cpu": name,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": gpu,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def machine_words(device: torch.device) -> str:
    """The device for a card: its name, or how many cores and threads of the processor."""
    known = machine(device)
    return known["gpu"] or f"{known['cores']}-core CPU, {known['threads']} thread" + ("s" if known["threads"] > 1 else "")


def stamp(settings: Settings, *parts: Any) -> str:
    """For a row's key: changes when the settings of a method do, or ``parts`` (of the card of what it starts from)."""
    text = json.dumps([settings.model_dump(mode="json"), *parts], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


class Titled(Protocol):
    """What is named by a title."""

    @property
    def title(self) -> str: ...


T = TypeVar("T", bound=Titled)


def called(title: str, words: Sequence[str]) -> bool:
    """Whether a title holds one of these words, in capitals or not."""
    return any(word.lower() in title.lower() for word in words)


def chosen(known: Sequence[T], words: Sequence[str]) -> list[T]:
    """Those that are :func:`called` so. Raises InvalidSettings, with the titles there are, when none is."""
    found = [one for one in known if called(one.title, words)]
    if not found:
        raise InvalidSettings(f"No method is called so. There are: {', '.join(one.title for one in known)}.")
    return found


class Report:
    """Rows of one bench: printed as they come, written as JSON after each, and cached so that a long bench resumes.

    The file is ``{"bench", "machine", "settings", "rows": [{column: value}]}``. ``cached(key)`` gives an earlier row
    made with the same settings, when a file was named and holds one.
    """

    def __init__(self, bench: str, settings: dict[str, Any], path: Path | None = None) -> None:
        self.bench, self.settings, self.path = bench, settings, path
        self.machine = machine(pick_device(str(settings.get("device") or "auto")))
        self.rows: list[dict[str, Any]] = []
        self._keeps = self._others = False
        self._old = self._read(settings)

    def _read(self, settings: dict[str, Any]) -> dict[str, dict[str, Any]]:
        """Rows by key of the file, if there is one made with these settings."""
        self._others = False
        if self.path is None or not self.path.exists():
            return {}
        known = json.loads(self.path.read_text())
        if known.get("bench") != self.bench or known.get("settings") != json.loads(json.dumps(settings)):
            self._others = bool(known.get("rows"))
            return {}
        return {row["key"]: row for row in known["rows"] if "key" in row}

    def in_parts(self, settings: dict[str, Any]) -> None:
        """From now on ``settings`` alone decide which earlier rows count, and those of parts not run this time stay in the file.

        For a bench whose options name a part of the work: leave these options out of ``settings``, and say in the key what a row
        depends on.
        """
        self.settings, self._old, self._keeps = settings, self._read(settings), True

    def known(self) -> dict[str, dict[str, Any]]:
        """Rows by key: those of this run and, in parts, the earlier ones."""
        mine = {row["key"]: row for row in self.rows if "key" in row}
        return {**self._old, **mine} if self._keeps else mine

    def cached(self, key: str) -> dict[str, Any] | None:
        """The earlier row of this key, recorded again, or None. Raises as :meth:`row`."""
        self._check()
        row = self._old.get(key)
        if row is not None:
            self._add(row)
        return row

    def row(self, key: str = "", **columns: Any) -> dict[str, Any]:
        """Record and print one row. Raises InvalidSettings when the file holds what was measured with other settings."""
        self._check()
        row = {"key": key, **columns} if key else dict(columns)
        self._add(row)
        return row

    def _check(self) -> None:
        if self._others:
            raise InvalidSettings(f"{self.path} holds rows of another bench or of other settings: name another file, or remove it.")

    def _add(self, row: dict[str, Any]) -> None:
        self.rows.append(row)
        print("  ".join(f"{name}={_short(value)}" for name, value in row.items() if name != "key"), flush=True)
        if self.path is not None:
            here = {row.get("key") for row in self.rows}
            others = [row for key, row in self._old.items() if self._keeps and key not in here]
            document = {"bench": self.bench, "machine": self.machine, "settings": self.settings, "rows": [*others, *self.rows]}
            partial = self.path.with_suffix(".partial")
            partial.write_text(json.dumps(document, indent=1))
            partial.replace(self.path)

    def table(self) -> str:
        """All rows as an aligned text table."""
        columns = list(dict.fromkeys(name for row in self.rows for name in row if name != "key"))
        cells = [columns] + [[_short(row.get(name, "")) for name in columns] for row in self.rows]
        widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
        return "\n".join("  ".join(cell.rjust(w) for cell, w in zip(line, widths, strict=True)) for line in cells)


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
