"""The speed bench compares like with like."""

from __future__ import annotations

import argparse

import pytest
import torch

from netprior_core.bench import Report, speed
from netprior_core.methods.dip import DeepImagePrior


def test_the_plain_reference_does_the_same_maths() -> None:
    problem, _ = speed._problem(16, 0, torch.device("cpu"))
    method = DeepImagePrior(iterations=3, precision="float32")
    ours = [(s.output.clone(), s.estimate.clone()) for s in method.solve(problem, seeds=[0]) if s.stage == "solve"]  # type: ignore[union-attr]
    reference = speed.plain(problem, method, 0)
    # Adam's first steps have the size of the learning rate however small the gradient: rounding soon grows.
    for (output, estimate), tolerance in zip(ours, (1e-4, 0.02, 0.05), strict=True):
        plain_output, plain_estimate = next(reference)
        torch.testing.assert_close(output, plain_output, atol=tolerance, rtol=0)
        torch.testing.assert_close(estimate, plain_estimate, atol=tolerance, rtol=0)


def test_rows_hold_both_and_their_ratio() -> None:
    options = argparse.Namespace(quick=False, size=16, sizes=[], seeds=1, iterations=8, device="cpu")
    report = Report("speed", {})
    speed.run(options, report)
    row = report.rows[0]
    assert row["ratio"] == pytest.approx(row["ours_ms"] / row["plain_ms"])
    assert row["difference"] == pytest.approx(row["ours_psnr"] - row["plain_psnr"])
    assert report.rows[-1]["run"] == "mean"
