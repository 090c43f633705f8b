"""The search for the best that a generator could do: it settles, above what a method finds, and is the same again."""

from __future__ import annotations

import pytest
import torch

from netprior_core import examples, generators, representation
from netprior_core.compute import choose
from netprior_core.experiment import build, parse
from netprior_core.methods.csgm import CSGM
from netprior_core.metrics import psnr
from netprior_core.ui.setup import from_set

CPU = choose("float32", "cpu")
DIGIT = 1


@pytest.fixture(scope="module")
def digit() -> tuple[generators.Drawing, torch.Tensor]:
    """The shipped generator of digits, and an embedded one."""
    return generators.generator_for((1, 28, 28)), examples.get("digits").targets()[DIGIT : DIGIT + 1]


def test_it_is_not_below_csgm_that_was_shown_every_pixel(digit: tuple[generators.Drawing, torch.Tensor]) -> None:
    data = from_set("digits").model_dump(mode="json")
    data |= {"operator": {"kind": "denoising"}, "noise": {"kind": "gaussian", "sigma": 0}}
    data["target"]["index"] = DIGIT
    problem, _ = build(parse(data), {})
    drawing, truth = digit
    *_, last = CSGM(restarts=4, iterations=400, prior_weight=0.0, precision="float32").solve(problem, seeds=[0])
    *_, (_, _, value) = representation.best_possible(drawing, CPU, truth, refinements=200)
    assert value > float(psnr(last.estimate, truth)) + 1


def test_the_same_seed_finds_the_same(digit: tuple[generators.Drawing, torch.Tensor]) -> None:
    drawing, truth = digit
    first, again, other = (
        list(representation.best_possible(drawing, CPU, truth, iterations=40, refinements=60, seed=seed)) for seed in (0, 0, 1)
    )
    assert [(step, value) for step, _, value in first] == [(step, value) for step, _, value in again]
    assert torch.equal(first[-1][1], again[-1][1])
    assert first[-1][2] != other[-1][2]
    assert [step for step, *_ in first] == [0, 20, 40, 60, 80, 100]


def test_it_ends_once_more_steps_bring_nothing(digit: tuple[generators.Drawing, torch.Tensor]) -> None:
    grey = torch.full((1, 1, 28, 28), 0.5)  # no digit: soon as near as it gets
    found = list(representation.best_possible(digit[0], CPU, grey, iterations=60, refinements=100_000))
    assert found[-1][0] < 4_000
    assert found[-1][2] - found[-1 - representation.LOOKS][2] < representation.SETTLED
