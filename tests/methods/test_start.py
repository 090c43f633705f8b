"""What a network starts from is one choice everywhere."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from netprior_core.methods._start import STARTS, start_setting
from netprior_core.methods.base import Method
from netprior_core.methods.metadip import MetaSIREN
from netprior_core.methods.siren import UntrainedSiren
from netprior_core.problem import Problem

#: Methods whose network can start from more than one kind of weights.
WITH_A_CHOICE = ("cs-dip", "edip", "low-shot", "metadip", "metasiren", "siren")


@pytest.mark.parametrize("kind", WITH_A_CHOICE)
def test_the_choice_has_one_name_its_words_and_their_order(kind: str) -> None:
    field = next(f for f in Method.registry[kind].fields() if f.name == "start")
    assert field.label == "Start from"
    assert field.main
    assert list(field.choices) == [name for name in STARTS if name in field.choices]
    assert "random" in field.choices
    assert all(STARTS[name] in field.help for name in field.choices)


def test_another_order_or_an_unknown_word_is_refused() -> None:
    for default, choices in (("random", ("educated", "random")), ("random", ("random", "clever")), ("educated", ("random",))):
        with pytest.raises(ValueError, match="order"):
            start_setting(default, *choices)


@pytest.mark.parametrize("channels", [1, 3])
def test_siren_begins_where_metasiren_does(make_problem: Callable[..., tuple[Problem, torch.Tensor]], channels: int) -> None:
    problem, truth = make_problem("denoising", channels=channels)
    theirs = next(iter(MetaSIREN().solve(problem, seeds=[0])))
    ours = next(iter(UntrainedSiren(start="meta-learned", width=16).solve(problem, seeds=[1])))
    assert ours.output is not None
    assert theirs.output is not None
    assert ours.output.shape == truth.shape
    torch.testing.assert_close(ours.output, theirs.output)


def test_experiments_from_before_the_choice_mean_the_same() -> None:
    assert Method.registry.parse({"kind": "siren", "iterations": 10}).start == "random"
    assert Method.registry.parse({"kind": "edip", "start": "educated"}).start == "educated"
    assert Method.registry.parse({"kind": "low-shot"}).start == "low-shot"
    assert Method.registry.parse({"kind": "cs-dip", "layers": "dcgan"}).start == "random"
    assert Method.registry.parse({"kind": "metadip"}).start == "meta-learned"
