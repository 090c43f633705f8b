"""Numbers from strangers: ``.npy`` files and arrays inside text settings, read without trusting anything in them."""

from __future__ import annotations

import base64
import binascii
import io
import math

import numpy as np

from netprior_core.errors import BadImage, InvalidSettings
from netprior_core.images import encode_png, load_image, to_tensor
from netprior_core.settings import shortened

#: Kinds of numpy data that are numbers: bool, unsigned, signed, real, complex.
NUMBERS = "buifc"
MAX_DIMENSIONS = 8
#: An honest header of plain numbers has 118 bytes; numpy's parser is not to be fed long ones.
MAX_HEADER = 2000

_MAGIC, _PNG = b"\x93NUMPY", b"\x89PNG\r\n\x1a\n"
_SAVE = "Save it with numpy.save(file, array)"


def load_npy(data: bytes, *, name: str, max_bytes: int, max_values: int) -> np.ndarray:
    """The array in the bytes of a ``.npy`` file, versions 1 to 3, in C order and this machine's byte order.

    Numbers only, never pickled objects; float64 and complex128 become float32 and complex64, integers and bools stay. Type and
    shape are checked from the header before anything is allocated. ``name`` is the file's, for messages.

    Raises InvalidSettings, with words on what is wrong and what to do, for everything else: too large, empty, cut short, NaN.
    """
    return _read(data, f"“{shortened(name, 60)}”" if name else "This file", max_bytes, max_values)


def dump_npy(array: np.ndarray) -> bytes:
    """The bytes of a ``.npy`` file. Raises ValueError for arrays of anything but numbers."""
    if array.dtype.kind not in NUMBERS:
        raise ValueError(f"only numbers are written, not {array.dtype}")
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.asarray(array), allow_pickle=False)
    return buffer.getvalue()


def encode(array: np.ndarray) -> str:
    """An array as the text of a setting: base64 of a PNG for a plane of bools, which is far shorter, else of a ``.npy``."""
    plane = array.dtype == np.bool_ and array.ndim == 2
    data = encode_png(to_tensor(array)) if plane else dump_npy(array)
    return base64.b64encode(data).decode("ascii")


def decode(text: str, *, what: str, max_characters: int, max_values: int, ndim: int) -> np.ndarray:
    """The array of a text setting: base64 of a ``.npy`` or of a PNG, which is read as grey in [0, 1], ``(H, W)`` float32.

    A data URI will do. Leading axes of length 1 are dropped where there are more than ``ndim``. ``what`` names the setting
    ("the sampling pattern"). Raises InvalidSettings, in words, for whatever does not fit.
    """
    who = what[:1].upper() + what[1:]
    if len(text) > max_characters:
        raise InvalidSettings(f"{who} is longer than the {max_characters:,} characters it may have. Use a smaller one.")
    if text.startswith("data:"):
        text = text.partition(",")[2]
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise InvalidSettings(f"{who} cannot be read: it is not base64. Upload a .npy or PNG file.") from None
    if data.startswith(_MAGIC):
        array = _read(data, who, max_characters, max_values)
    elif data.startswith(_PNG):
        array = _grey(data, what, max_characters, max_values)
    else:
        raise InvalidSettings(f"{who} is neither a .npy file nor a PNG picture. Upload one of these.")
    while array.ndim > ndim and array.shape[0] == 1:
        array = array[0]
    if array.ndim != ndim:
        raise InvalidSettings(f"{who} has {array.ndim} axes ({_words(array.shape)}); it must have {ndim}.")
    return array


def _grey(data: bytes, what: str, max_bytes: int, max_pixels: int) -> np.ndarray:
    try:
        picture = load_image(
            data, name=what, formats=("PNG",), max_bytes=max_bytes, max_pixels=max_pixels, min_side=1, background=0
        )
    except BadImage as error:
        raise InvalidSettings(str(error)) from None
    grey: np.ndarray = picture.array.mean(axis=2)
    return grey


def _read(data: bytes, who: str, max_bytes: int, max_values: int) -> np.ndarray:
    if len(data) > max_bytes:
        raise InvalidSettings(
            f"{who} is larger than {max_bytes / 1e6:.2g} MB, the most that can be used here. Use a smaller array."
        )
    if not data.startswith(_MAGIC):
        raise InvalidSettings(f"{who} {_what_else(data)}. {_SAVE}, as one .npy file.")
    shape, fortran, dtype, start = _header(data, who)
    if dtype.hasobject:
        raise InvalidSettings(f"{who} holds Python objects, which are never opened. Save an array of plain numbers.")
    if dtype.kind not in NUMBERS:
        raise InvalidSettings(f"{who} does not hold numbers but {shortened(str(dtype), 40)}. Save an array of plain numbers.")
    if len(shape) > MAX_DIMENSIONS or any(side < 0 for side in shape):
        raise InvalidSettings(f"{who} has an impossible shape. At most {MAX_DIMENSIONS} axes can be used.")
    count = math.prod(shape)
    if count == 0:
        raise InvalidSettings(f"{who} is an empty array ({_words(shape)}). Choose another file.")
    if count > max_values:
        raise InvalidSettings(f"{who} has {_words(shape)} values; at most {max_values:,} can be used. Make the array smaller.")
    there = len(data) - start
    if there < count * dtype.itemsize:
        raise InvalidSettings(f"{who} is cut short: {_words(shape)} values are announced, and fewer follow. Save or copy it again.")
    if there > count * dtype.itemsize:
        raise InvalidSettings(f"{who} goes on after its array ends. Save one array per file.")
    values = np.frombuffer(data, dtype, count, start).reshape(shape, order="F" if fortran else "C")
    return np.ascontiguousarray(_reduced(values, who)).reshape(shape)  # ascontiguousarray gives a number an axis


def _reduced(values: np.ndarray, who: str) -> np.ndarray:
    """A copy of native byte order, real and complex numbers in single precision; finite ones only."""
    if values.dtype.kind not in "fc":
        return values.astype(values.dtype.newbyteorder("="))
    with np.errstate(over="ignore", invalid="ignore"):
        single = values.astype(np.complex64 if values.dtype.kind == "c" else np.float32)
    if np.isfinite(single).all():
        return single
    if np.isfinite(values).all():
        raise InvalidSettings(f"{who} has values beyond 10³⁸, too large for single precision. Scale them down.")
    raise InvalidSettings(f"{who} has values that are not numbers (NaN or infinity). Replace them and upload it again.")


def _header(data: bytes, who: str) -> tuple[tuple[int, ...], bool, np.dtype, int]:
    """Shape, Fortran order, dtype, and where the values start."""
    version = tuple(data[6:8])
    if version not in ((1, 0), (2, 0), (3, 0)):
        raise InvalidSettings(f"{who} is a .npy file of an unknown version. {_SAVE} once more.")
    stream = io.BytesIO(data[8 : 8 + 4 + MAX_HEADER])
    # Version 3 differs from 2 in the encoding of field names only, and what has fields is refused anyhow.
    reader = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    try:
        shape, fortran, dtype = reader(stream, max_header_size=MAX_HEADER)
    except Exception:  # the parser of a crafted header may raise anything
        raise InvalidSettings(f"{who} has a damaged header. {_SAVE} once more.") from None
    return tuple(int(side) for side in shape), bool(fortran), dtype, 8 + stream.tell()


def _what_else(data: bytes) -> str:
    if not data:
        return "is empty"
    if data.startswith(b"PK"):
        return "is an archive (.npz or zip), not a single array"
    if data.startswith((b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")):
        return "is a pickle, which is never opened"
    if data.startswith((b"MATLAB", b"\x89HDF")):
        return "is a MATLAB or HDF5 file"
    if all(9 <= byte < 127 for byte in data[:64]):
        return "is text"
    return "is not a .npy file"


def _words(shape: tuple[int, ...]) -> str:
    return "×".join(shortened(str(side), 12) for side in shape) or "one"
