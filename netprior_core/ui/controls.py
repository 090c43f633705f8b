"""Controls from settings: one gradio component for every declared field."""

from __future__ import annotations

import math
from typing import Any

import gradio as gr

from netprior_core.settings import FieldSpec, Settings

FILES = ("array", "pattern")


def _within(slider: gr.Slider, typed: float | None) -> float:
    """What is typed beside a slider, at its nearer end where it lies outside, as the page shows it then.

    Gradio refuses such a number without naming the slider, and what was set before stays in use behind the number shown.
    """
    return gr.Number.round_to_precision(min(max(typed or 0, slider.minimum), slider.maximum), slider.precision)


gr.Slider.preprocess = _within  # type: ignore[method-assign, assignment]


def control(field: FieldSpec, value: Any, key: str) -> gr.components.Component | None:
    """The component of one setting, at ``value``; None for settings with a control of their own (a drawn mask).

    A file of numbers ("array", or "pattern" where only zero or not matters) is uploaded; it becomes the setting, as text.
    """
    label = field.label + (f" ({field.unit})" if field.unit else "")
    common: dict[str, Any] = {"label": label, "info": field.help or None, "interactive": True, "elem_id": f"np-{key}-{field.name}"}
    if field.widget in FILES:
        kept = " A file is in use; upload another to replace it." if value else ""
        with gr.Group():
            gr.HTML(f"<p class='np-info'>{field.help}{kept}</p>")
            return gr.File(label=label, file_types=[".npy", ".png"], type="filepath", height=90, elem_id=f"np-{key}-{field.name}")
    if field.widget:
        return None
    if field.type == "bool":
        return gr.Checkbox(value=value, **common)
    if field.type == "choice":
        return gr.Dropdown(choices=list(field.choices), value=value, filterable=False, **common)
    if field.type in ("int", "float"):
        low, high = field.minimum, field.maximum
        whole = field.type == "int"
        step = field.step or (1 if whole else None)
        if (
            low is not None
            and high is not None
            and not field.optional
            and (not field.log or (low > 0 and high / low <= 1000 and not whole))
        ):
            return gr.Slider(low, high, value=value, step=step or (low if field.log else _step(low, high)), **common)
        return gr.Number(value=value, step=step or _arrow(value), **common)
    return gr.Textbox(value="" if value is None else str(value), **common)


def split(settings: Settings) -> tuple[list[FieldSpec], list[FieldSpec]]:
    """(the settings shown at once, the folded ones), without those that mean nothing now. None marked as main: the first two."""
    fields = [f for f in settings.fields() if f.when is None or getattr(settings, f.when[0]) == f.when[1]]
    main = [f for f in fields if f.main][:3] or fields[:2]
    return main, [f for f in fields if f not in main]


def misfit(field: FieldSpec, value: float | None, now: float | None) -> str:
    """Why a typed number cannot be used, in a sentence that also says what stays; "" where it can.

    Number boxes know no bounds of their own: gradio refuses without a name, and a browser's arrows would count from the lower one.
    """
    low, high = field.minimum, field.maximum
    if value is None:
        wrong = "" if field.optional else "needs a number"
    elif field.type == "int" and value != int(value):
        wrong = f"is a whole number: not {value:g}"
    elif (low is not None and value < low) or (high is not None and value > high):
        bounds = f"from {low:,g} to {high:,g}" if low is not None and high is not None else ""
        wrong = f"is {bounds or (f'at least {low:,g}' if high is None else f'at most {high:,g}')}: not {value:,g}"
    else:
        wrong = ""
    return wrong and f"{field.label} {wrong}. It stays {'empty' if now is None else f'at {now:g}'}."


def _arrow(value: float | None) -> float:
    """What the arrows of a number box add: a digit of the number in it."""
    return 10.0 ** (math.ceil(math.log10(value)) - 1) if value else 0.001


def _step(low: float, high: float) -> float:
    """A slider step with about 200 positions, at a round number."""
    span = high - low
    for step in (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0):
        if span / step <= 260:
            return step
    return span / 200
