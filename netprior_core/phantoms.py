"""Generated images, as many as one likes, without any data set: random ellipses, and digits drawn from fonts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont

#: Digits are drawn on a canvas of this side, in a box of that one: 28 and 20 pixels, as in MNIST, times eight.
CANVAS, BOX = 224, 160
#: How far the parts of a digit are bent, as a standard deviation in half sides of the canvas.
BEND = 0.09


def ellipse_phantom(
    size: int, generator: np.random.Generator, *, mean_count: float = 40, most: int = 70, supersampling: int = 2
) -> np.ndarray:
    """A sum of random ellipses, ``(size, size)`` float32 rescaled to [0, 1].

    n = min(Poisson(40), 70) ellipses on [-1, 1]²; value U[-0.4, 1], semi-axes 0.2·Exp(1), centre U[-0.9, 0.9]², any
    rotation (Barbano et al. 2021, "Is Deep Image Prior in Need of a Good Education?", training data). What is drawn depends on the
    generator only: another ``size`` gives the same phantom at another resolution, antialiased by averaging sub-pixels.
    """
    count = max(1, min(int(generator.poisson(mean_count)), most))
    values = generator.uniform(-0.4, 1.0, count)
    axes = np.maximum(0.2 * generator.exponential(1.0, (count, 2)), 1e-3)
    centres = generator.uniform(-0.9, 0.9, (count, 2))
    angles = generator.uniform(0.0, np.pi, count)

    fine = size * supersampling
    grid = (2 * np.arange(fine, dtype=np.float32) + 1) / fine - 1
    row, column = grid[:, None], grid[None, :]
    picture = np.zeros((fine, fine), dtype=np.float32)
    for value, (a, b), (y, x), angle in zip(values, axes, centres, angles, strict=True):
        cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
        along = ((column - np.float32(x)) * cos + (row - np.float32(y)) * sin) / np.float32(a)
        across = ((row - np.float32(y)) * cos - (column - np.float32(x)) * sin) / np.float32(b)
        picture += np.float32(value) * (along * along + across * across <= 1)
    picture = picture.reshape(size, supersampling, size, supersampling).mean(axis=(1, 3))
    low, high = picture.min(), picture.max()
    return (picture - low) / max(high - low, 1e-6)


def digit(size: int, font: Path, value: int, generator: np.random.Generator) -> np.ndarray:
    """A digit 0 to 9 as if written by hand, white on black, ``(size, size)`` float32 in [0, 1].

    The font's glyph in a box of 20/28 of the side, drawn with a pen of U[2, 3.2] pixels of 28, turned by U[-0.2, 0.2] radians,
    slanted by U[-0.3, 0.3], shrunk to U[0.8, 1] each way and bent smoothly; its centre of mass in the middle, as in MNIST (LeCun et
    al. 1998). What is drawn depends on font, value and generator only: another ``size`` gives it at another resolution.
    """
    ink = _thickened(torch.from_numpy(_glyph(font, value))[None, None], float(generator.uniform(16, 26)))
    angle, slant = generator.uniform(-0.2, 0.2), generator.uniform(-0.3, 0.3)
    across, down = 1 / generator.uniform(0.8, 1.0, 2)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) @ np.array([[across, slant], [0, down]])
    theta = torch.from_numpy(np.concatenate([turn, np.zeros((2, 1))], axis=1)).float()[None]
    bend = torch.from_numpy(generator.normal(0, BEND, (1, 2, 5, 5))).float()
    bend = F.interpolate(bend, (CANVAS, CANVAS), mode="bicubic", align_corners=True).permute(0, 2, 3, 1)
    grid = F.affine_grid(theta, [1, 1, CANVAS, CANVAS], align_corners=False) + bend
    written = F.grid_sample(ink, grid, align_corners=False)[0, 0]
    place = torch.arange(CANVAS) - (CANVAS - 1) / 2
    down_by, right_by = ((written.sum(dim=1 - axis) * place).sum() / written.sum() for axis in (0, 1))
    written = torch.roll(written, (-round(float(down_by)), -round(float(right_by))), (0, 1))
    soft = F.avg_pool2d(written[None, None], 9, 1, 4)
    return F.interpolate(soft, (size, size), mode="area")[0, 0].clamp(0, 1).numpy()


def _glyph(font: Path, value: int) -> np.ndarray:
    """The glyph of a digit in the middle of the canvas, its longer side that of the box."""
    drawn = Image.new("L", (2 * BOX, 2 * BOX))
    ImageDraw.Draw(drawn).text((BOX, BOX), str(value), 255, font=ImageFont.truetype(str(font), BOX), anchor="mm")
    drawn = drawn.crop(drawn.getbbox())
    share = BOX / max(drawn.size)
    drawn = drawn.resize((max(1, round(drawn.width * share)), max(1, round(drawn.height * share))))
    canvas = Image.new("L", (CANVAS, CANVAS))
    canvas.paste(drawn, ((CANVAS - drawn.width) // 2, (CANVAS - drawn.height) // 2))
    return np.asarray(canvas, dtype=np.float32) / 255


def _thickened(ink: torch.Tensor, stroke: float) -> torch.Tensor:
    """``ink`` drawn with a wider pen, where its own strokes, twice area over outline, are narrower than ``stroke`` pixels."""
    outline = (ink.diff(dim=-1).abs().sum() + ink.diff(dim=-2).abs().sum()) * np.pi / 4
    for _ in range(max(0, round((stroke - float(2 * ink.sum() / outline)) / 2))):
        ink = torch.maximum(F.max_pool2d(ink, (3, 1), 1, (1, 0)), F.max_pool2d(ink, (1, 3), 1, (0, 1)))
    return ink
