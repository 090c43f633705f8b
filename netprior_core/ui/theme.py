"""The page's theme and style sheet: ink on paper, one accent, contrast of at least 4.5:1 for text in light and dark.

Both are arguments of ``launch()``: ``demo.launch(theme=theme(), css=CSS)``.
"""

from __future__ import annotations

from pathlib import Path

import gradio as gr

_ASSETS = Path(__file__).resolve().parents[2] / "assets"

CSS: str = "\n".join((_ASSETS / name).read_text(encoding="utf-8") for name in ("live/palette.css", "page.css"))
"""The palette and the page's own rules, for ``launch(css=…)``."""

# gradio's variables in terms of the palette, the same in light and dark because the palette itself changes.
_PALETTE = {
    "var(--np-paper)": (
        "body_background_fill background_fill_primary block_background_fill panel_background_fill code_background_fill "
        "checkbox_background_color checkbox_background_color_focus checkbox_background_color_hover checkbox_label_background_fill "
        "checkbox_label_background_fill_hover input_background_fill input_background_fill_focus input_background_fill_hover "
        "block_label_background_fill block_title_background_fill table_even_background_fill table_odd_background_fill "
        "button_secondary_background_fill button_cancel_background_fill error_background_fill"
    ),
    "var(--np-well)": (
        "background_fill_secondary checkbox_label_background_fill_selected button_secondary_background_fill_hover "
        "button_cancel_background_fill_hover table_row_focus"
    ),
    "var(--np-ink)": (
        "body_text_color accordion_text_color table_text_color checkbox_label_text_color checkbox_label_text_color_selected "
        "button_secondary_text_color button_secondary_text_color_hover button_cancel_text_color button_cancel_text_color_hover "
        "block_title_text_color"
    ),
    "var(--np-muted)": "body_text_color_subdued block_info_text_color block_label_text_color input_placeholder_color",
    "var(--np-line)": (
        "border_color_primary border_color_accent_subdued block_border_color block_label_border_color block_title_border_color "
        "panel_border_color checkbox_border_color checkbox_label_border_color checkbox_label_border_color_hover input_border_color "
        "input_border_color_hover table_border_color button_secondary_border_color button_cancel_border_color"
    ),
    "var(--np-accent)": (
        "border_color_accent link_text_color link_text_color_active link_text_color_visited slider_color loader_color "
        "checkbox_background_color_selected checkbox_border_color_focus checkbox_border_color_hover checkbox_border_color_selected "
        "checkbox_label_border_color_selected input_border_color_focus button_primary_background_fill button_primary_border_color "
        "button_primary_border_color_hover button_secondary_border_color_hover button_cancel_border_color_hover "
        "stat_background_fill color_accent color_accent_soft"
    ),
    "var(--np-accent-strong)": "button_primary_background_fill_hover link_text_color_hover",
    "var(--np-on-accent)": "button_primary_text_color button_primary_text_color_hover",
    "var(--np-alert)": "error_text_color error_border_color error_icon_color",
    "none": (
        "block_shadow block_label_shadow input_shadow input_shadow_focus checkbox_shadow checkbox_label_shadow "
        "button_primary_shadow button_primary_shadow_hover button_primary_shadow_active button_secondary_shadow "
        "button_secondary_shadow_hover button_secondary_shadow_active shadow_drop shadow_drop_lg shadow_inset"
    ),
}


def theme() -> gr.themes.Base:
    """The default theme (its fonts are bundled: no outside request) with every colour taken from the palette.

    Bold instead of the default's semi-bold: the bundled semi-bold file has hardly any letters in it.
    """
    result = gr.themes.Default(
        spacing_size=gr.themes.sizes.spacing_md,
        radius_size=gr.themes.sizes.radius_sm,
        text_size=gr.themes.sizes.text_md,
        font=(gr.themes.LocalFont("Source Sans Pro", weights=(400, 700)), "ui-sans-serif", "system-ui", "sans-serif"),
    )
    known = vars(result)
    for value, names in _PALETTE.items():
        for name in names.split():
            if name not in known:
                continue
            setattr(result, name, value)
            if f"{name}_dark" in known:
                setattr(result, f"{name}_dark", value)
    result.set(
        button_border_width="1px", block_border_width="1px", button_large_padding="8px 16px", button_large_text_size="*text_md"
    )
    return result
