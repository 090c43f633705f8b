"""Priors on disk: round trip, every way a file can be wrong, the cache's bounds."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from netprior_core import priors
from netprior_core.errors import MissingPrior

CARD = {"network": "DCGAN", "key": "abc", "terms": "public domain"}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("NETPRIOR_CACHE", str(folder))
    monkeypatch.setattr(priors, "CHECKPOINTS", tmp_path / "checkpoints")
    return folder


def test_round_trip_in_half_precision(tmp_path: Path) -> None:
    value = torch.linspace(-1, 1, 7)
    path = priors.save(tmp_path / "a.safetensors", {"w": value, "n": torch.tensor(3)}, CARD)
    prior = priors.load(path)
    assert prior.card == CARD
    assert prior.tensors["w"].dtype == torch.float32
    assert torch.equal(prior.tensors["w"], value.half().float())
    assert prior.tensors["n"].item() == 3
    assert list(tmp_path.glob("*.partial")) == []


def test_missing_truncated_foreign_and_pickled_files_are_explained(tmp_path: Path) -> None:
    good = priors.save(tmp_path / "good.safetensors", {"w": torch.zeros(1000)}, CARD)
    data = good.read_bytes()
    for name, content in {
        "truncated": data[: len(data) // 2],
        "header-only": data[:12],
        "empty": b"",
        "text": b"hello, this is no prior at all",
        "pickled": pickle.dumps({"w": 1}),
        "huge-header": (2**40).to_bytes(8, "little") + b"{}",
    }.items():
        path = tmp_path / f"{name}.safetensors"
        path.write_bytes(content)
        with pytest.raises(MissingPrior, match="not a complete safetensors file"):
            priors.load(path)
    with pytest.raises(MissingPrior, match="missing"):
        priors.load(tmp_path / "none.safetensors")


def test_a_file_without_a_card_is_refused(tmp_path: Path) -> None:
    for i, metadata in enumerate([None, {"card": "{"}, {"card": "[1]"}]):
        path = tmp_path / f"{i}.safetensors"
        save_file({"w": torch.zeros(2)}, path, metadata=metadata)
        with pytest.raises(MissingPrior, match="no card"):
            priors.load(path)


def test_invalid_numbers_and_large_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = priors.save(tmp_path / "a.safetensors", {"w": torch.tensor([1e9])}, CARD)  # overflows half precision
    with pytest.raises(MissingPrior, match="invalid numbers"):
        priors.load(path)
    monkeypatch.setattr(priors, "MAX_FILE_BYTES", 10)
    with pytest.raises(MissingPrior, match="larger"):
        priors.load(path)


def test_tensors_that_do_not_fit_the_network_are_explained() -> None:
    layer = torch.nn.Linear(2, 3)
    prior = priors.Prior({f"network.{n}": v.clone() for n, v in layer.state_dict().items()}, CARD)
    prior.load_into(torch.nn.Linear(2, 3))
    with pytest.raises(MissingPrior, match="does not fit"):
        prior.load_into(torch.nn.Linear(2, 4))


def test_key_depends_on_levels_shape_and_settings() -> None:
    shots = torch.rand(2, 1, 4, 4)
    key = priors.key_of(shots, steps=1)
    assert key == priors.key_of(shots + 1e-4, steps=1) or (shots * 255 + 0.0255).round().ne((shots * 255).round()).any()
    assert key == priors.key_of(shots.clone(), steps=1)
    assert key != priors.key_of(shots, steps=2)
    assert key != priors.key_of(shots.flip(0), steps=1)
    assert key != priors.key_of(shots.reshape(1, 2, 4, 4), steps=1)


def test_cache_then_shipped_then_none(tmp_path: Path, cache: Path) -> None:
    assert priors.find("abc") is None
    folder = tmp_path / "checkpoints"
    priors.save(folder / "set.safetensors", {"w": torch.ones(1)}, CARD)
    (folder / "broken.safetensors").write_bytes(b"nonsense")
    found = priors.find("abc")
    assert found is not None
    assert found.tensors["w"].item() == 1
    assert priors.remember("abc", {"w": torch.zeros(1)}, {"network": "DCGAN"}) is None
    found = priors.find("abc")
    assert found is not None
    assert found.tensors["w"].item() == 0
    (cache / "abc.safetensors").write_bytes(b"damaged")
    found = priors.find("abc")
    assert found is not None
    assert found.tensors["w"].item() == 1


def test_a_file_under_anothers_name_is_not_taken(cache: Path) -> None:
    priors.save(cache / "other.safetensors", {"w": torch.zeros(1)}, CARD)
    assert priors.find("other") is None


def test_least_recently_used_goes_first(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for i, name in enumerate("abc"):
        priors.remember(name, {"w": torch.zeros(1000)}, {})
        os.utime(cache / f"{name}.safetensors", (i, i))
    os.utime(cache / "a.safetensors", (10, 10))
    size = (cache / "a.safetensors").stat().st_size
    monkeypatch.setattr(priors, "MAX_CACHE_BYTES", 3 * size)
    priors.save(cache / "drunet-grey.safetensors", {"w": torch.zeros(9000)}, {})  # published weights that a person gave
    os.utime(cache / "drunet-grey.safetensors", (0, 0))
    priors.remember("d", {"w": torch.zeros(1000)}, {})
    assert sorted(p.stem for p in cache.glob("*.safetensors")) == ["a", "c", "d", "drunet-grey"]
    for name, used in (("own-1", 0), ("a", 20), ("c", 21)):
        priors.save(cache / f"{name}.safetensors", {"w": torch.zeros(1000)}, {})
        os.utime(cache / f"{name}.safetensors", (used, used))
    assert priors.named("a").tensors["w"].shape == (1000,)  # and so used last
    priors.remember("e", {"w": torch.zeros(1000)}, {})
    assert sorted(p.stem for p in cache.glob("*.safetensors")) == ["a", "drunet-grey", "e", "own-1"]


def test_an_unusable_cache_is_said_and_survived(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("NETPRIOR_CACHE", str(tmp_path / "file" / "inside"))
    note = priors.remember("abc", {"w": torch.zeros(1)}, {})
    assert note is not None
    assert "could not be kept" in note
    assert priors.find("abc") is None


def test_a_full_disk_leaves_nothing_behind(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    note = priors.remember("abc", {"w": torch.zeros(1)}, {})
    assert note is not None
    assert "No space left" in note
    assert list(cache.iterdir()) == []


def test_the_card_is_readable_json_in_the_header(tmp_path: Path) -> None:
    path = priors.save(tmp_path / "a.safetensors", {"w": torch.zeros(1)}, {**CARD, "credit": "naïve σ"})
    data = path.read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    assert json.loads(header["__metadata__"]["card"])["credit"] == "naïve σ"


def test_a_prior_given_by_a_person_is_checked_before_it_is_kept(cache: Path, tmp_path: Path) -> None:
    path = priors.save(tmp_path / "mine.safetensors", {"w": torch.ones(2)}, {**CARD, "title": "Mine"})
    name = priors.adopt(path.read_bytes())
    assert torch.equal(priors.named(name).tensors["w"], torch.ones(2))
    assert priors.title_of(name) == "Mine"
    assert sorted(p.name for p in cache.iterdir()) == [f"{name}.safetensors"]
    for bad in (b"", b"not a prior", pickle.dumps({"w": 1}), path.read_bytes()[:-3]):
        with pytest.raises(MissingPrior):
            priors.adopt(bad)
    for card in ({"settings": []}, {"settings": {"channels": "x"}}, {"shape": 5}, {"shape": [3, -64, 64]}, {"shape": [None]}):
        damaged = priors.save(tmp_path / "damaged.safetensors", {"w": torch.ones(2)}, {**CARD, **card})
        with pytest.raises(MissingPrior, match="damaged"):
            priors.adopt(damaged.read_bytes())
    assert sorted(p.name for p in cache.iterdir()) == [f"{name}.safetensors"]
    for name in ("../mine", "Mine", "", "a/b"):
        with pytest.raises(MissingPrior, match="lower-case"):
            priors.named(name)
    assert priors.title_of("gone") == "gone"
