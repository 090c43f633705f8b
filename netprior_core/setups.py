"""What choosing an embedded set fills in: a problem in which methods can be told apart within 20 seconds on two CPU cores."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from netprior_core import examples
from netprior_core.methods.lowshot import LowShot
from netprior_core.methods.npgd import NPGD


def _setup(operator: Mapping[str, Any], sigma: float, *methods: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    return {"operator": operator, "noise": {"kind": "gaussian", "sigma": sigma}, "methods": list(methods), **more}


def _all_shots(key: str) -> dict[str, Any]:
    return {"source": "embedded", "set": key, "count": examples.get(key).n_shots}


def _dip(iterations: int, **changes: Any) -> dict[str, Any]:
    return {"kind": "dip", "iterations": iterations, **changes}


ADJOINT = {"kind": "adjoint"}
BICUBIC = {"kind": "bicubic"}
CS_DIP = {"kind": "cs-dip", "iterations": 300}
LOW_SHOT = LowShot.preset("shipped", joint_iterations=100).model_dump(
    mode="json"
)  # all shots of these sets were learned beforehand
POLISHED = NPGD.preset("polished (ours)").model_dump(mode="json")
SHARP = {"averaging": 0.0}  # fewer than a few hundred iterations are too few to average over
#: DIP as published beside our steps for it, which get as far in so few iterations as it does in many more.
BOTH_STEPS = (_dip(75, **SHARP), _dip(75, optimiser="Muon", averaging=0.9))

SETUPS: Mapping[str, Mapping[str, Any]] = {
    "faces": _setup(
        {"kind": "compressed-sensing", "ratio": 0.1}, 2, LOW_SHOT, CS_DIP, _dip(150, **SHARP), shots=_all_shots("faces")
    ),
    "coins": _setup(
        {"kind": "compressed-sensing", "ratio": 0.1}, 2, LOW_SHOT, CS_DIP, _dip(150, **SHARP), shots=_all_shots("coins")
    ),
    "histology": _setup({"kind": "colorization"}, 0, LOW_SHOT, _dip(150, **SHARP), ADJOINT, shots=_all_shots("histology")),
    "galaxies": _setup({"kind": "super-resolution", "factor": 4}, 2, _dip(200, **SHARP), BICUBIC),
    "textures": _setup({"kind": "inpainting", "keep": 0.3}, 2, _dip(200, **SHARP), ADJOINT),
    "retina": _setup({"kind": "denoising"}, 25, _dip(250), _dip(250, **SHARP)),
    "phantoms": _setup(
        {"kind": "compressed-sensing", "ratio": 0.1}, 2, LOW_SHOT, CS_DIP, _dip(150, **SHARP), shots=_all_shots("phantoms")
    ),
    "digits": _setup(
        {"kind": "compressed-sensing", "ratio": 0.1},
        0,
        LOW_SHOT,
        POLISHED,
        {"kind": "csgm", "restarts": 10, "iterations": 150},
        {"kind": "cs-dip"},
        shots=_all_shots("digits"),
    ),
    "astronaut": _setup({"kind": "inpainting", "keep": 0.5}, 5, *BOTH_STEPS, ADJOINT),
    "astronaut-face": _setup(
        {"kind": "compressed-sensing", "ratio": 0.05},
        1,
        {"kind": "csgm", "iterations": 150},
        {"kind": "iagan", "latent_iterations": 150, "joint_iterations": 150},
        POLISHED,
        CS_DIP,
    ),
    "cat": _setup({"kind": "denoising"}, 25, _dip(150), _dip(150, **SHARP), size=64),
    "coffee": _setup({"kind": "super-resolution", "factor": 4}, 2, *BOTH_STEPS, BICUBIC),
    "camera": _setup({"kind": "inpainting", "keep": 0.2}, 5, *BOTH_STEPS, ADJOINT),
    "portrait": _setup({"kind": "inpainting", "pattern": "box", "box_size": 0.25}, 2, *BOTH_STEPS, ADJOINT),
    "mri": _setup({"kind": "fourier", "pattern": "cartesian", "acceleration": 4}, 2, _dip(200, **SHARP), CS_DIP, ADJOINT, size=64),
}
