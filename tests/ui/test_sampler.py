"""The sampler of the Learn tab without a browser: what it draws, says and refuses."""

from __future__ import annotations

import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest
import torch

from netprior_core import generators, priors, representation
from netprior_core.methods._shots import build
from netprior_core.networks.seeded import seeded
from netprior_core.ui import ceiling, sampler, setup
from netprior_core.ui.page import Page
from netprior_core.ui.session import App

SHAPE = (1, 16, 16)
REQUEST: Any = SimpleNamespace(session_hash="one")


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> App:
    """An app beside a checkpoints folder that holds a tiny generator."""
    monkeypatch.setattr(priors, "CHECKPOINTS", tmp_path / "checkpoints")
    monkeypatch.setenv("NETPRIOR_CACHE", str(tmp_path / "cache"))
    network = seeded(lambda: build(SHAPE, 8, 4), 0)
    card = {"network": "DCGAN", "title": "Tiny <b>", "shape": list(SHAPE), "settings": {"channels": 4}}
    card["key"] = generators.generator_key(SHAPE)
    tensors = {f"network.{name}": value for name, value in network.state_dict().items()}
    priors.save(priors.CHECKPOINTS / "gan-tiny.safetensors", tensors, card)
    return App(torch.device("cpu"), 128)


@pytest.fixture
def warned(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    said: list[str] = []
    monkeypatch.setattr(sampler, "warn", said.append)
    return said


def _experiment(size: int = 16) -> Any:
    return setup.from_set("faces").model_copy(update={"size": size, "channels": 1})


@pytest.mark.usefixtures("app")
def test_another_click_draws_other_pictures(warned: list[str]) -> None:
    sheet, words, first, last, shown = sampler._drawn("gan-tiny", 4, None)
    assert sheet["value"].shape[:2] == (2 * 128, 8 * 128)
    assert (first, last, shown) == (4, 19, 4)
    assert "seeds 4 to 19" in words
    assert "<b>" not in words  # a file's title is text
    again, other = sampler._drawn("gan-tiny", 4, 20)[0], sampler._drawn("gan-tiny", 4, 4)
    assert (again["value"] == sheet["value"]).all()
    assert (other[0]["value"] != sheet["value"]).any()
    assert other[2:] == (20, 35, 20)
    walk, _ = sampler._walked("gan-tiny", 4, 19)
    assert (walk["value"][:, :128] == sheet["value"][:128, :128]).all()  # from the first picture of the sheet
    assert (walk["value"][:, -128:] == sheet["value"][-128:, -128:]).all()  # to its last
    assert sampler._drawn("gan-tiny", 2**31 - 1, None)[3] == 2**31 - 1
    assert warned == []
    sampler._drawn("gan-gone", 4, None)
    assert "not here" in warned[0]


@pytest.mark.usefixtures("app")
def test_a_walk_is_one_row_of_steps() -> None:
    sheet, words = sampler._walked("gan-tiny", 1, 2)
    assert sheet["value"].shape[:2] == (128, 8 * 128)
    assert "seed 1" in words
    assert "seed 2" in words


def test_the_best_it_could_do_streams_and_says_that_it_uses_the_truth(
    app: App, warned: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = representation.best_possible
    monkeypatch.setattr(representation, "best_possible", lambda *given: real(*given, iterations=20, refinements=20))
    found = list(sampler.Sampler(app)._best(_experiment(), "gan-tiny", REQUEST))
    assert len(found) == 3
    picture, words = found[-1]
    assert picture["value"].shape[:2] == (256, 512)
    assert "uses the truth" in picture["label"]
    assert "shown the truth" in words
    assert "at least <b>" in words  # a search proves no more
    assert warned == []
    assert len(list(sampler.Sampler(app)._best(_experiment(32), "gan-tiny", REQUEST))) == 1
    assert "set Size to 16" in warned[0]
    measured = _experiment().model_copy(update={"target_is": "measurement"})
    list(sampler.Sampler(app)._best(measured, "gan-tiny", REQUEST))
    assert "no truth" in warned[1]


def test_nothing_long_is_computed_beside_a_run_or_for_long(app: App, warned: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    part = sampler.Sampler(app)
    monkeypatch.setattr(ceiling, "LONGEST", -1.0)
    assert len(list(part._best(_experiment(), "gan-tiny", REQUEST))) == 1
    assert warned == []
    monkeypatch.setattr(ceiling, "LONGEST", 1e9)
    search = part._best(_experiment(), "gan-tiny", REQUEST)
    next(search)
    monkeypatch.setattr(app.scheduler, "_line", [object()])  # a run begins
    assert len(list(search)) == 1  # no more than the words
    part._seen(_experiment(), "gan-tiny", REQUEST)
    assert warned == [ceiling.BUSY] * 2
    monkeypatch.setattr(representation, "best_possible", None)  # would not even be called
    list(part._best(_experiment(), "gan-tiny", REQUEST))
    assert warned == [ceiling.BUSY] * 3


def test_every_tensor_is_computed_on_a_thread_that_ends(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[int] = []
    real = priors.load
    monkeypatch.setattr(priors, "load", lambda path: loaded.append(threading.get_ident()) or real(path))
    sampler._drawn("gan-tiny", 0, None)
    sampler._walked("gan-tiny", 1, 2)
    next(sampler.Sampler(app)._best(_experiment(), "gan-tiny", REQUEST))
    assert len(loaded) == 3
    assert threading.get_ident() not in loaded


def test_the_measurement_in_use_is_judged_on_the_generators_pictures(app: App, warned: list[str]) -> None:
    words = sampler.Sampler(app)._seen(_experiment(), "gan-tiny", REQUEST)
    assert "restricted eigenvalue" in words
    assert "pairs of pictures" in words
    assert "at most" in words
    assert "below 2" in words
    assert "nothing is promised" in words  # far from an isometry: few sums, a generator that was never trained
    assert warned == []
    whole = setup.with_operator(_experiment(), "denoising")  # every pixel: an isometry
    assert "leaves at most 0.00" in sampler.Sampler(app)._seen(whole, "gan-tiny", REQUEST)
    modulus = setup.with_operator(_experiment(), "phase-retrieval")
    assert "below 2" not in sampler.Sampler(app)._seen(modulus, "gan-tiny", REQUEST)  # the theorem is of linear ones
    sampler.Sampler(app)._seen(_experiment(32), "gan-tiny", REQUEST)
    assert "set Size to 16" in warned[0]


def _ids(demo: gr.Blocks) -> set[str]:
    return {str(getattr(block, "elem_id", "")) for block in demo.blocks.values()}


def test_the_page_has_it_and_words_where_there_is_no_generator(app: App) -> None:
    with_it = _ids(Page(app).build())
    assert {"np-sampler-draw", "np-sampler-walk", "np-sampler-best", "np-sampler-isometry"} <= with_it
    (priors.CHECKPOINTS / "gan-tiny.safetensors").unlink()
    without = _ids(Page(app).build())
    assert "np-sampler-words" in without
    assert "np-sampler-draw" not in without
