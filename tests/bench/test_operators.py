"""The operators bench: a row for every registered operator, honest bytes, references that compute the same."""

from __future__ import annotations

import argparse

import pytest
import torch

from netprior_core.bench import Report, operators
from netprior_core.operators import LinearModel, Operator


def _run(*arguments: str) -> list[dict[str, object]]:
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    operators.add_arguments(parser)
    report = Report("operators", {})
    operators.run(parser.parse_args(["--sizes", "32", "--rounds", "1", "--device", "cpu", *arguments]), report)
    return report.rows


def test_every_operator_has_a_row() -> None:
    threads = torch.get_num_threads()
    rows = _run()
    assert {row["operator"] for row in rows} == {cls.model_fields["kind"].default for cls in Operator.registry}
    assert all(row["ours_ms"] > 0 for row in rows)  # type: ignore[operator]
    compared = [row for row in rows if row["reference"]]
    assert {"fourier", "deblurring", "super-resolution", "compressed-sensing"} == {row["operator"] for row in compared}
    assert torch.get_num_threads() == threads


def test_bytes_of_a_model() -> None:
    dense = Operator.registry["compressed-sensing"](ratio=0.1, matrix="dense").build((1, 32, 32))
    assert operators.bytes_held(dense) == 4 * dense.m * dense.n
    assert operators.bytes_held(Operator.registry["denoising"]().build((1, 32, 32))) == 0


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("fourier", {"lines": 7}),
        ("deblurring", {"kernel": "motion", "width": 6.0}),
        ("compressed-sensing", {"matrix": "dense"}),
    ],
)
def test_references_compute_the_same(kind: str, changes: dict[str, object]) -> None:
    model = Operator.registry[kind](**changes).build((1, 32, 32))
    assert isinstance(model, LinearModel)
    x = torch.rand((1, 1, 32, 32), generator=torch.Generator().manual_seed(0))
    y = model.forward(x)
    _, job = operators._obvious(model, x, y)
    assert job is not None
    forward, adjoint = job()  # type: ignore[misc]
    if kind == "deblurring":
        assert torch.allclose(forward, y, atol=1e-5)
    if kind == "fourier":
        assert float(forward.abs().square().sum()) == pytest.approx(float(y.square().sum()), rel=1e-4)
    assert torch.allclose(adjoint.reshape(x.shape), model.adjoint(y), atol=1e-4)
