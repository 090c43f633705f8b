"""Mismatch and measurements of one's own: what the methods are told, and that the truth stays out of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from shared import experiment_of

from netprior_core.errors import InvalidSettings
from netprior_core.experiment import Experiment, build, parse, race_of
from netprior_core.images import sha256_of
from netprior_core.mismatch import Mismatch
from netprior_core.operators import Operator
from netprior_core.ui import setup

SENSING = {"kind": "compressed-sensing", "ratio": 0.3}


def _told(**changes: Any) -> Experiment:
    return experiment_of(operator=SENSING, mismatch={"kind": "mismatch", **changes})


def test_nothing_is_wrong_unless_asked_for() -> None:
    experiment = experiment_of()
    assert experiment.mismatch == Mismatch()
    assert experiment.mismatch.describe(experiment.operator) == ""


def test_the_measurement_stays_and_the_told_operator_changes() -> None:
    right, truth = build(_told(), {})
    wrong, same = build(_told(operator_error=1), {})
    assert truth is not None
    assert same is not None
    assert torch.equal(right.measurement, wrong.measurement)
    assert torch.equal(truth, same)
    off = (wrong.model.forward(truth) - right.model.forward(truth)).norm() / right.model.forward(truth).norm()
    assert 0.05 < float(off) < 0.2


def test_methods_are_told_another_noise_level() -> None:
    right, _ = build(_told(), {})
    wrong, _ = build(_told(noise_factor=2), {})
    assert torch.equal(right.measurement, wrong.measurement)
    assert right.noise_std is not None
    assert wrong.noise_std == pytest.approx(2 * right.noise_std)


def test_what_is_wrong_is_said() -> None:
    experiment = _told(operator_error=0.5, noise_factor=3)
    race = race_of(experiment.model_copy(update={"methods": experiment.methods[1:]}), {}).run()
    assert "wrong A" in race.description
    assert "3 × the true σ" in race.description


@pytest.mark.parametrize(
    ("operator", "mismatch", "words"),
    [
        ({"kind": "denoising"}, {"operator_error": 0.5}, "nothing in it"),
        ({"kind": "denoising"}, {"finer_grid": True}, "finer grid"),
    ],
)
def test_what_cannot_be_wrong_is_refused(operator: dict[str, Any], mismatch: dict[str, Any], words: str) -> None:
    experiment = experiment_of(operator=operator, mismatch={"kind": "mismatch", **mismatch})
    with pytest.raises(InvalidSettings, match=words):
        build(experiment, {})


def test_another_operator_drops_what_it_cannot_have() -> None:
    experiment = setup.with_operator(_told(operator_error=0.5, noise_factor=2), "denoising")
    assert experiment.mismatch == Mismatch(noise_factor=2)


@pytest.mark.parametrize("kind", [cls.model_fields["kind"].default for cls in Operator.registry if cls.simulates_finer])
def test_a_finer_grid_measures_nearly_the_same(kind: str) -> None:
    sets: dict[str, Any] = {
        "target": {"source": "embedded", "set": "phantoms", "index": 0},
        "noise": {"kind": "gaussian", "sigma": 0},
    }
    coarse, truth = build(experiment_of(operator={"kind": kind}, **sets), {})
    finer, same = build(experiment_of(operator={"kind": kind}, mismatch={"kind": "mismatch", "finer_grid": True}, **sets), {})
    assert truth is not None
    assert same is not None
    assert torch.equal(truth, same)
    off = float((finer.measurement - coarse.measurement).norm() / coarse.measurement.norm())
    assert 1e-4 < off < 0.06


@pytest.mark.parametrize("index", range(4))
def test_a_finer_phantom_has_the_contrast_of_the_coarse_one(index: int) -> None:
    target = {"source": "embedded", "set": "phantoms", "index": index}
    sets: dict[str, Any] = {"target": target, "size": 64, "noise": {"kind": "gaussian", "sigma": 0}}
    sets["operator"] = {"kind": "tomography"}
    coarse, _ = build(experiment_of(**sets), {})
    finer, _ = build(experiment_of(mismatch={"kind": "mismatch", "finer_grid": True}, **sets), {})
    assert float((finer.measurement - coarse.measurement).norm()) < 0.03 * float(coarse.measurement.norm())


def test_a_measurement_of_ones_own_has_no_finer_grid() -> None:
    with pytest.raises(InvalidSettings, match="finer grid"):
        _measured(np.zeros((32, 32), np.float32), mismatch={"kind": "mismatch", "finer_grid": True})


# A measurement of one's own


def _measured(array: np.ndarray, **changes: Any) -> tuple[Experiment, dict[str, np.ndarray]]:
    digest = sha256_of(array)
    target = {"source": "array", "sha256": digest, "name": "mine.npy"}
    return experiment_of(target=target, target_is="measurement", **changes), {digest: array}


@pytest.mark.parametrize("kind", [cls.model_fields["kind"].default for cls in Operator.registry])
def test_the_numbers_of_a_measurement_are_what_methods_get(kind: str) -> None:
    channels = 3 if kind == "colorization" else 1
    simulated, _ = build(experiment_of(operator={"kind": kind}, channels=channels), {})
    array = simulated.measurement[0].numpy().copy()
    experiment, uploads = _measured(array, operator={"kind": kind}, channels=channels)
    problem, truth = build(experiment, uploads)
    assert truth is None
    assert torch.equal(problem.measurement, simulated.measurement)
    assert parse(experiment.to_json()) == experiment


def test_an_array_is_no_truth_and_must_fit() -> None:
    with pytest.raises(InvalidSettings, match="is a measurement"):
        experiment_of(target={"source": "array", "sha256": "ab" * 32})
    experiment, uploads = _measured(np.zeros((7, 5), np.float32))
    with pytest.raises(InvalidSettings, match=r"7×5.*1×32×32"):
        build(experiment, uploads)
    with pytest.raises(InvalidSettings, match="not here"):
        build(experiment, {})
    complex_one, uploads = _measured(np.zeros((32, 32), np.complex64))
    with pytest.raises(InvalidSettings, match="complex"):
        build(complex_one, uploads)


def test_a_picture_with_holes_may_be_given_whole() -> None:
    picture = np.random.default_rng(0).random((32, 32), dtype=np.float32)
    experiment, uploads = _measured(picture, operator={"kind": "inpainting", "keep": 0.4})
    problem, _ = build(experiment, uploads)
    seen = problem.model.initial(problem.measurement)[0, 0].numpy()
    assert np.count_nonzero(seen) == round(0.4 * 32 * 32)
    assert np.array_equal(seen[seen != 0], picture[seen != 0])


def test_choosing_a_target_again_brings_the_truth_back() -> None:
    experiment, _ = _measured(np.zeros((32, 32), np.float32))
    assert setup.with_operator(experiment, "compressed-sensing").target_is == "measurement"
    back = setup.with_target(experiment, 1)
    assert back.target_is == "truth"
    assert back.target.source == "embedded"
    choices, chosen = setup.target_choices(experiment)
    assert (choices[-1], chosen) == (("your measurement: mine.npy", "upload"), "upload")
