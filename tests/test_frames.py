"""Kept frames: lossless, log-spaced, bounded, and pinned ones for good."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from netprior_core.frames import LIMIT, FrameStore, decode, encode, picture_of, sheet_of


def pixels(value: int, channels: int = 1) -> np.ndarray:
    shape = (6, 7) if channels == 1 else (6, 7, 3)
    return np.full(shape, value % 256, np.uint8)


@pytest.mark.parametrize("shape", [(17, 9), (17, 9, 3), (8, 8)])
def test_encoding_is_lossless(shape: tuple[int, ...]) -> None:
    image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    np.testing.assert_array_equal(decode(encode(image), grey=len(shape) == 2), image)


def test_all_grey_levels_survive() -> None:
    image = np.arange(256, dtype=np.uint8).reshape(16, 16)
    np.testing.assert_array_equal(decode(encode(image), grey=True), image)


def test_a_picture_is_clipped_and_rounded() -> None:
    image = torch.tensor([[-0.5, 0.0, 0.4999 / 255, 0.5001 / 255, 1.0, 1.5]])[None]
    assert picture_of(image).tolist() == [[0, 0, 0, 1, 255, 255]]
    colour = torch.rand(2, 3, 4, 5)
    assert picture_of(colour).shape == (4, 5, 3)
    np.testing.assert_array_equal(picture_of(colour), picture_of(colour[0]))


def test_a_sheet_is_near_square_with_white_gaps_and_takes_the_first_25() -> None:
    images = torch.arange(5.0).view(5, 1, 1, 1).expand(5, 1, 2, 2) / 10
    sheet = sheet_of(images)
    assert sheet.shape == (1, 4, 6)
    assert sheet[0, ::2, ::2].flatten().tolist() == pytest.approx([0, 0.1, 0.2, 0.3, 0.4, 1])
    assert sheet_of(torch.zeros(99, 3, 2, 2)).shape == (3, 10, 10)


@pytest.mark.parametrize("iterations", [150, 1000, 20_000])
def test_frames_are_bounded_log_spaced_and_keep_the_first(iterations: int) -> None:
    store = FrameStore()
    for i in range(1, iterations + 1):
        if store.due(i):
            store.add(i, pixels(i))
    kept = store.iterations()
    assert kept[0] == 1
    assert len(kept) <= LIMIT
    assert len(kept) >= 40
    gaps = np.diff(kept)
    assert gaps[-5:].mean() > gaps[:5].mean()
    for i, data in store.items():
        np.testing.assert_array_equal(decode(data, grey=True), pixels(i))


def test_pinned_frames_outlive_every_thinning() -> None:
    store = FrameStore()
    store._ratio = 1.0  # every iteration is due, so that thinning happens
    for i in range(1, 600):
        if i in (2, 77):
            store.pin(i, pixels(i))
        elif store.due(i):
            store.add(i, pixels(i))
            store._ratio = 1.0
        assert len(store) <= LIMIT + 2
    assert {1, 2, 77} <= set(store.iterations())


def test_large_frames_are_bounded_by_their_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)  # about 3 KB, incompressible
    monkeypatch.setattr("netprior_core.frames.LIMIT_BYTES", 20_000)
    store = FrameStore()
    for i in range(1, 200):
        if store.due(i):
            store.add(i, noise)
        assert sum(len(data) for _, data in store.items()) <= 20_000
    store.pin(199, noise)
    assert store.iterations()[0] == 1
    assert store.iterations()[-1] == 199
    assert len(store) >= 3


def test_the_frame_at_an_iteration_is_the_one_before_it_or_the_first() -> None:
    store = FrameStore()
    assert store.at(3) is None
    assert store.last() is None
    for i in (4, 8):
        store.pin(i, pixels(i))
    found = [store.at(i) for i in (1, 4, 7, 8, 99)]
    assert [frame and frame[0] for frame in found] == [4, 4, 4, 8, 8]
    last = store.last()
    assert last is not None
    assert last[0] == 8
    np.testing.assert_array_equal(last[1], pixels(8))


def test_broken_frames_are_forgotten_pins_included() -> None:
    store = FrameStore()
    for i in range(1, 6):
        store.add(i, pixels(i, 3))
    store.pin(6, pixels(6, 3))
    store.drop_from(4)
    assert store.iterations() == [1, 2, 3]
    last = store.last()
    assert last is not None
    assert last[1].shape == (6, 7, 3)
