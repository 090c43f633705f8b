"""Which device to compute on."""

from __future__ import annotations

import torch

from netprior_core.errors import InvalidSettings


def pick_device(name: str = "auto") -> torch.device:
    """The named device, or for "auto" the accelerator when there is one, else the CPU. Raises InvalidSettings when unusable."""
    # TensorFloat-32 keeps ten bits: too few for SSIM's differences of squares, and "float32" is to mean it.
    torch.backends.cudnn.conv.fp32_precision = "ieee"  # type: ignore[attr-defined]
    if name == "auto":
        found = torch.accelerator.current_accelerator(check_available=True)
        return torch.device("cpu") if found is None else found
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError):
        raise InvalidSettings(f"The device '{name}' cannot be used here. Try cpu or auto.") from None
    return device
