"""A small app that streams a synthetic race into the live view, for looking at it and for its browser test.

``python tests/ui/mock_app.py [--port 7871]``; the state is chosen in the address: ``?show=setup|recording|empty|refused|waiting|
preparing|failed`` with ``&lanes=1..4&truth=0&size=64&fps=8&total=120&hold=running``; Run starts the synthetic race.
"""

from __future__ import annotations

import argparse
import base64
import io
import os
import threading
import time
from collections.abc import Iterator
from typing import Any

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")

import gradio as gr
import numpy as np
from PIL import Image

from netprior_core.ui.live import live_view
from netprior_core.ui.theme import CSS, theme

NAMES = [("DIP", "denoising, as published"), ("CS-DIP", "DCGAN, RMSprop"), ("Low-shot", "24 coins, ℓ2"), ("Adjoint", "baseline")]
CONVENTION = "PSNR in dB: images in [0, 1], estimate clipped, peak 1, MSE over all pixels and channels"


def uri(pixels: np.ndarray, lossless: bool = True) -> str:
    """Pixels in [0, 1] as a data URI."""
    buffer, kind = io.BytesIO(), "webp" if lossless else "jpeg"
    picture = Image.fromarray((np.clip(pixels, 0, 1) * 255).round().astype(np.uint8))
    picture.save(buffer, kind, **({"lossless": True, "method": 0} if lossless else {"quality": 90, "subsampling": 0}))
    return f"data:image/{kind};base64," + base64.b64encode(buffer.getvalue()).decode()


def truth(size: int) -> np.ndarray:
    """A coloured test picture: discs on a slope."""
    row, column = np.mgrid[0:size, 0:size] / size
    picture = np.stack([0.25 + 0.4 * row, 0.3 + 0.2 * column, 0.45 - 0.2 * row], axis=-1)
    for cx, cy, radius, colour in [
        (0.35, 0.4, 0.22, (0.9, 0.75, 0.4)),
        (0.7, 0.62, 0.16, (0.35, 0.6, 0.8)),
        (0.62, 0.22, 0.08, (0.95, 0.95, 0.9)),
    ]:
        picture[(column - cx) ** 2 + (row - cy) ** 2 < radius**2] = colour
    return picture


class Mock:
    """One synthetic race: lane k tends to the truth at its own speed, and lane 0 overfits towards the end."""

    def __init__(self, run: str, lanes: int = 3, size: int = 64, total: int = 120, known: bool = True, special: str = "") -> None:
        self.run, self.size, self.total, self.known, self.special = run, size, total, known, special
        self.x, self.count, self.seq = truth(size), lanes, 0
        self.rng = np.random.default_rng(0)
        self.noise = np.repeat(np.repeat(self.rng.standard_normal((32, 32, 3)), -(-size // 32), 0), -(-size // 32), 1)[:size, :size]
        self.iteration, self.state, self.started, self.sent = 0, "running", time.monotonic(), [0] * lanes

    def deviation(self, lane: int, iteration: int) -> float:
        progress = iteration / self.total
        return float(0.45 * np.exp(-progress * (9 - 2 * lane)) + 0.035 + 0.012 * lane + (0.05 * progress**2 if lane == 0 else 0))

    def estimate(self, lane: int, iteration: int) -> np.ndarray:
        return self.x + self.noise * self.deviation(lane, iteration)

    def psnr(self, lane: int, iteration: int) -> float:
        return float(-20 * np.log10(self.deviation(lane, iteration)))

    def strip(self) -> dict[str, Any]:
        return {
            "truth": {"src": uri(self.x), "caption": f"{self.size}×{self.size} colour"} if self.known else None,
            "operator": {
                "title": "Gaussian compressed sensing",
                "equation": "y = A x + e",
                "caption": "m = 205 of 4,096 · dense, exact, 3.2 MiB",
            },
            "measurement": {"src": uri(self.x + 0.25 * self.noise), "caption": "σ = 5 of 255"},
            "shots": {"srcs": [uri(np.roll(self.x, 5 * i, axis=1)[::2, ::2]) for i in range(12)], "total": 24},
        }

    def lane(self, lane: int, lossless: bool) -> dict[str, Any]:
        at = min(self.iteration, self.total)
        name, detail = NAMES[lane]
        report: dict[str, Any] = {
            "id": lane,
            "name": name,
            "detail": detail,
            "iteration": at,
            "total": self.total,
            "phase": "",
            "message": "",
        }
        report |= {
            "state": "finished" if at >= self.total else self.state if self.state == "stopped" else "running",
            "seconds": 0.1 * at,
            "rate": 12.3 - lane,
        }
        report |= {"prepare_seconds": 0.0, "eta": 0.1 * (self.total - at), "residual": self.deviation(lane, at)}
        if self.special == "failed" and lane == 1 and at > 20:
            report |= {
                "state": "failed",
                "rate": None,
                "message": "The loss became NaN at iteration 21. Lower the learning rate and run again.",
            }
        if self.special == "preparing" and lane == 2 and at < self.total // 2:
            report |= {
                "state": "preparing",
                "phase": "pre-training",
                "iteration": at * 10,
                "total": 1500,
                "rate": None,
                "residual": None,
            }
            shots = np.concatenate([np.concatenate([self.estimate(0, at)[::2, ::2]] * 3, axis=1)] * 3)
            return report | {
                "psnr": None,
                "ssim": None,
                "best": None,
                "picture": {"src": uri(shots, False), "lossless": False, "iteration": at, "kind": "shots"},
            }
        best = max(range(at + 1), key=lambda i: self.psnr(lane, i)) if self.known else None
        report |= {
            "psnr": self.psnr(lane, at) if self.known else None,
            "ssim": 1 - self.deviation(lane, at) if self.known else None,
        }
        report |= {"best": {"psnr": self.psnr(lane, best), "iteration": best} if best is not None else None}
        return report | {
            "picture": {"src": uri(self.estimate(lane, at), lossless), "lossless": lossless, "iteration": at, "kind": "estimate"}
        }

    def curve(self, lane: int) -> dict[str, Any]:
        first, last = self.sent[lane], min(self.iteration, self.total) + 1
        self.sent[lane] = last
        its = list(range(first, last))
        sparse = [i for i in its if i % 5 == 0]
        start = -(-first // 5)
        return {
            "lane": lane, "from": first, "iteration": its, "seconds": [0.1 * i for i in its],
            "psnr": [self.psnr(lane, i) for i in its] if self.known else None,
            "objective": [100.0**-lane * self.deviation(lane, i) ** 2 for i in its],
            "ssim": [[i, 0.1 * i, 1 - self.deviation(lane, i)] for i in sparse] if self.known else [],
            "residual": [[i, 0.1 * i, self.deviation(lane, i)] for i in sparse],
            "ssim_from": start, "residual_from": start, "frames": [], "frames_from": 0,
        }  # fmt: skip

    def message(self, *, lossless: bool = False, strip: bool = False) -> dict[str, Any]:
        self.seq += 1
        done = self.iteration >= self.total
        if done:
            self.state = "finished"
        lanes = [self.lane(lane, lossless or done or self.state == "paused") for lane in range(self.count)]
        marks = [{"lane": 0, "kind": "stop", "iteration": 60, "seconds": 6.0, "label": "WMV"}] if self.iteration > 60 else []
        if done and self.known:
            marks += [{"lane": 0, "kind": "oracle", "iteration": 52, "seconds": 5.2, "label": "oracle"}]
            marks += [
                {"lane": i, "kind": "result", "iteration": self.total, "seconds": 12.0, "label": ""} for i in range(self.count)
            ]
        message = {
            "v": 1, "type": "race", "run": self.run, "seq": self.seq, "state": self.state, "note": "", "place": None,
            "schedule": "iteration", "marks": marks, "convention": CONVENTION,
            "eta": None if done else 0.1 * (self.total - self.iteration), "elapsed": 0.1 * self.iteration, "lanes": lanes,
            "curves": [self.curve(i) for i in range(self.count) if lanes[i]["state"] not in ("preparing", "failed")],
        }  # fmt: skip
        return message | ({"strip": self.strip()} if strip else {})

    def setup(self, refused: bool = False) -> dict[str, Any]:
        lanes = [{"id": i, "name": NAMES[i][0], "detail": NAMES[i][1], "state": "ready", "message": ""} for i in range(self.count)]
        if refused:
            lanes[-1] |= {
                "state": "refused",
                "message": "Needs at least two shots. Choose some in Examples, or leave this method out.",
            }
        return {
            "v": 1,
            "type": "setup",
            "run": "",
            "state": "idle",
            "note": "",
            "strip": self.strip(),
            "lanes": lanes,
            "convention": CONVENTION,
        }

    def recording(self) -> dict[str, Any]:
        self.iteration = self.total
        message = self.message(lossless=True, strip=True)
        its = sorted({round(1.2**k) for k in range(40) if 1.2**k < self.total} | {self.total})
        frames = [{"lane": i, "iteration": it, "src": uri(self.estimate(i, it))} for i in range(self.count) for it in its]
        label = "A recorded race. Press Run for a live one."
        return message | {"type": "recording", "recorded": {"label": label, "frames": frames}}


RACES: dict[str, Mock] = {}
LOCK = threading.Lock()


def control(run: str, action: str) -> dict[str, Any]:
    """Pause, resume, step or stop a synthetic race."""
    race = RACES.get(run)
    if race is None:
        return {"ok": False, "message": "This race is over."}
    with LOCK:
        if action == "step":
            race.iteration += 1
        else:
            race.state = {"pause": "paused", "resume": "running", "stop": "stopped"}[action]
    return {"ok": True, "message": ""}


def frames(run: str, iteration: int) -> dict[str, Any]:
    """Exact frames at every tenth iteration."""
    race, at = RACES[run], iteration // 10 * 10
    lanes = [
        {"id": i, "iteration": at, "src": uri(race.estimate(i, at)), "psnr": race.psnr(i, at), "ssim": None, "phase": ""}
        for i in range(race.count)
    ]
    return {"iteration": iteration, "lanes": lanes}


def options(request: gr.Request) -> dict[str, Any]:
    asked = dict(request.query_params)
    return {
        "lanes": int(asked.get("lanes", 3)), "size": int(asked.get("size", 64)), "total": int(asked.get("total", 120)),
        "known": asked.get("truth", "1") == "1", "special": asked.get("show", ""),
    }  # fmt: skip


def stream(request: gr.Request) -> Iterator[dict[str, Any]]:
    """The synthetic race at ``fps`` messages a second, one iteration (or ``stride``) each."""
    asked = dict(request.query_params)
    race = Mock(f"run-{time.monotonic_ns()}", **options(request))
    RACES[race.run] = race
    pause = 1 / float(asked.get("fps", 8))
    if race.special == "waiting":
        for place in (2, 2, 2, 1):
            race.seq += 1
            yield race.setup() | {"type": "race", "run": race.run, "seq": race.seq, "state": "waiting", "place": place}
            time.sleep(0.7)
    yield race.message(strip=True)
    last = (race.state, race.iteration)
    while last[0] not in ("finished", "stopped"):
        time.sleep(pause)
        with LOCK:
            if race.state == "running":
                race.iteration += int(asked.get("stride", 1))
            if (race.state, race.iteration) == last:
                continue
            message = race.message(lossless=race.state != "running")
            last = (race.state, race.iteration)
        yield message


def first(request: gr.Request) -> dict[str, Any] | None:
    show = request.query_params.get("show", "recording")
    race = Mock("recorded", **options(request))
    if show == "empty":
        return None
    return race.recording() if show == "recording" else race.setup(refused=show == "refused")


def build(hide: list[str] | None = None) -> gr.Blocks:
    """The mock page: an empty set-up column and the live view."""
    with gr.Blocks(title="Live view") as demo, gr.Row():
        with gr.Column(scale=1, min_width=300):
            gr.Markdown("## Set up")
            gr.Textbox(label="A text field", value="Space types here", interactive=True)
            gr.Slider(0, 255, 5, label="Noise σ", info="of 255")
            gr.Radio(["Coins", "Faces"], value="Coins", label="Examples")
            gr.Button("Secondary")
        with gr.Column(scale=3, min_width=320):
            live = live_view(None, [control, frames], hide or [])
        demo.load(first, outputs=live, show_progress="hidden")
        live.submit(stream, outputs=live, show_progress="hidden", concurrency_limit=None)
    return demo


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=7871)
    parser.add_argument("--hide", default="")
    asked = parser.parse_args()
    build([part for part in asked.hide.split(",") if part]).launch(
        server_port=asked.port, theme=theme(), css=CSS, quiet=True, run_history=False
    )


if __name__ == "__main__":
    main()
