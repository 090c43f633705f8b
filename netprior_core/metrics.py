"""PSNR, SSIM and the measurement residual, with their conventions.

Convention, printed wherever a number is shown: images in [0, 1]; the estimate is clipped to [0, 1] (the truth never is);
peak 1; mean squared error over all pixels and channels together.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from netprior_core.operators.base import ForwardModel

CONVENTION = "PSNR in dB: images in [0, 1], estimate clipped, peak 1, MSE over all pixels and channels"
SSIM_CONVENTION = "SSIM: 11×11 Gaussian window of std 1.5, K = (0.01, 0.03), range 1, mean over channels and valid pixels"


def psnr(estimate: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Peak signal-to-noise ratio ``-10 log10 mean((clip(x̂) - x)²)`` in dB.

    estimate ``(B, C, H, W)``, truth ``(1 or B, C, H, W)`` in [0, 1]; returns ``(B,)`` on the device. Exact equality gives inf.
    """
    error = (estimate.clamp(0, 1) - truth).square().mean(dim=(1, 2, 3))
    return -10 * torch.log10(error)


def ssim(estimate: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Structural similarity (Wang et al. 2004, eq. 13), Gaussian window, population covariance.

    Same shapes as :func:`psnr`; images smaller than the 11-pixel window are compared with the largest odd window that fits.
    """
    estimate = estimate.clamp(0, 1)
    truth = truth.expand_as(estimate)
    size = min(11, *(s - 1 + s % 2 for s in estimate.shape[-2:]))
    grid = torch.arange(size, device=truth.device, dtype=truth.dtype) - size // 2
    window = torch.exp(-grid.square() / (2 * 1.5**2))
    window = window / window.sum()
    b, c, h, w = estimate.shape
    stack = torch.cat([estimate, truth, estimate * estimate, truth * truth, estimate * truth]).reshape(5 * b * c, 1, h, w)
    blurred = F.conv2d(F.conv2d(stack, window.view(1, 1, 1, -1)), window.view(1, 1, -1, 1))
    mx, my, xx, yy, xy = blurred.reshape(5, b, -1)
    vx, vy, cov = xx - mx * mx, yy - my * my, xy - mx * my
    c1, c2 = 0.01**2, 0.03**2
    value = ((2 * mx * my + c1) * (2 * cov + c2)) / ((mx * mx + my * my + c1) * (vx + vy + c2))
    return value.mean(dim=1)


def residual(model: ForwardModel, estimate: torch.Tensor, measurement: torch.Tensor) -> torch.Tensor:
    """Root-mean-square measurement residual ``‖A x̂ - y‖ / √m`` of the unclipped estimate: ``(B,)``, in units of the measurement."""
    difference = model.forward(estimate.to(model.dtype)) - measurement
    return difference.abs().square().flatten(1).mean(dim=1).sqrt()
