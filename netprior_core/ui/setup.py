"""Changing an experiment one choice at a time: what the set-up column does, without the browser."""

from __future__ import annotations

import contextlib
import html
from collections.abc import Sequence
from typing import Any

import numpy as np

from netprior_core import examples, priors
from netprior_core.errors import BadImage, InvalidSettings, MissingPrior
from netprior_core.experiment import MAX_LANES, Experiment, UploadedArray, UploadedImage, parse
from netprior_core.methods import Method
from netprior_core.methods._tunable import Tunable
from netprior_core.noise import GaussianNoise
from netprior_core.operators import Operator
from netprior_core.settings import Settings
from netprior_core.setups import SETUPS
from netprior_core.stopping import StoppingRule

DEFAULT_SET = "histology"
MAX_UPLOAD_SIDE = 1024  # uploads are reduced to this side before anything else happens
CHANGED = "changed by hand"
OWN = "as in this example"
DEFAULTS = "default"


def change(experiment: Experiment, path: Sequence[str | int], value: Any) -> Experiment:
    """The experiment with one value replaced. Raises InvalidSettings when it no longer fits.

    A method one of whose settings is replaced is no longer as a search with the truth in sight has left it, and one that was left
    so for another problem goes back to its settings (:func:`_parsed`).
    """
    data = experiment.model_dump(mode="json")
    place: Any = data
    for part in path[:-1]:
        place = place[part]
    place[path[-1]] = value
    if path[0] == "methods" and len(path) > 2:
        place.pop("tuned_on", None)
    return _parsed(experiment, data)


def same_problem(one: Experiment, other: Experiment) -> bool:
    """Whether a search on one of them, with its truth in sight, says anything of the other: the same A, noise and picture."""
    parts = ["target", "target_is", "size", "channels", "operator", "noise", "mismatch", "seed"]
    parts += ["shots"] if other.operator.needs_shots else []
    return all(getattr(one, part) == getattr(other, part) for part in parts)


def given_up(before: Experiment, after: Experiment) -> list[int]:
    """Lanes whose settings had been searched on the problem before, which the one after is not any more."""
    if same_problem(before, after):
        return []
    lanes = enumerate(zip(before.methods, after.methods, strict=False))
    return [lane for lane, (old, new) in lanes if before.tuned(old) and old.kind == new.kind and not after.tuned(new)]


def _parsed(before: Experiment, data: dict[str, Any]) -> Experiment:
    """What a change made of ``before``. Raises InvalidSettings when it no longer fits.

    A weight that was searched for one A, noise and picture may be far off for others, and the mark would name the wrong ones: with
    another problem, methods that carry it go back to the settings they have by themselves.
    """
    after = parse(data)
    if same_problem(before, after):
        return after
    methods = tuple(one.untuned(after.operator) if isinstance(one, Tunable) else one for one in after.methods)
    return after.model_copy(update={"methods": methods})


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
    return parse({**setup, **SETUPS.get(key, {})})


def with_operator(experiment: Experiment, kind: str) -> Experiment:
    """Another operator at its defaults; every method takes the settings its paper uses for it. The one in use stays as it is."""
    if kind == experiment.operator.kind:  # a list that was only looked at reports its value, too
        return experiment
    operator = Operator.registry[kind]()
    methods = [method.suited(operator) for method in experiment.methods]
    changes: dict[str, Any] = {
        "operator": operator.model_dump(mode="json"),
        "methods": [m.model_dump(mode="json") for m in methods],
    }
    if experiment.mismatch.operator_error and not operator.error_means:
        changes["mismatch"] = {**experiment.mismatch.model_dump(mode="json"), "operator_error": 0.0}
    if experiment.mismatch.finer_grid and not operator.simulates_finer:
        changes["mismatch"] = {**changes.get("mismatch", experiment.mismatch.model_dump(mode="json")), "finer_grid": False}
    quiet = isinstance(experiment.noise, GaussianNoise) and not experiment.noise.sigma
    if kind == "denoising" and quiet and all(method.compare == "psnr" for method in experiment.methods):
        changes["noise"] = GaussianNoise(sigma=25).model_dump(mode="json")  # else there is nothing to denoise
    if not operator.measures_images:
        if experiment.target.source != "array":
            changes["target_is"] = "truth"
        if isinstance(experiment.noise, GaussianNoise):
            changes["noise"] = experiment.noise.model_copy(update={"clip": False}).model_dump(mode="json")
    return _parsed(experiment, {**experiment.model_dump(mode="json"), **changes})


def with_noise(experiment: Experiment, kind: str) -> Experiment:
    """Another noise model, at its defaults. The one in use stays as it is."""
    if kind == experiment.noise.kind:
        return experiment
    return change(experiment, ["noise"], {"kind": kind})


def prior_choices(kind: str, chosen: str, learned: Sequence[str] = ()) -> list[tuple[str, str]]:
    """(title, name) of what a kind of method takes unasked, and of what it can use by name: shipped priors, those that were
    ``learned`` in this tab and are still kept, and the one chosen.
    """
    few = ("lowshot-*.safetensors",)
    unasked, patterns = (
        ("learn from the examples", few)
        if kind in ("low-shot", "cs-dip")
        else ("the GAN for this size", ("gan-*.safetensors", *few))
    )
    found = [(unasked, "")]
    for path in (path for pattern in patterns for path in sorted(priors.CHECKPOINTS.glob(pattern))):
        with contextlib.suppress(MissingPrior):
            card = priors.card_of(path)
            if card.get("name") == path.stem:
                found.append((str(card.get("title", path.stem))[:80], path.stem))
    found += [(f"learned here: {priors.title_of(name)}", name) for name in learned if priors.where(name) is not None]
    if chosen and chosen not in [name for _, name in found]:
        found.append((f"your file: {priors.title_of(chosen)}", chosen))
    return found


def with_rules(experiment: Experiment, kinds: Sequence[str]) -> Experiment:
    """These stopping rules watch; those that did already keep their settings. None stops a method that does not watch."""
    known = {rule.kind: rule.model_dump(mode="json") for rule in experiment.stopping}
    data = experiment.model_dump(mode="json")
    data["stopping"] = [known.get(kind, {"kind": kind}) for kind in kinds]
    if experiment.stop_by not in kinds:
        data["stop_by"] = ""
    return parse(data)


def with_stop_by(experiment: Experiment, kind: str | None) -> Experiment:
    """This rule really stops the methods ("": none does); one that did not watch yet does so now."""
    data = experiment.model_dump(mode="json")
    if kind and kind not in [rule.kind for rule in experiment.stopping]:
        data["stopping"] = [*data["stopping"], {"kind": kind}]
    return parse({**data, "stop_by": kind or ""})


def stop_choices() -> list[tuple[str, str]]:
    """What may stop the methods, as (label, value)."""
    return [("the last iteration", ""), *((rule.title, rule.model_fields["kind"].default) for rule in StoppingRule.registry)]


def with_method(experiment: Experiment, kind: str | None, *, lane: int) -> Experiment:
    """Put a method (at the settings suited to the operator) into a lane; "" empties it. One lane always stays.

    The method that is there stays as it is.
    """
    if lane < len(experiment.methods) and kind == experiment.methods[lane].kind:
        return experiment
    methods = [method.model_dump(mode="json") for method in experiment.methods]
    if not kind:
        if lane < len(methods) and len(methods) > 1:
            del methods[lane]
    else:
        chosen = Method.registry[kind]().at_hand().suited(experiment.operator).model_dump(mode="json")
        if lane < len(methods):
            methods[lane] = chosen
        elif len(methods) < MAX_LANES:
            methods.append(chosen)
    return change(experiment, ["methods"], methods)


def with_preset(experiment: Experiment, name: str, *, lane: int) -> Experiment:
    """A named preset for a lane's method; any other name changes nothing."""
    cls = type(experiment.methods[lane])
    if name == OWN and (own := _own(experiment, lane)) is not None:
        return change(experiment, ["methods", lane], own.model_dump(mode="json"))
    if name == DEFAULTS:
        return change(experiment, ["methods", lane], cls(kind=experiment.methods[lane].kind).at_hand().model_dump(mode="json"))
    if name not in cls.presets:
        return experiment
    return change(experiment, ["methods", lane], cls.preset(name).at_hand().model_dump(mode="json"))


def with_tuned(experiment: Experiment, *, lane: int, began: Experiment, found: Method) -> Experiment:
    """What a search that began with ``began`` has found for a lane's method.

    Raises InvalidSettings when the problem or these settings were changed meanwhile: then it was found for something else.
    """
    same = experiment.model_copy(update={"methods": began.methods}) == began
    if not same or experiment.methods[lane : lane + 1] != began.methods[lane : lane + 1]:
        raise InvalidSettings("The set-up was changed during the search, so what it found was left out. Tune once more.")
    return change(experiment, ["methods", lane], found.model_dump(mode="json"))


def preset_choices(experiment: Experiment, lane: int) -> tuple[list[str], str]:
    """(names of a lane's presets, the one in use): "default" is always there, "changed by hand" and "tuned" only when it is so."""
    method = experiment.methods[lane]
    cls = type(method)
    names = list(cls.presets)
    if not any(_untouched(cls.preset(name)) for name in names):
        names.append(DEFAULTS)
    at_hand = next((name for name in cls.presets if cls.preset(name).at_hand() == method), None)
    untouched = _untouched(method) or method == cls(kind=method.kind).at_hand()
    own = _own(experiment, lane)
    if own is not None and own.preset_name() is None and not _untouched(own):
        names.append(OWN)
    used = experiment.tuned(method) or method.preset_name() or at_hand
    used = used or (DEFAULTS if untouched else OWN if method == own else CHANGED)
    return [*names, *([used] if used not in names else [])], used


def _own(experiment: Experiment, lane: int) -> Method | None:
    """The settings that the embedded set's own set-up has for a lane's method, there or in the first lane that has it, or None."""
    kind = experiment.methods[lane].kind
    known = SETUPS.get(set_key(experiment), {}).get("methods", [])
    own = next((one for one in [*known[lane : lane + 1], *known] if one["kind"] == kind), None)
    return None if own is None else Method.registry.parse(own)


def _untouched(settings: Settings) -> bool:
    return all(getattr(settings, f.name) == f.default for f in settings.fields())


def with_uploads(
    experiment: Experiment, target: UploadedImage | UploadedArray | None, shots: Sequence[UploadedImage] | None
) -> Experiment:
    """The user's own target and shots (None leaves what is there). An array of numbers can only be a measurement."""
    data = experiment.model_dump(mode="json")
    if target is not None:
        data["target"] = target.model_dump(mode="json")
        if target.source == "array":
            data["target_is"] = "measurement"
        elif experiment.target.source == "array":
            data["target_is"] = "truth"
    if shots is not None:
        data["shots"] = {"source": "upload", "images": [shot.model_dump(mode="json") for shot in shots]}
    return _parsed(experiment, data)


def without_uploads(experiment: Experiment, *, target: bool = False, shots: bool = False) -> Experiment:
    """The embedded set's own target, or shots, in place of the person's."""
    data, key = experiment.model_dump(mode="json"), set_key(experiment)
    if target and experiment.target.source != "embedded":
        data |= {"target": {"source": "embedded", "set": key, "index": 0}, "target_is": "truth"}
    if shots and experiment.shots.source != "embedded":
        data["shots"] = {"source": "embedded", "set": key, "count": min(10, examples.get(key).n_shots)}
    return _parsed(experiment, data)


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
    if min(array.shape[:2]) < factor:
        raise BadImage(f"This picture of {array.shape[1]}×{array.shape[0]} is too long and thin to be made smaller: crop it first.")
    h, w = (side // factor * factor for side in array.shape[:2])
    return array[:h, :w].reshape(h // factor, factor, w // factor, factor, -1).mean(axis=(1, 3))


def with_target(experiment: Experiment, index: int | str | None) -> Experiment:
    """Another held-out target of the embedded set."""
    if not isinstance(index, int):
        return experiment
    data = experiment.model_dump(mode="json")
    data["target"] = {"source": "embedded", "set": set_key(experiment), "index": index}
    if experiment.target.source == "array":
        data["target_is"] = "truth"
    return _parsed(experiment, data)


def with_count(experiment: Experiment, count: float) -> Experiment:
    """Another number of embedded shots."""
    if experiment.shots.source != "embedded":
        return experiment
    return change(experiment, ["shots", "count"], int(count))


def set_key(experiment: Experiment) -> str:
    """The embedded set in use: the shots', else the target's, else the default one."""
    for part in (experiment.shots, experiment.target):
        if part.source == "embedded":
            return part.set
    return DEFAULT_SET


def shot_counts(experiment: Experiment) -> tuple[int, int]:
    """(shots that the embedded set has, shots in use)."""
    if experiment.shots.source == "upload":
        return 0, len(experiment.shots.images)
    available = examples.get(experiment.shots.set).n_shots
    return available, min(available, experiment.shots.count)


def target_choices(experiment: Experiment) -> tuple[list[tuple[str, int | str]], int | str]:
    """Choices of the target control as (label, value), and the value in use."""
    names = examples.get(set_key(experiment)).target_names
    choices: list[tuple[str, int | str]] = list(zip(names, range(len(names)), strict=True))
    if experiment.target.source != "embedded":
        what = "image" if experiment.target.source == "upload" else "measurement"
        label = f"your {what}: {experiment.target.name or 'uploaded'}"
        return [*choices, (label, "upload")], "upload"
    return choices, experiment.target.index


def blurb(experiment: Experiment) -> str:
    """One line on the set in use (HTML), or on the user's own images."""
    if experiment.shots.source == "upload":
        count = len(experiment.shots.images)
        return f"<p>Your own images: {count} shot{'' if count == 1 else 's'}.</p>"
    found = examples.get(experiment.shots.set)
    return f"<p><b>{html.escape(found.title)}.</b> {html.escape(found.blurb)} <small>{html.escape(found.credit)}</small></p>"
