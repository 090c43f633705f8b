"""Small experiments, problems and steps for tests, and the app as a process of its own."""

from __future__ import annotations

import contextlib
import gc
import os
import socket
import subprocess
import sys
import time
import types
import urllib.request
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch

from netprior_core.experiment import Experiment, parse
from netprior_core.methods import Method
from netprior_core.noise import GaussianNoise
from netprior_core.operators.denoising import Denoising
from netprior_core.problem import Problem, Step
from netprior_core.race import Race
from netprior_core.settings import Settings

ROOT = Path(__file__).resolve().parents[1]
T = TypeVar("T")
SIDE = 16

Solve = Callable[[Problem, int], Iterator[Step]]


# -- experiments and problems ------------------------------------------------------------------------------------------------


def experiment_of(**changes: Any) -> Experiment:
    """A denoising race of DIP (tiny) and the adjoint on an embedded face, 32×32."""
    data: dict[str, Any] = {
        "format": "netprior-experiment",
        "target": {"source": "embedded", "set": "faces", "index": 0},
        "shots": {"source": "embedded", "set": "faces", "count": 4},
        "size": 32,
        "channels": 1,
        "operator": {"kind": "denoising"},
        "noise": {"kind": "gaussian", "sigma": 25},
        "methods": [dip(), {"kind": "adjoint"}],
        "seed": 3,
    }
    return parse({**data, **changes})


def mains_at_once(cls: type[Settings]) -> int:
    """The most settings of a kind that are shown unfolded at the same time."""
    always = sum(field.main for field in cls.fields() if field.when is None)
    sometimes = Counter(field.when for field in cls.fields() if field.main and field.when is not None)
    return always + max(sometimes.values(), default=0)


def dip(iterations: int = 12, **changes: Any) -> dict[str, Any]:
    """Settings of a DIP that takes milliseconds an iteration."""
    return {"kind": "dip", "iterations": iterations, "channels": 16, "input_channels": 8, "averaging": 0.5, **changes}


def tiny_problem(sigma: float = 25, shots: int = 0) -> tuple[Problem, torch.Tensor]:
    """Denoising of a slope, 16×16 grey, and the ground truth apart from it."""
    truth = torch.linspace(0.1, 0.9, SIDE * SIDE).view(1, 1, SIDE, SIDE)
    operator = Denoising()
    noise = GaussianNoise(sigma=sigma)
    model = operator.build((1, SIDE, SIDE))
    measurement = noise.apply(model.forward(truth), seed=1)
    examples = torch.rand((shots, 1, SIDE, SIDE), generator=torch.Generator().manual_seed(2)) if shots else None
    return Problem(measurement, model, operator, noise, sigma / 255, (1, SIDE, SIDE), examples), truth


def reachable(root: Any, limit: int = 200_000) -> list[torch.Tensor]:
    """Every tensor that can be reached from an object by following references (not into modules, classes or functions' globals)."""
    seen: set[int] = set()
    queue, tensors = [root], []
    skipped = (type, types.ModuleType, types.FrameType, types.BuiltinFunctionType)
    while queue and len(seen) < limit:
        thing = queue.pop()
        if id(thing) in seen or isinstance(thing, skipped):
            continue
        seen.add(id(thing))
        if isinstance(thing, torch.Tensor):
            tensors.append(thing)
        if isinstance(thing, types.FunctionType):
            queue += [cell.cell_contents for cell in thing.__closure__ or ()] + list(thing.__defaults__ or ())
        else:
            queue += gc.get_referents(thing)
    return tensors


def picture(value: float) -> torch.Tensor:
    """A constant image ``(1, 1, 16, 16)``."""
    return torch.full((1, 1, SIDE, SIDE), float(value))


def steps(values: list[float], *, prepare: int = 0, losses: list[float] | None = None) -> Solve:
    """Preparation, then one solve step for each constant image, then the result."""

    def solve(problem: Problem, seed: int) -> Iterator[Step]:
        for i in range(1, prepare + 1):
            yield Step(
                i, prepare, "prepare", output=picture(0.5).repeat(3, 1, 1, 1), objective=torch.tensor([1.0 / i]), phase="shots"
            )
        for i, value in enumerate(values, 1):
            loss = torch.tensor([losses[i - 1] if losses else 1.0 / i])
            yield Step(i, len(values), "solve", picture(value), picture(value), loss)
        last = picture(values[-1])
        yield Step(len(values), len(values), "result", last, last, info={"returns": len(values)})

    return solve


def endless(problem: Problem, seed: int) -> Iterator[Step]:
    """What a stub solves without coming to an end."""
    for i in range(1, 10_000):
        yield Step(i, 10_000, "solve", picture(0.5), picture(0.5), torch.tensor([1.0]))


def race(*methods: Method, **options: Any) -> Race:
    """A race of methods on a tiny problem, or on that which ``problem`` makes."""
    known = options.pop("problem", tiny_problem)
    return Race(known, [(method, method.title, "") for method in methods], **options)


# -- the served app ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Server:
    """The app as a process of its own: where it answers, what it printed."""

    url: str
    port: int
    pid: int
    log: Path
    environment: dict[str, str]


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def private_environment(folder: Path) -> dict[str, str]:
    """An environment in which the app finds nothing of this user's and leaves nothing behind."""
    names = {"HOME": "home", "XDG_CACHE_HOME": "cache", "NETPRIOR_CACHE": "netprior", "GRADIO_TEMP_DIR": "gradio", "TMPDIR": "tmp"}
    for name in names.values():
        (folder / name).mkdir(exist_ok=True)
    proxies = {"http_proxy", "https_proxy", "all_proxy"}
    kept = {k: v for k, v in os.environ.items() if k.lower() not in proxies and not k.startswith("GRADIO")}
    return {**kept, **{k: str(folder / v) for k, v in names.items()}, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}


@contextlib.contextmanager
def serving(folder: Path, *arguments: str, port: int | None = None) -> Iterator[Server]:
    """Run ``app.py`` until the block ends. Raises RuntimeError with its output when it does not answer within a minute."""
    port = port or free_port()
    environment = private_environment(folder)
    log = folder / "app.log"
    command = [sys.executable, str(ROOT / "app.py"), "--port", str(port), "--device", "cpu", *arguments]
    with log.open("w") as out:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=out, stderr=subprocess.STDOUT)
    try:
        url = wait_for(log, process)
        yield Server(url, int(url.rsplit(":", 1)[1]), process.pid, log, environment)
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_for(log: Path, process: subprocess.Popen[bytes]) -> str:
    """The address the app printed, once it answers there."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        found = [word.rstrip("/") for word in log.read_text().split() if word.startswith("http://")]
        if found:
            with contextlib.suppress(OSError):
                opener.open(found[0] + "/config", timeout=5).read(1)
                return found[0]
        time.sleep(0.2)
    raise RuntimeError(f"the app did not start:\n{log.read_text()}")


def returned(stream: Generator[Any, None, T]) -> T:
    """What a generator returns, once it has been walked to its end."""
    while True:
        try:
            next(stream)
        except StopIteration as stop:
            found: T = stop.value
            return found
