"""What benches read: pictures in zips of the folder given with ``--data``, and priors in a cache of their own."""

from __future__ import annotations

import io
import os
import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from netprior_core.errors import InvalidSettings


def from_zip(data: Path | None, name: str, member: str, *, side: int | None = None, channels: int = 3) -> torch.Tensor:
    """The picture ``(1, channels, H, W)`` in [0, 1] of one member of a zip; with ``side`` its centre crop, never resized.

    Raises InvalidSettings when the folder, the zip or the member is not there, or smaller than ``side``.
    """
    path = (data or Path("no folder given")) / name
    if not path.is_file():
        raise InvalidSettings(f"There is no {name} in the folder given with --data.")
    with zipfile.ZipFile(path) as archive:
        found = sorted(entry for entry in archive.namelist() if entry.endswith(member))
        if not found:
            raise InvalidSettings(f"{name} holds no {member}.")
        picture = Image.open(io.BytesIO(archive.read(found[0]))).convert("RGB" if channels == 3 else "L")
    if side is not None:
        if min(picture.size) < side:
            raise InvalidSettings(f"{member} of {name} is smaller than {side}×{side}.")
        left, top = (picture.width - side) // 2, (picture.height - side) // 2
        picture = picture.crop((left, top, left + side, top + side))
    pixels = torch.from_numpy(np.asarray(picture).copy()).float() / 255
    return (pixels.permute(2, 0, 1) if channels == 3 else pixels[None])[None]


@contextmanager
def cache_of(files: Mapping[str, Path]) -> Iterator[None]:
    """A cache of priors that holds these files under these names, and nothing else: the user's is left alone."""
    before = os.environ.get("NETPRIOR_CACHE")
    with tempfile.TemporaryDirectory() as place:
        for name, path in files.items():
            shutil.copyfile(path, Path(place) / f"{name}.safetensors")
        os.environ["NETPRIOR_CACHE"] = place
        try:
            yield
        finally:
            if before is None:
                del os.environ["NETPRIOR_CACHE"]
            else:
                os.environ["NETPRIOR_CACHE"] = before
