"""What cannot be chosen for the problem at hand: marks in the menus of methods and denoisers, reasons beside the lanes.

Only labels change: the value of a choice, and with it links and files, is the same with and without a mark.
"""

from __future__ import annotations

import html
import json
from collections.abc import Container
from typing import Any

import gradio as gr

from netprior_core import denoisers
from netprior_core.experiment import Experiment
from netprior_core.methods import Method
from netprior_core.problem import Problem
from netprior_core.settings import FieldSpec

#: What follows the name of a method that refuses the problem. The style sheet knows it, too: `setup.css`, `page.family_headings`.
NOT_HERE = " — not available here"


def refusals(problem: Problem) -> dict[str, str]:
    """By kind, why a method cannot solve this problem with the settings that a person who picks it would get; about 10 ms."""
    found = {}
    for cls in Method.registry:
        kind = cls.model_fields["kind"].default
        if reason := cls(kind=kind).at_hand().suited(problem.operator).accepts(problem):
            found[kind] = reason
    return found


def decided_by(experiment: Experiment) -> str:
    """What :func:`refusals` depends on, as text: two experiments with the same one have the same marks."""
    parts = {"operator", "noise", "mismatch", "size", "channels", "shots", "target_is"}
    return json.dumps(experiment.model_dump(mode="json", include=parts), sort_keys=True)


def method_choices(refused: Container[str]) -> list[tuple[str, str]]:
    """(label, kind) of every method, those refused with a mark."""
    kinds = [(cls.title, cls.model_fields["kind"].default) for cls in Method.registry]
    return [(title + NOT_HERE if kind in refused else title, kind) for title, kind in kinds]


def denoiser_choices(names: tuple[str, ...], channels: int) -> list[tuple[str, str]]:
    """(label, name) of the denoisers, those that cannot be used on pictures of so many channels with what is missing."""
    found = []
    for name in names:
        known = denoisers.DENOISERS.get(name)
        missing = known is not None and denoisers.reason(name, channels) is not None
        label = name if known is None else known.title + (f" — {known.needs} missing" if missing else "")
        found.append((label, name))
    return found


def denoiser_menu(field: FieldSpec, value: str, channels: int, key: str) -> gr.Dropdown:
    """The control of a setting that is a denoiser."""
    common: dict[str, Any] = {"label": field.label, "info": field.help or None, "interactive": True, "filterable": False}
    return gr.Dropdown(denoiser_choices(field.choices, channels), value=value, elem_id=f"np-{key}-{field.name}", **common)


def beside(reason: str | None) -> Any:
    """The line under a lane's method that says why it cannot solve the problem; nothing where it can."""
    return gr.update(value=f"<p class='np-info np-why'>{html.escape(reason)}</p>" if reason else "", visible=bool(reason))
