"""Meta-learning: the gradient through the inner loop, resuming exactly, and that a start gets better."""

from __future__ import annotations

import argparse
import io
import itertools
import json
import math
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from netprior_core import priors
from netprior_core.errors import InvalidSettings
from netprior_core.methods.metadip import MOMENTUM, inner_loss, key
from netprior_core.networks.seeded import seeded
from netprior_core.networks.siren import Siren, coordinates
from netprior_core.training import _meta, _meta_data, _meta_loop, metadip, metasiren


@pytest.fixture
def smooth() -> tuple[_meta.Task, list[torch.Tensor]]:
    """A tiny smooth task in double precision and a start for it."""
    generator = torch.Generator().manual_seed(0)
    network = seeded(lambda: Siren(3, layers=3, width=8, omega=10.0), generator)
    network.initialise(generator)
    network.double()
    clean = torch.rand((1, 3, 6, 6), generator=generator).double()
    noisy = clean + 0.1 * torch.randn(clean.shape, generator=generator).double()
    draw = _meta.drawing(network, coordinates(6, 6).double(), lambda f: f + 0.5)
    task = _meta.Task(clean, noisy, lambda x: x, float(clean.numel()), draw)
    return task, [p.detach() for p in network.parameters()]


def _unrolled(task: _meta.Task, start: list[torch.Tensor], log_rates: torch.Tensor, marks: dict[int, float]) -> Any:
    """The same outer gradient by differentiating the whole loop at once."""
    leaves = [w.clone().requires_grad_() for w in start]
    rates = log_rates.clone().requires_grad_()
    theta, velocity = leaves, [torch.zeros_like(w) for w in leaves]
    total = marks.get(0, 0.0) * task.outer(theta)
    for k in range(1, max(marks) + 1):
        loss = inner_loss(task.draw(theta), task.forward, task.measurement, task.scale)
        slope = torch.autograd.grad(loss, theta, create_graph=True)
        velocity = [MOMENTUM * v + g for v, g in zip(velocity, slope, strict=True)]
        row = rates[min(k, len(rates)) - 1].exp().expand(len(start))
        theta = [w - a * v for w, a, v in zip(theta, row, velocity, strict=True)]
        if k in marks:
            total = total + marks[k] * task.outer(theta)
    found = torch.autograd.grad(total, [*leaves, rates])
    return found[:-1], found[-1]


@pytest.mark.parametrize("columns", ["each tensor", "one"])
def test_going_back_through_the_steps_is_the_gradient_of_the_whole_loop(smooth: Any, columns: str) -> None:
    task, start = smooth
    log_rates = torch.full((4, len(start) if columns == "each tensor" else 1), math.log(3e-3))
    log_rates = log_rates + 0.1 * torch.rand(log_rates.shape, generator=torch.Generator().manual_seed(1))
    marks = {0: 0.5, 2: 0.3, 6: 1.0}  # the start's own picture, and beyond the learned steps, too: there the last rates are held
    found = _meta.through(task, start, log_rates, marks, "exact")
    wanted_start, wanted_rates = _unrolled(task, start, log_rates, marks)
    for a, b in zip(found.start, wanted_start, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-9)
    torch.testing.assert_close(found.rates, wanted_rates, rtol=1e-4, atol=1e-8)
    assert set(found.losses) == set(marks)


def test_differences_come_near_and_first_order_does_not(smooth: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    task, start = smooth
    monkeypatch.setattr(_meta, "DIFFERENCE", 1e-5)
    log_rates = torch.full((5, len(start)), math.log(1e-2))
    exact, near, first = (_meta.through(task, start, log_rates, {5: 1.0}, o).start for o in ("exact", "differences", "first"))

    def off(some: list[torch.Tensor]) -> float:
        return math.sqrt(sum(float((a - b).square().sum()) for a, b in zip(some, exact, strict=True)))

    assert off(near) < 0.02 * off(first)


def test_a_gradient_without_a_number_is_left_out_and_a_large_one_is_shrunk() -> None:
    assert _meta.clipped([torch.tensor([float("nan")])], 1.0) is None
    shrunk = _meta.clipped([torch.tensor([3.0]), torch.tensor([4.0])], 1.0)
    assert shrunk is not None
    assert [float(t) for t in shrunk] == pytest.approx([0.6, 0.8])


# -- whole runs on made-up pictures --------------------------------------------------------------------------------------------


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Archives of smooth pictures, of which two each are held out; a short inner loop."""
    generator = torch.Generator().manual_seed(0)
    for name in (_meta_data.FACES, _meta_data.NATURAL):
        path = tmp_path / "data" / name
        path.parent.mkdir(parents=True)
        with zipfile.ZipFile(path, "w") as archive:
            for i in range(6):
                coarse = torch.rand((1, 3, 4, 4), generator=generator)
                pixels = torch.nn.functional.interpolate(coarse, (40, 40), mode="bicubic").clamp(0, 1)[0]
                buffer = io.BytesIO()
                Image.fromarray((pixels.permute(1, 2, 0) * 255).byte().numpy()).save(buffer, "png")
                archive.writestr(f"set/{i}.png", buffer.getvalue())
    for module, name, value in (
        (_meta_data, "FACES_HELD", 2),
        (_meta_data, "NATURAL_HELD", 2),
        (_meta_loop, "LEARNED_STEPS", 4),
        (_meta_loop, "VALIDATED_AT", (0, 2, 4)),
    ):
        monkeypatch.setattr(module, name, value)
    return tmp_path / "data"


def _options(data: Path, *more: str, module: Any = metadip) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    module.add_arguments(parser)
    size = ["--widths", "4", "6", "--noise", "4", "--skip", "4"] if module is metadip else ["--width", "8", "--layers", "3"]
    state, out = str(data.parent / "state" / "one"), str(data.parent / "out")
    common = ["--data", str(data), "--size", "16", "--batch", "1", "--validate", "1", "--state", state, "--out", out]
    return parser.parse_args([*common, *size, "--device", "cpu", *more])


def _outer(data: Path, options: argparse.Namespace) -> tuple[_meta_loop.Outer, _meta_data.Tasks]:
    tasks = _meta_data.Tasks(data, side=16, mixed=options.mixed, seed=0, device=torch.device("cpu"))
    recipe = metadip.recipe(options.widths, options.noise, options.skip, options.mixed, 0, first=options.first)
    return _meta_loop.Outer(recipe, options), tasks


def test_a_resumed_run_goes_on_exactly(data: Path, tmp_path: Path) -> None:
    options = _options(data)
    whole, tasks = _outer(data, options)
    for step in range(4):
        whole.step(tasks)
        if step == 1:
            whole.save(tmp_path / "half")
    resumed, tasks = _outer(data, options)
    resumed.load(tmp_path / "half")
    for _ in range(2):
        resumed.step(tasks)
    assert resumed.done == 4
    for a, b in zip(
        [*whole.weights, whole.log_rates, *whole.average], [*resumed.weights, resumed.log_rates, *resumed.average], strict=True
    ):
        assert torch.equal(a, b)


def test_a_start_that_sees_the_first_picture_learns_alone_before_inner_steps_begin(data: Path, tmp_path: Path) -> None:
    options = _options(data, "--mixed", "--first", "--warm-up", "30", "--warm-batch", "3")
    outer, tasks = _outer(data, options)
    held = tasks.validation(2)
    before, rates = outer.validate(held), outer.log_rates.clone()
    for _ in range(30):
        outer.step(tasks)
    assert torch.equal(outer.log_rates, rates)
    assert outer.validate(held)["denoising faces"][0] > before["denoising faces"][0] + 1
    outer.save(tmp_path / "state")
    outer.step(tasks)
    assert not torch.equal(outer.log_rates, rates)
    resumed, _ = _outer(data, options)
    resumed.load(tmp_path / "state")
    resumed.step(tasks)
    assert all(torch.equal(a, b) for a, b in zip(outer.weights, resumed.weights, strict=True))
    with pytest.raises(InvalidSettings, match="another network"):
        _outer(data, _options(data, "--mixed"))[0].load(tmp_path / "state")


def test_another_network_s_state_is_refused(data: Path, tmp_path: Path) -> None:
    first, _ = _outer(data, _options(data))
    first.save(tmp_path / "state")
    other, _ = _outer(data, _options(data, "--mixed"))
    with pytest.raises(InvalidSettings, match="another network"):
        other.load(tmp_path / "state")
    with pytest.raises(InvalidSettings, match="no training state"):
        other.load(tmp_path / "nowhere")
    for data_of in (b"", b"nothing of the kind", (tmp_path / "state").read_bytes()[:-9]):
        (tmp_path / "state").write_bytes(data_of)
        with pytest.raises(InvalidSettings, match="not the state of a training run"):
            first.load(tmp_path / "state")


def test_the_start_gets_better(data: Path) -> None:
    outer, tasks = _outer(data, _options(data, "--outer-rate", "0.003"))
    held = tasks.validation(2)
    before = outer.validate(held)
    for _ in range(40):
        outer.step(tasks)
    after = outer.validate(held)
    for name in ("denoising faces", "denoising patches"):
        assert after[name][4] > before[name][4] + 1
    assert float((outer.log_rates - math.log(0.7)).abs().max()) > 0.05


@pytest.mark.parametrize("flags", [["--mixed"], []])
def test_tasks_are_drawn_again_alike_and_from_what_is_not_held_out(data: Path, flags: list[str]) -> None:
    _, tasks = _outer(data, _options(data, *flags))
    again = _outer(data, _options(data, *flags))[1]
    for i in range(6):
        assert torch.equal(tasks[i].measurement, again[i].measurement)
    assert not torch.equal(tasks[0].clean, tasks[1].clean)
    # What is chosen by validation must not be chosen on the faces that the bench measures on, the last ones.
    assert (len(tasks.faces), len(tasks.natural)) == (2, 4)
    everything = _meta_data.read_all(data, _meta_data.FACES)
    assert all(torch.equal(a, b) for a, b in zip(tasks.held["faces"], everything[2:4], strict=True))
    kinds = ("denoising", "unseen", "sensing") if flags else ("denoising", "unseen")
    assert set(tasks.validation(1)) == {f"{t} {k}" for t in kinds for k in ("faces", "patches")}


def test_resuming_without_a_state_begins_and_says_so(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    metadip.run(_options(data, "--minutes", "0.001", "--resume", "--mixed"))
    assert "no training state one to go on from: the training starts anew" in capsys.readouterr().out
    metadip.run(_options(data, "--minutes", "0.001", "--resume", "--mixed"))
    assert "anew" not in capsys.readouterr().out
    card = priors.load(priors.shipped(data.parent / "out")[key("metadip", "mixed")]).card
    assert "--mixed" in card["command"]
    assert "--minutes" in card["command"]


@pytest.mark.parametrize("module", [metadip, metasiren])
def test_the_command_writes_weights_that_are_found(data: Path, module: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    module.run(_options(data, "--minutes", "0.001", module=module))
    kind, trained = ("metadip", "faces σ = 25") if module is metadip else ("metasiren", "faces σ = 25")
    found = priors.shipped(data.parent / "out")[key(kind, trained)]
    card = priors.load(found).card
    assert card["steps"] >= 1
    assert len(card["validation"]) == 2
    assert set(card["validation"][0]["psnr"]["denoising faces"]) == {"0", "2", "4"}
    readme = (data.parent / "out" / "README.md").read_text(encoding="utf-8")
    assert card["command"] in readme
    assert "unseen patches" in readme
    before = card["steps"]
    module.run(_options(data, "--minutes", "0.001", "--resume", module=module))
    assert priors.load(found).card["steps"] > before


def test_a_card_says_which_options_held_when(data: Path) -> None:
    metadip.run(_options(data, "--minutes", "0.001"))
    metadip.run(_options(data, "--minutes", "0.001", "--resume"))
    metadip.run(_options(data, "--minutes", "0.001", "--resume", "--tiles", "2"))
    command = priors.load(priors.shipped(data.parent / "out")[key("metadip", "faces σ = 25")]).card["command"]
    first, second = command.split(" && ")
    assert "--tiles" not in first
    assert "--resume" not in first
    assert "--tiles 2" in second
    assert "--resume" in second


def test_longer_training_is_never_written_over_by_a_run_that_does_not_go_on_from_it(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "out" / "metadip-faces.safetensors"

    def write(steps: int) -> None:
        prior = priors.load(path)
        priors.save(path, prior.tensors, {**prior.card, "steps": steps})

    # A clock by which every step takes a second: three steps, each followed by a validation.
    monkeypatch.setattr(_meta_loop, "time", SimpleNamespace(perf_counter=itertools.count().__next__))
    words = ["--minutes", "0.05", "--every", "0"]
    metadip.run(_options(data, *words))
    write(5000)
    own_state, before = (tmp_path / "state" / "one").read_bytes(), path.read_bytes()
    capsys.readouterr()
    for more in ([], ["--resume", "--state", str(tmp_path / "state" / "none")]):
        metadip.run(_options(data, *words, *more))
        assert path.read_bytes() == before
        assert capsys.readouterr().out.count("metadip-faces.safetensors is left alone") == 1
    # Resumed from the state of a run that never wrote it: not its own either.
    metadip.run(_options(data, *words, "--resume"))
    assert path.read_bytes() == before
    assert capsys.readouterr().out.count("is left alone") == 1
    # Nor is it when the state's run has written a file of this name elsewhere.
    metadip.run(_options(data, *words, "--out", str(tmp_path / "elsewhere")))
    metadip.run(_options(data, *words, "--resume"))
    assert path.read_bytes() == before
    assert priors.card_of(tmp_path / "elsewhere" / path.name)["steps"] == 3
    capsys.readouterr()
    # Its own state, and its own weights to begin from.
    (tmp_path / "state" / "one").write_bytes(own_state)
    metadip.run(_options(data, *words, "--resume"))
    assert priors.card_of(path)["steps"] == 6
    write(5000)
    metadip.run(_options(data, *words, "--begin", str(path)))
    assert priors.card_of(path)["steps"] == 3
    assert "left alone" not in capsys.readouterr().out
    # Once it has more steps, a run of its own takes the place.
    write(2)
    metadip.run(_options(data, *words))
    assert priors.card_of(path)["steps"] == 3


def test_a_card_names_what_the_start_it_began_from_had_learned_on(data: Path, tmp_path: Path) -> None:
    metadip.run(_options(data, "--minutes", "0.001"))
    parent = data.parent / "out" / "metadip-faces.safetensors"
    prior = priors.load(parent)
    old, new = "2950 faces of Labeled Faces in the Wild, 128×128", prior.card["data"]
    assert "note" not in prior.card
    priors.save(parent, prior.tensors, {**prior.card, "data": old})
    words = ["--mixed", "--minutes", "0.001", "--state", str(tmp_path / "state" / "mixed")]
    metadip.run(_options(data, *words, "--begin", str(parent)))
    for _ in range(2):  # however often it is resumed
        metadip.run(_options(data, *words, "--resume"))
        card = priors.card_of(data.parent / "out" / "metadip-mixed.safetensors")
        assert card["data"] == f"{old}; later {new}, and 180 pictures of BSDS500 (train)"
        assert "faces 2,901 to 2,902, on which" in card["note"]  # two are held out here
    readme = (data.parent / "out" / "README.md").read_text(encoding="utf-8")
    assert f"- **Note**: {card['note']}" in readme


def test_a_state_from_before_says_its_data_once(data: Path, tmp_path: Path) -> None:
    outer, _ = _outer(data, _options(data))
    own = outer.recipe.card["data"]
    outer.recipe.card["data"] = f"2950 faces; later {own}"
    outer.save(tmp_path / "state")
    about = safe_open(tmp_path / "state", framework="pt").metadata()
    kept = json.loads(about["state"])
    del kept["seen"]
    tensors = load_file(tmp_path / "state")
    save_file(tensors, tmp_path / "state", {"state": json.dumps(kept)})
    again, _ = _outer(data, _options(data))
    again.load(tmp_path / "state")
    assert again.seen == ["2950 faces", own]


def test_missing_data_is_said_in_words(tmp_path: Path) -> None:
    with pytest.raises(InvalidSettings, match="--data"):
        _meta_data.read_all(tmp_path, _meta_data.FACES)
