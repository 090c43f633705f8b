"""Experiments: JSON there and back, what a stranger's file may not do, and the problem a document stands for."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from shared import dip

from netprior_core import examples, link
from netprior_core.errors import InvalidSettings
from netprior_core.experiment import MAX_BYTES, Experiment, build, describe_settings, parse, race_of
from netprior_core.images import sha256_of
from netprior_core.methods.baselines import Adjoint
from netprior_core.methods.dip import DeepImagePrior
from netprior_core.methods.npgd import NPGD
from netprior_core.methods.pnp import RED, PnPADMM
from netprior_core.race import summary
from netprior_core.ui.results import table
from netprior_core.ui.wire import Feed

Tiny = Callable[..., Experiment]
VARIED: list[dict[str, Any]] = [
    {},
    {"operator": {"kind": "inpainting"}, "channels": 3, "seed": 2**31 - 1, "schedule": "clock"},
    {
        "operator": {"kind": "compressed-sensing"},
        "methods": [{"kind": "cs-dip"}, {"kind": "dip"}, {"kind": "pseudo-inverse"}, {"kind": "dip"}],
    },
    {
        "operator": {"kind": "super-resolution", "factor": 4},
        "methods": [{"kind": "bicubic"}],
        "noise": {"kind": "gaussian", "sigma": 0},
    },
    {"operator": {"kind": "colorization"}, "channels": 3, "shots": {"source": "embedded", "set": "coins", "count": 0}},
    {"target": {"source": "upload", "sha256": "ab" * 32, "name": "mein Bild ü.png"}, "target_is": "measurement"},
    {"shots": {"source": "upload", "images": [{"source": "upload", "sha256": "cd" * 32}]}},
]


@pytest.mark.parametrize("changes", VARIED, ids=lambda c: ",".join(c) or "default")
def test_json_there_and_back(tiny: Tiny, changes: dict[str, Any]) -> None:
    experiment = tiny(**changes)
    assert parse(experiment.to_json()) == experiment
    assert parse(experiment.to_json().encode()) == experiment
    assert parse(json.loads(experiment.to_json())).to_json() == experiment.to_json()


def test_an_experiment_is_frozen(tiny: Tiny) -> None:
    with pytest.raises(ValueError, match="frozen"):
        tiny().seed = 4  # type: ignore[misc]


def document(**changes: Any) -> dict[str, Any]:
    operator = {"kind": "denoising"}
    target = {"source": "embedded", "set": "faces", "index": 0}
    base = {
        "format": "netprior-experiment",
        "target": target,
        "size": 32,
        "channels": 1,
        "operator": operator,
        "methods": [{"kind": "adjoint"}],
    }
    return {**base, **changes}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"surprise": 1}, "surprise"),
        ({"methods": [{"kind": "dip", "surprise": 1}]}, "surprise"),
        ({"methods": [{"kind": "magic"}]}, "no method called 'magic'"),
        ({"operator": {"kind": "magic"}}, "no operator called 'magic'"),
        ({"noise": {"kind": "magic"}}, "no noise model called 'magic'"),
        ({"operator": {}}, "'kind'"),
        ({"operator": "denoising"}, "JSON object"),
        ({"methods": [{"kind": "dip", "iterations": 0}]}, "iterations"),
        ({"methods": [{"kind": "dip", "learning_rate": 1e9}]}, "learning_rate"),
        ({"methods": [{"kind": "dip", "learning_rate": "fast"}]}, "learning_rate"),
        ({"noise": {"kind": "gaussian", "sigma": -1}}, "sigma"),
        ({"size": 15}, "size"),
        ({"size": 2048}, "size"),
        ({"size": "huge"}, "size"),
        ({"channels": 2}, "channels"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**31}, "seed"),
        ({"schedule": "random"}, "schedule"),
        ({"methods": []}, "methods"),
        ({"methods": [{"kind": "adjoint"}] * 5}, "methods"),
        ({"shots": {"source": "embedded", "set": "faces", "count": 101}}, "count"),
        ({"shots": {"source": "embedded", "set": "faces", "count": -1}}, "count"),
        ({"shots": {"source": "upload", "images": [{"sha256": "ab" * 32}] * 101}}, "images"),
        ({"shots": {"source": "disk"}}, "shots"),
        ({"target": {"source": "upload", "sha256": "../../etc/passwd"}}, "sha256"),
        ({"target": {"source": "upload", "sha256": "ab" * 32, "name": "x" * 500}}, "name"),
        ({"version": 2}, "newer NetPrior"),
        ({"version": 0}, "version"),
        ({"methods": [{"kind": "dip", "version": 9}]}, "version 9"),
        ({"operator": {"kind": "denoising", "version": 9}}, "newer NetPrior"),
        ({"format": "something-else"}, "format"),
        ({"target_is": "measurement", "operator": {"kind": "compressed-sensing"}}, "cannot be the measurement"),
        ({"noise": {"kind": "gaussian", "clip": True}, "operator": {"kind": "fourier"}}, "cannot be clipped"),
        ({"target": {"source": "embedded", "set": "nope", "index": 0}}, "no embedded set called 'nope'"),
        ({"shots": {"source": "embedded", "set": "nope", "count": 2}}, "no embedded set called 'nope'"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_said_in_words(changes: dict[str, Any], words: str) -> None:
    for given in (document(**changes), json.dumps(document(**changes))):
        with pytest.raises(InvalidSettings) as caught:
            parse(given)
        assert words in str(caught.value)
        assert "pydantic" not in str(caught.value)
        assert len(str(caught.value)) < 700


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_no_setting_takes_what_is_not_a_number(number: str) -> None:
    text = json.dumps(document(methods=[{"kind": "dip", "learning_rate": "HERE"}], noise={"kind": "gaussian", "sigma": 3}))
    with pytest.raises(InvalidSettings, match="learning_rate"):
        parse(text.replace('"HERE"', number))
    with pytest.raises(InvalidSettings, match="sigma"):
        parse(text.replace('"HERE"', "0.1").replace('"sigma": 3', f'"sigma": {number}'))
    with pytest.raises(InvalidSettings, match="size"):
        parse(text.replace('"HERE"', "0.1").replace('"size": 32', f'"size": {number}'))


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"3",
        b'"text"',
        b"\xff\xfe\x00",
        b"{}",
        b"not json at all",
        b'{"format": 7}',
        b"[" * 100_000,
        b"9" * 5000,
    ],
    ids=lambda t: repr(t[:12]),
)
def test_what_is_no_experiment_is_said_to_be_none(text: bytes) -> None:
    with pytest.raises(InvalidSettings, match="not an experiment file"):
        parse(text)


def test_a_huge_file_is_refused_before_it_is_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json, "loads", lambda *_: pytest.fail("parsed"))
    with pytest.raises(InvalidSettings, match="2 MB"):
        parse(b" " * (MAX_BYTES + 1))


@pytest.mark.parametrize("depth", [100, 400, 800, 950, 5000])
@pytest.mark.parametrize("where", ["surprise", "operator", "seed", "methods", "shots"])
def test_deep_nesting_is_refused_not_a_crash(depth: int, where: str) -> None:
    text = json.dumps(document(**{where: "HERE"})).replace('"HERE"', "[" * depth + "]" * depth)
    with pytest.raises(InvalidSettings):
        parse(text)
    text = json.dumps(document(**{where: "HERE"})).replace('"HERE"', '{"a":' * depth + "1" + "}" * depth)
    with pytest.raises(InvalidSettings):
        parse(text)


@pytest.mark.parametrize("name", ["\ud800", "x" * 100_000, "<img src=x onerror=alert(1)>", "a\nb"])
def test_messages_about_a_strangers_words_are_short_and_can_be_sent(name: str) -> None:
    for changes in ({name: 1}, {"operator": {"kind": name}}, {"methods": [{"kind": "dip", name: name}]}, {"schedule": name}):
        with pytest.raises(InvalidSettings) as caught:
            parse(json.loads(json.dumps(document(**changes))))
        message = str(caught.value)
        message.encode()
        assert len(message) < 700


# -- the problem --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("operator", [{"kind": "inpainting"}, {"kind": "compressed-sensing"}], ids=lambda o: o["kind"])
def test_the_seed_decides_operator_and_noise(tiny: Tiny, operator: dict[str, Any]) -> None:
    def drawn(seed: int, sigma: float) -> tuple[torch.Tensor, torch.Tensor]:
        problem, _ = build(tiny(seed=seed, operator=operator, noise={"kind": "gaussian", "sigma": sigma}), {})
        probe = torch.linspace(0, 1, problem.model.n).view(1, *problem.shape)
        return problem.model.forward(probe), problem.measurement

    torch.manual_seed(5)
    (a, y), (a2, y2), (b, z) = drawn(1, 20), drawn(1, 20), drawn(2, 20)
    assert torch.equal(a, a2)
    assert torch.equal(y, y2)
    assert not torch.equal(a, b)
    assert not torch.equal(y, z)
    clean = drawn(1, 0)[1]
    assert torch.equal(clean, drawn(1, 0)[1])
    assert float((y - clean).std()) == pytest.approx(20 / 255, rel=0.5)


def test_noise_of_another_seed_is_other_noise_with_the_stated_strength(tiny: Tiny) -> None:
    problems = [build(tiny(seed=seed, noise={"kind": "gaussian", "sigma": 30}), {}) for seed in (1, 2)]
    (one, truth), (two, same) = problems
    assert truth is not None
    assert same is not None
    assert torch.equal(truth, same)
    noise, other = one.measurement - truth, two.measurement - truth
    assert not torch.equal(noise, other)
    assert float(noise.std()) == pytest.approx(30 / 255, rel=0.1)
    assert abs(float((noise * other).mean())) < 0.15 * float(noise.var())
    assert one.noise_std == pytest.approx(30 / 255)


def test_truth_and_shots_are_the_images_named_and_never_overlap(tiny: Tiny) -> None:
    problem, truth = build(tiny(target={"source": "embedded", "set": "faces", "index": 3}), {})
    found = examples.get("faces")
    assert truth is not None
    assert torch.equal(truth[0], found.targets(32, 1)[3])
    assert problem.shots is not None
    assert torch.equal(problem.shots, found.shots(32, 1)[:4])
    assert all(not torch.equal(shot, truth[0]) for shot in found.shots(32, 1))


@pytest.mark.parametrize(("count", "expected"), [(0, None), (1, 1), (100, 90)])
def test_shots_are_as_many_as_asked_for_or_as_there_are(tiny: Tiny, count: int, expected: int | None) -> None:
    problem, _ = build(tiny(shots={"source": "embedded", "set": "faces", "count": count}), {})
    assert (None if problem.shots is None else len(problem.shots)) == expected


@pytest.mark.parametrize(
    "changes",
    [
        {"target": {"source": "embedded", "set": "nowhere", "index": 0}},
        {"target": {"source": "embedded", "set": "faces", "index": 999}},
        {"shots": {"source": "embedded", "set": "nowhere", "count": 2}},
        {"operator": {"kind": "colorization"}, "channels": 1},
        {"operator": {"kind": "super-resolution", "factor": 8}, "size": 33},
    ],
    ids=str,
)
def test_what_does_not_go_together_is_refused_with_words(tiny: Tiny, changes: dict[str, Any]) -> None:
    with pytest.raises(InvalidSettings) as caught:
        build(tiny(**changes), {})
    assert len(str(caught.value)) > 20


# -- the user's picture as the measurement ------------------------------------------------------------------------------------


def upload(height: int, width: int, channels: int = 1) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    shape = (height, width) if channels == 1 else (height, width, 3)
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    digest = sha256_of(pixels)
    return {"source": "upload", "sha256": digest, "name": "mine.png"}, {digest: pixels}


MEASURED = [({"kind": "denoising"}, 32), ({"kind": "inpainting"}, 32), ({"kind": "super-resolution", "factor": 4}, 8)]


@pytest.mark.parametrize(("operator", "side"), MEASURED, ids=lambda v: v["kind"] if isinstance(v, dict) else "")
def test_a_measurement_has_no_truth_and_no_psnr_anywhere(tiny: Tiny, operator: dict[str, Any], side: int) -> None:
    target, images = upload(side + 5, side + 2)
    experiment = tiny(target=target, target_is="measurement", operator=operator, methods=[dip(3), {"kind": "adjoint"}])
    problem, truth = build(experiment, images)
    assert truth is None
    (pixels,) = images.values()
    if operator["kind"] != "inpainting":  # centre-cropped, not resized: the pixels are the user's
        crop = pixels[2 : 2 + side, 1 : 1 + side].astype(np.float32) / 255
        np.testing.assert_allclose(problem.measurement.numpy().reshape(side, side), crop, atol=1e-6)
    race = race_of(experiment, images).run()
    assert race.state == "finished"
    assert race.has_truth is False
    assert race.truth_picture is None
    message = Feed(race, experiment, "run", None).message(lossless=True)
    json.dumps(message, allow_nan=False)
    assert message["strip"]["truth"] is None
    assert message["convention"] == ""
    # no oracle, and nothing for the adjoint, which has one iterate only
    assert [(mark["lane"], mark["kind"]) for mark in message["marks"]] == [(0, "result")]
    for lane, curve, sent in zip(race.lanes, message["curves"], message["lanes"], strict=True):
        assert lane.curve.psnr
        assert all(math.isnan(value) for value in lane.curve.psnr)
        assert lane.best is None
        assert curve["psnr"] is None
        assert curve["ssim"] == []
        assert sent["psnr"] is None
        assert sent["ssim"] is None
        assert sent["best"] is None
        assert sent["residual"] is not None
    assert all(row["psnr"] is None and row["ssim"] is None and row["best_psnr"] is None for row in summary(race))
    html = table(race, experiment)
    assert "<th scope='col'>PSNR" not in html
    assert "oracle" not in html
    assert "No ground truth" in html


def test_a_measurement_that_is_too_small_says_what_to_do(tiny: Tiny) -> None:
    target, images = upload(20, 40)
    with pytest.raises(InvalidSettings, match=r"40×20 pixels.*at least 32×32.*smaller image size"):
        build(tiny(target=target, target_is="measurement"), images)


def test_an_upload_that_is_not_here_is_named(tiny: Tiny) -> None:
    target, _ = upload(40, 40)
    with pytest.raises(InvalidSettings, match=r"mine\.png.*upload it again"):
        build(tiny(target=target), {})


def test_uploads_of_any_size_become_shots_of_one_size(tiny: Tiny) -> None:
    shots, images = [], {}
    for height, width, channels in ((50, 20, 1), (33, 64, 3), (128, 128, 3)):
        reference, found = upload(height, width, channels)
        shots.append(reference)
        images |= found
    problem, _ = build(tiny(shots={"source": "upload", "images": shots}), images)
    assert problem.shots is not None
    assert problem.shots.shape == (3, 1, 32, 32)
    assert float(problem.shots.min()) >= 0
    assert float(problem.shots.max()) <= 1


def test_equal_methods_get_names_that_differ(tiny: Tiny) -> None:
    names = [name for _, name, _ in tiny(methods=[dip(), {"kind": "adjoint"}, dip(5)]).lanes()]
    assert len(set(names)) == 3
    assert names[0] != names[2]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"iterations": 12, "averaging": 0.0}, "iterations 12"),
        ({"kind": "low-shot", "mirror": False}, "no mirror images"),
        ({"kind": "low-shot", "left_out": True}, "leave one out"),
    ],
)
def test_a_lane_says_what_differs_in_words(tiny: Callable[..., Experiment], changes: dict[str, Any], words: str) -> None:
    ((_, _, detail),) = tiny(methods=[{"kind": "dip", **changes}]).lanes()
    assert words in detail


def test_a_lane_says_how_long_its_preset_takes() -> None:
    assert [describe_settings(method) for method in (DeepImagePrior.preset("1000 iterations"), Adjoint())] == [
        "1000 iterations",
        "default settings",
    ]
    name = next(name for name in DeepImagePrior.presets if name.startswith("inpainting"))
    iterations = DeepImagePrior.preset(name).iterations
    assert describe_settings(DeepImagePrior.preset(name)) == f"{name}, {iterations:,} it"
    assert describe_settings(NPGD.preset("polished (ours)")) == "polished (ours), 44 it"


def test_plug_and_play_settings_that_are_not_given_are_the_operators(tiny: Tiny) -> None:
    given = [{"kind": "pnp-admm"}, {"kind": "pnp-admm", "weight": 0.23, "first": 49, "denoiser": "tv"}, {"kind": "red"}]
    experiment = tiny(operator={"kind": "inpainting"}, methods=given)
    plain, some, red = experiment.methods
    assert plain == PnPADMM().suited(experiment.operator) != PnPADMM()
    assert red == RED().suited(experiment.operator) != RED()
    assert (some.weight, some.first, some.last, some.denoiser) == (0.23, 49, plain.last, "tv")  # type: ignore[attr-defined]
    assert parse(experiment.to_json()) == experiment
    assert link.decode(link.encode(experiment) or "") == experiment
    old = PnPADMM().model_dump(mode="json")  # a link of before: every number is in it, and stays
    assert tiny(operator={"kind": "inpainting"}, methods=[old]).methods == (PnPADMM(),)
    race = race_of(tiny(operator={"kind": "denoising"}, methods=[{"kind": "dpir", "denoiser": "tv"}]), {}).run()
    assert race.lanes[0].total == 48  # what DPIR has for denoising, not the 24 of the class
