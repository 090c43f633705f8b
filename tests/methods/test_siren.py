"""What is particular to the untrained SIREN."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from netprior_core.methods.siren import UntrainedSiren
from netprior_core.metrics import psnr
from netprior_core.noise import GaussianNoise
from netprior_core.operators import Operator
from netprior_core.problem import Problem

TINY: dict[str, Any] = {"width": 32, "layers": 4, "learning_rate": 3e-3}


def _last(method: UntrainedSiren, problem: Any) -> Any:
    *_, last = method.solve(problem, seeds=[0])
    return last


# The weights of the hidden layers are of the size 1/ω0: so must the steps be.
@pytest.mark.parametrize(("preset", "learning_rate"), [("Sitzmann et al.", 3e-3), ("learnit", 4e-4)])
def test_every_convention_starts_near_mid_grey_and_fits(make_problem: Any, preset: str, learning_rate: float) -> None:
    problem, _ = make_problem("denoising", sigma=0)
    method = UntrainedSiren.preset(preset, iterations=150, width=64, layers=4, learning_rate=learning_rate)
    first, *_, last = (s.objective.clone() for s in method.solve(problem, seeds=[0]))  # type: ignore[union-attr]
    grey = (problem.measurement - 0.5).square().mean()
    assert first.item() == pytest.approx(grey.item(), rel=0.5)
    assert last < 0.1 * first


def test_a_low_frequency_is_a_prior_for_smooth_images(make_problem: Any) -> None:
    problem, truth = make_problem("denoising", sigma=25)
    smooth, rough = (
        psnr(_last(UntrainedSiren(omega=omega, iterations=80, **TINY), problem).estimate, truth).item() for omega in (5.0, 60.0)
    )
    assert smooth > rough + 3
    assert smooth > psnr(problem.measurement, truth).item() + 3


def test_the_estimate_is_the_last_output_also_of_an_image_that_is_not_square() -> None:
    operator, noise, shape = Operator.registry["denoising"](), GaussianNoise(), (1, 12, 20)
    truth = torch.rand(1, *shape, generator=torch.Generator().manual_seed(0))
    problem = Problem(truth, operator.build(shape, seed=0), operator, noise, None, shape)
    last = _last(UntrainedSiren(iterations=3, **TINY), problem)
    assert torch.equal(last.output, last.estimate)
    assert last.estimate.shape == truth.shape
    assert last.info["returns"] == 3
