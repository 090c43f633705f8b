"""Tiny problems that every method is tried on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from netprior_core.noise import GaussianNoise
from netprior_core.operators import Operator
from netprior_core.problem import Problem


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
        return Problem(y, model, operator, noise, noise.std(y), (channels, side, side), shots), truth

    return make
