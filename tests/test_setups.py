"""Every embedded set fills the form with an experiment that can be run as it is."""

from __future__ import annotations

import pytest

from netprior_core import examples
from netprior_core.experiment import build
from netprior_core.methods import Method
from netprior_core.recording import read
from netprior_core.setups import SETUPS
from netprior_core.ui.files import ASSETS
from netprior_core.ui.learn import CARDS, DEMONSTRATIONS, MORE
from netprior_core.ui.lessons import METHODS, method_html
from netprior_core.ui.setup import from_set


def test_every_set_has_a_setup_and_no_setup_lacks_its_set() -> None:
    assert {found.key for found in examples.sets()} == set(SETUPS)


@pytest.mark.parametrize("key", sorted(SETUPS))
def test_every_method_of_a_setup_accepts_its_problem(key: str) -> None:
    experiment = from_set(key)
    problem, truth = build(experiment, {})
    assert truth is not None
    assert [method.accepts(problem) for method in experiment.methods] == [None] * len(experiment.methods)


@pytest.mark.parametrize("card", CARDS + MORE + DEMONSTRATIONS, ids=lambda card: card.title)
def test_every_card_is_short_and_can_be_tried(card) -> None:  # type: ignore[no-untyped-def]
    import re

    words = re.sub(r"<[^>]+>", "", card.text).split()
    assert len(words) <= 70
    experiment = card.experiment()
    problem, _ = build(experiment, {})
    assert all(method.accepts(problem) is None for method in experiment.methods)


@pytest.mark.parametrize("card", [card for card in DEMONSTRATIONS if card.recording], ids=lambda card: card.title)
def test_a_recorded_demonstration_is_of_its_own_experiment(card) -> None:  # type: ignore[no-untyped-def]
    found = read((ASSETS / card.recording).read_bytes())
    assert found.experiment == card.experiment()
    assert all(len(lane.frames) >= 8 for lane in found.lanes)


def test_every_lesson_is_short_and_of_a_method_that_exists() -> None:
    import re

    assert set(METHODS) <= {method.model_fields["kind"].default for method in Method.registry}
    for equation, text in METHODS.values():
        assert "<i>" in equation
        assert len(re.sub(r"<[^>]+>", "", text).split()) <= 70
    for method in Method.registry:
        assert f"<h3>{method.title}</h3>" in method_html(method)
        assert "``" not in method_html(method)


def test_there_are_at_most_eight_cards() -> None:
    assert len(CARDS) <= 8


@pytest.mark.parametrize("key", ["faces", "coins", "histology", "phantoms", "digits"])
def test_the_low_shot_lane_of_a_setup_starts_solving_at_once(key: str, tmp_path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setenv("NETPRIOR_CACHE", str(tmp_path))
    experiment = from_set(key)
    problem, _ = build(experiment, {})
    method = next(m for m in experiment.methods if m.kind == "low-shot")
    stream = method.solve(problem, seeds=[0])
    step = next(iter(stream))
    assert (step.stage, step.phase) == ("prepare", "cached")
