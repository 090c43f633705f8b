"""Tabs: what the server keeps for each, what a button does to a run, and that closing one ends and removes everything."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import numpy as np
import pytest
import torch
from PIL import Image
from shared import picture, steps, tiny_problem

from netprior_core import data_axis
from netprior_core.data_axis import Point
from netprior_core.errors import InvalidSettings, Unsolvable
from netprior_core.experiment import MAX_SHOTS, Experiment, UploadedImage
from netprior_core.images import sha256_of
from netprior_core.methods import Method
from netprior_core.problem import Problem, Step
from netprior_core.race import Race
from netprior_core.recording import MAX_ZIP_BYTES
from netprior_core.ui import files, session
from netprior_core.ui.data_axis import DataAxis, _found
from netprior_core.ui.session import App, Session, control
from netprior_core.ui.stream import stream

Tiny = Callable[..., Experiment]
Stub = Callable[..., Method]
PATIENCE = 20.0


def endless(problem: Problem, seed: int) -> Iterator[Step]:
    for i in range(1, 1_000_000):
        time.sleep(0.002)
        yield Step(i, 1_000_000, "solve", picture(0.5), picture(0.5), torch.tensor([1.0]))


def race(method: Method) -> Race:
    return Race(tiny_problem, [(method, method.title, "")])


@pytest.fixture
def app() -> App:
    return App(torch.device("cpu"), 128, fps=50)


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.005)


def test_a_tab_has_one_session_and_old_ones_go(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "MAX_SESSIONS", 3)
    first = app.session("a")
    assert app.session("a") is first
    first.images["x"] = np.zeros((2, 2), np.uint8)
    folder = first.scratch()
    assert folder.is_dir()
    for key in ("b", "c"):
        app.session(key)
    app.session("a")
    app.session("d")  # "b" was used the longest time ago
    assert app.session("a") is first
    assert set(app._sessions) == {"c", "d", "a"}
    app.close("a")
    app.close("a")
    app.close(None)
    assert not folder.exists()
    assert app.session("a") is not first


def test_images_of_a_tab_are_bounded_and_the_oldest_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "MAX_IMAGE_BYTES", 250)
    tab = Session()
    for name in "abcd":
        tab.keep(name, np.zeros((10, 10), np.uint8))
    assert list(tab.images) == ["c", "d"]
    tab.keep("large", np.zeros((100, 100), np.uint8))
    assert list(tab.images) == ["large"]


def test_uploads_that_the_set_up_uses_stay_and_are_found_where_they_were(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "MAX_IMAGE_BYTES", 350)
    tab, used = Session(), "0" * 64
    tab.setup = tiny(target={"source": "upload", "sha256": used}, shots={"source": "upload", "images": []})
    for name in (used, "a", "b", "c", used, "d"):
        tab.keep(name, np.zeros((10, 10), np.uint8))
    assert list(tab.images) == ["c", used, "d"]


def test_a_tab_that_computes_is_never_the_one_that_goes(app: App, stub: Stub, tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "MAX_SESSIONS", 2)
    running = race(stub("endless", endless))
    tab = app.session("busy")
    app.start(tab, running, tiny())
    for key in "abcd":
        app.session(key)
    assert set(app._sessions) == {"busy", "c", "d"}
    assert not running.done
    app.start(app.session("c"), race(stub("endless", endless)), tiny())
    with pytest.raises(Unsolvable, match="2 races wait in line"):
        app.start(app.session("d"), race(stub("endless", endless)), tiny())
    app.start(tab, race(stub("endless", endless)), tiny())  # in place of its own
    for key in ("busy", "c"):
        app.close(key)


def test_uploads_of_all_tabs_are_bounded_together(app: App, stub: Stub, tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "MAX_ALL_BYTES", 300)
    for key in ("busy", "idle", "mine"):
        app.session(key).keep("x", np.zeros((10, 15), np.uint8))
    app.start(app.session("busy"), race(stub("endless", endless)), tiny())
    app.trim(app.session("mine"))
    assert [len(app.session(key).images) for key in ("busy", "idle", "mine")] == [1, 0, 1]
    app.close("busy")


def test_a_whole_set_up_of_large_images_fits() -> None:
    tab = Session()
    image = np.broadcast_to(np.uint8(0), (1024, 1024, 3))  # counts as 3 MiB, takes one byte
    for i in range(MAX_SHOTS + 1):
        tab.keep(str(i), image)
    assert len(tab.images) == MAX_SHOTS + 1


def test_files_of_a_tab_go_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    tab = Session()
    (tab.scratch() / "run.zip").write_bytes(b"x")
    assert tab.scratch() == tab.scratch()
    del tab
    gc.collect()
    assert list(tmp_path.iterdir()) == []


def test_running_again_ends_the_run_before(app: App, stub: Stub, tiny: Tiny) -> None:
    tab = app.session("a")
    one, two = race(stub("one", endless)), race(stub("two", endless))
    first = app.start(tab, one, tiny())
    until(lambda: one.lanes[0].iteration > 0)
    second = app.start(tab, two, tiny())
    assert first != second
    assert len(second) >= 16  # nobody guesses it
    until(lambda: one.done and two.lanes[0].iteration > 0)
    assert app.find(first) is None
    assert app.find(second) is two
    app.close("a")
    until(lambda: two.done)
    assert app.find(second) is None


def test_buttons_act_on_their_own_run_only(app: App, stub: Stub, tiny: Tiny) -> None:
    running = race(stub("one", endless))
    run = app.start(app.session("a"), running, tiny())
    until(lambda: running.lanes[0].iteration > 0)
    assert control(app, "someone else's", "stop") == {"ok": False, "message": "This run has ended."}
    assert control(app, "", "stop")["ok"] is False
    assert control(app, run, "explode") == {"ok": False, "message": "Unknown action."}
    assert control(app, run, "pause")["ok"]
    until(lambda: running.state == "paused")
    at = running.lanes[0].iteration
    assert control(app, run, "step")["ok"]
    until(lambda: running.lanes[0].iteration == at + 1)
    assert control(app, run, "resume")["ok"]
    until(lambda: running.lanes[0].iteration > at + 1)
    assert control(app, run, "stop")["ok"]
    until(lambda: running.done)
    assert control(app, run, "pause")["ok"] is False


def test_a_stream_ends_with_the_final_state_and_exact_pictures(app: App, stub: Stub, tiny: Tiny) -> None:
    running = race(stub("s", steps([0.1, 0.5, 0.9])))
    run = app.start(app.session("a"), running, tiny())

    async def collect() -> list[dict[str, Any]]:
        return [message async for message in stream(app, running, tiny(), run, None)]

    messages = asyncio.run(asyncio.wait_for(collect(), PATIENCE))
    assert messages[-1]["state"] == "finished"
    assert messages[-1]["lanes"][0]["state"] == "finished"
    pictures = [m["lanes"][0]["picture"] for m in messages if "picture" in m["lanes"][0]]
    assert pictures[-1]["lossless"] is True
    assert pictures[-1]["iteration"] == 3


def test_a_stream_of_a_race_that_had_ended_still_says_so(app: App, stub: Stub, tiny: Tiny) -> None:
    done = race(stub("s", steps([0.1]))).run()

    async def collect() -> list[dict[str, Any]]:
        return [message async for message in stream(app, done, tiny(), "run", None)]

    (only,) = asyncio.run(asyncio.wait_for(collect(), PATIENCE))
    assert only["state"] == "finished"
    assert only["lanes"][0]["picture"]["lossless"] is True


def test_leaving_a_stream_asks_the_race_to_stop(app: App, stub: Stub, tiny: Tiny) -> None:
    running = race(stub("endless", endless))
    run = app.start(app.session("a"), running, tiny())

    async def leave() -> None:
        messages = stream(app, running, tiny(), run, None)
        async for message in messages:
            if message["lanes"][0]["iteration"] > 0:
                break
        await messages.aclose()  # type: ignore[attr-defined]

    asyncio.run(asyncio.wait_for(leave(), PATIENCE))
    until(lambda: running.done)
    assert running.state == "stopped"


# -- files --------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the person is told."""
    words: list[str] = []
    for name in ("Warning", "Info"):
        monkeypatch.setattr(f"gradio.{name}", lambda message, **_: words.append(message))
    return words


def test_usable_uploads_are_kept_and_broken_ones_are_named(tmp_path: Path, said: list[str]) -> None:
    good, broken, small = tmp_path / "good.png", tmp_path / "broken.png", tmp_path / "small.png"
    pixels = np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(good)
    broken.write_bytes(good.read_bytes()[:200])
    Image.fromarray(pixels[:1, :1]).save(small)
    tab = Session()
    taken = files.take(tab, [str(good), str(broken), str(small)])
    assert taken == [UploadedImage(sha256=sha256_of(pixels), name="good.png")]
    np.testing.assert_array_equal(tab.images[taken[0].sha256], pixels)
    assert len(said) == 2
    assert "broken.png" in said[0]
    assert "small.png" in said[1]


def test_a_name_is_not_markup(tmp_path: Path, said: list[str]) -> None:
    file = tmp_path / "<img src=x onerror=alert(1)>.png"
    file.write_bytes(b"no image")
    files.take(Session(), [str(file)])
    assert "<img" not in said[0]


def test_more_than_a_hundred_uploads_are_cut_with_a_word(tmp_path: Path, said: list[str]) -> None:
    file = tmp_path / "a.png"
    Image.fromarray(np.zeros((16, 16), np.uint8)).save(file)
    assert len(files.take(Session(), [str(file)] * 103)) == 100
    assert "At most 100" in said[-1]


def test_a_drawn_mask_is_read_at_the_images_size() -> None:
    layer = np.zeros((64, 64, 4), np.uint8)
    layer[:32, :, 3] = 255
    mask = files.mask_of({"layers": [layer]}, 16)
    assert mask is not None
    import base64
    import io

    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(mask))))
    assert pixels.shape == (16, 16)
    assert (pixels[:8] == 255).all()
    assert (pixels[8:] == 0).all()
    for nothing in (None, {}, {"layers": []}, {"layers": [None]}, {"layers": [layer[:8, :8]]}, "x"):
        assert files.mask_of(nothing, 16) is None


def test_a_file_that_is_too_large_is_not_even_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "large.zip"
    with file.open("wb") as out:
        out.truncate(MAX_ZIP_BYTES + 1)
    monkeypatch.setattr(Path, "read_bytes", lambda _: pytest.fail("read"))
    with pytest.raises(InvalidSettings, match="larger than"):
        files.open_recording(str(file))


def test_a_first_visit_without_its_file_is_an_empty_page(tmp_path: Path) -> None:
    assert files.recorded(tmp_path / "missing.zip") is None
    (tmp_path / "damaged.zip").write_bytes(b"PK\x03\x04")
    assert files.recorded(tmp_path / "damaged.zip") is None


def test_only_one_zip_of_a_tab_is_kept(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from netprior_core.experiment import race_of

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    experiment = tiny(methods=[{"kind": "adjoint"}])
    tab = Session()
    for run in ("first", "second"):
        tab.run = run
        archive, _ = files.save(tab, race_of(experiment, {}).run(), experiment)
    assert [p.name for p in tmp_path.rglob("*.zip")] == [Path(archive).name]
    assert "second" in archive


def test_the_data_axis_leaves_the_tabs_last_run_what_it_is(
    app: App, stub: Stub, tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = tiny(methods=[{"kind": "adjoint"}])
    points = [Point(shots, f"{shots} shots", experiment) for shots in (0, 2)]
    monkeypatch.setattr(data_axis, "points", lambda now, curves: points)
    tab = app.session("a")
    with gr.Blocks():
        view, live = DataAxis(app), gr.HTML()
        view.build()
    request = SimpleNamespace(session_hash="a")

    async def draw() -> list[dict[Any, Any]]:
        return [changes async for changes in view._draw(experiment, ["low-shot"], live, request)]

    before = race(stub("short", steps([0.5])))
    run = app.start(tab, before, experiment)
    until(lambda: before.done)
    drawn = asyncio.run(draw())
    assert len(drawn[-2][view.found]) == 2
    assert (tab.race, tab.experiment, tab.run) == (before, experiment, run)
    assert app.find(run) is before
    assert tab.aside is not None
    assert app.find(tab.aside[0]) is tab.aside[1]


@pytest.mark.parametrize("what", ["run", "stop"])
def test_the_data_axis_goes_no_further_when_another_run_began_or_stop_was_pressed_between_points(
    app: App, stub: Stub, tiny: Tiny, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    experiment = tiny(methods=[{"kind": "adjoint"}])
    points = [Point(shots, f"{shots} shots", experiment) for shots in (0, 2, 5)]
    monkeypatch.setattr(data_axis, "points", lambda now, curves: points)
    tab = app.session("a")
    with gr.Blocks():
        view, live = DataAxis(app), gr.HTML()
        view.build()
    mine = race(stub("mine", endless))
    said: list[dict[Any, Any]] = []

    async def draw() -> None:
        async for changes in view._draw(experiment, ["low-shot"], live, SimpleNamespace(session_hash="a")):  # type: ignore[arg-type]
            said.append(changes)
            if changes.get(view.found) and what == "run":
                app.start(tab, mine, experiment)
            elif changes.get(view.found):
                assert tab.aside is not None
                assert control(app, tab.aside[0], "stop")["ok"] is False

    asyncio.run(draw())
    assert len([changes for changes in said if changes.get(view.found)]) == 1  # the points so far
    assert said[0][view.choice]["visible"] is said[0][view.picture]["visible"] is False  # those of an earlier drawing
    words = {"run": "Another run began", "stop": "You stopped it"}[what]
    assert words in said[-1][view.progress]
    assert (tab.race is mine) == (what == "run")
    if what == "run":
        assert not mine.unwanted
    app.close("a")


def test_a_point_whose_learning_was_ended_early_says_so(stub: Stub, tiny: Tiny) -> None:
    running = race(stub("prepares", steps([0.5], prepare=5)))
    for _ in range(3):
        running.turn()
    running.enough()
    point = Point(10, "Low-shot, 10 examples", tiny())
    found = _found(running.run(), point)
    assert found is not None
    assert found.label == "Low-shot, 10 examples, learning ended early"
    late = race(stub("solves", steps([0.5])))
    late.turn()
    late.enough()  # nothing is being learned any more
    whole = _found(late.run(), point)
    assert whole is not None
    assert whole.label == point.label


def test_a_run_ends_the_one_aside_and_so_does_closing_the_tab(app: App, stub: Stub, tiny: Tiny) -> None:
    tab = app.session("a")
    first, second = race(stub("first", endless)), race(stub("second", endless))
    app.start_aside(tab, first)
    assert tab.busy
    app.start(tab, race(stub("short", steps([0.5]))), tiny())
    until(lambda: first.done and not tab.busy)
    app.start_aside(tab, second)
    app.close("a")
    until(lambda: second.done)
