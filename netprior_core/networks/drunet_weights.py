"""The published, full-size DRUNet: its weights are taken from a file that the user has."""

from __future__ import annotations

import io
import pickle
import re
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as from_bytes

from netprior_core import priors
from netprior_core.errors import MissingPrior
from netprior_core.networks import drunet
from netprior_core.networks.drunet import FULL, DRUNet

#: The published files are 130.6 MB.
MAX_OFFICIAL_BYTES = 160 * 2**20
#: Names under which a published file is kept in the cache, by its channels.
KEPT = {3: "drunet-color", 1: "drunet-gray"}
COLOURS = {3: "colour", 1: "grey"}
#: A zip that unpacks to more than so many times its size is not a file of weights.
_MOST_UNPACKED = 4
_TERMS = "weights by K. Zhang, Y. Li, W. Zuo, L. Zhang, L. Van Gool, R. Timofte (2021), given by the user; not part of NetPrior"


def kept() -> tuple[int, ...]:
    """Channels of the published networks whose weights were kept: some of 1 and 3."""
    return tuple(channels for channels, name in sorted(KEPT.items()) if _path(name).is_file())


def missing() -> str | None:
    """Why the published network cannot be used, in a sentence for a person, or None when one of its files was kept."""
    if kept():
        return None
    return (
        "its published weights (131 MB) are not here. If you have drunet_color.pth or drunet_gray.pth, open it under this method's "
        "settings, or: python -m netprior_core train denoiser --official FILE."
    )


def refuses(channels: int) -> str | None:
    """Why pictures of so many channels cannot be denoised with the weights that were kept, or None.

    A grey picture is no task for the colour network: it was taught with noise of its own in each channel, takes what three equal
    channels have in common for the picture, and leaves most of the noise.
    """
    if channels != 1 or kept() != (3,):
        return None
    return (
        "only its colour weights are here, and of a grey picture they would leave most of the noise. If you have drunet_gray.pth, "
        "open it under this method's settings, or: python -m netprior_core train denoiser --official FILE."
    )


def denoiser(device: torch.device | str) -> Callable[[torch.Tensor, float], torch.Tensor]:
    """The published network as a denoiser: that for grey or colour, as each picture is. Colour where only the grey one was kept:
    channel by channel.

    Raises MissingPrior, when called with a picture, if there is none for it (:func:`refuses`).
    """
    loaded: dict[int, Callable[[torch.Tensor, float], torch.Tensor]] = {}

    def denoise(x: torch.Tensor, sigma: float) -> torch.Tensor:
        channels = x.shape[1]
        if channels not in loaded:
            if (reason := refuses(channels)) is not None:
                raise MissingPrior(f"DRUNet as published: {reason}")
            loaded[channels] = drunet.denoiser(priors.load(_kept(channels)), device)
        return loaded[channels](x, sigma)

    return denoise


def read_official(data: bytes) -> tuple[int, dict[str, torch.Tensor]]:
    """Channels and our state dict from the bytes of drunet_color.pth or drunet_gray.pth, or of the same tensors as safetensors.

    Nothing but tensors is unpickled. Checked before use: the size of the file (and of what it unpacks to), the names, shapes and
    types of all tensors, and that they are finite. Raises MissingPrior, in words for a person, when anything is not as published.
    """
    _check_size(len(data))
    state = _tensors(data)
    head = state.get("m_head.weight")
    if head is None or head.ndim != 4:
        raise MissingPrior("This is not a file of DRUNet: it has no tensor 'm_head.weight'.")
    channels = head.shape[1] - 1
    if channels not in KEPT:
        raise MissingPrior(f"DRUNet takes 1 or 3 channels and a noise map; this file's network takes {head.shape[1]} inputs.")
    with torch.device("meta"):
        expected = {_published_name(name): (name, value) for name, value in DRUNet(**FULL, channels=channels).state_dict().items()}
    odd = sorted(set(expected) ^ set(state))
    if odd:
        raise MissingPrior(f"This is not a file of DRUNet: '{odd[0][:60]}' is missing, or one tensor too many.")
    found = {}
    for published, (name, like) in expected.items():
        value = state[published]
        if value.shape != like.shape:
            raise MissingPrior(
                f"This is not a file of DRUNet: '{published}' has shape {tuple(value.shape)}, not {tuple(like.shape)}."
            )
        if value.dtype not in (torch.float32, torch.float16, torch.bfloat16) or value.layout != torch.strided:
            raise MissingPrior(f"This is not a file of DRUNet: '{published}' does not hold floating-point numbers.")
        value = value.float()
        if not bool((value.abs() < 6e4).all()):  # also false for what is not a number; what fits half precision
            raise MissingPrior(f"The file holds invalid numbers in '{published}'.")
        found[name] = value
    return channels, found


def adopt_file(path: Path, *, replace: bool = True) -> str:
    """:func:`adopt` for a file, whose size is looked at before it is read; ``replace``: also where such weights were kept before.

    Raises MissingPrior, in words for a person, also when the file cannot be read.
    """
    try:
        _check_size(path.stat().st_size)
        data = path.read_bytes()
    except OSError as error:
        raise MissingPrior(f"{path.name[:80]} cannot be read: {error.strerror}.") from None
    return adopt(data, replace=replace)


def adopt(data: bytes, *, replace: bool = True) -> str:
    """Keep a published file, given by a person, in the cache as half-precision safetensors; its name there. Raises MissingPrior."""
    channels, state = read_official(data)
    if not replace and channels in kept():
        raise MissingPrior(
            f"DRUNet's {COLOURS[channels]} weights are here already, for all who use this server: they stay. To "
            "replace them: python -m netprior_core train denoiser --official FILE."
        )
    card = {
        "title": f"DRUNet as published, {COLOURS[channels]}",
        "network": f"DRUNet, widths {', '.join(map(str, FULL['widths']))}",
        "settings": {**FULL, "channels": channels},
        "terms": _TERMS,
        "key": KEPT[channels],
    }
    try:
        priors.save(_path(KEPT[channels]), {f"network.{n}": v for n, v in state.items()}, card)
    except OSError as error:
        raise MissingPrior(f"The weights could not be kept ({error.strerror or 'the disk refused'}).") from None
    return KEPT[channels]


def _path(name: str) -> Path:
    return priors.cache_folder() / f"{name}.safetensors"


def _kept(channels: int) -> Path:
    """The kept file for these channels; for colour also the grey network's."""
    names = [KEPT[3], KEPT[1]] if channels == 3 else [KEPT[1]]
    return next((path for name in names if (path := _path(name)).is_file()), _path(names[0]))


def _check_size(size: int) -> None:
    """Raises MissingPrior when a file of so many bytes is too large to be read at all."""
    if size > MAX_OFFICIAL_BYTES:
        raise MissingPrior(f"This file is larger than {MAX_OFFICIAL_BYTES >> 20} MiB; DRUNet's weights take 131 MB.")


def _tensors(data: bytes) -> dict[str, torch.Tensor]:
    """Tensors by name of a .pth file or of safetensors. Raises MissingPrior when it is neither."""
    try:
        if len(data) > 8 and data[8:9] == b"{":
            return dict(from_bytes(data))
        if zipfile.is_zipfile(io.BytesIO(data)):
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                if sum(entry.file_size for entry in archive.infolist()) > _MOST_UNPACKED * max(len(data), 2**20):
                    raise MissingPrior("This file unpacks to far more than its size: it is not opened.")
        found: Any = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, zipfile.BadZipFile, RuntimeError, ValueError, EOFError, KeyError, TypeError,
            AttributeError, IndexError, OSError, MemoryError, NotImplementedError, AssertionError):  # fmt: skip
        raise MissingPrior("This is not a file of tensors (.pth or .safetensors), or it holds more than tensors.") from None
    if isinstance(found, Mapping) and all(isinstance(n, str) and isinstance(v, torch.Tensor) for n, v in found.items()):
        return dict(found)
    raise MissingPrior("This file does not hold tensors by name: it is not the weights of a network.")


def _published_name(name: str) -> str:
    """The name a tensor of :class:`DRUNet` has in the published files."""
    if name in ("head.weight", "tail.weight"):
        return f"m_{name}"
    found = re.fullmatch(r"body\.(\d+)\.(first|second)\.weight", name)
    if found:
        return f"m_body.{found[1]}.res.{0 if found[2] == 'first' else 2}.weight"
    found = re.fullmatch(r"(down|up)\.(\d+)\.(\d+)(?:\.(\d+)\.(first|second))?\.weight", name)
    assert found is not None, name
    way, scale, _, block, which = found.groups()
    number = int(scale) + 1 if way == "down" else 3 - int(scale)
    if block is None:  # the change of scale: after the blocks on the way down, before them on the way up
        return f"m_{way}{number}.{FULL['blocks'] if way == 'down' else 0}.weight"
    return f"m_{way}{number}.{int(block) + (way == 'up')}.res.{0 if which == 'first' else 2}.weight"
