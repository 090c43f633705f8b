"""Settings of the plug-and-play methods for each operator."""

from __future__ import annotations

from typing import Any

#: By method, then by the operator's kind.
TUNED: dict[str, dict[str, dict[str, Any]]] = {"pnp-admm": {}, "dpir": {}, "red": {}}
