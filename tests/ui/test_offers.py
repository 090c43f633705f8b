"""Marks in the menus: what cannot solve the problem at hand says so in its label, keeps its value, and gives its reason."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from shared import race

from netprior_core import denoisers
from netprior_core.denoisers import Denoiser
from netprior_core.errors import MissingPrior
from netprior_core.experiment import Experiment, build
from netprior_core.methods import Method
from netprior_core.ui import files, offers, setup
from netprior_core.ui.column import Column

Tiny = Callable[..., Experiment]
REQUEST: Any = SimpleNamespace(session_hash="one", headers={})
ABSENT = Denoiser(
    "bm3d", "BM3D", lambda: "the package “bm3d” is not installed.", lambda device: lambda x, sigma: x, needs="package"
)


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    """Neither the package of BM3D nor DRUNet's published weights."""
    monkeypatch.setitem(denoisers.DENOISERS, "bm3d", ABSENT)
    monkeypatch.setenv("NETPRIOR_CACHE", str(tmp_path))


def labels(update: Any) -> dict[str, str]:
    return {value: label for label, value in update["choices"]}


def test_who_refuses_is_marked_and_no_one_else(tiny: Tiny) -> None:
    problem, _ = build(tiny(size=16, operator={"kind": "phase-retrieval"}), {})
    found = offers.refusals(problem)
    assert {"tv", "lasso", "fbp", "bm3d", "bicubic"} <= set(found)
    assert not {"dip", "pnp-admm", "adjoint"} & set(found)
    plain, marked = offers.method_choices({}), offers.method_choices(found)
    assert [kind for _, kind in marked] == [kind for _, kind in plain]  # the values are the same
    for (before, kind), (after, _) in zip(plain, marked, strict=True):
        assert after == (f"{before} — not available here" if kind in found else before)


def test_a_method_without_its_package_is_marked_and_its_denoisers_are(without: None, tiny: Tiny) -> None:
    problem, _ = build(tiny(size=16), {})
    assert "not installed" in offers.refusals(problem)["bm3d"]
    assert dict(offers.denoiser_choices(("none", "tv", "bm3d", "neural", "drunet"), 1)) == {
        "none": "none",
        "Total variation": "tv",
        "BM3D — package missing": "bm3d",
        "Small DRUNet": "neural",
        "DRUNet as published — weights missing": "drunet",
    }


def test_asking_every_method_takes_no_noticeable_time(tiny: Tiny) -> None:
    problem, _ = build(tiny(size=64), {})
    offers.refusals(problem)  # files are read once
    spent = []
    for _ in range(5):
        start = time.perf_counter()
        offers.refusals(problem)
        spent.append(time.perf_counter() - start)
    assert min(spent) < 0.1  # of 10 ms on a busy machine


def test_what_decides_is_the_problem_and_not_the_methods_or_the_seed(tiny: Tiny) -> None:
    one = tiny(size=16)
    same = setup.with_method(setup.change(one, ["seed"], 77), "tv", lane=0)
    assert offers.decided_by(one) == offers.decided_by(same)
    for other in (setup.with_operator(one, "inpainting"), setup.with_noise(one, "poisson"), setup.change(one, ["channels"], 3)):
        assert offers.decided_by(one) != offers.decided_by(other)


def test_the_menus_follow_the_operator_and_the_reason_stands_beside_the_lane(column: Column, tiny: Tiny) -> None:
    session = column.app.session("one")
    session.setup = now = tiny(size=16, methods=[{"kind": "fbp"}, {"kind": "tv"}])
    changes = column.seen(now, REQUEST)
    assert changes[column.live]["type"] == "setup"
    menus = [labels(changes[menu]) for menu in column.methods]
    assert all(menu["fbp"] == "Filtered back-projection — not available here" for menu in menus)
    assert all(menu["tv"] == "Total variation" for menu in menus)
    assert [changes[menu]["value"] for menu in column.methods] == ["fbp", "tv", "", ""]
    assert [changes[line]["visible"] for line in column.refused] == [True, False, False, False]
    assert "tomography only" in changes[column.refused[0]]["value"]
    # The controls that are set anew keep the marks, and nothing is built twice for the same problem.
    assert labels(column.show(now, 2, REQUEST)[column.methods[0]])["fbp"].endswith("not available here")
    again = column.seen(now, REQUEST)
    assert column.live not in again
    assert column.methods[0] not in again
    session.setup = later = setup.with_operator(now, "tomography")
    changes = column.seen(later, REQUEST)
    assert labels(changes[column.methods[0]])["fbp"] == "Filtered back-projection"
    assert not changes[column.refused[0]]["visible"]


def test_while_a_race_is_on_the_screen_only_the_marks_follow(column: Column, tiny: Tiny, stub: Callable[..., Method]) -> None:
    session = column.app.session("one")
    session.race = race(stub("one", lambda problem, seed: iter(())))
    session.setup = now = tiny(size=16, operator={"kind": "phase-retrieval"}, methods=[{"kind": "tv"}])
    changes = column.seen(now, REQUEST)
    assert column.live not in changes
    assert session.shown is None
    assert labels(changes[column.methods[0]])["tv"].endswith("not available here")
    assert "linear operator" in changes[column.refused[0]]["value"]


def test_a_set_up_that_cannot_be_built_marks_nothing(column: Column, tiny: Tiny) -> None:
    missing = {"source": "upload", "sha256": "ab" * 32, "name": "cat.png"}
    column.app.session("one").setup = now = tiny(size=16, target=missing)
    changes = column.seen(now, REQUEST)
    assert "cat.png" in changes[column.live]["note"]
    assert not any(changes[line]["visible"] for line in column.refused)


def test_a_reason_is_text() -> None:
    assert "<b>" not in offers.beside("<b>no</b>")["value"]


def test_weights_that_came_work_at_once(column: Column, tiny: Tiny, without: None, monkeypatch: pytest.MonkeyPatch) -> None:
    session = column.app.session("one")
    methods = [{"kind": "denoiser", "denoiser": "drunet"}]
    session.setup = now = tiny(size=16, methods=methods)
    assert column.seen(now, REQUEST)[column.live]["lanes"][0]["state"] == "refused"
    here = Denoiser("drunet", "DRUNet as published", lambda: None, lambda device: lambda x, sigma: x)
    monkeypatch.setitem(denoisers.DENOISERS, "drunet", here)
    changes = column.anew(now, 5, lambda base: base, REQUEST)  # although the set-up is the same
    assert changes[column.live]["lanes"][0]["state"] == "ready"
    assert not changes[column.refused[0]]["visible"]
    assert changes[column.shape_of_lanes[0]] == "denoiser/6"  # drawn anew, with the label that it has now


def test_what_is_no_file_of_weights_is_refused_in_words(tmp_path: Any, without: None) -> None:
    path = tmp_path / "drunet_color.pth"
    path.write_bytes(b"not weights")
    with pytest.raises(MissingPrior, match="not a file of tensors"):
        files.adopt_weights(str(path))
