"""The README of the checkpoints folder, written from the cards in the files' headers."""

from __future__ import annotations

from pathlib import Path

from netprior_core import priors
from netprior_core.errors import MissingPrior

_INTRODUCTION = """# Shipped priors

Small networks that let the examples start at once. Every file is safetensors (no pickle), stored in half precision; its header
holds the card shown here. NetPrior finds a file by its key, a hash of the training images and of every setting that the weights
depend on, so a file may be missing or deleted: what it held is then learned live. Each can be made again with the command in its
card.

PSNR in dB: images in [0, 1], estimate clipped, peak 1, mean squared error over all pixels and channels.
"""


def write_readme(folder: Path) -> Path:
    """Write ``README.md`` with a card for every readable checkpoint in the folder."""
    parts = [_INTRODUCTION]
    for path in sorted(folder.glob("*.safetensors")):
        try:
            card = priors.load(path).card
        except MissingPrior:  # no checkpoint of ours: a state that training resumes from, say
            continue
        size = path.stat().st_size / 2**20
        parts.append(f"## {path.name}\n")
        rows = {
            "What": card.get("title"),
            "Network": f"{card.get('network')}, images {'×'.join(map(str, card.get('shape', [])))}, {size:.2f} MiB",
            "Trained on": card.get("data"),
            "Terms": card.get("terms"),
            "Training": f"{card.get('steps')} steps, seed {card.get('seed')}, {card.get('seconds')} s",
            "Measured": "; ".join(f"{name.replace('_', ' ')} {value}" for name, value in card.get("metrics", {}).items()),
            "Curve": _curve(card.get("curve_of_shots_psnr", [])),
            "Made by": f"`{card.get('command')}`",
            "Key": f"`{card.get('key')}`",
        }
        parts.append("\n".join(f"- **{name}**: {value}" for name, value in rows.items() if value) + "\n")
    target = folder / "README.md"
    target.write_text("\n".join(parts), encoding="utf-8")
    return target


def _curve(points: list[list[float]]) -> str:
    """Six points of a curve of the shots' PSNR, in words."""
    few = points[:: max(1, len(points) // 5)]
    few = few if few[-1:] == points[-1:] else [*few, points[-1]]
    return "PSNR of the shots as drawn " + ", ".join(f"{psnr:g} dB at {step:,}" for step, psnr in few) if few else ""
