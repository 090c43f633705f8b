"""Classical methods: the same optimum as well-kept libraries, exact proximal steps, objectives that fall, guards that fire."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch

from netprior_core import bases, denoisers, variation
from netprior_core.bench.classical import dense_problem
from netprior_core.errors import Unsolvable
from netprior_core.methods.amp import DAMP
from netprior_core.methods.bm3d import BM3D
from netprior_core.methods.fbp import FilteredBackProjection
from netprior_core.methods.lasso import Lasso, soft
from netprior_core.methods.tv import TotalVariation
from netprior_core.methods.tval3 import TVAL3, scaling
from netprior_core.metrics import psnr
from netprior_core.operators import _radon
from netprior_core.operators.designed import DesignedSensing
from netprior_core.problem import Problem
from netprior_core.stopping.measured import HeldOut


def _noise(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def _solved(method: Any, problem: Problem) -> tuple[torch.Tensor, list[float], Any]:
    objectives = []
    for step in method.solve(problem, seeds=[0]):
        objectives.append(float(step.objective))
    return step.estimate, objectives, step


# Differences, bases, proximal steps


def test_gradient_and_its_adjoint_agree() -> None:
    x, p = _noise(2, 3, 7, 5), variation.gradient(_noise(2, 3, 7, 5, seed=1))
    assert float((variation.gradient(x) * p).sum()) == pytest.approx(float((x * variation.gradient_adjoint(p)).sum()))


def test_total_variation_of_a_step() -> None:
    x = torch.zeros(1, 1, 6, 6)
    x[..., 3:] = 0.5  # six jumps of a half
    assert variation.total_variation(x).item() == pytest.approx(3)
    corner = torch.zeros(1, 1, 4, 4)
    corner[..., :2, :2] = 1
    assert variation.total_variation(corner, isotropic=False).item() == pytest.approx(4)
    assert variation.total_variation(corner).item() == pytest.approx(2 + math.sqrt(2))


@pytest.mark.parametrize("isotropic", [True, False])
def test_shrinkage_is_what_projection_leaves_and_minimises(isotropic: bool) -> None:
    jumps, threshold = _noise(2, 1, 1, 8, 8), 0.7
    u = variation.shrink(jumps, threshold, isotropic)
    torch.testing.assert_close(u, jumps - variation.project(jumps.clone(), threshold, isotropic))

    def price(v: torch.Tensor) -> float:
        lengths = v.square().sum(dim=0).sqrt() if isotropic else v.abs().sum(dim=0)
        return float(threshold * lengths.sum() + (v - jumps).square().sum() / 2)

    for seed in range(5):
        assert price(u) < price(u + 0.01 * _noise(2, 1, 1, 8, 8, seed=seed + 1))


def test_soft_thresholding_is_the_proximal_step_of_the_l1_norm() -> None:
    c = torch.tensor([-2.0, -0.3, 0.0, 0.4, 1.5])
    torch.testing.assert_close(soft(c, 0.5), torch.tensor([-1.5, 0.0, 0.0, 0.0, 1.0]))


def test_cosines_are_scipys() -> None:
    from scipy.fft import dctn

    x = _noise(2, 3, 20, 12)
    found = bases.Basis("dct", 20, 12, "cpu", torch.float64).coefficients(x)
    np.testing.assert_allclose(found.numpy(), dctn(x.numpy(), axes=(2, 3), norm="ortho"), atol=1e-12)


def test_wavelets_are_those_of_pywavelets() -> None:
    pywt = pytest.importorskip("pywt")
    np.testing.assert_allclose(bases.daubechies(4), pywt.Wavelet("db4").rec_lo, atol=1e-9)
    x = _noise(1, 1, 64, 48)
    basis = bases.Basis("db4", 64, 48, "cpu", torch.float64)
    theirs, _ = pywt.coeffs_to_array(pywt.wavedec2(x[0, 0].numpy(), "db4", mode="periodization", level=2))
    np.testing.assert_allclose(basis.coefficients(x)[0, 0].numpy(), theirs, atol=1e-9)


@pytest.mark.parametrize("opponent", [False, True])
@pytest.mark.parametrize("name", ["dct", "db4"])
@pytest.mark.parametrize("size", [(16, 16), (48, 80), (50, 32)])
def test_bases_are_orthonormal_and_leave_their_argument_alone(name: Any, size: tuple[int, int], opponent: bool) -> None:
    x = _noise(2, 3, *size)
    before, basis = x.clone(), bases.Basis(name, *size, "cpu", torch.float64, opponent=opponent)
    c = basis.coefficients(x)
    kept = c.clone()
    torch.testing.assert_close(basis.picture(c), x)
    assert float(c.square().sum()) == pytest.approx(float(x.square().sum()))
    assert torch.equal(x, before)
    assert torch.equal(c, kept)


# Total variation


def test_the_dual_projection_reaches_scikit_images_objective(make_problem: Any) -> None:
    from skimage.restoration import denoise_tv_chambolle

    problem, _ = make_problem("denoising", channels=1, side=64, sigma=25)
    y, weight = problem.measurement, 0.1
    theirs = torch.from_numpy(denoise_tv_chambolle(y[0, 0].numpy(), weight=weight, eps=0, max_num_iter=8000))[None, None]
    ours = variation.denoise(y, weight, iterations=300, tolerance=0)

    def price(x: torch.Tensor) -> float:
        return float(weight * variation.total_variation(x) + (x - y).square().sum() / 2)

    assert price(ours) <= price(theirs) * (1 + 1e-4)
    assert price(theirs) <= price(ours) * (1 + 1e-3)
    assert psnr(ours, theirs).item() > 45


@pytest.mark.parametrize("variation_", ["isotropic", "anisotropic"])
def test_primal_dual_and_dual_projection_agree_on_denoising(make_problem: Any, variation_: str) -> None:
    problem, _ = make_problem("denoising", sigma=25)
    settings = {"weight": 0.1, "variation": variation_, "bounded": False, "iterations": 600}
    dual, prices, _ = _solved(TotalVariation(**settings), problem)
    as_inpainting, _ = make_problem("inpainting", keep=1.0, sigma=25)  # A = I as well, but not known to be
    other = replace(as_inpainting, measurement=problem.measurement.flatten(2))
    primal, their_prices, _ = _solved(TotalVariation(**settings), other)
    assert their_prices[-1] == pytest.approx(prices[-1], rel=1e-3)
    assert psnr(dual, primal).item() > 40


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("compressed-sensing", {"ratio": 0.3}),
        ("tomography", {}),
        ("deblurring", {"width": 1.0}),
        ("super-resolution", {"factor": 2}),
    ],
)
def test_primal_dual_ends_where_nothing_is_better(make_problem: Any, kind: str, settings: dict[str, Any]) -> None:
    """Convex: an objective that five times as many steps do not lower any further is the minimum."""
    problem, _ = make_problem(kind, channels=1, sigma=5, **settings)
    x, prices, _ = _solved(TotalVariation(), problem)
    _, more, _ = _solved(TotalVariation(iterations=1500), problem)
    assert prices[-1] <= more[-1] * (1 + 2e-3)
    assert prices[-1] < 0.9 * prices[0]
    assert x.min() >= 0
    assert x.max() <= 1


def test_constrained_total_variation_uses_up_the_noise_and_no_more(make_problem: Any) -> None:
    problem, _ = make_problem("compressed-sensing", channels=1, ratio=0.4, sigma=10)
    x, _, _ = _solved(TotalVariation(form="constrained", iterations=1500), problem)
    allowed = problem.noise_std * problem.model.m**0.5
    assert float((problem.model.forward(x) - problem.measurement).norm()) == pytest.approx(allowed, rel=0.01)
    unknown = replace(problem, noise_std=None)
    assert "penalised" in (TotalVariation(form="constrained").accepts(unknown) or "")
    assert TotalVariation().accepts(unknown) is None


def test_the_scale_of_the_operator_does_not_change_the_picture(make_problem: Any) -> None:
    """N(0, 1) entries and m times the noise variance are N(0, 1/m) entries in another unit."""
    one, _ = make_problem("compressed-sensing", channels=1, ratio=0.3, sigma=5)
    root = one.model.m**0.5
    other, _ = make_problem("compressed-sensing", channels=1, ratio=0.3, normalisation="1")
    other = replace(other, measurement=root * one.measurement, noise_std=root * one.noise_std)
    for method in (TotalVariation(), Lasso(), TVAL3(tolerance=0, iterations=1000), DAMP(iterations=8)):
        a, b = _solved(method, one)[0], _solved(method, other)[0]
        torch.testing.assert_close(a, b, atol=2e-3, rtol=0)


def test_tval3_ends_where_total_variation_does(make_problem: Any) -> None:
    problem, truth = make_problem("compressed-sensing", channels=1, ratio=0.4, sigma=0)
    constrained, prices, last = _solved(TVAL3(), problem)
    assert prices[-1] < 0.1 * prices[0]
    assert last.info["returns"] < 300  # its tolerance stopped it
    reference, _, _ = _solved(TotalVariation(form="constrained", iterations=1000), problem)
    assert psnr(constrained, truth).item() > psnr(reference, truth).item() - 2
    noisy, _ = make_problem("compressed-sensing", channels=1, ratio=0.4, sigma=10)
    long = TVAL3(data="penalised", tolerance=0, iterations=2000, mu=256)
    penalised, _, _ = _solved(long, noisy)
    norm = noisy.model.norm()
    weight = norm**2 / (long.mu * scaling(noisy.measurement, norm))
    same, _, _ = _solved(TotalVariation(weight=weight, iterations=2000, bounded=False), noisy)
    assert psnr(penalised, same).item() > 35


@pytest.mark.parametrize(("kind", "settings"), [("denoising", {}), ("tomography", {"angles": 60}), ("inpainting", {"keep": 0.5})])
def test_tval3_follows_the_noise_and_the_operator(make_problem: Any, kind: str, settings: Any) -> None:
    """With the published μ, whatever the noise, it was 5 dB below total variation here."""
    problem, truth = make_problem(kind, channels=1, sigma=25, **settings)
    mine, published, other = (
        psnr(_solved(method, problem)[0], truth).item() for method in (TVAL3(), TVAL3.preset("CS-DIP"), TotalVariation())
    )
    assert mine > published + 0.5
    assert mine > other - 0.7
    written = TVAL3().written_out(problem)
    assert written.mu > 0  # type: ignore[attr-defined]
    torch.testing.assert_close(_solved(written, problem)[0], _solved(TVAL3(), problem)[0])


def test_tval3_without_noise_is_as_it_was(make_problem: Any) -> None:
    problem, _ = make_problem("compressed-sensing", channels=1, ratio=0.25, sigma=0)
    assert torch.equal(_solved(TVAL3(), problem)[0], _solved(TVAL3.preset("CS-DIP"), problem)[0])
    assert TVAL3.preset("CS-DIP").mu == 2**8
    assert TVAL3.preset("CS-DIP").beta == 2**5


@pytest.mark.parametrize("factor", [1e-3, 1.0, 1e3])
def test_tval3_brings_the_measurement_into_range(factor: float) -> None:
    y = factor * torch.linspace(-1, 1, 9)
    span = 2 * factor * scaling(y, norm=2.0) / 2
    assert 0.5 - 1e-6 <= span <= 1.5 + 1e-6
    assert scaling(torch.ones(4), 1.0) == 1.0


# Lasso


@pytest.mark.parametrize("weight", [0.05, 0.5])
def test_lasso_reaches_scikit_learns_objective(weight: float) -> None:
    linear_model = pytest.importorskip("sklearn.linear_model")
    problem, design, y = dense_problem(16)
    reference = linear_model.Lasso(alpha=weight / len(y), fit_intercept=False, tol=1e-8, max_iter=100_000).fit(design, y).coef_
    goal = float(np.square(design @ reference - y).sum() / 2 + weight * np.abs(reference).sum())
    x, prices, _ = _solved(Lasso(weight=weight, iterations=300), problem)
    assert prices[-1] == pytest.approx(goal, rel=1e-3)
    basis = bases.Basis("dct", 16, 16, "cpu", torch.float64)
    wanted = basis.picture(torch.from_numpy(reference).view(1, 1, 16, 16)).float()
    assert psnr(x.clamp(0, 1), wanted).item() > 35


def test_scikit_learns_convention_is_lambda_over_m(make_problem: Any) -> None:
    problem, _ = make_problem("compressed-sensing", channels=1, ratio=0.3)
    alpha = 1e-3
    by_alpha, mean, _ = _solved(Lasso(weight=alpha, misfit="mean"), problem)
    by_lambda, total, _ = _solved(Lasso(weight=alpha * problem.model.m), problem)
    torch.testing.assert_close(by_alpha, by_lambda, atol=1e-4, rtol=0)
    assert mean[-1] * problem.model.m == pytest.approx(total[-1], rel=1e-4)


@pytest.mark.parametrize("basis", ["dct", "db4"])
@pytest.mark.parametrize("kind", ["compressed-sensing", "tomography", "inpainting"])
def test_lassos_objective_never_rises(make_problem: Any, basis: Any, kind: str) -> None:
    problem, _ = make_problem(kind)
    _, prices, _ = _solved(Lasso(basis=basis, iterations=120), problem)
    assert all(b <= a * (1 + 1e-5) for a, b in pairwise(prices))
    assert prices[-1] < 0.9 * prices[0]


def test_lasso_makes_a_colourless_picture_grey_and_not_green(make_problem: Any) -> None:
    """Of all pictures with this luma the grey one is the sparsest, but not with the channels apart."""
    problem, truth = make_problem("colorization", channels=3, sigma=2)
    grey = problem.model.pinv(problem.model.forward(truth)).mean(dim=1, keepdim=True).expand_as(truth)
    luma = problem.model.forward(grey)
    problem = replace(problem, measurement=luma)
    found, _, _ = _solved(Lasso(), problem)
    apart, _, _ = _solved(Lasso(colours="rgb"), problem)
    assert psnr(found, grey).item() > 30
    assert psnr(apart, grey).item() < 15
    assert apart.mean(dim=(0, 2, 3)).argmax().item() == 1


def test_lasso_refuses_sides_that_cannot_be_halved(make_problem: Any) -> None:
    problem, _ = make_problem("denoising", side=33)
    assert "even sides" in (Lasso(basis="db4").accepts(problem) or "")
    assert Lasso().accepts(problem) is None


# D-AMP


def test_amp_recovers_a_sparse_picture_at_half_the_measurements(make_problem: Any) -> None:
    """A few rectangles, no noise: total variation knows them, and the estimated noise goes on falling."""
    problem, _ = make_problem("compressed-sensing", channels=1, ratio=0.5, sigma=0)
    truth = torch.full((1, 1, 32, 32), 0.2)
    truth[..., 5:20, 8:18] = 0.9
    truth[..., 22:28, 3:29] = 0.6
    problem = replace(problem, measurement=problem.model.forward(truth))
    x, variances, last = _solved(DAMP(), problem)
    assert psnr(x, truth).item() > 35
    assert variances[-1] < 1e-3 * variances[0]
    assert "σ̂" in last.info["note"]


def test_the_onsager_term_is_what_makes_it_converge(make_problem: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    problem, truth = make_problem("compressed-sensing", channels=1, ratio=0.3, sigma=2)
    corrected, _, _ = _solved(DAMP(iterations=15), problem)
    assert psnr(corrected, truth).item() > psnr(problem.model.initial(problem.measurement), truth).item() + 10

    def deaf(device: torch.device) -> Any:  # a denoiser whose divergence seems to be 0: it gives its last answer again
        kept: dict[str, torch.Tensor] = {}
        calls = iter(range(10**6))

        def denoise(x: torch.Tensor, sigma: float) -> torch.Tensor:
            if next(calls) % 2 == 0:
                kept["x"] = variation.denoise(x, denoisers.TV_WEIGHT * sigma)
            return kept["x"]

        return denoise

    monkeypatch.setitem(denoisers.DENOISERS, "tv", replace(denoisers.get("tv"), load=deaf))
    try:
        without, _, _ = _solved(DAMP(iterations=15), problem)
    except Unsolvable:
        return  # that is how much it matters
    assert psnr(corrected, truth).item() > psnr(without, truth).item() + 1


def test_amp_that_has_arrived_at_the_measurements_own_noise_has_converged(make_problem: Any) -> None:
    """A dark picture in strong noise: there is little to leave behind."""
    problem, _ = make_problem("compressed-sensing", channels=1, ratio=1.0, sigma=100)
    dark = 0.2 * problem.model.initial(problem.measurement).clamp(0, 1)
    y = problem.model.measure(dark, problem.noise, seed=3)
    _, variances, last = _solved(DAMP(iterations=10), replace(problem, measurement=y))
    assert last.stage == "result"
    assert variances[-1] > 0.81 * float(y.square().mean())


@pytest.mark.parametrize(("kind", "settings", "word"), [("tomography", {}, "random sums"), ("deblurring", {}, "random sums")])
def test_amps_guard_fires_in_words(make_problem: Any, kind: str, settings: dict[str, Any], word: str) -> None:
    problem, _ = make_problem(kind, channels=1, **settings)
    with pytest.raises(Unsolvable, match=word):
        _solved(DAMP(), problem)


def test_amps_guard_names_too_few_measurements(make_problem: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    problem, _ = make_problem("compressed-sensing", channels=1, ratio=0.05)
    nothing = replace(denoisers.get("tv"), load=lambda device: lambda x, sigma: x)  # denoises nothing: it cannot converge
    monkeypatch.setitem(denoisers.DENOISERS, "tv", nothing)
    with pytest.raises(Unsolvable, match=r"51 measurements of 1,024 values \(5\.0%\) are too few"):
        _solved(DAMP(), problem)
    designed = replace(problem, operator=DesignedSensing())
    with pytest.raises(Unsolvable, match="are too few"):
        _solved(DAMP(), designed)


# BM3D and denoisers


def _without(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    found = denoisers.importlib.util.find_spec
    monkeypatch.setattr(denoisers.importlib.util, "find_spec", lambda name, *rest: None if name == package else found(name, *rest))


def test_methods_that_miss_a_package_say_how_to_get_it(make_problem: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    _without(monkeypatch, "bm3d")
    problem, _ = make_problem("denoising")
    for method in (BM3D(), DAMP(denoiser="bm3d")):
        reason = method.accepts(problem) or ""
        assert "non-commercial" in reason
        assert "pip install bm3d" in reason
    with pytest.raises(Unsolvable, match="pip install"):
        denoisers.load("bm3d", "cpu")


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", ["tv", "bm3d", "neural"])
def test_every_denoiser_denoises_and_knows_its_strength(make_problem: Any, name: str, channels: int) -> None:
    reason = denoisers.get(name).available()
    if reason is not None:
        pytest.skip(reason)
    problem, truth = make_problem("denoising", channels=channels, sigma=25)
    y, denoise = problem.measurement, denoisers.load(name, "cpu")
    clean = denoise(y, 25 / 255)
    assert clean.shape == y.shape
    assert clean.dtype == y.dtype
    assert psnr(clean, truth).item() > psnr(y, truth).item() + 4
    assert (denoise(y, 5 / 255) - y).norm() < (clean - y).norm()
    assert torch.equal(denoise(y, 0.0), y)


def test_bm3d_handles_a_colour_picture_without_colour(make_problem: Any) -> None:
    pytest.importorskip("bm3d")
    problem, truth = make_problem("denoising", channels=1, side=24, sigma=25)
    grey = replace(problem, measurement=problem.measurement.expand(-1, 3, -1, -1))
    found = denoisers.load("bm3d", "cpu")(grey.measurement, 25 / 255)
    assert torch.isfinite(found).all()
    assert psnr(found, truth.expand_as(found)).item() > 25


def test_bm3d_is_for_denoising_with_known_noise(make_problem: Any) -> None:
    other, _ = make_problem("inpainting")
    assert "denoises" in (BM3D().accepts(other) or "")
    unknown, _ = make_problem("denoising")
    assert "how strong" in (BM3D().accepts(replace(unknown, noise_std=None)) or "")


# Filtered back-projection


def test_fbp_is_the_operators_first_picture_and_takes_other_filters(make_problem: Any) -> None:
    problem, _ = make_problem("tomography", channels=1, angles=40)
    before = problem.model._response
    plain, _, _ = _solved(FilteredBackProjection(), problem)
    torch.testing.assert_close(plain, problem.model.initial(problem.measurement))
    hann, _, _ = _solved(FilteredBackProjection(filter="hann"), problem)
    other, _ = make_problem("tomography", channels=1, angles=40, filter="hann")
    torch.testing.assert_close(hann, other.model.initial(problem.measurement))
    assert problem.model._response is before
    assert torch.equal(before, _radon.ramp(problem.model.measurement_shape[2], "ramp").to(before))


def test_fbp_tells_its_denoiser_the_noise_of_the_picture(make_problem: Any) -> None:
    problem, truth = make_problem("tomography", channels=1, side=48, angles=90, sigma=3)
    plain, _, _ = _solved(FilteredBackProjection(), problem)
    cleaned, _, last = _solved(FilteredBackProjection(denoiser="tv"), problem)
    assert psnr(cleaned, truth).item() > psnr(plain, truth).item() + 3
    clean = problem.model.initial(problem.model.forward(truth))
    told = float(last.info["note"].split("σ = ")[1].split(" ")[0]) / 255
    assert told == pytest.approx(float((plain - clean).std()), rel=0.2)


def test_fbp_is_for_tomography_and_needs_the_whole_sinogram(make_problem: Any) -> None:
    assert "tomography only" in (FilteredBackProjection().accepts(make_problem("denoising")[0]) or "")
    problem, _ = make_problem("tomography", channels=1, angles=40)
    assert FilteredBackProjection().accepts(problem) is None
    reason = FilteredBackProjection().accepts(HeldOut().prepare(problem, seed=0)) or ""
    assert "whole sinogram" in reason
    assert "tomography only" not in reason


def test_nonlinear_operators_are_refused_in_words(make_problem: Any) -> None:
    problem, _ = make_problem("phase-retrieval", channels=1)
    for method in (Lasso(), TotalVariation(), TVAL3(), DAMP()):
        assert "linear operator" in (method.accepts(problem) or "")


def test_lasso_of_nothing_is_nothing(make_problem: Any) -> None:
    problem, _ = make_problem("compressed-sensing", ratio=0.2)
    nothing = replace(problem, measurement=torch.zeros_like(problem.measurement))
    *_, last = Lasso(iterations=5, weight=0.1).solve(nothing, seeds=[0])
    assert last.estimate is not None
    assert torch.equal(last.estimate, torch.zeros_like(last.estimate))
