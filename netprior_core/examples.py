"""Embedded examples: real images read from packages that are installed anyway, and generated phantoms. Nothing is downloaded.

Every set is a list of crops. Shots and targets are cut from disjoint boxes, so that no pixel of a target is ever among the shots.
"""

from __future__ import annotations

import gzip
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch

from netprior_core.errors import InvalidSettings, MissingPrior
from netprior_core.images import contact, encode_png, fit, load_image
from netprior_core.phantoms import digit, ellipse_phantom

PHANTOM = "phantom"
FACES = "scikit-image/lfw_subset.npy"
MRI = "matplotlib/s1045.ima.gz"
FONTS = "matplotlib's fonts/"
_FOLDERS = {
    "scikit-image": ("skimage", "data"),
    "matplotlib": ("matplotlib", "mpl-data/sample_data"),
    FONTS[:-1]: ("matplotlib", "mpl-data/fonts/ttf"),
}


class Crop(NamedTuple):
    """A box of a source image; ``number`` picks one of a source that holds several (faces, phantoms, digits of a font)."""

    source: str
    top: int
    left: int
    height: int
    width: int
    number: int = 0

    @property
    def drawn(self) -> bool:
        """Whether it is drawn at the size asked for, rather than cut from pixels."""
        return self.source == PHANTOM or self.source.startswith(FONTS)


@dataclass(frozen=True, eq=False)
class ExampleSet:
    """Images of one class: shots to learn from (none for a single image) and held-out targets.

    size: native working side in pixels; channels: 1 or 3; credit: who made the images and on what terms, as far as known.
    """

    key: str
    title: str
    blurb: str
    credit: str
    size: int
    channels: Literal[1, 3]
    shot_crops: tuple[Crop, ...]
    target_crops: tuple[Crop, ...]
    target_names: tuple[str, ...]

    @property
    def n_shots(self) -> int:
        """Number of shots."""
        return len(self.shot_crops)

    @property
    def n_targets(self) -> int:
        """Number of held-out targets."""
        return len(self.target_crops)

    @property
    def available(self) -> bool:
        """Whether the files the set is cut from are in the installed packages."""
        return all(source == PHANTOM or _path(source) is not None for source in self.sources)

    @property
    def sources(self) -> tuple[str, ...]:
        """The files the set is cut from, each once."""
        return tuple(dict.fromkeys(crop.source for crop in self.shot_crops + self.target_crops))

    def shots(self, size: int | None = None, channels: Literal[1, 3] | None = None) -> torch.Tensor:
        """``(S, C, H, W)`` in [0, 1] at 8-bit levels; another ``size`` is cut from the source again, not resized twice."""
        return _cut(self.shot_crops, size or self.size, channels or self.channels).clone()

    def targets(self, size: int | None = None, channels: Literal[1, 3] | None = None) -> torch.Tensor:
        """``(T, C, H, W)`` in [0, 1], as :meth:`shots`."""
        return _cut(self.target_crops, size or self.size, channels or self.channels).clone()


def sets() -> tuple[ExampleSet, ...]:
    """The embedded sets whose sources are installed, in the order they are shown."""
    return tuple(found for found in _SETS if found.available)


def get(key: str) -> ExampleSet:
    """The set called ``key``. Raises InvalidSettings for an unknown key."""
    for found in _SETS:
        if found.key == key:
            return found
    raise InvalidSettings(f"There is no embedded set called {key[:40]!r}. Known: {', '.join(s.key for s in _SETS)}.")


@lru_cache(maxsize=64)
def thumbnail(key: str) -> bytes:
    """A PNG of at most 64 × 64 pixels: the image, or four of the shots."""
    found = get(key)
    if found.n_shots < 4:
        return encode_png(found.targets(64)[0])
    return encode_png(contact(_cut(found.shot_crops[:4], 31, found.channels), columns=2))


@lru_cache(maxsize=48)
def _cut(crops: tuple[Crop, ...], size: int, channels: Literal[1, 3]) -> torch.Tensor:
    if not crops:
        return torch.zeros((0, channels, size, size))
    return torch.cat([fit(_pixels(crop, size), size, channels) for crop in crops])


def _pixels(crop: Crop, size: int) -> np.ndarray:
    """The pixels of a crop as ``(h, w, C)``; phantoms and digits are drawn at ``size``, having none of their own."""
    if crop.source == PHANTOM:
        return ellipse_phantom(size, np.random.default_rng((2021, crop.number)))[..., None]
    if crop.source.startswith(FONTS):
        return digit(size, _installed(crop.source), crop.number % 10, np.random.default_rng((1998, crop.number)))[..., None]
    image = _read(crop.source)
    image = image[crop.number] if image.ndim == 4 else image
    return image[crop.top : crop.top + crop.height, crop.left : crop.left + crop.width]


@lru_cache(maxsize=3)
def _read(source: str) -> np.ndarray:
    """A source as float32 ``(H, W, C)``, or ``(N, H, W, C)`` where it holds several, in [0, 1]."""
    path = _installed(source)
    if source == FACES:
        return np.load(path, allow_pickle=False).astype(np.float32)[..., None]
    if source == MRI:  # 256 × 256 little-endian 16-bit values, without a header
        values = np.frombuffer(gzip.decompress(path.read_bytes()), dtype="<u2").reshape(256, 256, 1)
        return values.astype(np.float32) / values.max()
    return load_image(path.read_bytes(), name=path.name).array


def _installed(source: str) -> Path:
    """Where a source lies. Raises MissingPrior when it is not installed."""
    path = _path(source)
    if path is None:
        package, name = source.split("/")
        raise MissingPrior(f"The example image {name} is not in the installed {package}. Install the version in requirements.txt.")
    return path


def _path(source: str) -> Path | None:
    """Where a source lies, found without importing its package: scikit-image's own loader may go to the network."""
    package, name = source.split("/")
    module, folder = _FOLDERS[package]
    found = importlib.util.find_spec(module)
    if found is None or not found.submodule_search_locations:
        return None
    path = Path(found.submodule_search_locations[0]) / folder / name
    return path if path.is_file() else None


# The sets


def _spread(count: int, targets: int) -> tuple[int, ...]:
    """``targets`` indices spread evenly over ``count``."""
    return tuple((2 * i + 1) * count // (2 * targets) for i in range(targets))


def _split(crops: Sequence[Crop], held_out: Sequence[int]) -> tuple[tuple[Crop, ...], tuple[Crop, ...]]:
    """(shots, targets), the targets in the order of ``held_out``."""
    return tuple(c for i, c in enumerate(crops) if i not in set(held_out)), tuple(crops[i] for i in held_out)


def _class(
    key: str,
    title: str,
    blurb: str,
    credit: str,
    size: int,
    channels: Literal[1, 3],
    crops: Sequence[Crop],
    held_out: Sequence[int],
    noun: str,
) -> ExampleSet:
    shots, targets = _split(crops, held_out)
    names = tuple(f"{noun} {i + 1}" for i in range(len(targets)))
    return ExampleSet(key, title, blurb, credit, size, channels, shots, targets, names)


def _single(
    key: str,
    title: str,
    blurb: str,
    credit: str,
    channels: Literal[1, 3],
    crop: Crop,
    size: int = 128,
) -> ExampleSet:
    return ExampleSet(key, title, blurb, credit, size, channels, (), (crop,), (title,))


def _tiles(source: str, side: int, rows: int, columns: int) -> list[Crop]:
    return [Crop(source, side * r, side * c, side, side) for r in range(rows) for c in range(columns)]


#: Centre row, centre column and half side of each of the 24 coins.
_COINS = (
    (54, 44, 25), (56, 101, 22), (52, 156, 26), (52, 216, 26), (53, 276, 23), (44, 335, 33),
    (125, 46, 24), (126, 103, 21), (128, 154, 23), (125, 206, 23), (120, 271, 29), (125, 337, 22),
    (197, 44, 21), (196, 102, 24), (198, 154, 21), (194, 213, 26), (194, 274, 25), (186, 347, 35),
    (260, 46, 31), (266, 114, 24), (262, 172, 31), (264, 244, 28), (264, 301, 29), (268, 358, 26),
)  # fmt: skip

#: Centre row and column of 48 bright galaxies and stars of the deep field, no two within 56 pixels of each other along both axes.
_GALAXIES = (
    (402, 123), (473, 727), (578, 754), (334, 308), (166, 819), (76, 405), (66, 488), (150, 446), (739, 774), (716, 422),
    (597, 499), (108, 291), (592, 657), (605, 281), (441, 511), (403, 420), (218, 146), (356, 485), (722, 540), (488, 87),
    (843, 584), (166, 254), (490, 971), (779, 53), (550, 90), (609, 812), (786, 709), (300, 125), (503, 894), (675, 69),
    (285, 485), (810, 906), (745, 313), (192, 759), (497, 386), (81, 603), (261, 831), (795, 195), (562, 214), (406, 580),
    (640, 726), (662, 516), (736, 244), (517, 561), (320, 755), (86, 95), (710, 180), (698, 624),
)  # fmt: skip

_TEXTURES = [
    crop
    for trio in zip(*(_tiles(f"scikit-image/{name}.png", 128, 4, 4) for name in ("brick", "grass", "gravel")), strict=True)
    for crop in trio
]


def _retina() -> list[Crop]:
    """Those tiles of the fundus photograph that lie in the disc."""
    tiles = _tiles("scikit-image/retina.jpg", 156, 9, 9)
    corners = [(t, [(t.top + a, t.left + b) for a in (0, 156) for b in (0, 156)]) for t in tiles]
    return [t for t, points in corners if all((y - 705) ** 2 + (x - 705) ** 2 <= 680**2 for y, x in points)]


#: Fonts that digits are drawn from.
_HANDS = ("DejaVuSans", "STIXGeneralItalic", "cmss10", "DejaVuSans-Oblique", "cmti10", "STIXGeneral", "DejaVuSerif-Italic")
#: Ten digits after ten others; the hands change from digit to digit, and from ten to ten.
_DIGITS = [Crop(f"{FONTS}{_HANDS[(3 * i + i // 10) % len(_HANDS)]}.ttf", 0, 0, 0, 0, i) for i in range(110)]

_SETS: tuple[ExampleSet, ...] = (
    _class(
        "faces",
        "Faces",
        "Small grey faces: the class a low-shot prior learns fastest.",
        "100 faces of Labeled Faces in the Wild (Huang et al. 2012), as scikit-image ships them at 25 × 25",
        32,
        1,
        [Crop(FACES, 0, 0, 25, 25, i) for i in range(100)],
        _spread(100, 10),
        "Face",
    ),
    _class(
        "coins",
        "Coins",
        "Greek coins from Pompeii: same disc, different relief.",
        "Brooklyn Museum, no known copyright restrictions; in scikit-image",
        64,
        1,
        [Crop("scikit-image/coins.png", r - half, c - half, 2 * half, 2 * half) for r, c, half in _COINS],
        (13, 16, 10, 22, 1, 4, 7, 19),
        "Coin",
    ),
    _class(
        "histology",
        "Histology",
        "Stained colon tissue: brown membranes, blue nuclei.",
        "Center for Microscopy and Molecular Imaging, no known copyright restrictions; in scikit-image",
        64,
        3,
        _tiles("scikit-image/ihc.png", 85, 6, 6),
        _spread(36, 8),
        "Tissue",
    ),
    _class(
        "galaxies",
        "Galaxies",
        "Deep-field galaxies: a few bright shapes on black.",
        "Hubble eXtreme Deep Field, NASA, public domain; in scikit-image",
        64,
        3,
        [Crop("scikit-image/hubble_deep_field.jpg", r - 28, c - 28, 56, 56) for r, c in _GALAXIES],
        _spread(48, 8),
        "Galaxy",
    ),
    _class(
        "textures",
        "Textures",
        "Brick, grass and gravel: a hard class, with no common layout.",
        "CC0Textures and DeviantArt, CC0; in scikit-image",
        64,
        1,
        _TEXTURES,
        _spread(48, 9),
        "Texture",
    ),
    _class(
        "retina",
        "Retina",
        "Patches of an eye's fundus: thin vessels on red.",
        "Mikael Häggström, CC0; in scikit-image",
        64,
        3,
        _retina(),
        _spread(len(_retina()), 8),
        "Patch",
    ),
    _class(
        "phantoms",
        "Phantoms",
        "Random ellipses, generated: the training images of educated DIP.",
        "generated here after Barbano et al. 2021",
        64,
        1,
        [Crop(PHANTOM, 0, 0, 0, 0, i) for i in range(108)],
        tuple(range(100, 108)),
        "Phantom",
    ),
    ExampleSet(
        "digits",
        "Digits",
        "Drawn from fonts as if by hand, of MNIST's size: its generator can answer here.",
        "generated here from the DejaVu, STIX and Computer Modern fonts in matplotlib",
        28,
        1,
        tuple(_DIGITS[:100]),
        tuple(_DIGITS[100:]),
        tuple(f"Digit {i}" for i in range(10)),
    ),
    _single(
        "astronaut",
        "Astronaut",
        "A portrait with fine detail, the field's usual colour test.",
        "NASA, public domain; in scikit-image",
        3,
        Crop("scikit-image/astronaut.png", 0, 0, 512, 512),
    ),
    _single(
        "astronaut-face",
        "One face",
        "The astronaut's, cut as close as CelebA's: the generator of faces can answer here.",
        "NASA, public domain; in scikit-image",
        3,
        # Of about a hundred square boxes around the face (half sides 50 to 90, moved in steps of 3 to 9 pixels) the face GAN came
        # nearest, 19.5 to 19.7 dB, to those of half side 56 to 65 centred about row 110, column 225; no nearer when turned by −3,
        # 3 or 6 degrees. With eyes where CelebA's are (half side 90) it is 18.5 dB. This is the widest of the best.
        Crop("scikit-image/astronaut.png", 44, 158, 130, 130),
        64,
    ),
    _single(
        "cat",
        "Cat",
        "Fur and eyes at close range, soft background.",
        "Stéfan van der Walt, CC0; in scikit-image",
        3,
        Crop("scikit-image/chelsea.png", 0, 75, 300, 300),
    ),
    _single(
        "coffee",
        "Coffee",
        "Smooth porcelain and wood grain.",
        "Rachel Michetti, CC0; in scikit-image",
        3,
        Crop("scikit-image/coffee.png", 0, 100, 400, 400),
    ),
    _single(
        "camera",
        "Camera",
        "A man with a camera, in grey.",
        "Lav Varshney, CC0; in scikit-image",
        1,
        Crop("scikit-image/camera.png", 0, 0, 512, 512),
    ),
    _single(
        "portrait",
        "Portrait",
        "Grace Hopper before a flag: stripes, braid and ribbons.",
        "US Navy, public domain; in matplotlib's sample data",
        3,
        Crop("matplotlib/grace_hopper.jpg", 30, 0, 512, 512),
    ),
    _single(
        "mri",
        "MRI slice",
        "A head in a magnetic resonance scanner.",
        "in matplotlib's sample data",
        1,
        Crop(MRI, 0, 0, 256, 256),
    ),
)
