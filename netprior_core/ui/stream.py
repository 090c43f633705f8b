"""Streaming a race to a tab: always the latest state, at a bounded rate, never faster than it changes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from typing import Any

from netprior_core.experiment import Experiment
from netprior_core.race import Race
from netprior_core.ui.session import App
from netprior_core.ui.wire import Feed

HEARTBEAT = 2.0  # seconds; a message that says nothing new lets a closed tab be noticed


async def stream(app: App, race: Race, experiment: Experiment, run: str, link: str | None) -> AsyncGenerator[dict[str, Any], None]:
    """Messages of a race until it is done. Leaving early (closed tab) asks the race to stop, and does nothing else."""
    feed = Feed(race, experiment, run, link)
    version, spoke = -1, 0.0
    interval = 1 / app.fps
    try:
        while True:
            now, latest = time.monotonic(), race.version
            done = race.done  # read before the message is made: the one made after the end is the last one
            if latest != version or now - spoke > HEARTBEAT or done:
                version, spoke = latest, now
                yield feed.message(place=app.scheduler.place(race), lossless=done or race.state == "paused")
            if done:
                return
            await asyncio.sleep(max(0.005, interval - (time.monotonic() - now)))
    finally:
        if not race.done:
            race.stop()
            app.scheduler.wake()
