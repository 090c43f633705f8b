"""Settings of the plug-and-play methods for each operator, found on embedded pictures, or as published where a paper has them.

``python -m netprior_core bench plug-and-play --tune`` searches them: coordinate search of the mean PSNR over two embedded pictures
of 64×64 at the strengths listed in ``bench.plug_and_play.TUNED_ON``. Searched so far: PnP-ADMM on compressed sensing and phase
retrieval, DPIR on compressed sensing; RED's, and those for denoising, designed sensing and colorization, were set by hand.
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
    },
    "red": {
        "compressed-sensing": {"strength": 25.0, "weight": 1.0},
        "phase-retrieval": {"strength": 25.0, "weight": 1.0},
    },
}
