"""Files of a tab: uploads in, masks, recordings out. Only paths that the server itself made are opened."""

from __future__ import annotations

import base64
import io
import shutil
import zipfile
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from netprior_core import examples, priors
from netprior_core.arrays import encode, load_npy
from netprior_core.errors import BadImage, InvalidSettings, NetPriorError
from netprior_core.experiment import MAX_SHOTS, Experiment, UploadedArray, UploadedImage, target_image
from netprior_core.frames import picture_of
from netprior_core.images import read_upload, sha256_of
from netprior_core.networks import drunet_weights
from netprior_core.race import Race
from netprior_core.recording import (
    MAX_ARRAY_BYTES,
    MAX_ARRAY_VALUES,
    MAX_ZIP_BYTES,
    Recording,
    open_any,
    png,
    read,
    to_pixels,
    write,
)
from netprior_core.representation import Best
from netprior_core.ui.say import inform, warn
from netprior_core.ui.session import Session
from netprior_core.ui.setup import reduced
from netprior_core.ui.wire import recording_message

ASSETS = Path(__file__).resolve().parents[2] / "assets"
FIRST_VISIT = ASSETS / "first_visit.zip"
MAX_SETTING_BYTES = 140 * 1024  # what fits the text of a setting


def take(session: Session, paths: list[str]) -> list[UploadedImage]:
    """Read uploads into the session. What cannot be used is reported by name with the reason; the rest is kept."""
    taken = []
    for path in paths[:MAX_SHOTS]:
        name = Path(path).name[:80]
        try:
            picture = read_upload(path)
        except BadImage as error:
            warn(str(error), duration=20)
            continue
        if picture.notes:
            inform(f"{name}: {', '.join(picture.notes)}.")
        pixels = to_pixels(reduced(picture.array))
        digest = sha256_of(pixels)
        session.keep(digest, pixels)
        taken.append(UploadedImage(sha256=digest, name=name))
    if len(paths) > MAX_SHOTS:
        warn(f"At most {MAX_SHOTS} examples are used; the first {MAX_SHOTS} were taken.")
    return taken


def take_target(session: Session, path: str) -> UploadedImage | UploadedArray | None:
    """Read an uploaded target: a picture, or a measurement as numbers (.npy). None, with a warning, when it cannot be used."""
    if Path(path).suffix.lower() != ".npy":
        return next(iter(take(session, [path])), None)
    name = Path(path).name[:80]
    try:
        array = load_npy(_bytes(path, MAX_ARRAY_BYTES), name=name, max_bytes=MAX_ARRAY_BYTES, max_values=MAX_ARRAY_VALUES)
    except InvalidSettings as error:
        warn(str(error), duration=20)
        return None
    if not np.iscomplexobj(array):
        array = array.astype(np.float32)
    digest = sha256_of(array)
    session.keep(digest, array)
    return UploadedArray(sha256=digest, name=name)


def text_of(path: str, widget: str) -> str:
    """An uploaded .npy or .png as the text of a setting. Raises InvalidSettings when it is too large or not readable.

    Of a "pattern" only what is not zero matters: it is kept as bits, which a picture of any size has room for.
    """
    data = _bytes(path, MAX_ARRAY_BYTES if widget == "pattern" else MAX_SETTING_BYTES)
    if widget == "pattern" and data[:6] == b"\x93NUMPY":
        name = Path(path).name[:80]
        return encode(load_npy(data, name=name, max_bytes=MAX_ARRAY_BYTES, max_values=MAX_ARRAY_VALUES) != 0)
    if len(data) > MAX_SETTING_BYTES:
        raise InvalidSettings(f"{Path(path).name[:80]} is too large: at most {MAX_SETTING_BYTES >> 10} KB can be used here.")
    return base64.b64encode(data).decode()


def _bytes(path: str, limit: int) -> bytes:
    file = Path(path)
    if file.stat().st_size > limit:
        raise InvalidSettings(f"{file.name[:80]} is larger than {limit / 2**20:.2g} MB, which is the most that can be used here.")
    return file.read_bytes()


def adopt_prior(path: str) -> str:
    """The name of an uploaded prior, kept for this and later runs. Raises MissingPrior when it is none."""
    return priors.adopt(_bytes(path, priors.MAX_FILE_BYTES))


def adopt_weights(path: str) -> str:
    """Keep uploaded weights of the published DRUNet for this and later runs; "colour" or "grey". Raises MissingPrior.

    Weights that are here stay: whoever else uses this server races with them.
    """
    name = drunet_weights.adopt_file(Path(path), replace=False)
    return next(drunet_weights.COLOURS[channels] for channels, known in drunet_weights.KEPT.items() if known == name)


def priors_of(session: Session, race: Race) -> list[str]:
    """The priors that a run learned from its examples, or found learned before, as files to download. Raises OSError."""
    return prior_copies(session, [(lane.prior, f"prior-{lane.index + 1}") for lane in race.lanes if lane.prior])


def prior_copies(session: Session, named: Iterable[tuple[str, str]]) -> list[str]:
    """Paths of copies of priors, each under the name of its own that is given with it; those that are gone are left out."""
    found = []
    for prior, name in named:
        if (kept := priors.where(prior)) is not None:
            target = session.scratch() / f"{name}.safetensors"
            shutil.copyfile(kept, target)
            found.append(str(target))
    return found


def mask_of(value: Any, size: int) -> str | None:
    """What was drawn in the editor as a base64 PNG, white where pixels are to be hidden; None when nothing can be read."""
    if not isinstance(value, dict):
        return None
    layers = [np.asarray(layer)[..., 3] for layer in value.get("layers") or [] if layer is not None]
    painted = np.max(layers, axis=0) if layers else None
    if painted is None or min(painted.shape) < size:
        return None
    rows = (np.arange(size) * 2 + 1) * painted.shape[0] // (2 * size)  # centres of the image's pixels in the enlarged drawing
    columns = (np.arange(size) * 2 + 1) * painted.shape[1] // (2 * size)
    hidden = painted[np.ix_(rows, columns)] > 127
    return base64.b64encode(png((hidden * 255).astype(np.uint8))).decode()


def editor_background(experiment: Experiment) -> dict[str, Any] | None:
    """The target, enlarged, for the mask editor; embedded targets only (an upload is drawn on as a blank)."""
    side = experiment.size * max(1, 256 // experiment.size)
    if experiment.target.source == "embedded":
        pixels = picture_of(target_image(experiment, {}))
        pixels = np.repeat(np.repeat(pixels, side // experiment.size, 0), side // experiment.size, 1)
        colour = pixels if pixels.ndim == 3 else np.repeat(pixels[..., None], 3, 2)
    else:
        colour = np.full((side, side, 3), 128, np.uint8)
    background = np.concatenate([colour, np.full((*colour.shape[:2], 1), 255, np.uint8)], 2)
    return {"background": background, "layers": [], "composite": background}


def open_recording(path: str) -> Recording:
    """An uploaded experiment.json or zip. Raises NetPriorError with words for a person."""
    file = Path(path)
    if file.stat().st_size > MAX_ZIP_BYTES:
        raise InvalidSettings(f"This file is larger than {MAX_ZIP_BYTES >> 20} MB: it is not one that NetPrior wrote.")
    return open_any(file.read_bytes())


def save(session: Session, race: Race, experiment: Experiment, best: Sequence[Best] = ()) -> tuple[str, str]:
    """Write the zip and the contact sheet of a run for download, with the best its priors could do. Raises OSError: disk full."""
    folder = session.scratch()
    for old in folder.iterdir():
        old.unlink(missing_ok=True)
    archive = folder / f"netprior-{experiment.operator.kind}-{session.run[:6]}.zip"
    write(race, experiment, session.images, archive, best)
    sheet = folder / "contact.png"
    with zipfile.ZipFile(archive) as made:
        sheet.write_bytes(made.read(sheet.name))
    return str(archive), str(sheet)


@cache
def recorded(path: Path) -> dict[str, Any] | None:
    """A recorded race as a message, or None when its file is missing or damaged."""
    try:
        found = read(path.read_bytes())
        return recording_message(found, "A recorded race. Scrub through it, or press Run for a live one.")
    except (OSError, NetPriorError):
        return None


@cache
def thumbnail(key: str) -> Image.Image:
    """The picture of an embedded set for the gallery."""
    return Image.open(io.BytesIO(examples.thumbnail(key))).convert("RGB")
