"""The live view: one custom ``gr.HTML`` component whose value is data and whose drawing is our own script.

The template is static, so that a new value never touches the canvases; messages arrive through ``watch('value')``. The style
sheet is put into the page once by the script: gradio would write ``css_template`` anew with every message.
"""

from __future__ import annotations

import inspect
import json
from abc import ABCMeta
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import gradio as gr

ASSETS = Path(__file__).resolve().parents[2] / "assets" / "live"
SCRIPTS = ("state", "words", "axes", "pictures", "strip", "tiles", "tools", "transport", "curves", "readout", "main")
PARTS = ("strip", "transport", "tools", "timeline", "curves")


@cache
def script() -> str:
    """The scripts of ``assets/live`` as one function body: ``element, trigger, props, server, watch`` are gradio's."""
    parts = "\n".join((ASSETS / f"{name}.js").read_text(encoding="utf-8") for name in SCRIPTS)
    style = json.dumps((ASSETS / "live.css").read_text(encoding="utf-8"))
    return f"""(() => {{
"use strict";
const STYLE = {style};
if (!document.getElementById("netprior-live")) {{
  const node = document.createElement("style");
  node.id = "netprior-live";
  node.textContent = STYLE;
  document.head.append(node);
}}
{parts}
start(element, trigger, props, server, watch);
}})();
// 'submit'
"""


def template() -> str:
    """The static skeleton. Raises ValueError if it holds what gradio would fill in: canvases must survive every value."""
    text = (ASSETS / "live.html").read_text(encoding="utf-8")
    for mark in ("${", "{{", "`", "\\"):
        if mark in text:
            raise ValueError(f"assets/live/live.html may not contain {mark!r}: gradio evaluates templates")
    return text


def pack(message: dict[str, Any] | None) -> str | None:
    """A message as the text that travels to the browser.

    Text, because gradio sends only the difference to the last yield, and its difference of nested lists that became shorter
    is wrong (a removal is shifted once per enclosing list): curves of one lane ended up in another.
    """
    return None if message is None else json.dumps(message, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def spread(function: Callable[..., Any]) -> Callable[..., Any]:
    """Let a script call ``server.NAME(a, b)`` of ``NAME(a, b)``: gradio hands several arguments over as one list.

    A parameter annotated ``gr.Request`` is filled with the request, as in any gradio handler.
    """
    parameters = inspect.signature(function).parameters
    wanted = [name for name, parameter in parameters.items() if parameter.annotation in (gr.Request, "gr.Request", "Request")]

    def call(data: Any, request: gr.Request) -> Any:
        arguments = data if isinstance(data, list) else [data]
        return function(*arguments, **dict.fromkeys(wanted, request))

    call.__name__ = function.__name__
    call.__doc__ = function.__doc__
    call.__annotations__ = {"data": Any, "request": gr.Request}  # gradio reads the types, not their names
    return call


def _postprocess(self: gr.HTML, value: dict[str, Any] | None) -> str | None:
    return pack(value)


# A class, and not an override on the instance: an update of the component (``gr.update(hide=…)``) makes a new instance of
# its class. Made without gradio's metaclass, which would write a .pyi file beside this one.
LiveView: type[gr.HTML] = ABCMeta.__new__(
    type(gr.HTML), "LiveView", (gr.HTML,), {"__module__": __name__, "postprocess": _postprocess}
)


def live_view(
    value: dict[str, Any] | None,
    server_functions: Sequence[Callable[..., Any]],
    hide: Sequence[str] = (),
) -> gr.HTML:
    """Strip, transport, tiles, timeline and curves.

    ``value`` is a message of type "setup", "race" or "recording" (or None); later ones come as outputs of a handler.
    ``server_functions`` are ``control(run, action)`` and ``frames(run, iteration)``, with plain arguments and, where wanted,
    one annotated ``gr.Request``. ``hide`` names parts a lesson leaves out. Pressing Run triggers ``submit``; the value is
    meant as an output only, since as an input every picture would travel back.
    Raises ValueError for an unknown part. The page needs :data:`netprior_core.ui.theme.CSS`.
    """
    unknown = sorted(set(hide) - set(PARTS))
    if unknown:
        raise ValueError(f"cannot hide {', '.join(unknown)}; the parts are {', '.join(PARTS)}")
    return LiveView(
        value=value,
        html_template=template(),
        css_template="",
        js_on_load=script(),
        apply_default_css=False,
        elem_id="live",
        elem_classes=["np-live"],
        server_functions=[spread(function) for function in server_functions],
        hide=list(hide),
    )
