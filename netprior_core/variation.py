"""Total variation of pictures: differences, their adjoint, and the exact denoiser by projection in the dual.

Everything is image by image and channel by channel, over the last two axes; sums are not divided by the number of pixels.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from netprior_core import interrupt

#: ‖∇‖² ≤ 8 for forward differences in two dimensions (Chambolle 2004, theorem 3.1).
GRADIENT_NORM_SQUARED = 8.0


def gradient(x: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
    """Forward differences ``(2, …, H, W)`` of ``(…, H, W)`` down and across, 0 at the far border. ``out`` must be 0 there."""
    out = x.new_zeros((2, *x.shape)) if out is None else out
    torch.sub(x[..., 1:, :], x[..., :-1, :], out=out[0, ..., :-1, :])
    torch.sub(x[..., :, 1:], x[..., :, :-1], out=out[1, ..., :, :-1])
    return out


def gradient_adjoint(p: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
    """``∇ᵀ p``, minus the divergence: ``(2, …, H, W)`` to ``(…, H, W)``; ⟨∇x, p⟩ = ⟨x, ∇ᵀp⟩ for p that is 0 at the far borders.

    There a gradient is 0, and so are all fields made from gradients here.
    """
    down, across = p[0], p[1]
    out = torch.add(down, across, out=out).neg_()
    out[..., 1:, :] += down[..., :-1, :]
    out[..., :, 1:] += across[..., :, :-1]
    return out


def total_variation(x: torch.Tensor, isotropic: bool = True) -> torch.Tensor:
    """Σ √((∂y x)² + (∂x x)²), or Σ |∂y x| + |∂x x|, of each of ``(B, C, H, W)``: ``(B,)``."""
    jumps = gradient(x)
    lengths = _length(jumps) if isotropic else jumps.abs().sum(dim=0)
    return lengths.flatten(1).sum(dim=1)


def project(p: torch.Tensor, radius: float, isotropic: bool = True) -> torch.Tensor:
    """The nearest dual field with every length (or every component) at most ``radius``; works in place and returns ``p``."""
    if not isotropic:
        return p.clamp_(-radius, radius)
    return p.div_(_length(p).div_(radius).clamp_min_(1.0))


def _length(p: torch.Tensor) -> torch.Tensor:
    return (p[0] * p[0]).addcmul_(p[1], p[1]).sqrt_()


def shrink(jumps: torch.Tensor, threshold: float, isotropic: bool = True) -> torch.Tensor:
    """argmin over u of threshold · TV(u) + ½ ‖u − jumps‖²: ``jumps`` less its projection on the dual ball (Moreau)."""
    if not isotropic:
        return jumps.sign() * (jumps.abs() - threshold).clamp_min_(0)
    length = _length(jumps)
    return jumps * (1 - threshold / length.clamp_min(1e-30)).clamp_min_(0)


def dual_projection(y: torch.Tensor, weight: float, iterations: int, isotropic: bool = True) -> Iterator[torch.Tensor]:
    """Iterates of argmin over x of ``weight · TV(x) + ½ ‖x − y‖²``, one a step: ``y`` and x are ``(B, C, H, W)``.

    x = y − ∇ᵀp with p in the ball of radius ``weight``: projected gradient on the dual (Chambolle 2004; 2005 for the projection)
    with Nesterov's momentum, restarted where every tenth step finds it uphill (Beck & Teboulle 2009, "FGP"; O'Donoghue & Candès
    2015).
    A weight of 0 gives y. The tensor is valid until the next step.
    """
    x = y.clone()
    for p in _dual_fields(y, weight, iterations, isotropic):
        yield torch.sub(y, gradient_adjoint(p, x), out=x)


def _dual_fields(y: torch.Tensor, weight: float, iterations: int, isotropic: bool) -> Iterator[torch.Tensor]:
    """The fields p of :func:`dual_projection`: who does not look at every x is spared making it."""
    p = y.new_zeros((2, *y.shape))
    ahead, before, slope, x = p.clone(), p.clone(), p.clone(), y.clone()
    t = 1.0
    for k in range(1, iterations + 1):
        interrupt.check()
        if weight > 0:
            gradient(torch.sub(y, gradient_adjoint(ahead, x), out=x), slope)
            before, p = p, before
            project(torch.add(ahead, slope, alpha=1 / GRADIENT_NORM_SQUARED, out=p), weight, isotropic)
            torch.sub(p, before, out=ahead)  # the move
            # Reading a number makes the processor wait for the device: every tenth step is soon enough.
            if k % 10 == 0 and float(slope.view(-1) @ ahead.view(-1)) < 0:
                t = 1.0
            following = (1 + (1 + 4 * t * t) ** 0.5) / 2
            torch.add(p, ahead, alpha=(t - 1) / following, out=ahead)
            t = following
        yield p


def denoise(
    y: torch.Tensor, weight: float, *, iterations: int = 200, tolerance: float = 1e-4, isotropic: bool = True
) -> torch.Tensor:
    """argmin over x of ``weight · TV(x) + ½ ‖x − y‖²``, ``(B, C, H, W)``, by :func:`dual_projection`.

    Stops when an iterate moves by less than ``tolerance`` times the weight, root mean square, looked at every tenth.
    """
    before = x = y
    for k, p in enumerate(_dual_fields(y, weight, iterations, isotropic), start=1):
        if k % 10 in (0, 9) or k == iterations:
            before, x = x, y - gradient_adjoint(p)
        if k % 10 == 0 and float((x - before).square().mean()) <= (tolerance * weight) ** 2:
            break
    return x
