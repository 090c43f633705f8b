"""The U-Net of Educated DIP: any size, narrow skips, one picture treated as in any batch."""

from __future__ import annotations

import pytest
import torch

from netprior_core.compute import choose
from netprior_core.networks.edip import EducatedUNet, by_channel
from netprior_core.networks.seeded import seeded


def _small(**changes: object) -> EducatedUNet:
    settings = {"width": 8, "scales": 3, "skips": (0, 2, 0)} | changes
    return seeded(lambda: EducatedUNet(**settings), 0)  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [(8, 8), (17, 23), (32, 9)])
def test_any_size_comes_back_the_same_size_in_float32(size: tuple[int, int]) -> None:
    out = _small()(torch.rand(2, 1, *size).bfloat16())
    assert out.shape == (2, 1, *size)
    assert out.dtype == torch.float32


def test_defaults_are_the_released_ones() -> None:
    with torch.device("meta"):
        network = EducatedUNet()
    assert len(network.down) == 5
    assert [0 if up.skip is None else up.skip[0].out_channels for up in network.up] == [4, 4, 0, 0, 0]  # deepest first
    convolutions = [layer for layer in network.modules() if isinstance(layer, torch.nn.Conv2d)]
    assert {layer.out_channels for layer in convolutions} == {128, 4, 1}


def test_skips_need_an_entry_for_each_scale() -> None:
    with pytest.raises(ValueError, match="3 scales need as many"):
        _small(skips=(0, 2))


def test_the_output_is_not_squashed() -> None:
    network = _small()
    with torch.no_grad():
        network.leave.bias.fill_(50.0)  # type: ignore[union-attr]
        assert float(network(torch.rand(1, 1, 16, 16)).min()) > 40


def test_a_picture_is_treated_the_same_in_any_batch() -> None:
    network, batch = _small(), torch.rand(3, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(network(batch)[1:2], network(batch[1:2]))


def test_without_skips_all_detail_passes_the_deepest_scale() -> None:
    network = _small(skips=(0, 0, 0))
    with torch.no_grad():
        for layer in network.down[-1].modules():
            if isinstance(layer, torch.nn.Conv2d):
                layer.weight.zero_()
        a, b = network(torch.rand(1, 1, 16, 16)), network(torch.rand(1, 1, 16, 16))
    assert torch.equal(a, b)


def test_the_same_seed_draws_the_same_weights_and_norms_start_as_the_identity() -> None:
    a, b = _small(), _small()
    for (name, mine), other in zip(a.named_parameters(), b.parameters(), strict=True):
        assert torch.equal(mine, other), name
    norms = [layer for layer in a.modules() if isinstance(layer, torch.nn.GroupNorm)]
    assert norms
    assert all(bool((norm.weight == 1).all()) and not norm.bias.any() for norm in norms)


def test_half_precision_agrees_with_full() -> None:
    x = torch.rand(1, 1, 32, 32, generator=torch.Generator().manual_seed(1))
    full, half = (choose(p, "cpu") for p in ("float32", "bfloat16"))
    network = full.module(_small())
    difference = (network(full.activations(x)) - network(half.activations(x))).abs().max()
    assert float(difference.detach()) < 0.05


def test_by_channel_keeps_channels_apart_and_in_order() -> None:
    pictures = torch.arange(2 * 3 * 4.0).reshape(2, 3, 2, 2)
    assert torch.equal(by_channel(pictures)[4, 0], pictures[1, 1])
