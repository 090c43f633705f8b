"""What the denoiser learns from: patches of photographs and faces, in colour or grey, with white noise of a random strength."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from netprior_core.errors import InvalidSettings
from netprior_core.images import LUMA
from netprior_core.training._meta_data import FACES, FACES_HELD, NATURAL, NATURAL_HELD, read_all

#: Strongest noise, in 8-bit units; the strength of a patch is uniform between 0 and it (Zhang et al. 2021, section IV-A).
STRONGEST = 50.0
#: Share of patches cut from faces, and share that is made grey.
FACES_SHARE, GREY_SHARE = 0.2, 0.4
#: Photographs and faces of the validation, taken from those held out, and the side of their centre crops.
VALIDATED = (8, 4)
VALIDATION_SIDE = 128
LEVELS = (15, 25, 50)


@dataclass(frozen=True)
class Batch:
    """Clean and noisy ``(N, 3, side, side)``, noise level ``(N,)`` in [0, 1] units, grey ``(N,)``: three equal channels."""

    clean: torch.Tensor
    noisy: torch.Tensor
    sigma: torch.Tensor
    grey: torch.Tensor


class NoisyPatches:
    """Batches as a function of seed and step alone. Raises InvalidSettings when ``folder`` lacks the two zips."""

    data = (
        f"patches of 180 photographs ({NATURAL}, the last {NATURAL_HELD} held out) and 2,950 faces ({FACES}, the last {FACES_HELD} "
        f"held out), {GREY_SHARE:.0%} of them grey, with white Gaussian noise, σ uniform in [0, {STRONGEST:g}] of 255"
    )
    terms = "BSDS500 (Arbeláez et al. 2011): non-commercial research; LFW (Huang et al. 2007): research. No picture is in the file"

    def __init__(self, folder: Path | None, *, seed: int = 0, batch: int = 8, side: int = 64) -> None:
        if folder is None:
            raise InvalidSettings(f"Patches are cut from photographs and faces: give --data, a folder with {NATURAL} and {FACES}.")
        photographs, faces = read_all(folder, NATURAL), read_all(folder, FACES)
        self.photographs = [p for p in photographs[:-NATURAL_HELD] if min(p.shape[1:]) >= side]
        self.faces = [p for p in faces[:-FACES_HELD] if min(p.shape[1:]) >= side]
        if not self.photographs or not self.faces:
            raise InvalidSettings(f"The zips hold too few pictures of at least {side} pixels.")
        self.held = [*photographs[-NATURAL_HELD:][: VALIDATED[0]], *faces[-FACES_HELD:][: VALIDATED[1]]]
        self.seed, self.count, self.side = seed, batch, side

    def batch(self, step: int) -> Batch:
        """The patches of a step, on the CPU: cropped, turned and mirrored at random."""
        draw = np.random.default_rng([self.seed, step])
        patches, grey = [], []
        for _ in range(self.count):
            pictures = self.faces if draw.random() < FACES_SHARE else self.photographs
            picture = pictures[draw.integers(len(pictures))]
            top, left = (int(draw.integers(0, edge - self.side + 1)) for edge in picture.shape[1:])
            patch = picture[:, top : top + self.side, left : left + self.side].rot90(int(draw.integers(4)), (1, 2))
            patches.append(patch.flip(2) if draw.integers(2) else patch)
            grey.append(bool(draw.random() < GREY_SHARE))
        clean = torch.stack(patches).float() / 255
        sigma = torch.from_numpy(draw.uniform(0, STRONGEST / 255, self.count).astype(np.float32))
        noise = torch.from_numpy(draw.standard_normal(clean.shape, dtype=np.float32))
        mask = torch.tensor(grey)
        which = mask.view(-1, 1, 1, 1)
        clean = torch.where(which, luma(clean).expand_as(clean), clean)
        noise = torch.where(which, noise[:, :1].expand_as(noise), noise)
        return Batch(clean, clean + sigma.view(-1, 1, 1, 1) * noise, sigma, mask)

    def validation(self) -> list[tuple[str, float, torch.Tensor, torch.Tensor]]:
        """(name, σ in 8-bit units, noisy, clean) of held-out pictures, ``(1, 3 or 1, s, s)``; the noise is the same every time."""
        found = []
        for i, picture in enumerate(self.held):
            side = min(VALIDATION_SIDE, *picture.shape[1:])
            top, left = ((edge - side) // 2 for edge in picture.shape[1:])
            clean = picture[None, :, top : top + side, left : left + side].float() / 255
            for name, truth in (("colour", clean), ("grey", luma(clean))):
                noise = torch.randn(truth.shape, generator=torch.Generator().manual_seed(10_000 + i))
                found += [(name, float(level), truth + level / 255 * noise, truth) for level in LEVELS]
        return found


def luma(x: torch.Tensor) -> torch.Tensor:
    """``(N, 3, H, W)`` to its luma ``(N, 1, H, W)``, ITU-R 601-2, not rounded."""
    return (x * torch.tensor(LUMA, dtype=x.dtype, device=x.device).view(1, 3, 1, 1)).sum(dim=1, keepdim=True)
