"""Controls from settings: one gradio component for every declared field."""

from __future__ import annotations

from typing import Any

import gradio as gr

from netprior_core.settings import FieldSpec, Settings

FILES = ("array", "pattern")


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
            and (not field.log or (0 < high / (low or high) <= 1000 and not whole))
        ):
            return gr.Slider(low, high, value=value, step=step or (low if field.log else _step(low, high)), **common)
        return gr.Number(value=value, minimum=low, maximum=high, precision=0 if whole else None, step=step or 0.001, **common)
    return gr.Textbox(value="" if value is None else str(value), **common)


def split(settings: Settings) -> tuple[list[FieldSpec], list[FieldSpec]]:
    """(the settings shown at once, the folded ones), without those that mean nothing now. None marked as main: the first two."""
    fields = [f for f in settings.fields() if f.when is None or getattr(settings, f.when[0]) == f.when[1]]
    main = [f for f in fields if f.main][:3] or fields[:2]
    return main, [f for f in fields if f not in main]


def _step(low: float, high: float) -> float:
    """A slider step with about 200 positions, at a round number."""
    span = high - low
    for step in (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0):
        if span / step <= 260:
            return step
    return span / 200
