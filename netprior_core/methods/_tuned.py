"""Weights of the classical methods, per operator, found once on embedded pictures.

λ = c g² σ' with g the gain of A and σ' the noise in units of the picture (``_classical.tuned_weight``); the numbers are c, found by
``python -m netprior_core bench classical --tune``: the best mean PSNR over four embedded pictures at 64×64, two noise levels each
(``bench/_classical_tuning.py`` says which), among powers of √2; ``--tune tval3`` finds TVAL3's alone. An operator without an entry
has that of compressed sensing.
"""

from __future__ import annotations

WEIGHTS: dict[str, dict[str, float]] = {
    "tv": {
        "denoising": 0.5,
        "inpainting": 0.5,
        "compressed-sensing": 0.354,
        "fourier": 0.707,
        "super-resolution": 1.0,
        "deblurring": 1.0,
        "colorization": 1.0,
        "tomography": 0.707,
    },
    "lasso-dct": {
        "denoising": 1.0,
        "inpainting": 1.414,
        "compressed-sensing": 2.0,
        "fourier": 2.0,
        "super-resolution": 2.0,
        "deblurring": 2.0,
        "colorization": 1.0,
        "tomography": 2.0,
    },
    "lasso-db4": {
        "denoising": 1.0,
        "inpainting": 1.414,
        "compressed-sensing": 1.414,
        "fourier": 2.0,
        "super-resolution": 2.0,
        "deblurring": 2.0,
        "colorization": 1.414,
        "tomography": 2.0,
    },
    # Colorization's is the least that was tried: from its first picture, the luma in all channels, TVAL3 had better not go far.
    "tval3": {
        "denoising": 0.707,
        "inpainting": 0.707,
        "compressed-sensing": 0.707,
        "fourier": 1.0,
        "super-resolution": 1.0,
        "deblurring": 1.0,
        "colorization": 0.016,
        "tomography": 1.0,
    },
}
