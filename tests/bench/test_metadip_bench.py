"""The bench of MetaDIP: parts add up, and nothing is measured twice unless the weights changed."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from netprior_core import priors
from netprior_core.bench import Report, metadip
from netprior_core.methods.base import Method
from netprior_core.methods.metadip import key
from netprior_core.problem import Problem, Step


def _options(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    metadip.add_arguments(parser)
    return argparse.Namespace(**vars(parser.parse_args(["--device", "cpu", *words])), quick=True)


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Methods in the order in which they are run, without running them."""
    found: list[str] = []

    def measure(method: Method, problem: Problem, truth: torch.Tensor) -> dict[str, Any]:
        found.append(f"{type(problem.operator).title}: {method.title}")
        values = {f"{name}_{k}": 30.0 for name in ("at", "raw", "seconds") for k in metadip.READ_AT}
        return {**values, "best": 30.0, "final": 30.0, "useful_seconds": 1.0, "seconds": 1.0}

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


@dataclass
class _Curve:
    """Stands for a method: shows the truth with an error that halves every ten steps."""

    iterations: int
    start: str = "meta-learned"

    def solve(self, problem: Problem, *, seeds: list[int]) -> Iterator[Step]:
        for k in range(self.iterations + 1):
            picture = torch.full((1, *problem.shape), 0.5 + 0.4 * 2 ** (-k / 10))
            yield Step(k, self.iterations, "solve", picture, picture, torch.zeros(1))


def _curve(iterations: int, start: str = "meta-learned") -> Any:
    return _Curve(iterations, start)


def _grey() -> tuple[Problem, torch.Tensor]:
    truth = torch.full((1, 1, 8, 8), 0.5)
    return metadip._problem(metadip.COLUMNS[0].build(), 15, truth, 0)


def test_a_useful_picture_is_one_near_that_after_50_steps_however_long_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    problem, truth = _grey()
    ticks = iter(range(10_000))
    monkeypatch.setattr(metadip.time, "perf_counter", lambda: next(ticks) / 2)  # a second a step
    short = metadip._measure(_curve(50), problem, truth)
    long = metadip._measure(_curve(200), problem, truth)
    # The error's PSNR rises by 0.6 dB a step: within 2 dB of step 50 from step 47 on, which is the 48th picture.
    assert short["useful_seconds"] == pytest.approx(48 / 2)
    assert long["useful_seconds"] == short["useful_seconds"]
    assert long["final"] > short["final"] + 20
    assert metadip._measure(_curve(50, "random"), problem, truth)["useful_seconds"] is None


def test_older_rows_say_when_they_were_useful_only_where_they_ended_at_50() -> None:
    old = {"method": "MetaDIP", "useful_after": 0.5, "at_200": None}
    assert metadip._useful(old) == 0.5
    assert metadip._useful({**old, "at_200": 31.0}) is None
    assert metadip._useful({**old, "method": "DIP"}) is None
    assert metadip._useful({**old, "useful_seconds": 0.7}) == 0.7


def test_the_worst_are_far_below_their_own_column_and_drawn_though_cached(tmp_path: Path) -> None:
    report = Report("metadip", {}, None)
    rows: list[dict[str, Any]] = [
        {"key": f"{column} {name}", "method": "MetaDIP, mixed", "column": column, "pictures": "patches", "image": name, "at_50": at}
        for column, base in (("easy", 30.0), ("hard", 20.0))
        for name, at in [(str(i), base) for i in range(8)]
    ]
    rows[3]["at_50"] = 25.0  # above everything in the hard column, and yet the worst
    _, truth = _grey()
    drawn: list[str] = []

    def again(key: str) -> torch.Tensor:
        drawn.append(key)
        return metadip._beside(metadip.COLUMNS[0], truth, 0, _curve(60))

    metadip._name_worst(report, rows, {row["key"]: partial(again, row["key"]) for row in rows}, tmp_path / "worst")
    assert [report.rows[0][name] for name in ("worst", "column", "against_mean")] == ["3", "easy", -4.38]
    assert len(drawn) == metadip.WORST
    assert drawn[0] == "easy 3"
    assert len(list((tmp_path / "worst").glob("*.png"))) == metadip.WORST
    beside = metadip._beside(metadip.COLUMNS[0], truth, 0, _curve(60))
    assert beside.shape == (1, 8, 16)
    assert beside[0, 0, 0].item() == pytest.approx(0.5 + 0.4 / 32)  # after 50, not 60
