"""One table over every registered operator: a new one is tested by being registered.

Kinds listed in ``SETTINGS`` are tested with those settings, others with their defaults.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from shared import mains_at_once

from netprior_core.operators import ForwardModel, LinearModel, Operator

SETTINGS: dict[str, list[dict[str, Any]]] = {
    "inpainting": [{"keep": 0.3}, {"pattern": "box", "box_size": 0.5, "box_row": 0.1, "box_column": 0.9}],
    "compressed-sensing": [
        {"ratio": 0.2},
        {"ratio": 0.2, "normalisation": "1"},
        {"ratio": 0.3, "matrix": "structured"},
        {"ratio": 1.0, "matrix": "structured", "normalisation": "1"},
        {"count": 37},
    ],
    "phase-retrieval": [{"ratio": 0.5}, {"ratio": 0.4, "matrix": "structured"}, {"ratio": 2.5, "matrix": "structured"}],
    "designed-sensing": [{"ratio": 0.2}, {"count": 4}, {"count": 30, "normalisation": "isometry"}],
    "super-resolution": [
        {"factor": 2, "kernel": "lanczos"},
        {"factor": 4, "kernel": "bicubic"},
        {"factor": 2, "kernel": "box"},
    ],
    "tomography": [
        {"angles": 9},
        {"angles": 5, "arc": 120.0, "start": 17.0, "axis": -0.5, "filter": "hann"},
        {"angles": 8, "detectors": 16, "filter": "none"},
    ],
    "fourier": [
        {"lines": 4},
        {"pattern": "cartesian", "acceleration": 3.0},
        {"lines": 400},
    ],
    "deblurring": [
        {"kernel": "gaussian", "width": 0.5},
        {"kernel": "motion", "width": 5.0, "boundary": "reflect"},
        {"kernel": "motion", "width": 3.5},
        {"kernel": "disk", "width": 2.5, "boundary": "reflect"},
        {"kernel": "gaussian", "width": 3.0, "boundary": "reflect"},
    ],
}
SHAPES = [(1, 16, 16), (3, 16, 16), (1, 16, 20), (3, 20, 16), (1, 17, 21)]
RANDOM = {"inpainting", "compressed-sensing", "phase-retrieval"}
NONLINEAR = {"phase-retrieval"}


def _cases(linear: tuple[bool, ...] = (True, False)) -> list[Any]:
    cases = []
    for cls in Operator.registry:
        for changes in SETTINGS.get(cls.model_fields["kind"].default, [{}]):
            operator = cls(**changes)
            if (operator.kind not in NONLINEAR) not in linear:
                continue
            named = " ".join([operator.kind, *(f"{k}={v}" for k, v in changes.items())])
            cases += [
                pytest.param(operator, shape, id=f"{named} {'x'.join(map(str, shape))}")
                for shape in SHAPES
                if operator.refuses(shape) is None
            ]
    return cases


every = pytest.mark.parametrize(("operator", "shape"), _cases())
table = pytest.mark.parametrize(("operator", "shape"), _cases(linear=(True,)))
nonlinear = pytest.mark.parametrize(("operator", "shape"), _cases(linear=(False,)))


def _built(operator: Operator, shape: tuple[int, int, int], seed: int = 5, **options: Any) -> ForwardModel:
    """With six examples where the operator is made from examples; in float64 unless another type or device is asked for."""
    shots = _random(6, *shape, seed=99).sigmoid().float() if operator.needs_shots else None
    options.setdefault("dtype", torch.float64)
    return operator.build(shape, seed=seed, shots=shots, **options)


def _model(operator: Operator, shape: tuple[int, int, int], **options: Any) -> LinearModel:
    model = _built(operator, shape, **options)
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


@every
def test_gradient_is_that_of_half_the_squared_misfit(operator: Operator, shape: tuple[int, int, int]) -> None:
    model = _built(operator, shape)
    x, direction = _random(2, *shape), _random(2, *shape, seed=1)
    y = model.forward(_random(2, *shape, seed=2))
    slope = (model.gradient(x, y) * direction).flatten(1).sum(dim=1)
    if isinstance(model, LinearModel):
        _close(model.gradient(x, y), model.adjoint(model.forward(x) - y), 1e-10)
    step = 1e-6
    ahead, behind = ((model.forward(x + s * direction) - y).flatten(1).square().sum(dim=1) / 2 for s in (step, -step))
    torch.testing.assert_close(slope, (ahead - behind) / (2 * step), rtol=1e-4, atol=1e-6)


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


@nonlinear
def test_the_derivatives_of_a_nonlinear_model(operator: Operator, shape: tuple[int, int, int]) -> None:
    """Along random directions, against differences: every entry of every Jacobian would take minutes."""
    model = _built(operator, shape)
    assert not model.linear
    x = _random(1, *shape).sigmoid().requires_grad_()
    assert torch.autograd.gradcheck(model.forward, x, fast_mode=True)
    assert torch.autograd.gradgradcheck(model.forward, x, fast_mode=True)


@nonlinear
def test_the_gradient_of_a_nonlinear_data_fit(operator: Operator, shape: tuple[int, int, int]) -> None:
    """``gradient`` by central differences of ½ ‖A(x) − y‖², image by image."""
    model = _built(operator, shape)
    x, v = _random(2, *shape).sigmoid(), _random(2, *shape, seed=1)
    y, h = _random(2, *model.measurement_shape, seed=2).abs(), 1e-6

    def fit(image: torch.Tensor) -> torch.Tensor:
        return (model.forward(image) - y).square().sum(dim=tuple(range(1, y.ndim))) / 2

    slope = (fit(x + h * v) - fit(x - h * v)) / (2 * h)
    found = model.gradient(x, y)
    assert not found.requires_grad
    _close((found * v).sum(dim=(1, 2, 3)), slope, 1e-6)


@nonlinear
def test_derivatives_are_finite_where_nothing_is_measured(operator: Operator, shape: tuple[int, int, int]) -> None:
    model = _built(operator, shape, dtype=torch.float32)
    x = torch.zeros(1, *shape, requires_grad=True)
    (first,) = torch.autograd.grad((model.forward(x) - 1).square().sum(), x, create_graph=True)
    (second,) = torch.autograd.grad((first * _random(1, *shape).float()).sum(), x)
    assert bool(torch.isfinite(first).all())
    assert bool(torch.isfinite(second).all())


@every
def test_batch_is_a_loop(operator: Operator, shape: tuple[int, int, int]) -> None:
    model = _built(operator, shape)
    x, y = _random(3, *shape), _random(3, *model.measurement_shape, seed=1)
    calls = [(model.forward, x), (model.initial, y), (model.preview, y)]
    if isinstance(model, LinearModel):
        calls.append((model.adjoint, y))
        if model.has_pinv:
            calls.append((model.pinv, y))
    for call, value in calls:
        _close(call(value), torch.cat([call(one[None]) for one in value]), 1e-12)


@every
def test_float32_agrees(operator: Operator, shape: tuple[int, int, int]) -> None:
    model, single = _built(operator, shape), _built(operator, shape, dtype=torch.float32)
    x = _random(2, *shape)
    y = single.forward(x.float())
    assert y.dtype == single.initial(y).dtype == torch.float32
    _close(y.double(), model.forward(x), 1e-5)
    _close(single.initial(y).double(), model.initial(model.forward(x)), 1e-4)
    if not isinstance(model, LinearModel) or not isinstance(single, LinearModel):
        return
    assert single.adjoint(y).dtype == torch.float32
    _close(single.adjoint(y).double(), model.normal(x), 1e-5)
    if model.has_pinv:
        _close(single.pinv(y).double(), model.pinv(model.forward(x)), 1e-4)


@every
def test_same_seed_same_operator(operator: Operator, shape: tuple[int, int, int]) -> None:
    x = _random(1, *shape)
    torch.manual_seed(1)
    first = _built(operator, shape, seed=7).forward(x)
    torch.manual_seed(2)
    assert torch.equal(first, _built(operator, shape, seed=7).forward(x))
    if operator.kind in RANDOM and getattr(operator, "pattern", "random") == "random":
        assert not torch.equal(first, _built(operator, shape, seed=8).forward(x))


@every
def test_everything_follows_the_device(operator: Operator, shape: tuple[int, int, int]) -> None:
    """Torch's "meta" device computes shapes only, and refuses to mix with the CPU as a GPU would."""
    model = _built(operator, shape, device="meta", dtype=torch.float32)
    x = torch.zeros(2, *shape, device="meta")
    y = model.forward(x)
    outcomes = [y, model.initial(y), model.preview(y)]
    if isinstance(model, LinearModel):
        outcomes += [model.adjoint(y), model.normal(x)]
        if model.has_pinv:
            outcomes.append(model.pinv(y))
    assert {value.device.type for value in outcomes} == {"meta"}


@every
def test_a_wrong_model_is_a_model_of_its_own(operator: Operator, shape: tuple[int, int, int]) -> None:
    """What methods are told in a mismatch experiment: as linear, with the same measurements, but another matrix."""
    model, x = _built(operator, shape), _random(2, *shape)
    wrong = _built(operator, shape, error=1.0)
    assert wrong.linear == model.linear
    assert wrong.measurement_shape == model.measurement_shape
    off = float((wrong.forward(x) - model.forward(x)).norm() / model.forward(x).norm())
    if not type(operator).error_means:
        assert off == 0
        return
    assert 0.005 < off < 1
    half = _built(operator, shape, error=0.5)
    assert float((half.forward(x) - model.forward(x)).norm()) < float((wrong.forward(x) - model.forward(x)).norm())
    if not isinstance(wrong, LinearModel):
        return
    y = _random(2, *model.measurement_shape, seed=1)
    assert abs(float((wrong.forward(x) * y).sum()) - float((x * wrong.adjoint(y)).sum())) <= 1e-10 * float(x.norm() * y.norm())
    assert wrong.norm() == pytest.approx(float(torch.linalg.matrix_norm(_dense(wrong), 2)), rel=1e-3)
    if wrong.has_pinv:
        a, p = _dense(wrong), wrong.pinv(torch.eye(wrong.m, dtype=torch.float64).view(-1, *wrong.measurement_shape)).flatten(1).T
        _close(a @ p @ a, a, 1e-6)


@every
def test_wrong_shapes_are_named(operator: Operator, shape: tuple[int, int, int]) -> None:
    model = _built(operator, shape)
    linear = isinstance(model, LinearModel)
    wrong_image = torch.zeros(1, shape[0], shape[1] + 1, shape[2])
    wanted, given = "×".join(map(str, shape)), "×".join(map(str, wrong_image.shape))
    for call in (model.forward, model.normal) if linear else (model.forward,):
        with pytest.raises(ValueError, match=wanted) as caught:
            call(wrong_image)
        assert given in str(caught.value)
    wrong = torch.zeros(1, 1, *model.measurement_shape)
    wanted, given = "×".join(map(str, model.measurement_shape)), "×".join(map(str, wrong.shape))
    for call in (model.adjoint, model.initial, model.preview) if linear else (model.initial, model.preview):
        with pytest.raises(ValueError, match=wanted) as caught:
            call(wrong)
        assert given in str(caught.value)


@every
def test_pictures(operator: Operator, shape: tuple[int, int, int]) -> None:
    model = _built(operator, shape)
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


@every
def test_settings_describe_themselves(operator: Operator, shape: tuple[int, int, int]) -> None:
    cls = type(operator)
    assert cls.registry.parse(operator.model_dump(mode="json")) == operator
    assert cls.title
    assert cls.equation
    assert len(cls.summary()) > 20
    assert len(cls.lesson) > 150
    assert mains_at_once(cls) <= 3
    assert all(spec.help for spec in cls.fields())
    for name in cls.presets:
        assert cls.preset(name).preset_name() is not None


@every
def test_an_uploaded_measurement(operator: Operator, shape: tuple[int, int, int]) -> None:
    """Where a measurement is a picture, an upload of that size is one for the image shape the operator states."""
    if not operator.measures_images:
        return  # nothing to upload
    picture = _random(1, *shape).sigmoid()
    model = operator.build(operator.shape_of_measured(shape), dtype=torch.float64)
    y = model.measurement_of(picture)
    assert tuple(y.shape[1:]) == model.measurement_shape
    assert model.initial(y).shape[1:] == model.shape
