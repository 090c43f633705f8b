"""The canvas for masks takes one small layer, whatever it is sent."""

from __future__ import annotations

import io
from types import SimpleNamespace
from typing import Any

import gradio as gr
import numpy as np
import pytest
from gradio.components.image_editor import EditorData
from gradio.data_classes import FileData
from PIL import Image

from netprior_core.ui import canvas as bounded


def _png(side: int, colour: int = 255) -> bytes:
    found = io.BytesIO()
    Image.new("LA", (side, side), (colour, 255)).save(found, "PNG")
    return found.getvalue()


def _sent(editor: gr.ImageEditor, content: bytes, *, kind: str = "layer", index: Any = "0", name: str = "a") -> None:
    editor.accept_blobs(SimpleNamespace(data={"type": kind, "index": index, "id": name}, files=[("file", content)]))  # type: ignore[arg-type]


@pytest.fixture
def editor() -> gr.ImageEditor:
    with gr.Blocks():
        return bounded.canvas(None)


def test_a_drawn_layer_is_read_once(editor: gr.ImageEditor) -> None:
    assert "accept_blobs" in editor.get_config()["server_fns"]
    for kind in ("background", "layer", "composite"):
        _sent(editor, _png(64), kind=kind)
    found = editor.preprocess(EditorData(id="a"))
    assert found is not None
    assert [layer.shape for layer in found["layers"]] == [(64, 64, 4)]  # type: ignore[union-attr]
    assert (found["background"], found["composite"]) == (None, None)
    assert editor.preprocess(EditorData(id="a")) == {"background": None, "layers": [], "composite": None}
    assert editor.preprocess(None) is None


def test_nothing_large_is_kept_or_decoded(editor: gr.ImageEditor, monkeypatch: pytest.MonkeyPatch) -> None:
    _sent(editor, b"", index="50000000")
    _sent(editor, bytes(bounded.MOST_BYTES + 1))
    assert not editor.blob_storage
    for i in range(20):
        _sent(editor, _png(8), name=str(i))
    assert list(editor.blob_storage) == ["16", "17", "18", "19"]
    _sent(editor, _png(bounded.MOST_SIDE + 1), name="large")
    _sent(editor, b"no picture", name="broken")
    monkeypatch.setattr(np, "asarray", lambda _: pytest.fail("decoded"))
    for name in ("large", "broken"):
        assert editor.preprocess(EditorData(id=name))["layers"] == []  # type: ignore[index]


def test_a_layer_that_comes_as_a_file_has_the_same_bounds(editor: gr.ImageEditor, tmp_path: Any) -> None:
    for side, count in ((32, 1), (bounded.MOST_SIDE + 1, 0)):
        path = tmp_path / f"{side}.png"
        path.write_bytes(_png(side))
        found = editor.preprocess(EditorData(layers=[FileData(path=str(path))]))
        assert found is not None
        assert len(found["layers"]) == count
