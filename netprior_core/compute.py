"""How to compute fast at equal quality: the precision and memory layout that pay on a device."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, TypeVar

import torch
from torch import nn

from netprior_core.settings import setting

R = TypeVar("R")
Precision = Literal["auto", "float32", "bfloat16"]
N = TypeVar("N", bound=nn.Module)


@dataclass(frozen=True)
class Compute:
    """Precision of activations and layout of feature maps. Weights, losses and images are always float32."""

    device: torch.device
    dtype: torch.dtype = torch.float32
    memory_format: torch.memory_format = torch.channels_last

    def module(self, module: N) -> N:
        """The module on the device in the chosen layout (weights stay float32)."""
        return module.to(device=self.device).to(memory_format=self.memory_format)  # type: ignore[call-overload]

    def activations(self, x: torch.Tensor) -> torch.Tensor:
        """A float32 CPU tensor as the network's input: on the device, in the chosen precision and layout."""
        x = x.to(self.device, self.dtype)
        return x.contiguous(memory_format=self.memory_format) if x.ndim == 4 else x


def precision_setting() -> Any:
    """The ``precision`` field that networks-based methods share."""
    return setting(
        "auto",
        "Precision of the network's feature maps. auto: bfloat16 where the processor multiplies it natively, else float32.",
    )


def choose(precision: Precision, device: torch.device | str) -> Compute:
    """The way to compute on ``device``: decided by what the hardware can do, never by timing, so that a seed keeps its meaning."""
    device = torch.device(device)
    if precision == "auto":
        precision = "bfloat16" if native_bfloat16(device.type) else "float32"
    # BatchNorm's gradients of channels-last maps are wrong on MPS, or raise (PyTorch issue 175189).
    layout = torch.contiguous_format if device.type == "mps" else torch.channels_last
    return Compute(device, torch.bfloat16 if precision == "bfloat16" else torch.float32, layout)


@lru_cache
def native_bfloat16(device_type: str) -> bool:
    """Whether matrix products in bfloat16 are native on this kind of device (AVX512-BF16 or AMX on a CPU, tensor cores on a GPU).

    Elsewhere bfloat16 is emulated, and slower than float32.
    """
    if device_type == "cpu":
        capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
        return any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16"))
    probe = getattr(torch.get_device_module(device_type), "is_bf16_supported", None)
    if probe is None:
        return False
    try:
        return bool(probe(including_emulation=False))
    except TypeError:
        return bool(probe())


def apart(function: Callable[..., R], *arguments: Any) -> R:
    """The result of ``function(*arguments)``, computed on a thread of its own, in the caller's context.

    Every living thread that has computed on the CPU keeps a pool of OpenMP threads. With two pools alive, more threads than
    cores, OpenMP puts them to sleep at every barrier: iterations of the solver took 25% longer on two cores, measured. So only
    the solver's thread may keep a pool, and whatever else computes does it through here.
    """
    with ThreadPoolExecutor(max_workers=1) as pool:
        return pool.submit(copy_context().run, function, *arguments).result()
