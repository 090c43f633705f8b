"""The bench of generative priors: one A for all methods, rows that stay, and what its figures are said to mean."""

from __future__ import annotations

import argparse
import gzip
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from netprior_core import generators, priors
from netprior_core.bench import Report, _generative, generative
from netprior_core.errors import InvalidSettings
from netprior_core.methods._shots import build
from netprior_core.networks.seeded import seeded
from netprior_core.operators import Operator


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Digits, and an untrained generator of them."""
    monkeypatch.setattr(priors, "CHECKPOINTS", tmp_path / "none")
    monkeypatch.setenv("NETPRIOR_CACHE", "mine")
    network = seeded(lambda: build((1, 28, 28), 8, 4), 0, scheme="dcgan")
    card = {"network": "DCGAN", "title": "Tiny", "shape": [1, 28, 28], "settings": {"channels": 4}}
    card["key"] = generators.generator_key((1, 28, 28))
    tensors = {f"network.{name}": value for name, value in network.state_dict().items()}
    priors.save(tmp_path / "gan-mnist.safetensors", tensors, card)
    (tmp_path / "mnist").mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, 100 * 784, dtype=np.uint8)
    header = np.array([2051, 100, 28, 28], dtype=">u4").tobytes()
    (tmp_path / "mnist" / "t10k-images-idx3-ubyte.gz").write_bytes(gzip.compress(header + pixels.tobytes()))
    return tmp_path


def _run(folder: Path, report: Report, *words: str) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    generative.add_arguments(parser)
    common = ["--quick", "--device", "cpu", "--data", str(folder), "--generators", str(folder), "--priors", str(folder)]
    generative.run(parser.parse_args([*common, *words]), report)


def test_parts_without_their_generator_are_left_out_and_rows_stay(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = folder / "rows.json"
    report = Report("generative", {}, path)
    _run(folder, report, "--parts", "isometry", "restarts", "designed", "digits")
    assert "no trained generator" in capsys.readouterr().out
    methods = [row["method"] for row in report.rows if row.get("part") == "digits" and "image" in row]
    assert methods == ["CSGM", "PGDGAN", "IAGAN", "CS-DIP"]  # no projector: NPGD is left out
    assert {row["matrix"] for row in report.rows if row.get("part") == "isometry"} == {"random", "designed"}
    again = Report("generative", {}, path)
    _run(folder, again, "--parts", "digits", "--methods", "csgm")
    assert [row for row in again.rows if row.get("method") == "CSGM" and "image" in row] == [
        row for row in report.rows if row.get("method") == "CSGM" and "image" in row
    ]
    assert len([key for key in again.known() if key.startswith("restarts")]) == 1
    assert os.environ["NETPRIOR_CACHE"] == "mine"
    with pytest.raises(InvalidSettings, match="CSGM"):
        _run(folder, again, "--parts", "digits", "--methods", "magic")


def test_one_measurement_for_every_method_without_noise() -> None:
    truth = torch.rand((1, 1, 28, 28), generator=torch.Generator().manual_seed(0))
    operator = Operator.registry["compressed-sensing"](count=50)
    a, b, c = (_generative.problem_of(operator, truth, seed) for seed in (1, 1, 2))
    assert torch.equal(a.measurement, b.measurement)
    assert not torch.equal(a.measurement, c.measurement)
    torch.testing.assert_close(a.measurement, a.model.forward(truth))


def _row(part: str, method: str, m: int, psnr: float, seconds: float, **more: Any) -> dict[str, Any]:
    return {"part": part, "method": method, "m": m, "psnr": psnr, "seconds": seconds, "image": 0, **more}


def test_rows_of_networks_that_were_trained_on_do_not_count() -> None:
    rows = [
        _row("faces", "NPGD, projection", 200, 10.0, 1.0, stamp="old"),
        _row("faces", "NPGD, projection", 500, 12.0, 1.0, stamp="old"),  # not run again yet
        _row("faces", "NPGD, projection", 200, 20.0, 1.0, stamp="new"),
    ]
    (found,) = _generative.means({str(i): row for i, row in enumerate(rows)})
    assert (found["m 200"], found["m 500"], found["images"]) == (20.0, 12.0, 1)


def test_few_digits_are_the_first_of_many(folder: Path) -> None:
    def numbers(count: int) -> list[int]:
        options = argparse.Namespace(quick=False, images=count, data=folder)
        return [number for number, _ in generative._truths(options, "digits", torch.device("cpu"))]

    assert numbers(3) == numbers(20)[:3] == [0, 5, 10]
    assert len(set(numbers(20))) == 20


def test_conclusions_compare_on_the_same_images() -> None:
    rows = [
        _row("faces", "CSGM", 200, 20.0, 50.0),
        _row("faces", "NPGD, safeguarded", 200, 20.5, 1.0),
        _row("faces", "NPGD, projection", 200, 17.0, 1.0),
        _row("faces", "IAGAN", 200, 21.0, 60.0),
        _row("faces", "IAGAN", 200, 99.0, 60.0, image=1),  # CSGM was not run on it
        _row("designed", "CSGM", 50, 15.0, 1.0, matrix="random"),
        _row("designed", "CSGM", 50, 18.0, 1.0, matrix="designed"),
        {"part": "restarts", "set": "faces", "restarts": 8, "share": 0.3},
    ]
    known = {str(i): row for i, row in enumerate(rows)}
    said = "\n".join(_generative.conclusions(known))
    assert "NPGD, safeguarded: 50 × as fast as CSGM, +0.50 dB. Goal 40 ×, equal: reached" in said
    assert "NPGD, projection: 50 × as fast as CSGM, -3.00 dB. Goal 40 ×, equal: not reached" in said
    assert "IAGAN − CSGM: +1.00 dB" in said
    assert "m = 50: +3.00" in said
    assert "0.30 of the time" in said
    table = {(row["part"], row["method"]): row for row in _generative.means(known)}
    assert table["faces", "IAGAN"]["m 200"] == 60.0
    assert table["faces", "IAGAN"]["images"] == 2


def test_how_many_designed_rows_do_what_more_random_ones_do() -> None:
    found = {"random": {50: 15.0, 100: 18.0, 200: 20.0}, "designed": {50: 18.5, 100: 19.0, 200: 21.0}}
    known = {
        f"{matrix} {m}": {"part": "designed", "matrix": matrix, "method": "CSGM", "m": m, "psnr": psnr, "seconds": 1.0, "image": 0}
        for matrix, values in found.items()
        for m, psnr in values.items()
    }
    lines = _generative.conclusions(known)
    assert any("m = 50: +3.50" in line for line in lines)
    assert [line for line in lines if "do what" in line] == ["CSGM: 50 designed rows do what 100 random ones do."]
