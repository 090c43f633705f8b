"""What a GAN is trained on and judged by: a collection split into training and held-out images, and distances between sets."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from netprior_core.errors import InvalidSettings
from netprior_core.training._collections import COLLECTIONS

DIGITS = "mnist"
#: Images decoded at a time: all of them as float32 would be half a gigabyte.
CHUNK = 500
#: Sliced Wasserstein distance: patches of this side, so many from each image and level, projected onto so many directions.
PATCH, PATCHES, DIRECTIONS = 7, 24, 256


@dataclass(frozen=True, eq=False)
class Images:
    """A collection. train, held_out: uint8 ``(N, C, H, W)``. title, data, terms: for cards. mirror: whether left and right are
    alike."""

    name: str
    title: str
    data: str
    terms: str
    train: torch.Tensor
    held_out: torch.Tensor
    mirror: bool

    @property
    def shape(self) -> tuple[int, int, int]:
        _, c, h, w = self.train.shape
        return int(c), int(h), int(w)

    def drawn(self, count: int, draws: torch.Generator) -> torch.Tensor:
        """Training images at random, ``(count, C, H, W)`` in [-1, 1], mirrored by chance where left and right are alike."""
        found = signed(self.train[torch.randint(len(self.train), (count,), generator=draws)])
        if self.mirror:
            turned = torch.rand((count, 1, 1, 1), generator=draws) < 0.5
            found = torch.where(turned, found.flip(-1), found)
        return found


def choices() -> list[str]:
    """Names of what can be trained on."""
    return [*COLLECTIONS, DIGITS]


def load(name: str, data: Path | None, size: int = 0, limit: int = 0) -> Images:
    """A collection from the folder given with ``--data``: faces and the like at ``size`` (default 64), digits at 28 always.

    ``limit`` takes the first so many training images only, never held-out ones.
    Raises InvalidSettings when the files are not there.
    """
    if name == DIGITS:
        train, test = digits(data, "train"), digits(data, "t10k")
        count = min(limit or len(train), len(train))
        what = f"MNIST: training images 1 to {count:,}"
        return Images(name, f"MNIST, GAN ({count:,})", what, "MNIST: CC BY-SA 3.0", train[:count], test, False)
    collection = COLLECTIONS[name]
    first = collection.first_held_out
    count = min(limit or first, first)
    train = _levels(name, data, size or 64, 0, count)
    held_out = _levels(name, data, size or 64, first, first + collection.held_out(data))
    what = f"{collection.title}: images 1 to {count:,} of {collection.archive}"
    return Images(name, f"{collection.title}, GAN ({count:,})", what, collection.terms, train, held_out, collection.mirrored)


def digits(data: Path | None, part: str) -> torch.Tensor:
    """MNIST's "train" or "t10k" images, uint8 ``(N, 1, 28, 28)``, from ``mnist/…-images-idx3-ubyte.gz``. Raises InvalidSettings."""
    path = (data or Path("no folder given")) / "mnist" / f"{part}-images-idx3-ubyte.gz"
    try:
        with gzip.open(path) as file:
            start, pixels = file.read(16), file.read()
    except FileNotFoundError:
        raise InvalidSettings(f"There is no mnist/{path.name} in the folder given with --data.") from None
    except (OSError, EOFError, zlib.error):
        start, pixels = b"", b""
    header = np.frombuffer(start.ljust(16, b"\0"), ">u4")
    if header[0] != 2051 or len(pixels) != header[1:].prod():
        raise InvalidSettings(f"mnist/{path.name} is not a complete file of digits.")
    return torch.from_numpy(np.frombuffer(pixels, np.uint8).copy()).view(-1, 1, int(header[2]), int(header[3]))


def signed(levels: torch.Tensor) -> torch.Tensor:
    """8-bit levels to [-1, 1]."""
    return levels.float() / 127.5 - 1


def sliced_wasserstein(a: torch.Tensor, b: torch.Tensor, seed: int = 0) -> float:
    """Sliced Wasserstein distance between two sets of images ``(N, C, H, W)`` in [-1, 1], as in Karras et al. 2018, section 5.

    From each level of a Laplacian pyramid (down to 16 pixels a side) 24 patches of 7×7 an image, normalised channel by channel
    with the mean and deviation of ``b`` (the real ones); mean |sorted ⟨p, d⟩ − sorted ⟨q, d⟩| over 256 random directions d, mean
    over levels, times 1000. ``a`` and ``b`` need equally many images. 0 would be the same set; two halves of one collection
    give the floor. It sees texture, colour and shape, never which image is which.
    """
    generator = torch.Generator().manual_seed(seed)
    count = min(len(a), len(b))
    found = []
    for left, right in zip(_pyramid(a[:count]), _pyramid(b[:count]), strict=True):
        p, q = _patches(left, generator), _patches(right, generator)
        mean, deviation = q.mean(dim=(0, 2), keepdim=True), q.std(dim=(0, 2), keepdim=True).clamp_min(1e-6)
        directions = torch.randn((p[0].numel(), DIRECTIONS), generator=generator)
        directions /= directions.norm(dim=0)
        lines = [(((x - mean) / deviation).flatten(1) @ directions).sort(dim=0).values for x in (p, q)]
        found.append(float((lines[0] - lines[1]).abs().mean()))
    return 1000 * sum(found) / len(found)


def nearest(images: torch.Tensor, among: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Root-mean-square distance in [0, 1] units to the nearest of ``among`` (uint8) and its index, for each image in [-1, 1]."""
    flat = images.flatten(1)
    best, index = torch.full((len(flat),), torch.inf), torch.zeros(len(flat), dtype=torch.long)
    for first in range(0, len(among), 1000):
        distances = torch.cdist(flat, signed(among[first : first + 1000]).flatten(1))
        values, places = distances.min(dim=1)
        closer = values < best
        best, index = torch.where(closer, values, best), torch.where(closer, places + first, index)
    return best / (2 * flat.shape[1] ** 0.5), index


def sheet(images: torch.Tensor, columns: int) -> np.ndarray:
    """Images ``(N, C, H, W)`` in [-1, 1] side by side, uint8 ``(rows·H, columns·W[, 3])``; N must fill the rows."""
    n, c, h, w = images.shape
    levels = ((images.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    grid = levels.view(n // columns, columns, c, h, w).permute(0, 3, 1, 4, 2).reshape(n // columns * h, columns * w, c)
    return (grid if c == 3 else grid[..., 0]).numpy()


def _levels(name: str, data: Path | None, size: int, first: int, end: int) -> torch.Tensor:
    parts = []
    for start in range(first, end, CHUNK):
        chunk = COLLECTIONS[name].images(data, range(start, min(start + CHUNK, end)), size)
        parts.append((chunk * 255).round().to(torch.uint8))
    return torch.cat(parts)


def _pyramid(images: torch.Tensor) -> Iterator[torch.Tensor]:
    """Band-pass levels, then the low-pass rest of 16 pixels a side or fewer."""
    while min(images.shape[-2:]) > 16:
        half = F.avg_pool2d(images, 2, ceil_mode=True)
        yield images - F.interpolate(half, size=images.shape[-2:], mode="bilinear", align_corners=False)
        images = half
    yield images


def _patches(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """``(N·PATCHES, C, 49)`` at random places."""
    n, c, h, w = images.shape
    side = min(PATCH, h, w)
    tops = torch.randint(0, h - side + 1, (n, PATCHES, 1), generator=generator)
    lefts = torch.randint(0, w - side + 1, (n, PATCHES, 1), generator=generator)
    offsets = torch.arange(side)
    places = (tops + offsets)[..., :, None] * w + (lefts + offsets)[..., None, :]
    flat = places.view(n, 1, -1).expand(-1, c, -1)
    return images.flatten(2).gather(2, flat).view(n, c, PATCHES, -1).transpose(1, 2).reshape(n * PATCHES, c, -1)
