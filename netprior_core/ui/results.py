"""The results table as HTML: the same colours and names as tiles and curves, conventions printed underneath."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any

from netprior_core.experiment import Experiment
from netprior_core.metrics import CONVENTION, SSIM_CONVENTION
from netprior_core.race import Race, summary
from netprior_core.representation import Best
from netprior_core.ui.marks import lane_stops, stop_words

EMPTY = "<p class='np-empty'>Results of a run appear here: a table, a contact sheet and one zip with everything.</p>"
HEADS = ("Method", "PSNR dB", "SSIM", "Residual", "Returned iterate", "Best iterate (oracle)", "Preparation s", "Solving s")
#: What stands under a table that has rows of this kind.
CEILING_NOTE = (
    "Best this prior could do: the picture nearest to the truth that a search over the generator's latents found. The search was "
    "shown the truth, which no method is, and the true best is at least as good. CSGM, PGDGAN and NPGD answer with such pictures "
    "only, so that no number of measurements lifts them above it (representation error); IAGAN changes the weights and may pass."
)


def table(race: Race, experiment: Experiment, ceilings: Sequence[Best] = ()) -> str:
    """The scores of a finished race, and rows for what its generators could do at best.

    Without a ground truth there is no PSNR and no oracle, rather than zeros.
    """
    rows = summary(race)
    columns = [True, race.has_truth, race.has_truth, True, True, race.has_truth, True, True]
    head = "".join(f"<th scope='col'>{name}</th>" for name, shown in zip(HEADS, columns, strict=True) if shown)
    peeked = [bool(experiment.tuned(lane.method)) for lane in race.lanes]
    scored = [row["psnr"] for row, looked in zip(rows, peeked, strict=True) if row["psnr"] is not None and not looked]
    body = ""
    for index, row in enumerate(rows):
        best = f"{row['best_psnr']:.2f} at {row['best_iteration']}" if row["best_psnr"] is not None else "–"
        cells = [
            _fixed(row["psnr"], 2),
            _fixed(row["ssim"], 3),
            _fixed(row["residual"], 4),
            str(row["returns"]) if row["returns"] is not None else "–",
            best,
            f"{row['prepare_seconds']:.1f}",
            f"{row['seconds']:.1f}",
        ]
        if len(scored) > 1 and row["psnr"] == max(scored) and not peeked[index]:
            cells[0] = f"<b>{cells[0]}</b>"
        tds = "".join(f"<td>{cell}</td>" for cell, shown in zip(cells, columns[1:], strict=True) if shown)
        state = "" if row["state"] == "finished" else f" <em>{row['state']}</em>"
        said = [row["message"], *(f"{mark['rule']}: {stop_words(mark)}." for mark in lane_stops(race.lanes[index]))]
        note = "".join(f"<br><small>{html.escape(words)}</small>" for words in said if words)
        name = f"<span class='np-colour-{index}'>{html.escape(row['method'])}</span> <small>{html.escape(row['settings'])}</small>"
        body += f"<tr><th scope='row'>{name}{state}{note}</th>{tds}</tr>"
    body += "".join(_ceiling_row(one) for one in ceilings)
    operator = f"{experiment.operator.title}: {race.description}; {experiment.noise.describe()}; seed {experiment.seed}."
    notes = [
        operator,
        *([CONVENTION, SSIM_CONVENTION] if race.has_truth else ["No ground truth: nothing to compute a PSNR against."]),
    ]
    notes.append("Residual: ‖A x̂ − y‖ / √m in units of the measurement, of the unclipped estimate.")
    notes += [CEILING_NOTE] if ceilings else []
    if any(peeked) and len(scored) > 1:
        notes.append("Bold: the largest PSNR among methods whose settings were not tuned with the truth in sight.")
    notes += list(race.rule_notes.values())
    foot = "<br>".join(html.escape(note) for note in notes)
    content = f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody>"
    return f"<div class='np-table'><table>{content}</table></div><p class='np-foot'>{foot}</p>"


def _ceiling_row(found: Best) -> str:
    """Only where there is a truth: as many cells as the whole table has."""
    about = f"{html.escape(found.title)}; {found.steps:,} steps"
    name = f"Best this prior could do <em>looks at the truth</em><br><small>{about}</small>"
    cells = [f"≥ {_fixed(found.psnr, 2)}", _fixed(found.ssim, 3), *["–"] * (len(HEADS) - 3)]
    return f"<tr class='np-ceiling-row'><th scope='row'>{name}</th>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"


def _fixed(value: Any, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}".replace("-", "−")
