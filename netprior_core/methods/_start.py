"""What a network starts from: one choice with the same name, words and order in every method that has it."""

from __future__ import annotations

from typing import Any

from netprior_core.settings import setting

#: Every start there is, in the order in which a method that knows several of them names them, and what it means.
STARTS = {
    "random": "untrained weights, drawn from the seed",
    "meta-learned": "weights from which few steps suffice, learned by fitting many pictures",
    "educated": "weights taught on many pairs of first picture and truth",
    "low-shot": "weights that have learned to draw a few examples",
}


def start_setting(default: str, *choices: str) -> Any:
    """The ``start`` field of a method that can start from ``choices``, in the order of STARTS. Raises ValueError otherwise."""
    if list(choices) != [name for name in STARTS if name in choices] or default not in choices:
        raise ValueError(f"starts are named in the order {', '.join(STARTS)}, not {', '.join(choices)}; default {default}")
    words = "; ".join(f"{name}: {STARTS[name]}" for name in choices)
    return setting(default, f"What the network starts from. {words}.", label="Start from", main=True)
