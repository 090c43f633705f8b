"""What trainings that save and resume have in common."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from netprior_core.compute import Compute
from netprior_core.errors import InvalidSettings


class Resumable(Protocol):
    """A run that knows how far it is and can go on from a file."""

    step: int
    steps: int

    def advance(self) -> None:
        """Do one step."""

    def resume(self, path: Path) -> None:
        """Go on from a saved state. Raises InvalidSettings when it is of another run."""


def train(trainer: Resumable, options: argparse.Namespace, keep: Callable[[], None]) -> None:
    """Train until the steps or ``options.minutes`` are used up; ``keep`` is called every ``options.save_minutes`` and at the end.

    Goes on from ``options.resume`` where that file exists.
    """
    if options.resume is not None and options.resume.exists():
        trainer.resume(options.resume)
        print(f"goes on after step {trainer.step} of {trainer.steps}", flush=True)
    start = saved = time.perf_counter()
    while trainer.step < trainer.steps and time.perf_counter() - start < 60 * options.minutes:
        trainer.advance()
        if time.perf_counter() - saved > 60 * options.save_minutes and trainer.step < trainer.steps:
            keep()
            saved = time.perf_counter()
    keep()


def keep_state(path: Path, modules: Mapping[str, torch.nn.Module], adam: torch.optim.Optimizer, about: Mapping[str, Any]) -> None:
    """Write modules, Adam's moments of the first one and what is to be known beside them: exact, as safetensors, all or nothing."""
    tensors = {f"{prefix}.{name}": value for prefix, module in modules.items() for name, value in module.state_dict().items()}
    for i, parameter in enumerate(next(iter(modules.values())).parameters()):
        tensors |= {f"adam.{i}.{name}": value for name, value in adam.state.get(parameter, {}).items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    kept = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    save_file(kept, str(partial), metadata={"state": json.dumps(about)})
    partial.replace(path)


def load_state(
    path: Path,
    modules: Mapping[str, torch.nn.Module],
    adam: torch.optim.Optimizer,
    compute: Compute,
    identity: Mapping[str, Any],
) -> dict[str, Any]:
    """Put back what :func:`keep_state` wrote; returns what was to be known.

    Raises InvalidSettings when it is not the state of a training, or of one that differs in ``identity``.
    """
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            about: dict[str, Any] = json.loads((file.metadata() or {})["state"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, OSError, KeyError, ValueError):
        raise InvalidSettings(f"{path.name} is not the state of a training run.") from None
    for name, value in json.loads(json.dumps(identity)).items():  # as the file holds it
        if about.get(name) != value:
            raise InvalidSettings(f"{path.name} belongs to a run with another {name}: {about.get(name)}, not {value}.")
    for prefix, module in modules.items():
        start = f"{prefix}."
        module.load_state_dict({name.removeprefix(start): v for name, v in tensors.items() if name.startswith(start)})

    def placed(name: str, value: torch.Tensor) -> torch.Tensor:
        """As Adam itself keeps it: on the device, laid out as its parameter."""
        if name == "step" and compute.device.type == "cpu":
            return value
        value = value.to(compute.device)
        return value.contiguous(memory_format=compute.memory_format) if value.ndim == 4 else value

    for i, parameter in enumerate(next(iter(modules.values())).parameters()):
        known = {name.split(".", 2)[2]: v for name, v in tensors.items() if name.startswith(f"adam.{i}.")}
        if known:
            adam.state[parameter] = {name: placed(name, value) for name, value in known.items()}
    return about
