"""The canvas that a mask is drawn on: gradio's image editor, bounded to one drawn layer, small in bytes and pixels.

Gradio's own keeps as many layers and drawings as it is sent, and decodes all of them, background and composite too: a small PNG of
81 million pixels took 1.2 GB.
"""

from __future__ import annotations

import contextlib
from io import BytesIO
from typing import Any

import gradio as gr
import numpy as np
from gradio.components.image_editor import EditorData, EditorDataBlobs
from PIL import Image

#: Of a drawing, as it is sent. What is drawn on has at most 1024 pixels a side; a screen may have two for each.
MOST_BYTES, MOST_SIDE = 2_000_000, 2048
#: Drawings that wait to be read.
MOST_WAITING = 4


def canvas(background: Any) -> gr.ImageEditor:
    """The component: a white brush over a picture, in one layer."""
    return gr.ImageEditor(
        value=background,
        label="Draw over what is to be hidden",
        type="numpy",
        image_mode="RGBA",
        brush=gr.Brush(default_size=18, colors=["#ffffff"], color_mode="fixed"),
        layers=False,
        transforms=(),
        sources=(),
        height=340,
        interactive=True,
        elem_id="np-mask",
    )


def accept_blobs(editor: gr.ImageEditor, data: Any) -> None:
    """Keep the one layer that was drawn, until it is read; everything else that is sent is left alone."""
    about, (_, content) = data.data, data.files[0]
    if about.get("type") != "layer" or str(about.get("index")) != "0" or len(content) > MOST_BYTES:
        return
    while len(editor.blob_storage) >= MOST_WAITING:
        editor.blob_storage.pop(next(iter(editor.blob_storage)), None)
    editor.blob_storage[str(about.get("id"))[:64]] = EditorDataBlobs(background=None, layers=[content], composite=None)


def drawing(editor: gr.ImageEditor, payload: EditorData | None) -> dict[str, Any] | None:
    """The drawn layer as RGBA pixels; none when it is missing, larger than it can be, or no picture."""
    if payload is None:
        return None
    found: EditorData | EditorDataBlobs | None = payload
    if payload.id is not None:
        found = editor.blob_storage.pop(payload.id[:64], None)
    layers = [layer for layer in (found.layers if found else []) if layer is not None]
    pixels = []
    for source in layers[:1]:
        file = BytesIO(source) if isinstance(source, bytes) else source.path
        with contextlib.suppress(OSError, Image.DecompressionBombError), Image.open(file) as image:
            if max(image.size) <= MOST_SIDE:
                pixels.append(np.asarray(image.convert("RGBA")))
    return {"background": None, "layers": pixels, "composite": None}


# A subclass would need a front end of its own name.
accept_blobs._is_server_fn = True  # type: ignore[attr-defined]
gr.ImageEditor.accept_blobs = accept_blobs  # type: ignore[method-assign]
gr.ImageEditor.preprocess = drawing  # type: ignore[method-assign, assignment]
