"""SIREN: an image as a function of its coordinates, with sines for activations (Sitzmann et al. 2020)."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn


def coordinates(height: int, width: int, *, signed: bool = True) -> torch.Tensor:
    """The grid ``(height, width, 2)`` of (row, column): -1 to 1, both ends included; else from 0 in steps of 1/side, 1 left out."""
    rows, columns = (_axis(side, signed) for side in (height, width))
    return torch.stack(torch.meshgrid(rows, columns, indexing="ij"), dim=-1)


def _axis(side: int, signed: bool) -> torch.Tensor:
    steps = torch.arange(side, dtype=torch.float32)
    return steps * (2 / max(side - 1, 1)) - 1 if signed else steps / side


class Siren(nn.Module):
    """``f(p; θ)``: a grid of coordinates ``(H, W, 2)`` to an image ``(1, outputs, H, W)``; unbounded, in the units of its training.

    ``h_1 = sin(ω0 (W_1 p + b_1))``, ``h_{i+1} = sin(ω0 (W_i h_i + b_i))``, and the last of ``layers`` linear layers has no sine.
    A batch of networks on one grid: ``torch.func.vmap`` over stacked weights with ``functional_call``.

    :meth:`initialise` draws the weights: the first layer U(±1/fan_in), the others U(±√(6/fan_in)/ω0), which keeps every
    layer's input distributed alike (section 3.2). Biases U(±1/√fan_in) as in the authors' code, or 0 as in learnit's.
    """

    def __init__(self, outputs: int, *, layers: int = 5, width: int = 256, omega: float = 30.0) -> None:
        super().__init__()
        widths = [2, *[width] * (layers - 1), outputs]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))
        self.omega = omega

    @torch.no_grad()
    def initialise(self, generator: torch.Generator, *, zero_bias: bool = False) -> None:
        """Draw all weights from ``generator``, on the CPU: before the network is moved to its device."""
        for i, layer in enumerate(self.layers):
            assert isinstance(layer, nn.Linear)
            fan_in = layer.in_features
            bound = math.sqrt(6 / fan_in) / self.omega if i else 1 / fan_in
            layer.weight.uniform_(-bound, bound, generator=generator)
            if zero_bias:
                layer.bias.zero_()
            else:
                layer.bias.uniform_(-1 / math.sqrt(fan_in), 1 / math.sqrt(fan_in), generator=generator)

    def forward(self, grid: torch.Tensor) -> torch.Tensor:
        h = grid
        for layer in self.layers[:-1]:
            assert isinstance(layer, nn.Linear)
            # ω0 on the weights rather than on the large map: one pass less over it, forth and back.
            h = torch.sin(F.linear(h, self.omega * layer.weight, self.omega * layer.bias))
        return self.layers[-1](h).permute(2, 0, 1)[None]
