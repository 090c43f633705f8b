"""Weights of the classical methods, per operator, found once on embedded pictures.

λ = c g² σ' with g the gain of A and σ' the noise in units of the picture (``_classical.tuned_weight``); the numbers are c, found by
``python -m netprior_core bench classical --tune``: the best mean PSNR over four embedded pictures at 64×64, two noise levels each
(``bench/_classical_tuning.py`` says which), among powers of √2. An operator without an entry has that of compressed sensing. The
Lasso's were found before its λ was lowered along the run; its weight for colorization was set by hand, as the search was made
with the channels apart: on three of its pictures 1 is 0.4 to 1.1 dB above what was found so.
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
    # Of wavelets the first four were found; the others are those of the DCT.
    "lasso-db4": {
        "denoising": 1.0,
        "inpainting": 1.414,
        "compressed-sensing": 1.414,
        "fourier": 2.0,
        "super-resolution": 2.0,
        "deblurring": 2.0,
        "colorization": 1.0,
        "tomography": 2.0,
    },
}
