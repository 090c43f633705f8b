"""Near-isometry on differences of images, by hand and on designed rows."""

from __future__ import annotations

import pytest
import torch

from netprior_core.errors import InvalidSettings
from netprior_core.isometry import isometry, rate, worst
from netprior_core.operators import Operator


def test_denoising_is_an_isometry_and_scaling_scales() -> None:
    images = torch.rand((6, 1, 16, 16), generator=torch.Generator().manual_seed(0))
    found = isometry(Operator.registry["denoising"]().build((1, 16, 16)), images)
    assert found.pairs == 15
    assert found.least == pytest.approx(1, abs=1e-5)
    assert found.largest == pytest.approx(1, abs=1e-5)
    assert found.alpha == pytest.approx(1, abs=1e-4)
    assert found.spread == pytest.approx(1, abs=1e-4)
    assert found.condition == pytest.approx(1 / found.alpha)


def test_by_hand_and_equal_images_do_not_count() -> None:
    images = torch.rand((5, 1, 16, 16), generator=torch.Generator().manual_seed(0))
    images = torch.cat([images, images[:1]])
    model = Operator.registry["compressed-sensing"](count=20).build((1, 16, 16), seed=3)
    ratios = [
        float(model.forward((images[i] - images[j])[None]).norm() / (images[i] - images[j]).norm())
        for i in range(6)
        for j in range(i + 1, 6)
        if (i, j) != (0, 5)
    ]
    found = isometry(model, images)
    assert found.pairs == 14
    assert (found.least, found.largest) == (pytest.approx(min(ratios), rel=1e-4), pytest.approx(max(ratios), rel=1e-4))
    assert found.least <= found.low <= found.median <= found.high <= found.largest
    assert "14 differences" in found.words()
    within = [found.low <= ratio <= found.high for ratio in ratios]
    assert sum(within) / len(within) < 0.95
    assert "90% of them" in found.words()
    assert isometry(model, images, most=4).pairs <= 4


def test_more_measurements_are_nearer_to_an_isometry() -> None:
    images = torch.rand((20, 1, 16, 16), generator=torch.Generator().manual_seed(0))
    spreads = [isometry(Operator.registry["compressed-sensing"](count=m).build((1, 16, 16)), images).spread for m in (4, 200)]
    assert spreads[1] < 0.7 * spreads[0]


def test_no_difference_is_said() -> None:
    model = Operator.registry["denoising"]().build((1, 16, 16))
    with pytest.raises(InvalidSettings, match="two images"):
        isometry(model, torch.rand(1, 1, 16, 16))
    with pytest.raises(InvalidSettings, match="same"):
        isometry(model, torch.ones(3, 1, 16, 16))


def test_a_search_finds_pairs_that_random_ones_do_not_show() -> None:
    """A that sees one direction of a plane and not the other: the least ratio is 0, and random pairs are nowhere near it."""
    model = Operator.registry["inpainting"](pattern="random", keep=0.5).build((1, 16, 16), seed=1)
    mask = model.adjoint(model.forward(torch.ones(1, 1, 16, 16)))[0, 0]
    seen, hidden = (basis / basis.norm() for basis in (mask, 1 - mask))

    def draw(z: torch.Tensor) -> torch.Tensor:
        return (z[:, :1, None] * seen + z[:, 1:, None] * hidden)[:, None]

    z = torch.randn((8, 2), generator=torch.Generator().manual_seed(0))
    random = isometry(model, draw(z))
    least, largest = worst(model, draw, z, steps=200)
    assert least < 0.2 * random.least
    assert largest == pytest.approx(1, abs=0.01)
    assert z.grad is None
    with pytest.raises(InvalidSettings, match="four"):
        worst(model, draw, z[:6])


def test_projected_gradient_descent_shrinks_the_misfit_as_promised_below_two() -> None:
    """On a subspace, where the projection is exact and the extremes of ‖A d‖²/‖d‖² are eigenvalues."""
    generator = torch.Generator().manual_seed(0)
    basis = torch.linalg.qr(torch.randn((40, 3), generator=generator, dtype=torch.float64))[0]
    a = torch.randn((30, 40), generator=generator, dtype=torch.float64) / 30**0.5
    eigenvalues, vectors = torch.linalg.eigh((a @ basis).T @ (a @ basis))
    a = a @ basis @ vectors @ torch.diag((torch.tensor([0.6, 0.8, 1.0]) / eigenvalues).sqrt()) @ vectors.T @ basis.T
    alpha, beta = 0.6, 1.0
    promised = rate(beta / alpha)
    assert promised == pytest.approx(2 / 3)
    y = a @ basis @ torch.ones(3, dtype=torch.float64)
    x = torch.zeros(40, dtype=torch.float64)
    misfit = float((a @ x - y).square().sum())
    for _ in range(20):
        x = basis @ (basis.T @ (x + a.T @ (y - a @ x) / beta))
        now = float((a @ x - y).square().sum())
        assert now <= promised * misfit + 1e-15
        misfit = now
    assert misfit < 1e-6
    assert rate(1.0) == 0  # an isometry: one step
    assert rate(2.0) is rate(5.0) is None
