"""What a method is given (Problem) and what it gives back, one iteration at a time (Step)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from threading import Event
from typing import TYPE_CHECKING, Any, Literal

import torch

if TYPE_CHECKING:
    from netprior_core.noise import Noise
    from netprior_core.operators.base import ForwardModel, Operator

Shape = tuple[int, int, int]
Stage = Literal["prepare", "solve", "result"]


@dataclass(frozen=True)
class Problem:
    """An inverse problem ``y = A(x) + e`` as a method sees it. There is no ground truth in it, so none can be used.

    measurement: ``y``, shape ``(1, *model.measurement_shape)``, on the model's device.
    model: the forward model ``A`` for images of ``shape``.
    operator: the settings ``A`` was built from, to build fresh draws (for the shots, say).
    noise: the noise model; noise_std: its standard deviation in units of ``y``, None when unknown.
    shape: ``(C, H, W)`` of the image; C is 1 or 3; images are in [0, 1].
    shots: the example images, ``(S, C, H, W)`` in [0, 1], or None.
    enough: set by the person who has seen enough of the preparation: it is to end now, and what there is is used.
    """

    measurement: torch.Tensor
    model: ForwardModel
    operator: Operator
    noise: Noise
    noise_std: float | None
    shape: Shape
    shots: torch.Tensor | None = None
    enough: Event = field(default_factory=Event, repr=False, compare=False)

    @property
    def device(self) -> torch.device:
        """Where the measurement lives and the solver is to work."""
        return self.measurement.device


@dataclass(frozen=True, eq=False)
class Step:
    """One iteration of a method. Tensors are detached and valid until the next step: who keeps one clones it.

    iteration: iterations done in this stage (0 is the state before the first); total: planned, 0 when unknown.
    stage: "prepare" (pre-training, tuning: before iteration 0), "solve", then exactly one "result".
    phase: the method's own word for what it is doing ("latent", "joint"; "" when there is only one).
    output: the raw network output in [0, 1] units, ``(R, C, H, W)``; while preparing, ``(N, C, H, W)``: the shots as drawn now.
    estimate: ``(R, C, H, W)``, what the method would return if stopped here; None while preparing.
    objective: ``(R,)``, the loss the method minimises, on the device. Reading it is what synchronises.
    info: small extras for people ("returns": the iteration a result stands for, "note": a sentence, "prior": the
        name of what was learned from the examples).
    """

    iteration: int
    total: int
    stage: Stage
    output: torch.Tensor | None = None
    estimate: torch.Tensor | None = None
    objective: torch.Tensor | None = None
    phase: str = ""
    info: Mapping[str, Any] = field(default_factory=dict)


def to_signed(x: torch.Tensor) -> torch.Tensor:
    """[0, 1] to [-1, 1]: ``2 x - 1``."""
    return x * 2 - 1


def to_unit(x: torch.Tensor) -> torch.Tensor:
    """[-1, 1] to [0, 1]: ``(x + 1) / 2``."""
    return (x + 1) / 2
