"""The networks: the published sizes, any image shape, seeds that leave the global random state alone."""

from __future__ import annotations

import pytest
import torch

from netprior_core.compute import choose, native_bfloat16
from netprior_core.networks.dcgan import DCGAN, side_for
from netprior_core.networks.seeded import seeded
from netprior_core.networks.skip import Skip, scales_for


def _parameters(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_skip_has_the_released_number_of_parameters() -> None:
    assert _parameters(Skip(3)) == 2_217_831


@pytest.mark.parametrize("upsampling", ["bilinear", "nearest"])
@pytest.mark.parametrize(("height", "width", "outputs"), [(32, 32, 3), (37, 50, 1), (19, 64, 3), (16, 16, 1)])
def test_skip_takes_any_shape(height: int, width: int, outputs: int, upsampling: str) -> None:
    net = seeded(
        lambda: Skip(outputs, inputs=4, channels=8, scales=scales_for(height, width), upsampling=upsampling),  # type: ignore[arg-type]
        0,
    )
    x = net(torch.rand(1, 4, height, width))
    assert x.shape == (1, outputs, height, width)
    assert x.min() >= 0
    assert x.max() <= 1
    x.mean().backward()
    assert all(p.grad is not None for p in net.parameters())


def test_skip_goes_no_deeper_than_small_images_allow() -> None:
    assert [scales_for(s, s) for s in (16, 32, 64, 128, 512)] == [2, 3, 4, 5, 5]
    assert scales_for(16, 512) == 2


def test_skip_normalises_by_the_image_itself_whatever_the_mode() -> None:
    net = seeded(lambda: Skip(3, inputs=4, channels=8, scales=2), 0)
    z = torch.rand(1, 4, 16, 16, generator=torch.Generator().manual_seed(1))
    assert torch.equal(net.train()(z), net.eval()(z))


def test_bfloat16_draws_nearly_the_same_image_in_float32() -> None:
    net = seeded(lambda: Skip(3, inputs=8, channels=16, scales=2), 0)
    z = torch.rand(1, 8, 32, 32, generator=torch.Generator().manual_seed(1))
    exact, fast = net(z), net(z.bfloat16())
    assert fast.dtype == torch.float32
    assert 0 < (exact - fast).abs().max() < 0.05


def test_seeds_decide_the_weights_and_nothing_else_does() -> None:
    before = torch.random.get_rng_state()
    first = seeded(lambda: Skip(1, channels=8, scales=2), 3)
    torch.rand(1)
    torch.random.set_rng_state(before)
    again, other = (seeded(lambda: Skip(1, channels=8, scales=2), s) for s in (3, 4))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    assert not torch.equal(first.head.weight, other.head.weight)


def test_uniform_weights_fill_the_published_range() -> None:
    weight = seeded(lambda: Skip(3), 0).body.down[0].weight  # type: ignore[index, union-attr]
    bound = (32 * 9) ** -0.5
    assert weight.abs().max() <= bound
    assert weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.02)


@pytest.mark.parametrize(("height", "width", "outputs"), [(16, 16, 1), (32, 32, 3), (28, 28, 1), (64, 48, 3), (128, 128, 1)])
@pytest.mark.parametrize("layers", ["dcgan", "cs-dip"])
def test_generator_takes_any_shape(height: int, width: int, outputs: int, layers: str) -> None:
    net = seeded(lambda: DCGAN(height, width, outputs, latent=8, channels=4, layers=layers), 0, scheme="dcgan")  # type: ignore[arg-type]
    x = net(torch.randn(2, 8))
    assert x.shape == (2, outputs, height, width)
    assert x.abs().max() <= 1


def test_generator_widths_are_the_published_ones() -> None:
    net = DCGAN(64, 64, 3, latent=128, channels=64)
    widths = [layer.weight.shape[:2] for layer in net.modules() if isinstance(layer, torch.nn.ConvTranspose2d)]
    assert widths == [(128, 512), (512, 256), (256, 128), (128, 64), (64, 3)]


@pytest.mark.parametrize(("side", "layers"), [(256, 7), (128, 6)])
def test_csdip_depths(side: int, layers: int) -> None:
    net = DCGAN(side, side, 1, layers="cs-dip")
    convolutions = [layer for layer in net.modules() if isinstance(layer, torch.nn.ConvTranspose2d)]
    assert len(convolutions) == layers
    assert [c.kernel_size[0] for c in convolutions] == [4, *[6] * (layers - 2), 4]
    assert all(c.bias is None for c in convolutions)


def test_generator_side_is_the_next_power_of_two() -> None:
    assert [side_for(*s) for s in ((8, 8), (25, 25), (64, 64), (40, 65))] == [16, 32, 64, 128]


def test_precision_is_chosen_by_capability_and_can_be_forced() -> None:
    assert choose("float32", "cpu").dtype == torch.float32
    assert choose("bfloat16", "cpu").dtype == torch.bfloat16
    assert (choose("auto", "cpu").dtype == torch.bfloat16) == native_bfloat16("cpu")
