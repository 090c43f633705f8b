"""Metrics against scikit-image, and the conventions that change the number."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from netprior_core.metrics import psnr, residual, ssim
from netprior_core.operators.compressed_sensing import CompressedSensing


def _pair(*shape: int, noise: float = 0.1) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    truth = torch.nn.functional.avg_pool2d(torch.rand(shape, generator=generator), 3, 1, 1)
    return (truth + noise * torch.randn(shape, generator=generator)).clamp(0, 1), truth


@pytest.mark.parametrize("shape", [(1, 32, 40), (3, 33, 32)])
def test_psnr_is_scikit_images(shape: tuple[int, int, int]) -> None:
    estimate, truth = _pair(2, *shape)
    values = psnr(estimate, truth)
    assert values.shape == (2,)
    for value, e, t in zip(values, estimate, truth, strict=True):
        assert float(value) == pytest.approx(peak_signal_noise_ratio(t.numpy(), e.numpy(), data_range=1), abs=1e-3)


def test_psnr_clips_the_estimate_and_knows_equality() -> None:
    truth = torch.tensor([[[[0.0, 1.0]]]])
    assert float(psnr(torch.tensor([[[[-3.0, 2.0]]]]), truth)[0]) == math.inf
    assert float(psnr(torch.tensor([[[[0.1, 1.0]]]]), truth)[0]) == pytest.approx(10 * math.log10(2 / 0.01), abs=1e-4)


@pytest.mark.parametrize("shape", [(1, 32, 40), (3, 33, 32), (1, 11, 11)])
def test_ssim_is_scikit_images(shape: tuple[int, int, int]) -> None:
    """Wang et al.'s settings in scikit-image: it pads, then averages without the border of 5 pixels, where ours is valid."""
    estimate, truth = _pair(2, *shape)
    for value, e, t in zip(ssim(estimate.double(), truth.double()), estimate, truth, strict=True):
        exact = structural_similarity(
            t.numpy().astype(np.float64),
            e.numpy().astype(np.float64),
            data_range=1,
            channel_axis=0,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
        assert float(value) == pytest.approx(exact, abs=1e-6)


def test_ssim_in_single_precision_equality_and_tiny_images() -> None:
    estimate, truth = _pair(1, 3, 24, 24)
    assert float(ssim(estimate, truth)[0]) == pytest.approx(float(ssim(estimate.double(), truth.double())[0]), abs=1e-4)
    assert float(ssim(truth, truth)[0]) == pytest.approx(1, abs=1e-5)
    small = ssim(estimate[..., :8, :7], truth[..., :8, :7])
    assert 0 < float(small[0]) < 1


def test_ssim_compares_a_batch_with_one_truth() -> None:
    estimate, truth = _pair(3, 1, 16, 16)
    together = ssim(estimate, truth[:1])
    assert torch.allclose(together, torch.cat([ssim(e[None], truth[:1]) for e in estimate]), atol=1e-6)


def test_residual_is_the_rms_of_the_unclipped_estimate() -> None:
    model = CompressedSensing(ratio=0.5).build((1, 16, 16))
    x = torch.rand(2, 1, 16, 16) * 3
    y = torch.rand(1, model.m)
    expected = (model.forward(x) - y).norm(dim=1) / model.m**0.5
    assert torch.allclose(residual(model, x, y), expected, rtol=1e-5)
