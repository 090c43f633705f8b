"""The bench of MetaDIP: parts add up, and nothing is measured twice unless the weights changed."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest
import torch

from netprior_core import priors
from netprior_core.bench import Report, metadip
from netprior_core.methods.base import Method
from netprior_core.methods.metadip import key
from netprior_core.problem import Problem


def _options(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    metadip.add_arguments(parser)
    return argparse.Namespace(**vars(parser.parse_args(["--device", "cpu", *words])), quick=True)


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Methods in the order in which they are run, without running them."""
    found: list[str] = []

    def measure(method: Method, problem: Problem, truth: torch.Tensor) -> tuple[dict[str, Any], torch.Tensor]:
        found.append(f"{type(problem.operator).title}: {method.title}")
        values = {f"{name}_{k}": 30.0 for name in ("at", "raw", "seconds") for k in metadip.READ_AT}
        return {**values, "best": 30.0, "final": 30.0, "useful_after": 1.0, "seconds": 1.0}, truth

    monkeypatch.setattr(metadip, "_measure", measure)
    return found


def test_parts_add_up_and_new_weights_are_measured_anew(done: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "metadip.json"

    def run(*words: str) -> int:
        before = len(done)
        metadip.run(_options(*words), Report("metadip", {"words": words}, file))
        return len(done) - before

    one = run("--columns", "σ=15")
    assert one == 2 * 5
    assert run("--columns", "CS 1/4") == one
    assert run("--columns", "σ=15") == 0
    card_of, mixed = priors.card_of, priors.shipped()[key("metadip", "mixed")]
    monkeypatch.setattr(priors, "card_of", lambda path: card_of(path) | ({"steps": -1} if path == mixed else {}))
    assert run("--columns", "σ=15") == 2
    rows = {row["key"] for row in Report("metadip", {"quick": True}, file)._old.values()}
    assert len(rows) == 2 * one + 2
