"""What is particular to one operator: definitions, limits, pictures, refusals."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
import torch
from PIL import Image

from netprior_core import examples
from netprior_core.errors import InvalidSettings
from netprior_core.images import encode_png
from netprior_core.noise import PoissonNoise
from netprior_core.operators import Operator, compressed_sensing, super_resolution
from netprior_core.operators.base import largest_eigenvalue
from netprior_core.operators.colorization import Colorization
from netprior_core.operators.compressed_sensing import CompressedSensing, DenseModel, StructuredModel, hartley
from netprior_core.operators.denoising import Denoising
from netprior_core.operators.inpainting import MASK_CHARACTERS, Inpainting, decode_mask, encode_mask
from netprior_core.operators.super_resolution import SuperResolution


def _image(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def test_denoising_measures_every_value() -> None:
    model = Denoising().build((3, 12, 9))
    x = _image(2, 3, 12, 9)
    assert torch.equal(model.forward(x), x)
    assert torch.equal(model.initial(x), x)


# Inpainting


@pytest.mark.parametrize("keep", [0.01, 0.37, 1.0])
def test_random_masks_keep_the_stated_number_whatever_the_seed(keep: float) -> None:
    for seed in range(3):
        assert Inpainting(keep=keep).build((3, 17, 23), seed=seed).measurement_shape == (3, max(1, round(keep * 17 * 23)))


def test_random_masks_are_spread_over_the_picture() -> None:
    visible = Inpainting(keep=0.5).build((1, 64, 64)).mask[0, 0]
    quarters = visible.view(4, 16, 4, 16).mean(dim=(1, 3))
    assert float((quarters - 0.5).abs().max()) < 0.15


def test_hidden_pixels_have_neither_value_nor_noise() -> None:
    model = Inpainting(pattern="box", box_size=0.5).build((3, 16, 16))
    x = _image(1, 3, 16, 16)
    zero_filled = model.initial(model.forward(x) + 1)
    hidden = model.mask[0, 0] == 0
    assert int(hidden.sum()) == 64
    assert not hidden[3, 8]
    assert hidden[4, 4]
    assert torch.equal(zero_filled[:, :, hidden], torch.zeros(1, 3, 64))
    assert torch.allclose(zero_filled[:, :, ~hidden], x[:, :, ~hidden] + 1)


@pytest.mark.parametrize(("row", "column"), [(0, 0), (1, 1), (0.5, 0)])
def test_a_box_at_the_border_keeps_its_size(row: float, column: float) -> None:
    model = Inpainting(pattern="box", box_size=0.25, box_row=row, box_column=column).build((1, 32, 24))
    assert int((model.mask == 0).sum()) == 8 * 6


def test_the_largest_box_leaves_something() -> None:
    assert Inpainting(pattern="box", box_size=0.98).build((1, 8, 8)).m >= 8


def test_a_drawn_mask_is_white_where_hidden_and_scales_to_the_picture() -> None:
    hidden = np.zeros((8, 12), dtype=bool)
    hidden[2:4, 6:9] = True
    assert np.array_equal(decode_mask(encode_mask(hidden)), hidden)
    operator = Inpainting(pattern="drawn", mask="data:image/png;base64," + encode_mask(hidden))
    mask = operator.build((3, 16, 24)).mask[0, 0]
    assert np.array_equal(mask.numpy() == 0, hidden.repeat(2, axis=0).repeat(2, axis=1))


def test_a_transparent_drawing_hides_only_what_is_painted() -> None:
    layer = np.zeros((8, 8, 4), dtype=np.uint8)
    layer[1:3, 1:3] = 255
    buffer = io.BytesIO()
    Image.fromarray(layer).save(buffer, format="PNG")
    assert decode_mask(base64.b64encode(buffer.getvalue()).decode()).sum() == 4


@pytest.mark.parametrize(
    ("mask", "says"),
    [
        ("not base64!", "not base64"),
        (base64.b64encode(b"GIF89a nothing").decode(), "Save it as PNG"),
        (base64.b64encode(encode_png(torch.zeros(1, 64, 64))[:60]).decode(), "cannot be read"),
        (base64.b64encode(encode_png(torch.zeros(1, 2100, 2100))).decode(), "megapixels"),
        ("A" * (MASK_CHARACTERS + 4), "at most"),
    ],
    ids=["text", "gif", "truncated", "huge", "long"],
)
def test_a_bad_drawing_is_refused_when_the_settings_are_read(mask: str, says: str) -> None:
    with pytest.raises(InvalidSettings, match=says):
        Operator.registry.parse({"kind": "inpainting", "pattern": "drawn", "mask": mask})


def test_a_drawing_that_hides_all_or_is_missing_is_refused_in_words() -> None:
    with pytest.raises(InvalidSettings, match="every pixel is hidden"):
        Inpainting(pattern="drawn", mask=encode_mask(np.ones((8, 8), dtype=bool))).build((1, 16, 16))
    with pytest.raises(InvalidSettings, match="Paint over"):
        Inpainting(pattern="drawn").build((1, 16, 16))


def test_hidden_regions_are_hatched_and_visible_pixels_untouched() -> None:
    model = Inpainting(pattern="box").build((3, 48, 48))
    x = _image(1, 3, 48, 48)
    picture = model.preview(model.forward(x))
    seen = model.mask[0, 0] == 1
    assert torch.equal(picture[:, :, seen], x[:, :, seen])
    assert sorted({round(float(v), 2) for v in picture[:, :, ~seen].unique()}) == [0.5, 0.62]


# Compressed sensing


@pytest.mark.parametrize("normalisation", ["1/m", "1"])
@pytest.mark.parametrize("matrix", ["dense", "structured"])
def test_entries_have_the_stated_variance(matrix: str, normalisation: str) -> None:
    model = CompressedSensing(ratio=0.25, matrix=matrix, normalisation=normalisation).build((1, 32, 32))
    x = _image(64, 1, 32, 32, seed=1) - 0.3  # of another seed than A, which a shared stream would correlate with x
    gain = float(model.forward(x).square().sum() / x.square().sum())
    assert gain == pytest.approx(1.0 if normalisation == "1/m" else model.m, rel=0.05)


def test_dense_entries_are_independent_gaussians() -> None:
    model = CompressedSensing(ratio=0.2, normalisation="1").build((1, 40, 40))
    assert isinstance(model, DenseModel)
    a = model.matrix.double()
    assert a.shape == (320, 1600)
    assert float(a.mean()) == pytest.approx(0, abs=0.01)
    assert float(a.var()) == pytest.approx(1, abs=0.01)
    assert float(a.pow(4).mean()) == pytest.approx(3, abs=0.05)
    rows = (a @ a.T / 1600 - torch.eye(320)).abs().max()
    assert float(rows) < 0.2


def test_structured_measurements_of_a_picture_look_gaussian() -> None:
    """A flat picture is the worst case for a transform: without the signs all its energy would be in one row."""
    y = CompressedSensing(ratio=0.5, matrix="structured").build((1, 64, 64)).forward(torch.full((1, 1, 64, 64), 0.5))
    assert float(y.pow(4).mean() / y.square().mean() ** 2) == pytest.approx(3, abs=0.5)
    assert float(y.abs().max() / y.square().mean().sqrt()) < 6


def test_dense_by_default_within_the_budget_and_structured_beyond_it(monkeypatch: pytest.MonkeyPatch) -> None:
    small, large = (1, 16, 16), (3, 256, 256)
    assert isinstance(CompressedSensing().build(small), DenseModel)
    for matrix in ("auto", "dense"):
        model = CompressedSensing(ratio=0.25, matrix=matrix).build(large)
        assert isinstance(model, StructuredModel)
        assert "since a dense one would need 36.0 GiB (budget 256.0 MiB)" in model.describe()
    assert "since" not in CompressedSensing(matrix="structured").build(small).describe()
    assert "26 × 256" in CompressedSensing().build(small).describe()
    monkeypatch.setattr(compressed_sensing, "MEMORY_BUDGET", 26 * 256 * 4)
    assert isinstance(CompressedSensing().build(small), DenseModel)
    monkeypatch.setattr(compressed_sensing, "MEMORY_BUDGET", 26 * 256 * 4 - 1)
    assert isinstance(CompressedSensing().build(small), StructuredModel)


def test_a_dense_pseudo_inverse_is_offered_only_where_it_is_affordable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compressed_sensing, "PINV_ROWS", 20)
    model = CompressedSensing(ratio=0.1).build((1, 16, 16))
    assert not model.has_pinv
    with pytest.raises(NotImplementedError):
        model.pinv(torch.zeros(1, 26))


@pytest.mark.parametrize("n", [1, 2, 3, 8, 15, 64, 101])
def test_the_hartley_transform_is_the_cas_matrix_and_its_own_inverse(n: int) -> None:
    grid = torch.arange(n, dtype=torch.float64)
    angle = 2 * torch.pi * grid[:, None] * grid / n
    exact = (angle.cos() + angle.sin()) / n**0.5
    eye = torch.eye(n, dtype=torch.float64)
    assert torch.allclose(hartley(eye), exact, atol=1e-12)
    assert torch.allclose(hartley(hartley(eye)), eye, atol=1e-12)


@pytest.mark.parametrize("normalisation", ["1/m", "1"])
def test_the_first_picture_has_the_contrast_of_the_image(normalisation: str) -> None:
    model = CompressedSensing(ratio=0.5, normalisation=normalisation).build((1, 24, 24))
    x = _image(1, 1, 24, 24)
    initial = model.initial(model.forward(x))
    assert float((initial * x).sum() / x.square().sum()) == pytest.approx(1, abs=0.15)


def test_the_strip_is_near_square_and_shows_all_measurements() -> None:
    model = CompressedSensing(ratio=0.1).build((1, 20, 20))
    strip = model.preview(torch.linspace(-1, 1, 40)[None])
    assert strip.shape == (1, 1, 6, 7)
    assert torch.all(strip.flatten()[:40].diff() >= 0)
    assert torch.equal(strip.flatten()[40:], torch.full((2,), 0.5))


@pytest.mark.parametrize("matrix", ["dense", "structured"])
def test_a_count_is_measured_exactly_and_the_ratio_left_alone(matrix: str) -> None:
    for count in (1, 25, 200, 784):
        model = CompressedSensing(count=count, ratio=0.5, matrix=matrix).build((1, 28, 28))
        assert model.m == count
        assert f"{count:,}" in model.describe()
    with pytest.raises(InvalidSettings, match="785 measurements were asked for, and an image of 28×28 has only 784 values"):
        CompressedSensing(count=785).build((1, 28, 28))
    assert CompressedSensing(count=785).refuses((3, 28, 28)) is None


def test_nothing_that_can_be_asked_for_is_larger_than_the_budget() -> None:
    """The most that settings allow: all values of a large colour picture, a dense matrix wanted."""
    model = CompressedSensing(ratio=1.0, matrix="dense").build((3, 1024, 1024))
    assert isinstance(model, StructuredModel)
    assert "since a dense one would need 36,864.0 GiB" in model.describe()
    held = sum(value.nbytes for value in vars(model).values() if isinstance(value, torch.Tensor))
    assert held <= 20 * model.n < compressed_sensing.MEMORY_BUDGET
    most = CompressedSensing(count=65_536, matrix="dense").build((1, 256, 256))
    assert isinstance(most, StructuredModel)
    assert CompressedSensing(count=1024, matrix="dense").build((1, 256, 256)).matrix.nbytes == compressed_sensing.MEMORY_BUDGET


def test_presets_name_the_papers() -> None:
    assert CompressedSensing.preset("low-shot paper").normalisation == "1"
    assert CompressedSensing.preset("CS-DIP and MetaDIP").normalisation == "1/m"
    assert CompressedSensing.preset("CS-DIP, MNIST digits").build((1, 28, 28)).m == 75
    assert CompressedSensing.preset("CS-DIP, chest X-rays").build((1, 256, 256), device="meta").m == 2000


def test_lanczos_meets_the_edge_of_a_gaussian_spectrum() -> None:
    model = CompressedSensing(ratio=0.25).build((1, 32, 32), dtype=torch.float64)
    exact = float(torch.linalg.matrix_norm(model.matrix, 2))
    start = torch.randn(1, 1, 32, 32, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert largest_eigenvalue(model.normal, start) ** 0.5 == pytest.approx(exact, rel=1e-4)
    assert largest_eigenvalue(lambda x: 0 * x, start) == 0


# Super-resolution


@pytest.mark.parametrize("factor", [2, 4, 8])
@pytest.mark.parametrize("kernel", ["lanczos", "bicubic", "box"])
def test_downsampling_is_pillows(kernel: str, factor: int) -> None:
    x = _image(1, 1, 48, 64)
    y = SuperResolution(factor=factor, kernel=kernel).build((1, 48, 64)).forward(x)
    filters = {"lanczos": Image.Resampling.LANCZOS, "bicubic": Image.Resampling.BICUBIC, "box": Image.Resampling.BOX}
    pillow = Image.fromarray(x[0, 0].numpy()).resize((64 // factor, 48 // factor), filters[kernel])
    assert np.allclose(y[0, 0].numpy(), np.asarray(pillow), atol=1e-5)


@pytest.mark.parametrize("factor", [2, 4, 8])
@pytest.mark.parametrize("kernel", ["lanczos", "bicubic", "box"])
@pytest.mark.parametrize("error", [0.0, 1.0])
def test_bands_are_the_dense_factors(kernel: str, factor: int, error: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Large pictures are measured in O(n), small ones with dense matrices: the same operator."""
    operator = SuperResolution(factor=factor, kernel=kernel)
    dense = operator.build((2, 48, 64), dtype=torch.float64, error=error)
    monkeypatch.setattr(super_resolution, "DENSE_SIDE", 0)
    banded = operator.build((2, 48, 64), dtype=torch.float64, error=error)
    x, y = _image(2, 2, 48, 64).double(), _image(2, *dense.measurement_shape).double()
    assert torch.allclose(banded.forward(x), dense.forward(x), atol=1e-12)
    assert torch.allclose(banded.adjoint(y), dense.adjoint(y), atol=1e-12)


def test_a_flat_picture_stays_flat() -> None:
    for kernel in ("lanczos", "bicubic", "box"):
        model = SuperResolution(factor=4, kernel=kernel).build((3, 32, 16))
        flat = torch.full((1, 3, 32, 16), 0.7)
        assert torch.allclose(model.forward(flat), torch.full((1, 3, 8, 4), 0.7), atol=1e-6)
        assert torch.allclose(model.initial(model.forward(flat)), flat, atol=1e-5)


def test_sizes_that_do_not_divide_or_are_too_small_are_refused_in_words() -> None:
    operator = SuperResolution(factor=8)
    assert operator.refuses((1, 32, 64)) is None
    assert "multiples of 8" in (operator.refuses((1, 36, 64)) or "")
    assert "smaller factor" in (operator.refuses((1, 16, 64)) or "")
    with pytest.raises(InvalidSettings, match="36 × 64"):
        operator.build((1, 36, 64))
    assert operator.shape_of_measured((3, 20, 30)) == (3, 160, 240)


# Colorization


def test_luma_is_pillows_and_grey_is_refused() -> None:
    x = _image(1, 3, 16, 12)
    model = Colorization().build((3, 16, 12))
    pixels = (x[0].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    y = model.forward(torch.from_numpy(pixels.astype(np.float32) / 255).permute(2, 0, 1)[None])
    assert np.abs(y[0, 0].numpy() * 255 - np.asarray(Image.fromarray(pixels).convert("L"))).max() < 0.51
    with pytest.raises(InvalidSettings, match="grey"):
        Colorization().build((1, 16, 12))


def test_the_grey_picture_and_the_pseudo_inverse_both_measure_as_y() -> None:
    model = Colorization().build((3, 8, 8))
    y = _image(1, 1, 8, 8)
    for picture in (model.initial(y), model.pinv(y)):
        assert torch.allclose(model.forward(picture), y, atol=1e-6)
    grey = model.initial(y)
    assert torch.equal(grey[:, 0], grey[:, 2])


def test_a_grey_upload_can_be_colourised() -> None:
    operator = Colorization()
    assert operator.shape_of_measured((1, 20, 30)) == (3, 20, 30)
    model = operator.build((3, 20, 30))
    picture = _image(1, 1, 20, 30)
    assert torch.equal(model.measurement_of(picture), picture)
    with pytest.raises(ValueError, match="3×20×30"):
        model.measurement_of(_image(1, 2, 20, 30))


@pytest.mark.parametrize("ratio", [0.5, 0.9, 1.0])
def test_the_dense_pseudo_inverse_fits_y_in_single_precision(ratio: float) -> None:
    model = CompressedSensing(ratio=ratio).build((1, 16, 16), seed=4)
    y = model.forward(_image(2, 1, 16, 16))
    assert torch.allclose(model.forward(model.pinv(y)), y, atol=2e-4)


def test_a_stretched_filter_that_hardly_measures_some_pictures_offers_no_pseudo_inverse() -> None:
    operator = SuperResolution(factor=4)
    assert operator.build((1, 32, 32)).has_pinv  # type: ignore[attr-defined]
    assert not operator.build((1, 32, 32), error=1.0).has_pinv  # type: ignore[attr-defined]


@pytest.mark.parametrize("key", ["astronaut", "coffee", "camera", "portrait", "mri", "cat"])
def test_photons_are_counted_behind_a_filter_that_undershoots_a_little(key: str) -> None:
    model = SuperResolution(factor=4).build((1, 64, 64))
    y = model.measure(examples.get(key).targets(64, 1)[:1], PoissonNoise(photons=100), seed=0)
    assert float(y.min()) >= 0
