"""Recording: a finished (or running) race as one zip, and back.

::

    experiment.json                the run; ``python -m netprior_core run`` repeats it
    metrics.csv                    every iteration of every method
    summary.json                   scores, conventions, versions, machine
    frames/0-dip/000120.webp       kept frames, lossless, log-spaced
    final/0-dip.png  truth.png  measurement.png  contact.png
    spread/0-dip.png               standard deviation over the seeds, where there were several
    inputs/<sha256>.png  or .npy   the uploads that the experiment names
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import platform
import re
import struct
import zipfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, get_args

import numpy as np
import torch
from PIL import Image

import netprior_core
from netprior_core.arrays import dump_npy, load_npy
from netprior_core.errors import BadImage, InvalidSettings
from netprior_core.experiment import MAX_LANES, Experiment, parse, uploads_of
from netprior_core.images import load_image, sha256_of, to_uint8
from netprior_core.lane import Lane, LaneState
from netprior_core.metrics import CONVENTION, SSIM_CONVENTION
from netprior_core.race import Race, summary
from netprior_core.representation import Best
from netprior_core.settings import shortened

MAX_ZIP_BYTES = 128 * 1024 * 1024
MAX_UNPACKED = 256 * 1024 * 1024
MAX_MEMBERS = 4000
MAX_CSV = 32 * 1024 * 1024
MAX_SUMMARY = 1024 * 1024
MAX_ARRAY_VALUES = 4 * 1024 * 1024
MAX_ARRAY_BYTES = 16 * MAX_ARRAY_VALUES + 4096  # double precision complex numbers
MAX_PICTURE_PIXELS = 32 * 1024 * 1024  # a contact sheet of four methods is the largest
MAX_INPUT_PIXELS = 1024 * 1024  # uploads are reduced to this before they are kept
COLUMNS = ("lane", "method", "iteration", "seconds", "psnr", "psnr_output", "objective", "ssim", "residual")
#: Over the seeds of a method, where there were several: columns that files from before do not have.
SPREAD = ("psnr_least", "psnr_most")
_MEMBER = re.compile(
    r"^(experiment\.json|metrics\.csv|summary\.json|truth\.png|measurement\.png|contact\.png"
    r"|frames/\d-[a-z0-9-]{1,60}/\d{6,8}\.webp|(final|spread)/\d-[a-z0-9-]{1,60}\.png|inputs/[0-9a-f]{64}\.(png|npy))$"
)


@dataclass
class RecordedLane:
    """One lane read back: scores by column name, and kept frames by iteration (lossless WebP)."""

    summary: dict[str, Any]
    metrics: dict[str, list[float | None]] = field(default_factory=lambda: {c: [] for c in (*COLUMNS[2:], *SPREAD)})
    frames: dict[int, bytes] = field(default_factory=dict)
    spread: bytes | None = None  # PNG


@dataclass
class Recording:
    """A recording read back from a zip."""

    experiment: Experiment
    images: dict[str, np.ndarray]
    lanes: list[RecordedLane]
    summary: dict[str, Any]
    pictures: dict[str, bytes]


def slug(lane: Lane) -> str:
    """A file-safe name of a lane: ``0-dip``."""
    return _named(lane.index, lane.name)


def _named(index: int, title: str) -> str:
    return f"{index}-" + (re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")[:60] or "method")


def write(
    race: Race, experiment: Experiment, images: Mapping[str, np.ndarray], target: Path | BinaryIO, best: Sequence[Best] = ()
) -> None:
    """Write a race as a zip, with the best that its priors could do where that was searched.

    Raises OSError when the disk is full; nothing of the race is lost then, and no half file stays.
    """
    try:
        with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
            for name, data in members(race, experiment, images, best):
                small = name.endswith((".json", ".csv"))
                archive.writestr(name, data, compress_type=zipfile.ZIP_DEFLATED if small else zipfile.ZIP_STORED)
    except OSError:
        if isinstance(target, Path):
            target.unlink(missing_ok=True)  # half a zip is of no use, and the disk may be full
        raise


def write_folder(race: Race, experiment: Experiment, images: Mapping[str, np.ndarray], folder: Path) -> None:
    """Write the same files into a folder (made if needed)."""
    for name, data in members(race, experiment, images):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def members(
    race: Race, experiment: Experiment, images: Mapping[str, np.ndarray], best: Sequence[Best] = ()
) -> Iterable[tuple[str, bytes]]:
    """The files of a recording, one after another, as (name, content)."""
    yield "experiment.json", experiment.to_json().encode()
    yield "summary.json", json.dumps(_summary(race, best), indent=1, ensure_ascii=False).encode()
    yield "metrics.csv", _csv(race).encode()
    for name, pixels in (("truth.png", race.truth_picture), ("measurement.png", race.measurement_picture)):
        if pixels is not None:
            yield name, png(pixels)
    for lane in race.lanes:
        if lane.result is not None:
            yield f"final/{slug(lane)}.png", png(lane.result.pixels)
        if lane.spread is not None:
            yield f"spread/{slug(lane)}.png", png(lane.spread)
        for iteration, frame in lane.frames.items():
            yield f"frames/{slug(lane)}/{iteration:06d}.webp", frame
    for index, found in enumerate(best):
        yield f"best-possible/{_named(index, found.title)}.png", png(found.pixels)
    from netprior_core.contact import contact_sheet  # matplotlib takes a second to import and is not needed before

    yield "contact.png", contact_sheet(race, experiment, best)
    for sha256 in sorted(uploads_of(experiment)):
        if sha256 in images:
            upload = images[sha256]
            yield (f"inputs/{sha256}.png", png(upload)) if upload.dtype == np.uint8 else (f"inputs/{sha256}.npy", dump_npy(upload))


def read(data: bytes) -> Recording:
    """A recording from the bytes of a zip. Raises InvalidSettings for anything that is not one; unpacks into memory only."""
    if len(data) > MAX_ZIP_BYTES:
        raise InvalidSettings(f"This file is larger than {MAX_ZIP_BYTES >> 20} MB: it is not a recording that NetPrior wrote.")
    try:
        archive = zipfile.ZipFile(io.BytesIO(data))
        infos = archive.infolist()
        if len(infos) > MAX_MEMBERS or sum(info.file_size for info in infos) > MAX_UNPACKED:
            raise InvalidSettings("This zip holds too much to be a recording that NetPrior wrote.")
        files = {info.filename: archive.read(info) for info in infos if _MEMBER.match(info.filename) and _plain(info)}
    except InvalidSettings:
        raise
    except (zipfile.BadZipFile, zlib.error, struct.error, LookupError, RuntimeError, EOFError, OSError, ValueError):
        raise InvalidSettings("This is not a zip, or it is damaged.") from None
    if "experiment.json" not in files:
        raise InvalidSettings("This zip holds no experiment.json: it is not a recording that NetPrior wrote.")
    experiment = parse(files["experiment.json"])
    summary = _read_json(files)
    for name, content in files.items():
        if name.endswith((".png", ".webp")) and not name.startswith("inputs/"):
            _check_picture(name, content)
    pictures = {name: content for name, content in files.items() if name.endswith(".png")}
    return Recording(experiment, _read_inputs(files, experiment), _read_lanes(files, summary), summary, pictures)


def _check_picture(name: str, content: bytes) -> None:
    """Raises InvalidSettings for a picture that is none, or too large for a browser to be given; reads its header alone."""
    try:
        with Image.open(io.BytesIO(content), formats=("PNG", "WEBP")) as picture:
            fits = picture.width * picture.height <= MAX_PICTURE_PIXELS
    except (OSError, ValueError, Image.DecompressionBombError):
        fits = False
    if not fits:
        raise InvalidSettings(f"The picture {name} of this recording is damaged or too large.")


def open_any(data: bytes) -> Recording:
    """A zip or a bare experiment.json, told apart by their first bytes."""
    if data[:4] == b"PK\x03\x04":
        return read(data)
    return Recording(parse(data), {}, [], {}, {})


def png(pixels: np.ndarray) -> bytes:
    """8-bit pixels as PNG."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def to_pixels(array: np.ndarray) -> np.ndarray:
    """Float ``(H, W, C)`` in [0, 1] as 8-bit pixels ``(H, W)`` or ``(H, W, 3)``."""
    return to_uint8(torch.from_numpy(np.ascontiguousarray(array)).permute(2, 0, 1))


def _summary(race: Race, best: Sequence[Best]) -> dict[str, Any]:
    rows = [{"prior": one.title, "psnr": one.psnr, "ssim": one.ssim, "steps": one.steps} for one in best]
    return {
        "state": race.state,
        "operator": race.description,
        "rows": summary(race),
        **({"best_possible": rows, "best_possible_note": "searched with the truth in sight, which no method is"} if rows else {}),
        "conventions": [CONVENTION, SSIM_CONVENTION, "residual: ‖A x̂ - y‖ / √m, in units of the measurement"],
        "versions": {
            "netprior": netprior_core.__version__,
            "torch": torch.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
        "machine": {"processor": platform.machine(), "threads": torch.get_num_threads()},
    }


def _csv(race: Race) -> str:
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(COLUMNS + SPREAD)
    for lane in race.lanes:
        curve = lane.curve
        ssim = {i: v for i, _, v in curve.ssim}
        residual = {i: v for i, _, v in curve.residual}
        columns = zip(curve.iteration, curve.seconds, curve.psnr, curve.psnr_output, curve.objective, strict=False)
        for k, (i, seconds, *values) in enumerate(columns):
            numbers = [f"{seconds:.4f}", *(_number(v) for v in (*values, ssim.get(i), residual.get(i)))]
            between = [_number(v) for v in curve.spread[k]] if curve.spread else ["", ""]
            writer.writerow([lane.index, lane.name, i, *numbers, *between])
    return out.getvalue()


def _number(value: float | None) -> str:
    return "" if value is None or value != value else f"{value:.6g}"


def _plain(info: zipfile.ZipInfo) -> bool:
    """Whether a member is packed the way NetPrior packs: no encryption, no compression that inflates beyond what it declares."""
    return info.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) and not info.flag_bits & 1


def _read_inputs(files: Mapping[str, bytes], experiment: Experiment) -> dict[str, np.ndarray]:
    """The uploads that the experiment names, each checked against its digest; others are not even decoded."""
    images = {}
    for sha256 in uploads_of(experiment):
        upload = None
        with contextlib.suppress(BadImage, InvalidSettings):
            if content := files.get(f"inputs/{sha256}.png"):
                upload = to_pixels(load_image(content, max_pixels=MAX_INPUT_PIXELS, min_side=1).array)
            elif content := files.get(f"inputs/{sha256}.npy"):
                upload = load_npy(content, name="a measurement", max_bytes=MAX_ARRAY_BYTES, max_values=MAX_ARRAY_VALUES)
        if upload is None or sha256_of(upload) != sha256:
            raise InvalidSettings("An uploaded file of this recording is missing or was changed: its checksum does not fit.")
        images[sha256] = upload
    return images


def _read_json(files: Mapping[str, bytes]) -> dict[str, Any]:
    """summary.json with its rows checked. Raises InvalidSettings when it is damaged; without one there are no lanes."""
    content = files.get("summary.json", b"{}")
    damaged = InvalidSettings("summary.json of this recording is damaged.")
    if len(content) > MAX_SUMMARY:
        raise damaged
    try:
        found = json.loads(content, parse_constant=lambda _: None)
    except (ValueError, RecursionError):
        raise damaged from None
    rows = found.get("rows", []) if isinstance(found, dict) else None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise damaged
    operator = found.get("operator")
    return {"operator": _text(operator, 300), "rows": [_row(row) for row in rows[:MAX_LANES]]}


def _row(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of the summary, every value of the kind that :func:`race.summary` writes, whatever the file said."""
    found: dict[str, Any] = {key: _text(row.get(key), 80) for key in ("method", "settings")}
    found["message"] = _text(row.get("message"), 300)
    found["state"] = row["state"] if row.get("state") in get_args(LaneState) else "finished"
    for key in ("psnr", "ssim", "residual", "best_psnr", "prepare_seconds", "seconds"):
        found[key] = _finite(row.get(key))
    for key in ("returns", "best_iteration", "iterations"):
        found[key] = _whole(row.get(key))
    if found["best_iteration"] is None:
        found["best_psnr"] = None
    stops = row.get("stops")
    found["stops"] = [_stop(stop) for stop in (stops if isinstance(stops, list) else [])[:8] if isinstance(stop, dict)]
    return found


def _stop(stop: Mapping[str, Any]) -> dict[str, Any]:
    """Where a stopping rule stood."""
    whole = {key: _whole(stop.get(key)) for key in ("iteration", "fired")}
    return {"rule": _text(stop.get("rule"), 40), **whole, "psnr": _finite(stop.get("psnr"))}


def _text(value: Any, limit: int) -> str:
    return shortened(value, limit) if isinstance(value, str) else ""


def _finite(value: Any) -> float | None:
    """A number that JSON can carry, else None."""
    good = isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e15
    return float(value) if good else None


def _whole(value: Any) -> int | None:
    number = _finite(value)
    return None if number is None else int(number)


def _read_lanes(files: Mapping[str, bytes], summary: Mapping[str, Any]) -> list[RecordedLane]:
    lanes = [RecordedLane(row) for row in summary["rows"]]
    content = files.get("metrics.csv", b"")
    try:
        if len(content) > MAX_CSV:
            raise ValueError
        rows = csv.reader(io.StringIO(content.decode()))
        place = {name: i for i, name in enumerate(next(rows, COLUMNS))}
        known, of_lane = dict(enumerate(lanes)), place["lane"]
        columns = [(name, place[name]) for name in (*COLUMNS[2:], *SPREAD) if name not in SPREAD or name in place]
        absent = [name for name in SPREAD if name not in place]
        for row in rows:
            metrics = known[int(row[of_lane])].metrics  # a negative number is no lane
            for name, i in columns:
                metrics[name].append(_finite(float(row[i])) if row[i] else None)
            for name in absent:
                metrics[name].append(None)
            if metrics["iteration"][-1] is None or metrics["seconds"][-1] is None:
                raise ValueError
    except (ValueError, KeyError, IndexError, TypeError, csv.Error):
        raise InvalidSettings("metrics.csv of this recording is damaged.") from None
    for name, content in files.items():
        if name.startswith("frames/") and int(name[7]) < len(lanes):
            lanes[int(name[7])].frames[int(Path(name).stem)] = content
        if name.startswith("spread/") and int(name[7]) < len(lanes):
            lanes[int(name[7])].spread = content
    return lanes
