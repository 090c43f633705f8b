"""What is particular to DIP + TV."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from netprior_core.methods import _common
from netprior_core.methods.dip_tv import DIPTV, gradient, shrink, total_variation

TINY = {"channels": 8, "scales": 2, "input_channels": 4, "averaging": 0.0}


def _run(problem: Any, **settings: Any) -> tuple[torch.Tensor, list[float], list[str]]:
    steps = [(s.output.clone(), float(s.objective), s.phase) for s in DIPTV(**{**TINY, **settings}).solve(problem, seeds=[3])]
    return steps[-1][0], [loss for _, loss, _ in steps[:-1]], [phase for _, _, phase in steps[:-1]]


def test_anisotropic_variation_is_that_of_the_other_methods_and_isotropic_is_shorter() -> None:
    x = torch.rand(1, 3, 7, 5, generator=torch.Generator().manual_seed(0))
    jumps = gradient(x)
    torch.testing.assert_close(total_variation(jumps, isotropic=False), _common.total_variation(x))
    corner = torch.zeros(1, 1, 4, 4)
    corner[..., 0, 0] = 1.0  # one pixel with a jump of 1 in both directions
    assert total_variation(gradient(corner), isotropic=False).item() == pytest.approx(2.0)
    assert total_variation(gradient(corner), isotropic=True).item() == pytest.approx(2**0.5, abs=1e-4)


@pytest.mark.parametrize("isotropic", [False, True])
def test_shrinkage_minimises_over_u(isotropic: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    jumps, threshold = torch.randn((2, 1, 1, 6, 6), generator=generator), 0.4

    def cost(u: torch.Tensor) -> float:
        return float(threshold * total_variation(u, isotropic) + (u - jumps).square().sum() / 2)

    u = shrink(jumps, threshold, isotropic)
    assert (u == 0).any()
    for _ in range(20):
        assert cost(u) <= cost(u + 0.01 * torch.randn(u.shape, generator=generator)) + 1e-4
    assert cost(u) < cost(jumps)


@pytest.mark.parametrize("mode", ["gradient", "half-quadratic splitting", "ADMM"])
@pytest.mark.parametrize("variation", ["anisotropic", "isotropic"])
def test_every_mode_lowers_the_variation(make_problem: Any, mode: str, variation: str) -> None:
    problem, _ = make_problem("denoising", side=16, sigma=40.0)
    settings = {"iterations": 120, "variation": variation}
    plain, _, _ = _run(problem, tv_weight=0.0, **settings)
    flat, losses, _ = _run(problem, tv_weight=0.5, mode=mode, penalty=4.0, **settings)
    assert _common.total_variation(flat) < 0.8 * _common.total_variation(plain)
    assert losses[-1] < losses[0]


def test_without_weight_splitting_only_fits(make_problem: Any) -> None:
    # u then equals ∇f after each shrinkage: what is left pulls f to its own past, and the objective is the misfit alone.
    problem, _ = make_problem("denoising", side=16)
    image, losses, _ = _run(problem, iterations=1, tv_weight=0.0, mode="ADMM")
    misfit = (problem.model.forward(image) - problem.measurement).square().mean()
    assert losses[0] == pytest.approx(float(misfit), rel=1e-4)


def test_the_objective_shown_is_that_of_the_docstring(make_problem: Any) -> None:
    problem, _ = make_problem("compressed-sensing", ratio=0.2, side=16)
    for mode in ("gradient", "half-quadratic splitting", "ADMM"):
        image, losses, _ = _run(problem, iterations=1, tv_weight=0.7, mode=mode)
        misfit = (problem.model.forward(image) - problem.measurement).square().sum()
        whole = misfit + 0.7 * _common.total_variation(image)
        assert losses[0] * problem.model.m == pytest.approx(float(whole), rel=1e-4)


def test_half_quadratic_splitting_doubles_its_penalty_and_shows_it(make_problem: Any) -> None:
    problem, _ = make_problem("denoising", side=16)
    _, _, phases = _run(problem, iterations=20, mode="half-quadratic splitting", penalty=8.0)
    assert list(dict.fromkeys(phases)) == [f"β = {b}" for b in ("0.5", "1", "2", "4", "8")]
    _, _, phases = _run(problem, iterations=20, mode="ADMM", penalty=8.0)
    assert set(phases) == {"β = 8"}
