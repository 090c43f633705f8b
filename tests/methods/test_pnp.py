"""Plug-and-play: exact data steps, fixed points that are known, every operator, and how it says no."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from netprior_core import denoisers, interrupt, priors
from netprior_core.denoisers import Denoiser
from netprior_core.errors import Unsolvable
from netprior_core.methods._data_step import LEAST_NOISE, DataStep
from netprior_core.methods._pnp_tuned import TUNED
from netprior_core.methods.denoiser import OnePassDenoiser
from netprior_core.methods.pnp import DPIR, LEAST_LEVEL, RED, PnPADMM, levels
from netprior_core.metrics import psnr
from netprior_core.noise import SaltAndPepperNoise
from netprior_core.operators import Operator
from netprior_core.problem import Problem
from netprior_core.ui import setup

Make = Callable[..., tuple[Problem, torch.Tensor]]
ROWS, CG, CLOSED = "rows are orthogonal", "conjugate gradients", "in closed form"
LINEAR: list[tuple[str, dict[str, Any], str]] = [
    ("denoising", {}, ROWS),
    ("inpainting", {}, ROWS),
    ("colorization", {}, ROWS),
    ("fourier", {}, ROWS),
    ("compressed-sensing", {"matrix": "structured"}, ROWS),
    ("compressed-sensing", {"matrix": "dense"}, CG),
    ("super-resolution", {"factor": 4}, CG),
    ("deblurring", {"boundary": "circular"}, CLOSED),
    ("deblurring", {"boundary": "reflect"}, CG),
    ("tomography", {}, CG),
]


#: Their first picture has what the examples, or all channels together, say: total variation knows less.
KNOWN_BEFORE = ("designed-sensing", "colorization")


def _shrinks(monkeypatch: pytest.MonkeyPatch, factor: float) -> None:
    """The denoiser "tv" divides by ``factor``: the proximal map of (factor − 1)/2 ‖x‖², whatever σ."""
    fake = Denoiser("tv", "Shrinking", lambda: None, lambda device: lambda x, sigma: x / factor)
    monkeypatch.setitem(denoisers.DENOISERS, "tv", fake)


@pytest.mark.parametrize("rho", [0.03, 3.0])
@pytest.mark.parametrize(("kind", "settings", "how"), LINEAR)
def test_the_data_step_solves_the_normal_equations(make_problem: Make, kind: str, settings: Any, how: str, rho: float) -> None:
    problem, truth = make_problem(kind, **settings)
    data, model = DataStep(problem), problem.model
    z = truth + 0.1 * torch.randn(truth.shape, generator=torch.Generator().manual_seed(3))
    x = data(z, rho)
    gradient = model.adjoint(model.forward(x) - problem.measurement) + rho * (x - z)  # type: ignore[attr-defined]
    start = model.adjoint(model.forward(z) - problem.measurement)  # type: ignore[attr-defined]
    assert data.how == how
    assert gradient.norm() <= (1e-3 if how == CG else 1e-4) * start.norm()


@pytest.mark.parametrize("matrix", ["dense", "structured"])
def test_ten_subgradient_steps_lower_the_misfit_of_phase_retrieval(make_problem: Make, matrix: str) -> None:
    problem, _ = make_problem("phase-retrieval", ratio=0.5, matrix=matrix)
    data = DataStep(problem)
    z = problem.model.initial(problem.measurement)
    near, far = data(z, 5.0), data(z, 0.01)
    assert data.how == "10 subgradient steps"
    assert data.misfit(far) < data.misfit(near) < data.misfit(z)
    assert (near - z).norm() < (far - z).norm()


def test_the_noise_is_told_in_units_of_the_picture_and_has_a_floor(make_problem: Make) -> None:
    for settings in ({"matrix": "structured"}, {"matrix": "structured", "normalisation": "1"}):
        problem, _ = make_problem("compressed-sensing", sigma=0.0, **settings)
        assert DataStep(problem).level == pytest.approx(LEAST_NOISE)
    assert DataStep(make_problem("denoising", sigma=25.0)[0]).level == pytest.approx(25 / 255, rel=1e-4)
    problem, _ = make_problem("compressed-sensing", sigma=25.0, ratio=0.5, matrix="structured", normalisation="1")
    data = DataStep(problem)
    assert data.noise == pytest.approx(25 / 255)
    assert data.level == pytest.approx(25 / 255 / (problem.model.m**0.5), rel=0.05)
    lost = replace(problem, noise=SaltAndPepperNoise(), noise_std=None)
    assert DataStep(lost).noise > 0


def _recorded(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The noise levels that a denoiser which changes nothing is told, once it was asked."""
    told: list[float] = []

    def record(x: torch.Tensor, sigma: float) -> torch.Tensor:
        told.append(sigma)
        return x

    monkeypatch.setitem(denoisers.DENOISERS, "tv", Denoiser("tv", "Recording", lambda: None, lambda device: record))
    return told


def test_the_size_of_a_matrix_does_not_depend_on_its_seed(make_problem: Make) -> None:
    """Its own draws as a probe would make it look twice as large."""
    problem, _ = make_problem("compressed-sensing", sigma=25.0, ratio=0.25, matrix="dense")
    for seed in (0, 1, 836):
        again = replace(problem, model=problem.operator.build(problem.shape, seed=seed))
        assert DataStep(again).level == pytest.approx(25 / 255, rel=0.1)


def test_dpir_enlarges_with_a_denoiser_that_keeps_some_strength(make_problem: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    told = _recorded(monkeypatch)
    for sigma, least in ((0.0, 4 / 255), (25.0, 25 / 255)):
        problem, _ = make_problem("super-resolution", factor=4, sigma=sigma)
        list(DPIR(denoiser="tv", iterations=3).solve(problem, seeds=[0]))
        assert told[-1] == pytest.approx(least, rel=1e-3)


def test_levels_fall_geometrically() -> None:
    found = levels(0.2, 0.05, 3)
    assert found == pytest.approx([0.2, 0.1, 0.05])
    assert levels(0.1, 0.3, 2) == pytest.approx([0.3, 0.3])
    assert levels(0.2, 0.05, 1) == pytest.approx([0.2])


def test_admm_with_a_true_proximal_map_finds_the_minimiser(make_problem: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """D(x) = x / (1 + a) at constant ρ: the fixed point minimises ½‖A x − y‖² + (ρ a/2) ‖x‖²."""
    _shrinks(monkeypatch, 1.5)
    problem, _ = make_problem("compressed-sensing", ratio=0.3, matrix="structured", channels=1, sigma=20.0)
    method = PnPADMM(denoiser="tv", iterations=200, first=0.1, last=1.0, weight=1.0)
    *_, last = method.solve(problem, seeds=[0])
    rho = (DataStep(problem).noise / DataStep(problem).level) ** 2
    zero = torch.zeros((1, *problem.shape))
    expected = DataStep(problem)(zero, 0.5 * rho)
    torch.testing.assert_close(last.estimate, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("form", ["fixed point", "gradient"])
def test_red_ends_where_its_gradient_is_zero(make_problem: Make, monkeypatch: pytest.MonkeyPatch, form: Any) -> None:
    _shrinks(monkeypatch, 2.0)
    problem, _ = make_problem("deblurring", boundary="circular", channels=1, sigma=20.0)
    method = RED(denoiser="tv", iterations=150, strength=20.0, weight=1.0, form=form)
    steps = list(method.solve(problem, seeds=[0]))
    rho = DataStep(problem).noise ** 2 / (20 / 255) ** 2
    expected = DataStep(problem)(torch.zeros((1, *problem.shape)), 0.5 * rho)
    torch.testing.assert_close(steps[-1].estimate, expected, rtol=1e-3, atol=1e-4)
    losses = [float(step.objective[0]) for step in steps if step.objective is not None]
    assert losses == sorted(losses, reverse=True) or max(b - a for a, b in pairwise(losses)) < 1e-3 * losses[0]
    x = steps[-1].estimate
    assert x is not None
    misfit = (problem.model.forward(x) - problem.measurement).square().sum() / 2
    assert losses[-1] == pytest.approx(float(misfit + rho / 2 * (x * (x - x / 2)).sum()), rel=1e-3)


def test_dpir_has_no_dual_and_the_published_schedule(make_problem: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    told = _recorded(monkeypatch)
    problem, _ = make_problem("deblurring", boundary="circular", sigma=7.65)
    steps = list(DPIR(denoiser="tv", iterations=8).solve(problem, seeds=[0]))
    assert told[0] == pytest.approx(49 / 255)
    assert told[-1] == pytest.approx(DataStep(problem).level)
    assert told == sorted(told, reverse=True)
    data = DataStep(problem)
    x = problem.model.initial(problem.measurement).clamp(0, 1)
    for sigma in told:
        x = data(x, 0.23 * (data.noise / sigma) ** 2)
    torch.testing.assert_close(steps[-1].estimate, x)


@pytest.mark.parametrize("method", [PnPADMM, DPIR, RED])
@pytest.mark.parametrize("sigma", [0.0, 15.0])
@pytest.mark.parametrize("kind", [cls.model_fields["kind"].default for cls in Operator.registry])
def test_every_operator_with_and_without_noise(make_problem: Make, kind: str, sigma: float, method: Any) -> None:
    if Operator.registry[kind].needs_shots:
        base, truth = make_problem("denoising", sigma=sigma)
        model = (operator := Operator.registry[kind]()).build(base.shape, seed=1, shots=base.shots)
        y = base.noise.apply(model.forward(truth), seed=2)
        problem = replace(base, measurement=y, model=model, operator=operator)
    else:
        problem, truth = make_problem(kind, sigma=sigma, channels=3 if kind == "colorization" else 1)
    chosen = method(denoiser="tv").suited(problem.operator)
    assert chosen.denoiser == "tv"
    chosen = chosen.model_copy(update={"iterations": min(chosen.iterations, 8)})
    *_, last = chosen.solve(problem, seeds=[0])
    assert bool(torch.isfinite(last.estimate).all())
    start, found = (psnr(x, truth).item() for x in (problem.model.initial(problem.measurement), last.estimate))
    if kind == "denoising" and not sigma:
        assert found > 40
    elif kind not in KNOWN_BEFORE:
        # Smooth pictures are what bicubic is for, and DPIR as released denoises to the end as if there were noise.
        # Of a first picture at 50 dB (Fourier) a denoiser for photographs takes a little away.
        assert found > min(start, 47) - ((0.6 if method is DPIR else 0.3) if kind == "super-resolution" else 0)


def test_missing_weights_and_packages_are_said_in_words(
    make_problem: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(priors, "CHECKPOINTS", tmp_path)
    monkeypatch.setattr("importlib.util.find_spec", lambda name, package=None: None if name == "bm3d" else True)
    problem, _ = make_problem("denoising")
    for cls in (OnePassDenoiser, PnPADMM, DPIR, RED):
        for name, words in (("neural", "train denoiser"), ("bm3d", "pip install bm3d"), ("drunet", "--official")):
            reason = cls(denoiser=name).accepts(problem)
            assert reason is not None
            assert words in reason
            assert "Another denoiser" in reason
        assert cls(denoiser="tv").accepts(problem) is None
    with pytest.raises(Unsolvable, match="train denoiser"):
        next(iter(DPIR(denoiser="neural").solve(problem, seeds=[0])))


def test_one_pass_is_the_denoiser_itself_and_for_denoising_only(make_problem: Make) -> None:
    problem, _ = make_problem("denoising", sigma=25.0)
    steps = list(OnePassDenoiser(denoiser="tv").solve(problem, seeds=[0]))
    expected = denoisers.get("tv")(problem.measurement, 25 / 255)
    assert [step.stage for step in steps] == ["solve", "result"]
    assert torch.equal(steps[-1].estimate, expected)
    assert "denoising only" in (OnePassDenoiser(denoiser="tv").accepts(make_problem("inpainting")[0]) or "")
    unknown = replace(problem, noise_std=None)
    assert "how strong" in (OnePassDenoiser(denoiser="tv").accepts(unknown) or "")
    quiet, truth = make_problem("denoising", sigma=0.0)
    *_, last = OnePassDenoiser(denoiser="tv").solve(quiet, seeds=[0])
    assert torch.equal(last.estimate, truth)


def test_a_denoiser_that_breaks_down_ends_in_words(make_problem: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    bad = Denoiser("tv", "Bad", lambda: None, lambda device: lambda x, sigma: x * float("inf"))
    monkeypatch.setitem(denoisers.DENOISERS, "tv", bad)
    problem, _ = make_problem("denoising")
    for method in (PnPADMM(denoiser="tv"), DPIR(denoiser="tv"), RED(denoiser="tv")):
        with pytest.raises(Unsolvable, match="not a number"):
            list(method.solve(problem, seeds=[0]))


def test_tuned_settings_are_of_known_operators() -> None:
    kinds = {cls.model_fields["kind"].default for cls in Operator.registry}
    for cls in (PnPADMM, DPIR, RED):
        kind = cls.model_fields["kind"].default
        assert set(TUNED[kind]) <= kinds
        for operator, changes in TUNED[kind].items():
            suited = cls(denoiser="tv").suited(Operator.registry[operator]())
            assert {name: getattr(suited, name) for name in changes} == changes
    assert LEAST_LEVEL > denoisers.LEAST_SIGMA


@pytest.mark.parametrize("kind", ["compressed-sensing", "phase-retrieval"])
def test_stop_is_heard_within_a_data_step(make_problem: Make, kind: str) -> None:
    """Lanczos, conjugate gradients and subgradient steps, which may take seconds, look for it between products."""
    problem, _ = make_problem(kind, matrix="dense", channels=1, ratio=0.6)
    data, z = DataStep(problem), problem.model.initial(problem.measurement)
    answers = iter([False, False, True])
    with interrupt.listening(lambda: next(answers)), pytest.raises(interrupt.Interrupted):
        data(z, 0.1)
    norm = getattr(problem.model, "norm", None) or problem.model.linear_norm  # type: ignore[attr-defined]
    with interrupt.listening(lambda: True), pytest.raises(interrupt.Interrupted):
        norm()


@pytest.mark.parametrize("cls", [OnePassDenoiser, PnPADMM, DPIR, RED])
def test_who_picks_a_method_without_its_weights_gets_one_that_works(
    make_problem: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cls: Any
) -> None:
    problem, _ = make_problem("denoising")
    monkeypatch.setattr(priors, "CHECKPOINTS", tmp_path)
    faces = setup.with_operator(setup.from_set("faces"), "denoising")
    experiment = setup.with_method(faces, cls.model_fields["kind"].default, lane=0)
    assert experiment.methods[0].denoiser == "tv"  # type: ignore[attr-defined]
    assert experiment.methods[0].accepts(problem) is None
    for name in [*cls.presets, setup.DEFAULTS]:
        chosen = setup.with_preset(experiment, name, lane=0)
        assert chosen.methods[0].accepts(problem) is None
        assert setup.preset_choices(chosen, 0)[1] != setup.CHANGED
    assert cls(denoiser="neural").suited(problem.operator).denoiser == "neural"  # what was given stays
    here = replace(denoisers.get("neural"), available=lambda: None)
    monkeypatch.setitem(denoisers.DENOISERS, "neural", here)
    assert cls().at_hand() == cls()
