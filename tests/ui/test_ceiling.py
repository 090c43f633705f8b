"""The best that a race's priors could do, beside its results: when it is offered, what it says, and when it holds its tongue."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image

from netprior_core import representation
from netprior_core.experiment import Experiment, parse, race_of
from netprior_core.race import Race
from netprior_core.recording import read
from netprior_core.ui import ceiling, results, setup
from netprior_core.ui.ceiling import Ceiling, priors_of
from netprior_core.ui.session import App

REQUEST: Any = SimpleNamespace(session_hash="one")
CSGM = {"kind": "csgm", "iterations": 4, "restarts": 1}
NAMED = {**CSGM, "generator": "gan-mnist"}
LEARNED = {**CSGM, "generator": "lowshot-digits"}


def _experiment(*methods: dict[str, Any]) -> Experiment:
    return parse({**setup.from_set("digits").model_dump(mode="json"), "methods": list(methods)})


def _raced(app: App, experiment: Experiment) -> Race:
    session = app.session("one")
    session.race, session.experiment = race_of(experiment, {}).run(), experiment
    return session.race


@pytest.fixture
def app(monkeypatch: pytest.MonkeyPatch) -> App:
    real = representation.best_possible
    monkeypatch.setattr(representation, "best_possible", lambda *given: real(*given, restarts=2, iterations=20, refinements=20))
    return App(torch.device("cpu"), 128)


@pytest.fixture
def warned(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    said: list[str] = []
    monkeypatch.setattr(ceiling, "warn", said.append)
    return said


def test_it_is_offered_where_a_generator_was_searched_and_the_truth_is_known() -> None:
    app = App(torch.device("cpu"), 128)
    experiment = _experiment(CSGM, LEARNED, CSGM, {"kind": "adjoint"})
    waiting = race_of(experiment, {})
    assert priors_of(waiting, experiment) == []
    done = _raced(app, experiment)
    assert priors_of(done, experiment) == ["", "lowshot-digits"]
    assert Ceiling(app).offer(done, experiment)[0]["visible"]
    plain = _experiment({"kind": "adjoint"})
    assert priors_of(_raced(app, plain), plain) == []
    done.has_truth = False
    assert not Ceiling(app).offer(done, experiment)[0]["visible"]


def test_rows_grow_under_the_methods_and_say_that_they_look_at_the_truth(app: App, warned: list[str]) -> None:
    _raced(app, _experiment(CSGM, NAMED, LEARNED, {"kind": "adjoint"}))
    found = list(Ceiling(app)._search(REQUEST))
    first, last = found[0][0], found[-2][0]
    assert first.count("looks at the truth") == 1
    assert last.count("looks at the truth") == 2  # the GAN is one, by name or not
    assert last.count("≥ ") == 2
    assert results.CEILING_NOTE.split(".")[0] in last.replace("&#x27;", "'")
    assert "MNIST, GAN" in last
    widths = {row.count("</td>") + row.count("</th>") for row in last.split("<tr")[1:]}
    assert widths == {len(results.HEADS)}
    assert found[0][1]["value"].shape[1] == 2 * found[0][1]["value"].shape[0]
    assert found[-2][1]["value"].shape[1] == 3 * found[-2][1]["value"].shape[0]
    assert warned == []


def test_the_files_of_the_run_hold_what_was_found(app: App, warned: list[str]) -> None:
    _raced(app, _experiment(CSGM, {"kind": "adjoint"}))
    *_, rows, (_, _, archive, sheet) = list(Ceiling(app)._search(REQUEST))
    with zipfile.ZipFile(archive["value"]) as files:
        kept = json.loads(files.read("summary.json"))
        (picture,) = [name for name in files.namelist() if name.startswith("best-possible/")]
        assert Image.open(io.BytesIO(files.read(picture))).size == (28, 28)
        assert files.read("contact.png") == Path(sheet["value"]).read_bytes()
    (row,) = kept["best_possible"]
    assert f"{row['psnr']:.2f}" in rows[0]
    assert "truth" in kept["best_possible_note"]
    read(Path(archive["value"]).read_bytes())  # it opens again
    assert warned == []


def test_it_gives_way_to_a_run(app: App, warned: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    _raced(app, _experiment(CSGM))
    search = Ceiling(app)._search(REQUEST)
    next(search)
    _raced(app, _experiment({"kind": "adjoint"}))  # begun and over between two looks: the table is another run's
    assert list(search) == []
    _raced(app, _experiment(CSGM))
    monkeypatch.setattr(app.scheduler, "_line", [object()])
    assert len(list(Ceiling(app)._search(REQUEST))) == 1
    assert warned == [ceiling.BUSY]
