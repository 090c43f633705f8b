"""The data axis: which experiments it is made of, and its chart."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from shared import experiment_of

from netprior_core import data_axis
from netprior_core.errors import InvalidSettings
from netprior_core.experiment import build, race_of
from netprior_core.methods.lowshot import LowShot
from netprior_core.ui.data_axis import Found, _walk_sheet, chart


def test_points_differ_in_the_examples_alone() -> None:
    experiment = experiment_of(stopping=[{"kind": "wmv"}], stop_by="wmv", seeds=3)
    points = data_axis.points(experiment)
    assert [point.shots for point in points] == [0, 2, 5, 10, 15, 25, 50, 90]
    for point in points:
        for part in ("target", "operator", "noise", "seed", "size", "channels"):
            assert getattr(point.experiment, part) == getattr(experiment, part)
        assert point.experiment.stop_by == ""
        problem, _ = build(point.experiment, {})
        assert problem.shots is not None
        assert len(problem.shots) == (point.shots or 10)
        (method,) = point.experiment.methods
        assert method.accepts(problem) is None
        assert method.kind == ("low-shot" if point.shots else "cs-dip")


def test_the_low_shot_lane_keeps_its_settings() -> None:
    method = {"kind": "low-shot", "channels": 8, "pretrain_iterations": 7}
    points = data_axis.points(experiment_of(methods=[{"kind": "adjoint"}, method]))
    assert {point.experiment.methods[0].channels for point in points[1:]} == {8}  # type: ignore[attr-defined]


def test_operators_made_from_examples_have_no_untrained_point() -> None:
    points = data_axis.points(experiment_of(operator={"kind": "designed-sensing"}))
    assert points[0].shots == 2


def test_without_truth_or_examples_there_is_no_axis() -> None:
    upload = {"source": "upload", "sha256": "ab" * 32}
    with pytest.raises(InvalidSettings, match="truth"):
        data_axis.points(experiment_of(target=upload, target_is="measurement"))
    with pytest.raises(InvalidSettings, match="two example"):
        data_axis.points(experiment_of(shots={"source": "upload", "images": [upload]}))


def test_the_chart_has_a_point_and_a_row_for_each() -> None:
    pixels = np.zeros((8, 8), np.uint8)
    found = [Found(s, f"S = {s} <b>", 20 + s / 10, 1.0, pixels) for s in (0, 5, 100)]
    drawn = chart(found, 100)
    places = [float(x) for x in re.findall(r"<circle cx='([\d.]+)'", drawn)]
    assert places == sorted(places)
    assert len(places) == 3
    assert drawn.count("<tr>") == 4
    assert "<b>" not in drawn
    assert chart([], 10) == ""


def test_a_walk_goes_from_one_remembered_example_to_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NETPRIOR_CACHE", str(tmp_path))
    experiment = experiment_of(methods=[{"kind": "low-shot", "channels": 8, "pretrain_iterations": 60, "latent_iterations": 1}])
    (method,) = experiment.methods
    assert isinstance(method, LowShot)
    with pytest.raises(InvalidSettings, match="not learned yet"):
        _walk_sheet(experiment, method, {}, 1, 2)
    race = race_of(experiment, {}).run()
    assert race.lanes[0].state == "finished"
    trained = method.learned(race.shots_tensor, experiment.shape)
    assert trained is not None
    walk = method.walk(trained, experiment.shape, 0, 2, steps=5)
    assert walk.shape == (5, 1, 32, 32)
    back = method.walk(trained, experiment.shape, 2, 0, steps=5)
    assert torch.allclose(walk, back.flip(0), atol=0.02)
    assert not torch.allclose(walk[0], walk[-1], atol=0.02)
    assert _walk_sheet(experiment, method, {}, 1, 3).shape == (128, 8 * 128)
    with pytest.raises(InvalidSettings, match="from 1 to 8"):
        _walk_sheet(experiment, method, {}, 1, 9)
