"""What a program may call: ``/run`` takes an experiment (JSON) and streams scores, then the results."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import gradio as gr

from netprior_core.errors import NetPriorError
from netprior_core.experiment import parse, race_of
from netprior_core.metrics import CONVENTION
from netprior_core.race import summary
from netprior_core.ui.session import App
from netprior_core.ui.setup import check_size


def add(app: App) -> None:
    """Register the endpoint in the Blocks being built."""

    async def run(experiment: dict) -> AsyncIterator[dict]:  # gradio reads these types
        """Run an experiment on embedded images. Yields {"state", "place", "rows", …} twice a second; the last one is the result."""
        try:
            parsed = parse(experiment)
            check_size(parsed, app.max_size)
        except NetPriorError as error:
            raise gr.Error(str(error), print_exception=False) from None
        race = race_of(parsed, {}, app.device, keep_frames=False)
        app.scheduler.submit(race)
        try:
            while not race.done:
                await asyncio.sleep(0.5)
                yield _state(race, app.scheduler.place(race))
        finally:
            race.stop()
            app.scheduler.wake()
        if race.state == "failed":
            raise gr.Error(race.message, print_exception=False)
        yield _state(race, 0)

    gr.api(run, api_name="run", concurrency_limit=4)


def _state(race: Any, place: int) -> dict[str, Any]:
    return {"state": race.state, "place": place, "operator": race.description, "convention": CONVENTION, "rows": summary(race)}
