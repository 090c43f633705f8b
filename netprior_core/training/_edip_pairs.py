"""Pairs (first picture, truth) that Educated DIP learns from: phantoms seen by CT, photographs seen by the other operators."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from netprior_core.errors import InvalidSettings
from netprior_core.networks.edip import by_channel
from netprior_core.operators import Operator
from netprior_core.operators.base import ForwardModel
from netprior_core.phantoms import ellipse_phantom

#: Pixels of a batch: 16 phantoms of 64×64, or 4 of 128×128.
PIXELS = 2**16
#: (side, views) of the scanners that phantoms are seen by; 5% of mean |y| as noise.
SCANNERS = ((64, 30), (96, 30), (128, 30), (64, 60), (128, 60))
LEVEL = 0.05
PATCH = 64
#: Photographs that make it worth while; test sets hold fewer, and are not to be learned from.
FEWEST = 100
#: Seeds of validation are these plus an index; those of training are the run's seed and the step.
HELD_OUT = 10_000_000
Pairs = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class Seen:
    """How one batch of patches is measured: an operator, σ in 8-bit units, pictures of one or three channels."""

    kind: str
    settings: dict[str, Any] = field(default_factory=dict)
    sigma: float = 0.0
    channels: int = 1


#: The validation of "patches" covers each once, at its middle strength.
VALIDATED = (
    Seen("denoising", {}, 25),
    Seen("inpainting", {"keep": 0.5}),
    Seen("compressed-sensing", {"ratio": 0.25, "matrix": "structured"}),
    Seen("super-resolution", {"factor": 4}),
    Seen("deblurring", {"kernel": "gaussian", "width": 1.6}, 2),
    Seen("fourier", {"lines": 20}),
)


class Phantoms:
    """Random ellipses (Barbano et al. 2021) and their filtered back-projections, at several sizes and numbers of views."""

    name, balanced = "tomography", False
    data = (
        "generated phantoms of random ellipses (Barbano et al. 2021); filtered back-projections of 30 and 60 views of 64, 96 and "
        "128 pixels, noise 5% of mean |y|"
    )
    terms = "generated here, no data set"

    def __init__(self, device: torch.device, seed: int = 0) -> None:
        self.device, self.seed = device, seed

    def batch(self, step: int) -> Pairs:
        """The training pairs ``(z, x)``, each ``(N, 1, H, W)``, of a step: a function of seed and step alone."""
        draw = np.random.default_rng([self.seed, step])
        side, views = SCANNERS[draw.integers(len(SCANNERS))]
        return self._pairs(side, views, PIXELS // side**2, draw)

    def validation(self, count: int = 12) -> dict[str, Pairs]:
        """Held-out pairs by name."""
        return {
            f"{side} pixels, {views} views": self._pairs(side, views, count, np.random.default_rng(HELD_OUT + i))
            for i, (side, views) in enumerate(((64, 30), (128, 30), (128, 60)))
        }

    def _pairs(self, side: int, views: int, count: int, draw: np.random.Generator) -> Pairs:
        x = torch.from_numpy(np.stack([ellipse_phantom(side, draw) for _ in range(count)]))[:, None].to(self.device)
        model = _scanner(side, views, self.device)
        clean = model.forward(x)
        noise = torch.from_numpy(draw.standard_normal(clean.shape, dtype=np.float32)).to(self.device)
        level = LEVEL * clean.abs().mean(dim=(1, 2, 3), keepdim=True)  # of each picture, as RelativeNoise has it
        return model.initial(clean + level * noise), x


class Patches:
    """Patches of photographs, grey or in colour, seen by a mix of operators; the network is given every channel as grey."""

    name, balanced = "patches", True
    terms = "BSDS500 (Arbeláez et al. 2011): non-commercial research. No picture is stored in the weights' file"

    def __init__(self, device: torch.device, folder: Path | None, seed: int = 0, held_out: int = 20) -> None:
        self.device, self.seed = device, seed
        pictures, self.file = _photographs(folder)
        self.pictures, self.rest = pictures[:-held_out], pictures[-held_out:]
        self.data = (
            f"{PATCH}×{PATCH} patches of {len(self.pictures)} photographs ({self.file}), grey and colour; first pictures of "
            "denoising, inpainting, structured compressed sensing, super-resolution, deblurring and Fourier sampling at random "
            "strengths"
        )

    def batch(self, step: int) -> Pairs:
        """The training pairs ``(z, x)``, each ``(N, 1, H, W)``, of a step: a function of seed and step alone."""
        draw = np.random.default_rng([self.seed, step])
        seen = _anyhow(draw)
        count = max(1, PIXELS // (PATCH**2 * seen.channels))
        x = self._crops(self.pictures, count, seen.channels, draw)
        return self._pairs(x, seen, draw)

    def validation(self, count: int = 10) -> dict[str, Pairs]:
        """Held-out pairs by name, from photographs that no training patch is cut from."""
        found = {}
        for i, seen in enumerate(VALIDATED):
            draw = np.random.default_rng(HELD_OUT + i)
            found[seen.kind] = self._pairs(self._crops(self.rest, count, 1, draw), seen, draw)
        return found

    def _pairs(self, x: torch.Tensor, seen: Seen, draw: np.random.Generator) -> Pairs:
        shape: Any = tuple(x.shape[1:])
        model = Operator.registry[seen.kind](**seen.settings).build(shape, seed=int(draw.integers(2**31)), device=self.device)
        y = model.forward(x)
        if seen.sigma:
            e = draw.standard_normal((2, *y.shape), dtype=np.float32)
            noise = torch.from_numpy(e[0] + 1j * e[1] if y.is_complex() else e[0]).to(y.device)
            y = y + seen.sigma / 255 * noise
        return by_channel(model.initial(y)), by_channel(x)

    def _crops(self, pictures: list[np.ndarray], count: int, channels: int, draw: np.random.Generator) -> torch.Tensor:
        crops = []
        for _ in range(count):
            picture = pictures[draw.integers(len(pictures))]
            zoom = int(draw.integers(1, 3))  # 2: shrunk to half by averaging, so that larger things are learned too
            side = PATCH * zoom
            top, left = (int(draw.integers(0, edge - side + 1)) for edge in picture.shape[:2])
            crop = picture[top : top + side, left : left + side].astype(np.float32) / 255
            crop = crop.reshape(PATCH, zoom, PATCH, zoom, 3).mean(axis=(1, 3))
            crop = np.rot90(crop, int(draw.integers(4)))
            crop = crop[:, ::-1] if draw.integers(2) else crop
            if channels == 1:
                crop = crop @ draw.dirichlet(np.ones(3)).astype(np.float32)[:, None]
            crops.append(np.ascontiguousarray(crop.transpose(2, 0, 1)))
        return torch.from_numpy(np.stack(crops)).to(self.device)


def _anyhow(draw: np.random.Generator) -> Seen:
    """A random operator at a random strength; one batch in four is in colour."""

    def between(low: float, high: float) -> float:
        return float(np.exp(draw.uniform(np.log(low), np.log(high))))

    kinds: dict[str, Callable[[], dict[str, Any]]] = {
        "denoising": dict,
        "inpainting": lambda: {"keep": between(0.1, 0.9)},
        "compressed-sensing": lambda: {"ratio": between(0.05, 0.5), "matrix": "structured"},
        "super-resolution": lambda: {"factor": int(draw.choice([2, 4, 8], p=[0.35, 0.5, 0.15]))},
        "deblurring": lambda: {"kernel": str(draw.choice(["gaussian", "motion", "disk"])), "width": between(1.0, 3.0)},
        "fourier": lambda: {"lines": int(draw.integers(8, 33))},
    }
    kind = str(draw.choice(list(kinds)))
    sigma = between(5, 60) if kind == "denoising" else between(1, 25) if draw.integers(2) else 0.0
    return Seen(kind, kinds[kind](), sigma, 3 if draw.integers(4) == 0 else 1)


@lru_cache(maxsize=len(SCANNERS) + 1)
def _scanner(side: int, views: int, device: torch.device) -> ForwardModel:
    return Operator.registry["tomography"](angles=views).build((1, side, side), device=device)


def _photographs(folder: Path | None) -> tuple[list[np.ndarray], str]:
    """All pictures ``(H, W, 3)`` uint8 of the first zip in ``folder`` or its ``restoration`` that holds enough; its name."""
    wanted = "a folder that holds a zip of photographs, such as bsds500_train_200.zip"
    if folder is None or not folder.is_dir():
        raise InvalidSettings(f"Patches are cut from photographs: give --data, {wanted}.")
    for path in sorted([*folder.glob("*.zip"), *(folder / "restoration").glob("*.zip")]):
        with zipfile.ZipFile(path) as archive:
            names = sorted(n for n in archive.namelist() if n.lower().endswith((".jpg", ".jpeg", ".png", ".ppm")))
            wide = names if len(names) >= FEWEST else []
            pictures = [np.asarray(Image.open(io.BytesIO(archive.read(name))).convert("RGB")) for name in wide]
        pictures = [picture for picture in pictures if min(picture.shape[:2]) >= 2 * PATCH]
        if len(pictures) >= FEWEST:
            return pictures, path.name
    raise InvalidSettings(f"There is no zip of at least {FEWEST} photographs of {2 * PATCH} pixels there: give --data, {wanted}.")
