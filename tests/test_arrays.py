"""Arrays from files and text settings: what is honest comes back, what is not is refused in words."""

from __future__ import annotations

import base64
import io
import random
import struct
from typing import Any

import numpy as np
import pytest

from netprior_core.arrays import MAX_HEADER, decode, dump_npy, encode, load_npy
from netprior_core.errors import InvalidSettings


def _load(data: bytes, **limits: int) -> np.ndarray:
    return load_npy(data, name="mine.npy", **{"max_bytes": 1_000_000, "max_values": 100_000, **limits})


def _saved(array: np.ndarray, version: tuple[int, int] | None = None, **options: Any) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array, version, **options)
    return buffer.getvalue()


def _crafted(header: str, body: bytes = b"", version: int = 1) -> bytes:
    length = struct.pack("<H" if version == 1 else "<I", len(header.encode()))
    return b"\x93NUMPY" + bytes([version, 0]) + length + header.encode() + body


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
@pytest.mark.parametrize("dtype", ["?", "u1", "<i2", ">i4", "<f2", "<f4", ">f8", "<c8", ">c16", "g"])
def test_numbers_come_back(dtype: str, version: tuple[int, int]) -> None:
    array = (np.arange(12).reshape(3, 4) % 2).astype(dtype)
    for order in "CF":
        found = _load(_saved(np.array(array, order=order), version))
        assert np.array_equal(found, array)
        assert found.dtype.isnative
        assert found.flags.c_contiguous
        assert found.flags.writeable
        assert found.dtype in {"f": [np.float32], "c": [np.complex64]}.get(array.dtype.kind, [array.dtype.newbyteorder("=")])


def test_round_trip() -> None:
    array = np.random.default_rng(0).normal(size=(2, 5)).astype(np.float32)
    assert np.array_equal(_load(dump_npy(array)), array)
    assert _load(dump_npy(np.float32(3.5))).shape == ()
    with pytest.raises(ValueError, match="numbers"):
        dump_npy(np.array(["a"]))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "empty"),
        (b"1,2,3\n4,5,6\n", "is text"),
        (b"PK\x03\x04", "archive"),
        (b"\x80\x04\x95", "pickle"),
        (b"\x93NUMPY", "unknown version"),
        (b"\x93NUMPY\x07\x00", "unknown version"),
        (b"\x93NUMPY\x01\x00\x40", "damaged header"),
        (_saved(np.array([{}], dtype=object), allow_pickle=True), "Python objects"),
        (_saved(np.array([(1, object())], dtype=[("a", "i4"), ("b", "O")]), allow_pickle=True), "Python objects"),
        (_saved(np.zeros(3, dtype=[("a", "f4"), ("b", "i4")])), "not hold numbers"),
        (_saved(np.array(["text"])), "not hold numbers"),
        (_saved(np.array(["2020-01-01"], dtype="M8[D]")), "not hold numbers"),
        (_saved(np.zeros((0, 4))), "empty array"),
        (_saved(np.array([1.0, np.nan])), "NaN"),
        (_saved(np.array([1.0, -np.inf], dtype=np.float32)), "NaN"),
        (_saved(np.array([1 + 1j * np.inf])), "NaN"),
        (_saved(np.array([1e300])), "Scale them down"),
        (_saved(np.zeros(200_000, dtype=np.uint8)), "at most 100,000"),
        (_saved(np.zeros(10))[:-1], "cut short"),
        (_saved(np.zeros(10)) * 2, "one array"),
        (_crafted("{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000, 1000000000)}"), "at most 100,000"),
        (_crafted("{'descr': '<f8', 'fortran_order': False, 'shape': (4294967296, 4294967296, 4294967296)}"), "at most"),
        (_crafted("{'descr': '<f8', 'fortran_order': False, 'shape': (-1, -4)}"), "impossible shape"),
        (_crafted("{'descr': '<f8', 'fortran_order': False, 'shape': (" + "1," * 60 + ")}"), "impossible shape"),
        (_crafted("{'descr': '(3,)f8', 'fortran_order': False, 'shape': (1,)}", bytes(24)), "not hold numbers"),
        (_crafted("{'descr': '|V99999999', 'fortran_order': False, 'shape': (1,)}"), "not hold numbers"),
        (_crafted("{'descr': 'no', 'fortran_order': False, 'shape': (1,)}"), "damaged header"),
        (_crafted("{'descr': '<f8', 'shape': (1,)}"), "damaged header"),
        (_crafted("__import__('os')"), "damaged header"),
        (_crafted("-" * 1990 + "1"), "damaged header"),
        (_crafted("(" * 1990), "damaged header"),
        (_crafted("9" * (MAX_HEADER + 1)), "damaged header"),
        (_crafted("{'descr': '<f8'}", version=2).replace(b"\x10\0\0\0", b"\xff\xff\xff\xff"), "damaged header"),
    ],
)
def test_refused_in_words(data: bytes, words: str) -> None:
    with pytest.raises(InvalidSettings, match=words) as caught:
        _load(data)
    assert "mine.npy" in str(caught.value)
    assert str(caught.value).endswith(".")
    assert len(str(caught.value)) < 220


def test_too_many_bytes() -> None:
    with pytest.raises(InvalidSettings, match="larger than"):
        _load(dump_npy(np.zeros(100)), max_bytes=100)


@pytest.mark.filterwarnings("ignore:invalid escape")
def test_damaged_files_never_raise_anything_else() -> None:
    chance = random.Random(0)
    whole = dump_npy(np.random.default_rng(0).normal(size=(6, 5)))
    for _ in range(1500):
        data = bytearray(whole)
        for _ in range(chance.randint(1, 6)):
            data[chance.randrange(chance.choice([len(data), 100]))] = chance.randrange(256)
        if chance.random() < 0.3:
            del data[chance.randrange(len(data)) :]
        try:
            size = _load(bytes(data)).size
        except InvalidSettings:
            size = 0
        assert size <= 100_000


def _decode(text: str, **changes: Any) -> np.ndarray:
    return decode(text, **{"what": "the sampling pattern", "max_characters": 50_000, "max_values": 10_000, "ndim": 2, **changes})


def test_text_settings() -> None:
    numbers = np.random.default_rng(0).normal(size=(4, 6)).astype(np.float32)
    assert np.array_equal(_decode(encode(numbers)), numbers)
    assert np.array_equal(_decode(encode(numbers[None])), numbers)
    assert np.array_equal(_decode("data:application/octet-stream;base64," + encode(numbers)), numbers)
    plane = numbers > 0
    assert np.array_equal(_decode(encode(plane)), plane)  # a PNG: 0 and 1
    assert np.array_equal(_decode("data:image/png;base64," + encode(plane)), plane)
    random_plane = np.random.default_rng(1).random((100, 100)) > 0.5
    assert len(encode(random_plane)) < len(base64.b64encode(dump_npy(random_plane))) / 3
    assert np.array_equal(_decode(encode(np.arange(3)), ndim=1), np.arange(3))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("%%%", "not base64"),
        ("ä", "not base64"),
        (base64.b64encode(b"hello").decode(), "neither"),
        ("", "neither"),
        (encode(np.zeros(3)), "1 axes"),
        (encode(np.zeros((2, 3, 3))), "3 axes"),
        (encode(np.zeros((200, 200), dtype=bool)), "megapixels"),
        (encode(np.zeros((200, 200), dtype=np.uint8)), "longer than"),
        (encode(np.zeros((110, 100), dtype=np.uint8)), "at most 10,000"),
        (encode(np.zeros((20, 20), dtype=bool))[:60], "damaged|cut short"),
        ("x" * 60_000, "longer than"),
    ],
)
def test_text_refused_in_words(text: str, words: str) -> None:
    with pytest.raises(InvalidSettings, match=words) as caught:
        _decode(text)
    assert "he sampling pattern" in str(caught.value)
