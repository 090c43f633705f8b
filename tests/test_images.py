"""Every kind of bad upload gets a sentence that helps; good ones keep their values."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from netprior_core import images
from netprior_core.errors import BadImage
from netprior_core.images import (
    MAX_BYTES,
    contact,
    data_uri,
    encode_jpeg,
    encode_png,
    encode_webp_lossless,
    fit,
    load_image,
    read_upload,
    sha256_of,
    to_pil,
    to_tensor,
    to_uint8,
)


def _colours(height: int = 16, width: int = 24, channels: int = 3) -> np.ndarray:
    values = np.random.default_rng(0).integers(0, 256, (height, width, channels), dtype=np.uint8)
    return values[..., 0] if channels == 1 else values


def _saved(image: Image.Image | np.ndarray, format: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    (Image.fromarray(image) if isinstance(image, np.ndarray) else image).save(buffer, format=format, **options)
    return buffer.getvalue()


def _png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds next to nothing."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")


# What is refused, and in which words


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "empty"),
        (b"hello, this is a text file", "Save it as PNG, JPEG"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG drawing"),
        (b"<?xml version='1.0'?>\n<!-- made by hand -->\n<svg width='3'/>", "SVG drawing"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC"),
        (b"\0\0\0\x20ftypavif\0\0\0\0avifmif1", "AVIF"),
        (b"\0\0\0\x20ftypisom\0\0\0\0isommp42", "video"),
        (b"%PDF-1.7 whatever", "PDF"),
        (b"\x89PNG\r\n\x1a\nrubbish", "damaged"),
        (_saved(_colours(64, 64))[:3000], "cut short"),
        (_saved(_colours(64, 64), "JPEG")[:1500], "cut short"),
        (_saved(_colours(64, 64), "TIFF")[:3000], "damaged"),
        (_saved(_colours(64, 64), "WEBP", lossless=True)[:3000], "damaged"),
        (_saved(_colours(64, 64, 1), "GIF")[:1000], "cut short"),
        (_saved(_colours(1, 1)), "only 1 pixel. Use a picture of at least 8 × 8"),
        (_saved(_colours(7, 100)), "only 100 × 7 pixels"),
        (_png_header(20_000, 20_000), "megapixels that can be opened. Scale it down"),
        (_png_header(13_000, 13_000), r"13,000 × 13,000 pixels, more than the 24 megapixels"),
        (_png_header(2_000_000_000, 2), "Scale it down"),
        (_saved(Image.new("L", (16, 16)), "PPM"), "is not a picture that can be read"),
    ],
    ids=[
        "empty", "text", "svg", "svg-xml", "heic", "avif", "video", "pdf", "png-rubbish", "png-cut", "jpeg-cut", "tiff-cut",
        "webp-cut", "gif-cut", "one-pixel", "sliver", "20000", "13000", "long", "ppm",
    ],
)  # fmt: skip
def test_bad_files_get_a_sentence_that_helps(data: bytes, says: str) -> None:
    with pytest.raises(BadImage, match=says) as caught:
        load_image(data, name="mine.png")
    message = str(caught.value)
    assert message.startswith("“mine.png”")
    assert message.endswith(".")
    assert len(message) < 200


def test_the_size_is_checked_before_a_pixel_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A small file that would unpack into hundreds of megabytes: a zip bomb in PNG's clothes."""
    bomb = _saved(Image.new("1", (6000, 5000)))
    assert len(bomb) < 20_000

    def refuse(*args: object) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", refuse)
    with pytest.raises(BadImage, match="6,000 × 5,000"):
        load_image(bomb)


def test_large_files_are_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "large.png"
    with path.open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    with pytest.raises(BadImage, match=r"“large.png” is larger than 20 MB"):
        read_upload(path)
    with pytest.raises(BadImage, match="larger than 20 MB"):
        load_image(io.BytesIO(b"\0" * (MAX_BYTES + 1)))
    with pytest.raises(BadImage, match="larger than 20 MB"):
        load_image(b"\0" * (MAX_BYTES + 1))
    with pytest.raises(BadImage, match="Upload it again"):
        read_upload(tmp_path / "gone.png")


def test_other_formats_of_pillow_are_never_tried() -> None:
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 100\n"
    with pytest.raises(BadImage, match="not a picture"):
        load_image(eps)


def test_floats_that_are_not_numbers_are_refused() -> None:
    values = np.full((16, 16), 0.5, dtype=np.float32)
    values[3, 3] = np.nan
    for source in (_saved(values, "TIFF"), values):
        with pytest.raises(BadImage, match="NaN"):
            load_image(source)


def test_32_bit_integers_beyond_16_are_refused() -> None:
    with pytest.raises(BadImage, match="32-bit"):
        load_image(_saved(np.full((16, 16), 70_000, dtype=np.int32), "TIFF"))


@pytest.mark.parametrize(
    ("array", "says"),
    [
        (np.zeros((2, 16, 16, 3), np.uint8), "2×16×16×3"),
        (np.zeros((16, 16, 5), np.uint8), "16×16×5"),
        (np.zeros((16, 16), np.int64), "int64"),
        (np.zeros((4, 16), np.uint8), "at least 8 × 8"),
        (np.broadcast_to(np.uint8(0), (20_000, 20_000)), "megapixels"),
    ],
    ids=["batch", "channels", "integers", "small", "large"],
)
def test_bad_arrays_too(array: np.ndarray, says: str) -> None:
    with pytest.raises(BadImage, match=says):
        load_image(array)


# What is understood


@pytest.mark.parametrize("format", ["PNG", "BMP", "TIFF", "WEBP"])
def test_lossless_formats_keep_every_value(format: str) -> None:
    pixels = _colours()
    picture = load_image(_saved(pixels, format, **({"lossless": True, "exact": True} if format == "WEBP" else {})))
    assert picture.notes == ()
    assert picture.channels == 3
    assert picture.array.dtype == np.float32
    assert np.array_equal(np.rint(picture.array * 255), pixels)


def test_a_jpeg_is_close_and_a_stream_will_do() -> None:
    smooth = np.asarray(Image.fromarray(_colours(4, 4)).resize((64, 64), Image.Resampling.BICUBIC))
    picture = load_image(io.BytesIO(_saved(smooth, "JPEG", quality=95)))
    assert np.abs(picture.array * 255 - smooth).mean() < 3


def test_grey_stays_one_channel_and_one_bit_is_black_and_white() -> None:
    grey = _colours(channels=1)
    picture = load_image(_saved(grey))
    assert picture.array.shape == (16, 24, 1)
    assert np.array_equal(np.rint(picture.array[..., 0] * 255), grey)
    bits = load_image(_saved(Image.fromarray(grey > 128)))
    assert np.array_equal(bits.array[..., 0], (grey > 128).astype(np.float32))


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_16_bit_grey_keeps_its_16_bits(format: str) -> None:
    values = np.linspace(0, 65535, 16 * 24).astype(np.uint16).reshape(16, 24)
    picture = load_image(_saved(values, format))
    assert np.abs(picture.array[..., 0] * 65535 - values).max() < 0.01


def test_16_bit_big_endian_and_wide_integers() -> None:
    values = np.linspace(0, 65535, 16 * 24).astype(np.uint16).reshape(16, 24)
    big = Image.frombytes("I;16B", (24, 16), values.astype(">u2").tobytes())
    for data in (_saved(big, "TIFF"), _saved(values.astype(np.int32), "TIFF")):
        assert np.abs(load_image(data).array[..., 0] * 65535 - values).max() < 0.01


def test_float_tiffs_are_taken_as_they_are_and_clipped_with_a_note() -> None:
    values = np.linspace(0, 1, 256, dtype=np.float32).reshape(16, 16)
    picture = load_image(_saved(values, "TIFF"))
    assert np.array_equal(picture.array[..., 0], values)
    assert picture.notes == ()
    clipped = load_image(_saved(values * 3 - 1, "TIFF"))
    assert "clipped" in clipped.notes[0]
    assert (clipped.array.min(), clipped.array.max()) == (0, 1)


def test_transparency_is_put_on_white_and_said() -> None:
    pixels = np.zeros((16, 16, 4), dtype=np.uint8)
    pixels[..., 0] = 200
    pixels[:8, :, 3] = 255
    pixels[8:, :, 3] = 51
    picture = load_image(_saved(pixels))
    assert picture.notes == ("transparency put on white",)
    assert picture.array[0, 0] == pytest.approx([200 / 255, 0, 0], abs=1e-6)
    assert picture.array[12, 0] == pytest.approx([0.2 * 200 / 255 + 0.8, 0.8, 0.8], abs=1e-6)
    assert load_image(_saved(pixels), background=0).array[12, 0, 1] == 0
    opaque = load_image(_saved(np.dstack([_colours(), np.full((16, 24), 255, np.uint8)])))
    assert opaque.notes == ()


def test_grey_with_alpha_stays_grey_and_a_transparent_palette_is_composited() -> None:
    grey = Image.merge("LA", [Image.new("L", (16, 16), 100), Image.new("L", (16, 16), 0)])
    assert np.array_equal(load_image(_saved(grey)).array, np.ones((16, 16, 1), np.float32))
    palette = Image.new("P", (16, 16), 0)
    palette.putpalette([10, 20, 30, 250, 0, 0])
    plain = load_image(_saved(palette))
    assert plain.array[0, 0] == pytest.approx(np.array([10, 20, 30]) / 255, abs=1e-6)
    assert load_image(_saved(palette, transparency=0)).array[0, 0] == pytest.approx([1, 1, 1])


def test_cmyk_becomes_rgb_with_a_note() -> None:
    picture = load_image(_saved(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG"))
    assert picture.notes == ("CMYK converted to RGB",)
    assert picture.array[8, 8] == pytest.approx([1, 0, 0], abs=0.05)


@pytest.mark.parametrize("format", ["GIF", "PNG", "WEBP", "TIFF"])
def test_animations_and_pages_give_their_first_frame(format: str) -> None:
    frames = [Image.new("L", (16, 16), level).convert("RGB") for level in (60, 120, 180)]
    options = {"lossless": True} if format == "WEBP" else {}
    picture = load_image(_saved(frames[0], format, save_all=True, append_images=frames[1:], **options))
    assert picture.notes == ("first frame of an animation or multi-page file",)
    assert np.abs(picture.array * 255 - 60).max() < 2


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_is_applied(orientation: int) -> None:
    upright = np.zeros((16, 24), dtype=np.uint8)
    upright[:8, :6] = 255
    undo = {
        2: [Image.Transpose.FLIP_LEFT_RIGHT],
        3: [Image.Transpose.ROTATE_180],
        4: [Image.Transpose.FLIP_TOP_BOTTOM],
        5: [Image.Transpose.TRANSPOSE],
        6: [Image.Transpose.ROTATE_90],
        7: [Image.Transpose.TRANSVERSE],
        8: [Image.Transpose.ROTATE_270],
    }
    stored = Image.fromarray(upright)
    for step in undo.get(orientation, []):
        stored = stored.transpose(step)
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture = load_image(_saved(stored, "PNG", exif=exif))
    assert np.array_equal(picture.array[..., 0] * 255, upright)
    assert picture.notes == (() if orientation == 1 else ("rotated by its EXIF tag",))


def test_arrays_of_every_kind() -> None:
    pixels = _colours()
    assert np.array_equal(load_image(pixels).array, pixels.astype(np.float32) / 255)
    assert np.array_equal(load_image(pixels[..., 0]).array[..., 0], pixels[..., 0].astype(np.float32) / 255)
    assert load_image(np.full((16, 16), 65535, np.uint16)).array.max() == 1
    assert load_image(np.ones((16, 16), bool)).array.min() == 1
    assert load_image(np.full((16, 16, 3), 1.5)).notes == ("values outside 0 to 1 clipped",)
    assert load_image(np.zeros((16, 16, 4), np.uint8)).array.min() == 1


def test_random_damage_never_raises_anything_else() -> None:
    rng = np.random.default_rng(1)
    for format in ("PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP"):
        whole = np.frombuffer(_saved(_colours(24, 24), format), np.uint8)
        for _ in range(40):
            broken = whole.copy()
            where = rng.integers(0, min(len(broken), 200), 4)
            broken[where] = rng.integers(0, 256, 4)
            try:
                picture = load_image(broken.tobytes())
            except BadImage:
                continue
            assert np.isfinite(picture.array).all()
            assert picture.array.shape[2] in (1, 3)


# Fitting and encoding


def test_fit_keeps_a_picture_that_fits_already() -> None:
    pixels = _colours(32, 24)
    assert np.array_equal(to_uint8(fit(pixels.astype(np.float32) / 255, (32, 24), 3)), pixels)


def test_fit_crops_the_centre_and_does_not_stretch() -> None:
    wide = np.zeros((20, 60, 1), dtype=np.float32)
    wide[:, 20:40] = 1
    assert torch.equal(fit(wide, 20, 1), torch.ones(1, 1, 20, 20))
    assert fit(wide, (40, 60), 3).shape == (1, 3, 40, 60)


def test_fit_resamples_as_pillow_does_in_floating_point() -> None:
    values = np.random.default_rng(0).random((96, 96), dtype=np.float32)
    exact = np.asarray(Image.fromarray(values).resize((32, 32), Image.Resampling.LANCZOS)).clip(0, 1)
    assert np.abs(fit(values, 32, 1)[0, 0].numpy() - exact).max() <= 0.5 / 255 + 1e-6


def test_fit_ends_on_8_bit_levels_within_the_range() -> None:
    edge = np.zeros((64, 64, 3), dtype=np.float32)
    edge[:, 30:] = 1
    fitted = fit(edge, 24, 3)
    assert torch.equal((fitted * 255).round() / 255, fitted)
    assert (float(fitted.min()), float(fitted.max())) == (0, 1)
    assert torch.equal(to_tensor(to_uint8(fitted)), fitted)


def test_fit_converts_channels_by_luma_and_repetition() -> None:
    red = np.zeros((16, 16, 3), dtype=np.float32)
    red[..., 0] = 1
    assert torch.equal(fit(red, 16, 1), torch.full((1, 1, 16, 16), 76 / 255))
    grey = fit(red[..., :1] * 0.5, 16, 3)
    assert torch.equal(grey[:, 0], grey[:, 2])


@pytest.mark.parametrize("channels", [1, 3])
def test_lossless_encodings_come_back_exactly(channels: int) -> None:
    pixels = _colours(16, 24, channels)
    image = to_tensor(pixels)
    for data in (encode_png(image), encode_webp_lossless(image)):
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(data)).convert("L" if channels == 1 else "RGB")), pixels)
    assert np.array_equal(np.asarray(to_pil(image[0])), pixels)


def test_jpeg_keeps_chroma_at_full_resolution() -> None:
    stripes = np.zeros((16, 16, 3), dtype=np.uint8)
    stripes[:, ::2, 0] = stripes[:, 1::2, 2] = 255
    decoded = np.asarray(Image.open(io.BytesIO(encode_jpeg(to_tensor(stripes), quality=95)))).astype(int)
    assert np.abs(decoded - stripes).mean() < 12


def test_out_of_range_values_are_clipped_rounded_and_nan_is_black() -> None:
    image = torch.tensor([[[-1.0, 0.5001, 2.0, float("nan")]]])
    assert to_uint8(image).tolist() == [[0, 128, 255, 0]]
    with pytest.raises(ValueError, match="batch of 2"):
        to_uint8(torch.zeros(2, 1, 4, 4))
    with pytest.raises(ValueError, match="2×4×4"):
        to_uint8(torch.zeros(2, 4, 4))


def test_contact_sheets_place_tiles_in_reading_order() -> None:
    tiles = torch.arange(5.0).view(5, 1, 1, 1).expand(5, 1, 2, 3) / 10
    sheet = contact(tiles, 2, gap=1)
    assert sheet.shape == (1, 8, 7)
    assert float(sheet[0, 0, 0]) == 0
    assert float(sheet[0, 0, 4]) == pytest.approx(0.1)
    assert float(sheet[0, 3, 0]) == pytest.approx(0.2)
    assert torch.equal(sheet[0, 6:, 4:], torch.ones(2, 3))
    assert contact(tiles).shape == (1, 6, 13)


def test_hashes_see_values_and_shape() -> None:
    pixels = _colours(8, 12, 1)
    assert sha256_of(pixels) == sha256_of(np.asfortranarray(pixels))
    assert len({sha256_of(pixels), sha256_of(pixels.T), sha256_of(pixels ^ 1), sha256_of(pixels.reshape(12, 8))}) == 4
    numbers = pixels.astype(np.float32)
    assert (
        len({sha256_of(pixels), sha256_of(numbers), sha256_of(numbers.astype(np.complex64)), sha256_of(numbers.view(np.int32))})
        == 4
    )


def test_data_uris() -> None:
    assert data_uri(b"abc", "image/png") == "data:image/png;base64,YWJj"
    assert images.LUMA == (0.299, 0.587, 0.114)
