"""The README of the checkpoints folder, written from the cards in the files' headers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from netprior_core import priors
from netprior_core.errors import MissingPrior

_INTRODUCTION = """# Shipped priors

Small networks that let the examples start at once. Every file is safetensors (no pickle), stored in half precision; its header
holds the card shown here. NetPrior finds a file by its key, a hash of the training images and of every setting that the weights
depend on. A low-shot prior of an embedded set (coins, digits, faces, histology, phantoms) may be missing: its examples are then
learned live. Without one of the other files, what starts from it (MetaDIP, Educated DIP, the neural denoiser, the generators and
their projectors, the low-shot priors chosen by name) says in words that it cannot run. Each can be made again with the command in
its card.

PSNR in dB: images in [0, 1], estimate clipped, peak 1, mean squared error over all pixels and channels.
"""

#: Noises on [-1, 1] at which a projector is measured: the columns of its curve after step and minutes.
PROJECTOR_NOISES = (0.0, 0.1, 0.5, 1.0, 2.0, 4.0)
#: The metric of a GAN's card that says how near two sets of real images are.
GAN_FLOOR = "sliced Wasserstein distance × 1000 to held-out images, training images"
#: Metrics that are the curve in words, which has a row of its own.
_CURVES = ("mean on held-out pairs", "mean of all these")
#: Inner steps of a meta-learned start at which its curve is shown, and of how many sets of held-out pictures.
_INNER, _SETS = ("20", "50"), 2


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
            "Examples": _mirrored(card),
            "Note": card.get("note"),
            "Terms": card.get("terms"),
            "Loss": card.get("loss"),
            "Beside the paper": _published(card),
            "Training": f"{card.get('steps')} steps, seed {card.get('seed')}, {card.get('seconds')} s",
            "Measured": "; ".join(
                f"{name.replace('_', ' ')} {value}" for name, value in card.get("metrics", {}).items() if name not in _CURVES
            ),
            "Curve": _curve(card),
            "Samples": _samples(path),
            "Made by": f"`{card.get('command')}`",
            "Key": f"`{card.get('key')}`",
        }
        parts.append("\n".join(f"- **{name}**: {value}" for name, value in rows.items() if value) + "\n")
    target = folder / "README.md"
    target.write_text("\n".join(parts), encoding="utf-8")
    return target


def _samples(path: Path) -> str:
    """A link to the sheet of samples that is kept in ``assets`` beside the folder; empty where there is none."""
    name = f"{path.stem.replace('-', '_')}_samples.png"
    return f"[drawn at random](../assets/{name})" if (path.parent.parent / "assets" / name).is_file() else ""


def thinned(points: Sequence[Any], most: int = 6) -> list[Any]:
    """At most so many of the points, evenly, the first and the last among them."""
    if len(points) <= most:
        return list(points)
    return [points[round(i * (len(points) - 1) / (most - 1))] for i in range(most)]


def _mirrored(card: dict[str, Any]) -> str:
    """How many examples there were, when their mirror images were learned too."""
    mirrored = card.get("mirrored", card.get("settings", {}).get("mirror"))
    return f"{card['shots']:,} and their mirror images" if mirrored and "shots" in card else ""


def _published(card: dict[str, Any]) -> str:
    """How a meta-learned start differs from the published one."""
    kind, side = card.get("settings", {}).get("kind"), card.get("shape", [0])[-1]
    if kind == "metadip":
        return f"learned on crops of {side}×{side}, the paper's on 128×128 (CelebA)"
    if kind == "metasiren":
        own = f"{card.get('layers')} layers of {card.get('width')} units, ω0 = {card.get('omega')}"
        published = "the paper's on 128×128 (CelebA), with learnit's 5 layers of 256 units, ω0 = 200"
        return f"learned on faces of {side}×{side}, with {own}; {published}"
    return ""


def _curve(card: dict[str, Any]) -> str:
    """A few points of the curve of quality over the training, in words; empty where the card has none."""
    method, points = card.get("method"), thinned(card.get("curve", []))
    if shots := thinned(card.get("curve_of_shots_psnr", [])):
        return "PSNR of the shots as drawn " + ", ".join(f"{psnr:g} dB at {step:,}" for step, psnr in shots)
    if history := thinned(card.get("validation", [])):
        return _validation(history)
    if method == "gan" and points:
        words = ", ".join(f"{distance:g} after {_when(minutes, step)}" for step, minutes, distance in points)
        floor = card.get("metrics", {}).get(GAN_FLOOR)
        real = f"; between two sets of real images {floor:g}" if floor else ""
        return f"sliced Wasserstein distance × 1000 to held-out images {words}{real}"
    if method == "projector" and points:
        noises = " / ".join(f"{noise:g}" for noise in PROJECTOR_NOISES)
        words = ", ".join(f"{_each(values)} dB after {_when(minutes, step)}" for step, minutes, *values in points)
        return f"PSNR of G(G†(G(z) + ν)) at noise {noises}: {words}"
    if method in ("edip", "denoiser") and points:
        words = ", ".join(f"{psnr:.2f} dB after {_when(minutes, step)}" for minutes, step, psnr in points)
        return f"mean PSNR over the held-out pictures {words}"
    return ""


def _validation(history: Sequence[dict[str, Any]]) -> str:
    """The curve of a meta-learned start: PSNR after some inner steps, over the first sets of held-out pictures."""
    first = history[0]["psnr"]
    words = []
    for name in list(first)[:_SETS]:
        inner = [k for k in _INNER if k in first[name]] or list(first[name])[-1:]
        values = ", ".join(
            f"{_each(entry['psnr'][name][k] for k in inner)} dB after {_when(round(entry['seconds'] / 60, 1), entry['step'])}"
            for entry in history
        )
        words.append(f"{name}, PSNR after {' / '.join(inner)} inner steps: {values}")
    return "; ".join(words)


def _each(values: Iterable[float]) -> str:
    return " / ".join(f"{value:.2f}" for value in values)


def _when(minutes: float, step: int) -> str:
    return f"{minutes:g} min (step {step:,})"
