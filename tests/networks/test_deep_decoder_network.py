"""The Deep Decoder and SIREN networks: published sizes, order of the layers, any image shape."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch.func import functional_call, stack_module_state, vmap

from netprior_core.networks.deep_decoder import DeepDecoder, sizes_for, upsample
from netprior_core.networks.seeded import seeded
from netprior_core.networks.siren import Siren, coordinates


def _parameters(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(("channels", "outputs", "parameters"), [(64, 3, 25_536), (128, 3, 100_224), (256, 4, 397_312)])
def test_it_has_the_published_number_of_parameters(channels: int, outputs: int, parameters: int) -> None:
    assert _parameters(DeepDecoder(outputs, sizes_for(512, 512), channels=channels)) == parameters


def test_the_over_parameterised_one_has_the_released_sizes_and_parameters() -> None:
    sizes = sizes_for(256, 256, 5, start=16)
    assert [height for height, _ in sizes] == [16, 28, 49, 85, 148, 256]
    assert _parameters(DeepDecoder(1, sizes, channels=256, plain=False)) == 330_496 > 256 * 256


def test_the_input_is_a_32nd_of_the_image_and_never_below_four_pixels() -> None:
    assert [sizes_for(s, s)[0] for s in (512, 256, 128, 64, 32, 16)] == [(16, 16), (8, 8), (4, 4), (4, 4), (4, 4), (4, 4)]
    assert sizes_for(37, 50) == [(5, 7), (10, 13), (19, 25), (37, 50)]


@pytest.mark.parametrize("start", [0, 16])
@pytest.mark.parametrize(("height", "width", "outputs"), [(16, 16, 1), (32, 32, 3), (37, 50, 3), (16, 64, 1), (9, 8, 1)])
def test_it_takes_any_shape(height: int, width: int, outputs: int, start: int) -> None:
    sizes = sizes_for(height, width, 5, start)
    net = seeded(lambda: DeepDecoder(outputs, sizes, channels=6), 0)
    x = net(torch.rand(1, 6, *sizes[0]))
    assert x.shape == (1, outputs, height, width)
    assert x.min() >= 0
    assert x.max() <= 1
    x.mean().backward()
    assert all(p.grad is not None for p in net.parameters())


def _as_written(net: DeepDecoder, z: torch.Tensor) -> torch.Tensor:
    """The paper's order: upsample, convolve, rectify, normalise; then the plain layer, the combination and the sigmoid."""
    x = z
    for i, (mix, norm) in enumerate(zip(net.mixes, net.norms, strict=True)):
        if i < len(net.sizes):
            x = F.interpolate(x, size=net.sizes[i], mode="bilinear", align_corners=False)
        x = F.relu(torch.einsum("oi,bihw->bohw", mix.weight[:, :, 0, 0], x))  # type: ignore[arg-type, index]
        mean, var = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), correction=0, keepdim=True)
        x = (x - mean) / (var + 1e-5).sqrt() * norm.weight[:, None, None] + norm.bias[:, None, None]  # type: ignore[index]
    return torch.sigmoid(torch.einsum("oi,bihw->bohw", net.head.weight[:, :, 0, 0], x))


def test_convolving_before_upsampling_is_the_same_function() -> None:
    g = torch.Generator().manual_seed(1)
    net = seeded(lambda: DeepDecoder(3, sizes_for(64, 32, 3), channels=8), g).double()
    with torch.no_grad():
        for norm in net.norms:
            norm.weight.uniform_(0.5, 1.5, generator=g)  # type: ignore[union-attr, operator]
            norm.bias.uniform_(-1, 1, generator=g)  # type: ignore[union-attr, operator]
    z = torch.rand(1, 8, 8, 4, generator=g, dtype=torch.float64) * 0.1
    torch.testing.assert_close(torch.sigmoid(net.head(_hidden(net, z))), _as_written(net, z), rtol=1e-10, atol=1e-10)


def _hidden(net: DeepDecoder, z: torch.Tensor) -> torch.Tensor:
    """What reaches the output layer, in the precision of z (the network's image is float32)."""
    seen: list[torch.Tensor] = []
    handle = net.head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    net(z)
    handle.remove()
    return seen[0]


def test_odd_sizes_are_doubled_and_cropped() -> None:
    x = torch.rand(1, 2, 5, 4)
    torch.testing.assert_close(upsample(x, (9, 8)), F.interpolate(x, scale_factor=2, mode="bilinear")[..., :9, :])


def test_bfloat16_draws_nearly_the_same_image_in_float32() -> None:
    net = seeded(lambda: DeepDecoder(3, sizes_for(64, 64), channels=16), 0)
    z = torch.rand(1, 16, 4, 4, generator=torch.Generator().manual_seed(1)) * 0.1
    exact, fast = net(z), net(z.bfloat16())
    assert fast.dtype == torch.float32
    assert 0 < (exact - fast).abs().max() < 0.1
    assert (exact - fast).square().mean() < 1e-4


# -- SIREN -------------------------------------------------------------------------------------------------------------------


def _siren(outputs: int = 3, **settings: Any) -> Siren:
    net = seeded(lambda: Siren(outputs, **settings), 0)
    net.initialise(torch.Generator().manual_seed(1))
    return net


def test_coordinates_of_both_conventions() -> None:
    grid = coordinates(3, 5)
    assert grid.shape == (3, 5, 2)
    assert grid[0, 0].tolist() == [-1, -1]
    assert grid[2, 4].tolist() == [1, 1]
    assert grid[0, 4].tolist() == [-1, 1]
    assert coordinates(2, 4, signed=False)[1, 3].tolist() == [0.5, 0.75]
    assert torch.isfinite(coordinates(1, 1)).all()


def test_siren_has_the_published_layers_and_weights() -> None:
    net = _siren(omega=30.0)
    assert _parameters(net) == (2 * 256 + 256) + 3 * (256 * 256 + 256) + (256 * 3 + 3)
    bounds = [layer.weight.abs().max().item() for layer in net.layers]  # type: ignore[union-attr, operator]
    assert bounds[0] == pytest.approx(0.5, rel=0.01)
    assert bounds[1:] == pytest.approx([(6 / 256) ** 0.5 / 30] * 4, rel=0.01)


def test_activations_keep_their_spread_through_the_layers() -> None:
    net, grid = _siren(layers=6, omega=30.0), coordinates(48, 48)
    h, spreads = grid, []
    for layer in net.layers[:-1]:
        h = torch.sin(30 * layer(h))
        spreads.append(h.std().item())
    assert spreads == pytest.approx([0.5**0.5] * 5, abs=0.06)


def test_rows_and_columns_are_not_swapped() -> None:
    net = _siren(1, width=8, layers=3)
    with torch.no_grad():
        net.layers[0].weight[:, 1] = 0  # type: ignore[union-attr, operator, index]  # blind to columns
    x = net(coordinates(6, 4))
    assert x.shape == (1, 1, 6, 4)
    torch.testing.assert_close(x, x[..., :1].expand_as(x))
    assert x[0, 0, :, 0].std() > 0


def test_networks_with_other_weights_are_one_batch() -> None:
    nets = [_siren(width=8, layers=3), _siren(width=8, layers=3)]
    nets[1].initialise(torch.Generator().manual_seed(2), zero_bias=True)
    assert all(layer.bias.abs().max() == 0 for layer in nets[1].layers)  # type: ignore[union-attr, operator]
    weights, buffers = stack_module_state(nets)  # type: ignore[arg-type]
    grid = coordinates(6, 5)
    images = vmap(lambda w, b: functional_call(nets[0], (w, b), (grid,)))(weights, buffers)
    torch.testing.assert_close(images, torch.stack([net(grid) for net in nets]))
