"""What trainings that save and resume have in common."""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from netprior_core import priors
from netprior_core.compute import Compute
from netprior_core.errors import InvalidSettings, MissingPrior, NetPriorError


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


class Owner(Protocol):
    """A run that knows which file of weights it wrote or goes on from: its path, resolved, or ""."""

    owns: str


def claimed(path: Path, run: Owner, steps: int) -> bool:
    """Whether a run of so many steps may write the weights in ``path``, which it then owns: not over longer training of another."""
    mine = str(path.resolve())
    with contextlib.suppress(MissingPrior):
        there = re.match(r"\d+", str(priors.card_of(path).get("steps")))  # the card of a run that was cut short says so after it
        if run.owns != mine and there is not None and int(there.group()) > steps:
            return False
    run.owns = mine
    return True


def left_alone(path: Path) -> str:
    """What a run says that may not write."""
    return f"{path.name} is left alone: it has more steps than this run. Or take another --out."


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
    with readable(path):
        with safe_open(path, framework="pt", device="cpu") as file:
            about: dict[str, Any] = json.loads((file.metadata() or {})["state"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        check_same(path, about, json.loads(json.dumps(identity)))  # as the file holds it
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


def load_pickled(path: Path, made: Mapping[str, Any]) -> dict[str, Any]:
    """What a training kept with torch.save, on the CPU: tensors and plain values only, nothing else is unpickled.

    Raises InvalidSettings when it is not that, or does not say in "made" that it was made with what ``made`` says.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # a damaged file, or one of something else, can raise nearly anything
        state = None
    if not isinstance(state, dict):
        raise InvalidSettings(f"{path.name} is not the state of a training run, or it is damaged.")
    if not isinstance(state.get("made"), dict):
        raise InvalidSettings(
            f"{path.name} does not say what its run was made with, as states of earlier versions do not: start without --resume."
        )
    with readable(path):
        check_same(path, state["made"], made)
    return state


def check_same(path: Path, kept: Mapping[str, Any], made: Mapping[str, Any]) -> None:
    """Raises InvalidSettings, which names what differs, when a state in ``path`` is of a run made with something else."""
    differences = [
        f"{name.replace('_', ' ')} {kept.get(name, 'not noted')}, not {value}"
        for name, value in made.items()
        if name not in kept or kept[name] != value
    ]
    if differences:
        raise InvalidSettings(f"{path.name} belongs to a run with other settings: {'; '.join(differences)}.")


def stretched(known: Sequence[Sequence[Any]], now: tuple[Any, ...]) -> list[Any]:
    """Stretches of a training, each its first step and what was set, with the one that begins ``now`` where that is another."""
    before = [tuple(one) for one in known if one[0] < now[0]]
    return before if before and before[-1][1:] == now[1:] else [*before, now]


@contextlib.contextmanager
def readable(path: Path) -> Iterator[None]:
    """Raises InvalidSettings for whatever goes wrong inside because the state in ``path`` is damaged or of something else."""
    try:
        yield
    except NetPriorError:
        raise
    except (SafetensorError, OSError, LookupError, TypeError, ValueError, AttributeError, RuntimeError):
        raise InvalidSettings(f"{path.name} is not the state of a training run, or it is damaged.") from None
