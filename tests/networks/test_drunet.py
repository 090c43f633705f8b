"""DRUNet: scale equivariance, sides of any length, grey and colour, and the published file, which a stranger may have made."""

from __future__ import annotations

import io
import pickle
import zipfile
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save as to_safetensors
from shared import experiment_of

from netprior_core import denoisers, priors
from netprior_core.errors import MissingPrior
from netprior_core.experiment import build
from netprior_core.networks import drunet_weights
from netprior_core.networks.drunet import FULL, SMALL, DRUNet, denoised, denoiser, extended, network_of
from netprior_core.networks.seeded import seeded
from netprior_core.ui import files, page

TINY: dict[str, Any] = {"channels": 3, "widths": [4, 6, 8, 10], "blocks": 1, "residual": True}


def _network(**changes: Any) -> DRUNet:
    return seeded(lambda: DRUNet(**{**TINY, **changes}), 0).requires_grad_(False)


def _picture(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("residual", [True, False])
def test_no_bias_so_that_scaling_picture_and_noise_scales_the_result(residual: bool) -> None:
    network, x = _network(residual=residual), _picture(2, 3, 16, 24)
    torch.testing.assert_close(network(3 * x, 0.3), 3 * network(x, 0.1), rtol=1e-4, atol=1e-5)
    assert not [name for name, _ in network.named_parameters() if "bias" in name]
    assert not torch.allclose(network(x, 0.3), network(x, 0.1))


def test_a_noise_level_for_each_picture_or_each_pixel() -> None:
    network, x = _network(), _picture(2, 3, 16, 16)
    each = network(x, torch.tensor([0.1, 0.2]))
    torch.testing.assert_close(each[1:], network(x[1:], 0.2))
    torch.testing.assert_close(each[:1], network(x[:1], torch.full((1, 1, 16, 16), 0.1)))


@pytest.mark.parametrize("shape", [(1, 1), (3, 50), (17, 8), (9, 31)])
def test_sides_of_any_length(shape: tuple[int, int]) -> None:
    x = _picture(1, 3, *shape)
    assert _network()(x, 0.1).shape == x.shape
    longer = extended(x, 8)
    assert longer.shape[-2] % 8 == longer.shape[-1] % 8 == 0
    assert torch.equal(longer[..., : shape[0], : shape[1]], x)


def test_extension_is_by_mirroring() -> None:
    x = torch.arange(5.0).view(1, 1, 1, 5)
    assert extended(x, 8)[0, 0, 0].tolist() == [0, 1, 2, 3, 4, 3, 2, 1]
    torch.testing.assert_close(
        extended(_picture(1, 1, 6, 6), 8), torch.nn.functional.pad(_picture(1, 1, 6, 6), (0, 2, 0, 2), "reflect")
    )


def test_grey_goes_through_a_colour_network_as_three_equal_channels() -> None:
    network, x = _network(), _picture(1, 1, 16, 16)
    torch.testing.assert_close(denoised(network, x, 0.1), network(x.expand(-1, 3, -1, -1), 0.1).mean(1, keepdim=True))
    one, colour = _network(channels=1), _picture(1, 3, 16, 16)
    torch.testing.assert_close(denoised(one, colour, 0.1)[:, 1:2], one(colour[:, 1:2], 0.1))
    with pytest.raises(ValueError, match="channels"):
        denoised(network, _picture(1, 2, 16, 16), 0.1)


def test_the_small_network_is_small_and_the_full_one_as_published() -> None:
    def count(**settings: Any) -> int:
        with torch.device("meta"):
            return sum(p.numel() for p in DRUNet(**settings).parameters())

    assert count(**SMALL) <= 2_000_000
    assert count(channels=3, **FULL) == 32_640_960
    assert count(channels=1, **FULL) == 32_638_656


def test_a_prior_becomes_a_denoiser_with_the_same_weights(tmp_path: Path) -> None:
    network = _network()
    tensors = {f"network.{n}": v for n, v in network.state_dict().items()}
    priors.save(tmp_path / "a.safetensors", tensors, {"settings": TINY})
    prior, x = priors.load(tmp_path / "a.safetensors"), _picture(1, 1, 16, 16)
    found = denoiser(prior, "cpu")(x, 0.1)
    assert (found - denoised(network, x, 0.1)).abs().max() < 0.02  # half-precision weights, perhaps bfloat16 maps
    assert not found.requires_grad
    priors.save(tmp_path / "b.safetensors", tensors, {"settings": {**TINY, "depth": 3}})
    priors.save(tmp_path / "c.safetensors", tensors, {"settings": {**TINY, "widths": [4, 6, 8, 12]}})
    for name in "bc":
        with pytest.raises(MissingPrior):
            network_of(priors.load(tmp_path / f"{name}.safetensors"))


# The published file


@pytest.fixture
def reduced(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The published layout (4 scales, 4 blocks) at a hundredth of the widths, and an empty cache."""
    monkeypatch.setenv("NETPRIOR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(FULL, "widths", [4, 8, 12, 16])


def _published(channels: int = 3) -> dict[str, torch.Tensor]:
    """Random tensors under the names and in the shapes of the published files, written out from the paper's figure 2."""
    widths, g = FULL["widths"], torch.Generator().manual_seed(channels)
    shapes: dict[str, tuple[int, ...]] = {
        "m_head.weight": (widths[0], channels + 1, 3, 3),
        "m_tail.weight": (channels, widths[0], 3, 3),
    }
    for scale, (fine, coarse) in enumerate(pairwise(widths), start=1):
        for block in range(4):
            for part in (0, 2):
                shapes[f"m_down{scale}.{block}.res.{part}.weight"] = (fine, fine, 3, 3)
                shapes[f"m_up{scale}.{block + 1}.res.{part}.weight"] = (fine, fine, 3, 3)
                shapes[f"m_body.{block}.res.{part}.weight"] = (widths[-1], widths[-1], 3, 3)
        shapes[f"m_down{scale}.4.weight"] = (coarse, fine, 2, 2)
        shapes[f"m_up{scale}.0.weight"] = (coarse, fine, 2, 2)
    return {name: torch.randn(shape, generator=g) * 0.1 for name, shape in shapes.items()}


def _bytes(value: Any, **how: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, **how)
    return buffer.getvalue()


def _reference(state: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    """The published forward pass, written with functions: sums join the branches, nothing is added to the input."""
    conv, up = torch.nn.functional.conv2d, torch.nn.functional.conv_transpose2d

    def blocks(name: str, first: int, x: torch.Tensor) -> torch.Tensor:
        for i in range(first, first + 4):
            inner = conv(x, state[f"{name}.{i}.res.0.weight"], padding=1).relu()
            x = x + conv(inner, state[f"{name}.{i}.res.2.weight"], padding=1)
        return x

    x1 = conv(x, state["m_head.weight"], padding=1)
    x2 = conv(blocks("m_down1", 0, x1), state["m_down1.4.weight"], stride=2)
    x3 = conv(blocks("m_down2", 0, x2), state["m_down2.4.weight"], stride=2)
    x4 = conv(blocks("m_down3", 0, x3), state["m_down3.4.weight"], stride=2)
    y = blocks("m_body", 0, x4)
    y = blocks("m_up3", 1, up(y + x4, state["m_up3.0.weight"], stride=2))
    y = blocks("m_up2", 1, up(y + x3, state["m_up2.0.weight"], stride=2))
    y = blocks("m_up1", 1, up(y + x2, state["m_up1.0.weight"], stride=2))
    return conv(y + x1, state["m_tail.weight"], padding=1)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("form", ["zip", "legacy", "safetensors"])
def test_a_published_file_is_kept_and_used(reduced: None, channels: int, form: str) -> None:
    state = _published(channels)
    data = to_safetensors(state) if form == "safetensors" else _bytes(state, _use_new_zipfile_serialization=form == "zip")
    assert denoisers.get("drunet").available() is not None
    assert drunet_weights.adopt(data) == {3: "drunet-color", 1: "drunet-gray"}[channels]
    assert denoisers.get("drunet").available() is None
    x = _picture(1, channels, 16, 24)
    expected = _reference(state, torch.cat([x, torch.full_like(x[:, :1], 0.2)], dim=1))
    _, mine = drunet_weights.read_official(data)
    network = DRUNet(**FULL, channels=channels)
    network.load_state_dict(mine)
    torch.testing.assert_close(network(x, 0.2), expected)
    found = denoisers.load("drunet", "cpu")(x, 0.2)
    assert (found - expected).abs().max() < 0.03 * expected.abs().max()  # half-precision weights, perhaps bfloat16 maps
    other = _picture(1, 4 - channels, 16, 16)
    if channels == 1:  # colour goes through the grey network channel by channel
        assert denoisers.load("drunet", "cpu")(other, 0.2).shape == other.shape
        return
    # Grey does not go through the colour one, which would leave the noise that three equal channels have in common.
    assert denoisers.reason("drunet", 3) is None
    assert "drunet_gray.pth" in (denoisers.reason("drunet", 1) or "")
    with pytest.raises(MissingPrior, match="colour weights"):
        denoisers.load("drunet", "cpu")(other, 0.2)


def test_methods_refuse_grey_in_words_where_only_colour_weights_are_here(reduced: None) -> None:
    drunet_weights.adopt(_bytes(_published(3)))
    for kind, operator in (("denoiser", "denoising"), ("pnp-admm", "denoising"), ("d-amp", "inpainting"), ("fbp", "tomography")):
        for channels, refused in ((1, True), (3, False)):
            given = experiment_of(methods=[{"kind": kind, "denoiser": "drunet"}], operator={"kind": operator}, channels=channels)
            problem, _ = build(given, {})
            reason = given.methods[0].accepts(problem)
            assert ("drunet_gray.pth" in (reason or "")) is refused, (kind, reason)
    drunet_weights.adopt(_bytes(_published(1)))
    assert denoisers.reason("drunet", 1) is None
    assert drunet_weights.kept() == (1, 3)


def _evil() -> bytes:
    class Evil:
        def __reduce__(self) -> Any:
            return (Path.touch, (Path("touched-by-a-pickle"),))

    return pickle.dumps({"m_head.weight": Evil()}, protocol=2)


def _bomb() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data/0", bytes(2**23))
    return buffer.getvalue()


BROKEN: dict[str, Any] = {
    "nothing": lambda s: b"",
    "words": lambda s: b"these are not weights",
    "cut off": lambda s: _bytes(s)[:5000],
    "code": lambda s: _evil(),
    "a bomb": lambda s: _bomb(),
    "a list": lambda s: _bytes([1, 2]),
    "not tensors": lambda s: _bytes({**s, "note": "hello"}),
    "one missing": lambda s: _bytes({n: v for n, v in s.items() if n != "m_body.0.res.0.weight"}),
    "one too many": lambda s: _bytes({**s, "extra": torch.zeros(1)}),
    "another shape": lambda s: _bytes({**s, "m_tail.weight": torch.zeros(3, 4, 5, 5)}),
    "no head": lambda s: _bytes({n: v for n, v in s.items() if n != "m_head.weight"}),
    "two channels": lambda s: _bytes({**s, "m_head.weight": torch.zeros(4, 3, 3, 3)}),
    "integers": lambda s: _bytes({**s, "m_tail.weight": s["m_tail.weight"].long()}),
    "not a number": lambda s: _bytes({**s, "m_tail.weight": s["m_tail.weight"] * float("nan")}),
    "sparse": lambda s: _bytes({**s, "m_tail.weight": s["m_tail.weight"].to_sparse()}),
}


@pytest.mark.parametrize("how", list(BROKEN))
def test_any_other_file_is_refused_in_words(reduced: None, how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MissingPrior) as told:
        drunet_weights.adopt(BROKEN[how](_published()))
    assert str(told.value).endswith(".")
    assert "\n" not in str(told.value)
    assert not Path("touched-by-a-pickle").exists()
    assert drunet_weights.missing() is not None


def test_a_file_that_is_too_large_is_refused_before_it_is_read(
    reduced: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "large.pth"
    with path.open("wb") as file:
        file.truncate(drunet_weights.MAX_OFFICIAL_BYTES + 1)  # takes no room on the disk
    monkeypatch.setattr(Path, "read_bytes", lambda self: pytest.fail("it was read"))
    for take in (drunet_weights.adopt_file, lambda one: files.adopt_weights(str(one))):
        with pytest.raises(MissingPrior, match="larger than 160 MiB"):
            take(path)
    with pytest.raises(MissingPrior, match="cannot be read"):
        drunet_weights.adopt_file(tmp_path / "nowhere.pth")
    assert page.MAX_FILE_SIZE >= drunet_weights.MAX_OFFICIAL_BYTES  # gradio lets it through


def test_an_upload_does_not_take_the_place_of_weights_that_are_here(reduced: None, tmp_path: Path) -> None:
    first, second = tmp_path / "a.pth", tmp_path / "b.safetensors"
    first.write_bytes(_bytes(_published(3)))
    second.write_bytes(to_safetensors({name: value + 0.5 for name, value in _published(3).items()}))
    assert files.adopt_weights(str(first)) == "colour"
    x = _picture(1, 3, 16, 16)
    before = denoisers.load("drunet", "cpu")(x, 0.2)
    with pytest.raises(MissingPrior, match="already"):
        files.adopt_weights(str(second))
    assert torch.equal(denoisers.load("drunet", "cpu")(x, 0.2), before)
    assert drunet_weights.adopt_file(second) == "drunet-color"  # the command does
    assert not torch.equal(denoisers.load("drunet", "cpu")(x, 0.2), before)


def test_too_large_a_file_is_not_read(reduced: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drunet_weights, "MAX_OFFICIAL_BYTES", 100)
    with pytest.raises(MissingPrior, match="larger"):
        drunet_weights.read_official(_bytes(_published()))
