"""What a method may start from: shipped checkpoints and the cache of networks pre-trained on shots.

Both are safetensors files whose header carries a card: which network, trained on what, for how long, with which result and on what
terms. Nothing is ever unpickled. A file is found by its ``key``, a hash of everything its weights depend on.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes

from netprior_core.errors import MissingPrior

#: Shipped checkpoints; without one, examples are learned live, and a method that starts from another says that it is missing.
CHECKPOINTS = Path(__file__).resolve().parent.parent / "checkpoints"
MAX_FILE_BYTES = 64 * 2**20
MAX_CACHE_BYTES = 512 * 2**20
GIVEN = "drunet-"  # what the names of published weights begin with
OWN = "own-"  # what the names of priors begin with that a person gave
MOST = 8192  # of a side or of channels in a card
_HEADER_LIMIT = 2**20


@dataclass(frozen=True, eq=False)
class Prior:
    """Tensors by name, float32 on the CPU, and their card."""

    tensors: dict[str, torch.Tensor]
    card: dict[str, Any]

    def load_into(self, module: torch.nn.Module, prefix: str = "network.") -> None:
        """Copy the tensors whose names start with ``prefix`` into a module. Raises MissingPrior when they do not fit exactly."""
        state = {name[len(prefix) :]: value for name, value in self.tensors.items() if name.startswith(prefix)}
        try:
            module.load_state_dict(state, strict=True)
        except RuntimeError as error:
            reason = str(error).splitlines()[-1].strip()
            raise MissingPrior(f"The prior does not fit this network: {reason}") from None


def key_of(shots: torch.Tensor | None = None, **settings: Any) -> str:
    """The key of a prior: a hash of the shots' 8-bit levels and shape, and of every setting that its weights depend on."""
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    if shots is not None:
        levels = (shots.detach().cpu().clamp(0, 1) * 255).round().to(torch.uint8).contiguous()
        digest.update(repr(tuple(levels.shape)).encode())
        digest.update(levels.numpy().tobytes())
    return digest.hexdigest()[:32]


def save(path: Path, tensors: Mapping[str, torch.Tensor], card: Mapping[str, Any]) -> Path:
    """Write tensors (floating point as fp16) and their card, all or nothing. Raises OSError when the disk refuses."""
    halves = {
        name: value.detach().cpu().contiguous().to(torch.float16 if value.is_floating_point() else value.dtype)
        for name, value in tensors.items()
    }
    data = to_bytes(halves, metadata={"card": json.dumps(dict(card), sort_keys=True, ensure_ascii=False)})
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, partial = tempfile.mkstemp(dir=path.parent, suffix=".partial")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.replace(partial, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(partial)
        raise
    return path


def load(path: Path) -> Prior:
    """The prior in a file. Raises MissingPrior, in words for a person, when it is missing, truncated, too large or not one."""
    with _opened(path) as file:
        card = _card(path, file.metadata())
        tensors = {}
        for name in file.keys():  # noqa: SIM118 (not a dict)
            value = file.get_tensor(name)
            if value.is_floating_point():
                value = value.float()
                if not bool(torch.isfinite(value).all()):
                    raise MissingPrior(f"The prior {path.name} holds invalid numbers in '{name}'.")
            tensors[name] = value
    return Prior(tensors, card)


def card_of(path: Path) -> dict[str, Any]:
    """The card of a file, without its tensors. Raises MissingPrior."""
    with _opened(path) as file:
        return _card(path, file.metadata())


def find(key: str) -> Prior | None:
    """The prior of this key from the cache, else from the shipped checkpoints, else None. Unusable files count as absent."""
    for path in _paths(key):
        with contextlib.suppress(MissingPrior):
            prior = load(path)
            if prior.card.get("key") == key:
                _used(path)
                return prior
    return None


def where(key: str) -> Path | None:
    """The file of the prior that :func:`remember` or a shipped checkpoint has under this key, None when it is gone."""
    return next(_paths(key), None)


def _paths(key: str) -> Iterator[Path]:
    cached = cache_folder() / f"{key}.safetensors"
    return (path for path in (cached, shipped().get(key)) if path is not None and path.is_file())


def named(name: str) -> Prior:
    """The prior that goes by this name: a shipped file's stem, or the key of one in the cache. Raises MissingPrior."""
    path = _place(name)
    prior = load(path)
    _used(path)
    return prior


def usable(name: str) -> bool:
    """Whether :func:`named` would find and read this prior. Each state of a file is read once: it is asked with every change."""
    try:
        path = _place(name)
        about = path.stat()
    except (MissingPrior, OSError):
        return False
    return _reads(path, about.st_mtime_ns, about.st_size)


@lru_cache(maxsize=16)
def _reads(path: Path, changed: int, size: int) -> bool:
    try:
        load(path)
    except MissingPrior:
        return False
    return True


def _place(name: str) -> Path:
    if not re.fullmatch(r"[a-z0-9-]{1,80}", name):
        raise MissingPrior("A prior's name has lower-case letters, digits and dashes only.")
    for folder in (CHECKPOINTS, cache_folder()):
        if (folder / f"{name}.safetensors").is_file():
            return folder / f"{name}.safetensors"
    raise MissingPrior(f"The prior '{name}' is not here. Choose another one, or upload its file again.")


def title_of(name: str) -> str:
    """What a person calls the prior of this name."""
    try:
        return str(named(name).card.get("title", name))[:80]
    except MissingPrior:
        return name


def adopt(data: bytes) -> str:
    """Put the file of a prior, given by a person, into the cache, and return its name. Raises MissingPrior when it is none."""
    if len(data) > MAX_FILE_BYTES:
        raise MissingPrior(f"This prior is larger than {MAX_FILE_BYTES >> 20} MiB, the most that is opened.")
    name = OWN + hashlib.sha256(data).hexdigest()[:32]
    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as place:
            path = Path(place) / "given.safetensors"
            path.write_bytes(data)
            load(path)
            os.replace(path, folder / f"{name}.safetensors")
        _make_room(folder)
    except OSError as error:
        raise MissingPrior(f"The prior could not be kept ({error.strerror or 'the disk refused'}).") from None
    return name


def remember(key: str, tensors: Mapping[str, torch.Tensor], card: Mapping[str, Any]) -> str | None:
    """Put a prior into the cache and make room for it. Returns None, or a sentence saying why it could not be kept."""
    folder = cache_folder()
    try:
        save(folder / f"{key}.safetensors", tensors, {**card, "key": key})
        _make_room(folder)
    except OSError as error:
        return f"The pre-trained network could not be kept for the next run ({error.strerror or 'the disk refused'})."
    return None


def cache_folder() -> Path:
    """``$NETPRIOR_CACHE``, else the user's cache folder."""
    named = os.environ.get("NETPRIOR_CACHE")
    if named:
        return Path(named)
    base = os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA") or os.path.expanduser("~/.cache")
    return Path(base) / "netprior" / "priors"


def shipped(folder: Path | None = None) -> dict[str, Path]:
    """Path of every readable shipped checkpoint by its key; headers are read once per state of the folder."""
    folder = CHECKPOINTS if folder is None else folder
    try:
        return _scan(folder, folder.stat().st_mtime_ns)
    except OSError:
        return {}


@lru_cache(maxsize=8)
def _scan(folder: Path, changed: int) -> dict[str, Path]:
    found = {}
    for path in sorted(folder.glob("*.safetensors")):
        with contextlib.suppress(MissingPrior), _opened(path) as file:
            key = _card(path, file.metadata()).get("key")
            if isinstance(key, str):
                found[key] = path
    return found


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        size = path.stat().st_size
    except OSError:
        raise MissingPrior(f"There is no prior at {path.name}: the file is missing.") from None
    if size > MAX_FILE_BYTES:
        raise MissingPrior(f"The prior {path.name} is larger than {MAX_FILE_BYTES >> 20} MiB, the most that is opened.")
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            yield file
    except (SafetensorError, OSError, ValueError):
        raise MissingPrior(f"The prior {path.name} is not a complete safetensors file: fetch it again.") from None


def _card(path: Path, metadata: Mapping[str, str] | None) -> dict[str, Any]:
    text = (metadata or {}).get("card", "")
    try:
        card = json.loads(text) if len(text) <= _HEADER_LIMIT else None
    except (json.JSONDecodeError, RecursionError):
        card = None
    if not isinstance(card, dict):
        raise MissingPrior(f"The prior {path.name} has no card: it says neither its network nor its training data.")
    shape, settings = card.get("shape", []), card.get("settings", {})
    if (
        not isinstance(shape, list)
        or not isinstance(settings, dict)
        or not all(_is_size(side) or isinstance(side, str) for side in shape)
    ):
        raise MissingPrior(f"The card of the prior {path.name} is damaged: its shape or its settings make no sense.")
    if not _is_size(settings.get("channels", 1)):
        raise MissingPrior(f"The card of the prior {path.name} is damaged: it has no sensible number of channels.")
    return card


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value <= MOST


def _used(path: Path) -> None:
    """The least recently used of the cache goes first when room is made."""
    if path.parent == cache_folder():
        with contextlib.suppress(OSError):
            os.utime(path)


def _make_room(folder: Path) -> None:
    """Delete the least recently used priors beyond MAX_CACHE_BYTES, those that a person gave after all that can be learned again.

    Published weights stay: they are few, and larger than what all others may fill.
    """
    kept = [path for path in folder.glob("*.safetensors") if not path.stem.startswith(GIVEN)]
    files = sorted(((p.stem.startswith(OWN), p.stat().st_mtime, p.stat().st_size, p) for p in kept), reverse=True)
    total = 0
    for _, _, size, path in files:
        total += size
        if total > MAX_CACHE_BYTES:
            path.unlink(missing_ok=True)
