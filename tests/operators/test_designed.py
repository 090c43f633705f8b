"""Designed sensing: isometric on the examples, fair to a random matrix. The table tests adjoint, norm, pseudo-inverse."""

from __future__ import annotations

import pytest
import torch

from netprior_core import examples
from netprior_core.errors import InvalidSettings
from netprior_core.operators import compressed_sensing
from netprior_core.operators.compressed_sensing import CompressedSensing
from netprior_core.operators.designed import DesignedModel, DesignedSensing, near_isometry, secants

SHAPE = (1, 20, 16)


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _shots(count: int = 12, shape: tuple[int, int, int] = SHAPE, seed: int = 1) -> torch.Tensor:
    return torch.rand((count, *shape), generator=_generator(seed))


def _model(shots: torch.Tensor, **settings: object) -> DesignedModel:
    model = DesignedSensing(**settings).build(tuple(shots.shape[1:]), shots=shots, dtype=torch.float64)
    assert isinstance(model, DesignedModel)
    return model


def _dense(model: DesignedModel) -> torch.Tensor:
    return model.forward(torch.eye(model.n, dtype=torch.float64).view(-1, *model.shape)).T


def _worst(measured: torch.Tensor) -> float:
    energy = measured.square().sum(dim=1)
    return float((energy / energy.mean() - 1).abs().max())


def test_secants_are_normalised_differences_without_repetition() -> None:
    points = torch.tensor([[0.0, 0.0], [3.0, 4.0], [0.0, 0.0], [1.0, 0.0]])
    found = secants(points, _generator())
    assert torch.allclose(found.norm(dim=1), torch.ones(5))  # six pairs, one of equal points
    assert torch.allclose(found[0], torch.tensor([-0.6, -0.8]))
    many = secants(_shots(30), _generator(), most=50)
    assert many.shape == (50, 320)
    assert len(torch.unique(many, dim=0)) == 50


@pytest.mark.parametrize("normalisation", ["rows", "isometry"])
def test_with_enough_rows_the_distances_of_the_examples_are_kept_exactly(normalisation: str) -> None:
    shots = _shots()
    model = _model(shots, count=40, normalisation=normalisation)
    measured = model.forward(secants(shots.double(), _generator()).view(-1, *SHAPE))
    energy = measured.square().sum(dim=1)
    scale = 1.0 if normalisation == "isometry" else 320 / 40
    assert torch.allclose(energy, torch.full_like(energy, scale), rtol=1e-4)
    assert "12 of 40 rows from the examples, 28 random" in model.describe()
    assert "within rounding" in model.describe()


def test_rows_are_orthogonal_and_as_strong_as_random_ones() -> None:
    for count in (5, 12, 40, 320):
        model = _model(_shots(), count=count)
        gram = _dense(model) @ _dense(model).T
        lengths = gram.diagonal()
        assert float((gram - lengths.diag()).abs().max()) < 1e-8 * float(lengths.max())
        assert float(lengths.sum()) == pytest.approx(320, rel=1e-6)  # E‖A‖² of a Gaussian A with entries N(0, 1/m)
        if count >= 12:
            assert torch.allclose(lengths, torch.full_like(lengths, 320 / count))


def test_isometry_measures_any_picture_at_its_own_strength_in_the_mean() -> None:
    model = _model(_shots(), count=100, normalisation="isometry")
    x = torch.randn((400, *SHAPE), generator=_generator(5), dtype=torch.float64)
    assert float(model.forward(x).square().sum() / x.square().sum()) == pytest.approx(1, rel=0.05)


@pytest.mark.parametrize("count", [4, 8])
def test_with_few_rows_the_design_beats_principal_components_and_random_rows(count: int) -> None:
    shots = examples.get("faces").shots(24, 1)[:24]
    design = near_isometry(shots, count, _generator())
    vectors = secants(shots.double(), _generator())
    found = _worst((vectors @ design.basis.T) * design.lengths)
    assert found == pytest.approx(design.deviation, rel=1e-6)
    centred = (shots - shots.mean(dim=0)).flatten(1).double()
    components = torch.linalg.svd(centred, full_matrices=False).Vh[: count - 1]
    random = torch.randn((count, 576), generator=_generator(2), dtype=torch.float64)
    assert found < 0.8 * _worst(vectors @ components.T)
    assert found < 0.5 * _worst(vectors @ random.T)
    assert design.random_deviation == pytest.approx(_worst(vectors @ random.T), rel=0.8)
    assert float(design.lengths.min() / design.lengths.max()) > 0.049
    assert f"±{100 * design.deviation:.2g}%" in _model(shots, count=count).describe()


def test_images_like_the_examples_are_found_with_far_fewer_numbers() -> None:
    found = examples.get("faces")
    shots, truth = found.shots(24, 1), found.targets(24, 1)[:4].double()
    designed = _model(shots, count=58)
    random = CompressedSensing(count=58).build((1, 24, 24), dtype=torch.float64)
    off = [float((model.pinv(model.forward(truth)) - truth).norm()) for model in (designed, random)]
    assert off[0] < 0.5 * off[1]
    first = designed.initial(designed.forward(truth))
    assert float((first - truth).norm()) < float((shots.mean(dim=0) - truth).norm())
    assert torch.allclose(designed.forward(first), designed.forward(truth), atol=1e-9)


def test_the_random_rows_see_what_the_examples_lack_and_depend_on_the_seed() -> None:
    shots, operator = _shots(), DesignedSensing(count=60)
    first, second = (operator.build(SHAPE, seed=seed, shots=shots, dtype=torch.float64) for seed in (1, 2))
    x = torch.randn((1, *SHAPE), generator=_generator(9), dtype=torch.float64)
    a, b = first.forward(x)[0], second.forward(x)[0]
    assert torch.allclose(a[:12], b[:12], atol=1e-9)
    assert not torch.allclose(a[12:], b[12:], atol=0.1)
    assert float(a[12:].norm()) > 0


@pytest.mark.parametrize("kind", ["one", "equal", "black", "repeated", "grey"])
def test_odd_examples(kind: str) -> None:
    shots = {
        "one": _shots(1),
        "equal": _shots(1).expand(5, -1, -1, -1),
        "black": torch.zeros(3, *SHAPE),
        "repeated": _shots(3).repeat(3, 1, 1, 1),
        "grey": torch.tensor([0.2, 0.4, 0.9]).view(3, 1, 1, 1).expand(3, *SHAPE),
    }[kind]
    designed = {"one": 1, "equal": 1, "black": 0, "repeated": 3, "grey": 1}[kind]
    for count in (1, 2, 7):
        model = _model(shots, count=count)
        assert f"{min(designed, count)} of {count} rows" in model.describe()
        y = model.forward(_shots(2, seed=8).double())
        assert torch.allclose(model.forward(model.pinv(y)), y)
        assert bool(torch.isfinite(model.initial(y)).all())


def test_refusals_are_in_words() -> None:
    with pytest.raises(InvalidSettings, match="add some shots"):
        DesignedSensing().build(SHAPE)
    with pytest.raises(InvalidSettings, match="1×20×16 and the image is 1×16×16"):
        DesignedSensing().build((1, 16, 16), shots=_shots())
    with pytest.raises(InvalidSettings, match="only 320 values"):
        DesignedSensing(count=321).build(SHAPE, shots=_shots())


def test_the_memory_budget_bounds_the_designed_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compressed_sensing, "MEMORY_BUDGET", 16 * (320 + 40) * 6)
    model = _model(_shots(), count=40)
    assert "6 of 40 rows" in model.describe()
    assert "only the 5 main of their 11 directions fit (budget" in model.describe()
    assert "within rounding" not in model.describe()
    a = _dense(model)
    assert torch.allclose(a @ a.T, torch.eye(40, dtype=torch.float64) * 8, atol=1e-9)
