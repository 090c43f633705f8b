"""What is particular to low-shot priors."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from shared import returned

from netprior_core import priors
from netprior_core.compute import choose
from netprior_core.generators import drawing_of
from netprior_core.methods import _shots, lowshot
from netprior_core.methods._shots import Pretrained, build, mmd, paired, settle
from netprior_core.methods.csgm import CSGM
from netprior_core.methods.lowshot import LowShot
from netprior_core.metrics import psnr
from netprior_core.networks.seeded import seeded

TINY = {"pretrain_iterations": 40, "latent_iterations": 12, "joint_iterations": 12, "channels": 4, "latent": 8}


def _run(method: LowShot, problem: Any, seed: int = 0) -> list[tuple[str, str, int, torch.Tensor | None, dict[str, Any]]]:
    return [
        (s.stage, s.phase, s.iteration, None if s.output is None else s.output.clone(), dict(s.info))
        for s in method.solve(problem, seeds=[seed])
    ]


def test_preparation_streams_all_shots_and_learns_them(make_problem: Any) -> None:
    problem, _ = make_problem("compressed-sensing", ratio=0.2)
    steps = _run(LowShot(**{**TINY, "pretrain_iterations": 200, "channels": 8, "latent_jitter": 0.0}), problem)
    prepared = [(iteration, output) for stage, _, iteration, output, _ in steps if stage == "prepare"]
    assert [i for i, _ in prepared] == [*range(1, 201), 200]
    assert all(output is not None and output.shape == problem.shots.shape for _, output in prepared)
    quality = [psnr(output, problem.shots).mean().item() for _, output in prepared]
    assert quality[-1] > quality[0] + 8


def test_stages_follow_one_another(make_problem: Any) -> None:
    problem, _ = make_problem("compressed-sensing", ratio=0.2)
    phases = [(phase, iteration) for stage, phase, iteration, _, _ in _run(LowShot(**TINY), problem) if stage == "solve"]
    assert phases == [("latent" if i <= 12 else "joint", i) for i in range(1, 25)]


@pytest.mark.parametrize("loss", ["l2", "mmd"])
def test_the_second_run_starts_solving_at_once_and_is_the_same(make_problem: Any, loss: str) -> None:
    problem, _ = make_problem("compressed-sensing", ratio=0.2)
    first, second = (_run(LowShot(loss=loss, **TINY), problem) for _ in range(2))  # type: ignore[arg-type]
    assert [phase for stage, phase, *_ in second if stage == "prepare"] == ["cached"]
    solved = [[output for stage, _, _, output, _ in run if stage != "prepare"] for run in (first, second)]
    assert all(torch.equal(a, b) for a, b in zip(*solved, strict=True))  # type: ignore[arg-type]


def test_the_runs_seed_leaves_pretraining_alone(make_problem: Any) -> None:
    problem, _ = make_problem("compressed-sensing", ratio=0.2)
    _run(LowShot(**TINY), problem, seed=0)
    assert next(iter(_run(LowShot(**TINY), problem, seed=1)))[1] == "cached"


def test_other_shots_or_settings_are_learned_anew(make_problem: Any) -> None:
    problem, _ = make_problem("compressed-sensing", ratio=0.2)
    method = LowShot(**TINY)
    key = method.key(problem.shots)
    assert key == method.model_copy(update={"joint_iterations": 5, "tv_weight": 3.0, "precision": "float32"}).key(problem.shots)
    assert key != method.key(problem.shots[:-1])
    changed = {"loss": "mmd", "pretrain_iterations": 41, "latent": 9, "channels": 5, "latent_jitter": 0.5, "pretrain_seed": 1}
    for name, value in {**changed, "batch": 2}.items():
        assert key != method.model_copy(update={name: value}).key(problem.shots), name


def test_an_unwritable_cache_is_said_and_the_run_goes_on(make_problem: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    problem, _ = make_problem("compressed-sensing", ratio=0.2)
    monkeypatch.setattr(priors, "remember", lambda *_: "No room to keep it.")
    steps = _run(LowShot(**TINY), problem)
    assert [info["note"] for *_, info in steps if "note" in info] == ["No room to keep it."]
    assert steps[-1][0] == "result"


def test_a_damaged_cache_is_learned_anew(make_problem: Any) -> None:
    problem, _ = make_problem("compressed-sensing", ratio=0.2)
    method = LowShot(**TINY)
    key = method.key(problem.shots)
    priors.remember(key, {"latents": torch.zeros(6, 8), "network.head.weight": torch.zeros(3)}, {})
    assert _run(method, problem)[0][1] == "pre-training"


def test_shots_of_another_size_or_too_few_are_refused(make_problem: Any) -> None:
    problem, _ = make_problem("compressed-sensing", ratio=0.2)
    small = replace(problem, shots=problem.shots[..., ::2, ::2])
    assert "same size" in (LowShot().accepts(small) or "")
    one = replace(problem, shots=problem.shots[:1])
    assert LowShot().accepts(one) is None
    assert "two" in (LowShot(loss="mmd").accepts(one) or "")
    assert "batch" in (LowShot(loss="mmd", batch=1).accepts(problem) or "")


def test_one_shot_and_small_batches_work(make_problem: Any) -> None:
    problem, _ = make_problem("denoising")
    assert _run(LowShot(**TINY), replace(problem, shots=problem.shots[:1]))[-1][0] == "result"
    steps = _run(LowShot(**TINY, batch=4), problem)
    assert steps[0][3].shape == problem.shots.shape  # type: ignore[union-attr]


def test_latents_are_sampled_with_the_mean_and_covariance_of_the_shots() -> None:
    latents = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    g = torch.Generator().manual_seed(1)
    draws = torch.cat([Pretrained({}, latents).sample(g) for _ in range(4000)])
    torch.testing.assert_close(draws.mean(0), latents.mean(0), atol=0.1, rtol=0)
    torch.testing.assert_close(draws.T.cov(), latents.T.cov(), atol=0.15, rtol=0.1)


def test_samples_lie_in_the_span_of_the_shots() -> None:
    latents = torch.randn(3, 10, generator=torch.Generator().manual_seed(0), dtype=torch.float64).float()
    z = Pretrained({}, latents).sample(torch.Generator().manual_seed(1)) - latents.mean(0)
    basis = latents - latents.mean(0)
    assert torch.linalg.matrix_rank(torch.cat([basis, z]), tol=1e-4).item() == 2


def test_mmd_by_hand() -> None:
    g, x = torch.tensor([0.0, 1.0]).view(2, 1, 1, 1), torch.tensor([0.0, 2.0]).view(2, 1, 1, 1)
    k = lambda d: float(torch.exp(torch.tensor(-(d**2) / 4.0)))  # noqa: E731
    expected = k(1) + k(2) - 2 * (k(0) + k(2) + k(1) + k(1)) / 4
    assert mmd(g, x, 4.0).item() == pytest.approx(expected, abs=1e-6)
    assert mmd(g, x).item() == pytest.approx(expected, abs=1e-6)  # the median of one squared distance, 4


def test_latents_learned_with_the_mmd_are_in_the_order_of_the_examples() -> None:
    shots = torch.full((3, 1, 16, 16), 0.2)  # equally far from one another
    shots[0, :, :8], shots[1, :, :, :8], shots[2, :, 4:12, 4:12] = 0.8, 0.8, 0.8
    method = LowShot(loss="mmd", pretrain_iterations=200, channels=4, latent=4, latent_jitter=0.0, mirror=False)
    trained = returned(method.pretraining(shots, choose("float32", "cpu")))
    drawn = method.remembered(trained, (1, 16, 16), 3)
    assert paired(drawn, shots).tolist() == [0, 1, 2]
    assert paired(drawn[[2, 0, 1]], shots).tolist() == [1, 2, 0]
    assert psnr(drawn, shots).min() > 15


def test_mmd_does_not_depend_on_the_order_of_the_images() -> None:
    g = torch.Generator().manual_seed(0)
    a, b = torch.rand(5, 1, 4, 4, generator=g), torch.rand(5, 1, 4, 4, generator=g)
    torch.testing.assert_close(mmd(a, b), mmd(a[[2, 0, 1, 4, 3]], b.flip(0)))


def test_solving_uses_the_statistics_of_all_shots() -> None:
    net = seeded(lambda: build((1, 16, 16), 8, 4), 0, scheme="dcgan")
    z = torch.randn(6, 8)
    together = settle(net, z)
    assert not net.training
    alone = torch.cat([net(z[i : i + 1]) for i in range(6)])
    torch.testing.assert_close(alone, together, atol=0.05, rtol=0)  # variances differ by n / (n − 1)


def test_key_does_not_depend_on_the_device_chosen() -> None:
    shots = torch.rand(2, 1, 16, 16)
    assert LowShot(precision="float32").key(shots) == LowShot(precision="bfloat16").key(shots)
    assert choose("float32", "cpu").dtype == torch.float32


def test_learned_enough_solves_with_what_there_is_and_keeps_it_under_a_name_of_its_own(make_problem: Any) -> None:
    problem, _ = make_problem("compressed-sensing", ratio=0.2)
    method = LowShot(**TINY)
    prepared, solved, name, note = 0, 0, "", ""
    for step in method.solve(problem, seeds=[0]):
        prepared += step.stage == "prepare"
        solved += step.stage == "solve"
        if "prior" in step.info:
            name, note = step.info["prior"], step.info["note"]
        if prepared == 10:
            problem.enough.set()
    assert prepared == 11  # the tenth, then the examples as they are drawn at the end
    assert solved == TINY["latent_iterations"] + TINY["joint_iterations"]
    assert priors.find(method.key(problem.shots)) is None  # not what these settings stand for
    assert f"after 10 of {TINY['pretrain_iterations']} steps" in note
    kept = priors.where(name)
    assert kept is not None
    assert priors.card_of(kept)["steps"] == 10
    again = LowShot(**{**TINY, "prior": name})
    assert _run(again, replace(problem, shots=None))[-1][0] == "result"
    card, shown = priors.named(name).card, again.learned(None, problem.shape)
    assert shown is not None
    assert len(shown.latents) == (2 if card["settings"]["mirror"] else 1) * len(shown.examples)


def test_what_is_learned_to_the_end_is_named_by_its_key_and_again_when_it_is_found(make_problem: Any) -> None:
    problem, _ = make_problem("compressed-sensing", ratio=0.2)
    method = LowShot(**TINY)
    for _ in range(2):
        names = {info["prior"] for *_, info in _run(method, problem) if "prior" in info}
        assert names == {method.key(problem.shots)}


def test_a_prior_of_ones_own_needs_no_examples(make_problem: Any, tmp_path: Path) -> None:
    problem, _ = make_problem("compressed-sensing", ratio=0.2)
    method = LowShot(**TINY)
    learned = _run(method, problem)
    kept = priors.cache_folder() / f"{method.key(problem.shots)}.safetensors"
    name = priors.adopt(kept.read_bytes())
    again = LowShot(**{**TINY, "channels": 32, "latent": 128}, prior=name)  # the file knows its own width
    bare = replace(problem, shots=None)
    assert again.accepts(bare) is None
    steps = _run(again, bare)
    assert steps[0][:2] == ("prepare", "cached")
    assert "Starts from the prior" in steps[0][4]["note"]
    assert torch.equal(steps[-1][3], learned[-1][3])  # type: ignore[arg-type]
    other, _ = make_problem("compressed-sensing", ratio=0.2, channels=1)
    assert "3×32×32" in (again.accepts(other) or "")
    assert "not here" in (LowShot(prior="own-nothing").accepts(bare) or "")
    assert "lower-case" in (LowShot(prior="../../etc/passwd").accepts(bare) or "")


def test_training_resumes_exactly(make_problem: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_shots, "KEEP_EVERY", 6)
    problem, _ = make_problem("denoising")
    method, compute = LowShot(**{**TINY, "pretrain_iterations": 15, "batch": 3}, precision="float32"), choose("float32", "cpu")
    states: list[Any] = []

    def trained(**state: Any) -> Pretrained:
        stream = method.pretraining(problem.shots, compute, **state)
        while True:
            try:
                next(stream)
            except StopIteration as stop:
                found: Pretrained = stop.value
                return found

    whole = trained(keep=lambda state: states.append(copy.deepcopy(dict(state))))
    assert [state["iteration"] for state in states] == [6, 12]
    rest = trained(resume=states[0])
    assert torch.equal(rest.latents, whole.latents)
    assert all(torch.equal(rest.weights[name], value) for name, value in whole.weights.items())


def test_a_left_out_example_is_not_learned_but_watched(make_problem: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_shots, "PROBE_EVERY", 20)
    problem, _ = make_problem("compressed-sensing", ratio=0.2)
    method = LowShot(**{**TINY, "pretrain_iterations": 120, "channels": 8, "latent_jitter": 0.5}, left_out=True)
    notes, sizes = [], set()
    for stage, phase, _, output, info in _run(method, problem):
        if stage == "prepare":
            sizes.add(len(output))  # type: ignore[arg-type]
            if phase == "pre-training":
                notes.append(info["note"])
    assert sizes == {5}
    assert len(set(notes)) >= 3
    assert "left-out example" in notes[-1]
    quality = [float(note.split(" at ")[1].split(" dB")[0]) for note in notes]
    assert quality[-1] > quality[0] + 2
    changed = problem.shots.clone()
    changed[-1] = 0
    assert method.key(changed) == method.key(problem.shots)  # it is no part of what was learned
    assert method.key(problem.shots) == LowShot(**{**method.model_dump(), "left_out": False}).key(problem.shots[:-1])
    two = replace(problem, shots=problem.shots[:2])
    assert len(method.examples(two.shots)) == 4


def test_a_random_start_looks_at_no_example_and_goes_with_the_seed(make_problem: Any) -> None:
    problem, truth = make_problem("compressed-sensing", ratio=0.5)
    bare = replace(problem, shots=None)
    method = LowShot(**{**TINY, "joint_iterations": 60}, start="random", prior="own-nothing")
    assert method.accepts(bare) is None
    runs = [_run(method, p, seed) for p, seed in ((bare, 0), (problem, 0), (bare, 1))]
    assert all(stage != "prepare" for run in runs for stage, *_ in run)
    assert torch.equal(runs[0][-1][3], runs[1][-1][3])  # type: ignore[arg-type]
    assert not torch.equal(runs[0][-1][3], runs[2][-1][3])  # type: ignore[arg-type]
    quality = [psnr(output, truth).item() for _, _, _, output, _ in runs[0] if output is not None]
    assert quality[-1] > quality[0]
    assert method.learned(problem.shots, problem.shape) is None


def test_the_upsampling_generator_is_kept_found_and_searched(make_problem: Any) -> None:
    problem, _ = make_problem("compressed-sensing", ratio=0.2)
    method = LowShot(**TINY, layers="upsampling")
    assert method.key(problem.shots) != LowShot(**TINY).key(problem.shots)
    first, second = (_run(method, problem) for _ in range(2))
    assert [phase for stage, phase, *_ in second if stage == "prepare"] == ["cached"]
    assert torch.equal(first[-1][3], second[-1][3])  # type: ignore[arg-type]
    kept = priors.cache_folder() / f"{method.key(problem.shots)}.safetensors"
    name = priors.adopt(kept.read_bytes())
    again = _run(LowShot(**TINY, prior=name), replace(problem, shots=None))  # the file knows its own kind
    assert torch.equal(again[-1][3], first[-1][3])  # type: ignore[arg-type]
    drawing = drawing_of(priors.named(name))
    assert (drawing.latent, drawing.channels) == (TINY["latent"], TINY["channels"])
    *_, last = CSGM(generator=name, iterations=5, restarts=1).solve(problem, seeds=[0])
    assert last.estimate is not None
    assert last.estimate.shape == (1, *problem.shape)


def test_a_denoiser_pulls_the_joint_stage_alone_and_never_the_key(make_problem: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    problem, _ = make_problem("compressed-sensing", ratio=0.2)
    wanted, asked = torch.full((1, *problem.shape), 0.25), []

    def denoise(x: torch.Tensor, sigma: float) -> torch.Tensor:
        asked.append(sigma)
        return wanted

    monkeypatch.setattr(lowshot.denoisers, "load", lambda name, device: denoise)
    plain = LowShot(**{**TINY, "joint_iterations": 80}, joint_learning_rate=1e-2)
    pulled = plain.model_copy(update={"denoiser_weight": 100.0})
    assert pulled.key(problem.shots) == plain.key(problem.shots)
    runs = [[s for s in _run(method, problem) if s[0] == "solve"] for method in (plain, pulled)]
    assert asked == [10 / 255] * 21  # at its first step, then every fourth
    for (_, phase, iteration, one, _), (*_, other, _) in zip(*runs, strict=True):
        assert torch.equal(one, other) == (iteration <= TINY["latent_iterations"] + 1), (phase, iteration)  # type: ignore[arg-type]
    distances = [float((run[-1][3] - wanted).square().mean()) for run in runs]  # type: ignore[operator]
    assert distances[1] < distances[0] / 4


def test_without_the_denoisers_weights_only_its_own_presets_are_refused(make_problem: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    problem, _ = make_problem("compressed-sensing", ratio=0.2)
    missing = replace(lowshot.denoisers.get("neural"), available=lambda: "its weights are not here.")
    monkeypatch.setitem(lowshot.denoisers.DENOISERS, "neural", missing)
    assert "weights are not here. Or set its weight to 0" in str(LowShot.preset("ours, denoised").accepts(problem))
    assert LowShot.preset("ours, upsampling").accepts(problem) is None
