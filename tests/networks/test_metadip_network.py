"""The UNet of MetaDIP: one set of weights for any size, and an input that is locally the same everywhere."""

from __future__ import annotations

import pytest
import torch

from netprior_core.networks.metadip import TILE, MetaUNet, fourier_features, noise_map, picture
from netprior_core.networks.seeded import seeded


@pytest.fixture
def network() -> MetaUNet:
    generator = torch.Generator().manual_seed(0)
    made = seeded(lambda: MetaUNet((4, 6, 8)), generator)
    made.noise.copy_(noise_map(len(made.noise), generator))
    return made


@pytest.mark.parametrize(("height", "width"), [(16, 16), (33, 47), (64, 64), (70, 130)])
@pytest.mark.parametrize("channels", [1, 3])
def test_draws_pictures_of_any_size_in_the_unit_range(network: MetaUNet, height: int, width: int, channels: int) -> None:
    image = picture(network(network.input(height, width)), channels, height, width)
    assert image.shape == (1, channels, height, width)
    assert 0 <= float(image.detach().min()) <= float(image.detach().max()) <= 1


def test_the_input_of_a_larger_image_begins_as_that_of_a_smaller_one(network: MetaUNet) -> None:
    small, large = network.input(TILE, TILE), network.input(2 * TILE, 3 * TILE)
    torch.testing.assert_close(large[..., :TILE, :TILE], small)
    torch.testing.assert_close(network.input(2 * TILE, 3 * TILE), large)


def test_the_picture_of_a_larger_image_is_not_bound_to_repeat(network: MetaUNet) -> None:
    # A periodic input has a periodic output in any convolutional network, and then no picture can be fitted.
    noise = network.input(3 * TILE, 3 * TILE)[0, : len(network.noise)]
    tiles = [noise[:, TILE * i : TILE * (i + 1), TILE * j : TILE * (j + 1)] for i in range(3) for j in range(3)]
    for k, tile in enumerate(tiles):
        assert tile.square().mean().item() == pytest.approx(0.5, rel=0.05)
        for other in tiles[:k]:
            assert abs(torch.corrcoef(torch.stack([tile.flatten(), other.flatten()]))[0, 1].item()) < 0.05
    image = network(network.input(2 * TILE, 2 * TILE)).detach()
    inner = slice(24, TILE - 24)  # away from the borders, whose zeros are the only other thing that differs
    here, there = image[..., inner, inner], image[..., inner, TILE + 24 : 2 * TILE - 24]
    assert (here - there).square().mean().sqrt() > 0.5 * here.std()


def test_fourier_features_are_waves_of_the_stated_lengths() -> None:
    features = fourier_features(16, 16)
    assert features.shape == (20, 16, 16)
    expected = torch.tensor([0.0, 1.0, 0.0, -1.0]).repeat(4)[:, None].expand(16, 16)
    torch.testing.assert_close(features[0], expected, atol=1e-5, rtol=0)  # sin along rows, wavelength 4


def test_grey_is_the_mean_of_the_channels() -> None:
    output = torch.rand(1, 3, 8, 8)
    torch.testing.assert_close(picture(output, 1, 5, 6), output[..., :5, :6].mean(dim=1, keepdim=True))


def test_a_network_that_sees_the_first_picture_gets_it_beside_the_rest(network: MetaUNet) -> None:
    sees = MetaUNet((4, 6, 8), first=True)
    sees.noise.copy_(network.noise)
    seen = torch.linspace(-3, 4, 35 * 41).view(1, 1, 35, 41)
    z = sees.input(35, 41, picture=seen)
    torch.testing.assert_close(z[:, :-3], network.input(35, 41))
    assert z.shape[-2:] == (36, 44)  # the canvas
    torch.testing.assert_close(z[:, -3:, :35, :41], seen.clamp(0.02, 0.98).logit().expand(1, 3, 35, 41) / 4)
    torch.testing.assert_close(z[..., -3:, :35, 43], z[..., -3:, :35, 40])
    with torch.no_grad():
        sees.head.weight.zero_()
        sees.head.bias.zero_()  # type: ignore[union-attr]
    torch.testing.assert_close(picture(sees(z), 3, 35, 41), seen.clamp(0.02, 0.98).expand(1, 3, 35, 41))
    with pytest.raises(ValueError, match="first picture"):
        sees.input(35, 41)


def test_gradients_can_be_differentiated_again(network: MetaUNet) -> None:
    z, weights = network.input(16, 16), list(network.parameters())
    first = torch.autograd.grad(network(z).square().mean(), weights, create_graph=True)
    second = torch.autograd.grad(sum(g.square().sum() for g in first), weights)
    assert sum(float(g.abs().sum()) for g in second) > 0
