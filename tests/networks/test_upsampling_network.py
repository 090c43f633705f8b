"""The upsampling generator of low-shot priors."""

from __future__ import annotations

import pytest
import torch

from netprior_core.networks.seeded import seeded
from netprior_core.networks.upsampling import UpsamplingGenerator


@pytest.mark.parametrize(("height", "width", "outputs"), [(64, 64, 3), (32, 32, 1), (28, 28, 1), (24, 40, 3), (16, 16, 1)])
def test_it_draws_images_of_the_size_asked_for(height: int, width: int, outputs: int) -> None:
    network = seeded(lambda: UpsamplingGenerator(height, width, outputs, latent=8, channels=4), 0).eval()
    drawn = network(torch.randn(3, 8))
    assert drawn.shape == (3, outputs, height, width)
    assert drawn.dtype == torch.float32
    assert drawn.abs().max() <= 1
    half = network(torch.randn(3, 8).bfloat16())
    assert half.dtype == torch.float32


def test_every_number_of_it_comes_from_the_seed() -> None:
    def build() -> UpsamplingGenerator:
        return UpsamplingGenerator(32, 32, 3, latent=8, channels=4)

    one, two, other = (seeded(build, seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(value, two[name]) for name, value in one.items())
    assert all(value.isfinite().all() and value.abs().max() <= 1 for value in one.values())
    drawn = [name for name, value in one.items() if not torch.equal(value, other[name])]
    assert {"first.weight", "head.weight", "head.bias"} <= set(drawn)


def test_all_weights_are_learned() -> None:
    network = seeded(lambda: UpsamplingGenerator(32, 32, 3, latent=8, channels=4), 0)
    network(torch.randn(4, 8)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in network.parameters())
