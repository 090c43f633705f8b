"""Deblurring: kernels, boundaries against direct convolution, closed forms, kernels of one's own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import ndimage

from netprior_core.arrays import encode
from netprior_core.errors import InvalidSettings
from netprior_core.operators.base import LinearModel
from netprior_core.operators.deblurring import BlurModel, Deblurring, disk, gaussian, motion, stretched, transfer


def _build(operator: Deblurring, *shape: int, error: float = 0.0) -> BlurModel:
    model = operator.build((shape[0], shape[1], shape[2]), dtype=torch.float64, error=error)
    assert isinstance(model, BlurModel)
    return model


def _random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _own(kernel: Any, **changes: Any) -> Deblurring:
    return Deblurring(kernel="own", own=encode(np.asarray(kernel)), **changes)


def _spread(kernel: torch.Tensor) -> tuple[float, float, float]:
    """Variances down and across, and covariance (down, right), of a kernel about its centre."""
    rows, columns = (torch.arange(side, dtype=torch.float64) - side // 2 for side in kernel.shape)
    assert float((kernel.sum(1) * rows).sum()) == pytest.approx(0, abs=1e-12)
    assert float((kernel.sum(0) * columns).sum()) == pytest.approx(0, abs=1e-12)
    down, across = (kernel.sum(1) * rows**2).sum(), (kernel.sum(0) * columns**2).sum()
    return float(down), float(across), float(rows @ kernel @ columns)


def test_kernels_are_what_they_say() -> None:
    """Second moments in closed form: a pixel's own 1/12 for the integrated ones, 1/6 for linear interpolation."""
    for std in (0.5, 1.6, 5.0):
        assert _spread(gaussian(std))[:2] == pytest.approx((std**2 + 1 / 12,) * 2, rel=0.03)
    for radius in (0.8, 2.3, 6.0):
        assert _spread(disk(radius))[:2] == pytest.approx((radius**2 / 4 + 1 / 12,) * 2, rel=0.09 / radius)
    for length, angle in ((0.4, 10.0), (5.0, 0.0), (9.5, 30.0), (12.0, 90.0), (7.0, 135.0)):
        direction = np.radians(angle)
        down, across, together = _spread(motion(length, angle))
        assert down == pytest.approx((length * np.sin(direction)) ** 2 / 12, abs=0.3)
        assert across == pytest.approx((length * np.cos(direction)) ** 2 / 12, abs=0.3)
        # counter-clockwise: to the right is up, where rows are small
        assert together == pytest.approx(-(length**2) * np.sin(direction) * np.cos(direction) / 12, rel=0.02, abs=1e-9)
    assert disk(0.3)[1, 1] == pytest.approx(1)


@pytest.mark.parametrize("make", [gaussian, disk, lambda width: motion(width, 20.0)])
def test_fractions_of_a_pixel_count(make: Any) -> None:
    """A slightly wider kernel is slightly wider."""
    for width in (0.7, 1.0, 2.0, 2.9):
        kernels = [make(width + step) for step in (0.0, 0.05, 0.1)]
        assert all(float(k.sum()) == pytest.approx(1) for k in kernels)
        assert all(float(k.min()) >= 0 for k in kernels)
        spreads = [sum(_spread(k)[:2]) for k in kernels]
        assert spreads[0] < spreads[1] < spreads[2] < 1.5 * spreads[0] + 0.1


@pytest.mark.parametrize(
    ("changes", "sides"),
    [
        ({"kernel": "gaussian", "width": 0.8}, (16, 20)),
        ({"kernel": "motion", "width": 6.0, "angle": 25.0}, (17, 14)),
        ({"kernel": "disk", "width": 3.0}, (20, 16)),
        ({"kernel": "gaussian", "width": 4.0}, (16, 12)),  # reaches further than the picture
        ({"kernel": "motion", "width": 40.0, "angle": 60.0}, (9, 12)),
    ],
)
def test_both_boundaries_against_direct_convolution(changes: dict[str, Any], sides: tuple[int, int]) -> None:
    """SciPy's direct sums: its "wrap" is the circle, its "reflect" the mirror at the edge of the pixels."""
    x = _random(1, 1, *sides)
    for boundary, mode in (("circular", "wrap"), ("reflect", "reflect")):
        model = _build(Deblurring(**changes, boundary=boundary), 1, *sides)
        expected = ndimage.convolve(x[0, 0].numpy(), model.kernel.numpy(), mode=mode)
        assert np.abs(model.forward(x)[0, 0].numpy() - expected).max() < 1e-10


@pytest.mark.parametrize("sides", [(3, 3), (2, 4), (5, 2), (1, 1), (16, 16)])
def test_own_kernels_of_odd_and_even_sides(sides: tuple[int, int]) -> None:
    """Centre at index side // 2, sum 1; and the adjoint is the transpose where the kernel has no symmetry at all."""
    kernel = np.random.default_rng(0).random(sides).astype(np.float32)
    for boundary, mode in (("circular", "wrap"), ("reflect", "symmetric")):
        model = _build(_own(kernel, boundary=boundary), 1, 16, 18)
        x, y = _random(2, 1, 16, 18), _random(2, 1, 16, 18, seed=1)
        reach = 16
        padded = np.pad(x.numpy(), ((0, 0), (0, 0), (reach, reach), (reach, reach)), mode=mode)
        flipped = torch.from_numpy(kernel[::-1, ::-1].astype(np.float64) / kernel.astype(np.float64).sum())[None, None]
        shift = [reach - (side - 1 - side // 2) for side in sides]
        expected = F.conv2d(torch.from_numpy(padded), flipped)[..., shift[0] : shift[0] + 16, shift[1] : shift[1] + 18]
        assert torch.allclose(model.forward(x), expected, atol=1e-10)
        assert float((model.forward(x) * y).sum()) == pytest.approx(float((x * model.adjoint(y)).sum()), rel=1e-10)
        grey = torch.full((1, 1, 16, 18), 0.3, dtype=torch.float64)
        assert torch.allclose(model.forward(grey), grey)


def test_own_kernels_are_refused_in_words() -> None:
    with pytest.raises(InvalidSettings, match="no kernel yet"):
        Deblurring(kernel="own").build((1, 16, 16))
    with pytest.raises(InvalidSettings, match="17×3 and the image only 16×16"):
        _own(np.ones((17, 3))).build((1, 16, 16))
    for kernel, words in (
        (np.zeros((3, 3)), "positive sum"),
        (-np.ones((3, 3)), "positive sum"),
        (np.array([[1.0, -1.0]]), "positive sum"),
        (np.ones((3, 3)) * 1j, "complex"),
        (np.ones((201, 201), dtype=bool), "megapixels"),
        (np.ones(3), "1 axes"),
    ):
        with pytest.raises(ValueError, match=words):
            _own(kernel)


def test_own_kernel_taken_to_be_wider() -> None:
    assert torch.equal(stretched(torch.ones(1, 1, dtype=torch.float64)), torch.ones(1, 1, dtype=torch.float64))
    kernel = gaussian(2.0)
    assert torch.allclose(stretched(kernel), kernel)
    down, across, _ = _spread(stretched(kernel, 1.25))
    assert down == pytest.approx(1.25**2 * _spread(kernel)[0], rel=0.05)
    assert across == pytest.approx(down)
    delta = _own(np.ones((1, 1)))
    x = _random(1, 1, 16, 16)
    exact, wrong = _build(delta, 1, 16, 16), _build(delta, 1, 16, 16, error=1.0)
    assert torch.allclose(exact.forward(x), x)
    assert float((wrong.forward(x) - x).norm()) > 0.05 * float(x.norm())


def test_pseudo_inverse_only_where_no_frequency_is_lost() -> None:
    mild, strong = _build(Deblurring(width=0.5), 1, 16, 20), _build(Deblurring(width=3.0), 1, 16, 20)
    assert mild.has_pinv
    assert not strong.has_pinv
    assert not _build(Deblurring(width=0.5, boundary="reflect"), 1, 16, 20).has_pinv
    x = _random(1, 1, 16, 20)
    assert torch.allclose(mild.pinv(mild.forward(x)), x)
    assert "lost" in strong.describe()
    assert "mirrored" in _build(Deblurring(boundary="reflect"), 1, 16, 20).describe()


def test_norm_by_the_cosine_transform() -> None:
    """Kernels with negative lobes may amplify: the norm is not 1 then."""
    sharpening = np.array([[0, -1, 0], [-1, 5, -1], [0, -1, 0]], dtype=np.float32)
    for boundary in ("circular", "reflect"):
        model = _build(_own(sharpening, boundary=boundary), 1, 12, 15)
        assert model.norm() == pytest.approx(LinearModel.norm(model), rel=1e-3)
        assert model.norm() > 8


def test_solve_is_the_proximal_step() -> None:
    model = _build(Deblurring(kernel="motion", width=5.0), 3, 16, 20)
    v, y, weight = _random(2, 3, 16, 20), _random(2, 3, 16, 20, seed=1), 0.3
    x = model.solve(v, y, weight)
    stationary = model.adjoint(model.forward(x) - y) + weight * (x - v)
    assert float(stationary.abs().max()) < 1e-12
    with pytest.raises(NotImplementedError, match="reflecting"):
        _build(Deblurring(boundary="reflect"), 3, 16, 20).solve(v, y, weight)


def test_transfer_wraps_what_is_larger_than_the_grid() -> None:
    response = transfer(gaussian(5.0), 8, 9)
    assert response.shape == (8, 5)
    assert float(response[0, 0].real) == pytest.approx(1)
    assert float(response.imag.abs().max()) < 1e-12
