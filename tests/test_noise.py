"""Noise: the unit, the seed, independence of device precision."""

from __future__ import annotations

import pytest
import torch

from netprior_core.errors import InvalidSettings
from netprior_core.noise import GaussianNoise, Noise, PoissonNoise, RelativeNoise, SaltAndPepperNoise, TotalVarianceNoise


def test_sigma_is_in_8_bit_levels() -> None:
    clean = torch.full((1, 3, 64, 64), 0.5)
    error = GaussianNoise(sigma=25).apply(clean, seed=0) - clean
    assert float(error.std()) == pytest.approx(25 / 255, rel=0.02)
    assert float(error.mean()) == pytest.approx(0, abs=0.003)
    assert GaussianNoise(sigma=25).std(clean) == 25 / 255


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


@pytest.mark.parametrize("kind", [cls.model_fields["kind"].default for cls in Noise.registry])
def test_every_noise_is_drawn_from_its_seed_and_states_its_strength(kind: str) -> None:
    noise = Noise.registry[kind]()
    clean = torch.linspace(0.1, 0.9, 20_000).view(1, 2, 100, 100)
    torch.manual_seed(0)
    noisy = noise.apply(clean, seed=3)
    torch.manual_seed(1)
    assert torch.equal(noisy, noise.apply(clean, seed=3))
    assert not torch.equal(noisy, noise.apply(clean, seed=4))
    assert noisy.dtype == clean.dtype
    assert noisy.shape == clean.shape
    assert not torch.equal(noisy, clean)
    std = noise.std(noisy)
    if std is not None:
        assert float((noisy - clean).std()) == pytest.approx(std, rel=0.05)
    assert len(noise.describe()) > 8
    assert Noise.registry.parse(noise.model_dump(mode="json")) == noise
    assert sum(field.main for field in type(noise).fields()) == 1


def test_a_family_of_noises_is_not_itself_one() -> None:
    assert all(cls.title for cls in Noise.registry)


def test_clipped_noise_and_equal_channels() -> None:
    clean = torch.full((1, 3, 40, 40), 0.95)
    clipped = GaussianNoise(sigma=50, clip=True).apply(clean, seed=0)
    assert float(clipped.max()) == 1
    free = GaussianNoise(sigma=50).apply(clean, seed=0)
    assert torch.equal(clipped, free.clamp(0, 1))
    grey = GaussianNoise(sigma=50, grey=True).apply(clean, seed=0)
    assert torch.equal(grey[:, 0], grey[:, 2])
    assert not torch.equal(free[:, 0], free[:, 2])


def test_shared_variance_is_that_of_cs_dip() -> None:
    """σ² = 100 over m = 400 measurements of an image in [−1, 1]: each has standard deviation 10/20, half of that in [0, 1]."""
    y = torch.zeros(1, 400)
    assert TotalVarianceNoise(variance=100).std(y) == pytest.approx(0.25)
    assert TotalVarianceNoise(variance=100, reading="released").std(y) == pytest.approx(10 / 400 / 2)


def test_relative_noise_follows_the_measurement() -> None:
    clean = torch.full((1, 10_000), -3.0)
    assert float((RelativeNoise(level=5).apply(clean, seed=0) - clean).std()) == pytest.approx(0.15, rel=0.03)


def test_photon_counts() -> None:
    clean = torch.full((1, 50_000), 0.25)
    noisy = PoissonNoise(photons=40).apply(clean, seed=0)
    assert float(noisy.mean()) == pytest.approx(0.25, rel=0.01)
    assert float(noisy.var()) == pytest.approx(0.25 / 40, rel=0.03)
    assert torch.allclose((noisy * 40).round(), noisy * 40, atol=1e-4)
    behind = PoissonNoise(photons=10_000, law="transmission").apply(torch.full((1, 50_000), 2.0), seed=0)
    assert float(behind.mean()) == pytest.approx(2, rel=0.01)
    assert float(behind.var()) == pytest.approx(2.718281828**2 / 10_000, rel=0.03)
    opaque = PoissonNoise(photons=10, law="transmission").apply(torch.full((1, 100), 50.0), seed=0)
    assert torch.isfinite(opaque).all()
    with pytest.raises(InvalidSettings, match="negative"):
        PoissonNoise().apply(torch.full((1, 4), -0.5), seed=0)


def test_salt_and_pepper_replaces_the_stated_share() -> None:
    clean = torch.full((1, 100_000), 0.5)
    noisy = SaltAndPepperNoise(share=10).apply(clean, seed=0)
    assert float((noisy == 0).float().mean()) == pytest.approx(0.05, abs=0.004)
    assert float((noisy == 1).float().mean()) == pytest.approx(0.05, abs=0.004)
    signed = torch.tensor([[-2.0, 0.0, 5.0] * 200])
    assert set(SaltAndPepperNoise(share=90).apply(signed, seed=0).unique().tolist()) == {-2.0, 0.0, 5.0}
