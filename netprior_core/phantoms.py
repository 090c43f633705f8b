"""Generated phantoms: random ellipses, as many as one likes, without any data set."""

from __future__ import annotations

import numpy as np


def ellipse_phantom(
    size: int, generator: np.random.Generator, *, mean_count: float = 40, most: int = 70, supersampling: int = 2
) -> np.ndarray:
    """A sum of random ellipses, ``(size, size)`` float32 rescaled to [0, 1].

    n = min(Poisson(40), 70) ellipses on [-1, 1]²; value U[-0.4, 1], semi-axes 0.2·Exp(1), centre U[-0.9, 0.9]², any
    rotation (Barbano et al. 2021, "Is Deep Image Prior in Need of a Good Education?", training data). What is drawn depends on the
    generator only: another ``size`` gives the same phantom at another resolution, antialiased by averaging sub-pixels.
    """
    count = max(1, min(int(generator.poisson(mean_count)), most))
    values = generator.uniform(-0.4, 1.0, count)
    axes = np.maximum(0.2 * generator.exponential(1.0, (count, 2)), 1e-3)
    centres = generator.uniform(-0.9, 0.9, (count, 2))
    angles = generator.uniform(0.0, np.pi, count)

    fine = size * supersampling
    grid = (2 * np.arange(fine, dtype=np.float32) + 1) / fine - 1
    row, column = grid[:, None], grid[None, :]
    picture = np.zeros((fine, fine), dtype=np.float32)
    for value, (a, b), (y, x), angle in zip(values, axes, centres, angles, strict=True):
        cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
        along = ((column - np.float32(x)) * cos + (row - np.float32(y)) * sin) / np.float32(a)
        across = ((row - np.float32(y)) * cos - (column - np.float32(x)) * sin) / np.float32(b)
        picture += np.float32(value) * (along * along + across * across <= 1)
    picture = picture.reshape(size, supersampling, size, supersampling).mean(axis=(1, 3))
    low, high = picture.min(), picture.max()
    return (picture - low) / max(high - low, 1e-6)
