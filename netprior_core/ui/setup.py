"""Changing an experiment one choice at a time: what the set-up column does, without the browser."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from netprior_core import examples
from netprior_core.errors import InvalidSettings
from netprior_core.experiment import MAX_LANES, Experiment, UploadedImage, parse
from netprior_core.methods import Method
from netprior_core.operators import Operator
from netprior_core.settings import Settings

DEFAULT_SET = "faces"
MAX_UPLOAD_SIDE = 1024  # uploads are reduced to this side before anything else happens
CHANGED = "changed by hand"


def change(experiment: Experiment, path: Sequence[str | int], value: Any) -> Experiment:
    """The experiment with one value replaced. Raises InvalidSettings when it no longer fits."""
    data = experiment.model_dump(mode="json")
    place: Any = data
    for part in path[:-1]:
        place = place[part]
    place[path[-1]] = value
    return parse(data)


def from_set(key: str, seed: int = 0) -> Experiment:
    """The set-up that choosing an embedded set fills in: its own, or a plain one for sets without."""
    found = examples.get(key)
    shots = {"source": "embedded", "set": key, "count": min(10, found.n_shots)}
    setup: dict[str, Any] = {
        "format": "netprior-experiment",
        "target": {"source": "embedded", "set": key, "index": 0},
        "shots": shots,
        "size": found.size,
        "channels": found.channels,
        "operator": {"kind": "denoising"},
        "noise": {"kind": "gaussian", "sigma": 25},
        "methods": [{"kind": "dip"}, {"kind": "adjoint"}],
        "seed": seed,
    }
    return parse({**setup, **found.setup})


def with_operator(experiment: Experiment, kind: str) -> Experiment:
    """Another operator at its defaults; every method takes the settings its paper uses for it."""
    operator = Operator.registry[kind]()
    methods = [method.suited(operator) for method in experiment.methods]
    changes: dict[str, Any] = {"operator": operator.model_dump(mode="json"), "methods": [m.model_dump(mode="json") for m in methods]}
    if not operator.measures_images:
        changes["target_is"] = "truth"
    return parse({**experiment.model_dump(mode="json"), **changes})


def with_method(experiment: Experiment, lane: int, kind: str | None) -> Experiment:
    """Put a method (at the settings suited to the operator) into a lane; None empties it. One lane always stays."""
    methods = [method.model_dump(mode="json") for method in experiment.methods]
    if kind is None:
        if lane < len(methods) and len(methods) > 1:
            del methods[lane]
    else:
        chosen = Method.registry[kind]().suited(experiment.operator).model_dump(mode="json")
        if lane < len(methods):
            methods[lane] = chosen
        elif len(methods) < MAX_LANES:
            methods.append(chosen)
    return change(experiment, ["methods"], methods)


def with_preset(experiment: Experiment, part: str, lane: int, name: str) -> Experiment:
    """A named preset for the operator (part "operator") or a lane's method (part "methods")."""
    current: Settings = experiment.operator if part == "operator" else experiment.methods[lane]
    if name not in type(current).presets:
        return experiment
    value = type(current).preset(name).model_dump(mode="json")
    return change(experiment, [part] if part == "operator" else [part, lane], value)


def with_uploads(experiment: Experiment, target: UploadedImage | None, shots: Sequence[UploadedImage] | None) -> Experiment:
    """The user's own target and shots (None leaves what is there)."""
    data = experiment.model_dump(mode="json")
    if target is not None:
        data["target"] = target.model_dump(mode="json")
    if shots is not None:
        data["shots"] = {"source": "upload", "images": [shot.model_dump(mode="json") for shot in shots]}
    return parse(data)


def check_size(experiment: Experiment, limit: int) -> None:
    """Raises InvalidSettings when the image is larger than this server allows."""
    if experiment.size > limit:
        raise InvalidSettings(
            f"Images of {experiment.size}×{experiment.size} are larger than this server allows ({limit}×{limit}). "
            "Choose a smaller size, or start the app with a larger --max-size."
        )


def reduced(array: np.ndarray) -> np.ndarray:
    """A float image with its longer side at most MAX_UPLOAD_SIDE, by whole-number block averages (no ringing)."""
    factor = -(-max(array.shape[:2]) // MAX_UPLOAD_SIDE)
    if factor == 1:
        return array
    h, w = (side // factor * factor for side in array.shape[:2])
    return array[:h, :w].reshape(h // factor, factor, w // factor, factor, -1).mean(axis=(1, 3))
