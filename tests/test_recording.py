"""Recordings: written and read back, and zips that were damaged or made to do harm."""

from __future__ import annotations

import contextlib
import csv
import errno
import io
import json
import math
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from shared import dip, experiment_of

from netprior_core import recording
from netprior_core.errors import InvalidSettings
from netprior_core.experiment import Experiment, race_of
from netprior_core.frames import decode
from netprior_core.images import load_image, sha256_of
from netprior_core.race import Race
from netprior_core.recording import open_any, png, read, write, write_folder
from netprior_core.ui.session import App
from netprior_core.ui.wire import recording_message

Tiny = Callable[..., Experiment]


@pytest.fixture(scope="module")
def uploads() -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    pictures = [generator.integers(0, 256, shape, dtype=np.uint8) for shape in ((40, 50), (33, 33, 3))]
    return {sha256_of(pixels): pixels for pixels in pictures}


@pytest.fixture(scope="module")
def recorded(uploads: dict[str, np.ndarray]) -> tuple[Race, Experiment, bytes]:
    """A finished race on uploads and the zip of it."""
    target, shot = ({"source": "upload", "sha256": digest} for digest in uploads)
    experiment = experiment_of(target=target, shots={"source": "upload", "images": [shot]}, methods=[dip(15), {"kind": "adjoint"}])
    race = race_of(experiment, uploads).run()
    buffer = io.BytesIO()
    write(race, experiment, uploads, buffer)
    return race, experiment, buffer.getvalue()


def unpacked(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def repacked(files: Mapping[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


# -- there and back -----------------------------------------------------------------------------------------------------------


def test_what_was_written_is_what_is_read(recorded: tuple[Race, Experiment, bytes], uploads: dict[str, np.ndarray]) -> None:
    race, experiment, data = recorded
    back = read(data)
    assert back.experiment == experiment
    assert set(back.images) == set(uploads)
    for digest, pixels in uploads.items():
        np.testing.assert_array_equal(back.images[digest], pixels)
    assert len(back.lanes) == 2
    for lane, found in zip(race.lanes, back.lanes, strict=True):
        assert found.summary["method"] == lane.name
        assert found.summary["state"] == "finished"
        assert lane.result is not None
        assert found.summary["psnr"] == pytest.approx(lane.result.psnr)
        assert sorted(found.frames) == lane.frames.iterations()
        for iteration, frame in lane.frames.items():
            np.testing.assert_array_equal(decode(found.frames[iteration], grey=True), decode(frame, grey=True))
        assert found.metrics["iteration"] == lane.curve.iteration
        for column in ("psnr", "objective", "psnr_output"):
            assert found.metrics[column] == pytest.approx(getattr(lane.curve, column), rel=1e-5)
        residual = {i: v for i, _, v in lane.curve.residual}
        kept = {i: v for i, v in zip(found.metrics["iteration"], found.metrics["residual"], strict=True) if v is not None}
        assert kept == pytest.approx(residual, rel=1e-5)


def test_several_seeds_keep_their_band_and_map(tmp_path: Path) -> None:
    experiment = experiment_of(methods=[dip(15), {"kind": "adjoint"}], seeds=2)
    race = race_of(experiment, {}).run()
    write(race, experiment, {}, tmp_path / "run.zip")
    files = unpacked((tmp_path / "run.zip").read_bytes())
    message = recording_message(read((tmp_path / "run.zip").read_bytes()), "label")
    lane, found = race.lanes[0], message["curves"][0]
    assert found["low"] == pytest.approx([low for low, _ in lane.curve.spread], rel=1e-5)
    assert found["high"] == pytest.approx([high for _, high in lane.curve.spread], rel=1e-5)
    assert any(high > low for low, high in lane.curve.spread)
    assert lane.spread is not None
    picture = files[f"spread/{recording.slug(lane)}.png"]
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(picture))), lane.spread)
    assert message["lanes"][0]["spread"].startswith("data:image/png;base64,")

    table = list(csv.reader(io.StringIO(files["metrics.csv"].decode())))
    without = "\n".join(",".join(row[: len(recording.COLUMNS)]) for row in table)  # as written before there were bands
    old = repacked(
        {name: data for name, data in files.items() if not name.startswith("spread/")} | {"metrics.csv": without.encode()}
    )
    message = recording_message(read(old), "label")
    assert "low" not in message["curves"][0]
    assert "spread" not in message["lanes"][0]


def test_the_files_are_plain_and_named_as_documented(recorded: tuple[Race, Experiment, bytes]) -> None:
    race, experiment, data = recorded
    files = unpacked(data)
    assert json.loads(files["experiment.json"]) == experiment.model_dump(mode="json")
    rows = list(csv.DictReader(io.StringIO(files["metrics.csv"].decode())))
    assert len(rows) == sum(len(lane.curve.iteration) for lane in race.lanes)
    assert list(rows[0]) == [*recording.COLUMNS, *recording.SPREAD]
    summary = json.loads(files["summary.json"])
    assert summary["versions"]["torch"] == torch.__version__
    assert any("PSNR" in line for line in summary["conventions"])
    assert race.truth_picture is not None
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(files["truth.png"]))), race.truth_picture)
    for lane in race.lanes:
        assert lane.result is not None
        final = np.asarray(Image.open(io.BytesIO(files[f"final/{recording.slug(lane)}.png"])))
        np.testing.assert_array_equal(final, lane.result.pixels)
    assert load_image(files["contact.png"]).array.shape[1] > 300


def test_a_folder_holds_the_same_files(recorded: tuple[Race, Experiment, bytes], uploads: Any, tmp_path: Path) -> None:
    race, experiment, data = recorded
    write_folder(race, experiment, uploads, tmp_path / "new" / "out")
    found = {str(p.relative_to(tmp_path / "new" / "out")): p for p in (tmp_path / "new").rglob("*") if p.is_file()}
    files = unpacked(data)
    assert set(found) == set(files)
    assert all(found[name].read_bytes() == files[name] for name in files if name != "contact.png")


def test_the_zip_alone_repeats_the_run(recorded: tuple[Race, Experiment, bytes]) -> None:
    race, _, data = recorded
    back = read(data)
    again = race_of(back.experiment, back.images).run()
    assert again.lanes[0].curve.psnr == race.lanes[0].curve.psnr


def test_a_running_race_can_be_recorded(tiny: Tiny) -> None:
    experiment = tiny(methods=[dip(50)])
    race = race_of(experiment, {})
    for _ in range(4):
        race.turn()
    buffer = io.BytesIO()
    write(race, experiment, {}, buffer)
    race.close()
    back = read(buffer.getvalue())
    assert back.lanes[0].metrics["iteration"] == [1, 2, 3, 4]
    assert back.lanes[0].summary["state"] == "running"


def test_a_failed_race_can_be_recorded(tiny: Tiny) -> None:
    experiment = tiny(target={"source": "upload", "sha256": "ab" * 32})
    race = race_of(experiment, {}).run()
    buffer = io.BytesIO()
    write(race, experiment, {}, buffer)
    with pytest.raises(InvalidSettings, match="missing"):
        read(buffer.getvalue())


def test_a_bare_experiment_and_a_zip_are_told_apart(recorded: tuple[Race, Experiment, bytes]) -> None:
    _, experiment, data = recorded
    assert open_any(experiment.to_json().encode()).experiment == experiment
    assert open_any(experiment.to_json().encode()).lanes == []
    assert len(open_any(data).lanes) == 2


def test_the_message_of_a_recording_is_json_that_a_browser_reads(recorded: tuple[Race, Experiment, bytes]) -> None:
    race, _, data = recorded
    message = recording_message(read(data), "A recording.")
    json.dumps(message, allow_nan=False)
    assert message["type"] == "recording"
    assert [lane["name"] for lane in message["lanes"]] == [lane.name for lane in race.lanes]
    assert message["curves"][0]["psnr"] == pytest.approx(race.lanes[0].curve.psnr, rel=1e-5)
    assert {frame["iteration"] for frame in message["recorded"]["frames"] if frame["lane"] == 0} == set(
        race.lanes[0].frames.iterations()
    )
    assert message["strip"]["truth"]["src"].startswith("data:image/png;base64,")


# -- from strangers -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "../evil.png",
        "/etc/evil.png",
        "final/../../evil.png",
        "final\\..\\evil.png",
        "inputs/evil.png",
        "evil.pkl",
        "frames/0-a/1.py",
    ],
)
def test_members_with_other_names_are_ignored(recorded: tuple[Race, Experiment, bytes], name: str, tmp_path: Path) -> None:
    back = read(repacked({**unpacked(recorded[2]), name: b"evil"}))
    assert all(content != b"evil" for content in back.pictures.values())
    assert name not in back.pictures
    assert list(tmp_path.iterdir()) == []


def test_declared_sizes_are_believed_before_anything_is_unpacked(
    recorded: tuple[Race, Experiment, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    bomb = repacked({**unpacked(recorded[2]), "truth.png": bytes(3_000_000)})
    assert len(bomb) < 1_000_000
    monkeypatch.setattr(recording, "MAX_UNPACKED", 2_000_000)
    monkeypatch.setattr(zipfile.ZipFile, "read", lambda *_: pytest.fail("unpacked"))
    with pytest.raises(InvalidSettings, match="too much"):
        read(bomb)


def test_a_size_that_lies_does_not_unpack_more_than_it_says(recorded: tuple[Race, Experiment, bytes]) -> None:
    data = bytearray(repacked({"experiment.json": b" " * 5_000_000}))
    for signature, offset in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        at = data.find(signature) + offset
        data[at : at + 4] = (100).to_bytes(4, "little")
    with pytest.raises(InvalidSettings):
        read(bytes(data))


def test_too_many_members_and_too_many_bytes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidSettings, match="too much"):
        read(repacked({f"x{i}": b"" for i in range(recording.MAX_MEMBERS + 1)}, zipfile.ZIP_STORED))
    monkeypatch.setattr(recording, "MAX_ZIP_BYTES", 1000)
    with pytest.raises(InvalidSettings, match="larger than"):
        read(bytes(1001))


def test_a_picture_that_was_changed_is_noticed(recorded: tuple[Race, Experiment, bytes], uploads: dict[str, np.ndarray]) -> None:
    files = unpacked(recorded[2])
    name = f"inputs/{next(iter(uploads))}.png"
    for content in (png(np.zeros((40, 50), np.uint8)), b"no png", b"", png(np.zeros((1200, 1200), np.uint8))):
        with pytest.raises(InvalidSettings, match="checksum"):
            read(repacked({**files, name: content}))
    with pytest.raises(InvalidSettings, match="missing"):
        read(repacked({k: v for k, v in files.items() if k != name}))


def test_pictures_nobody_asked_for_are_not_decoded(
    recorded: tuple[Race, Experiment, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded = []
    monkeypatch.setattr(
        recording, "load_image", lambda content, **options: decoded.append(content) or load_image(content, **options)
    )
    extra = {f"inputs/{i:064x}.png": png(np.zeros((8, 8), np.uint8)) for i in range(50)}
    back = read(repacked({**unpacked(recorded[2]), **extra}))
    assert len(decoded) == 2
    assert len(back.images) == 2


DAMAGED: list[tuple[str, bytes]] = [
    ("metrics.csv", b"lane,method\n0,x\n"),
    ("metrics.csv", b"\xff\xfe\xfd"),
    ("metrics.csv", b"lane,method,iteration,seconds,psnr,psnr_output,objective,ssim,residual\n7,x,1,0,,,,,\n"),
    ("metrics.csv", b"lane,method,iteration,seconds,psnr,psnr_output,objective,ssim,residual\n-1,x,1,0,,,,,\n"),
    ("metrics.csv", b"lane,method,iteration,seconds,psnr,psnr_output,objective,ssim,residual\n0,x,nan,0,,,,,\n"),
    ("metrics.csv", b"lane,method,iteration,seconds,psnr,psnr_output,objective,ssim,residual\n0,x,1,,,,,,\n"),
    ("metrics.csv", b"lane,method,iteration,seconds,psnr,psnr_output,objective,ssim,residual\n0,x,1,0,high,,,,\n"),
    ("summary.json", b"{"),
    ("summary.json", b"[]"),
    ("summary.json", b'{"rows": 3}'),
    ("summary.json", b'{"rows": [1, 2]}'),
    ("summary.json", b"[" * 100_000),
    ("summary.json", b" " * (recording.MAX_SUMMARY + 1)),
    ("experiment.json", b"{}"),
    ("experiment.json", b"\xff"),
    ("experiment.json", b'{"format": "netprior-experiment", "version": 2}'),
]


@pytest.mark.parametrize(("name", "content"), DAMAGED, ids=lambda v: repr(v)[:30])
def test_damaged_files_are_said_to_be_damaged(recorded: tuple[Race, Experiment, bytes], name: str, content: bytes) -> None:
    with pytest.raises(InvalidSettings):
        read(repacked({**unpacked(recorded[2]), name: content}))


def test_a_zip_without_an_experiment_is_no_recording() -> None:
    with pytest.raises(InvalidSettings, match=r"experiment\.json"):
        read(repacked({"metrics.csv": b""}))


@pytest.mark.parametrize("compression", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_compressions_are_not_unpacked(recorded: tuple[Race, Experiment, bytes], compression: int) -> None:
    with pytest.raises(InvalidSettings):
        read(repacked(unpacked(recorded[2]), compression))


def test_a_hostile_summary_still_makes_a_message_that_can_be_sent(recorded: tuple[Race, Experiment, bytes]) -> None:
    row = {"method": "\ud800" * 500, "settings": {"a": 1}, "state": "<script>", "psnr": math.nan, "ssim": "0.9", "residual": 1e400}
    row |= {"returns": "x", "best_psnr": 99, "best_iteration": math.inf, "seconds": [], "message": 7, "surprise": "x" * 1000}
    files = {**unpacked(recorded[2]), "summary.json": json.dumps({"rows": [row] * 9, "operator": ["x"]}).encode()}
    table = b"lane,method,iteration,seconds,psnr,psnr_output,objective,ssim,residual\n0,x,1,0,nan,inf,-inf,nan,1e999\n"
    message = recording_message(read(repacked({**files, "metrics.csv": table})), "A recording.")
    json.dumps(message, allow_nan=False, ensure_ascii=False).encode()
    assert len(message["lanes"]) == 4
    lane = message["lanes"][0]
    assert lane["psnr"] is None
    assert lane["best"] is None
    assert lane["state"] == "finished"
    assert len(lane["name"]) <= 80
    assert message["strip"]["operator"]["caption"] == ""


def test_no_cut_and_no_changed_byte_crashes_the_reader(recorded: tuple[Race, Experiment, bytes]) -> None:
    data = recorded[2]
    files = {k: v for k, v in unpacked(data).items() if not k.startswith("frames/0") and k != "contact.png"}
    small = repacked(files)
    generator = np.random.default_rng(1)
    for at in generator.integers(0, len(small), 40):
        with pytest.raises(InvalidSettings):
            read(small[:at])
    directory = small.rfind(b"PK\x01\x02", 0, small.rfind(b"PK\x01\x02"))  # the sensitive part is the end
    places = np.concatenate([generator.integers(0, len(small), 150), generator.integers(directory, len(small), 150)])
    for at in places:
        changed = bytearray(small)
        changed[at] ^= 1 << int(generator.integers(0, 8))
        with contextlib.suppress(InvalidSettings):
            read(bytes(changed))


# -- a full disk --------------------------------------------------------------------------------------------------------------


class Full(io.FileIO):
    """A file on a disk with room for 5,000 bytes."""

    def write(self, data: Any) -> int:  # type: ignore[override]
        if self.tell() + len(data) > 5000:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().write(data) or 0


def test_a_full_disk_loses_nothing_of_the_race(
    recorded: tuple[Race, Experiment, bytes], uploads: dict[str, np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from netprior_core.ui import files

    race, experiment, _ = recorded
    before = [(lane.result, lane.frames.items(), list(lane.curve.psnr)) for lane in race.lanes]
    session = App(torch.device("cpu"), 64).session("tab")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(zipfile.io, "open", lambda path, mode: Full(path, mode.replace("b", "")))  # type: ignore[attr-defined]
    with pytest.raises(OSError, match="No space left"):
        files.save(session, race, experiment)
    monkeypatch.undo()
    assert [(lane.result, lane.frames.items(), list(lane.curve.psnr)) for lane in race.lanes] == before
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []  # half a zip would fill the disk further
    session.images.update(uploads)
    archive, sheet = files.save(session, race, experiment)
    assert len(read(Path(archive).read_bytes()).lanes) == 2
    assert Path(sheet).stat().st_size > 1000


def test_the_contact_sheet_s_axis_is_logarithmic_where_methods_end_far_apart() -> None:
    from matplotlib.figure import Figure

    from netprior_core.contact import _draw_curves

    scales = []
    for iterations in (3, 30):
        axes = Figure().add_subplot()
        _draw_curves(axes, race_of(experiment_of(methods=[dip(3), dip(iterations)]), {}).run())
        scales.append((axes.get_xscale(), axes.get_xlabel()))
    assert scales == [("linear", "iteration"), ("log", "iteration, log")]
