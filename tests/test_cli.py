"""The command line: what it lists, that a run gives the browser's numbers, and how it says no."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from shared import dip

from netprior_core import link, tuning
from netprior_core.__main__ import main
from netprior_core.experiment import TUNED, Experiment, race_of
from netprior_core.methods import Method
from netprior_core.operators import Operator
from netprior_core.race import summary
from netprior_core.recording import read

Tiny = Callable[..., Experiment]
Output = pytest.CaptureFixture[str]


def test_list_names_every_method_operator_and_set(capsys: Output) -> None:
    assert main(["list"]) == 0
    out = capsys.readouterr().out
    for cls in (*Method.registry, *Operator.registry):
        assert cls.title in out
        assert cls.model_fields["kind"].default in out
    assert "faces" in out
    assert "coins" in out


@pytest.mark.parametrize("kind", ["dip", "compressed-sensing"])
def test_list_shows_the_settings_of_one(capsys: Output, kind: str) -> None:
    assert main(["list", kind]) == 0
    out = capsys.readouterr().out
    cls = next(c for c in (*Method.registry, *Operator.registry) if c.model_fields["kind"].default == kind)
    for field in cls.fields():
        assert f"  {field.name} = {field.default!r}" in out
    for name in cls.presets:
        assert f"preset '{name}'" in out


def test_list_of_what_is_not_there(capsys: Output) -> None:
    assert main(["list", "magic"]) == 2
    assert "no method or operator called 'magic'" in capsys.readouterr().err


def test_a_run_gives_the_numbers_of_a_race_and_records_them(tiny: Tiny, tmp_path: Path, capsys: Output) -> None:
    experiment = tiny(methods=[dip(8), {"kind": "adjoint"}])
    file, out = tmp_path / "experiment.json", tmp_path / "new" / "run.zip"
    file.write_text(experiment.to_json())
    assert main(["run", str(file), "--out", str(out), "--device", "cpu"]) == 0
    race = race_of(experiment, {}).run()
    back = read(out.read_bytes())
    assert back.experiment == experiment
    for lane, row, found in zip(race.lanes, summary(race), back.lanes, strict=True):
        assert found.summary["psnr"] == row["psnr"]
        assert found.summary["best_psnr"] == row["best_psnr"]
        assert found.metrics["psnr"] == pytest.approx(lane.curve.psnr, rel=1e-5)
        assert dict(lane.frames.items()) == found.frames
        assert f"{row['psnr']:.2f} dB" in capsys.readouterr().out or lane.index
    # the zip is an experiment too
    assert main(["run", str(out), "--out", str(tmp_path / "folder"), "--device", "cpu"]) == 0
    assert json.loads((tmp_path / "folder" / "summary.json").read_text())["rows"][0]["psnr"] == summary(race)[0]["psnr"]


def test_tuning_on_the_image_is_recorded_as_such(
    tiny: Tiny, tmp_path: Path, capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tuning, "ROUNDS", (1.0,))
    file, out = tmp_path / "experiment.json", tmp_path / "run.zip"
    experiment = tiny(size=16, methods=[{"kind": "adjoint"}, {"kind": "tv", "weight": 3.0, "iterations": 20}])
    file.write_text(experiment.to_json())
    assert main(["run", str(file), "--tune", "--out", str(out), "--device", "cpu"]) == 0
    said = capsys.readouterr().out
    back = read(out.read_bytes())
    assert said.count(TUNED) == 1
    assert back.experiment.methods[0] == experiment.methods[0]
    assert back.lanes[1].summary["settings"].startswith(TUNED)
    assert f"{back.lanes[1].summary['psnr']:.2f} dB on this image, weight λ 0.333" in said
    file.write_text(tiny().to_json())
    assert main(["run", str(file), "--tune", "--device", "cpu"]) == 2
    assert "DIP is not tuned" in capsys.readouterr().err


def test_a_link_of_the_app_can_be_run(tiny: Tiny, capsys: Output) -> None:
    experiment = tiny(methods=[{"kind": "adjoint"}])
    assert main(["run", f"http://127.0.0.1:7860/?x={link.encode(experiment)}&__theme=dark", "--device", "cpu"]) == 0
    assert f"{summary(race_of(experiment, {}).run())[0]['psnr']:.2f} dB" in capsys.readouterr().out
    assert main(["run", "http://127.0.0.1:7860/?x=broken"]) == 2
    assert "This link is damaged" in capsys.readouterr().err


def test_a_run_in_which_a_lane_is_refused_says_so_and_is_not_a_success(tiny: Tiny, tmp_path: Path, capsys: Output) -> None:
    file = tmp_path / "experiment.json"
    file.write_text(tiny(methods=[{"kind": "bicubic"}, {"kind": "adjoint"}]).to_json())
    assert main(["run", str(file), "--device", "cpu"]) == 1
    out = capsys.readouterr().out
    assert "refused" in out
    assert "super-resolution" in out
    assert "finished" in out


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"{}", "not an experiment file"),
        (b"PK\x03\x04 not really", "damaged"),
        (b'{"format": "netprior-experiment", "version": 9}', "newer NetPrior"),
        (b"\xff\xfe", "not an experiment file"),
        (None, "cannot be read"),
    ],
)
def test_a_bad_file_is_a_sentence_and_exit_code_2(tmp_path: Path, capsys: Output, content: bytes | None, words: str) -> None:
    file = tmp_path / "experiment.json"
    if content is not None:
        file.write_bytes(content)
    assert main(["run", str(file)]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("netprior: ")
    assert words in captured.err
    assert "Traceback" not in captured.err


def test_an_experiment_with_uploads_needs_its_zip(tiny: Tiny, tmp_path: Path, capsys: Output) -> None:
    file = tmp_path / "experiment.json"
    file.write_text(tiny(target={"source": "upload", "sha256": "ab" * 32, "name": "cat.png"}).to_json())
    assert main(["run", str(file), "--device", "cpu"]) == 2
    assert "cat.png" in capsys.readouterr().err


def test_a_device_that_is_not_here_is_a_sentence(tiny: Tiny, tmp_path: Path, capsys: Output) -> None:
    file = tmp_path / "experiment.json"
    file.write_text(tiny().to_json())
    assert main(["run", str(file), "--device", "abacus"]) == 2
    assert "abacus" in capsys.readouterr().err


def test_an_output_that_cannot_be_written_is_a_sentence(tiny: Tiny, tmp_path: Path, capsys: Output) -> None:
    file = tmp_path / "experiment.json"
    file.write_text(tiny(methods=[{"kind": "adjoint"}]).to_json())
    for out in (file / "run.zip", file / "folder"):
        assert main(["run", str(file), "--device", "cpu", "--out", str(out)]) == 2
        assert "could not be written" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words", [[], ["dance"], ["run"], ["run", "x", "--seeds", "0"], ["run", "x", "--seeds", "many"], ["bench"], ["bench", "x"]]
)
def test_unknown_commands_and_options_show_the_usage(words: list[str], capsys: Output) -> None:
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == 2
    assert "usage:" in capsys.readouterr().err
