"""What streaming costs: a two-method race served to a client, alternating with the same race headless."""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import re
import shutil
import statistics
import time
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from netprior_core.bench import Report

SUMMARY = "frames a second and solver speed: a served two-method race against the same race headless"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this bench."""
    parser.add_argument("--size", type=int, default=128, help="side of the image")
    parser.add_argument("--iterations", type=int, default=120, help="of each of the two methods")
    parser.add_argument("--rounds", type=int, default=5, help="pairs of a headless and a served race")
    parser.add_argument("--races", type=int, default=20, help="races in a row for the memory row")
    parser.add_argument("--no-browser", action="store_true", help="leave out the row with Chromium drawing on the same cores")


def run(options: argparse.Namespace, report: Report) -> None:
    """Rows: served/headless ratio, first frame, frames a second, stopping, memory, and the ratio with a browser drawing."""
    if options.quick:
        options.iterations, options.rounds, options.races = 40, 2, 6
    experiment = _experiment(options.size, options.iterations)
    context = multiprocessing.get_context("spawn")
    with _server(context) as (url, pid):
        served, alone, first, rates = [], [], [], []
        _receive(url, _experiment(options.size, 3))  # warms both up
        _headless(context, _experiment(options.size, 3))
        for _ in range(options.rounds):
            alone.append(_headless(context, experiment))
            got = _receive(url, experiment)
            served.append(got["elapsed"])
            first.append(got["first"])
            rates.append(got["frames"] / got["elapsed"])
        total = 2 * options.iterations
        ratio = statistics.median(a / b for a, b in zip(alone, served, strict=True))
        report.row(
            what="client receives, does not draw",
            headless_it_s=total / statistics.median(alone),
            served_it_s=total / statistics.median(served),
            speed_ratio=ratio,
            first_frame_s=max(first),
            frames_s=statistics.median(rates),
        )
        report.row(what="client leaves", seconds_until_idle=max(_leave(url, pid, experiment) for _ in range(2)))
        _memory(url, pid, options, report)
        if not options.no_browser and shutil.which("chromium"):
            _browser(context, url, experiment, options, report)


def _experiment(size: int, iterations: int) -> dict[str, Any]:
    return {
        "format": "netprior-experiment",
        "target": {"source": "embedded", "set": "cat", "index": 0},
        "shots": {"source": "upload"},
        "size": size,
        "channels": 3,
        "operator": {"kind": "inpainting", "keep": 0.5},
        "noise": {"kind": "gaussian", "sigma": 5},
        "methods": [{"kind": "dip", "iterations": iterations}, {"kind": "cs-dip", "iterations": iterations}],
        "seed": 0,
    }


def _headless(context: Any, experiment: dict[str, Any]) -> float:
    """Seconds of the race in a fresh process without any server."""
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_headless_child, args=(experiment, sender))
    process.start()
    seconds = receiver.recv()
    process.join()
    return float(seconds)


def _headless_child(experiment: dict[str, Any], sender: Any) -> None:
    from netprior_core.experiment import parse, race_of

    warm = {**experiment, "methods": [{**m, "iterations": 2} for m in experiment["methods"]]}
    race_of(parse(warm), {}).run()
    sender.send(race_of(parse(experiment), {}).run().elapsed())


@contextlib.contextmanager
def _server(context: Any) -> Iterator[tuple[str, int]]:
    from netprior_core.ui.page import free_port

    port = free_port("127.0.0.1", 7900)
    process = context.Process(target=_serve, args=(port,), daemon=True)
    process.start()
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"{url}/config", timeout=5).read()
                break
            time.sleep(0.1)
        yield url, int(process.pid or 0)
    finally:
        process.terminate()
        process.join(10)


def _serve(port: int) -> None:
    import torch

    from netprior_core.ui.page import launch

    launch(host="127.0.0.1", port=port, device=torch.device("cpu"), max_size=256, fps=8.0)


class _Client:
    """A gradio session by hand: joins the queue and reads the event stream, as the page does, without drawing."""

    def __init__(self, url: str) -> None:
        self.url, self.session = f"{url}/gradio_api", uuid.uuid4().hex[:11]
        config = json.loads(urllib.request.urlopen(f"{url}/config").read())
        find = {event: d["id"] for d in config["dependencies"] for _, event in d["targets"] if event in ("load", "submit")}
        inputs = {d["id"]: len(d["inputs"]) for d in config["dependencies"]}
        self.load, self.submit, self.inputs = find["load"], find["submit"], inputs

    def messages(self, function: int, query: str = "") -> Iterator[Any]:
        """Join the queue for one function and yield its messages."""
        body = {"data": [None] * self.inputs[function], "fn_index": function, "session_hash": self.session, "trigger_id": None}
        request = urllib.request.Request(
            f"{self.url}/queue/join{query}", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        urllib.request.urlopen(request).read()
        with urllib.request.urlopen(f"{self.url}/queue/data?session_hash={self.session}", timeout=600) as stream:
            for line in stream:
                if line.startswith(b"data:"):
                    message = json.loads(line[5:])
                    yield message
                    if message["msg"] in ("process_completed", "close_stream"):
                        return

    def open(self, experiment: dict[str, Any]) -> None:
        """Load the page by the experiment's link, so that the session's state holds it."""
        from netprior_core import link
        from netprior_core.experiment import parse

        for _ in self.messages(self.load, f"?x={link.encode(parse(experiment))}"):
            pass


def _receive(url: str, experiment: dict[str, Any]) -> dict[str, float]:
    """Run the experiment as a page would; seconds of the race, of the first frame, and the number of frames."""
    client = _Client(url)
    client.open(experiment)
    start, first, frames, elapsed = time.monotonic(), 0.0, 0, 0.0
    for message in client.messages(client.submit):
        text = json.dumps(message.get("output", {}))
        if '"src' in text or "data:image" in text:
            frames += 1
            first = first or time.monotonic() - start
        elapsed = _elapsed(message) or elapsed
    return {"elapsed": elapsed or time.monotonic() - start, "first": first, "frames": float(frames)}


def _elapsed(message: dict[str, Any]) -> float | None:
    """The race's own clock in a message, wherever gradio put it: a whole value, or a difference to the one before."""
    found = None

    def walk(value: Any, path: Any = None) -> None:
        nonlocal found
        if isinstance(value, dict):
            for key, item in value.items():
                if key == "elapsed" and isinstance(item, (int, float)):
                    found = float(item)
                walk(item)
        elif isinstance(value, list):
            if len(value) == 3 and value[0] in ("replace", "add") and value[1] and value[1][-1] == "elapsed":
                found = float(value[2])
            for item in value:
                walk(item)
        elif isinstance(value, str) and value.startswith("{") and '"elapsed"' in value:
            walk(json.loads(value))

    walk(message.get("output", {}))
    return found


def _leave(url: str, pid: int, experiment: dict[str, Any]) -> float:
    """Seconds from a client's leaving in the middle of a race until the server's process is idle."""
    client = _Client(url)
    client.open(experiment)
    messages = client.messages(client.submit)
    for count, _ in enumerate(messages):
        if count >= 8:
            break
    messages.close()  # type: ignore[attr-defined]
    start = time.monotonic()
    while time.monotonic() - start < 20:
        before, then = _cpu_seconds(pid), time.monotonic()
        time.sleep(0.1)
        if (_cpu_seconds(pid) - before) / (time.monotonic() - then) < 0.3:
            return then - start
    return float("inf")


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _resident(pid: int) -> float:
    """Resident memory of a process in MiB (Linux)."""
    line = next(x for x in Path(f"/proc/{pid}/status").read_text().splitlines() if x.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


def _memory(url: str, pid: int, options: argparse.Namespace, report: Report) -> None:
    after: list[float] = []
    for _ in range(options.races):
        _receive(url, _experiment(options.size, 25))
        time.sleep(0.5)
        after.append(_resident(pid))
    report.row(
        what="memory of the server", race_3_mib=after[2], last_race_mib=after[-1], races=len(after), growth_mib=after[-1] - after[2]
    )


def _seconds(words: str) -> float:
    """``Finished in 1 min 12.3 s.`` as 72.3."""
    amounts = re.findall(r"([\d.]+) (h|min|s)\b", words)
    return sum(float(amount) * {"h": 3600, "min": 60, "s": 1}[unit] for amount, unit in amounts)


def _browser(context: Any, url: str, experiment: dict[str, Any], options: argparse.Namespace, report: Report) -> None:
    """The same ratio with headless Chromium drawing on the same cores, alternating with headless runs."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        return
    from netprior_core import link
    from netprior_core.experiment import parse

    total, alone, drawn = 2 * options.iterations, [], []
    flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync"]
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=shutil.which("chromium"), args=flags)
        for _ in range(max(2, options.rounds - 2)):
            alone.append(_headless(context, experiment))
            page = browser.new_page(viewport={"width": 1280, "height": 900})
            page.goto(f"{url}/?x={link.encode(parse(experiment))}")
            page.get_by_role("button", name="Run", exact=True).click()
            status = page.locator("[data-ref=status]", has_text="Finished")
            status.wait_for(timeout=300_000)
            drawn.append(_seconds(status.inner_text()))
            page.close()
        browser.close()
    ratio = statistics.median(a / b for a, b in zip(alone, drawn, strict=True))
    report.row(
        what="Chromium draws on the same cores",
        headless_it_s=total / statistics.median(alone),
        served_it_s=total / statistics.median(drawn),
        speed_ratio=ratio,
    )
