"""Pictures and tasks for meta-learning, and how a start is validated."""

from __future__ import annotations

import io
import math
import re
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from netprior_core.errors import InvalidSettings
from netprior_core.methods.metadip import gain
from netprior_core.metrics import psnr
from netprior_core.noise import GaussianNoise
from netprior_core.operators import Operator
from netprior_core.problem import Shape

FACES, NATURAL = "faces/lfw_3000_128x128.zip", "restoration/bsds500_train_200.zip"
#: The last so many pictures of each archive are never trained on.
FACES_HELD, NATURAL_HELD = 50, 20
#: Added to the seeds of held-out measurements, so that none has the draw of a training task.
HELD_SEED = 10**7
#: Between the data of one stretch of a training and of the next, in a card.
LATER = "; later "
VALIDATED_AT = (0, 5, 10, 20, 50)

#: Operators of mixed tasks, with how their settings are drawn from two numbers in [0, 1). Deblurring is left out: it is the
#: operator never trained on.
MIXED: tuple[tuple[float, Callable[[float, float], dict[str, Any]]], ...] = (
    (0.30, lambda a, b: {"kind": "denoising"}),
    (0.30, lambda a, b: {"kind": "compressed-sensing", "ratio": 0.1 * 5**a, "matrix": "structured"}),
    (0.20, lambda a, b: {"kind": "phase-retrieval", "ratio": 0.1 * 5**a, "matrix": "structured"}),
    (0.10, lambda a, b: {"kind": "inpainting"}),
    (0.10, lambda a, b: {"kind": "super-resolution", "factor": 2 if a < 0.5 else 4}),
)


def read_all(data: Path, name: str) -> list[torch.Tensor]:
    """All pictures of a zip in order of name, uint8 ``(3, H, W)``. Raises InvalidSettings when it is not there."""
    path = data / name
    if not path.is_file():
        raise InvalidSettings(f"There is no {name} in the folder given with --data.")
    found = []
    with zipfile.ZipFile(path) as archive:
        for entry in sorted(archive.namelist()):
            if entry.endswith((".jpg", ".png")):
                pixels = np.asarray(Image.open(io.BytesIO(archive.read(entry))).convert("RGB")).copy()
                found.append(torch.from_numpy(pixels).permute(2, 0, 1))
    return found


def crop(picture: torch.Tensor, side: int, generator: torch.Generator | None) -> torch.Tensor:
    """A random crop, mirrored half the time (the centre one without a generator): ``(1, 3, side, side)`` in [0, 1]."""
    height, width = picture.shape[-2:]
    if generator is None:
        top, left, flip = (height - side) // 2, (width - side) // 2, False
    else:
        top, left = (int(torch.randint(n - side + 1, (), generator=generator)) for n in (height, width))
        flip = bool(torch.rand((), generator=generator) < 0.5)
    found = picture[:, top : top + side, left : left + side].float()[None] / 255
    return found.flip(-1) if flip else found


def _shrunk(picture: torch.Tensor, side: int) -> torch.Tensor:
    return F.interpolate(picture[None].float(), (side, side), mode="area")[0].round().to(torch.uint8)


@dataclass(frozen=True)
class Measured:
    """A clean picture, its measurement, A, what the inner misfit is divided by, and the first picture of the measurement."""

    clean: torch.Tensor
    measurement: torch.Tensor
    forward: Callable[[torch.Tensor], torch.Tensor]
    scale: float
    first: torch.Tensor


def measured(clean: torch.Tensor, operator: Any, sigma: float, seed: int, device: torch.device) -> Measured:
    """Measure a clean picture with one draw of A and of the noise."""
    shape: Shape = (clean.shape[1], clean.shape[2], clean.shape[3])
    clean = clean.to(device)
    model = operator.build(shape, seed=seed, device=device)
    y = model.measure(clean, GaussianNoise(sigma=sigma), seed=seed + 1)
    return Measured(clean, y, model.forward, gain(model) * model.n, model.initial(y))


class Tasks:
    """Training tasks: the i-th is the same whenever it is asked for, so that a resumed run goes on exactly."""

    def __init__(self, data: Path, *, side: int, mixed: bool, seed: int, device: torch.device, whole: bool = False) -> None:
        self.side, self.mixed, self.seed, self.device = side, mixed, seed, device
        faces, natural = read_all(data, FACES), read_all(data, NATURAL)
        if whole and side < 128:  # whole faces, shrunk: for networks that place things by their coordinates in the image
            faces = [_shrunk(face, side) for face in faces]
        # The bench measures on the last faces: what is chosen by validation must not be chosen on them.
        until = len(faces) - 2 * FACES_HELD
        self.faces, self.natural = faces[:until], natural[:-NATURAL_HELD]
        self.held = {"faces": faces[until : until + FACES_HELD], "patches": natural[-NATURAL_HELD:]}

    def __getitem__(self, index: int) -> Measured:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + index)
        from_faces = not self.mixed or bool(torch.rand((), generator=generator) < 0.4)
        pictures = self.faces if from_faces else self.natural
        clean = crop(pictures[int(torch.randint(len(pictures), (), generator=generator))], self.side, generator)
        settings, sigma = {"kind": "denoising"}, 25.0
        if self.mixed:
            which, a, b, c = torch.rand(4, generator=generator).tolist()
            sigma = 5 + 45 * c
            for share, draw in MIXED:
                if which < share:
                    settings = draw(a, b)
                    break
                which -= share
            if settings["kind"] in ("super-resolution", "inpainting"):
                sigma = 25 * c
        return measured(clean, Operator.registry.parse(settings), sigma, 2 * index, self.device)

    def validation(self, count: int) -> dict[str, list[Measured]]:
        """Held-out pictures of both kinds at σ = 25: denoising, an operator never trained on, and compressed sensing when mixed."""
        sensing = {"kind": "compressed-sensing", "ratio": 0.25, "matrix": "structured"}
        unseen = {"kind": "deblurring"} if self.mixed else sensing
        operators = {
            "denoising": Operator.registry.parse({"kind": "denoising"}),
            "unseen": Operator.registry.parse(unseen),
        }
        if self.mixed:
            operators["sensing"] = Operator.registry.parse(sensing)
        return {
            f"{task} {kind}": [
                measured(crop(p, self.side, None), operator, 25.0, HELD_SEED + 10 * i, self.device) for i, p in enumerate(some)
            ]
            for task, operator in operators.items()
            for kind, pictures in self.held.items()
            for some in [pictures[:: max(1, len(pictures) // count)][:count]]
        }


def in_order(some: Sequence[str]) -> list[str]:
    """What was learned on, stretch after stretch, where it changed."""
    return [one for i, one in enumerate(some) if i == 0 or one != some[i - 1]]


def seen_before(data: str) -> str:
    """What a card says when its figures on faces are of faces that an earlier stretch had learned on; empty when they are not.

    The faces are always the first so many, and a stretch is validated on the FACES_HELD after its own.
    """
    faces = [int(count) for count in re.findall(r"(\d+) faces", data)]
    if not faces or max(faces) == faces[-1]:
        return ""
    last = min(max(faces), faces[-1] + FACES_HELD)
    return (
        f"the figures on faces are of faces {faces[-1] + 1:,} to {last:,}, on which the start that this training went on from had "
        "already learned"
    )


def mean_psnr(pictures: Sequence[torch.Tensor], cleans: Sequence[torch.Tensor]) -> float:
    """Mean PSNR in dB, rounded for a card."""
    values = [psnr(a, b).item() for a, b in zip(pictures, cleans, strict=True)]
    mean = sum(values) / len(values)
    return round(mean, 2) if math.isfinite(mean) else 0.0
