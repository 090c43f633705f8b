"""What is particular to CS-DIP."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from netprior_core import interrupt, priors
from netprior_core.methods import _learned_regularisation
from netprior_core.methods._common import signed_misfit, total_variation
from netprior_core.methods._learned_regularisation import Regulariser, Statistics, estimate, layers_of
from netprior_core.methods.csdip import CSDIP, LEARNING_SEED, _Best, baseline_for, measured
from netprior_core.networks.dcgan import DCGAN
from netprior_core.noise import GaussianNoise
from netprior_core.operators import Operator
from netprior_core.problem import to_signed

TINY = {"channels": 8, "latent": 8, "iterations": 30, "tv_weight": 0.0}


def _steps(method: CSDIP, problem: Any) -> list[tuple[torch.Tensor, float, torch.Tensor, str, dict[str, Any]]]:
    return [
        (s.output.clone(), float(s.objective), s.estimate.clone(), s.phase, dict(s.info))
        for s in method.solve(problem, seeds=[3])
        if s.stage != "prepare"
    ]


def test_many_rounds_take_little_memory_and_stop_is_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    networks = _weights(3)

    def found() -> Statistics:
        return estimate(networks, rounds=200, samples=64, generator=torch.Generator().manual_seed(1))

    whole = found()
    monkeypatch.setattr(_learned_regularisation, "AT_A_TIME", 64 * 50)
    parts = found()  # other draws of the same weights
    torch.testing.assert_close(parts.mean, whole.mean, rtol=0.1, atol=0.05)
    torch.testing.assert_close(parts.covariance, whole.covariance, rtol=0.2, atol=0.05)
    with interrupt.listening(lambda: True), pytest.raises(interrupt.Interrupted):
        found()


def test_misfit_is_that_of_signed_images(make_problem: Any) -> None:
    problem, truth = make_problem("compressed-sensing", ratio=0.2)
    image = torch.rand_like(truth)
    signed_y = 2 * problem.measurement - problem.model.forward(torch.ones_like(truth))
    direct = (problem.model.forward(to_signed(image)) - signed_y).square().sum()
    torch.testing.assert_close(signed_misfit(problem, image), direct, rtol=1e-4, atol=1e-3)


def test_estimate_is_the_best_of_the_last_k(make_problem: Any) -> None:
    problem, _ = make_problem("compressed-sensing", ratio=0.2)
    *solve, result = _steps(CSDIP(last_k=7, **TINY), problem)
    losses = [loss for _, loss, _, _, _ in solve]
    for i, (_, _, shown, _, _) in enumerate(solve):
        window = range(max(0, i - 6), i + 1)
        assert torch.equal(shown, solve[min(window, key=lambda j: losses[j])][0])
    assert result[4]["returns"] == 1 + min(range(23, 30), key=lambda j: losses[j])


def test_restarts_keep_the_best_fit_and_say_which(make_problem: Any) -> None:
    problem, _ = make_problem("compressed-sensing", ratio=0.2)
    *solve, result = _steps(CSDIP(restarts=3, last_k=1, **TINY), problem)
    assert [phase for _, _, _, phase, _ in solve[::30]] == [f"restart {i} of 3" for i in (1, 2, 3)]
    ends = [solve[i] for i in (29, 59, 89)]
    assert not torch.equal(ends[0][0], ends[1][0])
    best = min(range(3), key=lambda i: ends[i][1])
    assert torch.equal(result[2], ends[best][0])
    assert result[4]["returns"] == (best + 1) * 30


def test_total_loss_selects_within_a_restart_and_the_misfit_between_restarts() -> None:
    def kept(*restarts: list[tuple[float, float]]) -> int:
        best, at = None, 0
        for scores in restarts:
            best = _Best(2, before=best)
            for score, misfit in scores:
                at += 1
                best.add(at, torch.full((1, 1, 1, 1), float(at)), torch.tensor([score]), torch.tensor([misfit]))
                drawn = best.estimate()
        assert best is not None
        assert float(drawn) == best.settled().iteration
        return best.settled().iteration

    assert kept([(1.0, 9.0), (3.0, 2.0), (2.0, 3.0)]) == 3  # of the last two, whatever was before
    assert kept([(1.0, 3.0)], [(2.0, 2.0)]) == 2
    assert kept([(2.0, 2.0)], [(1.0, 3.0)]) == 1


def test_weights_as_released_are_those_of_its_time(make_problem: Any) -> None:
    problem, _ = make_problem("compressed-sensing", ratio=0.2)
    scales = {}
    for name in ("as published", "as released, x-ray"):
        network = CSDIP.preset(name)._network(problem, torch.Generator().manual_seed(0))
        scales[name] = torch.cat([m.weight.detach() for m in network.modules() if isinstance(m, torch.nn.BatchNorm2d)])
    assert float(scales["as published"].min()) > 0.9
    assert float(scales["as released, x-ray"].min()) < 0.1
    assert float(scales["as released, x-ray"].mean()) == pytest.approx(0.5, abs=0.1)


def test_total_loss_can_select(make_problem: Any) -> None:
    problem, _ = make_problem("compressed-sensing", ratio=0.2)
    settings = {**TINY, "tv_weight": 10.0}
    *solve, result = _steps(CSDIP(last_k=30, select_by="total loss", **settings), problem)
    losses = [loss for _, loss, _, _, _ in solve]
    assert result[4]["returns"] == 1 + min(range(30), key=lambda j: losses[j])


def test_total_variation_counts_every_jump_once() -> None:
    x = torch.zeros(1, 1, 4, 4)
    x[..., 1:, :] = 1.0
    assert total_variation(x).item() == 4.0
    assert total_variation(x.transpose(-1, -2)).item() == 4.0


@pytest.mark.parametrize(("ratio", "iterations"), [(0.025, 350), (0.05, 500), (0.5, 500), (0.9, 1000)])
def test_the_low_shot_papers_baseline_adapts_to_the_ratio(ratio: float, iterations: int) -> None:
    baseline = CSDIP.preset("low-shot paper's baseline, m/n ≤ 0.5")
    assert baseline.suited(Operator.registry["compressed-sensing"](ratio=ratio)).iterations == iterations


def test_suited_keeps_the_variant() -> None:
    released = CSDIP.preset("as released, x-ray")
    assert released.suited(Operator.registry["denoising"]()) == released
    assert CSDIP(iterations=17).suited(Operator.registry["denoising"]()).preset_name() == "as published"


LEARNED = {"channels": 4, "latent": 4, "iterations": 5, "learning_samples": 16, "learning_rounds": 50}


def _weights(count: int) -> list[list[torch.Tensor]]:
    """Networks of two layers: N(0.5, 0.1²) and N(-1, 0.2²)."""
    g = torch.Generator().manual_seed(0)
    return [[0.5 + 0.1 * torch.randn((30, 40), generator=g), -1 + 0.2 * torch.randn((500,), generator=g)] for _ in range(count)]


def test_algorithm_1_finds_mean_and_variance_of_each_layer() -> None:
    found = estimate(_weights(3), rounds=500, samples=64, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(found.mean, torch.tensor([0.5, -1.0]), atol=0.02, rtol=0)
    torch.testing.assert_close(found.covariance.diagonal().sqrt(), torch.tensor([0.1, 0.2]), atol=0.01, rtol=0)
    assert abs(found.covariance[0, 1]) < 0.1 * 0.2 * 0.05
    torch.testing.assert_close(found.covariance, found.covariance.T)


def test_algorithm_1_visits_every_network() -> None:
    networks = [[torch.full((20,), float(q))] for q in range(4)]
    found = estimate(networks, rounds=400, samples=8, generator=torch.Generator().manual_seed(1))
    assert found.mean.item() == pytest.approx(1.5, abs=0.2)
    assert found.covariance.item() == pytest.approx(0.0, abs=1e-6)  # within a network, as Σ_t is: the weights there are equal


def test_both_forms_are_what_their_equations_say() -> None:
    network = DCGAN(16, 16, 1, latent=4, channels=4, layers="cs-dip")
    convolutions = [p for p in network.parameters() if p.ndim == 4]
    assert [len(layers_of(network, form)) for form in ("published", "released")] == [3, 7]
    generator = torch.Generator().manual_seed(0)
    statistics = {
        form: estimate([layers_of(network, form)], rounds=200, samples=64, generator=generator)
        for form in ("published", "released")
    }
    with torch.no_grad():
        for p in network.parameters():
            p.add_(0.1)

    published, s = Regulariser(statistics["published"], "published", network)(), statistics["published"]
    direct = sum(((w - mu).square() / v).sum() for w, mu, v in zip(convolutions, s.mean, s.covariance.diagonal(), strict=True))
    torch.testing.assert_close(published, torch.as_tensor(direct), rtol=1e-4, atol=0)

    released, s = Regulariser(statistics["released"], "released", network)(), statistics["released"]
    apart = torch.stack([p.mean() for p in network.parameters()]).double() - s.mean
    covariance = s.covariance.double()
    covariance.diagonal().clamp_(min=1e-8)
    torch.testing.assert_close(released.double(), apart @ torch.linalg.inv(covariance) @ apart, rtol=1e-3, atol=0)
    released.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())


def test_the_released_form_has_the_codes_nineteen_tensors_at_256() -> None:
    with torch.device("meta"):
        network = DCGAN(256, 256, 1, latent=64, channels=64, layers="cs-dip")
    assert len(layers_of(network, "released")) == 19
    assert len(layers_of(network, "published")) == 7


@pytest.mark.parametrize("form", ["published", "released"])
def test_learning_streams_then_pulls_the_weights(make_problem: Any, form: str) -> None:
    problem, _ = make_problem("compressed-sensing", ratio=0.2, channels=1, side=16)
    stages, phases, losses = [], [], []
    for step in CSDIP(**LEARNED, regularisation=form, regularisation_weight=50.0, learning_images=2).solve(problem, seeds=[3]):
        stages.append(step.stage)
        if step.stage == "prepare":
            assert step.output.shape == (2, 1, 16, 16)
            assert step.estimate is None
            phases.append(step.phase)
        else:
            losses.append(float(step.objective))
    assert stages == ["prepare"] * 10 + ["solve"] * 5 + ["result"]
    assert list(dict.fromkeys(phases)) == [f"learning from measurement {q} of 2" for q in (1, 2)]
    plain = [float(s.objective) for s in CSDIP(**LEARNED).solve(problem, seeds=[3])]
    assert losses[0] > plain[0]  # the same network: what is more is the regularisation


def test_statistics_are_kept_and_found_bit_for_bit(make_problem: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    problem, _ = make_problem("compressed-sensing", ratio=0.2, channels=1, side=16)
    method = CSDIP(**LEARNED, regularisation="released", learning_images=2)
    first = _steps(method, problem)
    monkeypatch.setattr(CSDIP, "_learning", lambda *_: pytest.fail("learned again"))
    again = _steps(method, problem)
    assert len(again) == len(first)
    for a, b in zip(first, again, strict=True):
        assert torch.equal(a[2], b[2])
        assert a[1] == b[1]


def test_the_key_holds_all_that_statistics_depend_on(make_problem: Any) -> None:
    problem, _ = make_problem("compressed-sensing", ratio=0.2, channels=1, side=16)
    method = CSDIP(**LEARNED, regularisation="released")
    others = [
        (CSDIP(**LEARNED, regularisation="published"), problem),
        (CSDIP(**{**LEARNED, "iterations": 6}, regularisation="released"), problem),
        (CSDIP(**LEARNED, regularisation="released", first_weights="released"), problem),
        (method, replace(problem, noise=GaussianNoise(sigma=3))),
        (method, replace(problem, operator=Operator.registry["compressed-sensing"](ratio=0.3))),
        (method, replace(problem, shots=problem.shots[:-1])),
    ]
    keys = {method.key(problem), *(m.key(p) for m, p in others)}
    assert len(keys) == 7
    assert method.key(replace(problem, measurement=problem.measurement + 1)) == method.key(problem)
    stronger = method.model_copy(update={"regularisation_weight": 7.0})
    assert stronger.key(problem) == method.key(problem)  # the weight is used in solving only


def test_each_shot_is_measured_with_an_operator_of_its_own(make_problem: Any) -> None:
    problem, _ = make_problem("compressed-sensing", ratio=0.2, channels=1, side=16)
    shot = problem.shots[:1]
    a, b = measured(problem, shot, LEARNING_SEED), measured(problem, shot, LEARNING_SEED + 1)
    clean = [p.model.forward(shot) for p in (problem, a, b)]
    assert not torch.allclose(clean[0], clean[1])
    assert not torch.allclose(clean[1], clean[2])
    assert a.shots is None  # nothing but the measurement to learn from
    std = (a.measurement - clean[1]).std().item()
    assert std == pytest.approx(problem.noise_std, rel=0.4)


def test_learned_enough_ends_learning_with_the_measurements_that_are_fitted(make_problem: Any) -> None:
    problem, _ = make_problem("compressed-sensing", ratio=0.2)
    method = CSDIP(**LEARNED, regularisation="released", learning_images=3)
    phases = []
    for step in method.solve(problem, seeds=[0]):
        phases.append((step.stage, step.phase))
        if step.phase.endswith("1 of 3"):
            problem.enough.set()  # of the first measurement everything is needed
    assert phases.count(("prepare", "learning from measurement 1 of 3")) == LEARNED["iterations"]
    assert phases.count(("prepare", "learning from measurement 2 of 3")) == 1
    assert phases[-1][0] == "result"
    assert priors.find(method.key(problem)) is None  # not what these settings stand for


def test_learning_needs_shots_of_the_images_size(make_problem: Any) -> None:
    problem, _ = make_problem("compressed-sensing", ratio=0.2, channels=1, side=16)
    method = CSDIP(**LEARNED, regularisation="published")
    assert "shot" in (method.accepts(replace(problem, shots=None)) or "")
    assert "same size" in (method.accepts(replace(problem, shots=torch.rand(2, 1, 8, 8))) or "")
    assert method.accepts(problem) is None


def test_a_prior_that_does_not_fit_counts_as_absent() -> None:
    kept = estimate(_weights(1), rounds=5, samples=4, generator=torch.Generator().manual_seed(1)).as_kept()
    assert Statistics.from_kept(kept, 2) is not None
    assert Statistics.from_kept(kept, 3) is None
    assert Statistics.from_kept({"mean": kept["mean"]}, 2) is None
    assert Statistics.from_kept({**kept, "mean": torch.tensor([float("nan"), 0.0]).view(torch.int32)}, 2) is None


def test_suited_keeps_learned_regularisation() -> None:
    operator = Operator.registry["denoising"]()
    changed = CSDIP(iterations=17, regularisation="published", regularisation_weight=3.0).suited(operator)
    assert (changed.iterations, changed.regularisation, changed.regularisation_weight) == (1000, "published", 3.0)


def test_the_step_size_rises_where_asked_and_in_every_restart(make_problem: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    problem, _ = make_problem("compressed-sensing", ratio=0.2)
    used: list[float] = []

    class Spy(torch.optim.RMSprop):
        def step(self, closure: Any = None) -> Any:
            used.append(self.param_groups[0]["lr"])
            return super().step(closure)

    monkeypatch.setattr(torch.optim, "RMSprop", Spy)
    tiny = {**TINY, "iterations": 6, "learning_rate": 0.01}
    _steps(CSDIP(**tiny, warm_up=4, restarts=2), problem)
    assert used == pytest.approx([0.0025, 0.005, 0.0075, 0.01, 0.01, 0.01] * 2)
    used.clear()
    _steps(CSDIP(**tiny), problem)
    assert used == [0.01] * 6


@pytest.mark.parametrize(
    ("kind", "settings", "preset"),
    [
        ("compressed-sensing", {"ratio": 0.02}, "m/n ≤ 0.025"),
        ("colorization", {}, "m/n ≤ 0.5"),
        ("super-resolution", {"factor": 8}, "m/n ≤ 0.025"),
        ("inpainting", {"keep": 0.2}, "m/n ≤ 0.5"),
        ("denoising", {}, "m/n > 0.5"),
    ],
)
def test_the_baseline_stops_by_what_the_operator_measures(kind: str, settings: dict[str, Any], preset: str) -> None:
    suited = CSDIP.preset(baseline_for(1)).suited(Operator.registry[kind](**settings))
    assert (suited.preset_name() or "").endswith(preset)
