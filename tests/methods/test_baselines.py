"""The trivial baselines are what they say, and refuse the rest."""

from __future__ import annotations

from typing import Any

import torch

from netprior_core.methods.baselines import Adjoint, Bicubic, PseudoInverse


def _result(method: Any, problem: Any) -> torch.Tensor:
    *_, last = method.solve(problem, seeds=[0])
    return last.estimate


def test_adjoint_is_the_operators_first_picture(make_problem: Any) -> None:
    problem, _ = make_problem("compressed-sensing", ratio=0.3)
    assert torch.equal(_result(Adjoint(), problem), problem.model.initial(problem.measurement))


def test_pseudo_inverse_fits_the_measurement(make_problem: Any) -> None:
    problem, _ = make_problem("super-resolution", factor=2, sigma=0)
    torch.testing.assert_close(problem.model.forward(_result(PseudoInverse(), problem)), problem.measurement, atol=1e-4, rtol=0)


def test_pseudo_inverse_refuses_without_one(make_problem: Any) -> None:
    problem, _ = make_problem("super-resolution", factor=2)
    problem.model.__dict__["has_pinv"] = False
    assert "no pseudo-inverse" in (PseudoInverse().accepts(problem) or "")


def test_bicubic_refuses_what_is_not_super_resolution(make_problem: Any) -> None:
    problem, _ = make_problem("denoising")
    assert "super-resolution only" in (Bicubic().accepts(problem) or "")


def test_bicubic_keeps_a_constant_and_the_size(make_problem: Any) -> None:
    problem, truth = make_problem("super-resolution", factor=4)
    flat = type(problem)(**{**problem.__dict__, "measurement": torch.full_like(problem.measurement, 0.3)})
    estimate = _result(Bicubic(), flat)
    assert estimate.shape == truth.shape
    torch.testing.assert_close(estimate, torch.full_like(estimate, 0.3))
