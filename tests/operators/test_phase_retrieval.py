"""Phase retrieval: its noise, its scale, its first picture and what it refuses. The table tests the rest."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from netprior_core import examples
from netprior_core.errors import InvalidSettings
from netprior_core.noise import GaussianNoise, PoissonNoise, RelativeNoise, SaltAndPepperNoise, TotalVarianceNoise
from netprior_core.operators import Operator
from netprior_core.operators.phase_retrieval import CodedModel, DensePhaseModel, PhaseModel, PhaseRetrieval

MATRICES = ["dense", "structured"]


def _image(*shape: int, seed: int = 3) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _model(shape: tuple[int, int, int] = (1, 24, 20), **settings: object) -> PhaseModel:
    model = Operator.registry.parse({"kind": "phase-retrieval", **settings}).build(shape, dtype=torch.float64)
    assert isinstance(model, PhaseModel)
    return model


@pytest.mark.parametrize("ratio", [0.25, 3.0])
@pytest.mark.parametrize("matrix", MATRICES)
def test_the_linear_part_and_its_adjoint_over_real_images(matrix: str, ratio: float) -> None:
    model = _model((3, 12, 16), matrix=matrix, ratio=ratio)
    x, generator = _image(2, 3, 12, 16), torch.Generator().manual_seed(0)
    z = torch.randn((2, model.m), generator=generator, dtype=torch.complex128)
    ax, back = model.linear_forward(x), model.linear_adjoint(z)
    assert ax.is_complex()
    assert not back.is_complex()
    assert float((ax.conj() * z).real.sum()) == pytest.approx(float((x * back).sum()), rel=1e-10)
    assert torch.allclose(model.forward(x), ax.abs(), atol=1e-6)
    columns = model.linear_forward(torch.eye(model.n, dtype=torch.float64).view(-1, *model.shape))
    exact = float(torch.linalg.matrix_norm(torch.cat([columns.real, columns.imag], dim=1), 2))
    assert exact * (1 - 1e-3) <= model.linear_norm() <= exact * (1.001 if matrix == "dense" else 1.5)
    with pytest.raises(ValueError, match="images"):
        model.linear_forward(x[:, :1])
    with pytest.raises(ValueError, match="values"):
        model.linear_adjoint(z[:, 1:])


@pytest.mark.parametrize("matrix", MATRICES)
def test_entries_are_complex_of_variance_one_over_m(matrix: str) -> None:
    model = _model((1, 16, 24), matrix=matrix)
    a = model.linear_forward(torch.eye(model.n, dtype=torch.float64).view(-1, *model.shape))
    assert float(a.abs().square().mean()) * model.m == pytest.approx(1, rel=0.02)
    assert abs(complex(a.square().mean())) * model.m < 0.05  # circular: real and imaginary part alike and uncorrelated
    if matrix == "dense":
        assert float(a.abs().pow(4).mean()) * model.m**2 == pytest.approx(2, rel=0.05)


@pytest.mark.parametrize("matrix", MATRICES)
def test_a_picture_and_its_negative_measure_alike(matrix: str) -> None:
    model, x = _model(matrix=matrix), _image(1, 1, 24, 20)
    assert torch.allclose(model.forward(x), model.forward(-x))
    assert float(model.forward(x).min()) >= 0
    assert not torch.allclose(model.forward(x) + model.forward(x.flip(-1)), model.forward(x + x.flip(-1)), atol=0.05)


@pytest.mark.parametrize("noise", [GaussianNoise(sigma=100), TotalVarianceNoise(variance=2000), RelativeNoise(level=60)])
def test_gaussian_noise_is_complex_and_inside_the_modulus(noise: GaussianNoise | TotalVarianceNoise | RelativeNoise) -> None:
    """Where nothing is measured the modulus of the noise is left: Rayleigh, E y² = s² and E y = s √π / 2."""
    model, x = _model((1, 64, 64), ratio=1.0, matrix="structured"), _image(1, 1, 64, 64)
    clean, std = model.forward(x), noise.std(model.forward(x))
    y = model.measure(x, noise, seed=1)
    assert torch.equal(y, model.measure(x, noise, seed=1))
    assert not torch.equal(y, model.measure(x, noise, seed=2))
    assert float((y.square() - clean.square()).mean()) == pytest.approx(std**2, rel=0.15)
    if not isinstance(noise, RelativeNoise):
        nothing = model.measure(torch.zeros_like(x), noise, seed=1)
        assert float(nothing.square().mean()) == pytest.approx(std**2, rel=0.05)
        assert float(nothing.mean()) == pytest.approx(std * math.sqrt(math.pi) / 2, rel=0.03)


@pytest.mark.parametrize("ratio", [0.25, 1.0, 4.0])
def test_the_noise_that_methods_are_told_is_that_of_the_moduli(ratio: float) -> None:
    """Half of the complex noise turns the phase, which is not measured."""
    model, x = _model((1, 64, 64), ratio=ratio, matrix="structured"), _image(1, 1, 64, 64)
    for noise in (GaussianNoise(sigma=10), TotalVarianceNoise(variance=20), RelativeNoise(level=5)):
        y = model.measure(x, noise, seed=1)
        assert float((y - model.forward(x)).square().mean()) ** 0.5 == pytest.approx(model.noise_std(noise, y), rel=0.1)
    assert model.noise_std(SaltAndPepperNoise(), y) is None


def test_far_too_few_measurements_start_from_the_flat_picture() -> None:
    model, x = _model((1, 32, 32), ratio=0.01, matrix="dense"), _image(1, 1, 32, 32)
    found = model.initial(model.forward(x))
    assert float(found.std()) < 1e-3 * float(found.mean())


def test_no_noise_and_other_noise() -> None:
    model, x = _model(ratio=0.5), _image(1, 1, 24, 20)
    clean = model.forward(x)
    assert torch.equal(model.measure(x, GaussianNoise(sigma=0), seed=1), clean)
    counted = model.measure(x, PoissonNoise(photons=20), seed=1) * 20
    assert torch.allclose(counted, counted.round(), atol=1e-9)
    lost = model.measure(x, SaltAndPepperNoise(share=30), seed=1)
    assert 0.15 < float((lost != clean).double().mean()) < 0.45


@pytest.mark.parametrize(("matrix", "ratio", "least"), [("dense", 0.25, 0.45), ("structured", 0.25, 0.45), ("dense", 0.125, 0.35)])
def test_the_spectral_start_shows_the_coarse_picture(matrix: str, ratio: float, least: float) -> None:
    """Better than a flat picture of the right size, the best that positivity alone can do; never a negative."""
    x = examples.get("faces").targets(32, 1)[:3].double()
    model = _model((1, 32, 32), matrix=matrix, ratio=ratio)
    y = torch.cat([model.measure(one[None], GaussianNoise(sigma=25), seed=i) for i, one in enumerate(x)])
    first = model.initial(y)
    assert not first.requires_grad
    flat = torch.ones_like(x) * (x.square().mean(dim=(1, 2, 3), keepdim=True)).sqrt()
    for found, guess, truth in zip(first, flat, x, strict=True):
        assert float(found.mean()) > 0
        assert float(torch.corrcoef(torch.stack([found.flatten(), truth.flatten()]))[0, 1]) > least
        assert float((found - truth).norm()) < float((guess - truth).norm())
        assert float(found.norm()) == pytest.approx(float(truth.norm()), rel=0.15)


def test_nothing_measured_gives_a_finite_first_picture() -> None:
    model = _model()
    assert bool(torch.isfinite(model.initial(torch.zeros(1, model.m, dtype=torch.float64))).all())


def test_a_descent_on_the_misfit_finds_the_picture_where_there_are_enough_moduli() -> None:
    """Wirtinger flow: with m = 4 n complex moduli and the spectral start, no prior is needed."""
    x, model = _image(1, 1, 10, 10), _model((1, 10, 10), ratio=4.0)
    y = model.forward(x)
    found, step = model.initial(y), 1 / model.linear_norm() ** 2
    for _ in range(400):
        found = found - step * model.gradient(found, y)
    assert float((found - x).norm() / x.norm()) < 1e-3


def test_dense_within_the_budget_and_coded_beyond_it() -> None:
    assert isinstance(_model(), DensePhaseModel)
    for matrix in ("auto", "dense"):
        model = PhaseRetrieval(matrix=matrix).build((1, 128, 128))
        assert isinstance(model, CodedModel)
        assert "since a dense one would need 512.0 MiB (budget 256.0 MiB)" in model.describe()
    assert "2 patterns" in PhaseRetrieval(ratio=1.5, matrix="structured").build((1, 16, 16)).describe()


def test_counts_presets_and_refusals() -> None:
    assert PhaseRetrieval(count=77).build((1, 16, 16)).m == 77
    assert PhaseRetrieval.preset("MetaDIP, m/n = 1/8").build((1, 16, 16)).m == 32
    with pytest.raises(InvalidSettings, match=r"at most 1,024"):
        PhaseRetrieval(count=1025).build((1, 16, 16))
    model = _model()
    with pytest.raises(InvalidSettings, match="negative"):
        model.measurement_from(np.linspace(-1, 1, model.m))
    assert model.measurement_from(np.linspace(0, 1, model.m)).shape == (1, model.m)


def test_the_strip_is_black_at_nothing() -> None:
    model = _model(ratio=0.1)
    y = torch.zeros(1, model.m, dtype=torch.float64)
    y[0, 0] = 1
    strip = model.preview(y)
    assert strip.shape == (1, 1, 7, 7)
    assert strip.flatten()[0] == 1
    assert torch.equal(strip.flatten()[1 : model.m], torch.zeros(model.m - 1, dtype=torch.float64))
