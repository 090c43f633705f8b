"""Links: an experiment as short text, and what a damaged or hostile one does."""

from __future__ import annotations

import base64
import contextlib
import json
import zlib
from collections.abc import Callable
from typing import Any

import pytest

from netprior_core import link
from netprior_core.errors import InvalidSettings
from netprior_core.experiment import Experiment

Tiny = Callable[..., Experiment]


def packed(text: str) -> str:
    return base64.urlsafe_b64encode(zlib.compress(text.encode())).decode().rstrip("=")


def test_there_and_back_in_characters_that_an_address_can_hold(tiny: Tiny) -> None:
    for experiment in (tiny(), tiny(seed=77, schedule="clock", operator={"kind": "inpainting"}, channels=3)):
        text = link.encode(experiment)
        assert text is not None
        assert text.replace("-", "").replace("_", "").isalnum()
        assert len(text) < 2000
        assert link.decode(text) == experiment


def test_uploads_do_not_fit_into_a_link(tiny: Tiny) -> None:
    image = {"source": "upload", "sha256": "ab" * 32}
    assert link.encode(tiny(target=image)) is None
    assert link.encode(tiny(shots={"source": "upload", "images": [image]})) is None
    assert link.encode(tiny(shots={"source": "upload", "images": []})) is not None


def test_every_shortened_link_is_called_damaged(tiny: Tiny) -> None:
    text = link.encode(tiny())
    assert text is not None
    for length in range(0, len(text), 7):
        with pytest.raises(InvalidSettings, match="damaged"):
            link.decode(text[:length])


def test_a_changed_character_never_gives_another_experiment_silently(tiny: Tiny) -> None:
    experiment = tiny()
    text = link.encode(experiment)
    assert text is not None
    for at in range(0, len(text), 5):
        changed = text[:at] + ("A" if text[at] != "A" else "B") + text[at + 1 :]
        with contextlib.suppress(InvalidSettings):
            assert link.decode(changed) == experiment  # the last bits of base64 may be padding


@pytest.mark.parametrize(
    "text", ["", "!!!", "ünicode", "A" * 100, "A" * (link.MAX_LINK + 1), "%00", "\x00", "A"], ids=lambda t: repr(t[:8])
)
def test_rubbish_is_called_damaged(text: str) -> None:
    with pytest.raises(InvalidSettings, match="damaged"):
        link.decode(text)


def test_a_compression_bomb_is_refused_before_it_is_unpacked() -> None:
    bomb = packed(" " * 5_000_000)
    assert len(bomb) < link.MAX_LINK
    with pytest.raises(InvalidSettings, match="damaged"):
        link.decode(bomb)


@pytest.mark.parametrize("data", [[], 3, None, {"format": "netprior-experiment", "version": 99}, {"format": "x"}], ids=str)
def test_what_is_packed_well_is_still_validated(data: Any) -> None:
    with pytest.raises(InvalidSettings):
        link.decode(packed(json.dumps(data)))
