"""Embedded examples: held-out targets share no pixel with the shots, nothing is downloaded, every load is the same."""

from __future__ import annotations

import io
import socket
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from netprior_core import examples, generators, representation
from netprior_core.compute import choose
from netprior_core.errors import InvalidSettings, MissingPrior
from netprior_core.examples import Crop, ExampleSet
from netprior_core.images import to_uint8
from netprior_core.phantoms import ellipse_phantom

SETS = examples.sets()
each = pytest.mark.parametrize("found", SETS, ids=lambda s: s.key)


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("an embedded example opened a socket")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def _overlap(a: Crop, b: Crop) -> bool:
    if a.source != b.source or a.number != b.number:
        return False
    apart = a.top + a.height <= b.top or b.top + b.height <= a.top or a.left + a.width <= b.left or b.left + b.width <= a.left
    return a.drawn or not apart


def test_the_promised_sets_are_there() -> None:
    keys = {s.key for s in SETS}
    assert keys >= {"faces", "coins", "histology", "galaxies", "retina", "textures", "phantoms", "digits"}
    assert keys >= {"astronaut", "astronaut-face", "cat", "coffee", "camera", "portrait", "mri"}
    assert len(keys) == len(SETS)
    assert examples.get("faces").n_shots + examples.get("faces").n_targets == 100
    assert examples.get("coins").n_shots + examples.get("coins").n_targets == 24
    assert examples.get("phantoms").n_shots == 100
    digits = examples.get("digits")
    assert (digits.n_shots, digits.n_targets, digits.size) == (100, 10, 28)


@each
def test_shapes_and_ranges(found: ExampleSet) -> None:
    shots, targets = found.shots(), found.targets()
    frame = (found.channels, found.size, found.size)
    assert shots.shape == (found.n_shots, *frame)
    assert targets.shape == (found.n_targets, *frame)
    assert found.n_targets == len(found.target_names) >= 1
    assert found.n_shots == 0 or found.n_shots >= 10
    for image in torch.cat([shots, targets]):
        assert 0 <= float(image.min()) < float(image.max()) <= 1
        assert float(image.std()) > 0.01
        assert torch.equal(torch.from_numpy(to_uint8(image)).float() / 255, image[0] if len(image) == 1 else image.permute(1, 2, 0))
    assert found.title
    assert found.credit
    assert found.blurb.endswith(".")


@each
def test_no_pixel_of_a_target_is_among_the_shots(found: ExampleSet) -> None:
    assert not any(_overlap(t, s) for t in found.target_crops for s in found.shot_crops)
    crops = found.shot_crops + found.target_crops
    assert len(set(crops)) == len(crops)
    if found.n_shots:
        difference = (found.targets()[:, None] - found.shots()[None]).square().mean(dim=(2, 3, 4))
        assert float(difference.min()) > 1e-4


@each
def test_crops_lie_inside_their_source(found: ExampleSet) -> None:
    for crop in found.shot_crops + found.target_crops:
        if not crop.drawn:
            height, width = examples._read(crop.source).shape[-3:-1]
            assert min(crop.top, crop.left) >= 0
            assert crop.top + crop.height <= height
            assert crop.left + crop.width <= width


@each
def test_loading_again_gives_the_same_pixels(found: ExampleSet) -> None:
    first = found.targets()
    found.targets().zero_()  # what a caller does to its copy is its own business
    examples._cut.cache_clear()
    examples._read.cache_clear()
    assert torch.equal(first, found.targets())


@each
def test_another_size_is_cut_from_the_source_again(found: ExampleSet) -> None:
    large = found.targets(96, 3)
    assert large.shape == (found.n_targets, 3, 96, 96)
    small = torch.nn.functional.interpolate(large, size=(24, 24), mode="area").mean(dim=1)
    same = torch.nn.functional.interpolate(found.targets(), size=(24, 24), mode="area").mean(dim=1)
    assert float((small - same).abs().mean()) < 0.05


@each
def test_thumbnails_are_small_pngs(found: ExampleSet) -> None:
    with Image.open(io.BytesIO(examples.thumbnail(found.key))) as image:
        assert image.format == "PNG"
        assert max(image.size) <= 64


def test_an_unknown_key_names_the_known_ones() -> None:
    with pytest.raises(InvalidSettings, match="faces, coins"):
        examples.get("dragons")


def test_a_missing_source_hides_its_set_and_says_so_when_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    real = examples._path
    monkeypatch.setattr(examples, "_path", lambda source: None if "coins" in source else real(source))
    examples._cut.cache_clear()
    examples._read.cache_clear()
    assert "coins" not in {s.key for s in examples.sets()}
    with pytest.raises(MissingPrior, match=r"coins\.png is not in the installed scikit-image"):
        examples.get("coins").shots()


def test_scikit_image_is_read_as_files_not_through_its_downloader() -> None:
    code = (
        "import sys; from netprior_core import examples; [s.targets() for s in examples.sets()]; "
        "print('skimage' in sys.modules, 'pooch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


# Phantoms


def test_phantoms_follow_the_generator_and_fill_the_range() -> None:
    first, again, other = (ellipse_phantom(32, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert np.abs(first - other).mean() > 0.01
    assert first.dtype == np.float32
    assert first.min() == 0
    assert first.max() == pytest.approx(1)


def test_a_phantom_is_the_same_object_at_every_size() -> None:
    small, large = (ellipse_phantom(size, np.random.default_rng(5), supersampling=4) for size in (32, 64))
    assert np.abs(large.reshape(32, 2, 32, 2).mean(axis=(1, 3)) - small).mean() < 0.03


def test_one_ellipse_is_a_plain_shape() -> None:
    image = ellipse_phantom(64, np.random.default_rng(3), mean_count=0, supersampling=1)
    assert set(np.unique(image)) <= {0.0, 1.0}


# Digits


def test_digits_are_drawn_as_those_of_mnist() -> None:
    every = torch.cat([examples.get("digits").shots(), examples.get("digits").targets()])[:, 0]
    place = torch.arange(28) - 13.5
    for axis in (1, 2):  # the centre of mass in the middle
        centres = (every.sum(dim=3 - axis) * place).sum(dim=1) / every.sum(dim=(1, 2))
        assert float(centres.abs().max()) < 0.3
    # MNIST's training images have a mean of 0.131 and a standard deviation of 0.308 (both known figures).
    assert abs(float(every.mean()) - 0.131) < 0.04
    assert abs(float(every.std()) - 0.308) < 0.05
    assert float(every[:, 0].max()) < 0.5  # nothing hangs over the edge


# Faces


def test_the_face_is_nearer_to_the_face_generator_than_the_portraits() -> None:
    drawing, compute = generators.generator_for((3, 64, 64)), choose("float32", "cpu")

    def best(key: str) -> float:
        truth = examples.get(key).targets(64)
        *_, (_, _, value) = representation.best_possible(drawing, compute, truth, restarts=2, iterations=60, refinements=60)
        return value

    assert best("astronaut-face") > max(best("portrait"), best("astronaut")) + 2.5
