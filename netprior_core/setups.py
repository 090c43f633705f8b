"""What choosing an embedded set fills in: a problem in which methods can be told apart within 20 seconds on two CPU cores."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def _setup(operator: Mapping[str, Any], sigma: float, *methods: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    return {"operator": operator, "noise": {"kind": "gaussian", "sigma": sigma}, "methods": list(methods), **more}


def _dip(iterations: int, **changes: Any) -> dict[str, Any]:
    return {"kind": "dip", "iterations": iterations, **changes}


ADJOINT = {"kind": "adjoint"}
PINV = {"kind": "pseudo-inverse"}
BICUBIC = {"kind": "bicubic"}
CS_DIP = {"kind": "cs-dip", "iterations": 300}
LOW_SHOT = {"kind": "low-shot", "latent_iterations": 400, "joint_iterations": 200}
LOW_SHOT_SMALL = {**LOW_SHOT, "channels": 16}  # the width of the shipped priors at 64×64
SHARP = {"averaging": 0.0}  # fewer than a few hundred iterations are too few to average over

SETUPS: Mapping[str, Mapping[str, Any]] = {
    "faces": _setup({"kind": "compressed-sensing", "ratio": 0.1}, 2, LOW_SHOT, CS_DIP, _dip(200, **SHARP)),
    "coins": _setup({"kind": "compressed-sensing", "ratio": 0.05}, 2, LOW_SHOT_SMALL, CS_DIP, _dip(150, **SHARP)),
    "histology": _setup({"kind": "colorization"}, 0, LOW_SHOT_SMALL, _dip(150, **SHARP)),
    "galaxies": _setup({"kind": "super-resolution", "factor": 4}, 2, _dip(200, **SHARP), BICUBIC),
    "textures": _setup({"kind": "inpainting", "keep": 0.3}, 2, _dip(200, **SHARP), ADJOINT),
    "retina": _setup({"kind": "denoising"}, 25, _dip(250), _dip(250, **SHARP)),
    "phantoms": _setup({"kind": "compressed-sensing", "ratio": 0.1}, 2, LOW_SHOT_SMALL, CS_DIP, _dip(150, **SHARP)),
    "astronaut": _setup({"kind": "inpainting", "keep": 0.5}, 5, _dip(150, **SHARP), ADJOINT),
    "cat": _setup({"kind": "denoising"}, 25, _dip(150), _dip(150, **SHARP), size=64),
    "coffee": _setup({"kind": "super-resolution", "factor": 4}, 2, _dip(150, **SHARP), BICUBIC),
    "camera": _setup({"kind": "inpainting", "keep": 0.2}, 5, _dip(150, **SHARP), ADJOINT),
    "portrait": _setup({"kind": "inpainting", "pattern": "box", "box_size": 0.25}, 2, _dip(150, **SHARP), ADJOINT),
    "mri": _setup({"kind": "compressed-sensing", "ratio": 0.25}, 2, _dip(200, **SHARP), CS_DIP, PINV, size=64),
}
