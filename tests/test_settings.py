"""Settings as data: declared once, read by controls, command line, JSON and people."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
from pydantic import ValidationError
from shared import mains_at_once

from netprior_core.errors import InvalidSettings
from netprior_core.methods import Method
from netprior_core.noise import Noise
from netprior_core.operators import Operator
from netprior_core.settings import Registry, Settings, setting, shortened

FAMILIES = {"method": Method.registry, "operator": Operator.registry, "noise": Noise.registry}
MEMBERS = [
    pytest.param(cls, id=f"{family}/{cls.model_fields['kind'].default}") for family, found in FAMILIES.items() for cls in found
]


class Example(Settings):
    """A line.

    More.
    """

    title = "Example"
    presets = {"fast": {"rate": 0.5}, "plain": {}}
    kind: str = "example"
    rate: float = setting(0.1, "A rate.", ge=0, le=1, unit="per step", main=True, log=True)
    count: int = setting(3, "A count.", ge=1, le=9, label="How many")
    flag: bool = setting(True, "A flag.")
    limit: float | None = setting(None, "A limit, or none.", ge=0, le=5)


def test_fields_say_what_a_control_needs() -> None:
    fields = {field.name: field for field in Example.fields()}
    assert list(fields) == ["rate", "count", "flag", "limit"]
    rate, count, flag, limit = fields.values()
    assert (rate.type, rate.minimum, rate.maximum, rate.unit, rate.main, rate.log) == ("float", 0, 1, "per step", True, True)
    assert (count.type, count.label, count.default, count.optional) == ("int", "How many", 3, False)
    assert flag.type == "bool"
    assert (limit.type, limit.optional, limit.default) == ("float", True, None)
    assert Example.summary() == "A line."


def test_presets_are_named_changes() -> None:
    assert Example.preset("fast").rate == 0.5
    assert Example.preset("fast", count=5).count == 5
    assert Example.preset("fast").preset_name() == "fast"
    assert Example().preset_name() == "plain"
    assert Example(rate=0.7).preset_name() is None
    with pytest.raises(KeyError):
        Example.preset("slow")


def test_settings_are_frozen_strict_and_finite() -> None:
    with pytest.raises(ValidationError):
        Example().rate = 1.0  # type: ignore[misc]
    for wrong in ({"rate": 2}, {"rate": float("nan")}, {"rate": float("inf")}, {"count": 1.5}, {"unknown": 1}, {"version": 2}):
        with pytest.raises(ValidationError):
            Example(**wrong)  # type: ignore[arg-type]


def test_two_members_of_one_name_are_a_mistake() -> None:
    registry: Registry[Any] = Registry("thing")

    class First(Settings):
        kind: str = "same"

    class Second(Settings):
        kind: str = "same"

    registry.add(First)
    registry.add(First)
    with pytest.raises(ValueError, match="same"):
        registry.add(Second)


def test_a_wrong_setting_is_named_with_its_bound_and_what_was_given() -> None:
    registry: Registry[Any] = Registry("thing")
    registry.add(Example)
    with pytest.raises(InvalidSettings) as caught:
        registry.parse({"kind": "example", "rate": 7, "extra": 1})
    message = str(caught.value)
    assert message.startswith("Example: ")
    assert "rate" in message
    assert "less than or equal to 1" in message
    assert "7" in message
    assert "'extra' is not a known setting" in message


def test_a_strangers_text_is_cut_and_can_be_encoded() -> None:
    assert shortened("x" * 200, 10) == "x" * 9 + "…"
    assert shortened("a\ud800b").encode()
    assert shortened("plain") == "plain"


@pytest.mark.parametrize("cls", MEMBERS)
def test_every_member_is_well_declared(cls: type[Settings]) -> None:
    assert cls.title
    assert 10 < len(cls.summary()) < 400
    default = cls()  # type: ignore[call-arg]
    family = next(found for found in FAMILIES.values() if cls in list(found))
    assert family.parse(default.model_dump(mode="json")) == default
    assert family.parse(default) is default
    assert pickle.loads(pickle.dumps(default)) == default
    for field in cls.fields():
        assert field.help, f"{field.name} has no help"
        if field.type in ("int", "float"):
            assert field.minimum is not None, f"{field.name} has no lower bound"
            assert field.maximum is not None, f"{field.name} has no upper bound"
            for beyond in (field.minimum - 1, field.maximum + 1):
                with pytest.raises(InvalidSettings, match=field.name):
                    family.parse({"kind": default.kind, field.name: beyond})
        if field.type == "choice":
            assert field.default in field.choices
    assert mains_at_once(cls) <= 3
    for name in cls.presets:
        assert cls.preset(name).preset_name() in cls.presets
