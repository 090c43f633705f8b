"""Noise: the unit, the seed, independence of device precision."""

from __future__ import annotations

import pytest
import torch

from netprior_core.errors import InvalidSettings
from netprior_core.noise import GaussianNoise, Noise


def test_sigma_is_in_8_bit_levels() -> None:
    clean = torch.full((1, 3, 64, 64), 0.5)
    error = GaussianNoise(sigma=25).apply(clean, seed=0) - clean
    assert float(error.std()) == pytest.approx(25 / 255, rel=0.02)
    assert float(error.mean()) == pytest.approx(0, abs=0.003)
    assert GaussianNoise(sigma=25).std((3, 64, 64)) == 25 / 255


def test_the_draw_depends_on_the_seed_alone() -> None:
    clean = torch.zeros(1, 50)
    noise = GaussianNoise(sigma=10)
    torch.manual_seed(0)
    first = noise.apply(clean, seed=3)
    torch.manual_seed(1)
    assert torch.equal(first, noise.apply(clean, seed=3))
    assert not torch.equal(first, noise.apply(clean, seed=4))
    assert torch.allclose(first.double(), noise.apply(clean.double(), seed=3), atol=1e-7)
    assert torch.allclose(GaussianNoise(sigma=20).apply(clean, seed=3), 2 * first)


def test_no_noise_is_a_copy() -> None:
    clean = torch.rand(1, 4)
    same = GaussianNoise(sigma=0).apply(clean, seed=0)
    assert torch.equal(same, clean)
    assert same.data_ptr() != clean.data_ptr()


@pytest.mark.parametrize("sigma", [-1, 256, float("nan"), "loud"])
def test_impossible_levels_are_refused(sigma: object) -> None:
    with pytest.raises(InvalidSettings, match="sigma"):
        Noise.registry.parse({"kind": "gaussian", "sigma": sigma})


def test_round_trip() -> None:
    noise = GaussianNoise(sigma=12.5)
    assert Noise.registry.parse(noise.model_dump(mode="json")) == noise
