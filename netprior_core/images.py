"""Images in and out: safe decoding of uploads, fitting to a working size, encoding, tiling.

Arrays are ``(H, W, C)`` float32 in [0, 1] with C = 1 or 3; tensors are ``(…, C, H, W)``. No conversion changes a value that
is already on an 8-bit level, and :func:`fit` always ends on one, so that PNGs, hashes and JSON round trips are exact.
"""

from __future__ import annotations

import base64
import hashlib
import io
import math
import warnings
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
import torch
from PIL import Image, ImageOps

from netprior_core.errors import BadImage

MAX_BYTES = 20_000_000
MAX_PIXELS = 24_000_000
MIN_SIDE = 8
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
#: ITU-R BT.601 luma, the weights of Pillow's "L".
LUMA = (0.299, 0.587, 0.114)

_READABLE = "PNG, JPEG, WebP, BMP, GIF or TIFF"
_SIXTEEN_BIT = ("I;16", "I;16L", "I;16B", "I;16N")


@dataclass(frozen=True, eq=False)
class Picture:
    """A decoded picture: ``array`` ``(H, W, C)`` float32 in [0, 1], C = 1 or 3, and ``notes`` on what decoding did to it."""

    array: np.ndarray
    notes: tuple[str, ...] = ()

    @property
    def channels(self) -> Literal[1, 3]:
        """1 for grey, 3 for colour."""
        return 1 if self.array.shape[2] == 1 else 3


def read_upload(path: str | Path) -> Picture:
    """Decode an uploaded file that the web server has put at ``path``; its size is checked before it is read.

    Never pass a path that a user typed. Raises BadImage.
    """
    path = Path(path)
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise BadImage(_too_many_bytes(size, _called(path.name)))
        data = path.read_bytes()
    except OSError:
        raise BadImage(f"{_called(path.name)} is no longer on the server. Upload it again.") from None
    return load_image(data, name=path.name)


def load_image(
    source: bytes | BinaryIO | np.ndarray,
    *,
    name: str = "",
    formats: Collection[str] = FORMATS,
    max_bytes: int = MAX_BYTES,
    max_pixels: int = MAX_PIXELS,
    min_side: int = MIN_SIDE,
    background: float = 1.0,
) -> Picture:
    """Decode an untrusted image into float32 ``(H, W, C)`` in [0, 1].

    Size in bytes, format and number of pixels are checked before any pixel is decoded. EXIF rotation is applied, 16-bit grey
    keeps its 16 bits, transparency is put on ``background`` (white), palettes and CMYK become RGB, animations and multi-page files
    give their first frame. An array may be uint8, uint16, bool, or float (clipped to [0, 1]), ``(H, W)`` or ``(H, W, 1 to 4)``.

    Raises BadImage, with a sentence that says what to do.
    """
    who = _called(name)
    if isinstance(source, np.ndarray):
        return _from_array(source, who, max_pixels, min_side, background)
    data = source if isinstance(source, bytes) else source.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise BadImage(_too_many_bytes(len(data), who, max_bytes))
    if not data:
        raise BadImage(f"{who} is empty. Choose another file.")
    notes: list[str] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns where we check ourselves
        try:
            image = Image.open(io.BytesIO(data), formats=list(formats))
        except Image.DecompressionBombError:
            raise BadImage(_too_many_pixels(None, who, max_pixels)) from None
        except Exception:  # Pillow's parsers raise anything on crafted bytes
            raise BadImage(_not_readable(data, who, formats)) from None
        with image:
            _check_size(image.width, image.height, who, max_pixels, min_side)
            try:
                image.load()
            except Exception:
                raise BadImage(f"{who} is damaged or cut short: it ends before its last row. Save or copy it again.") from None
            if _has_more_frames(data, formats):
                notes.append("first frame of an animation or multi-page file")
            array = _decoded(_upright(image, notes), notes, who, background)
    return Picture(np.ascontiguousarray(array, dtype=np.float32), tuple(notes))


def _decoded(image: Image.Image, notes: list[str], who: str, background: float) -> np.ndarray:
    """Pixels of a loaded image, whatever its mode, as ``(H, W, C)`` in [0, 1]."""
    mode = image.mode
    if mode in _SIXTEEN_BIT:
        return np.asarray(image).astype(np.float32)[..., None] / 65535
    if mode == "I":
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 65535:
            raise BadImage(f"{who} has 32-bit integer values beyond 0 to 65,535. Save it with 8 or 16 bits per channel.")
        return values.astype(np.float32)[..., None] / 65535
    if mode == "F":
        return _unit_floats(np.asarray(image), notes, who)[..., None]
    if mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        grey = mode in ("LA", "La", "L", "1")
        values = np.asarray(image.convert("RGBA")).astype(np.float32) / 255
        if (values[..., 3] < 1).any():
            notes.append(f"transparency put on {'white' if background == 1 else 'black' if background == 0 else 'grey'}")
        return _flattened(values, background)[..., : 1 if grey else 3]
    if mode in ("1", "L"):
        return np.asarray(image.convert("L")).astype(np.float32)[..., None] / 255
    if mode not in ("RGB", "P", "RGBX"):
        notes.append(f"{mode} converted to RGB")
    return np.asarray(image.convert("RGB")).astype(np.float32) / 255


def _from_array(values: np.ndarray, who: str, max_pixels: int, min_side: int, background: float) -> Picture:
    if values.ndim == 2:
        values = values[..., None]
    if values.ndim != 3 or not 1 <= values.shape[2] <= 4:
        raise BadImage(f"{who} is an array of {'×'.join(map(str, values.shape))}: give height × width × (1, 3 or 4) channels.")
    _check_size(values.shape[1], values.shape[0], who, max_pixels, min_side)
    notes: list[str] = []
    if values.dtype == np.uint8:
        array = values.astype(np.float32) / 255
    elif values.dtype == np.uint16:
        array = values.astype(np.float32) / 65535
    elif values.dtype == np.bool_:
        array = values.astype(np.float32)
    elif np.issubdtype(values.dtype, np.floating):
        array = _unit_floats(values, notes, who)
    else:
        raise BadImage(f"{who} is an array of {values.dtype}: give 8-bit or 16-bit unsigned integers, or floats in [0, 1].")
    if array.shape[2] in (2, 4):
        if (array[..., -1] < 1).any():
            notes.append("transparency put on white" if background == 1 else "transparency removed")
        array = _flattened(array, background)
    return Picture(np.ascontiguousarray(array), tuple(notes))


def _unit_floats(values: np.ndarray, notes: list[str], who: str) -> np.ndarray:
    if not np.isfinite(values).all():
        raise BadImage(f"{who} has pixels that are not numbers (NaN or infinity). Replace them and upload it again.")
    if values.min() < 0 or values.max() > 1:
        notes.append("values outside 0 to 1 clipped")
    return values.clip(0, 1).astype(np.float32)


def _flattened(values: np.ndarray, background: float) -> np.ndarray:
    alpha = values[..., -1:]
    return values[..., :-1] * alpha + background * (1 - alpha)


def _upright(image: Image.Image, notes: list[str]) -> Image.Image:
    """The image turned as its EXIF tag asks; a tag that cannot be read is ignored."""
    try:
        if image.getexif().get(0x0112, 1) in range(2, 9):
            turned = ImageOps.exif_transpose(image)
            notes.append("rotated by its EXIF tag")
            return turned
    except Exception:
        return image
    return image


def _has_more_frames(data: bytes, formats: Collection[str]) -> bool:
    """Whether there is a second frame, asked of a second handle: counting all frames of a crafted TIFF could take minutes."""
    try:
        with Image.open(io.BytesIO(data), formats=list(formats)) as image:
            image.seek(1)
        return True
    except Exception:
        return False


def _check_size(width: int, height: int, who: str, max_pixels: int, min_side: int) -> None:
    if width * height > max_pixels:
        raise BadImage(_too_many_pixels((width, height), who, max_pixels))
    if min(width, height) < min_side:
        size = "1 pixel" if width == height == 1 else f"{width} × {height} pixels"
        raise BadImage(f"{who} is only {size}. Use a picture of at least {min_side} × {min_side} pixels.")


def _called(name: str) -> str:
    return f"“{name[:60]}”" if name else "This picture"


def _too_many_bytes(size: int, who: str, limit: int = MAX_BYTES) -> str:
    return f"{who} is larger than {limit / 1e6:g} MB. Save it smaller or with stronger compression, then upload it again."


def _too_many_pixels(size: tuple[int, int] | None, who: str, limit: int) -> str:
    stated = f"has {size[0]:,} × {size[1]:,} pixels, more" if size else "has far more pixels"
    return f"{who} {stated} than the {limit / 1e6:g} megapixels that can be opened. Scale it down, then upload it again."


def _not_readable(data: bytes, who: str, formats: Collection[str]) -> str:
    readable = _READABLE if set(formats) == set(FORMATS) else " or ".join(formats)
    start = data[:512].lstrip().lower()
    what = "is not a picture that can be read"
    if start.startswith(b"<svg") or (start.startswith(b"<?xml") and b"<svg" in data[:4096].lower()):
        what = "is an SVG drawing, not pixels"
    elif data[4:8] == b"ftyp":
        what = "is a HEIC or AVIF file, which cannot be read here" if data[8:12] in _HEIF else "is a video, not a picture"
    elif start.startswith(b"%pdf"):
        what = "is a PDF document"
    elif data.startswith((b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"BM", b"II*\0", b"MM\0*")) or data[8:12] == b"WEBP":
        what = "starts like a picture but is damaged, or of a variant that cannot be read"
    return f"{who} {what}. Save it as {readable} and upload that."


_HEIF = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1", b"avif", b"avis")


# Fitting to a working size


def fit(array: np.ndarray, size: int | tuple[int, int], channels: Literal[1, 3]) -> torch.Tensor:
    """Centre-crop to the aspect, resize with a Lanczos filter, and convert the channels: ``(1, channels, H, W)`` in [0, 1].

    array is ``(H, W)`` or ``(H, W, C)`` in [0, 1]; size is the side of a square or (height, width). Colour becomes grey by
    luma, grey becomes colour by repetition. Resampling is in floating point; the result is clipped, then rounded once to the
    nearest of the 256 8-bit levels, so that saving it as PNG loses nothing.
    """
    height, width = (size, size) if isinstance(size, int) else size
    array = array[..., None] if array.ndim == 2 else array
    if array.shape[2] == 3 and channels == 1:
        array = array @ np.asarray(LUMA, dtype=np.float32)[:, None]
    have_h, have_w = array.shape[:2]
    scale = min(have_h / height, have_w / width)
    crop_h, crop_w = height * scale, width * scale
    top, left = (have_h - crop_h) / 2, (have_w - crop_w) / 2
    if (have_h, have_w) != (height, width):
        box = (left, top, min(left + crop_w, have_w), min(top + crop_h, have_h))
        planes = [Image.fromarray(np.ascontiguousarray(array[..., c], dtype=np.float32)) for c in range(array.shape[2])]
        resized = [np.asarray(plane.resize((width, height), Image.Resampling.LANCZOS, box=box)) for plane in planes]
        array = np.stack(resized, axis=2)
    levels = np.rint(array.clip(0, 1) * 255).astype(np.uint8)
    return to_tensor(levels.repeat(channels // levels.shape[2], axis=2))


def to_tensor(array: np.ndarray) -> torch.Tensor:
    """``(H, W)`` or ``(H, W, C)``, uint8 or float in [0, 1], to float32 ``(1, C, H, W)``."""
    array = array[..., None] if array.ndim == 2 else array
    values = array.astype(np.float32) / 255 if array.dtype == np.uint8 else array.astype(np.float32)
    return torch.from_numpy(np.ascontiguousarray(values.transpose(2, 0, 1)))[None]


def to_uint8(image: torch.Tensor) -> np.ndarray:
    """``(C, H, W)`` or ``(1, C, H, W)``, clipped to [0, 1] and rounded, to uint8 ``(H, W)`` (C = 1) or ``(H, W, 3)``."""
    if image.ndim == 4:
        if image.shape[0] != 1:
            raise ValueError(f"to_uint8 takes one image; it was given a batch of {image.shape[0]}")
        image = image[0]
    if image.ndim != 3 or image.shape[0] not in (1, 3):
        raise ValueError(f"to_uint8 takes an image of 1 or 3 channels; it was given shape {'×'.join(map(str, image.shape))}")
    # NaN has no 8-bit level: shown black rather than as whatever the cast makes of it.
    scaled = image.detach().float().nan_to_num(0.0).clamp(0, 1).mul(255).round().to(torch.uint8).cpu()
    return scaled[0].numpy() if scaled.shape[0] == 1 else np.ascontiguousarray(scaled.permute(1, 2, 0).numpy())


def to_pil(image: torch.Tensor) -> Image.Image:
    """A tensor as :func:`to_uint8` takes it, as a Pillow image of mode "L" or "RGB"."""
    return Image.fromarray(to_uint8(image))


# Encoding


def _encoded(image: torch.Tensor, **options: Any) -> bytes:
    buffer = io.BytesIO()
    to_pil(image).save(buffer, **options)
    return buffer.getvalue()


def encode_png(image: torch.Tensor) -> bytes:
    """Lossless PNG of one image."""
    return _encoded(image, format="PNG")


def encode_jpeg(image: torch.Tensor, quality: int = 90) -> bytes:
    """JPEG without chroma subsampling (4:4:4): the fastest to encode, for frames that are replaced in a moment."""
    return _encoded(image, format="JPEG", quality=quality, subsampling=0)


def encode_webp_lossless(image: torch.Tensor) -> bytes:
    """Lossless WebP of one image, at the fastest setting."""
    return _encoded(image, format="WEBP", lossless=True, method=0, exact=True)


def data_uri(data: bytes, mime: str) -> str:
    """``data:<mime>;base64,…``"""
    return f"data:{mime};base64,{base64.b64encode(data).decode('ascii')}"


def contact(images: torch.Tensor, columns: int = 0, *, gap: int = 2, fill: float = 1.0) -> torch.Tensor:
    """Tiles ``(N, C, H, W)`` side by side, row by row, on one sheet ``(C, H', W')``; 0 columns means near-square."""
    count, channels, height, width = images.shape
    if count == 0:
        raise ValueError("contact takes at least one image")
    columns = min(count, columns or math.ceil(math.sqrt(count)))
    rows = math.ceil(count / columns)
    sheet = images.new_full((channels, rows * (height + gap) - gap, columns * (width + gap) - gap), fill)
    for i, image in enumerate(images):
        top, left = (i // columns) * (height + gap), (i % columns) * (width + gap)
        sheet[:, top : top + height, left : left + width] = image
    return sheet


def sha256_of(array: np.ndarray) -> str:
    """SHA-256 of an array, its shape included (and its type, unless it is 8-bit pixels), in hexadecimal."""
    digest = hashlib.sha256("×".join(map(str, array.shape)).encode())
    if array.dtype != np.uint8:
        digest.update(array.dtype.str.encode())
    digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
