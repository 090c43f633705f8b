"""Settings of the plug-and-play methods for each operator, found on embedded pictures, or as published where a paper has them.

``python -m netprior_core bench plug-and-play --tune`` searches them: coordinate search of the mean PSNR over two embedded pictures
of 64×64 at the strengths listed in ``bench.plug_and_play.TUNED_ON``. Searched so far: all three methods on denoising, compressed
sensing, phase retrieval, inpainting, tomography, Fourier measurements, deblurring and colorization, and RED on super-resolution.
Designed sensing has the settings of compressed sensing. For deblurring DPIR has those published, and RED those found with a motion
of 2 pixels: on two other pictures they are 0 to 2.5 dB better than those found with 9. Operators that are not here have the
defaults.
"""

from __future__ import annotations

from typing import Any

#: By method, then by the operator's kind.
TUNED: dict[str, dict[str, dict[str, Any]]] = {
    "pnp-admm": {
        "denoising": {"first": 200.0, "weight": 1.0, "last": 1.4, "iterations": 16},
        "compressed-sensing": {"first": 200.0, "weight": 0.5, "iterations": 48},
        "designed-sensing": {"first": 200.0, "weight": 0.5, "iterations": 48},
        "phase-retrieval": {"first": 100.0, "weight": 0.5, "iterations": 48},
        "deblurring": {"first": 10.0, "last": 1.4},
        "super-resolution": {"first": 200.0, "last": 2.0},
        "colorization": {"first": 200.0, "weight": 2.0, "last": 2.0, "iterations": 48},
        "inpainting": {"first": 200.0, "weight": 0.5, "last": 2.0},
        "tomography": {"first": 200.0, "weight": 1.0, "last": 2.0},
        "fourier": {"first": 200.0, "weight": 0.5, "last": 1.4},
    },
    "dpir": {
        # As published (Zhang et al. 2021, section V).
        "deblurring": {"iterations": 8},
        "super-resolution": {"iterations": 24},
        # Ours.
        "denoising": {"first": 10.0, "weight": 0.03, "iterations": 48},
        "compressed-sensing": {"first": 10.0, "weight": 0.03, "last": 0.5, "iterations": 48},
        "designed-sensing": {"first": 10.0, "weight": 0.03, "last": 0.5, "iterations": 48},
        "phase-retrieval": {"first": 10.0, "weight": 0.03, "last": 0.7, "iterations": 48},
        "colorization": {"first": 200.0, "weight": 0.03, "last": 2.0, "iterations": 48},
        "inpainting": {"first": 200.0, "weight": 0.03, "last": 0.7, "iterations": 48},
        "tomography": {"first": 100.0, "weight": 0.1, "last": 0.5},
        "fourier": {"weight": 0.03, "last": 0.5},
    },
    "red": {
        "denoising": {"strength": 6.0, "iterations": 100},
        "compressed-sensing": {"strength": 12.0, "weight": 0.05, "iterations": 100},
        "designed-sensing": {"strength": 12.0, "weight": 0.05, "iterations": 100},
        "phase-retrieval": {"strength": 12.0, "weight": 0.05, "iterations": 100},
        "inpainting": {"strength": 25.0, "weight": 0.05, "iterations": 100},
        "tomography": {"strength": 12.0, "weight": 1.0, "iterations": 25},
        "fourier": {"strength": 12.0, "iterations": 100},
        "super-resolution": {"strength": 12.0, "weight": 1.0, "iterations": 25},
        "deblurring": {"strength": 6.0},
        "colorization": {"strength": 50.0, "weight": 0.05, "iterations": 100},
    },
}
