"""The server's state and the set-up column, without a browser."""

from __future__ import annotations

import gradio as gr
import pytest
import torch

from netprior_core.ui.column import Column
from netprior_core.ui.session import App


@pytest.fixture
def app() -> App:
    return App(torch.device("cpu"), 64, fps=50)


@pytest.fixture
def column(app: App) -> Column:
    with gr.Blocks():
        column = Column(app)
        column.build()
        column.live = gr.HTML()
        column.wire([])
    return column
