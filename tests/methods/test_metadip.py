"""MetaDIP and MetaSIREN with the shipped weights: what a learned start is worth, and what it does not depend on."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from netprior_core import priors
from netprior_core.errors import Unsolvable
from netprior_core.methods.base import Method
from netprior_core.methods.metadip import (
    Fit,
    MetaDIP,
    MetaSIREN,
    descend,
    gain,
    inner_step,
    key,
    shipped,
    unet,
)
from netprior_core.metrics import psnr
from netprior_core.networks.metadip import noise_map, picture
from netprior_core.networks.seeded import seeded
from netprior_core.operators import Operator
from netprior_core.problem import Problem, Step

Make = Callable[..., tuple[Problem, torch.Tensor]]


def _last(method: Any, problem: Problem, seed: int = 0) -> Step:
    *_, last = method.solve(problem, seeds=[seed])
    return last


def test_a_learned_start_is_far_ahead_of_a_random_one_after_few_steps(make_problem: Make) -> None:
    problem, truth = make_problem("denoising", sigma=25.0, side=64)
    learned = psnr(_last(MetaDIP(iterations=5), problem).estimate, truth).item()
    untrained = [psnr(_last(MetaDIP(iterations=5, start="random"), problem, seed).estimate, truth).item() for seed in (0, 1, 2)]
    assert learned > max(untrained) + 2


def test_metasiren_gains_from_its_start_too(make_problem: Make) -> None:
    problem, truth = make_problem("denoising", sigma=25.0)
    learned = psnr(_last(MetaSIREN(iterations=5), problem).estimate, truth).item()
    untrained = psnr(_last(MetaSIREN(iterations=5, start="random"), problem).estimate, truth).item()
    assert learned > untrained + 1


@pytest.mark.parametrize("settings", [{"kind": "denoising"}, {"kind": "compressed-sensing", "ratio": 0.4}, {"kind": "inpainting"}])
def test_fifty_steps_lead_to_a_picture_for_every_operator_with_the_same_settings(make_problem: Make, settings: Any) -> None:
    kind = settings.pop("kind")
    problem, truth = make_problem(kind, sigma=15.0, **settings)
    assert psnr(_last(MetaDIP(), problem).estimate, truth).item() > 22


@pytest.mark.parametrize("side", [16, 32, 48])
@pytest.mark.parametrize("cls", [MetaDIP, MetaSIREN])
def test_sizes_other_than_that_of_the_training(make_problem: Make, cls: Any, side: int) -> None:
    problem, truth = make_problem("denoising", sigma=25.0, side=side, channels=1)
    steps = list(cls(iterations=30).solve(problem, seeds=[0]))
    assert [s.iteration for s in steps] == [*range(31), 30]
    assert steps[-1].estimate is not None
    assert steps[-1].estimate.shape == truth.shape
    assert float(steps[-1].objective) < 0.6 * float(steps[0].objective)


def test_the_seed_matters_only_for_a_random_start(make_problem: Make) -> None:
    problem, _ = make_problem("denoising")
    one, other = (_last(MetaDIP(iterations=2), problem, seed).output for seed in (0, 1))
    assert torch.equal(one, other)
    one, other = (_last(MetaDIP(iterations=2, start="random"), problem, seed).output for seed in (0, 1))
    assert not torch.equal(one, other)


def test_a_start_that_sees_the_first_picture_is_shown_that_of_the_measurement(
    make_problem: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = {"widths": [4, 6], "noise": 4, "skip": 4, "first": True, "key": key("metadip", "mixed")}
    network = seeded(lambda: unet(card), torch.Generator().manual_seed(0))
    network.noise.copy_(noise_map(4, torch.Generator().manual_seed(1)))
    tensors = {f"network.{name}": value.detach() for name, value in network.state_dict().items()}
    count = len(list(network.parameters()))
    priors.save(tmp_path / "metadip-mixed.safetensors", {**tensors, "rates": torch.zeros(20, count)}, card)
    monkeypatch.setattr(priors, "CHECKPOINTS", tmp_path)
    for kind, channels in (("compressed-sensing", 3), ("denoising", 1)):
        problem, _ = make_problem(kind, channels=channels)
        step = next(MetaDIP(trained="mixed", precision="float32").solve(problem, seeds=[0]))
        first = problem.model.initial(problem.measurement)
        height, width = first.shape[-2:]
        loaded = unet(card)
        priors.load(tmp_path / "metadip-mixed.safetensors").load_into(loaded)
        expected = picture(loaded(loaded.input(height, width, picture=first)), channels, height, width)
        torch.testing.assert_close(step.output, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("preset", ["published recipe, learned at 64 px", "mixed"])
def test_after_the_learned_steps_rates_are_held_or_fade_where_momenta_are_orthogonalised(
    preset: str, make_problem: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[list[float]] = []
    orthogonal: list[bool] = []

    def spy(weights: Any, velocity: Any, slopes: Any, rates: Any, along: bool) -> None:
        used.append(list(rates))
        orthogonal.append(along)
        inner_step(weights, velocity, slopes, rates, along)

    monkeypatch.setitem(descend.__globals__, "inner_step", spy)
    problem, _ = make_problem("denoising")
    _last(MetaDIP(**{**MetaDIP.presets[preset], "cautious": False}, iterations=60), problem)
    learned = shipped("metadip", MetaDIP(**MetaDIP.presets[preset]).trained).tensors["rates"].exp()
    wanted = torch.cat([learned, learned[-1:].expand(40, -1)])
    if preset == "mixed":
        assert orthogonal == [False] * 5 + [True] * 55
        fades = torch.tensor([max(0.05, 1 - k / 50) for k in range(5, 60)])[:, None]
        filters = torch.tensor([p.dim() > 1 for p in unet(shipped("metadip", "mixed").card).parameters()])
        wanted[5:] = fades * torch.where(filters, 0.01, wanted[5:])
    else:
        assert not any(orthogonal)
    torch.testing.assert_close(torch.tensor(used), wanted)


def test_caution_takes_steps_back_that_raise_the_loss_and_changes_nothing_else(make_problem: Make) -> None:
    problem, _ = make_problem("denoising", sigma=25.0, side=64)
    calm = [list(MetaDIP(iterations=20, cautious=cautious).solve(problem, seeds=[0])) for cautious in (False, True)]
    losses = [float(step.objective) for step in calm[0]]
    assert all(after <= 1.1 * before for before, after in itertools.pairwise(losses))
    assert torch.equal(calm[0][-1].output, calm[1][-1].output)

    def wild(cautious: bool) -> list[float]:
        """Objectives of a run whose rates are too large."""
        prior = shipped("metadip", "faces σ = 25")
        network = unet(prior.card)
        prior.load_into(network)
        z = network.input(64, 64)
        fit = Fit(network, lambda: picture(network(z), 3, 64, 64), 4 * prior.tensors["rates"].exp(), cautious=cautious)
        return [float(step.objective) for step in descend(problem, fit, 40, "")]

    careless, steps = wild(False), wild(True)
    assert any(after > 1.1 * before for before, after in itertools.pairwise(careless))
    assert all(after <= 1.1 * before for before, after in itertools.pairwise(steps))
    assert any(before == after for before, after in itertools.pairwise(steps[:-1]))  # one was taken back
    assert steps[-1] < careless[-1]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"kind": "denoising"}, (1.0, 1.0)),
        ({"kind": "compressed-sensing", "ratio": 0.25}, (0.7, 1.3)),
        ({"kind": "compressed-sensing", "ratio": 0.25, "matrix": "structured"}, (0.7, 1.3)),
        ({"kind": "phase-retrieval", "ratio": 1.0}, (0.2, 1.5)),
    ],
)
def test_the_gain_is_what_the_operator_does_to_differences(settings: Any, expected: tuple[float, float]) -> None:
    found = gain(Operator.registry.parse(settings).build((3, 32, 32), seed=3))
    assert expected[0] * (1 - 1e-5) <= found <= expected[1] * (1 + 1e-5)


def test_another_scale_of_the_operator_changes_nothing(make_problem: Make) -> None:
    steps = []
    for normalisation in ("1/m", "1"):
        problem, truth = make_problem("compressed-sensing", ratio=0.3, sigma=0.0, normalisation=normalisation)
        steps.append(psnr(_last(MetaDIP(iterations=20, precision="float32"), problem).estimate, truth).item())
    assert steps[0] == pytest.approx(steps[1], abs=0.1)


@pytest.mark.parametrize("method", [MetaDIP(), MetaSIREN()])
def test_without_its_weights_it_says_so(make_problem: Make, method: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    problem, _ = make_problem("denoising")
    monkeypatch.setattr(priors, "CHECKPOINTS", tmp_path)
    with pytest.raises(Unsolvable, match="checkpoints folder"):
        next(iter(method.solve(problem, seeds=[0])))


def test_a_grey_problem_is_the_colour_one_of_three_equal_channels_in_spirit(make_problem: Make) -> None:
    problem, truth = make_problem("denoising", sigma=25.0, channels=1, side=64)
    last = _last(MetaDIP(), problem)
    assert psnr(last.estimate, truth).item() > psnr(problem.measurement, truth).item() + 4
    assert last.info["returns"] == 50


def test_the_older_name_of_a_start_still_means_it_and_finds_its_file() -> None:
    old = Method.registry.parse({"kind": "metadip", "trained": "faces σ = 25 (as published)"})
    assert old == MetaDIP()
    assert old.preset_name() == "cautious (published recipe)"
    for kind in ("metadip", "metasiren"):
        assert priors.shipped()[key(kind, "faces σ = 25")].stem == f"{kind}-faces"
