"""The set-up column without a browser: one choice at a time changes an experiment, and never into one that does not fit."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

import gradio as gr
import numpy as np
import pytest
from pydantic.fields import FieldInfo

from netprior_core import examples, link
from netprior_core.errors import BadImage, InvalidSettings
from netprior_core.experiment import MAX_LANES, Experiment, UploadedImage, build, parse
from netprior_core.methods import Method
from netprior_core.methods.dip import DeepImagePrior
from netprior_core.operators import Operator
from netprior_core.settings import field_spec
from netprior_core.stopping import StoppingRule
from netprior_core.ui import setup
from netprior_core.ui.controls import control, misfit, split
from netprior_core.ui.page import Page, Steady, family_headings
from netprior_core.ui.session import App

KEYS = [found.key for found in examples.sets()]
KINDS = [cls.model_fields["kind"].default for cls in Operator.registry]


@pytest.mark.parametrize("key", KEYS)
def test_choosing_a_set_fills_a_form_that_can_be_run(key: str) -> None:
    experiment = setup.from_set(key, seed=9)
    assert experiment.seed == 9
    problem, truth = build(experiment, {})
    assert truth is not None
    assert 1 <= len(experiment.methods) <= MAX_LANES
    assert any(method.accepts(problem) is None for method in experiment.methods)
    assert setup.set_key(experiment) == key
    choices, used = setup.target_choices(experiment)
    assert len(choices) == examples.get(key).n_targets
    assert used == 0
    available, count = setup.shot_counts(experiment)
    assert available == examples.get(key).n_shots
    assert count == (0 if problem.shots is None else len(problem.shots))


def test_an_unknown_set_is_refused() -> None:
    with pytest.raises(InvalidSettings, match="nowhere"):
        setup.from_set("nowhere")


@pytest.mark.parametrize("kind", KINDS)
def test_every_operator_can_be_chosen_and_keeps_the_rest(kind: str) -> None:
    before = setup.from_set("coins", seed=4)
    after = setup.with_operator(before, kind)
    assert after.operator.kind == kind
    assert (after.seed, after.target, after.shots, after.size) == (before.seed, before.target, before.shots, before.size)
    assert [m.kind for m in after.methods] == [m.kind for m in before.methods]
    assert setup.with_operator(after, kind).methods == after.methods


@pytest.mark.parametrize("key", ["histology", "faces"])
def test_what_is_chosen_already_stays_as_it_is(key: str) -> None:
    experiment = setup.from_set(key)  # whose settings no preset has
    assert setup.with_operator(experiment, experiment.operator.kind) is experiment
    assert setup.with_noise(experiment, experiment.noise.kind) is experiment
    for lane, method in enumerate(experiment.methods):
        assert setup.with_method(experiment, method.kind, lane=lane) is experiment


def test_settings_of_an_examples_own_have_a_name_and_come_back() -> None:
    experiment = setup.from_set("faces")
    names, used = setup.preset_choices(experiment, 0)
    assert (used, setup.OWN in names) == (setup.OWN, True)
    live = setup.with_preset(experiment, "live", lane=0)
    assert setup.preset_choices(live, 0)[1] == "live"
    assert setup.with_preset(live, setup.OWN, lane=0) == experiment
    other = setup.change(live, ["methods", 0, "left_out"], True)
    assert setup.preset_choices(other, 0)[1] == setup.CHANGED
    twice = setup.from_set("coffee")
    assert [setup.preset_choices(twice, lane)[1] for lane in (0, 1)] == [setup.OWN, setup.OWN]
    assert setup.with_preset(setup.with_preset(twice, "1000 iterations", lane=1), setup.OWN, lane=1) == twice


def test_uploads_can_be_taken_back() -> None:
    experiment = setup.with_operator(setup.from_set("faces"), "denoising")
    image = UploadedImage(sha256="0" * 64, name="me.png")
    own = setup.change(setup.with_uploads(experiment, image, [image, image]), ["target_is"], "measurement")
    back = setup.without_uploads(own, target=True)
    assert (back.target.source, back.target_is, back.shots) == ("embedded", "truth", own.shots)
    shots = setup.without_uploads(own, shots=True)
    assert (shots.shots.source, shots.target, shots.target_is) == ("embedded", own.target, "measurement")
    assert setup.without_uploads(experiment, target=True, shots=True) == experiment


def test_a_number_beside_a_slider_that_lies_outside_is_used_as_it_is_shown() -> None:
    slider = gr.Slider(0, 100, value=25, step=1)
    assert [slider.preprocess(typed) for typed in (5000, -2, 40.0)] == [100, 0, 40]


def test_the_components_of_a_page_can_be_walked_over_while_some_are_added() -> None:
    blocks = copy.copy(Steady({1: "a", 2: "b"}))
    for name in blocks.values():
        blocks[10 + len(blocks)] = name
    assert len(blocks) == 4


def test_an_operator_that_measures_no_pictures_takes_the_truth_back() -> None:
    image = UploadedImage(sha256="ab" * 32)
    measured = setup.change(setup.with_uploads(setup.from_set("faces"), image, None), ["operator"], {"kind": "denoising"})
    measured = setup.change(measured, ["target_is"], "measurement")
    assert setup.with_operator(measured, "compressed-sensing").target_is == "truth"
    assert setup.with_operator(measured, "inpainting").target_is == "measurement"


def test_only_a_measurement_that_is_a_picture_stays_clipped() -> None:
    clipped = setup.change(setup.with_operator(setup.from_set("camera"), "denoising"), ["noise", "clip"], True)
    assert setup.with_operator(clipped, "inpainting").noise == clipped.noise
    assert setup.with_operator(clipped, "tomography").noise == clipped.noise.model_copy(update={"clip": False})


def test_one_value_is_changed_and_the_old_experiment_stays() -> None:
    before = setup.from_set("faces")
    after = setup.change(before, ["noise", "sigma"], 3)
    assert after.noise.sigma == 3  # type: ignore[attr-defined]
    assert before != after
    assert setup.change(after, ["noise", "sigma"], before.noise.sigma) == before  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (["size"], 7),
        (["noise", "sigma"], 999),
        (["methods", 0, "kind"], "magic"),
        (["seed"], None),
        (["target", "index"], -1),
        (["x"], 1),
    ],
)
def test_a_value_that_does_not_fit_is_refused(path: list[str | int], value: object) -> None:
    with pytest.raises(InvalidSettings):
        setup.change(setup.from_set("faces"), path, value)


def test_methods_come_and_go_and_one_always_stays() -> None:
    experiment = setup.change(setup.from_set("faces"), ["methods"], [{"kind": "adjoint"}])
    assert setup.with_method(experiment, "", lane=0).methods == experiment.methods
    for lane in range(1, MAX_LANES):
        experiment = setup.with_method(experiment, "dip", lane=lane)
    assert [m.kind for m in experiment.methods] == ["adjoint", "dip", "dip", "dip"]
    assert setup.with_method(experiment, "dip", lane=MAX_LANES).methods == experiment.methods
    experiment = setup.with_method(experiment, None, lane=0)
    assert [m.kind for m in experiment.methods] == ["dip", "dip", "dip"]
    with pytest.raises(InvalidSettings, match="magic"):
        setup.with_method(experiment, "magic", lane=1)


def test_what_stops_the_methods_watches_them_too() -> None:
    experiment = setup.with_rules(setup.from_set("cat"), ["wmv"])
    stopped = setup.with_stop_by(experiment, "emv")
    assert ([rule.kind for rule in stopped.stopping], stopped.stop_by) == (["wmv", "emv"], "emv")
    assert setup.with_stop_by(stopped, "emv") == stopped
    assert setup.with_rules(stopped, ["wmv"]).stop_by == ""  # no longer watched: no longer stops
    free = setup.with_stop_by(stopped, "")
    assert ([rule.kind for rule in free.stopping], free.stop_by) == (["wmv", "emv"], "")
    assert {kind for _, kind in setup.stop_choices()} == {
        "",
        *(rule.model_fields["kind"].default for rule in StoppingRule.registry),
    }


@pytest.mark.parametrize("operator", KINDS)
@pytest.mark.parametrize("method", [cls.model_fields["kind"].default for cls in Method.registry])
def test_a_chosen_method_has_the_settings_suited_to_the_operator(operator: str, method: str) -> None:
    experiment = setup.with_method(setup.with_operator(setup.from_set("histology"), operator), method, lane=0)
    assert experiment.methods[0] == experiment.methods[0].suited(experiment.operator)
    names, used = setup.preset_choices(experiment, 0)
    assert used in names
    assert used != setup.CHANGED


def test_presets_are_chosen_by_name_and_a_changed_one_says_so() -> None:
    experiment = setup.with_method(setup.from_set("faces"), "dip", lane=0)
    for name in type(experiment.methods[0]).presets:
        chosen = setup.with_preset(experiment, name, lane=0)
        assert setup.preset_choices(chosen, 0)[1] == name
    changed = setup.change(experiment, ["methods", 0, "learning_rate"], 0.0123)
    names, used = setup.preset_choices(changed, 0)
    assert used == setup.CHANGED
    assert setup.CHANGED in names
    assert setup.with_preset(changed, setup.CHANGED, lane=0) == changed
    assert setup.with_preset(changed, "no such preset", lane=0) == changed
    assert setup.CHANGED not in setup.preset_choices(experiment, 0)[0]


def test_targets_and_counts_of_embedded_sets() -> None:
    experiment = setup.from_set("faces")
    assert setup.with_target(experiment, 5).target.index == 5  # type: ignore[union-attr]
    assert setup.with_target(experiment, "upload") == experiment
    assert setup.with_target(experiment, None) == experiment
    assert setup.with_count(experiment, 3.0).shots.count == 3  # type: ignore[union-attr]
    with pytest.raises(InvalidSettings):
        setup.with_count(experiment, 500)


def test_uploads_replace_target_and_shots_each_on_their_own() -> None:
    image = UploadedImage(sha256="ab" * 32, name="<b>me</b>.png")
    experiment = setup.from_set("faces")
    with_target = setup.with_uploads(experiment, image, None)
    assert with_target.target == image
    assert with_target.shots == experiment.shots
    choices, used = setup.target_choices(with_target)
    assert used == "upload"
    assert choices[-1][1] == "upload"
    back = setup.with_target(with_target, 2)
    assert back.target.source == "embedded"
    with_shots = setup.with_uploads(experiment, None, [image, image])
    assert setup.shot_counts(with_shots) == (0, 2)
    assert "2 shots" in setup.blurb(with_shots)
    assert setup.with_count(with_shots, 7) == with_shots
    assert setup.set_key(setup.with_uploads(experiment, image, [image])) == setup.DEFAULT_SET


def test_a_picture_too_thin_to_be_reduced_is_refused() -> None:
    with pytest.raises(BadImage, match="crop it"):
        setup.reduced(np.zeros((8, 20000, 3), np.float32))


def test_images_larger_than_the_server_allows_are_refused() -> None:
    experiment = setup.change(setup.from_set("astronaut"), ["size"], 512)
    with pytest.raises(InvalidSettings, match=r"512×512.*256×256.*--max-size"):
        setup.check_size(experiment, 256)
    setup.check_size(experiment, 512)


@pytest.mark.parametrize(
    ("height", "width", "expected"), [(100, 90, (100, 90)), (1024, 3, (1024, 3)), (2050, 1025, (683, 341)), (3000, 9, (1000, 3))]
)
def test_large_uploads_are_reduced_by_block_averages(height: int, width: int, expected: tuple[int, int]) -> None:
    array = np.random.default_rng(0).random((height, width, 3), dtype=np.float32)
    small = setup.reduced(array)
    assert small.shape == (*expected, 3)
    assert float(small.mean()) == pytest.approx(float(array.mean()), abs=0.02)
    if expected == (height, width):
        assert small is array


@pytest.mark.parametrize("cls", [*Method.registry, *Operator.registry], ids=lambda c: c.model_fields["kind"].default)
def test_every_setting_has_a_control_that_shows_its_value_and_bounds(cls: type) -> None:
    settings = cls()
    main, more = split(settings)
    assert len(main) <= 3
    shown = [f for f in settings.fields() if f.when is None or getattr(settings, f.when[0]) == f.when[1]]
    assert sorted(f.name for f in (*main, *more)) == sorted(f.name for f in shown)
    assert all(f.when is None or f.when[0] in {g.name for g in settings.fields()} for f in settings.fields())
    for field in settings.fields():
        component = control(field, getattr(settings, field.name), "x")
        if component is None:
            assert field.widget
            continue
        assert component.elem_id == f"np-x-{field.name}"
        assert component.value == getattr(settings, field.name) or field.optional or field.type == "text"  # type: ignore[attr-defined]
        if isinstance(component, gr.Slider):
            assert (component.minimum, component.maximum) == (field.minimum, field.maximum)
        elif isinstance(component, gr.Number):
            for bound, beyond in ((field.minimum, -1), (field.maximum, 1)):
                if bound is not None:
                    assert not misfit(field, bound, field.default)
                    assert f"{bound:,g}" in misfit(field, bound + beyond, field.default)


def test_a_number_that_cannot_be_used_is_refused_in_words() -> None:
    seeds = field_spec("seeds", Experiment.model_fields["seeds"])
    assert misfit(seeds, 99, 1) == "Seeds is from 1 to 16: not 99. It stays at 1."
    assert misfit(seeds, 2.5, 1) == "Seeds is a whole number: not 2.5. It stays at 1."
    assert misfit(seeds, None, 3) == "Seeds needs a number. It stays at 3."
    assert misfit(seeds, 16, 1) == ""
    optional = field_spec("budget", FieldInfo.from_annotation(float | None))  # type: ignore[arg-type]
    assert misfit(optional, None, 2.0) == ""


def test_the_arrows_of_a_number_box_add_a_digit_of_the_number_in_it() -> None:
    rate = next(field for field in DeepImagePrior.fields() if field.name == "learning_rate")
    steps = {value: control(rate, value, "x").step for value in (0.01, 0.005, 3e-5)}  # type: ignore[union-attr]
    assert steps == pytest.approx({0.01: 1e-3, 0.005: 1e-3, 3e-5: 1e-5})


def test_what_the_form_says_is_an_experiment_again() -> None:
    for key in KEYS[:3]:
        experiment = setup.from_set(key)
        assert parse(experiment.to_json()) == experiment


def test_each_kind_of_method_says_what_it_takes_when_no_prior_is_named() -> None:
    assert setup.prior_choices("low-shot", "")[0] == ("learn from the examples", "")
    assert setup.prior_choices("csgm", "")[0] == ("the GAN for this size", "")
    assert all(name.startswith(("gan-", "lowshot-")) for _, name in setup.prior_choices("csgm", "")[1:])


def test_every_family_of_methods_has_one_heading_above_its_first() -> None:
    rules = family_headings().splitlines()
    first: dict[str, str] = {}
    for cls in Method.registry:
        first.setdefault(cls.family, cls.title)
    assert all(first)  # no method is without a family
    assert len(rules) == len(first)
    for rule, (family, title) in zip(rules, first.items(), strict=True):
        assert f'"{title}"' in rule
        assert f'content: "{family}"' in rule
    ordered = [cls.family for cls in Method.registry]
    assert [family for k, family in enumerate(ordered) if k == 0 or ordered[k - 1] != family] == list(first)  # each together


def test_the_link_is_of_the_last_edit_and_no_answer_of_another_event(app: App) -> None:
    request: Any = SimpleNamespace(session_hash="one", headers={"referer": "http://here/?hide=learn"})
    page = Page(app)
    demo, column = page.build(), page.column
    first = setup.from_set("coins")
    with_method = column.renew(first, 0, lambda base: setup.with_method(base, "adjoint", lane=0), request)[column.experiment]
    column.attempt(first, lambda base: setup.change(base, ["seed"], 77), request)
    address = column.linked(with_method, request)  # the answer that comes last knows nothing of the seed
    assert address.startswith("http://here/?x=")
    found = link.decode(address.split("?x=")[1])
    assert (found.methods[0].kind, found.seed) == ("adjoint", 77)
    assert [[box._id for box in fn.inputs] for fn in demo.fns.values() if column.link in fn.outputs] == [[column.experiment._id]]
