"""Initial weights from an explicit seed, without touching the global random state of any thread."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, TypeVar

import torch
from torch import nn

N = TypeVar("N", bound=nn.Module)
Scheme = Literal["uniform", "dcgan", "torch 0.4"]


def seeded(build: Callable[[], N], seed: int | torch.Generator, *, scheme: Scheme = "uniform") -> N:
    """The module that ``build`` makes, with its weights drawn on the CPU from ``seed`` (an integer, or a generator to go on from).

    "uniform": U(±1/√fan_in) for weights and biases of (transposed) convolutions and linear layers, as PyTorch does by
    default. "dcgan": weights N(0, 0.02²), biases 0, BatchNorm scales N(1, 0.02²) (Radford et al. 2016, section 3). "torch 0.4": the
    defaults that code of 2018 ran with, BatchNorm scales U(0, 1), and of transposed convolutions fan-in counted by their input.
    Normalisation layers otherwise start as the identity.

    The module is built without storage first, so that nothing is drawn from the global generator, which other threads share.
    """
    generator = seed if isinstance(seed, torch.Generator) else torch.Generator().manual_seed(seed)
    with torch.device("meta"):
        module = build()
    module.to_empty(device="cpu")
    with torch.no_grad():
        for layer in module.modules():
            _initialise(layer, generator, scheme)
    return module


def _initialise(layer: nn.Module, generator: torch.Generator, scheme: Scheme) -> None:
    if isinstance(layer, nn.modules.batchnorm._BatchNorm):
        layer.reset_running_stats()
        if layer.affine:
            if scheme == "dcgan":
                layer.weight.normal_(1.0, 0.02, generator=generator)
            elif scheme == "torch 0.4":
                layer.weight.uniform_(0.0, 1.0, generator=generator)
            else:
                layer.weight.fill_(1.0)
            layer.bias.zero_()
    elif isinstance(layer, nn.GroupNorm) and layer.affine:
        layer.weight.fill_(1.0)
        layer.bias.zero_()
    elif isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
        # Fan-in by PyTorch's convention: the second weight axis times the kernel, for transposed convolutions too.
        fan_in = layer.weight[0].numel()
        if scheme == "torch 0.4" and isinstance(layer, nn.ConvTranspose2d):
            fan_in = layer.weight[:, 0].numel()
        bound = 1 / math.sqrt(fan_in)
        if scheme == "dcgan":
            layer.weight.normal_(0.0, 0.02, generator=generator)
        else:
            layer.weight.uniform_(-bound, bound, generator=generator)
        if layer.bias is not None:
            if scheme == "dcgan":
                layer.bias.zero_()
            else:
                layer.bias.uniform_(-bound, bound, generator=generator)
