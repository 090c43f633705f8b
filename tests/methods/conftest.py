"""Tiny problems that every method is tried on."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from shared import returned

from netprior_core import priors
from netprior_core.compute import choose
from netprior_core.generators import digest_of, drawing_of, generator_key, projector_key
from netprior_core.methods._shots import pretrain
from netprior_core.noise import GaussianNoise
from netprior_core.operators import Operator
from netprior_core.priors import Prior
from netprior_core.problem import Problem
from netprior_core.training.projector import Trainer


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NETPRIOR_CACHE", str(tmp_path / "cache"))


def picture(index: int, channels: int = 3, side: int = 32) -> torch.Tensor:
    """A smooth face-like picture ``(1, C, side, side)`` in [0, 1] at 8-bit levels: a bright ellipse with two dark spots."""
    g = torch.Generator().manual_seed(index)
    dx, dy, size, hue = (torch.rand(4, generator=g) * 2 - 1).tolist()
    grid = torch.linspace(-1, 1, side)
    y, x = torch.meshgrid(grid - 0.15 * dy, grid - 0.15 * dx, indexing="ij")
    head = torch.sigmoid(12 * (0.75 + 0.1 * size - (x.square() * 1.6 + y.square()).sqrt()))
    eyes = sum(torch.exp(-((x - s * 0.3).square() + (y + 0.2).square()) / 0.02) for s in (-1, 1))
    image = torch.stack([0.15 + 0.7 * head * (1 - 0.15 * c * (1 + hue)) - 0.45 * eyes * head for c in range(channels)])
    return (image.clamp(0, 1) * 255).round()[None] / 255


@pytest.fixture
def make_problem() -> Callable[..., tuple[Problem, torch.Tensor]]:
    """(kind of operator, settings, channels, side) to a problem with six shots, and its truth."""

    def make(
        kind: str, *, channels: int = 3, side: int = 32, sigma: float = 10.0, **settings: object
    ) -> tuple[Problem, torch.Tensor]:
        truth = picture(0, channels, side)
        operator = Operator.registry[kind](**settings)
        model = operator.build((channels, side, side), seed=1)
        noise = GaussianNoise(sigma=sigma)
        y = noise.apply(model.forward(truth), seed=2)
        shots = torch.cat([picture(i, channels, side) for i in range(1, 7)])
        return Problem(y, model, operator, noise, model.noise_std(noise, y), (channels, side, side), shots), truth

    return make


@cache
def _learned(channels: int) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """A generator of pictures 32×32 from a few seconds of pre-training, and a projector for it."""
    shape = (channels, 32, 32)
    settings: dict[str, Any] = {"loss": "l2", "iterations": 250, "learning_rate": 3e-3, "latent": 8, "channels": 8, "jitter": 0.3}
    shots = torch.cat([picture(i, channels) for i in range(1, 25)])
    trained = returned(pretrain(shots, choose("float32", "cpu"), **settings, batch=12, kernel_width=0.0, seed=0))
    drawing = drawing_of(Prior(trained.tensors(), {"network": "DCGAN", "shape": list(shape), "settings": {"channels": 8}}))
    projecting = Trainer(drawing, torch.device("cpu"), channels=8, batch=16, learning_rate=1e-3)
    for _ in range(150):
        projecting.advance()
    projecting.judge()
    return trained.tensors(), projecting.tensors()


@pytest.fixture
def generator() -> None:
    """A small trained generator for 3×32×32 and 1×32×32 with projectors, where methods look for the GAN of that size."""
    for channels in (1, 3):
        tensors, projector = _learned(channels)
        shape = (channels, 32, 32)
        card = {"network": "DCGAN", "title": "pictures", "shape": list(shape), "settings": {"channels": 8}}
        priors.remember(generator_key(shape), tensors, card)
        weights = {name.removeprefix("network."): value for name, value in tensors.items() if name != "latents"}
        priors.remember(projector_key(digest_of(weights)), projector, {"settings": {"channels": 8}})
