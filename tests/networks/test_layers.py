"""The fast forms compute what the plain ones do, gradients of gradients included."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from netprior_core.networks.layers import Upsampling, doubled, pointwise


@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
def test_doubled_is_interpolation_and_so_are_its_gradients(mode: Upsampling) -> None:
    x = torch.rand(1, 4, 5, 6, dtype=torch.float64).contiguous(memory_format=torch.channels_last)
    extra = torch.rand(1, 3, 10, 12, dtype=torch.float64)

    def slopes(up: object) -> tuple[torch.Tensor, torch.Tensor]:
        leaf = x.clone().requires_grad_()
        joined = torch.cat([extra, up(leaf)], dim=1)  # type: ignore[operator]
        (first,) = torch.autograd.grad((joined**3).sum(), leaf, create_graph=True)
        return first, torch.autograd.grad((first**2).sum(), leaf)[0]

    torch.testing.assert_close(slopes(lambda x: doubled(x, mode)), slopes(lambda x: F.interpolate(x, scale_factor=2, mode=mode)))


@pytest.mark.parametrize("outputs", [1, 3])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_pointwise_is_the_convolution(outputs: int, layout: torch.memory_format) -> None:
    convolution = nn.Conv2d(8, outputs, 1).double()
    x = torch.rand(2, 8, 5, 7, dtype=torch.float64).contiguous(memory_format=layout)
    torch.testing.assert_close(pointwise(x, convolution), convolution(x))
    assert pointwise(x, convolution).is_contiguous(memory_format=torch.channels_last)
