"""Inpainting: some pixels are hidden, by a random mask, a box, or a drawing."""

from __future__ import annotations

import base64
import binascii
from typing import ClassVar, Literal

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from pydantic import field_validator

from netprior_core.arrays import decode
from netprior_core.errors import BadImage, InvalidSettings
from netprior_core.images import encode_png, load_image
from netprior_core.operators.base import Draw, ForwardModel, LinearModel, Operator
from netprior_core.problem import Shape
from netprior_core.settings import setting

MASK_CHARACTERS = 200_000
MASK_PIXELS = 4_000_000


class Inpainting(Operator):
    """Inpainting: some pixels are seen, the others are hidden in all channels.

    y = M x + e, where M keeps the visible pixels. The measurement is the list of *kept* values, (C, K), so that there is no
    noise, and nothing to fit, where nothing was seen. (Ulyanov, Vedaldi & Lempitsky 2018, "Deep Image Prior", eq. 5, writes
    the same as ‖(x − x₀) ⊙ m‖².)
    """

    title: ClassVar[str] = "Inpainting"
    order: ClassVar[int] = 20
    equation: ClassVar[str] = "y = M x + e"
    measures_images: ClassVar[bool] = True
    lesson: ClassVar[str] = (
        "Some pixels are seen, the others are gone: dead sensors, scratches, text printed over the picture, an object to be "
        "removed. The seen pixels must be kept and the holes filled with something that fits. Scattered single pixels are easy, "
        "since neighbours tell; a large hole asks for knowledge of what belongs there."
    )

    kind: Literal["inpainting"] = "inpainting"
    pattern: Literal["random", "box", "text", "drawn", "own"] = setting(
        "random", "What is hidden: random pixels, a box, printed text, your drawing, or a mask from a file.", main=True
    )
    keep: float = setting(
        0.5, "Fraction of the pixels that stay visible.", ge=0.01, le=1.0, unit="of pixels", main=True, when=("pattern", "random")
    )
    box_size: float = setting(
        0.4, "Side of the hidden box.", ge=0.02, le=0.98, unit="of the side", label="Box size", main=True, when=("pattern", "box")
    )
    box_row: float = setting(
        0.5, "Centre of the box, from the top.", ge=0, le=1, unit="of the height", label="Box centre, down", when=("pattern", "box")
    )
    box_column: float = setting(
        0.5,
        "Centre of the box, from the left.",
        ge=0,
        le=1,
        unit="of the width",
        label="Box centre, across",
        when=("pattern", "box"),
    )
    text: str = setting(
        "Deep Image Prior",
        "The words printed over the picture, line after line.",
        max_length=80,
        main=True,
        when=("pattern", "text"),
    )
    text_size: float = setting(
        0.12, "Height of a line of text.", ge=0.03, le=0.5, unit="of the height", label="Text size", when=("pattern", "text")
    )
    own: str = setting(
        "",
        "Your mask: a .npy array or a PNG of the picture's size, nonzero (white) where a pixel was measured.",
        max_length=MASK_CHARACTERS,
        label="Mask file",
        widget="pattern",
        main=True,
        when=("pattern", "own"),
    )
    mask: str = setting(
        "",
        "The drawing: a PNG in base64, white where pixels are hidden.",
        max_length=MASK_CHARACTERS,
        label="Drawing",
        widget="mask",
    )

    @field_validator("own")
    @classmethod
    def _numbers(cls, value: str) -> str:
        if value:
            decode(value, what="the mask", max_characters=MASK_CHARACTERS, max_values=MASK_PIXELS, ndim=2)
        return value

    @field_validator("mask")
    @classmethod
    def _readable(cls, value: str) -> str:
        if value:
            decode_mask(value)
        return value

    def _build(self, shape: Shape, draw: Draw) -> ForwardModel:
        visible = self._visible(shape[1], shape[2], draw.seed)
        if not visible.any():
            raise InvalidSettings("Inpainting: every pixel is hidden. Leave some of the picture visible.")
        return InpaintingModel(shape, visible, draw.device, draw.dtype, hatched=self.pattern != "random")

    def _visible(self, height: int, width: int, seed: int) -> torch.Tensor:
        """``(H, W)`` bool, True where a pixel is seen; random masks keep exactly ``round(keep·H·W)`` pixels."""
        if self.pattern == "random":
            kept = max(1, round(self.keep * height * width))
            order = torch.randperm(height * width, generator=torch.Generator().manual_seed(seed))
            visible = torch.zeros(height * width, dtype=torch.bool)
            visible[order[:kept]] = True
            return visible.view(height, width)
        if self.pattern == "box":
            visible = torch.ones((height, width), dtype=torch.bool)
            top, bottom = _span(height, self.box_size, self.box_row)
            left, right = _span(width, self.box_size, self.box_column)
            visible[top:bottom, left:right] = False
            return visible
        if self.pattern == "text":
            return ~_printed(self.text, height, width, self.text_size)
        if self.pattern == "own":
            return _uploaded_mask(self.own, height, width)
        if not self.mask:
            raise InvalidSettings("Inpainting: nothing is drawn yet. Paint over what is to be hidden, or choose another pattern.")
        hidden = Image.fromarray(decode_mask(self.mask).astype(np.uint8)).resize((width, height), Image.Resampling.NEAREST)
        return torch.from_numpy(np.asarray(hidden) == 0)


def _printed(text: str, height: int, width: int, size: float) -> torch.Tensor:
    """``(H, W)`` bool, True under the letters of ``text``, repeated over lines of ``size`` times the height."""
    text = " ".join(text.split())
    if not text:
        raise InvalidSettings("Inpainting: there is no text to print. Type some words, or choose another pattern.")
    page = Image.new("L", (width, height), 0)
    pen = ImageDraw.Draw(page)
    line = max(4, round(size * height))
    font = ImageFont.load_default(size=line * 0.85)
    length = max(1, round(pen.textlength(text + " ", font=font)))
    row = (text + " ") * (2 + -(-width // length))
    for i, top in enumerate(range(0, height, line)):
        pen.text((-(i * length // 3) % length - length, top), row, fill=255, font=font)
    return torch.from_numpy(np.asarray(page) > 127)


def _uploaded_mask(own: str, height: int, width: int) -> torch.Tensor:
    if not own:
        raise InvalidSettings("Inpainting: there is no mask yet. Upload one, or choose another pattern.")
    array = decode(own, what="the mask", max_characters=MASK_CHARACTERS, max_values=MASK_PIXELS, ndim=2)
    if array.shape != (height, width):
        raise InvalidSettings(
            f"The mask is {array.shape[0]}×{array.shape[1]} and the image is {height}×{width}. "
            "Choose that image size, or upload another mask."
        )
    return torch.from_numpy(array != 0)


def _span(side: int, size: float, centre: float) -> tuple[int, int]:
    """First and last (exclusive) index of a box of relative ``size`` about ``centre``, moved to lie inside, one pixel left over."""
    length = min(side - 1, max(1, round(size * side)))
    start = min(max(0, round(centre * side - length / 2)), side - length)
    return start, start + length


def decode_mask(text: str) -> np.ndarray:
    """The ``mask`` setting as ``(H, W)`` bool, True where hidden (at least half white). Raises InvalidSettings."""
    if text.startswith("data:image/png;base64,"):
        text = text.split(",", 1)[1]
    try:
        data = base64.b64decode(text, validate=True)
        picture = load_image(
            data,
            name="the drawn mask",
            formats=("PNG",),
            max_bytes=MASK_CHARACTERS,
            max_pixels=MASK_PIXELS,
            min_side=1,
            background=0,
        )
    except (binascii.Error, ValueError) as error:
        detail = str(error) if isinstance(error, BadImage) else "It is not base64."
        raise InvalidSettings(f"The drawn mask cannot be read. {detail}") from None
    return picture.array.mean(axis=2) >= 0.5


def encode_mask(hidden: np.ndarray) -> str:
    """A ``(H, W)`` bool array, True where hidden, as the ``mask`` setting takes it."""
    return base64.b64encode(encode_png(torch.from_numpy(hidden.astype(np.float32))[None])).decode("ascii")


class InpaintingModel(LinearModel):
    """``A x`` gathers the K visible pixels: ``(B, C, H, W)`` to ``(B, C, K)``. ``mask`` is ``(1, 1, H, W)``, 1 where visible."""

    has_pinv = True

    def __init__(self, shape: Shape, visible: torch.Tensor, device: torch.device, dtype: torch.dtype, *, hatched: bool) -> None:
        index = visible.flatten().nonzero().view(1, 1, -1)
        super().__init__(shape, (shape[0], index.shape[2]), device, dtype)
        self.mask = visible.view(1, 1, *visible.shape).to(self.device, dtype)
        self._index = index.to(self.device)
        self._hatched = hatched

    def norm(self) -> float:
        """1: A Aᵀ = I."""
        return 1.0

    def describe(self) -> str:
        kept, pixels = self._index.shape[2], self.shape[1] * self.shape[2]
        return f"{kept:,} of {pixels:,} pixels visible ({kept / pixels:.0%})"

    def measurement_from(self, array: np.ndarray) -> torch.Tensor:
        """The kept values ``(C, K)``, or a picture ``(H, W)``, ``(C, H, W)`` or ``(H, W, C)``, whose hidden pixels are ignored."""
        channels, height, width = self.shape
        if array.ndim == 3 and array.shape == (height, width, channels):
            array = np.moveaxis(array, 2, 0)
        if not np.iscomplexobj(array) and array.shape in {(channels, height, width), (height, width)[: 2 * (channels == 1)]}:
            picture = torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32)).reshape(1, *self.shape)
            return self.forward(picture.to(self.device, self.dtype))
        return super().measurement_from(array)

    def _where(self, batch: int) -> torch.Tensor:
        return self._index.expand(batch, self.shape[0], -1)

    def _forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(2).gather(2, self._where(len(x)))

    def _adjoint(self, y: torch.Tensor) -> torch.Tensor:
        empty = y.new_zeros((len(y), self.shape[0], self.shape[1] * self.shape[2]))
        return empty.scatter(2, self._where(len(y)), y).view(-1, *self.shape)

    def _normal(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.mask

    def _pinv(self, y: torch.Tensor) -> torch.Tensor:
        return self._adjoint(y)

    def _preview(self, y: torch.Tensor) -> torch.Tensor:
        """The picture with mid-grey where a pixel is hidden; regions are hatched, so that they cannot be mistaken for grey."""
        hole = torch.full_like(self.mask, 0.5)
        if self._hatched:
            rows = torch.arange(self.shape[1], device=self.device).view(-1, 1)
            columns = torch.arange(self.shape[2], device=self.device).view(1, -1)
            stripe = max(2, min(self.shape[1:]) // 24)
            hole = hole + 0.12 * (((rows + columns) // stripe) % 2)
        return self._adjoint(y) + hole.to(y) * (1 - self.mask).to(y)
