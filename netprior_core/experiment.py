"""Experiment: a whole run as one JSON document, and the problem it stands for.

The same document gives the same trajectory in the browser, on the command line and in a test: everything random comes from
its ``seed``. Uploaded images are named by the SHA-256 of their pixels and travel beside the document (see ``recording``).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, Protocol

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from netprior_core import examples
from netprior_core.errors import InvalidSettings
from netprior_core.images import fit
from netprior_core.methods import AnyMethod, Method
from netprior_core.methods._tunable import Tunable
from netprior_core.mismatch import Mismatch
from netprior_core.noise import AnyNoise, GaussianNoise
from netprior_core.operators import AnyOperator, ForwardModel
from netprior_core.problem import Problem, Shape
from netprior_core.race import Race, Schedule
from netprior_core.settings import explain
from netprior_core.stopping import AnyRule

FORMAT = "netprior-experiment"
VERSION = 1
MAX_LANES = 4
MAX_SHOTS = 100
MAX_SEEDS = 16
MAX_RULES = 6
TUNED, TUNED_ELSEWHERE = "tuned on this image (peeks at the truth)", "tuned on another image"
MAX_BYTES = 2 * 1024 * 1024  # an experiment is small, even with a drawn mask

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$", description="SHA-256 of the pixels, see recording.digest")]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class EmbeddedTarget(_Record):
    """A held-out image of an embedded set."""

    source: Literal["embedded"] = "embedded"
    set: str = Field(max_length=40)
    index: int = Field(0, ge=0, le=999)


class UploadedImage(_Record):
    """An image the user gave, by the digest of its pixels."""

    source: Literal["upload"] = "upload"
    sha256: Digest
    name: str = Field("", max_length=80)


class UploadedArray(_Record):
    """A measurement the user made: an array of numbers, by its digest."""

    source: Literal["array"] = "array"
    sha256: Digest
    name: str = Field("", max_length=80)


class EmbeddedShots(_Record):
    """The first ``count`` shots of an embedded set."""

    source: Literal["embedded"] = "embedded"
    set: str = Field(max_length=40)
    count: int = Field(10, ge=0, le=MAX_SHOTS)


class UploadedShots(_Record):
    """Images the user gave as examples."""

    source: Literal["upload"] = "upload"
    images: tuple[UploadedImage, ...] = Field((), max_length=MAX_SHOTS)


class Images(Protocol):
    """Where uploads are found by digest: images as 8-bit ``(H, W)`` or ``(H, W, 3)`` pixels, measurements as float32 or
    complex64 arrays; KeyError when there is none."""

    def __getitem__(self, sha256: str, /) -> np.ndarray: ...


class Experiment(_Record):
    """Target, shots, operator, noise, methods, seed and schedule of one run."""

    format: Literal["netprior-experiment"] = "netprior-experiment"
    version: int = Field(VERSION, ge=1, le=VERSION)
    target: Annotated[EmbeddedTarget | UploadedImage | UploadedArray, Field(discriminator="source")]
    target_is: Literal["truth", "measurement"] = "truth"
    shots: Annotated[EmbeddedShots | UploadedShots, Field(discriminator="source")] = UploadedShots()
    size: int = Field(64, ge=16, le=1024, description="Side of the square image in pixels.")
    channels: Literal[1, 3] = 3
    operator: AnyOperator
    noise: AnyNoise = GaussianNoise()
    mismatch: Mismatch = Mismatch()
    methods: tuple[AnyMethod, ...] = Field(min_length=1, max_length=MAX_LANES)
    seed: int = Field(0, ge=0, le=2**31 - 1)
    seeds: int = Field(1, ge=1, le=MAX_SEEDS, description="Independent runs of every method, for a median and its spread.")
    schedule: Schedule = "iteration"
    stopping: tuple[AnyRule, ...] = Field((), max_length=MAX_RULES, description="Stopping rules that watch every method.")
    stop_by: str = Field("", max_length=40, description="The rule that really stops a method, by its kind; empty: none does.")

    @model_validator(mode="after")
    def _methods_know_the_operator(self) -> Experiment:
        """Settings of a method that were not given become those for the operator here, so that everyone sees what is used."""
        # The one place that writes into a frozen record, which nobody has seen yet.
        self.__dict__["methods"] = tuple(method.completed(self.operator) for method in self.methods)
        return self

    @model_validator(mode="after")
    def _goes_together(self) -> Experiment:
        if self.target.source == "array":
            if self.target_is != "measurement":
                raise ValueError("an array of numbers is a measurement, not a picture: set the target to be the measurement itself")
        elif self.target_is == "measurement" and not self.operator.measures_images:
            raise ValueError(
                f"a picture cannot be the measurement of {self.operator.title.lower()}: "
                "only operators whose measurement is itself a picture can take one. Upload it as an array of numbers (.npy)"
            )
        if self.mismatch.finer_grid and self.target_is == "measurement":
            raise ValueError("a measurement of your own is not simulated: “finer grid” has no meaning for it. Switch it off")
        if isinstance(self.noise, GaussianNoise) and self.noise.clip and not self.operator.measures_images:
            raise ValueError(f"the measurement of {self.operator.title.lower()} is not a picture: it cannot be clipped to [0, 1]")
        return self

    @model_validator(mode="after")
    def _sets_are_known(self) -> Experiment:
        for part in (self.target, self.shots):
            if isinstance(part, (EmbeddedTarget, EmbeddedShots)):
                try:
                    examples.get(part.set)
                except InvalidSettings as error:
                    raise ValueError(str(error).rstrip(".")) from None
        return self

    @model_validator(mode="after")
    def _rules_go_together(self) -> Experiment:
        kinds = [rule.kind for rule in self.stopping]
        if len(set(kinds)) < len(kinds):
            raise ValueError("a stopping rule is named twice; each can watch only once")
        if self.stop_by and self.stop_by not in kinds:
            raise ValueError("the rule that is to stop the methods must be one of those that watch them")
        if {"held-out", "sure"} <= set(kinds):
            raise ValueError("held-out measurements and SURE cannot watch the same run: both change it. Choose one of them")
        return self

    @property
    def shape(self) -> Shape:
        """(C, H, W) of the unknown image."""
        return (self.channels, self.size, self.size)

    def to_json(self) -> str:
        """The document as indented JSON."""
        return json.dumps(self.model_dump(mode="json"), indent=1, ensure_ascii=False)

    def lanes(self) -> list[tuple[Method, str, str]]:
        """(method, name, detail) of every lane; names that would be equal are numbered."""
        titles = [method.label() for method in self.methods]
        lanes = []
        for i, method in enumerate(self.methods):
            name = titles[i] if titles.count(titles[i]) == 1 else f"{titles[i]} {titles[: i + 1].count(titles[i])}"
            lanes.append((method, name, ": ".join(filter(None, [self.tuned(method), describe_settings(method)]))))
        return lanes

    def tuned(self, method: Method) -> str:
        """Words for settings that were searched with the truth in sight, and whether it was this target's; "" for others."""
        if not isinstance(method, Tunable) or not method.tuned_on:
            return ""
        return TUNED if method.tuned_on == target_name(self.target) else TUNED_ELSEWHERE


def target_name(target: EmbeddedTarget | UploadedImage | UploadedArray) -> str:
    """A name for a target, the same whatever its size: "coins/2", or the digest of an upload."""
    return f"{target.set}/{target.index}" if isinstance(target, EmbeddedTarget) else target.sha256


def uploads_of(experiment: Experiment) -> set[str]:
    """Digests of the uploads that an experiment names."""
    found = set() if isinstance(experiment.target, EmbeddedTarget) else {experiment.target.sha256}
    if isinstance(experiment.shots, UploadedShots):
        found |= {shot.sha256 for shot in experiment.shots.images}
    return found


def describe_settings(method: Method) -> str:
    """The preset's name with its iterations, or what differs from the nearest thing to it: the defaults."""
    preset = method.preset_name()
    if preset:
        said = method.total is None or re.search(r"\d iter", preset)
        return preset if said else f"{preset}, {method.total:,} it"
    changed = [(f, getattr(method, f.name)) for f in method.fields() if getattr(method, f.name) != f.default]
    return ", ".join(setting_words(f.label, value) for f, value in changed[:3]) or "default settings"


def setting_words(label: str, value: Any) -> str:
    """A setting by its label with its value, within a sentence: "weight λ 0.012", "no start from x = 0"."""
    label = label[:1].lower() + label[1:] if label[1:2].islower() else label
    if isinstance(value, bool):
        return label if value else f"no {label}"
    return f"{label} {value:,g}" if isinstance(value, (int, float)) else f"{label} {value}"


def parse(text: str | bytes | Mapping[str, Any]) -> Experiment:
    """An experiment from JSON. Raises InvalidSettings, in words, for anything that is not one: tampered, too new, too large."""
    if isinstance(text, Mapping):
        data: Any = dict(text)
    else:
        if len(text) > MAX_BYTES:
            raise InvalidSettings("This experiment file is larger than 2 MB: it is not one that NetPrior wrote.")
        try:
            data = json.loads(text)
        except (ValueError, RecursionError):
            raise InvalidSettings("This is not an experiment file: it is not valid JSON.") from None
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise InvalidSettings("This is not an experiment file: it does not say that it is one ('format' is missing or different).")
    version = data.get("version", VERSION)
    if isinstance(version, int) and version > VERSION:
        raise InvalidSettings(
            f"This experiment has version {version}, and this NetPrior knows version {VERSION}. "
            "It was made by a newer NetPrior: update to open it."
        )
    try:
        return Experiment.model_validate(data)
    except ValidationError as error:
        raise InvalidSettings(explain(error, "This experiment does not fit")) from None


def derive(seed: int, use: str) -> int:
    """An independent seed for one use ("operator", "noise", "method") of an experiment's seed."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{use}".encode()).digest()[:7], "big")


def build(experiment: Experiment, images: Images, device: torch.device | str = "cpu") -> tuple[Problem, torch.Tensor | None]:
    """The problem and the ground truth (None when the user's picture is the measurement), on ``device``.

    Raises InvalidSettings when the parts do not go together or an uploaded image is not at hand.
    """
    shape, operator, mismatch = experiment.shape, experiment.operator, experiment.mismatch
    operator.require(shape)
    mismatch.require(operator)
    shots = shot_images(experiment, images)
    common: dict[str, Any] = {"seed": derive(experiment.seed, "operator"), "device": device, "dtype": torch.float32}
    model = operator.build(shape, shots=shots, **common)
    truth: torch.Tensor | None = None
    if experiment.target_is == "truth":
        truth = target_image(experiment, images).to(device)
        noise_seed = derive(experiment.seed, "noise")
        if mismatch.finer_grid:
            finer = target_image(experiment.model_copy(update={"size": 2 * experiment.size}), images).to(device)
            finer = _at_the_contrast_of(truth, finer)
            measurement = operator.build_finer(shape, **common).measure(finer, experiment.noise, seed=noise_seed)
        else:
            measurement = model.measure(truth, experiment.noise, seed=noise_seed)
    else:
        measurement = _measured(experiment, images, model, torch.device(device))
    if mismatch.operator_error:
        model = operator.build(shape, shots=shots, error=mismatch.operator_error, **common)
    noise_std = model.noise_std(experiment.noise, measurement)
    problem = Problem(
        measurement=measurement,
        model=model,
        operator=operator,
        noise=experiment.noise,
        noise_std=None if noise_std is None else noise_std * mismatch.noise_factor,
        shape=shape,
        shots=shots.to(device) if len(shots) else None,
    )
    return problem, truth


def _at_the_contrast_of(truth: torch.Tensor, finer: torch.Tensor) -> torch.Tensor:
    """The same object at twice the sides, at the contrast and brightness of ``truth``, so that nothing but the grid differs.

    A generated phantom is brought to [0, 1] at the size that it is drawn at: by a quarter more or less at another. Least squares
    on the coarse grid.
    """
    average = torch.nn.functional.avg_pool2d(finer, 2)
    apart, wanted = average - average.mean(), truth - truth.mean()
    slope = (apart * wanted).sum() / apart.square().sum().clamp_min(1e-12)
    return truth.mean() + slope * (finer - average.mean())


def target_image(experiment: Experiment, images: Images) -> torch.Tensor:
    """The ground truth ``(1, C, size, size)`` in [0, 1]: centre-cropped, resized, at 8-bit levels."""
    target = experiment.target
    if isinstance(target, UploadedArray):
        raise InvalidSettings("The target is an array of numbers: it has no picture.")
    if isinstance(target, UploadedImage):
        return fit(_uploaded(images, target), experiment.size, experiment.channels)
    found = examples.get(target.set)
    if target.index >= found.n_targets:
        raise InvalidSettings(f"The set '{target.set}' has {found.n_targets} targets; there is no number {target.index}.")
    return found.targets(experiment.size, experiment.channels)[target.index][None]


def shot_images(experiment: Experiment, images: Images) -> torch.Tensor:
    """The example images ``(S, C, size, size)`` in [0, 1]; S may be 0."""
    shots = experiment.shots
    if isinstance(shots, EmbeddedShots):
        return examples.get(shots.set).shots(experiment.size, experiment.channels)[: shots.count]
    found = [fit(_uploaded(images, shot), experiment.size, experiment.channels) for shot in shots.images]
    return torch.cat(found) if found else torch.zeros((0, *experiment.shape))


def race_of(
    experiment: Experiment,
    images: Images,
    device: torch.device | str = "cpu",
    *,
    keep_frames: bool = True,
    seeds: int | None = None,
    built: Callable[[], tuple[Problem, torch.Tensor | None]] | None = None,
) -> Race:
    """The race of an experiment, ready to be turned. ``seeds`` networks per lane, those of the experiment if None.

    ``built``: takes the place of :func:`build`, for who runs several races on one problem.
    """
    return Race(
        built or (lambda: build(experiment, images, device)),
        experiment.lanes(),
        seeds=[derive(experiment.seed, f"method/{i}") for i in range(seeds or experiment.seeds)],
        schedule=experiment.schedule,
        keep_frames=keep_frames,
        remark=experiment.mismatch.describe(experiment.operator),
        rules=experiment.stopping,
        stop_by=experiment.stop_by,
    )


def _measured(experiment: Experiment, images: Images, model: ForwardModel, device: torch.device) -> torch.Tensor:
    """The user's picture as a measurement: cropped, never resized, since resizing would change its noise and its pixels."""
    if isinstance(experiment.target, UploadedArray):
        return model.measurement_from(_upload(images, experiment.target))
    if not isinstance(experiment.target, UploadedImage):
        picture = target_image(experiment, images)
    else:
        pixels = _uploaded(images, experiment.target)
        side = _measured_side(experiment)
        if min(pixels.shape[:2]) < side:
            raise InvalidSettings(
                f"Your measurement is {pixels.shape[1]}×{pixels.shape[0]} pixels and at least {side}×{side} are needed "
                f"for an image of {experiment.size}×{experiment.size}. Choose a smaller image size."
            )
        top, left = (pixels.shape[0] - side) // 2, (pixels.shape[1] - side) // 2
        picture = fit(pixels[top : top + side, left : left + side], side, experiment.channels)
    return model.measurement_of(picture.to(device))


def _measured_side(experiment: Experiment) -> int:
    """Side of the measured picture for an unknown image of ``size``: super-resolution measures a smaller one."""
    factor = experiment.operator.shape_of_measured((experiment.channels, experiment.size, experiment.size))[1] // experiment.size
    return experiment.size // factor


def to_float(pixels: np.ndarray) -> np.ndarray:
    """8-bit pixels as float32 ``(H, W, C)`` in [0, 1]."""
    array = pixels.astype(np.float32) / 255
    return array if array.ndim == 3 else array[:, :, None]


def _uploaded(images: Images, reference: UploadedImage) -> np.ndarray:
    return to_float(_upload(images, reference))


def _upload(images: Images, reference: UploadedImage | UploadedArray) -> np.ndarray:
    try:
        return images[reference.sha256]
    except KeyError:
        name = f" ('{reference.name}')" if reference.name else ""
        raise InvalidSettings(
            f"An uploaded file{name} of this experiment is not here. "
            "Links cannot carry uploads: upload it again, or open the run's zip."
        ) from None
