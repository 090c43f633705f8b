"""One table over every registered operator: a new one is tested by being registered.

Kinds listed in ``SETTINGS`` are tested with those settings, others with their defaults.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

from netprior_core.operators import LinearModel, Operator

SETTINGS: dict[str, list[dict[str, Any]]] = {
    "inpainting": [{"keep": 0.3}, {"pattern": "box", "box_size": 0.5, "box_row": 0.1, "box_column": 0.9}],
    "compressed-sensing": [
        {"ratio": 0.2},
        {"ratio": 0.2, "normalisation": "1"},
        {"ratio": 0.3, "matrix": "structured"},
        {"ratio": 1.0, "matrix": "structured", "normalisation": "1"},
    ],
    "super-resolution": [
        {"factor": 2, "kernel": "lanczos"},
        {"factor": 4, "kernel": "bicubic"},
        {"factor": 2, "kernel": "box"},
    ],
}
SHAPES = [(1, 16, 16), (3, 16, 16), (1, 16, 20), (3, 20, 16)]
RANDOM = {"inpainting": {"keep": 0.3}, "compressed-sensing": {"ratio": 0.2}}


def _cases() -> list[Any]:
    cases = []
    for cls in Operator.registry:
        for changes in SETTINGS.get(cls.model_fields["kind"].default, [{}]):
            operator = cls(**changes)
            named = " ".join([operator.kind, *(f"{k}={v}" for k, v in changes.items())])
            cases += [
                pytest.param(operator, shape, id=f"{named} {'x'.join(map(str, shape))}")
                for shape in SHAPES
                if operator.refuses(shape) is None
            ]
    return cases


table = pytest.mark.parametrize(("operator", "shape"), _cases())


def _model(operator: Operator, shape: tuple[int, int, int], dtype: torch.dtype = torch.float64, seed: int = 5) -> LinearModel:
    model = operator.build(shape, seed=seed, dtype=dtype)
    if not model.linear:
        pytest.skip("nonlinear")
    assert isinstance(model, LinearModel)
    return model


def _random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _dense(model: LinearModel) -> torch.Tensor:
    columns = model.forward(torch.eye(model.n, dtype=torch.float64).view(-1, *model.shape))
    return columns.flatten(1).T


def _close(a: torch.Tensor, b: torch.Tensor, tolerance: float) -> None:
    assert a.shape == b.shape
    assert float((a - b).norm()) <= tolerance * max(float(a.norm()), float(b.norm()), 1e-12)


def test_every_registered_operator_is_in_the_table() -> None:
    tested = {case.values[0].kind for case in _cases()}
    assert tested == {cls.model_fields["kind"].default for cls in Operator.registry}
    assert {"denoising", "inpainting", "compressed-sensing", "super-resolution", "colorization"} <= tested


@table
def test_adjoint(operator: Operator, shape: tuple[int, int, int]) -> None:
    model = _model(operator, shape)
    for seed in range(3):
        x, y = _random(2, *shape, seed=seed), _random(2, *model.measurement_shape, seed=seed + 10)
        ax, aty = model.forward(x), model.adjoint(y)
        assert ax.shape == y.shape
        assert aty.shape == x.shape
        scale = float(ax.norm() * y.norm())
        assert abs(float((ax * y).sum()) - float((x * aty).sum())) <= 1e-10 * scale


@table
def test_linear_and_normal(operator: Operator, shape: tuple[int, int, int]) -> None:
    model = _model(operator, shape)
    a, b = _random(2, *shape), _random(2, *shape, seed=1)
    _close(model.forward(2.5 * a - b), 2.5 * model.forward(a) - model.forward(b), 1e-12)
    _close(model.normal(a), model.adjoint(model.forward(a)), 1e-12)


@table
def test_norm(operator: Operator, shape: tuple[int, int, int]) -> None:
    model = _model(operator, shape)
    exact = float(torch.linalg.matrix_norm(_dense(model), 2))
    assert model.norm() == pytest.approx(exact, rel=1e-3)
    assert LinearModel.norm(model) == pytest.approx(exact, rel=1e-3)


@table
def test_pseudo_inverse(operator: Operator, shape: tuple[int, int, int]) -> None:
    model = _model(operator, shape)
    y = torch.eye(model.m, dtype=torch.float64).view(-1, *model.measurement_shape)
    if not model.has_pinv:
        with pytest.raises(NotImplementedError, match="initial"):
            model.pinv(y)
        return
    a, p = _dense(model), model.pinv(y).flatten(1).T
    _close(a @ p @ a, a, 1e-6)
    _close(p @ a @ p, p, 1e-6)
    _close((a @ p).T, a @ p, 1e-6)
    _close((p @ a).T, p @ a, 1e-6)


@table
def test_gradient_of_the_data_fit(operator: Operator, shape: tuple[int, int, int]) -> None:
    model = _model(operator, shape)
    x, y = _random(2, *shape).requires_grad_(), _random(2, *model.measurement_shape, seed=1)
    (0.5 * (model.forward(x) - y).square().sum()).backward()
    assert x.grad is not None
    _close(x.grad, model.adjoint(model.forward(x.detach()) - y), 1e-10)


@table
def test_second_derivative(operator: Operator, shape: tuple[int, int, int]) -> None:
    """Meta-learning differentiates through gradient steps."""
    model = _model(operator, shape)
    x, v = _random(1, *shape).requires_grad_(), _random(1, *shape, seed=1)
    (first,) = torch.autograd.grad(0.5 * model.forward(x).square().sum(), x, create_graph=True)
    (second,) = torch.autograd.grad((first * v).sum(), x)
    _close(second, model.normal(v), 1e-10)


@table
def test_batch_is_a_loop(operator: Operator, shape: tuple[int, int, int]) -> None:
    model = _model(operator, shape)
    x, y = _random(3, *shape), _random(3, *model.measurement_shape, seed=1)
    calls = [(model.forward, x), (model.adjoint, y), (model.initial, y), (model.preview, y)]
    if model.has_pinv:
        calls.append((model.pinv, y))
    for call, value in calls:
        _close(call(value), torch.cat([call(one[None]) for one in value]), 1e-12)


@table
def test_float32_agrees(operator: Operator, shape: tuple[int, int, int]) -> None:
    model, single = _model(operator, shape), _model(operator, shape, torch.float32)
    x = _random(2, *shape)
    y = single.forward(x.float())
    assert y.dtype == torch.float32
    assert single.adjoint(y).dtype == torch.float32
    _close(y.double(), model.forward(x), 1e-5)
    _close(single.adjoint(y).double(), model.normal(x), 1e-5)
    if model.has_pinv:
        _close(single.pinv(y).double(), model.pinv(model.forward(x)), 1e-4)


@table
def test_same_seed_same_operator(operator: Operator, shape: tuple[int, int, int]) -> None:
    x = _random(1, *shape)
    torch.manual_seed(1)
    first = operator.build(shape, seed=7, dtype=torch.float64).forward(x)
    torch.manual_seed(2)
    assert torch.equal(first, operator.build(shape, seed=7, dtype=torch.float64).forward(x))
    if operator.kind in RANDOM and getattr(operator, "pattern", "random") == "random":
        assert not torch.equal(first, operator.build(shape, seed=8, dtype=torch.float64).forward(x))


@table
def test_everything_follows_the_device(operator: Operator, shape: tuple[int, int, int]) -> None:
    """Torch's "meta" device computes shapes only, and refuses to mix with the CPU as a GPU would."""
    model = operator.build(shape, device="meta")
    x = torch.zeros(2, *shape, device="meta")
    y = model.forward(x)
    outcomes = [y, model.initial(y), model.preview(y)]
    if isinstance(model, LinearModel):
        outcomes += [model.adjoint(y), model.normal(x)]
        if model.has_pinv:
            outcomes.append(model.pinv(y))
    assert {value.device.type for value in outcomes} == {"meta"}


@table
def test_a_wrong_model_is_a_model_of_its_own(operator: Operator, shape: tuple[int, int, int]) -> None:
    """What methods are told in a mismatch experiment: as linear, with the same measurements, but another matrix."""
    model, x = _model(operator, shape), _random(2, *shape)
    wrong = operator.build(shape, seed=5, dtype=torch.float64, error=1.0)
    assert isinstance(wrong, LinearModel)
    assert wrong.measurement_shape == model.measurement_shape
    off = float((wrong.forward(x) - model.forward(x)).norm() / model.forward(x).norm())
    if not type(operator).error_means:
        assert off == 0
        return
    assert 0.005 < off < 1
    half = operator.build(shape, seed=5, dtype=torch.float64, error=0.5)
    assert float((half.forward(x) - model.forward(x)).norm()) < float((wrong.forward(x) - model.forward(x)).norm())
    y = _random(2, *model.measurement_shape, seed=1)
    assert abs(float((wrong.forward(x) * y).sum()) - float((x * wrong.adjoint(y)).sum())) <= 1e-10 * float(x.norm() * y.norm())
    assert wrong.norm() == pytest.approx(float(torch.linalg.matrix_norm(_dense(wrong), 2)), rel=1e-3)
    if wrong.has_pinv:
        a, p = _dense(wrong), wrong.pinv(torch.eye(wrong.m, dtype=torch.float64).view(-1, *wrong.measurement_shape)).flatten(1).T
        _close(a @ p @ a, a, 1e-6)


@table
def test_wrong_shapes_are_named(operator: Operator, shape: tuple[int, int, int]) -> None:
    model = _model(operator, shape)
    wrong_image = torch.zeros(1, shape[0], shape[1] + 1, shape[2])
    wanted, given = "×".join(map(str, shape)), "×".join(map(str, wrong_image.shape))
    for call in (model.forward, model.normal):
        with pytest.raises(ValueError, match=wanted) as caught:
            call(wrong_image)
        assert given in str(caught.value)
    wrong = torch.zeros(1, 1, *model.measurement_shape)
    wanted, given = "×".join(map(str, model.measurement_shape)), "×".join(map(str, wrong.shape))
    for call in (model.adjoint, model.initial, model.preview):
        with pytest.raises(ValueError, match=wanted) as caught:
            call(wrong)
        assert given in str(caught.value)


@table
def test_pictures(operator: Operator, shape: tuple[int, int, int]) -> None:
    model = _model(operator, shape)
    x = _random(2, *shape).sigmoid()
    y = model.forward(x) + 0.3 * _random(2, *model.measurement_shape, seed=3)
    preview, initial = model.preview(y), model.initial(y)
    assert preview.ndim == 4
    assert preview.shape[:2] in {(2, 1), (2, 3)}
    assert float(preview.min()) >= 0
    assert float(preview.max()) <= 1
    assert float(preview.std()) > 0.01
    assert initial.shape == x.shape
    assert model.m == y[0].numel()
    assert len(model.describe()) > 10


@table
def test_settings_describe_themselves(operator: Operator, shape: tuple[int, int, int]) -> None:
    cls = type(operator)
    assert cls.registry.parse(operator.model_dump(mode="json")) == operator
    assert cls.title
    assert cls.equation
    assert len(cls.summary()) > 20
    assert len(cls.lesson) > 150
    assert sum(spec.main for spec in cls.fields()) <= 3
    assert all(spec.help for spec in cls.fields())
    for name in cls.presets:
        assert cls.preset(name).preset_name() is not None


@table
def test_an_uploaded_measurement(operator: Operator, shape: tuple[int, int, int]) -> None:
    """Where a measurement is a picture, an upload of that size is one for the image shape the operator states."""
    if not operator.measures_images:
        return  # nothing to upload
    picture = _random(1, *shape).sigmoid()
    model = operator.build(operator.shape_of_measured(shape), dtype=torch.float64)
    y = model.measurement_of(picture)
    assert tuple(y.shape[1:]) == model.measurement_shape
    assert model.initial(y).shape[1:] == model.shape
