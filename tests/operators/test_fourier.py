"""Subsampled Fourier: the papers' counts, real measurements, patterns and k-space of one's own."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from netprior_core.arrays import encode
from netprior_core.errors import InvalidSettings
from netprior_core.noise import GaussianNoise
from netprior_core.operators.fourier import Fourier, FourierModel, radial_lines, symmetric


def _build(operator: Fourier, *shape: int, error: float = 0.0, seed: int = 0) -> FourierModel:
    model = operator.build((shape[0], shape[1], shape[2]), dtype=torch.float64, error=error, seed=seed)
    assert isinstance(model, FourierModel)
    return model


def _random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _own(mask: np.ndarray, centred: bool = False) -> Fourier:
    return Fourier(pattern="own", mask=encode(mask), centred=centred)


@pytest.mark.parametrize(("lines", "half", "full"), [(3, 381, 763), (5, 634, 1269), (10, 1260, 2521), (20, 2500, 5001)])
def test_radial_lines_have_the_counts_of_the_papers(lines: int, half: int, full: int) -> None:
    """CS-DIP, section 5: coefficients of a 256×256 image in a half-plane without the mean."""
    measured = radial_lines(256, 256, lines)
    assert int(measured.sum()) == full == 2 * half + 1
    assert torch.equal(measured, symmetric(measured))
    assert Fourier(lines=lines).build((1, 256, 256)).measurement_shape == (1, full)


@pytest.mark.parametrize("sides", [(16, 20), (15, 17), (64, 24), (8, 9)])
def test_lines_of_any_sides_are_symmetric_and_go_through_the_centre(sides: tuple[int, int]) -> None:
    for lines in range(1, 24):
        measured = radial_lines(*sides, lines)
        assert measured[0, 0]
        assert torch.equal(measured, symmetric(measured))
    assert int(radial_lines(64, 24, 1).sum()) == 23  # across, without Nyquist
    both = radial_lines(64, 24, 2)
    assert int(both[:, 0].sum()) == 63
    diagonal = radial_lines(32, 64, 4)  # equal angles of waves: half as many rows as columns
    assert bool(diagonal[5, 10])


@pytest.mark.parametrize("sides", [(8, 10), (7, 9), (8, 9), (7, 8)])
@pytest.mark.parametrize("error", [0.0, 1.0])
@pytest.mark.parametrize("share", [0.2, 1.1])
def test_rows_are_orthonormal(sides: tuple[int, int], error: float, share: float) -> None:
    """For any sides and any pattern, a wrong phase included; the measured count is that of the symmetric pattern."""
    mask = np.random.default_rng(0).random(sides) < share
    model = _build(_own(mask), 2, *sides, error=error)
    identity = torch.eye(model.n, dtype=torch.float64).view(-1, *model.shape)
    a = model.forward(identity).flatten(1).T
    assert torch.allclose(a @ a.T, torch.eye(model.m, dtype=torch.float64), atol=1e-12)
    assert model.m == 2 * int(symmetric(torch.from_numpy(mask)).sum())
    assert float(a[: model.measurement_shape[1], : model.n // 2].abs().max()) > 0


def test_measures_the_spectrum() -> None:
    """Against the complex transform: the energy on the pattern, and Parseval where everything is measured."""
    x = _random(2, 3, 12, 10)
    model = _build(Fourier(lines=5), 3, 12, 10)
    spectrum = torch.fft.fft2(x, norm="ortho") * model.pattern
    assert torch.allclose(model.forward(x).square().sum(), spectrum.abs().square().sum())
    assert torch.allclose(model.initial(model.forward(x)), torch.fft.ifft2(spectrum, norm="ortho").real)
    everything = _build(_own(np.ones((12, 10))), 3, 12, 10)
    assert torch.allclose(everything.adjoint(everything.forward(x)), x)


def test_white_noise_stays_white() -> None:
    everything = _build(_own(np.ones((64, 64))), 1, 64, 64)
    zeros = torch.zeros(1, 1, 64, 64, dtype=torch.float64)
    noise = everything.initial(everything.measure(zeros, GaussianNoise(sigma=25.5), seed=0))
    assert float(noise.std()) == pytest.approx(0.1, rel=0.03)


def test_cartesian_keeps_rows_and_the_centre() -> None:
    operator = Fourier(pattern="cartesian", acceleration=4.0, center_fraction=0.1)
    rows = operator.sampled(64, 48, seed=1)[:, 0]
    assert torch.equal(operator.sampled(64, 48, seed=1), rows[:, None].expand(64, 48))
    assert 14 <= int(rows.sum()) <= 16
    assert bool(rows[[0, 1, 2, -1, -2]].all())
    assert not torch.equal(rows, operator.sampled(64, 48, seed=2)[:, 0])
    near = sum(int(operator.sampled(64, 48, seed=s)[3:17, 0].sum()) for s in range(20))
    far = sum(int(operator.sampled(64, 48, seed=s)[17:31, 0].sum()) for s in range(20))
    assert near > 2 * far
    assert bool(Fourier(pattern="cartesian", acceleration=1.0).sampled(9, 8).all())
    assert bool(Fourier(pattern="cartesian", acceleration=1.0).sampled(8, 8).all())
    assert int(Fourier(pattern="cartesian", acceleration=20.0, center_fraction=0.0).sampled(16, 16)[:, 0].sum()) == 1


def test_wrong_model_is_a_shift() -> None:
    """Half a pixel, twice, is a pixel: what the wrong phase does to a picture without Nyquist frequencies."""
    everything, wrong = (_build(_own(np.ones((9, 15))), 1, 9, 15, error=e) for e in (0.0, 1.0))
    x = _random(1, 1, 9, 15)
    once = everything.adjoint(wrong.forward(x))
    assert torch.allclose(everything.adjoint(wrong.forward(once)), x.roll(1, -1))


def test_own_pattern_in_both_conventions() -> None:
    mask = np.zeros((8, 10))
    mask[1, 2] = 1.0
    model = _build(_own(mask), 1, 8, 10)
    assert model.measurement_shape == (1, 2)  # ±k
    assert bool(model.pattern[1, 2])
    assert bool(model.pattern[7, 8])
    centred = _build(_own(np.fft.fftshift(mask), centred=True), 1, 8, 10)
    assert torch.equal(centred.pattern, model.pattern)
    picture = _build(Fourier(pattern="own", mask=encode(mask > 0), centred=False), 1, 8, 10)  # a PNG
    assert torch.equal(picture.pattern, model.pattern)


def test_own_patterns_are_refused_in_words() -> None:
    with pytest.raises(InvalidSettings, match="no pattern yet"):
        Fourier(pattern="own").build((1, 16, 16))
    with pytest.raises(InvalidSettings, match="8×10 and the image is 16×16"):
        _own(np.ones((8, 10))).build((1, 16, 16))
    with pytest.raises(InvalidSettings, match="measures nothing"):
        _own(np.zeros((16, 16))).build((1, 16, 16))
    with pytest.raises(ValueError, match="neither a"):
        Fourier(pattern="own", mask="AAAA")


@pytest.mark.parametrize("centred", [True, False])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_measurement_of_ones_own(channels: int, centred: bool) -> None:
    x = _random(1, channels, 12, 14)
    model = _build(Fourier(lines=4, centred=centred), channels, 12, 14)
    grid = torch.fft.fft2(x[0], norm="ortho")
    grid = torch.fft.fftshift(grid, dim=(-2, -1)) if centred else grid
    array = grid.numpy() if channels == 3 else grid[0].numpy()
    assert torch.allclose(model.measurement_from(array), model.forward(x))
    assert torch.allclose(model.measurement_from(model.forward(x)[0].numpy()), model.forward(x), atol=1e-6)
    with pytest.raises(InvalidSettings, match=f"{'3×' * (channels == 3)}12×14 complex numbers"):
        model.measurement_from(array[..., :-1])
    with pytest.raises(InvalidSettings, match="shape"):
        model.measurement_from(array.real)


def test_half_a_k_space_is_enough() -> None:
    """Where only k was measured, −k is its conjugate; where both were, the mean of the two."""
    x = _random(1, 1, 8, 8)
    grid = torch.fft.fft2(x[0, 0], norm="ortho").numpy()
    mask = np.zeros((8, 8))
    mask[1, 2] = mask[3, 5] = mask[-3, -5] = mask[0, 4] = 1
    model = _build(_own(mask), 1, 8, 8)
    assert torch.allclose(model.measurement_from(np.where(mask > 0, grid, 0)), model.forward(x))
    noisy = grid.copy()
    noisy[3, 5] += 0.2
    expected = model.forward(torch.fft.ifft2(torch.from_numpy(grid), norm="ortho").real[None, None])
    moved = model.measurement_from(noisy) - expected
    assert float(moved.abs().max()) == pytest.approx(0.1 * np.sqrt(2))


def test_preview_shows_k_space_beside_the_picture() -> None:
    x = _random(2, 3, 32, 48).sigmoid()
    model = _build(Fourier(lines=6), 3, 32, 48)
    y = model.forward(x)
    shown = model.preview(y)
    assert shown.shape == (2, 3, 32, 97)
    k_space, gap, picture = shown[..., :48], shown[..., 48:49], shown[..., 49:]
    assert torch.equal(k_space[0, 0] > 0, torch.fft.fftshift(model.pattern))
    assert float(k_space[0, :, 16, 24].min()) > 0.9  # the mean is the largest
    assert bool((gap == 0.5).all())
    assert torch.equal(picture, model.initial(y).clamp(0, 1))
    assert float(model.preview(torch.zeros_like(y))[..., :48].max()) == pytest.approx(0.15)


def test_describe_counts() -> None:
    assert Fourier(lines=10).build((1, 256, 256)).describe().startswith("2,521 of 65,536 coefficients (3.8%) on 10 lines")
    assert "on 1 line," in Fourier(lines=1).build((1, 16, 16)).describe()
    assert "of 64 rows" in Fourier(pattern="cartesian").build((3, 64, 64)).describe()
