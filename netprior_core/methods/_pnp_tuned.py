"""Settings of the plug-and-play methods for each operator, found on embedded pictures, or as published where a paper has them.

``python -m netprior_core bench plug-and-play --tune`` searches them: coordinate search of the mean PSNR over two embedded pictures
(portrait and coffee, 64×64, in colour) at the strengths listed in ``bench.plug_and_play.TUNED_ON``, and in ``TUNED_ELSEWHERE``
for RED's deblurring, whose settings for a motion of 2 pixels are on other pictures better than those for 9. DPIR's and RED's for
compressed sensing were found before 1/2 was among its strengths, at 1/4 and 1/8 alone. All entries were found with the neural
denoiser, the shipped small DRUNet after its 15,000 steps (checkpoints/README.md). They are used with total variation, BM3D and the
published DRUNet, too, for which nothing was searched: there they may be some way from the best.

As published: DPIR on deblurring and super-resolution. Designed sensing has the settings of compressed sensing. PnP-ADMM has the
defaults for super-resolution: what the search finds (first 200, last 2) is 0.2 dB better on its own pictures, not on two others,
and 0.5 to 0.8 dB worse there at σ = 15. An experiment that gives no settings has these (``PlugAndPlay.completed``).
"""

from __future__ import annotations

from typing import Any

#: By method, then by the operator's kind.
TUNED: dict[str, dict[str, dict[str, Any]]] = {
    "pnp-admm": {
        "denoising": {"first": 200.0, "weight": 1.0, "last": 1.4, "iterations": 16},
        "compressed-sensing": {"first": 200.0, "weight": 0.7, "iterations": 48},
        "designed-sensing": {"first": 200.0, "weight": 0.7, "iterations": 48},
        "phase-retrieval": {"first": 100.0, "weight": 0.5, "iterations": 48},
        "deblurring": {"first": 10.0, "last": 1.4},
        "colorization": {"first": 200.0, "weight": 2.0, "last": 2.0, "iterations": 48},
        "inpainting": {"first": 200.0, "weight": 0.5, "last": 2.0},
        "tomography": {"first": 200.0, "weight": 0.5, "last": 1.4, "iterations": 16},
        "fourier": {"first": 200.0, "last": 1.4},
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
        "tomography": {"first": 10.0, "weight": 0.1, "last": 0.7},
        "fourier": {"weight": 0.03, "last": 0.25},
    },
    "red": {
        "denoising": {"strength": 6.0, "iterations": 100},
        "compressed-sensing": {"strength": 12.0, "weight": 0.05, "iterations": 100},
        "designed-sensing": {"strength": 12.0, "weight": 0.05, "iterations": 100},
        "phase-retrieval": {"strength": 12.0, "weight": 0.05, "iterations": 100},
        "inpainting": {"strength": 25.0, "weight": 0.05, "iterations": 100},
        "tomography": {"strength": 12.0, "weight": 1.0, "iterations": 25},
        "fourier": {"strength": 12.0},
        "super-resolution": {"strength": 12.0, "weight": 1.0},
        "deblurring": {"strength": 6.0},
        "colorization": {"strength": 50.0, "weight": 0.05, "iterations": 100},
    },
}
