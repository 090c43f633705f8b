"""Settings are data: one declaration drives controls, command line, JSON, validation, docs and tests.

Every operator, noise model, method and stopping rule is a frozen pydantic model deriving from
:class:`Settings`. A family (all operators, say) is a subclass that owns a :class:`Registry`; its
members register themselves by being defined, and :func:`discover` imports every module of the
family's package, so that adding a member means adding one file.
"""

from __future__ import annotations

import importlib
import pkgutil
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, Literal, TypeVar

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from netprior_core.errors import InvalidSettings

T = TypeVar("T", bound="Settings")


def setting(
    default: Any,
    help: str,
    *,
    ge: float | None = None,
    le: float | None = None,
    unit: str = "",
    label: str = "",
    main: bool = False,
    step: float | None = None,
    log: bool = False,
    widget: str = "",
    when: tuple[str, Any] | None = None,
    max_length: int | None = None,
) -> Any:
    """Declare one setting: a pydantic field with bounds, help, unit and what a control needs to know.

    ``main`` marks the (at most three) settings shown unfolded. ``log`` asks for a logarithmic
    control. ``widget`` names a special control ("mask": a drawing on the target image; "denoiser": a choice that says what is
    missing and takes the published weights). ``when`` is (another setting, value):
    the control is only shown while that setting has that value.
    """
    extra: Any = {"unit": unit, "label": label, "main": main, "step": step, "log": log, "widget": widget}
    extra["when"] = when
    return Field(default, ge=ge, le=le, max_length=max_length, description=help, json_schema_extra=extra)


@dataclass(frozen=True)
class FieldSpec:
    """What a control (browser), an option (command line) or a docs row needs to know of one setting."""

    name: str
    label: str
    type: Literal["int", "float", "bool", "choice", "text"]
    default: Any
    minimum: float | None
    maximum: float | None
    step: float | None
    choices: tuple[Any, ...]
    unit: str
    help: str
    main: bool
    log: bool
    optional: bool
    widget: str
    when: tuple[str, Any] | None


class Settings(BaseModel):
    """Frozen, strict settings with a ``kind`` (which class) and a ``version`` (which meaning).

    ``title`` is the name people read; ``presets`` maps a preset's name to the fields it changes.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    title: ClassVar[str] = ""
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}

    kind: str
    version: int = Field(1, ge=1, le=1)

    @classmethod
    def fields(cls) -> tuple[FieldSpec, ...]:
        """The settings a person can change, in order of declaration (``kind`` and ``version`` excluded)."""
        return tuple(field_spec(name, info) for name, info in cls.model_fields.items() if name not in ("kind", "version"))

    @classmethod
    def preset(cls: type[T], name: str, **changes: Any) -> T:
        """The named preset as an instance, with ``changes`` on top. Raises KeyError for an unknown name."""
        return cls(**{**cls.presets[name], **changes})

    def preset_name(self) -> str | None:
        """The preset this instance equals, or None when it was changed by hand."""
        return next((name for name in type(self).presets if type(self).preset(name) == self), None)

    @classmethod
    def summary(cls) -> str:
        """First paragraph of the class docstring, on one line."""
        return " ".join((cls.__doc__ or "").strip().split("\n\n")[0].split())


def field_spec(name: str, info: Any) -> FieldSpec:
    """What a control needs to know of a pydantic field."""
    extra = info.json_schema_extra or {}
    annotation, optional = info.annotation, False
    if isinstance(annotation, types.UnionType) or typing.get_origin(annotation) is typing.Union:
        members = [a for a in typing.get_args(annotation) if a is not type(None)]
        annotation, optional = members[0], True
    choices: tuple[Any, ...] = ()
    kind: Literal["int", "float", "bool", "choice", "text"]
    if typing.get_origin(annotation) is Literal:
        kind, choices = "choice", typing.get_args(annotation)
    elif annotation is bool:
        kind = "bool"
    elif annotation is int:
        kind = "int"
    elif annotation is float:
        kind = "float"
    else:
        kind = "text"
    low = high = None
    for bound in info.metadata:
        if isinstance(bound, (Ge, Gt)):
            low = bound.ge if isinstance(bound, Ge) else bound.gt
        elif isinstance(bound, (Le, Lt)):
            high = bound.le if isinstance(bound, Le) else bound.lt
    return FieldSpec(
        name=name,
        label=extra.get("label") or name.replace("_", " ").capitalize(),
        type=kind,
        default=info.default,
        minimum=low,  # type: ignore[arg-type]
        maximum=high,  # type: ignore[arg-type]
        step=extra.get("step"),
        choices=choices,
        unit=extra.get("unit", ""),
        help=info.description or "",
        main=bool(extra.get("main")),
        log=bool(extra.get("log")),
        optional=optional,
        widget=extra.get("widget", ""),
        when=extra.get("when"),
    )


class Registry(Generic[T]):
    """The members of one family of settings, by ``kind``, in order of their ``order`` then title."""

    def __init__(self, what: str) -> None:
        self.what = what
        self._members: dict[str, type[T]] = {}

    def add(self, cls: type[T]) -> None:
        """Register a class under the default of its ``kind`` field. Raises ValueError on a clash."""
        kind = cls.model_fields["kind"].default
        known = self._members.get(kind)
        if known is not None and known.__qualname__ != cls.__qualname__:
            raise ValueError(f"two {self.what}s are called {kind!r}: {known.__qualname__} and {cls.__qualname__}")
        self._members[kind] = cls

    def __iter__(self) -> Iterator[type[T]]:
        return iter(sorted(self._members.values(), key=lambda c: (getattr(c, "order", 100), c.title)))

    def __getitem__(self, kind: str) -> type[T]:
        try:
            return self._members[kind]
        except KeyError:
            known = ", ".join(sorted(self._members))
            raise InvalidSettings(f"There is no {self.what} called {shortened(repr(kind))}. Known: {known}.") from None

    def parse(self, data: Any) -> T:
        """An instance from JSON-like data (or an instance, returned as it is).

        Raises InvalidSettings, in words for a person, for anything that does not fit.
        """
        if isinstance(data, Settings):
            return typing.cast(T, data)
        if not isinstance(data, Mapping):
            raise InvalidSettings(f"A {self.what} must be a JSON object with a 'kind', not {type(data).__name__}.")
        kind = data.get("kind")
        if not isinstance(kind, str):
            raise InvalidSettings(f"This {self.what} has no 'kind'.")
        cls = self[kind]
        version = data.get("version", 1)
        current = cls.model_fields["version"].default
        if isinstance(version, int) and version > current:
            raise InvalidSettings(
                f"{cls.title}: these settings have version {version}, and this NetPrior knows version {current}. "
                "They were made by a newer NetPrior: update to open them."
            )
        try:
            return cls.model_validate(dict(data))
        except ValidationError as error:
            raise InvalidSettings(explain(error, cls.title)) from None


def explain(error: ValidationError, where: str = "") -> str:
    """A pydantic error in words for a person: which setting, what it was, what it may be."""
    lines = []
    for item in error.errors(include_url=False)[:4]:
        name = shortened(".".join(str(part) for part in item["loc"])) or "value"
        try:
            got = shortened(repr(item.get("input")), 40)
        except RecursionError:
            got = "something very deep"
        if item["type"] == "extra_forbidden":
            lines.append(f"'{name}' is not a known setting")
        elif item["type"] == "missing":
            lines.append(f"'{name}' is missing")
        elif item["type"] == "value_error":
            lines.append(str(item["ctx"]["error"]) if name == "value" else f"{name}: {item['ctx']['error']}")
        else:
            lines.append(f"{name}: {item['msg'][:1].lower()}{item['msg'][1:]} (got {got})")
    prefix = f"{where}: " if where else ""
    return prefix + "; ".join(lines).rstrip(".") + "."


def shortened(text: str, limit: int = 80) -> str:
    """A stranger's text for a message: not longer than ``limit``, and always possible to encode."""
    text = text.encode("utf-8", "replace").decode()
    return text if len(text) <= limit else text[: limit - 1] + "…"


def discover(package: str) -> None:
    """Import every public module of a package, so that the settings defined there register themselves."""
    module = importlib.import_module(package)
    for found in pkgutil.iter_modules(module.__path__):
        if not found.name.startswith("_"):
            importlib.import_module(f"{package}.{found.name}")
