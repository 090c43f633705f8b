"""The bench of Educated DIP: rise time, steady PSNR, and pictures that no training saw."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from netprior_core.bench.edip import SLICES, pictures, rise_time, steady
from netprior_core.errors import InvalidSettings


def test_steady_is_the_median_of_the_last_third() -> None:
    assert steady([0, 0, 0, 0, 0, 0, 9, 5, 7]) == 7
    assert steady([3.0]) == 3.0


def test_rise_is_the_first_iteration_within_a_tenth_of_a_decibel() -> None:
    curve = [10.0, 20.0, 29.85, 29.95, 25.0, 30.0]
    assert rise_time(curve, 30.0) == 3
    assert rise_time(curve, 9.0) == 0
    assert rise_time(curve, 31.0) is None


def test_pictures_are_grey_and_in_range_whatever_the_size() -> None:
    found = dict(pictures(32, None))
    assert len(found) == 6
    for name, picture in found.items():
        assert picture.shape == (1, 1, 32, 32), name
        assert 0 <= float(picture.min()) < float(picture.max()) <= 1


def test_ct_slices_are_scaled_from_hounsfield_units_and_averaged(tmp_path: Path) -> None:
    path = tmp_path / SLICES
    path.parent.mkdir()
    slices = np.full((10, 64, 64), -2000, dtype=np.int16)
    slices[4:] = 500
    np.savez(path, images=slices)
    found = [picture for name, picture in pictures(32, tmp_path) if name.startswith("CT")]
    assert [picture.unique().tolist() for picture in found] == [[0.0]] * 2 + [[0.75]] * 3
    with pytest.raises(InvalidSettings, match="divisor"):
        list(pictures(48, tmp_path))
    with pytest.raises(InvalidSettings, match="no medical"):
        list(pictures(32, tmp_path / "nowhere"))
    assert found[0].dtype == torch.float32
