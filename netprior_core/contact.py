"""The contact sheet of a race: truth, measurement, results, and the curves, as one PNG (matplotlib, no pyplot)."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from netprior_core.experiment import Experiment
from netprior_core.metrics import CONVENTION
from netprior_core.race import Race
from netprior_core.representation import Best

LANE_COLOURS = ("#0072B2", "#C24E00", "#00805C", "#B0568A")
LANE_DASHES = ("-", (0, (6, 2)), (0, (2, 2)), (0, (6, 2, 2, 2)))
#: The axis of iterations is logarithmic where methods ran for numbers of iterations that differ by more than this, as on the page.
FAR_APART = 5


def contact_sheet(race: Race, experiment: Experiment, best: Sequence[Best] = ()) -> bytes:
    """PNG of the whole race on one page, with the best that its priors could do where that was searched."""
    tiles: list[tuple[str, np.ndarray | None, str]] = []
    if race.truth_picture is not None:
        tiles.append(("truth $x$", race.truth_picture, "black"))
    tiles.append(("measurement $y$", race.measurement_picture, "black"))
    for lane in race.lanes:
        pixels = lane.result.pixels if lane.result else None
        score = f"\n{lane.result.psnr:.2f} dB" if lane.result and lane.result.psnr is not None else ""
        tuned = experiment.tuned(lane.method).replace(" (", "\n(")
        words = "\n".join(filter(None, [lane.name, tuned]))
        tiles.append((words + (score or f"\n{lane.state}"), pixels, LANE_COLOURS[lane.index]))
    tiles += [(f"best this prior could do,\nshown the truth\n{one.title}\n≥ {one.psnr:.2f} dB", one.pixels, "0.35") for one in best]
    figure = Figure(figsize=(2.1 * len(tiles), 5.2), dpi=110, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(2, len(tiles), height_ratios=(1, 1.1))
    for column, (title, pixels, colour) in enumerate(tiles):
        axes = figure.add_subplot(grid[0, column])
        axes.set_title(title, fontsize=9, color=colour)
        axes.set_axis_off()
        if pixels is not None:
            axes.imshow(pixels, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    _draw_curves(figure.add_subplot(grid[1, :]), race)
    operator = experiment.operator
    figure.suptitle(f"{operator.title} · {race.description} · seed {experiment.seed}", fontsize=9)
    figure.supxlabel(CONVENTION if race.has_truth else "no ground truth: the curves show the residual", fontsize=7, color="0.35")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _draw_curves(axes: Axes, race: Race) -> None:
    for lane in race.lanes:
        if race.has_truth:
            x, y = lane.curve.iteration, lane.curve.psnr
        else:
            x, y = [i for i, _, _ in lane.curve.residual], [v for _, _, v in lane.curve.residual]
        points = [(a, b) for a, b in zip(x, y, strict=False) if math.isfinite(b)]
        if points:
            style: dict[str, Any] = {"color": LANE_COLOURS[lane.index], "linestyle": LANE_DASHES[lane.index]}
            style |= {"linewidth": 1.6, "label": lane.name}
            axes.plot(*zip(*points, strict=True), **style, marker="o" if len(points) == 1 else None)
    totals = [lane.total for lane in race.lanes if lane.curve.iteration and lane.total > 1]
    far_apart = len(totals) > 1 and max(totals) > FAR_APART * min(totals)
    if far_apart:
        axes.set_xscale("log")
    axes.set_xlabel("iteration, log" if far_apart else "iteration", fontsize=8)
    axes.set_ylabel("PSNR (dB)" if race.has_truth else "residual", fontsize=8)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    if axes.lines:
        axes.legend(fontsize=8, frameon=False)
