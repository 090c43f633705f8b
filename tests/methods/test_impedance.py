"""Noise impedance: four targets, and the order in which one network fits them."""

from __future__ import annotations

import statistics
from typing import Any, get_args

import pytest
import torch

from netprior_core import examples
from netprior_core.methods.impedance import NoiseImpedance, Target
from netprior_core.noise import GaussianNoise
from netprior_core.operators import Operator
from netprior_core.problem import Problem


def test_the_targets_are_what_they_say() -> None:
    y = torch.rand((1, 3, 32, 32), generator=torch.Generator().manual_seed(0))
    made = {t: NoiseImpedance(target=t).target_of(y, torch.Generator().manual_seed(1)) for t in get_args(Target)}
    assert torch.equal(made["the image"], y)
    assert float((made["the image with noise"] - y).std()) == pytest.approx(25 / 255, rel=0.05)
    shuffled = made["its pixels shuffled"]
    assert not torch.equal(shuffled, y)
    assert torch.equal(shuffled.flatten(2).sum(1).sort().values, y.flatten(2).sum(1).sort().values)  # whole pixels move
    assert float(made["pure noise"].std()) == pytest.approx(12**-0.5, rel=0.05)


def test_an_image_is_fitted_faster_than_its_shuffled_pixels_and_noise() -> None:
    x = examples.get("camera").targets(size=48)[:1]
    operator, noise = Operator.registry["denoising"](), GaussianNoise(sigma=0)
    problem = Problem(x, operator.build((1, 48, 48)), operator, noise, 0.0, (1, 48, 48))
    losses: dict[Any, float] = {}
    for target in get_args(Target):
        method = NoiseImpedance(target=target, iterations=50, channels=32, precision="float32")
        fits = [float(step.objective) for step in method.solve(problem, seeds=[0]) if step.objective is not None]
        losses[target] = statistics.median(fits[-10:])
    assert losses["the image"] < losses["the image with noise"] < losses["its pixels shuffled"]
    assert losses["the image"] < 0.5 * losses["pure noise"]


def test_only_pictures_can_be_fitted(make_problem: Any) -> None:
    problem, _ = make_problem("compressed-sensing", ratio=0.2)
    assert "denoising" in (NoiseImpedance().accepts(problem) or "")


def test_lanes_say_what_is_fitted() -> None:
    assert NoiseImpedance(target="pure noise").label() == "Fits pure noise"
