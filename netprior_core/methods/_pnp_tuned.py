"""Settings of the plug-and-play methods for each operator, found on embedded pictures, or as published where a paper has them.

``python -m netprior_core bench plug-and-play --tune`` searches them: coordinate search of the mean PSNR over two embedded pictures
of 64×64 at the strengths listed in ``bench.plug_and_play.TUNED_ON``. Searched so far: PnP-ADMM on compressed sensing and phase
retrieval, DPIR on compressed sensing, RED on super-resolution and deblurring, all three on inpainting, tomography and Fourier
measurements. Set by hand: RED's on compressed sensing and phase retrieval; all for denoising, designed sensing and colorization.
Operators that are not here have the defaults.
"""

from __future__ import annotations

from typing import Any

#: By method, then by the operator's kind.
TUNED: dict[str, dict[str, dict[str, Any]]] = {
    "pnp-admm": {
        "compressed-sensing": {"weight": 0.5},
        "designed-sensing": {"weight": 0.5},
        "phase-retrieval": {"weight": 0.46, "iterations": 48},
        "denoising": {"iterations": 8},
        "colorization": {"iterations": 8, "first": 10.0},
        "inpainting": {"first": 200.0, "weight": 0.5, "last": 2.0},
        "tomography": {"first": 200.0, "weight": 1.0, "last": 2.0},
        "fourier": {"first": 200.0, "weight": 0.5, "last": 1.4},
    },
    "dpir": {
        # As published (Zhang et al. 2021, section V).
        "deblurring": {"iterations": 8},
        "super-resolution": {"iterations": 24},
        # Ours.
        "compressed-sensing": {"weight": 0.03, "last": 0.25, "iterations": 48},
        "designed-sensing": {"weight": 0.03, "last": 0.25, "iterations": 48},
        "denoising": {"iterations": 8},
        "colorization": {"iterations": 8, "first": 10.0},
        "inpainting": {"first": 200.0, "weight": 0.03, "last": 0.7, "iterations": 48},
        "tomography": {"first": 100.0, "weight": 0.1, "last": 0.5},
        "fourier": {"weight": 0.03, "last": 0.5},
    },
    "red": {
        "compressed-sensing": {"strength": 25.0, "weight": 1.0},
        "phase-retrieval": {"strength": 25.0, "weight": 1.0},
        "inpainting": {"strength": 25.0, "weight": 0.05, "iterations": 100},
        "tomography": {"strength": 12.0, "weight": 1.0, "iterations": 25},
        "fourier": {"strength": 12.0, "iterations": 100},
        "super-resolution": {"strength": 12.0, "weight": 1.0, "iterations": 25},
        "deblurring": {"strength": 6.0, "iterations": 25},
    },
}
