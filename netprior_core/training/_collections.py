"""Collections of images that priors are trained on, read from zips in the folder given with ``--data``."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from netprior_core.errors import InvalidSettings


@dataclass(frozen=True)
class Collection:
    """A zip of images; those from ``first_held_out`` on are never trained on."""

    archive: str
    title: str
    terms: str
    channels: int
    first_held_out: int
    crop: tuple[int, int, int, int] | None = None
    mirrored: bool = True  # whether a mirror image is one of the collection, too: not of what has a left and a right

    def held_out(self, data: Path | None) -> int:
        """How many images there are from ``first_held_out`` on. Raises InvalidSettings when the zip is not there."""
        with zipfile.ZipFile(self._path(data)) as archive:
            return max(0, len(_names(archive)) - self.first_held_out)

    def images(self, data: Path | None, indices: Iterable[int], size: int) -> torch.Tensor:
        """``(N, channels, size, size)`` in [0, 1] at 8-bit levels. Raises InvalidSettings when the zip is not there."""
        found = []
        with zipfile.ZipFile(self._path(data)) as archive:
            names = _names(archive)
            for i in indices:
                picture = Image.open(io.BytesIO(archive.read(names[i]))).convert("RGB" if self.channels == 3 else "L")
                pixels = np.asarray(picture.crop(self.crop).resize((size, size), Image.Resampling.LANCZOS)).copy()
                found.append(torch.from_numpy(pixels.reshape(size, size, -1)).permute(2, 0, 1).float() / 255)
        return torch.stack(found)

    def shots(self, data: Path | None, count: int, size: int) -> torch.Tensor:
        """The first ``count`` images. Raises InvalidSettings when that is more than may be learned from."""
        if count > self.first_held_out:
            raise InvalidSettings(f"{self.title}: at most {self.first_held_out:,} shots; the images after them are for measuring.")
        return self.images(data, range(count), size)

    def _path(self, data: Path | None) -> Path:
        path = (data or Path("no folder given")) / self.archive
        if not path.is_file():
            raise InvalidSettings(f"There is no {self.archive} in the folder given with --data.")
        return path


def _names(archive: zipfile.ZipFile) -> list[str]:
    return sorted(name for name in archive.namelist() if name.lower().endswith((".jpg", ".png")))


COLLECTIONS = {
    "celeba": Collection(
        "faces/celeba_10k_89x109.zip", "CelebA faces", "CelebA: non-commercial research only", 3, 9500, (4, 20, 84, 100)
    ),
    "xray": Collection(
        "medical/chest_xray_nih_400_256x256.zip",
        "Chest x-rays",
        "NIH Clinical Center: free use with acknowledgement",
        1,
        300,
        mirrored=False,
    ),
    "cats": Collection("other/cats_afhq_1400_128x128.zip", "Cat faces", "AFHQ: CC BY-NC 4.0", 3, 1300),
}
