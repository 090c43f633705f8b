"""Tuning on the image: what is tried, that it never ends worse than it began, who sees the truth, and the mark it leaves."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, Literal

import pytest
import torch
from shared import experiment_of, reachable

from netprior_core import experiment as experiments
from netprior_core import interrupt, link, tuning
from netprior_core.errors import InvalidSettings, Unsolvable
from netprior_core.experiment import TUNED, TUNED_ELSEWHERE, Experiment, build, parse, race_of
from netprior_core.methods import Method
from netprior_core.methods._tunable import Grid, Tunable
from netprior_core.problem import Problem, Step
from netprior_core.race import summary
from netprior_core.settings import setting

KINDS = {"lasso", "tv", "tval3", "bm3d", "d-amp", "fbp", "denoiser", "pnp-admm", "dpir", "red"}
Score = Callable[[float, str], float]


def run(search: Iterator[tuning.Trial]) -> tuple[list[tuple[str, Any, float | None]], Tunable]:
    """(setting, value, PSNR) of every trial, and the method that was found."""
    found = []
    while True:
        try:
            trial = next(search)
        except StopIteration as end:
            return found, end.value
        found.append((trial.setting, trial.value, trial.psnr))
        assert trial.best == max((psnr for _, _, psnr in found if psnr is not None), default=None)
        assert trial.number <= trial.total


@pytest.fixture
def bowl() -> Iterator[Callable[[Score], None]]:
    """``bowl(score)`` registers a tunable method "bowl" whose estimate is off by ``score(weight, form)`` everywhere."""
    before = dict(Method.registry._members)

    def make(score: Score) -> None:
        class Bowl(Tunable):
            title: ClassVar[str] = "Bowl"
            tunable: ClassVar[Mapping[str, Grid]] = {"form": ("round", "flat"), "weight": (1 / 9, 1 / 3, 3, 9)}
            kind: Literal["bowl"] = "bowl"
            weight: float = setting(1.0, "", ge=0.2, le=50)
            form: Literal["round", "flat"] = setting("round", "")

            def _solve(self, problem: Problem, seed: int, prepared: Any) -> Iterator[Step]:
                x = torch.full((1, *problem.shape), score(self.weight, self.form))
                yield Step(1, 1, "result", x, x, torch.tensor([1.0]))

    yield lambda score: make(score)
    Method.registry._members.clear()
    Method.registry._members.update(before)


@pytest.fixture
def once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The coarse round alone: it takes half the time."""
    monkeypatch.setattr(tuning, "ROUNDS", (1.0,))


def on_grey(kind: str = "bowl", **settings: Any) -> Experiment:
    return experiment_of(size=16, methods=[{"kind": kind, **settings}])


def test_the_methods_that_the_issue_names_are_tunable_and_no_others() -> None:
    kinds = {cls.model_fields["kind"].default for cls in Method.registry if issubclass(cls, Tunable)}
    assert kinds == KINDS
    for kind in kinds:
        searched = Method.registry[kind]().searched()
        assert searched
        for name, grid in searched.items():
            field = next(field for field in Method.registry[kind].fields() if field.name == name)
            assert set(grid) <= set(field.choices) if field.type == "choice" else 1 not in grid


def test_what_means_nothing_beside_the_others_is_not_searched() -> None:
    tv, fbp = Method.registry["tv"], Method.registry["fbp"]
    assert set(tv().searched()) == {"weight"}
    assert set(tv(form="constrained").searched()) == {"slack"}
    assert set(fbp().searched()) == {"filter"}
    assert set(fbp(denoiser="tv").searched()) == {"filter", "strength"}


def test_one_setting_after_another_to_its_best_then_finer(bowl: Callable[[Score], None]) -> None:
    _, truth = build(experiment_of(size=16), {})
    assert truth is not None
    target = float(truth.mean())  # of constant pictures the nearest

    def off(weight: float, form: str) -> float:
        return target + 0.02 * abs(torch.tensor(weight / 4.4).log().item()) + (0.3 if form == "round" else 0.0)

    bowl(off)
    trials, method = run(tuning.tune(on_grey(), 0, {}))
    assert [(name, value) for name, value, _ in trials[:6]] == [
        ("", None),
        ("form", "flat"),  # "round" is what there was
        ("weight", 0.2),  # 1/9, were it not below the least
        ("weight", 0.333),
        ("weight", 3),
        ("weight", 9),
    ]
    assert {value for name, value, _ in trials[6:] if name == "weight"} == {27, 1.44, 2.08, 4.33, 6.24}
    # Around 3: farther, then cube roots. Nothing twice.
    assert len({(name, value) for name, value, _ in trials}) == len(trials)
    scores = {value: psnr for name, value, psnr in trials if name == "weight"}
    assert method.weight == max(scores, key=lambda value: scores[value] or 0.0)  # type: ignore[attr-defined]
    assert method.form == "flat"  # type: ignore[attr-defined]


@pytest.mark.usefixtures("once")
def test_what_nothing_beats_is_returned_as_it_was_given(bowl: Callable[[Score], None]) -> None:
    bowl(lambda weight, form: 0.5 if (weight, form) == (1, "round") else 5.0)
    experiment = on_grey()
    trials, method = run(tuning.tune(experiment, 0, {}))
    assert len(trials) >= 5
    assert method is experiment.methods[0]
    assert method.tuned_on == ""
    assert trials[0][2] == max(psnr for _, _, psnr in trials if psnr is not None)


@pytest.mark.usefixtures("once")
def test_settings_with_which_it_fails_are_passed_over(bowl: Callable[[Score], None]) -> None:
    def broken(weight: float, form: str) -> float:
        if weight < 2:
            raise Unsolvable("too light")
        return 0.5

    bowl(broken)
    trials, method = run(tuning.tune(on_grey(), 0, {}))
    assert trials[0] == ("", None, None)
    assert method.weight == 3  # type: ignore[attr-defined]

    def always(weight: float, form: str) -> float:
        raise Unsolvable("never works")

    bowl(always)
    with pytest.raises(Unsolvable, match="never works"):
        run(tuning.tune(on_grey(), 0, {}))


@pytest.mark.usefixtures("once")
@pytest.mark.parametrize(
    ("kind", "operator", "settings"),
    [
        ("tv", "denoising", {"iterations": 20}),
        ("lasso", "compressed-sensing", {"iterations": 20, "misfit": "mean"}),
        ("tv", "inpainting", {"iterations": 20, "weight": 3.0}),
        ("dpir", "phase-retrieval", {"iterations": 4, "denoiser": "tv"}),
    ],
)
def test_the_race_of_what_was_found_has_the_psnr_that_was_found(kind: str, operator: str, settings: dict[str, Any]) -> None:
    methods: list[dict[str, Any]] = [{"kind": "adjoint"}, {"kind": kind, **settings}]
    experiment = experiment_of(size=16, methods=methods, operator={"kind": operator}, noise={"kind": "gaussian", "sigma": 10})
    trials, method = run(tuning.tune(experiment, 1, {}))
    given = race_of(experiment, {}).run().lanes[1].result
    after = race_of(experiment.model_copy(update={"methods": (experiment.methods[0], method)}), {}).run().lanes[1].result
    assert given is not None
    assert after is not None
    assert given.psnr == trials[0][2]
    assert after.psnr == max(psnr for _, _, psnr in trials if psnr is not None)
    assert all(value != 0 for name, value, _ in trials if name == "weight")  # "from the noise" has a number to take factors of
    if settings.get("weight"):
        assert after.psnr > given.psnr + 1  # type: ignore[operator]
        assert parse(experiment.model_copy(update={"methods": (method,)}).to_json()).methods == (method,)


def test_a_weight_from_the_noise_is_written_out_as_the_method_takes_it() -> None:
    noise = {"kind": "gaussian", "sigma": 10}
    for settings in ({"kind": "lasso", "misfit": "mean"}, {"kind": "lasso"}, {"kind": "tv"}):
        method = experiment_of(size=16, methods=[settings], operator={"kind": "compressed-sensing"}, noise=noise).methods[0]
        assert isinstance(method, Tunable)
        problem, _ = build(experiment_of(size=16, operator={"kind": "compressed-sensing"}, noise=noise), {})
        written = method.written_out(problem)
        assert written.weight > 0  # type: ignore[attr-defined]
        *_, one = method.solve(problem, seeds=[0])
        *_, other = written.solve(problem, seeds=[0])
        assert one.estimate is not None
        torch.testing.assert_close(one.estimate, other.estimate)


@pytest.mark.usefixtures("once")
def test_the_method_that_is_tuned_cannot_reach_the_truth(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    total_variation = Method.registry["tv"]
    real = total_variation._solve

    def noted(self: Any, problem: Problem, seed: int, prepared: Any) -> Iterator[Step]:
        seen.append((self, problem, prepared))
        yield from real(self, problem, seed, prepared)

    monkeypatch.setattr(total_variation, "_solve", noted)
    experiment = on_grey("tv", iterations=2)
    _, truth = build(experiment, {})
    assert truth is not None
    run(tuning.tune(experiment, 0, {}))
    assert len(seen) == 5
    for given in seen:
        tensors = reachable(given)
        assert any(tensor is given[1].measurement for tensor in tensors)
        assert not any(tensor.numel() == truth.numel() and torch.equal(tensor.flatten(), truth.flatten()) for tensor in tensors)


@pytest.mark.usefixtures("once")
def test_the_problem_is_drawn_once(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Experiment] = []
    real = experiments.build
    monkeypatch.setattr(tuning, "build", lambda one, *others: drawn.append(one) or real(one, *others))
    trials, _ = run(tuning.tune(on_grey("tv", iterations=2), 0, {}))
    assert len(trials) >= 5
    assert len(drawn) == 1


def test_who_cannot_be_tuned_is_told_why(monkeypatch: pytest.MonkeyPatch) -> None:
    experiment = experiment_of(methods=[{"kind": "dip"}, {"kind": "tv"}])
    assert tuning.refusal(experiment, 1) is None
    assert "DIP is not tuned" in (tuning.refusal(experiment, 0) or "")
    assert tuning.refusal(experiment, 2)
    measured = experiment.model_copy(update={"target_is": "measurement"})
    assert "there is none" in (tuning.refusal(measured, 1) or "")
    monkeypatch.setattr(tuning, "build", None)  # would not even be called
    for one, lane in ((experiment, 0), (measured, 1)):
        with pytest.raises(InvalidSettings):
            next(tuning.tune(one, lane, {}))


@pytest.mark.usefixtures("once")
def test_a_problem_that_is_refused_or_cannot_be_built_ends_in_words() -> None:
    with pytest.raises(Unsolvable, match="linear operator"):
        run(tuning.tune(experiment_of(size=16, methods=[{"kind": "tv"}], operator={"kind": "phase-retrieval"}), 0, {}))
    missing = {"source": "upload", "sha256": "ab" * 32, "name": "cat.png"}
    with pytest.raises(Unsolvable, match=r"cat\.png"):
        run(tuning.tune(experiment_of(size=16, methods=[{"kind": "tv"}], target=missing), 0, {}))


def test_it_ends_within_a_second_with_the_best_so_far(bowl: Callable[[Score], None]) -> None:
    asked, trying, pressed = threading.Event(), threading.Event(), [0.0]

    def slow(weight: float, form: str) -> float:
        if (weight, form) != (1, "flat"):
            trying.set() if form == "flat" else None
            end = time.monotonic() + (30 if form == "flat" else 0)
            while time.monotonic() < end:
                time.sleep(0.01)
                interrupt.check()
        return 0.5 if form == "flat" else 3.0

    bowl(slow)

    def press() -> None:
        trying.wait(20)
        pressed[0] = time.monotonic()
        asked.set()

    timer = threading.Thread(target=press, daemon=True)
    timer.start()
    with interrupt.listening(asked.is_set):
        trials, method = run(tuning.tune(on_grey(), 0, {}))
        late = time.monotonic() - pressed[0]
    timer.join()
    assert method.form == "flat"  # type: ignore[attr-defined]
    assert trials[-1][2] is None
    assert len(trials) == 3
    assert late < 2  # a second, and one for a busy machine
    with interrupt.listening(lambda: True):  # before it has begun
        experiment = on_grey()
        assert run(tuning.tune(experiment, 0, {}))[1] is experiment.methods[0]


# -- the mark ----------------------------------------------------------------------------------------------------------------


def test_the_mark_is_in_every_name_of_the_lane_and_survives_file_and_link() -> None:
    experiment = experiment_of(methods=[{"kind": "tv", "weight": 0.1, "tuned_on": "faces/0", "iterations": 5}, {"kind": "adjoint"}])
    (_, _, detail), (_, _, other) = experiment.lanes()
    assert detail.startswith(TUNED)
    assert "weight λ 0.1" in detail
    assert "tuned" not in other
    for again in (parse(experiment.to_json()), link.decode(link.encode(experiment) or "")):
        assert again == experiment
    rows = summary(race_of(experiment, {}).run())
    assert [TUNED in row["settings"] for row in rows] == [True, False]


def test_the_mark_is_no_setting_and_takes_no_room_where_there_is_none() -> None:
    method = Method.registry["tv"]()
    assert "tuned_on" not in method.model_dump_json()
    assert "tuned_on" not in {field.name for field in method.fields()}
    assert method.model_copy(update={"tuned_on": "faces/0"}).preset_name() is None  # no longer what a paper says


def test_on_another_image_the_words_are_others() -> None:
    target = {"source": "embedded", "set": "faces", "index": 1}
    experiment = experiment_of(methods=[{"kind": "tv", "tuned_on": "faces/0"}], target=target)
    assert experiment.lanes()[0][2].startswith(TUNED_ELSEWHERE)
    upload = experiment_of(methods=[{"kind": "tv", "tuned_on": "ab" * 32}], target={"source": "upload", "sha256": "ab" * 32})
    assert upload.lanes()[0][2].startswith(TUNED)


def test_the_contact_sheet_says_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib.axes import Axes

    from netprior_core.contact import contact_sheet

    titles: list[str] = []
    real = Axes.set_title
    monkeypatch.setattr(Axes, "set_title", lambda self, words, **how: titles.append(words) or real(self, words, **how))
    experiment = experiment_of(size=16, methods=[{"kind": "tv", "tuned_on": "faces/0", "iterations": 3}, {"kind": "adjoint"}])
    contact_sheet(race_of(experiment, {}).run(), experiment)
    assert [TUNED in title.replace("\n", " ") for title in titles] == [False, False, True, False]
