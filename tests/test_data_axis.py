"""The data axis: which experiments it is made of, and its chart."""

from __future__ import annotations

import re
from pathlib import Path

import gradio as gr
import numpy as np
import pytest
import torch
from shared import experiment_of

from netprior_core import data_axis, priors
from netprior_core.errors import InvalidSettings
from netprior_core.experiment import build, race_of, shot_images
from netprior_core.methods._shots import Pretrained
from netprior_core.methods._shots import build as build_network
from netprior_core.methods.csdip import CSDIP
from netprior_core.methods.lowshot import LowShot
from netprior_core.ui import files
from netprior_core.ui.data_axis import DataAxis, Found, _learned_last, _picture_at, _walk_sheets, chart
from netprior_core.ui.session import App, Session
from netprior_core.ui.setup import prior_choices


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
    points = data_axis.points(experiment_of(methods=[{"kind": "adjoint"}, method | {"left_out": True}]))
    assert not any(point.experiment.methods[0].left_out for point in points[1:])  # type: ignore[attr-defined]
    assert points[0].experiment.methods[0].channels == 8  # type: ignore[attr-defined]  # untrained, as wide as what learns
    assert {point.experiment.methods[0].channels for point in points[1:]} == {8}  # type: ignore[attr-defined]


@pytest.mark.parametrize(("ratio", "iterations"), [(0.02, 350), (0.1, 500), (0.75, 1000)])
def test_the_untrained_point_stops_as_in_the_paper(ratio: float, iterations: int) -> None:
    point = data_axis.points(experiment_of(operator={"kind": "compressed-sensing", "ratio": ratio}))[0]
    assert point.experiment.methods[0].iterations == iterations  # type: ignore[attr-defined]


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
    assert re.findall(r"data-place='(\d)'", drawn) == ["0", "1", "2"]
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
        _walk_sheets(experiment, method, {}, 1, 2)
    race = race_of(experiment, {}).run()
    assert race.lanes[0].state == "finished"
    trained = method.learned(shot_images(experiment, {}), experiment.shape)
    assert trained is not None
    walk = method.walk(trained, experiment.shape, 0, 2, steps=5)
    assert walk.shape == (5, 1, 32, 32)
    back = method.walk(trained, experiment.shape, 2, 0, steps=5)
    assert torch.allclose(walk, back.flip(0), atol=0.02)
    assert not torch.allclose(walk[0], walk[-1], atol=0.02)
    drawn, walked = _walk_sheets(experiment, method, {}, 1, 3)
    assert drawn.shape == (128, 4 * 128)  # four examples; their mirror images were learned too, but are no examples
    assert walked.shape == (128, 8 * 128)
    with pytest.raises(InvalidSettings, match="from 1 to 4"):
        _walk_sheets(experiment, method, {}, 1, 5)


def test_what_was_ended_early_can_be_looked_at_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NETPRIOR_CACHE", str(tmp_path))
    tiny = {"channels": 8, "pretrain_iterations": 5000, "latent_iterations": 1, "joint_iterations": 1}
    experiment = experiment_of(methods=[{"kind": "low-shot", **tiny}])
    (method,) = experiment.methods
    assert isinstance(method, LowShot)
    race = race_of(experiment, {})
    race.turn()
    race.enough()
    race.run()
    tab = Session()
    tab.race, tab.experiment, tab.run = race, experiment, "run"
    name = _learned_last(tab, experiment, method)
    assert len(_walk_sheets(experiment, method, {}, 1, 3, name)) == 2
    tab.learned_by(race)
    assert tab.learned == [name]
    title = {kept: words for words, kept in prior_choices("low-shot", "", tab.learned)}[name]
    assert title == "learned here: 4 examples, l2, 1 of 5,000 steps"
    again = race_of(experiment.model_copy(update={"methods": [method.model_copy(update={"prior": name})]}), {}).run()
    assert again.lanes[0].state == "finished"
    (file,) = files.priors_of(tab, race)
    assert priors.adopt(Path(file).read_bytes()).startswith("own-")
    other = experiment.model_copy(update={"size": 16})
    assert _learned_last(tab, other, method) == ""


def test_learned_regularisation_is_a_curve_of_its_own() -> None:
    points = data_axis.points(experiment_of(), ["low-shot", "learned"])
    assert [p.shots for p in points if p.curve == "low-shot"] == [0, 2, 5, 10, 15, 25, 50, 90]
    learned = [p for p in points if p.curve == "learned"]
    assert [p.shots for p in learned] == [0, 2, 5, 10]
    for point in learned:
        (method,) = point.experiment.methods
        assert isinstance(method, CSDIP)
        problem, _ = build(point.experiment, {})
        assert method.accepts(problem) is None
        if point.shots:
            assert method.regularisation == "published"
            assert method.learning_images == point.shots == len(problem.shots)  # type: ignore[arg-type]
        else:
            assert method.regularisation == "none"
    kept = experiment_of(methods=[{"kind": "cs-dip", "regularisation": "released", "iterations": 7}])
    assert {p.experiment.methods[0].iterations for p in data_axis.points(kept, ["learned"])} == {7}  # type: ignore[attr-defined]


@pytest.fixture
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiny shipped priors of grey 32×32 "faces": 5 shots (mmd), 10 shots (both losses)."""
    monkeypatch.setattr(priors, "CHECKPOINTS", tmp_path)
    for count, loss in ((10, "mmd"), (10, "l2"), (5, "mmd")):
        method, shots = LowShot(channels=4, latent=8, loss=loss), torch.zeros(count, 1, 32, 32)  # type: ignore[arg-type]
        network = build_network((1, 32, 32), 8, 4)
        trained = Pretrained(network.state_dict(), torch.randn(count, 8))
        name = f"lowshot-celeba-{count}-{loss}"
        priors.save(tmp_path / f"{name}.safetensors", trained.tensors(), {**method.card(shots), "name": name, "title": name})


@pytest.mark.usefixtures("shipped")
def test_shipped_priors_are_points_whatever_the_examples() -> None:
    settings = {"kind": "low-shot", "latent_iterations": 2, "joint_iterations": 2}
    for shots in ({"source": "upload", "images": []}, {"source": "embedded", "set": "faces", "count": 4}):
        points = data_axis.points(experiment_of(methods=[settings], shots=shots), ["shipped"])
        assert [(p.shots, p.curve) for p in points] == [(0, "shipped"), (5, "shipped"), (10, "shipped")]
        names = [getattr(p.experiment.methods[0], "prior", "") for p in points]
        assert names == ["", "lowshot-celeba-5-mmd", "lowshot-celeba-10-mmd"]
    race = race_of(points[1].experiment, {}).run()
    assert race.lanes[0].state == "finished"
    both = data_axis.points(experiment_of(), ["low-shot", "shipped"])
    assert [p.shots for p in both if p.curve == "shipped"] == [5, 10]  # untrained is there once
    assert sum(p.shots == 0 for p in both) == 1


@pytest.mark.usefixtures("shipped")
def test_every_collection_of_shipped_priors_is_a_curve(tmp_path: Path) -> None:
    (tmp_path / "lowshot-celeba-5-mmd.safetensors").rename(tmp_path / "lowshot-xray-5-mmd.safetensors")
    points = data_axis.points(experiment_of(), ["shipped", "shipped-xray"])
    assert [(p.shots, p.curve) for p in points[1:]] == [(10, "shipped"), (5, "shipped-xray")]
    assert points[2].experiment.methods[0].prior == "lowshot-xray-5-mmd"  # type: ignore[attr-defined]
    assert "cats" in (data_axis.refusal(experiment_of(), "shipped-cats") or "")


@pytest.mark.parametrize("curve", sorted(data_axis.COLLECTED))
def test_what_is_shipped_has_a_curve_that_can_be_drawn(curve: str) -> None:
    (channels, side, _), *_ = (card["shape"] for card in data_axis.shipped(curve).values())
    found = data_axis.points(experiment_of(size=side, channels=channels), [curve])
    assert len(found) >= 2
    assert {p.curve for p in found} == {curve}


@pytest.mark.usefixtures("shipped")
def test_the_gan_is_the_last_point_of_the_shipped_ones(tmp_path: Path) -> None:
    network = build_network((1, 32, 32), 8, 4)
    tensors = {f"network.{name}": value for name, value in network.state_dict().items()}
    card = {"network": "DCGAN", "shape": [1, 32, 32], "settings": {"channels": 4}, "title": "GAN (700)", "shots": 700}
    for name, shape in (("gan-celeba", [1, 32, 32]), ("gan-wide", [1, 32, 64])):
        priors.save(tmp_path / f"{name}.safetensors", tensors, {**card, "shape": shape, "key": name})
    method = {"kind": "iagan", "latent_iterations": 2, "joint_iterations": 1, "restarts": 1}
    points = data_axis.points(experiment_of(methods=[method]), ["shipped"])
    assert [p.shots for p in points] == [0, 5, 10, 700]
    assert points[-1].label == "GAN (700)"
    (solver,) = points[-1].experiment.methods
    assert (solver.kind, solver.generator, solver.latent_iterations) == ("iagan", "gan-celeba", 2)  # type: ignore[attr-defined]
    assert race_of(points[-1].experiment, {}).run().lanes[0].state == "finished"


@pytest.mark.usefixtures("shipped")
def test_shipped_priors_that_do_not_fit_say_so(tmp_path: Path) -> None:
    other = experiment_of(size=64)
    assert "grey images of 32 pixels" in (data_axis.refusal(other, "shipped") or "")
    with pytest.raises(InvalidSettings, match="your image is grey of 64 pixels"):
        data_axis.points(other, ["shipped"])
    assert {p.curve for p in data_axis.points(other, ["low-shot", "shipped"])} == {"low-shot"}
    for path in tmp_path.glob("*.safetensors"):
        path.unlink()
    assert "no shipped priors" in (data_axis.refusal(other, "shipped") or "")
    with pytest.raises(InvalidSettings, match="at least one curve"):
        data_axis.points(other, [])


def test_a_new_point_is_shown_under_its_own_name() -> None:
    tab = DataAxis(App(torch.device("cpu"), 64))
    with gr.Blocks():
        tab.build()
    found = [Found(s, f"{s} examples", 20.0, 1.0, np.zeros((8, 8), np.uint8)) for s in (0, 5)]
    assert _picture_at(0, found)["label"] == "Reconstruction: 0 examples"
    assert tab._with(found, 5, None)[tab.picture]["label"] == "Reconstruction: 5 examples"


def test_every_curve_has_a_line_and_a_name_of_its_own() -> None:
    pixels = np.zeros((8, 8), np.uint8)
    found = [Found(s, f"{s}", 20 + s / 10, 1.0, pixels, curve) for curve in ("low-shot", "learned") for s in (0, 5, 10)]
    drawn = chart(found, 10)
    assert drawn.count("<path") == 2
    assert drawn.count("class='spot'") == 6
    assert all(drawn.count(f">{data_axis.CURVES[curve]}</text>") == 1 for curve in ("low-shot", "learned"))
    places = [float(y) for y in re.findall(r"y='([\d.]+)'[^>]*fill:var", drawn)]
    assert abs(places[0] - places[1]) >= 14  # the curves end at the same place, their names do not
