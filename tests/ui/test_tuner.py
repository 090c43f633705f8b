"""“Tune on this image” without a browser: what it says, what it writes into the lane, and when it says no."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from shared import endless, race, steps

from netprior_core import tuning
from netprior_core.errors import InvalidSettings
from netprior_core.experiment import TUNED, Experiment, race_of
from netprior_core.methods import Method
from netprior_core.methods.pnp import PnPADMM
from netprior_core.ui import results, setup, tuner
from netprior_core.ui.column import Column
from netprior_core.ui.page import Page
from netprior_core.ui.session import App, Session

Tiny = Callable[..., Experiment]
Stub = Callable[..., Method]
REQUEST: Any = SimpleNamespace(session_hash="one", headers={})
PATIENCE = 30.0


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    words: list[str] = []
    monkeypatch.setattr("netprior_core.ui.tuner.warn", words.append)
    monkeypatch.setattr("netprior_core.ui.column.warn", words.append)
    monkeypatch.setattr(tuner, "inform", words.append)
    monkeypatch.setattr(tuner, "SPEAK", 0.0)
    monkeypatch.setattr(tuning, "ROUNDS", (1.0,))
    return words


@pytest.fixture
def lanes(tiny: Tiny) -> Experiment:
    """The adjoint, and a total variation with far too large a weight, which any smaller one beats."""
    return tiny(size=16, methods=[{"kind": "adjoint"}, {"kind": "tv", "weight": 3.0, "iterations": 20}])


def tune(
    column: Column, now: Experiment, lane: int = 1, on_words: Callable[[int, str], None] = lambda count, words: None
) -> list[dict[Any, Any]]:
    """Every change that a press brings; ``on_words(count, words)`` is called with each of them."""
    tab = column.app.session("one")
    tab.setup = tab.setup or now

    async def press() -> list[dict[Any, Any]]:
        found = []
        async for changes in column.tuner.tune(column, lane, now, REQUEST):
            found.append(changes)
            on_words(len(found), str(changes[column.tuner.words[lane]].get("value", "")))
        return found

    return asyncio.run(asyncio.wait_for(press(), PATIENCE))


def test_what_is_found_is_written_into_the_lane_and_marked(app: App, column: Column, said: list[str], lanes: Experiment) -> None:
    words: list[str] = []
    changes = tune(column, lanes, on_words=lambda count, text: words.append(text))
    found = app.session("one").setup
    assert found is not None
    assert changes[-1][column.experiment] is found
    assert found.methods[0] == lanes.methods[0]
    assert found.methods[1].weight == pytest.approx(1 / 3, rel=0.01)  # type: ignore[attr-defined]
    assert found.lanes()[1][2].startswith(TUNED)
    assert changes[-1][column.presets[1]]["value"] == TUNED
    assert changes[-1][column.shape_of_lanes[1]].startswith("tv/tuned/")  # its controls are drawn anew
    assert "Trial 1 of at most 5: your settings" in words[0]
    assert any("weight λ 0.333" in text and "Best" in text and "s left" in text for text in words)
    assert [changes[-1][part]["visible"] for part in (column.tuner.words[1], column.tuner.stops[1])] == [False, False]
    (told,) = said
    assert "looked at the truth" in told
    result = race_of(found, {}).run().lanes[1].result
    assert result is not None
    assert f"{result.psnr:.2f} dB with weight λ" in told


def test_nothing_better_leaves_everything_as_it_is(app: App, column: Column, said: list[str], tiny: Tiny) -> None:
    best = tiny(size=16, methods=[{"kind": "tv", "weight": 0.06, "iterations": 30}])
    changes = tune(column, best, lane=0)
    assert column.experiment not in changes[-1]
    assert app.session("one").setup is best
    assert "Nothing that was tried" in said[0]


def test_the_tabs_last_run_stays_what_it_is(app: App, column: Column, said: list[str], lanes: Experiment, stub: Stub) -> None:
    tab, before = app.session("one"), race(stub("short", steps([0.5])))
    run = app.start(tab, before, lanes)
    until(lambda: before.done)
    tune(column, lanes)
    assert (tab.race, tab.experiment, tab.run) == (before, lanes, run)
    assert tab.tuning is None
    assert not tab.busy


def test_it_is_refused_in_a_sentence(
    app: App, column: Column, said: list[str], lanes: Experiment, tiny: Tiny, stub: Stub, monkeypatch: pytest.MonkeyPatch
) -> None:
    tab = app.session("one")
    begun: list[Any] = []
    monkeypatch.setattr(app, "start_aside", lambda *given: begun.append(given))
    for now, words in (
        (lanes.model_copy(update={"target_is": "measurement"}), "your target is a measurement"),
        (tiny(size=16), "DIP is not tuned"),
        (tiny(size=128, methods=[{"kind": "tv"}]), "larger than this server allows"),
    ):
        tab.setup = now
        (changes,) = tune(column, now, lane=0 if len(now.methods) == 1 or now.methods[0].kind == "dip" else 1)
        assert column.experiment not in changes  # and not nothing: a handler that says nothing empties its outputs
        assert words in said[-1]
    tab.setup = lanes
    tab.race = race(stub("one", endless))  # as if it were being computed
    (changes,) = tune(column, lanes)
    assert column.experiment not in changes
    assert said[-1] == tab.why_busy != ""
    assert begun == []


def test_a_set_up_that_cannot_be_built_is_refused_in_a_sentence(app: App, column: Column, said: list[str], tiny: Tiny) -> None:
    missing = {"source": "upload", "sha256": "ab" * 32, "name": "cat.png"}
    changes = tune(column, tiny(size=16, target=missing, methods=[{"kind": "tv"}]), lane=0)
    assert "cat.png" in said[-1]
    assert changes[-1][column.tuner.words[0]]["visible"] is False
    assert column.experiment not in changes[-1]
    assert app.session("one").tuning is None


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.005)


def test_stop_ends_it_within_a_second_and_keeps_the_best_so_far(
    app: App, column: Column, said: list[str], lanes: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    cls, pressed = type(lanes.methods[1]), [0.0]
    real = cls._solve  # type: ignore[attr-defined]

    def slow(self: Any, problem: Any, seed: int, prepared: Any) -> Iterator[Any]:
        if self.weight > 3:  # after 0.333 and 1
            yield from endless(problem, seed)
        yield from real(self, problem, seed, prepared)

    monkeypatch.setattr(cls, "_solve", slow)

    def press(count: int, text: str) -> None:
        if "Trial 4" in text and not pressed[0]:
            pressed[0] = time.monotonic()
            column.tuner.stop(REQUEST)

    tune(column, lanes, on_words=press)
    assert pressed[0]
    assert time.monotonic() - pressed[0] < 2  # a second, and one for a busy machine
    found = app.session("one").setup
    assert found is not None
    assert found.methods[1].weight < 3  # type: ignore[attr-defined]
    assert found.lanes()[1][2].startswith(TUNED)
    column.tuner.stop(REQUEST)  # nothing is being searched: nothing happens


def test_pressing_run_ends_it_and_the_settings_stay(
    app: App, column: Column, said: list[str], lanes: Experiment, stub: Stub
) -> None:
    tab, other = app.session("one"), race(stub("other", steps([0.5])))

    def run(count: int, text: str) -> None:
        if "Trial 3" in text and tab.race is None:
            app.start(tab, other, lanes)

    tune(column, lanes, on_words=run)
    assert said == [tuner.OVERTAKEN]
    assert tab.setup is lanes
    until(lambda: other.done)
    assert other.state == "finished"
    assert tab.race is other


def test_what_was_found_for_another_set_up_is_left_out(app: App, column: Column, said: list[str], lanes: Experiment) -> None:
    def edit(count: int, text: str) -> None:
        if count == 1:
            app.session("one").edit(lanes, lambda base: setup.change(base, ["noise", "sigma"], 50))

    changes = tune(column, lanes, on_words=edit)
    assert "changed during the search" in said[-1]
    assert column.experiment not in changes[-1]
    found = app.session("one").setup
    assert found is not None
    assert found.methods == lanes.methods


def test_leaving_ends_the_trial(app: App, column: Column, lanes: Experiment, stub: Stub) -> None:
    tab = app.session("one")
    tab.setup = lanes.model_copy(update={"methods": (lanes.methods[1].model_copy(update={"iterations": 20_000}),)})

    async def leave() -> None:
        pressed = column.tuner._pressed(column, 0)(tab.setup, REQUEST)
        await anext(pressed)
        await pressed.aclose()

    asyncio.run(asyncio.wait_for(leave(), PATIENCE))
    assert tab.aside is not None
    until(lambda: not tab.busy)
    assert tab.aside[1].state == "stopped"
    assert tab.tuning is None


# -- the mark ----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def marked(lanes: Experiment) -> Experiment:
    found = lanes.methods[1].model_copy(update={"weight": 0.1, "tuned_on": "faces/0"})
    return setup.with_tuned(lanes, lane=1, began=lanes, found=found)


def test_a_setting_or_preset_chosen_by_hand_takes_the_mark_away(marked: Experiment) -> None:
    assert setup.preset_choices(marked, 1)[1] == TUNED
    assert setup.with_preset(marked, TUNED, lane=1) == marked  # it is no preset
    for changed in (
        setup.change(marked, ["methods", 1, "weight"], 0.2),
        setup.change(marked, ["methods", 1, "bounded"], False),
        setup.with_preset(marked, "anisotropic", lane=1),
        setup.with_method(setup.with_method(marked, "dip", lane=1), "tv", lane=1),
    ):
        assert not changed.lanes()[1][2].startswith("tuned")
        assert "tuned" not in setup.preset_choices(changed, 1)[1]


@pytest.mark.parametrize(
    "change",
    [
        lambda base: setup.change(base, ["noise", "sigma"], 50),
        lambda base: setup.change(base, ["seed"], 99),
        lambda base: setup.change(base, ["size"], 32),
        lambda base: setup.change(base, ["mismatch", "noise_factor"], 2.0),
        lambda base: setup.with_operator(base, "inpainting"),
        lambda base: setup.with_noise(base, "poisson"),
        lambda base: setup.with_target(base, 1),
    ],
)
def test_with_another_problem_the_settings_are_the_usual_ones_again(marked: Experiment, change: Any) -> None:
    changed = change(marked)
    assert setup.given_up(marked, changed) == [1]
    method = changed.methods[1]
    assert (method.weight, method.tuned_on) == (0.0, "")  # 0: from the noise
    assert method.iterations == 20  # was not searched
    assert "tuned" not in changed.lanes()[1][2]


def test_what_does_not_change_the_problem_leaves_the_mark(marked: Experiment) -> None:
    for changed in (
        setup.with_rules(marked, ["wmv"]),
        setup.change(marked, ["seeds"], 3),
        setup.with_count(marked, 1),  # of examples, which total variation does not look at
        setup.with_method(marked, "dip", lane=0),
    ):
        assert setup.given_up(marked, changed) == []
        assert changed.lanes()[1][2].startswith(TUNED)


def test_plug_and_play_goes_back_to_the_operators_settings(lanes: Experiment) -> None:
    given = {"kind": "pnp-admm", "denoiser": "tv", "weight": 7.0, "last": 0.3, "tuned_on": "faces/0"}
    marked = setup.change(lanes, ["methods"], [given])
    back = setup.change(marked, ["noise", "sigma"], 10).methods[0]
    assert back == PnPADMM(denoiser="tv").suited(lanes.operator)


def test_the_page_draws_what_was_given_up_anew_and_says_so(
    app: App, column: Column, marked: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    words: list[str] = []
    monkeypatch.setattr("netprior_core.ui.column.inform", words.append)
    app.session("one").setup = marked
    changes = column.attempt(marked, lambda base: setup.change(base, ["noise", "sigma"], 50), REQUEST)
    assert changes[column.presets[1]]["value"] != TUNED
    assert changes[column.shape_of_lanes[1]].startswith("tv/untuned/")
    assert set(changes) <= set(column.of_a_value())  # the outputs of every control of one value
    assert "Total variation" in words[0]
    again = column.attempt(marked, lambda base: setup.change(base, ["noise", "sigma"], 40), REQUEST)
    assert set(again) == {column.experiment}
    assert len(words) == 1


def test_a_method_that_looked_at_the_truth_is_not_printed_as_the_best(marked: Experiment) -> None:
    methods = [{"kind": "adjoint"}, marked.methods[1], {"kind": "tv", "weight": 0.01, "iterations": 5}]
    three = setup.change(marked, ["methods"], [m if isinstance(m, dict) else m.model_dump(mode="json") for m in methods])
    race = race_of(three, {}).run()
    scores = [lane.result.psnr for lane in race.lanes]  # type: ignore[union-attr]
    assert max(scores) == scores[1]  # type: ignore[type-var]
    page = results.table(race, three)
    assert re.findall("<b>(.*?)</b>", page) == [f"{scores[2]:.2f}"]
    assert "not tuned with the truth in sight" in page
    fair = setup.change(three, ["methods", 1, "weight"], 0.1)
    page = results.table(race_of(fair, {}).run(), fair)
    assert re.findall("<b>(.*?)</b>", page) == [f"{scores[1]:.2f}"]
    assert "truth in sight" not in page


def test_what_was_found_is_only_for_what_it_was_searched_on(lanes: Experiment) -> None:
    found = lanes.methods[1].model_copy(update={"weight": 0.1, "tuned_on": "faces/0"})
    assert setup.with_tuned(setup.with_method(lanes, "adjoint", lane=2), lane=1, began=lanes, found=found).methods[1] == found
    for changed in (
        setup.change(lanes, ["seed"], 9),
        setup.change(lanes, ["methods", 1, "weight"], 2.0),
        setup.with_method(lanes, "", lane=0),
    ):
        with pytest.raises(InvalidSettings, match="changed during the search"):
            setup.with_tuned(changed, lane=1, began=lanes, found=found)


def test_the_page_holds_what_a_search_needs(app: App) -> None:
    ids = {str(getattr(block, "elem_id", "")) for block in Page(app).build().blocks.values()}
    assert {f"np-tune-stop-{lane}" for lane in range(4)} <= ids
    assert Session().tuning is None
