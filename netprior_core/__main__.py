"""Command line: ``python -m netprior_core list | run | train | bench``."""

from __future__ import annotations

import argparse
import importlib
import pkgutil
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from netprior_core.errors import NetPriorError

if TYPE_CHECKING:
    import numpy as np
    import torch

    from netprior_core.experiment import Experiment
    from netprior_core.settings import Settings


def main(arguments: list[str] | None = None) -> int:
    """Run one command; 0 when it did what was asked, 2 for a mistake explained in a sentence."""
    words = sys.argv[1:] if arguments is None else arguments
    parser = argparse.ArgumentParser(prog="python -m netprior_core", description="Image priors for inverse problems, side by side.")
    commands = parser.add_subparsers(dest="command", required=True)
    listing = commands.add_parser("list", help="methods, operators, embedded examples and their settings")
    listing.add_argument("kind", nargs="?", help="show the settings of one method or operator")
    run = commands.add_parser("run", help="run a link of the app, a recording's zip, or the experiment.json in it")
    run.add_argument(
        "experiment",
        help="a link from the app (Share and restore; in quotes), a recording's zip (Results), or the experiment.json in one",
    )
    run.add_argument("--out", type=Path, help="folder for the recording (a name ending in .zip makes a zip)")
    run.add_argument("--device", default="auto", help="cpu, cuda, mps or auto (default)")
    run.add_argument(
        "--seeds", type=int, choices=range(1, 65), metavar="N", help="runs of each method (at most 64; else as the experiment says)"
    )
    run.add_argument(
        "--tune",
        action="store_true",
        help="first search the settings of classical and plug-and-play methods with the truth in sight: an upper bound, marked so",
    )
    _add_modules(commands, words, "train", "netprior_core.training", "make a shipped checkpoint again")
    _add_modules(commands, words, "bench", "netprior_core.bench", "paper tables and speed")
    options = parser.parse_args(words)
    try:
        return {"list": _list, "run": _run, "train": _train, "bench": _bench}[options.command](options)
    except NetPriorError as error:
        print(f"netprior: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("netprior: interrupted", file=sys.stderr)
        return 130


def _add_modules(commands: Any, words: list[str], name: str, package: str, help: str) -> None:
    """A sub-command for every module of a package; the module is imported only when its name is on the command line."""
    parser = commands.add_parser(name, help=help)
    names = parser.add_subparsers(dest="name", required=True)
    for found in pkgutil.iter_modules(importlib.import_module(package).__path__):
        if found.name.startswith("_"):
            continue
        command = found.name.replace("_", "-")
        if command not in words and (words[:1] != [name] or not {"-h", "--help"} & set(words)):
            names.add_parser(command)
            continue
        module = importlib.import_module(f"{package}.{found.name}")
        sub = names.add_parser(command, help=module.SUMMARY, description=module.SUMMARY)
        if name == "bench":
            sub.add_argument("--quick", action="store_true", help="a smaller version of the same work, about a minute on two cores")
            sub.add_argument("--json", type=Path, help="write the rows there; a bench that was cut off resumes from it")
        module.add_arguments(sub)
        sub.set_defaults(module=module)


def _list(options: argparse.Namespace) -> int:
    from netprior_core import examples
    from netprior_core.methods import Method
    from netprior_core.operators import Operator

    families = {"methods": Method.registry, "operators": Operator.registry}
    if options.kind:
        cls = next((c for registry in families.values() for c in registry if c.model_fields["kind"].default == options.kind), None)
        if cls is None:
            raise NetPriorError(f"There is no method or operator called '{options.kind}'. `list` alone shows them all.")
        print(f"{cls.title} ({options.kind})\n{_summary(cls)}\n")
        for f in cls.fields():
            bounds = f"{f.minimum} to {f.maximum}" if f.minimum is not None else " | ".join(map(str, f.choices))
            print(f"  {f.name} = {f.default!r}  [{bounds}] {f.unit}\n      {f.help}")
        for name, changes in cls.presets.items():
            print(f"  preset '{name}': {dict(changes)}")
        return 0
    for title, registry in families.items():
        print(f"{title}:")
        for cls in registry:
            print(f"  {cls.model_fields['kind'].default:22} {cls.title}: {_summary(cls)}")
    print("embedded examples:")
    for found in examples.sets():
        print(f"  {found.key:22} {found.title}: {found.blurb}")
    return 0


def _summary(cls: type[Settings]) -> str:
    """A summary for a terminal: without marks of markup, and without the title that many begin with."""
    summary, title = cls.summary().replace("``", ""), f"{cls.title}: "
    return summary[len(title) :] if summary.casefold().startswith(title.casefold()) else summary


def _run(options: argparse.Namespace) -> int:
    from tqdm import tqdm

    from netprior_core.device import pick_device
    from netprior_core.experiment import race_of
    from netprior_core.metrics import CONVENTION
    from netprior_core.race import summary
    from netprior_core.recording import write, write_folder

    experiment, images = _experiment(options.experiment)
    if options.tune:
        experiment = _tuned(experiment, images, pick_device(options.device))
    race = race_of(experiment, images, pick_device(options.device), seeds=options.seeds)
    start = time.perf_counter()
    bars = [tqdm(desc=f"{lane.name:20.20}", unit="it", position=lane.index, mininterval=0.2) for lane in race.lanes]

    def show(_: Any) -> None:
        for bar, lane in zip(bars, race.lanes, strict=True):
            bar.total = lane.total or None
            if lane.picture is not None and lane.curve.psnr and race.has_truth:
                bar.set_postfix_str(f"{lane.phase} {lane.curve.psnr[-1]:.2f} dB", refresh=False)
            bar.update(lane.iteration - bar.n)

    race.run(show)
    for bar in bars:
        bar.close()
    if race.state == "failed":
        raise NetPriorError(race.message)
    print(f"{experiment.operator.title}: {race.description}\n{CONVENTION}")
    for row, method in zip(summary(race), experiment.methods, strict=True):
        scores = ""
        if row["psnr"] is not None:
            best = f"best {row['best_psnr']:.2f} dB at {row['best_iteration']}"
            scores = f"{row['psnr']:6.2f} dB  SSIM {row['ssim']:.3f}  {best}"
        residual = "" if row["residual"] is None else f"residual {row['residual']:.4g}"
        seconds = f"{row['prepare_seconds']:.1f} + {row['seconds']:.1f} s"
        print(f"{row['method']:22} {row['state']:9} {scores}  {residual}  {seconds}  {row['message']}".rstrip())
        if tuned := experiment.tuned(method):
            print(f"{'':22} {tuned}")
    print(f"{time.perf_counter() - start:.1f} s in all")
    if options.out:
        try:
            if options.out.suffix == ".zip":
                options.out.parent.mkdir(parents=True, exist_ok=True)
                write(race, experiment, images, options.out)
            else:
                write_folder(race, experiment, images, options.out)
        except OSError as error:
            raise NetPriorError(f"The recording could not be written to {options.out}: {error.strerror}.") from None
        print(f"recorded in {options.out}")
    return 0 if all(lane.state == "finished" for lane in race.lanes) else 1


def _tuned(experiment: Experiment, images: dict[str, np.ndarray], device: torch.device) -> Experiment:
    """The experiment with the best settings for this very image. Raises NetPriorError where none of its methods can be tuned."""
    from tqdm import tqdm

    from netprior_core import tuning

    methods = list(experiment.methods)
    reasons = [tuning.refusal(experiment, lane) for lane in range(len(methods))]
    if all(reasons):
        raise NetPriorError(str(reasons[0]))
    for lane, (_, name, _) in enumerate(experiment.lanes()):
        if reasons[lane] is not None:
            continue
        search = tuning.Search(experiment, lane, images, device)
        for trial in tqdm(search.trials(), desc=f"tune {name:15.15}", unit="trial"):
            trial.race.run()
        changed = tuning.changes(search.given, search.method) or "as it was"
        print(f"{name}: {search.psnr:.2f} dB on this image, {changed}; the search looked at the truth")
        methods[lane] = search.method
    return experiment.model_copy(update={"methods": tuple(methods)})


def _experiment(named: str) -> tuple[Experiment, dict[str, np.ndarray]]:
    """The experiment of a link or of a file, and the uploaded images that a zip carries."""
    from netprior_core import link
    from netprior_core.recording import open_any

    if "?x=" in named:
        return link.decode(named.split("?x=", 1)[1].split("&")[0].split("#")[0]), {}
    try:
        recording = open_any(Path(named).read_bytes())
    except OSError as error:
        raise NetPriorError(f"{named} cannot be read: {error.strerror}.") from None
    return recording.experiment, recording.images


def _train(options: argparse.Namespace) -> int:
    options.module.run(options)
    return 0


def _bench(options: argparse.Namespace) -> int:
    from netprior_core.bench import Report

    hidden = {"command", "name", "module", "json", "data"}
    settings = {k: (str(v) if isinstance(v, Path) else v) for k, v in vars(options).items() if k not in hidden}
    report = Report(options.name, settings, options.json)
    options.module.run(options, report)
    print("\n" + report.table())
    return 0


if __name__ == "__main__":
    sys.exit(main())
