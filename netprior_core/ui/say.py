"""Telling the person something in a corner of the page. Gradio shows these texts as HTML, which a stranger's words must not be."""

from __future__ import annotations

import html

import gradio as gr


def warn(text: str, duration: float = 12) -> None:
    """A warning, shown as it is written."""
    gr.Warning(html.escape(text, quote=False), duration=duration)


def inform(text: str) -> None:
    """A piece of information, shown as it is written."""
    gr.Info(html.escape(text, quote=False))
