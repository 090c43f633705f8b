"""The live view's pure logic (merging messages, looking up frames, ticks, words), asserted in node."""

from __future__ import annotations

import itertools
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from netprior_core.ui.live import ASSETS, live_view, pack, script, spread, template

PURE = "\n".join((ASSETS / f"{name}.js").read_text(encoding="utf-8") for name in ("state", "words", "axes"))
needs_node = pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")


def evaluate(body: str) -> Any:
    """What a function body returns when the pure scripts are in scope."""
    code = f"{PURE}\nconst answer = (() => {{ {body} }})();\nconsole.log(JSON.stringify(answer));"
    done = subprocess.run(["node", "-"], input=code, capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


RACE = """
const state = emptyState();
const message = (run, seq, more) => ({ v: 1, type: "race", run, seq, state: "running", ...more });
const picture = (src, iteration) => (src ? { picture: { src, iteration, lossless: false, kind: "estimate" } } : {});
const lane = (id, iteration, src) => ({ id, name: "L" + id, state: "running", iteration, total: 100, ...picture(src, iteration) });
"""


@needs_node
def test_curves_are_append_only_and_ignore_what_is_known() -> None:
    got = evaluate(
        RACE
        + """
        const part = (from, values) => ({ lane: 0, from, iteration: values, seconds: values, psnr: values, objective: values });
        mergeMessage(state, message("a", 1, { curves: [part(0, [0, 1, 2])] }));
        mergeMessage(state, message("a", 2, { curves: [part(1, [1, 2, 3, 4])] }));
        return { iteration: state.curves.get(0).iteration, holes: state.holes };
        """
    )
    assert got == {"iteration": [0, 1, 2, 3, 4], "holes": 0}


@needs_node
def test_a_lost_message_leaves_a_hole_that_is_drawn_over_and_can_be_filled() -> None:
    got = evaluate(
        RACE
        + """
        const part = (from, values) => ({ lane: 0, from, iteration: values, seconds: values, psnr: values });
        mergeMessage(state, message("a", 1, { curves: [part(0, [0, 1])] }));
        mergeMessage(state, message("a", 3, { curves: [part(4, [4, 5])] }));
        const at = (iteration) => pointAt(state, 0, "psnr", iteration)[0];
        const before = { holes: state.holes, x: seriesOf(state, 0, "psnr", "iteration").x, at3: at(3), at4: at(4) };
        mergeMessage(state, message("a", 4, { curves: [part(2, [2, 3, 4])] }));
        return { ...before, after: seriesOf(state, 0, "psnr", "iteration").x };
        """
    )
    assert got == {"holes": 2, "x": [0, 1, 4, 5], "at3": 1, "at4": 4, "after": [0, 1, 2, 3, 4, 5]}


@needs_node
def test_a_stale_message_is_ignored_and_a_new_run_clears_all_but_the_strip() -> None:
    got = evaluate(
        RACE
        + """
        const curves = [{ lane: 0, from: 0, iteration: [0], seconds: [0], psnr: [1] }];
        mergeMessage(state, message("a", 5, { strip: { truth: { src: "t" } }, lanes: [lane(0, 5, "p5")], curves }));
        const stale = mergeMessage(state, message("a", 4, { lanes: [lane(0, 4, "p4")] }));
        const kept = state.lanes[0].picture.src;
        mergeMessage(state, message("a", 6, { lanes: [lane(0, 6)] }));
        const still = state.lanes[0].picture.src;
        mergeMessage(state, message("b", 1, { lanes: [lane(0, 0)] }));
        const known = [state.curves.size, state.frames.size, state.lanes[0].picture];
        return { stale, kept, still, known, truth: state.strip.truth.src };
        """
    )
    assert got == {"stale": None, "kept": "p5", "still": "p5", "known": [0, 0, None], "truth": "t"}


@needs_node
def test_other_versions_and_nonsense_are_refused() -> None:
    assert evaluate("const s = emptyState(); return [null, {}, { v: 2 }].map((m) => mergeMessage(s, m));") == [None, None, None]


@needs_node
def test_frame_lookup_is_nearest_not_after() -> None:
    got = evaluate(
        """
        const state = emptyState();
        for (const iteration of [40, 10, 20]) keepFrame(state, 0, { iteration, src: "s" + iteration });
        keepFrame(state, 0, { iteration: 20, src: "exact", lossless: true });
        keepFrame(state, 0, { iteration: 20, src: "preview again" });
        return [5, 10, 19, 20, 39, 40, 99].map((at) => frameAt(state, 0, at).src).concat([frameAt(state, 1, 3)]);
        """
    )
    assert got == ["s10", "s10", "s10", "exact", "exact", "s40", "s40", None]


@needs_node
def test_kept_frames_are_bounded_and_log_spaced() -> None:
    got = evaluate(
        """
        const state = emptyState();
        state.lanes = [{ id: 0 }];
        const src = "x".repeat(200000);
        for (let iteration = 0; iteration <= 3000; iteration++) keepFrame(state, 0, { iteration, src });
        const frames = state.frames.get(0);
        const its = frames.map((frame) => frame.iteration);
        const late = its.filter((i) => i > 300);
        const ratios = late.slice(1).map((v, i) => v / late[i]);
        const early = its.filter((i) => i < 30).length;
        return { bytes: frames.length * src.length, first: its[0], last: its.at(-1), early, ratio: Math.max(...ratios) };
        """
    )
    assert got["bytes"] <= 24e6
    assert (got["first"], got["last"]) == (0, 3000)
    assert got["early"] > 10
    assert got["ratio"] < 1.3


@needs_node
def test_positions_in_seconds_find_each_lanes_own_iteration() -> None:
    got = evaluate(
        """
        const state = emptyState();
        mergeCurve(state, { lane: 0, from: 0, iteration: [0, 1, 2], seconds: [0, 1, 2] });
        mergeCurve(state, { lane: 1, from: 0, iteration: [0, 1, 2], seconds: [1, 3, 5] });
        return [0, 1].map((lane) => [0.5, 2.5].map((value) => iterationAt(state, lane, { axis: "seconds", value })));
        """
    )
    assert got == [[0, 2], [None, 0]]


@needs_node
@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [(0, 300, [0, 50, 100, 150, 200, 250, 300]), (17.2, 26.8, [18, 20, 22, 24, 26]), (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1])],
)
def test_linear_ticks_are_round(low: float, high: float, ticks: list[float]) -> None:
    assert evaluate(f"return linearTicks({low}, {high}, {7 if high == 300 else 5});") == ticks


@needs_node
def test_the_first_fifty_of_a_thousand_iterations_get_half_of_a_logarithmic_axis() -> None:
    linear, log = evaluate("return [false, true].map((log) => makeScale(log ? 1 : 0, 1000, 0, 600, log, 7).at(50));")
    assert linear < 0.06 * 600
    assert log > 0.5 * 600
    assert 'data-ref="log"' in template()
    assert re.search(r'<button[^>]*data-ref="log"[^>]*aria-pressed', template())  # a button: reached and pressed by keyboard


@needs_node
def test_runs_of_very_different_lengths_get_a_logarithmic_axis() -> None:
    lengths = [[50, 1000], [200, 1000], [1, 1000], [1000], [50, 1000, 1], [0, 400], [99, 500]]
    got = evaluate(f"return {lengths}.map((some) => endFarApart(some.map((total) => ({{ state: 'running', total }}))));")
    assert got == [True, False, False, False, True, False, True]
    preparing, failed = evaluate(
        "return ['preparing', 'failed'].map((state) => endFarApart([{ state, total: 5000 }, { state: 'running', total: 400 }]));"
    )
    assert not preparing
    assert not failed


@needs_node
def test_log_ticks_stay_few_and_inside() -> None:
    wide, narrow = evaluate("return [logTicks(1e-9, 10, 5), logTicks(1, 300, 5)];")
    assert len(wide) <= 7
    assert all(1e-9 * 0.99 <= tick <= 10.01 for tick in wide)
    assert narrow == [1, 10, 100] or narrow == [1, 2, 5, 10, 20, 50, 100, 200]


@needs_node
def test_psnr_shows_the_top_twenty_decibels_and_every_method() -> None:
    def low(*series: list[float]) -> float:
        found = evaluate(f"return valueRange({json.dumps([{'y': y} for y in series])}, 'psnr').low;")
        return float(found)

    assert low([5, 25, 40], [12, 30, 35]) == pytest.approx(20 - 0.06 * 20)
    assert low([5, 25, 40], [12, 18, 17]) < 15 - 1
    assert low([5, 25, 40], []) == low([5, 25, 40])
    assert low([5, 25, 40], [-60]) == pytest.approx(10 - 0.06 * 30)


@needs_node
def test_labels_move_apart_and_stay_inside() -> None:
    got = evaluate("return spreadLabels([98, 99, 97, 10], 15, 0, 100);")
    ordered = sorted(got)
    assert all(b - a >= 15 - 1e-9 for a, b in itertools.pairwise(ordered))
    assert ordered[-1] <= 100
    assert sorted(range(4), key=lambda i: got[i]) == [3, 2, 0, 1]


@needs_node
def test_thinning_a_line_keeps_its_extremes() -> None:
    got = evaluate(
        """
        const x = Array.from({ length: 20000 }, (_, i) => i);
        const y = x.map((i) => (i === 7777 ? 50 : i % 2));
        const points = thinPolyline(x, y, makeScale(0, 20000, 0, 400, false, 5), makeScale(0, 50, 100, 0, false, 5));
        return { count: points.length, top: Math.min(...points.map((p) => p[1])) };
        """
    )
    assert got["count"] <= 4 * 401
    assert got["top"] == 0


@needs_node
def test_the_error_ramp_is_even_in_lightness() -> None:
    lightness = evaluate(
        """
        const luminance = (rgb) => rgb.reduce((sum, v, i) => sum + [0.2126, 0.7152, 0.0722][i] * (v / 255) ** 2.2, 0);
        return Array.from({ length: 17 }, (_, i) => Math.cbrt(luminance(rampColour(i / 16))));
        """
    )
    steps = [b - a for a, b in itertools.pairwise(lightness)]
    assert min(steps) > 0
    assert max(steps) < 2.5 * sorted(steps)[len(steps) // 2]


@needs_node
def test_progress_weighs_lanes_by_their_iterations() -> None:
    got = evaluate(
        RACE
        + """
        const lanes = [{ id: 0, state: "running", iteration: 50, total: 300 }];
        lanes.push({ id: 1, state: "finished", iteration: 1, total: 1 });
        mergeMessage(state, message("a", 1, { lanes }));
        const short = progressOf(state);
        lanes[1] = { id: 1, state: "preparing", iteration: 900, total: 1500 };
        mergeMessage(state, message("a", 2, { lanes }));
        return [short, progressOf(state)];
        """
    )
    assert got == [pytest.approx(51 / 301), pytest.approx(50 / 600)]


@needs_node
def test_words() -> None:
    got = evaluate(
        """
        const lanes = [{ name: "DIP", state: "running", iteration: 140, total: 300 }];
        const state = { ...emptyState(), type: "race", lanes, eta: 5.7 };
        const say = (more) => statusOf({ ...state, ...more }).text;
        return [
          say({ state: "running" }), say({ state: "waiting", place: 2 }), say({ state: "waiting", place: 1 }),
          say({ state: "paused" }),
          say({ state: "finished", elapsed: 12.34 }), say({ state: "failed", note: "Out of memory." }),
          fixed(null, 2), fixed(Infinity, 2), compact(0.00012),
        ];
        """
    )
    assert got == [
        "it 140 / 300 · 5.7 s left",
        "You are second in line.",
        "You are next in line.",
        "Paused at it 140 / 300.",
        "Finished in 12.3 s.",
        "Out of memory.",
        "–",
        "–",
        "1.2e−4",
    ]


@needs_node
def test_the_whole_script_parses() -> None:
    done = subprocess.run(
        ["node", "--check", "-"],
        input=f"async function f(element, trigger, props, server, watch) {{{script()}}}",
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_the_template_is_static_and_its_references_are_used() -> None:
    text = template()
    names = [part.split('"')[0] for part in text.split('data-ref="')[1:]]
    assert len(names) == len(set(names))
    used = set(re.findall(r"refs\.(\w+)", script()))
    assert used <= set(names)
    assert [name for name in names if name not in script()] == []


def test_no_address_outside_and_no_global() -> None:
    for path in [*Path(ASSETS).iterdir(), ASSETS.parent / "page.css"]:
        text = path.read_text(encoding="utf-8")
        assert "http://" not in text, path
        assert "https://" not in text, path
        assert "window." not in text.replace("window.devicePixelRatio", ""), path


def luminance(colour: str) -> float:
    channels = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("block", [":root", ".dark"])
def test_text_colours_contrast_with_the_paper(block: str) -> None:
    rules = (ASSETS / "palette.css").read_text(encoding="utf-8").split(f"{block} {{")[1].split("}")[0]
    colours = dict(re.findall(r"--np-([\w-]+): (#\w{6});", rules))
    for name in ("ink", "muted", "accent", "alert", "lane-0", "lane-1", "lane-2", "lane-3"):
        low, high = sorted((luminance(colours[name]), luminance(colours["paper"])))
        assert (high + 0.05) / (low + 0.05) >= 4.5, name


def test_pack_is_text_and_keeps_the_message() -> None:
    message = {"v": 1, "name": "σ", "curves": [[1, 2], [3]]}
    assert pack(None) is None
    assert json.loads(pack(message) or "") == message


def test_a_component_made_anew_still_packs() -> None:
    first = live_view({"v": 1}, [])
    again = type(first)(value={"v": 1, "hide": []})  # what gr.update does for one session
    assert first.value == '{"v":1}'
    assert again.postprocess({"v": 2}) == '{"v":2}'
    assert first.get_block_name() == "html"
    assert not Path(ASSETS.parents[1], "netprior_core", "ui", "live.pyi").exists()


def test_hiding_an_unknown_part_is_refused() -> None:
    with pytest.raises(ValueError, match="the parts are strip, transport"):
        live_view(None, [], ["tile"])


def test_spread_hands_over_plain_arguments_and_the_request() -> None:
    import gradio as gr

    def control(run: str, action: str, request: gr.Request) -> list[Any]:
        return [run, action, request]

    def frames(run: str) -> str:
        return run

    request = gr.Request()
    assert spread(control)(["a", "stop"], request) == ["a", "stop", request]
    assert spread(frames)("a", request) == "a"
    assert spread(control).__name__ == "control"


@needs_node
def test_what_is_learned_is_shown_until_a_method_solves() -> None:
    got = evaluate(
        RACE
        + """
        state.strip.truth = {};
        const shown = [metricToShow(state)];
        const send = (seq, part) => {
          mergeMessage(state, message("a", seq, { metric: "psnr", curves: [{ lane: 0, ...part }] }));
          shown.push(metricToShow(state));
        };
        send(1, { learning: [[1, 0.1, 4], [2, 0.2, 3]], learning_from: 0 });
        send(2, { learning: [[3, 0.3, 2]], learning_from: 2, left_out: [[1, 0.1, 12]], left_out_from: 0 });
        const drawn = ["learning", "left_out"].map((name) => seriesOf(state, 0, name, "iteration"));
        send(3, { from: 0, iteration: [0], seconds: [0], psnr: [10] });
        return { shown, drawn };
        """
    )
    assert got["shown"] == ["psnr", "learning", "left_out", "psnr"]
    assert got["drawn"] == [{"x": [1, 2, 3], "y": [4, 3, 2]}, {"x": [1], "y": [12]}]
