"""Denoisers that plug-and-play methods take their prior from, by name.

A denoiser is a function ``(x, σ) → x̂`` on ``(B, C, H, W)`` pictures, C = 1 or 3, nominally in [0, 1] (values outside are noise, not
clipped), with white noise of standard deviation σ in the same unit. What it needs (a package, a network) is loaded by ``load`` and
lives as long as the function it returns: call it inside ``solve``, not at import.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch

from netprior_core import interrupt, priors, variation
from netprior_core.errors import Unsolvable
from netprior_core.networks import drunet_weights

#: ``(x, σ)`` to an estimate of the clean x, same shape, device and dtype.
Denoise = Callable[[torch.Tensor, float], torch.Tensor]
Name = Literal["tv", "bm3d", "neural", "drunet"]

#: Below this no denoiser is asked: 1/20 of an 8-bit level.
LEAST_SIGMA = 0.05 / 255
#: TV's weight over σ: the best of 0.4 to 1.0 for σ = 15, 25 and 50 on embedded pictures.
TV_WEIGHT = 0.7
#: The shipped small DRUNet, by the name of its file.
NEURAL = "denoiser-small"


@dataclass(frozen=True)
class Denoiser:
    """One entry of the registry.

    available: None, or a sentence for a person on why it cannot be used here and what to do.
    load: the function itself, on a device.
    refuses: the same as ``available`` for pictures of so many channels, where it is there for others.
    needs: in a word, what is missing where it is not available.
    """

    name: str
    title: str
    available: Callable[[], str | None]
    load: Callable[[torch.device], Denoise]
    refuses: Callable[[int], str | None] = lambda channels: None
    needs: str = "weights"

    def __call__(self, x: torch.Tensor, sigma: float) -> torch.Tensor:
        """Load, denoise once, forget."""
        return self.load(x.device)(x, sigma)


def get(name: str) -> Denoiser:
    """The denoiser called ``name``. Raises KeyError."""
    return DENOISERS[name]


def reason(name: str, channels: int) -> str | None:
    """Why this denoiser cannot clean pictures of so many channels here, in a sentence for a person, or None."""
    denoiser = get(name)
    return denoiser.available() or denoiser.refuses(channels)


def load(name: str, device: torch.device | str) -> Denoise:
    """The function of this name on a device. Raises Unsolvable, in words, when it is not available."""
    denoiser = get(name)
    if (missing := denoiser.available()) is not None:
        raise Unsolvable(f"{denoiser.title}: {missing}")
    return _guarded(denoiser.load(torch.device(device)))


def _guarded(denoise: Denoise) -> Denoise:
    def guarded(x: torch.Tensor, sigma: float) -> torch.Tensor:
        return x if sigma < LEAST_SIGMA else denoise(x, sigma)

    return guarded


# Total variation


def _always() -> None:
    return None


def _tv(device: torch.device) -> Denoise:
    return lambda x, sigma: variation.denoise(x, TV_WEIGHT * sigma, iterations=100, tolerance=1e-3)


# BM3D


def _bm3d_missing() -> str | None:
    if importlib.util.find_spec("bm3d") is None:
        return "the package “bm3d” is not installed. Its licence is for non-commercial use only. To install it: pip install bm3d."
    return None


def _bm3d(device: torch.device) -> Denoise:
    """BM3D by the authors' package (Mäkinen, Azzari & Foi 2020), on the CPU in double precision; colour in opponent space.

    In one thread: with more, sums are taken in any order, and the same picture comes out differently each time.
    """
    try:
        package: Any = importlib.import_module("bm3d")
    except ImportError as error:  # installed, but for another system or Python
        raise Unsolvable(f"BM3D: the installed package “bm3d” cannot be loaded ({error}). Install it again.") from None

    profile = package.BM3DProfile()
    profile.num_threads = 1

    def clean(picture: Any, sigma: float) -> Any:
        # Without any chroma its colour transform would divide by 0.
        if picture.shape[2] == 1 or bool((picture == picture[..., :1]).all()):
            return package.bm3d(picture[..., 0], sigma, profile)[..., None]
        return package.bm3d_rgb(picture, sigma, profile)

    def denoise(x: torch.Tensor, sigma: float) -> torch.Tensor:
        pictures = x.detach().cpu().double().permute(0, 2, 3, 1).numpy()
        found = torch.empty_like(x)
        for i, picture in enumerate(pictures):
            found[i] = torch.from_numpy(interrupt.interruptible(partial(clean, picture, sigma))).to(x).permute(2, 0, 1)
        return found

    return denoise


# A small neural denoiser


def _neural_missing() -> str | None:
    if importlib.util.find_spec("netprior_core.networks.drunet") is None:
        return "its network is not part of this version."
    if priors.usable(NEURAL):
        return None
    return (
        f"its weights, checkpoints/{NEURAL}.safetensors, are not here. To make them: "
        "python -m netprior_core train denoiser --data FOLDER."
    )


def _neural(device: torch.device) -> Denoise:
    """``networks.drunet.denoiser(prior, device)``: a function of this module's kind from the weights and card of a file."""
    drunet: Any = importlib.import_module("netprior_core.networks.drunet")
    denoise: Denoise = drunet.denoiser(priors.named(NEURAL), device)
    return denoise


# The published network, from a file of the user's


def _full_missing() -> str | None:
    return drunet_weights.missing()


def _full(device: torch.device) -> Denoise:
    return drunet_weights.denoiser(device)


DENOISERS: dict[str, Denoiser] = {
    denoiser.name: denoiser
    for denoiser in (
        Denoiser("tv", "Total variation", _always, _tv),
        Denoiser("bm3d", "BM3D", _bm3d_missing, _bm3d, needs="package"),
        Denoiser("neural", "Small DRUNet", _neural_missing, _neural),
        Denoiser("drunet", "DRUNet as published", _full_missing, _full, drunet_weights.refuses),
    )
}
