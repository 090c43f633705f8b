"""Tomography against scikit-image, against integrals known in closed form, and against itself in its other ways of computing."""

from __future__ import annotations

import argparse
import math
from typing import Any

import numpy as np
import pytest
import torch
from skimage.data import shepp_logan_phantom
from skimage.transform import iradon, radon, resize

from netprior_core.bench import Report
from netprior_core.bench import tomography as bench
from netprior_core.errors import InvalidSettings
from netprior_core.metrics import psnr
from netprior_core.operators import _radon
from netprior_core.operators.tomography import Tomography, TomographyModel


def _model(
    size: int | tuple[int, ...] = 32, *, dtype: torch.dtype = torch.float64, error: float = 0.0, **settings: Any
) -> TomographyModel:
    shape = (1, size, size) if isinstance(size, int) else size
    model = Tomography(**settings).build(shape, seed=1, dtype=dtype, error=error)  # type: ignore[arg-type]
    assert isinstance(model, TomographyModel)
    return model


def _random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _phantom(size: int) -> torch.Tensor:
    picture = resize(shepp_logan_phantom(), (size, size), anti_aliasing=True)
    return torch.from_numpy(picture)[None, None]


def _disc(size: int, radius: float, across: float = 0.0, up: float = 0.0, sub: int = 8) -> torch.Tensor:
    """A disc, antialiased; lengths in halves of the side."""
    line = (torch.arange(size * sub, dtype=torch.float64) + 0.5) / (size * sub) * 2 - 1
    inside = (line - across) ** 2 + (-line[:, None] - up) ** 2 <= radius**2
    return torch.nn.functional.avg_pool2d(inside.double()[None, None], sub)


def test_a_disc_casts_the_shadow_of_a_disc() -> None:
    """Chords of a disc are 2 √(r² − s²), wherever the centre falls: tells angles, axis, direction and unit in one go."""
    size, radius, across, up = 64, 0.45, 0.3, 0.2
    model = _model(size, angles=12, start=-40)
    y = model.forward(_disc(size, radius, across, up))[0, 0]
    detectors = model.measurement_shape[2]
    s = (torch.arange(detectors) + 0.5 - detectors / 2) / (size / 2)
    angle = torch.deg2rad(-40 + torch.arange(12) * 15.0)[:, None]
    centre = across * angle.cos() + up * angle.sin()
    # Lengths are in halves of the side: the chord 2 √(r² − s²) is √(r² − s²) of the side.
    expected = (radius**2 - (s - centre) ** 2).clamp_min(0).sqrt()
    assert float((y - expected).norm() / expected.norm()) < 0.02
    # An integral is kept by every view: the area of the disc, in pixels of unit 1/side.
    torch.testing.assert_close(y.sum(1), torch.full((12,), math.pi * (radius * size / 2) ** 2 / size).double(), rtol=2e-3, atol=0)


def test_a_white_picture_measures_one_straight_across() -> None:
    y = _model((1, 24, 40), angles=2).forward(torch.ones(1, 1, 24, 40, dtype=torch.float64))[0, 0]
    down, across = y[0], y[1]  # rays along the columns (24 of the longer side's 40 pixels), then along the rows
    middle = len(down) // 2
    assert float(down[middle]) == pytest.approx(24 / 40)
    assert float(across[middle]) == pytest.approx(1.0)
    diagonal = _model(40, angles=4).forward(torch.ones(1, 1, 40, 40, dtype=torch.float64))[0, 0, 1]
    assert float(diagonal.max()) == pytest.approx(math.sqrt(2), rel=0.02)


@pytest.mark.parametrize("size", [32, 33])
@pytest.mark.parametrize("circle", [False, True])
def test_the_sinogram_is_scikit_images(size: int, circle: bool) -> None:
    """Its axis is the middle of pixel size // 2, half a pixel right of and below the picture's centre where the side is even."""
    half = (1 - size % 2) / size
    theirs = radon(_two_discs(size)[0, 0].numpy(), np.arange(10) * 18.0, circle=circle).T / size
    detectors = theirs.shape[1]
    model = _model(size, angles=10, detectors=detectors, axis=0.0 if detectors % 2 else 0.5)
    y = model.measurement_from(theirs.T)
    ours = model.forward(_two_discs(size, -half, half))
    assert float((ours - y).norm()) < 0.03 * float(y.norm())


def _two_discs(size: int, across: float = 0.0, up: float = 0.0) -> torch.Tensor:
    return _disc(size, 0.4, across + 0.2, up + 0.1) + _disc(size, 0.2, across - 0.3, up - 0.3)


@pytest.mark.parametrize("axis", [-1.5, 0.5, 2.0])
def test_an_axis_beside_the_middle_moves_the_rows(axis: float) -> None:
    x, steps = _random(1, 1, 24, 20), round(2 * abs(axis))
    here, there = (
        _model((1, 24, 20), angles=6, detectors=50 + steps).forward(x),
        _model((1, 24, 20), angles=6, detectors=50, axis=axis),
    )
    torch.testing.assert_close(there.forward(x), here[..., :50] if axis > 0 else here[..., steps:])
    picture = _disc(32, 0.5, 0.2)
    centred, moved = (_model(32, angles=60, detectors=60, axis=a) for a in (0.0, axis))
    found = moved.initial(moved.forward(picture)), centred.initial(centred.forward(picture))
    assert float((found[0] - found[1]).abs().mean()) < 0.03
    with pytest.raises(InvalidSettings, match="half a detector"):
        _model(axis=0.3)


@pytest.mark.parametrize("angles", [60, 180])
@pytest.mark.parametrize("circle", [False, True])
def test_filtered_back_projection_is_as_good_as_scikit_images(angles: int, circle: bool) -> None:
    """Each on the sinogram of its own forward model; compared over the whole picture and over its inscribed circle."""
    size = 128
    truth = _phantom(size)
    model = _model(size, angles=angles, detectors=size if circle else 0, dtype=torch.float32)
    ours = model.initial(model.forward(truth.float())).double()
    theta = np.arange(angles) * 180 / angles
    theirs = torch.from_numpy(iradon(radon(truth[0, 0].numpy(), theta, circle=circle), theta, circle=circle))[None, None]
    assert float(psnr(ours, truth)) > float(psnr(theirs, truth)) - 0.3
    line = torch.arange(size) - (size - 1) / 2
    inside = (line**2 + line[:, None] ** 2 < (size / 2 - 1) ** 2)[None, None]
    assert float(psnr(ours * inside, truth * inside)) > float(psnr(theirs * inside, truth * inside)) - 0.3


@pytest.mark.parametrize("settings", [{"angles": 24}, {"angles": 200}, {"angles": 61, "start": 33}, {"angles": 60, "arc": 120}])
def test_back_projection_keeps_grey_values(settings: dict[str, Any]) -> None:
    truth = _disc(48, 0.6)
    model = _model(48, **settings)
    found = model.initial(model.forward(truth))
    inner = _disc(48, 0.4) == 1
    assert float(found[inner].mean()) == pytest.approx(1, abs=0.3 if "arc" in settings else 0.02)
    assert float(found.mean()) == pytest.approx(float(truth.mean()), rel=0.05)


@pytest.mark.parametrize("filter", ["ramp", "shepp-logan", "cosine", "hamming", "hann"])
def test_windows_are_scikit_images(filter: str) -> None:
    from skimage.transform.radon_transform import _get_fourier_filter

    length = _radon.padded(500)
    theirs = _get_fourier_filter(length, filter)[: length // 2 + 1, 0] / 2
    np.testing.assert_allclose(_radon.ramp(500, filter).numpy(), theirs, atol=2e-3)  # its Hamming and Hann are a sample off centre


def test_without_a_filter_the_picture_is_blurred_but_as_bright() -> None:
    model = _model(32, angles=40, filter="none")
    found = model.initial(model.forward(torch.ones(1, 1, 32, 32, dtype=torch.float64)))
    assert 0.8 < float(found[..., 8:24, 8:24].mean()) < 1.3


@pytest.mark.parametrize("shape", [(1, 17, 17), (3, 15, 20), (1, 16, 16)])
@pytest.mark.parametrize("finer", [False, True])
@pytest.mark.parametrize("share", [0.0, 0.5])
def test_weights_computed_at_every_use_are_those_stored(
    monkeypatch: pytest.MonkeyPatch, shape: tuple[int, int, int], finer: bool, share: float
) -> None:
    operator = Tomography(angles=7, start=20, detectors=18)

    def build() -> TomographyModel:
        model = operator.build_finer(shape, dtype=torch.float64) if finer else operator.build(shape, dtype=torch.float64)
        assert isinstance(model, TomographyModel)
        return model

    stored = build()
    monkeypatch.setattr(_radon, "MEMORY_BUDGET", share * stored.projector.bytes_if_stored)
    monkeypatch.setattr(_radon, "BLOCK", 300)  # several blocks
    computed = build()
    assert stored.projector.stored == 7
    assert computed.projector.stored == int(7 * share)
    assert "stored" in stored.describe()
    assert "budget" in computed.describe()
    x, y = _random(2, *stored.shape), _random(2, *stored.measurement_shape, seed=1)
    torch.testing.assert_close(computed.forward(x), stored.forward(x), rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(computed.adjoint(y), stored.adjoint(y), rtol=1e-7, atol=1e-9)
    assert float((computed.forward(x) * y).sum()) == pytest.approx(float((x * computed.adjoint(y)).sum()), rel=1e-12)
    x = x.requires_grad_()
    (first,) = torch.autograd.grad(computed.forward(x).square().sum() / 2, x, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum() / 2, x)
    torch.testing.assert_close(second, computed.normal(computed.normal(x.detach())), rtol=1e-9, atol=1e-12)


def test_the_stated_memory_is_what_is_held() -> None:
    projector = _model(48, angles=20, dtype=torch.float32).projector
    held = sum(
        part.numel() * part.element_size()
        for matrix in (projector._rays, projector._pixels)
        for part in (matrix.crow_indices(), matrix.col_indices(), matrix.values())
    )
    assert held == pytest.approx(projector.bytes_if_stored, rel=0.05)


def test_the_finer_grid_measures_the_same_thing() -> None:
    operator, shape = Tomography(angles=11, start=5), (1, 32, 24)
    coarse, finer = operator.build(shape, dtype=torch.float64), operator.build_finer(shape, dtype=torch.float64)
    assert finer.shape == (1, 64, 48)
    assert finer.measurement_shape == coarse.measurement_shape
    # A picture of blocks of 2 × 2 is the same picture, and is measured alike.
    x = _random(1, *shape)
    blocks = x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    torch.testing.assert_close(finer.forward(blocks), coarse.forward(x))
    # One with detail of its own is not: that is what the finer grid is for.
    smooth = torch.nn.functional.interpolate(_random(1, 1, 8, 6), size=(64, 48), mode="bicubic")
    wanted, found = finer.forward(smooth), coarse.forward(torch.nn.functional.avg_pool2d(smooth, 2))
    off = float((wanted - found).norm() / wanted.norm())
    assert 1e-5 < off < 0.03
    torch.testing.assert_close(
        torch.nn.functional.avg_pool2d(finer.initial(wanted), 2), coarse.initial(wanted), rtol=0, atol=0.05 * float(smooth.max())
    )


def test_two_fine_rays_make_one_of_the_finer_models_bins() -> None:
    operator, shape = Tomography(angles=9, detectors=40), (1, 24, 24)
    x = _random(1, 1, 48, 48)
    rays = _model((1, 48, 48), angles=9, detectors=80).forward(x)
    torch.testing.assert_close(operator.build_finer(shape, dtype=torch.float64).forward(x), rays.unflatten(3, (40, 2)).mean(4))


def test_a_missing_range_of_angles_leaves_the_level_right() -> None:
    truth = 0.2 + 0.6 * _disc(48, 0.5)
    for settings in ({"detectors": 0}, {"detectors": 48}):
        model = _model(48, angles=30, arc=70.0, **settings)
        y = model.forward(truth)
        assert float(model.forward(model.initial(y)).mean()) == pytest.approx(float(y.mean()), rel=1e-6)


def test_an_axis_beyond_the_detectors_is_refused() -> None:
    few = Tomography(angles=9, detectors=16, axis=8)
    assert "beyond" in (few.refuses((1, 16, 16)) or "")
    assert few.model_copy(update={"axis": 7.5}).refuses((1, 16, 16)) is None


def test_what_too_few_detectors_leave_out_is_black() -> None:
    model = _model(32, angles=20, detectors=32)
    assert "circle" in model.describe()
    found = model.initial(model.forward(_random(1, 1, 32, 32)))[0, 0]
    assert float(found[0, 0].abs()) == 0
    assert float(found[16, 16].abs()) > 0.1
    with pytest.raises(InvalidSettings, match="8 detectors"):
        Tomography(detectors=3).build((1, 32, 32))


def test_a_wrong_model_turns_the_views_by_a_degree() -> None:
    right, wrong = _model(16, angles=400), _model(16, angles=400, error=1.0)
    assert float((wrong.angles - right.angles).std()) == pytest.approx(1, rel=0.1)
    torch.testing.assert_close(_model(16, angles=400, error=0.5).angles - right.angles, (wrong.angles - right.angles) / 2)


def test_own_sinograms() -> None:
    model = _model(32, angles=10)
    y = model.forward(_random(1, 1, 32, 32))
    sinogram = y[0, 0].numpy().astype(np.float32)
    for array in (sinogram, sinogram.T, sinogram[None], sinogram[None, None], sinogram.T[None]):
        torch.testing.assert_close(model.measurement_from(array), y, rtol=1e-6, atol=1e-6)
    with pytest.raises(InvalidSettings, match=r"detectors to 40"):
        model.measurement_from(np.zeros((10, 40)))
    with pytest.raises(InvalidSettings, match=r"divide|Divide"):
        model.measurement_from(sinogram * 32)
    with pytest.raises(InvalidSettings, match="10×46"):
        model.measurement_from(np.zeros((11, 40)))
    colour = _model((3, 32, 32), angles=10)
    assert colour.measurement_from(np.stack([sinogram.T] * 3)).shape == (1, 3, 10, 46)
    with pytest.raises(InvalidSettings, match="one channel"):
        colour.measurement_from(sinogram)
    square = _model(32, angles=46)  # views and detectors cannot be told apart: views come first
    y = square.forward(_random(1, 1, 32, 32))
    torch.testing.assert_close(square.measurement_from(y[0, 0].numpy()), y, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("angles", "shape"), [(4, (1, 3, 24, 46)), (60, (1, 3, 60, 46))])
def test_the_preview_is_the_sinogram(angles: int, shape: tuple[int, ...]) -> None:
    model = _model((3, 32, 32), angles=angles)
    y = model.forward(_random(1, 3, 32, 32))
    preview = model.preview(y)
    assert preview.shape == shape
    assert float(preview.max()) == 1
    torch.testing.assert_close(preview[:, :, :: shape[2] // angles], y / y.max())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("budget", [_radon.MEMORY_BUDGET, 0])
def test_cuda_agrees(monkeypatch: pytest.MonkeyPatch, budget: int) -> None:
    monkeypatch.setattr(_radon, "MEMORY_BUDGET", budget)
    cpu = Tomography(angles=9).build((3, 20, 16), dtype=torch.float64)
    gpu = Tomography(angles=9).build((3, 20, 16), device="cuda", dtype=torch.float64)
    x = _random(2, 3, 20, 16)
    y = cpu.forward(x)
    torch.testing.assert_close(gpu.forward(x.cuda()).cpu(), y)
    torch.testing.assert_close(gpu.initial(y.cuda()).cpu(), cpu.initial(y))


def test_the_bench_has_rows_for_both() -> None:
    options = argparse.Namespace(quick=True, views=10, repeats=1)
    report = Report("tomography", {})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bench, "QUICK_SIZES", (16,))
        patch.setattr(bench, "QUALITY_SIZE", 32)
        bench.run(options, report)
    timed = report.rows[0]
    ours, theirs = (sum(timed[f"{who}_{what}_ms"] for what in ("forward", "adjoint")) for who in ("ours", "skimage"))
    assert timed["ratio"] == pytest.approx(ours / theirs)
    assert [row["views"] for row in report.rows[1:]] == list(bench.COUNTS)
    assert all(row["difference"] == pytest.approx(row["ours_psnr"] - row["skimage_psnr"]) for row in report.rows[1:])
