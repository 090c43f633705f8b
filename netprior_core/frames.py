"""The frames a race keeps: 8-bit, losslessly compressed, at log-spaced iterations, thinned by doubling."""

from __future__ import annotations

import io
import math

import numpy as np
import torch
from PIL import Image

from netprior_core.images import contact, to_uint8

LIMIT = 200
LIMIT_BYTES = 24 * 1024 * 1024  # of a lane: four of them fit into a zip that can be opened again
FIRST_RATIO = 1.03


def picture_of(estimate: torch.Tensor) -> np.ndarray:
    """8-bit pixels ``(H, W)`` or ``(H, W, 3)`` of ``(C, H, W)``, or of the first of ``(B, C, H, W)``; clipped and rounded."""
    return to_uint8(estimate[0] if estimate.ndim == 4 else estimate)


def spread_of(estimates: torch.Tensor) -> np.ndarray | None:
    """Standard deviation over the seeds of ``(R, C, H, W)``, mean over channels, as 8-bit ``(H, W)``: white is 0.25 or more.

    None for a single seed.
    """
    if len(estimates) < 2:
        return None
    return to_uint8(estimates.detach().clamp(0, 1).std(dim=0).mean(dim=0, keepdim=True) * 4)


def sheet_of(images: torch.Tensor, limit: int = 25) -> torch.Tensor:
    """Up to ``limit`` images ``(N, C, H, W)`` on one near-square sheet ``(C, H', W')``; empty places are white."""
    return contact(images.detach()[:limit], gap=0)


def encode(pixels: np.ndarray) -> bytes:
    """Lossless WebP. The fastest setting: 1.4 ms for a 256² image where PNG takes 7."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "WEBP", lossless=True, method=0, quality=0)
    return buffer.getvalue()


def decode(data: bytes, grey: bool = False) -> np.ndarray:
    """The pixels of :func:`encode`. WebP knows no grey, so the caller says whether they were."""
    image = Image.open(io.BytesIO(data), formats=["WEBP"])
    return np.asarray(image.convert("L" if grey else "RGB"))


class FrameStore:
    """Frames of one lane by iteration. At most ``LIMIT`` of ``LIMIT_BYTES`` are kept besides the pinned ones (best, final)."""

    def __init__(self) -> None:
        self._frames: dict[int, bytes] = {}
        self._pinned: set[int] = set()
        self._ratio = FIRST_RATIO
        self._next = 0
        self._grey = False

    def __len__(self) -> int:
        return len(self._frames)

    def due(self, iteration: int) -> bool:
        """Whether this iteration is to be kept."""
        return iteration >= self._next

    def add(self, iteration: int, pixels: np.ndarray) -> None:
        """Keep a frame and set the next iteration that is due; every second one goes when there are too many."""
        self._store(iteration, pixels)
        order = [i for i in sorted(self._frames) if i not in self._pinned]
        while len(order) > 2 and (len(order) > LIMIT or sum(len(self._frames[i]) for i in order) > LIMIT_BYTES):
            frames = dict(self._frames)
            for i in order[1::2]:
                del frames[i]
            self._frames, order = frames, order[::2]
            self._ratio *= self._ratio
        self._next = max(iteration + 1, math.ceil(iteration * self._ratio))

    def pin(self, iteration: int, pixels: np.ndarray) -> None:
        """Keep a frame for good."""
        self._store(iteration, pixels)
        self._pinned.add(iteration)

    def drop_from(self, iteration: int) -> None:
        """Forget the frames of this iteration and later: they turned out to be broken."""
        self._frames = {i: data for i, data in self._frames.items() if i < iteration}
        self._pinned = {i for i in self._pinned if i < iteration}

    def iterations(self) -> list[int]:
        """The iterations kept, ascending."""
        return sorted(self._frames)

    def at(self, iteration: int) -> tuple[int, bytes] | None:
        """The kept frame at or before ``iteration`` (or the first one), as (its iteration, lossless WebP)."""
        frames = self._frames
        if not frames:
            return None
        before = [i for i in frames if i <= iteration]
        found = max(before) if before else min(frames)
        return found, frames[found]

    def last(self) -> tuple[int, np.ndarray] | None:
        """The newest frame as (iteration, pixels)."""
        frames = self._frames
        if not frames:
            return None
        found = max(frames)
        return found, decode(frames[found], self._grey)

    def items(self) -> list[tuple[int, bytes]]:
        """All frames as (iteration, lossless WebP), ascending."""
        return sorted(self._frames.items())

    def _store(self, iteration: int, pixels: np.ndarray) -> None:
        self._grey = pixels.ndim == 2
        frames = dict(self._frames)  # readers on other threads hold the old one
        frames[iteration] = encode(pixels)
        self._frames = frames


def enlarged(pixels: np.ndarray, side: int = 256) -> np.ndarray:
    """Pixels as squares, so that the picture is about ``side`` a side; larger pictures as they are."""
    factor = max(1, side // pixels.shape[0])
    return pixels.repeat(factor, axis=0).repeat(factor, axis=1)


def tiled(images: torch.Tensor, columns: int = 8, side: int = 128) -> np.ndarray:
    """Images ``(N, C, H, W)`` on a sheet, ``columns`` in a row, each :func:`enlarged` to about ``side``; empty places are grey."""
    sheet = picture_of(contact(images, columns, gap=0, fill=0.5))
    return enlarged(sheet, side * (sheet.shape[0] // images.shape[2]))
