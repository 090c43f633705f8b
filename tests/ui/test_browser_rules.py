"""In the browser: stopping rules, several runs of one method, the demonstrations of Learn, and all of it by keyboard."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from pages import HASHES, VIEW, link_of, press, state, unfold, value, wait_iterations, wait_state
from shared import Server, dip

from netprior_core import link
from netprior_core.experiment import Experiment

pytestmark = pytest.mark.browser
Tiny = Callable[..., Experiment]
Open = Callable[..., Any]

RULES = [{"kind": "emv", "patience": 20, "start": 5}, {"kind": "fixed", "iterations": 30}]
SHARP = {"averaging": 0.0}


def table_of(page: Any, selector: str) -> list[list[str]]:
    """The cells of a table, row by row."""
    rows = f"[...document.querySelectorAll('{selector} tbody tr')]"
    return page.evaluate(f"{rows}.map((row) => [...row.cells].map((cell) => cell.textContent))")  # type: ignore[no-any-return]


def marks(page: Any, kind: str) -> list[dict[str, Any]]:
    return page.evaluate(f"{VIEW}.state.marks.filter((mark) => mark.kind === '{kind}')")  # type: ignore[no-any-return]


def tick(page: Any, rule: str) -> None:
    """Tick a rule, and wait until the table under the curves has a row for it."""
    page.locator("#np-rules").get_by_label(rule, exact=True).check()
    page.wait_for_function(f"{VIEW}.state.rules.some((rule) => rule.title === {json.dumps(rule)})")


def test_chosen_rules_mark_where_they_would_stop_and_what_that_loses(open_page: Open, tiny: Tiny) -> None:
    page = open_page(link_of(tiny(methods=[dip(60, **SHARP), {"kind": "adjoint"}])))
    assert page.locator("#live [data-ref=stops]").is_hidden()
    unfold(page, "Stopping rules")
    tick(page, "Fixed budget")
    tick(page, "Discrepancy")
    page.wait_for_selector("#np-rule-1-tau input")  # the settings are drawn anew: what was typed into the old ones is lost
    budget = page.locator("#np-rule-0-iterations input")
    budget.fill("30")
    budget.press("Tab")
    unfold(page, "Share and restore")
    for _ in range(100):
        if (now := page.input_value("#np-link textarea")) and link.decode(now.split("?x=")[1]).stopping[0].iterations == 30:
            break
        page.wait_for_timeout(100)
    top = "document.querySelector('#np-tabs').getBoundingClientRect().top + scrollY"
    before = page.evaluate(top)
    press(page, "run")
    final = wait_state(page, "finished")
    assert final["lanes"][0]["iteration"] == 60  # they only watch
    stop = next(mark for mark in marks(page, "stop") if mark["rule"] == "Fixed budget")
    assert (stop["lane"], stop["iteration"], stop["fired"]) == (0, 30, 30)
    best = final["lanes"][0]["best"]["psnr"]
    there = page.evaluate(f"{VIEW}.state.curves.get(0).psnr[{VIEW}.state.curves.get(0).iteration.indexOf(30)]")
    assert stop["lost"] == pytest.approx(best - there, abs=0.02)
    assert stop["label"] == f"Fixed budget −{stop['lost']:.2f} dB"
    page.wait_for_function("document.querySelector('#live [data-ref=stopsBody]').textContent.includes('it 30')")
    rows = table_of(page, "#live .np-stops")
    assert rows[0] == ["Fixed budget", f"it 30, −{stop['lost']:.2f} dB", "–"]
    assert rows[1][0] == "Discrepancy"
    assert re.fullmatch(r"it \d+, −\d+\.\d\d dB( \(did not fire\))?", rows[1][1])
    assert "stopping rule" in page.text_content("#live [data-ref=key]")
    assert page.evaluate(top) == before  # the table was there before: nothing jumps
    page.wait_for_selector("#np-results table")
    assert f"Fixed budget: it 30, −{stop['lost']:.2f} dB." in page.text_content("#np-results tbody")


def test_the_axis_is_logarithmic_where_the_methods_end_far_apart_until_a_person_chooses(open_page: Open, tiny: Tiny) -> None:
    page = open_page(link_of(tiny(methods=[dip(6, **SHARP), dip(60, **SHARP)])))
    pressed = "document.querySelector('#live [data-ref=log]').getAttribute('aria-pressed')"
    for expected in ("true", "false"):
        press(page, "run")
        wait_state(page, "finished")
        page.wait_for_function(f"{pressed} === '{expected}' && {VIEW}.geometry?.x.log === {expected}")
        if expected == "true":
            press(page, "log")  # the choice stays for the next race
            page.wait_for_function(f"{pressed} === 'false'")


def test_a_rule_that_cannot_watch_says_why(open_page: Open, tiny: Tiny) -> None:
    page = open_page(link_of(tiny(methods=[dip(10)], noise={"kind": "gaussian", "sigma": 0}, stopping=[{"kind": "discrepancy"}])))
    assert table_of(page, "#live .np-stops") == [["Discrepancy", "Discrepancy needs the noise level, and there is no noise."]]
    press(page, "run")
    wait_state(page, "finished")
    assert "there is no noise" in table_of(page, "#live .np-stops")[0][1]


def test_a_rule_chosen_to_stop_ends_its_lane_there_and_says_so(open_page: Open, tiny: Tiny) -> None:
    page = open_page(link_of(tiny(methods=[dip(5000, **SHARP), {"kind": "adjoint"}], stopping=RULES, stop_by="fixed")))
    assert value(page, "np-stop-by") == "Fixed budget"
    press(page, "run")
    final = wait_state(page, "finished")
    assert [lane["iteration"] for lane in final["lanes"]] == [30, 1]
    words = "Stopped by Fixed budget at iteration 30: returns iteration 30."
    note = page.locator("#live .np-note").first
    assert note.text_content() == words
    picture = page.locator("#live .np-picture").first.bounding_box()
    assert note.bounding_box()["y"] >= picture["y"] + picture["height"]  # beside the picture, not over it
    assert page.locator("#live .np-message").first.is_hidden()
    assert "really stops" in table_of(page, "#live .np-stops")[1][0]
    page.wait_for_selector("#np-results table")
    assert words in page.text_content("#np-results")


def test_choosing_what_stops_makes_it_watch_too(open_page: Open, tiny: Tiny) -> None:
    page = open_page(link_of(tiny(methods=[dip(40)])))
    page.click("#np-stop-by input")
    page.locator("ul[role=listbox] [role=option]", has_text="EMV").click()
    page.wait_for_function(f"{VIEW}.state.rules.some((rule) => rule.title === 'EMV' && rule.stops)")
    page.wait_for_function("document.querySelector('#np-rules input:checked') !== null")


def test_the_link_restores_rules_and_seeds(open_page: Open, tiny: Tiny) -> None:
    experiment = tiny(stopping=RULES, stop_by="emv", seeds=3)
    page = open_page(link_of(experiment))
    assert value(page, "np-seeds") == "3"
    assert value(page, "np-stop-by") == "EMV"
    checked = page.locator("#np-rules label:has(input:checked)")  # unfolded, since some are in use
    checked.first.wait_for()
    assert [text.strip() for text in checked.all_text_contents()] == ["EMV", "Fixed budget"]
    page.wait_for_selector("#np-rule-1-iterations input")
    assert page.input_value("#np-rule-1-iterations input") == "30"
    unfold(page, "Share and restore")
    page.wait_for_function("document.querySelector('#np-link textarea')?.value?.includes('?x=')")
    assert link.decode(page.input_value("#np-link textarea").split("?x=")[1]) == experiment


def test_three_runs_of_a_method_give_a_band_and_a_spread_map(open_page: Open, tiny: Tiny) -> None:
    page = open_page(link_of(tiny(methods=[dip(30, **SHARP)], seeds=3)))
    spread = page.locator("#live [data-ref=spread]")
    assert spread.is_disabled()  # there, but nothing to show yet
    press(page, "run")
    wait_state(page, "finished")
    low, psnr, high = page.evaluate(f"(() => {{ const c = {VIEW}.state.curves.get(0); return [c.low, c.psnr, c.high]; }})()")
    assert len(low) == len(psnr) == len(high) == 30
    assert all(a <= b <= c for a, b, c in zip(low, psnr, high, strict=True))
    assert max(c - a for a, c in zip(low, high, strict=True)) > 0.1
    assert "median over the seeds" in page.text_content("#live [data-ref=readout]")
    assert page.text_content("#live .np-sub").endswith("run 1 of 3")
    page.wait_for_function(f"{VIEW}.tiles[0].spread.version > 0")
    picture = page.evaluate(HASHES)
    spread.click()
    page.wait_for_function(f"JSON.stringify(({HASHES})()) !== {json.dumps(json.dumps(picture, separators=(',', ':')))}")
    assert spread.get_attribute("aria-pressed") == "true"
    assert "0.25" in page.text_content("#live [data-ref=legendTop]")
    spread.click()
    page.wait_for_function(f"JSON.stringify(({HASHES})()) === {json.dumps(json.dumps(picture, separators=(',', ':')))}")


def test_the_noise_impedance_demonstration_is_shown_recorded_and_runs(open_page: Open) -> None:
    page = open_page()
    page.get_by_role("tab", name="Learn").click()
    card = page.locator("#np-demonstrations .np-card", has_text="Noise impedance")
    card.get_by_role("button").click()
    page.wait_for_function(f"{VIEW}.state.type === 'recording' && {VIEW}.state.lanes.length === 4")
    page.wait_for_function("document.activeElement?.dataset.ref === 'run'")  # the keyboard is where the eye is
    page.wait_for_function("document.querySelector('#live').getBoundingClientRect().top < 200")
    page.wait_for_function(f"{VIEW}.tiles.every((tile) => tile.slot.version > 0)")
    assert [lane["name"] for lane in state(page)["lanes"]][::3] == ["Fits the image", "Fits pure noise"]
    assert page.get_attribute("#live [data-metric=objective]", "aria-pressed") == "true"
    image, noisy, shuffled, noise = page.evaluate(f"[0, 1, 2, 3].map((lane) => {VIEW}.state.curves.get(lane).objective.at(100))")
    assert image < noisy < noise  # what it is there to show
    assert image < shuffled < noise
    page.keyboard.press("ArrowLeft")  # the recording is scrubbed
    page.wait_for_function(f"{VIEW}.position !== null")
    press(page, "run")
    wait_iterations(page, 2)
    assert len(state(page)["lanes"]) == 4
    press(page, "stop")
    wait_state(page, "stopped")


def test_every_method_and_operator_is_explained(open_page: Open) -> None:
    page = open_page()
    page.get_by_role("tab", name="Learn").click()
    for group, title in (("methods", "How pictures are recovered"), ("operators", "How pictures are measured")):
        unfold(page, title)
        cards = page.locator(f"#np-{group} .np-card")
        cards.last.wait_for(state="visible")
        assert cards.count() >= 10
        assert all(len(text) > 60 for text in cards.all_text_contents())
    page.locator("#np-methods .np-card", has_text="SIREN").first.get_by_role("button").click()
    page.wait_for_function(f"{VIEW}.state.lanes.some((lane) => lane.name === 'SIREN')")


def test_a_race_by_keyboard_alone(open_page: Open, tiny: Tiny) -> None:
    page = open_page(link_of(tiny(methods=[dip(50_000, **SHARP)])))
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Go to the race"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.dataset.ref") == "run"
    page.keyboard.press("Enter")
    wait_iterations(page, 3)
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("Space")
    held = wait_state(page, "paused")["lanes"][0]["iteration"]
    page.keyboard.press("s")
    page.wait_for_function(f"{VIEW}.state.lanes[0].iteration === {held + 1}")
    page.keyboard.press("ArrowLeft")
    page.wait_for_function(f"{VIEW}.position !== null")
    at = page.evaluate(f"{VIEW}.position.value")
    assert at < held + 1
    page.click("#live [data-ref=zoomIn]")
    # Zoomed, a picture can be focused from the next frame on: the arrows then move it, not the time.
    page.wait_for_function(
        "() => { const p = document.querySelector('#live .np-picture'); p.focus(); return document.activeElement === p; }"
    )
    centre = page.evaluate(f"{VIEW}.zoom.cx")
    page.keyboard.press("ArrowRight")
    page.wait_for_function(f"{VIEW}.zoom.cx > {centre}")
    assert page.evaluate(f"{VIEW}.position.value") == at
    press(page, "stop")
    wait_state(page, "stopped")


def test_every_control_has_a_name_and_shows_that_it_has_the_focus(open_page: Open, tiny: Tiny) -> None:
    page = open_page(link_of(tiny(stopping=RULES)))
    page.wait_for_selector("#np-rule-1-iterations input")
    page.wait_for_function("document.querySelector('#np-sets .thumbnail-item').ariaLabel === 'Faces'")
    nameless = page.evaluate(
        """() => [...document.querySelectorAll('input, button, select, textarea, canvas, [tabindex="0"]')]
        .filter((e) => e.offsetParent !== null && !e.closest('[aria-hidden]'))
        .filter((e) => !(e.ariaLabel || [...(e.labels ?? [])].map((l) => l.innerText).join('') || e.innerText || e.title))
        .map((e) => e.outerHTML.slice(0, 120))"""
    )
    assert nameless == []
    page.locator("body").click(position={"x": 2, "y": 2})
    seen = []
    for _ in range(70):
        page.keyboard.press("Tab")
        tag, style, width, label = page.evaluate(
            """() => { const e = document.activeElement, s = getComputedStyle(e);
            return [e.tagName, s.outlineStyle, parseFloat(s.outlineWidth), e.outerHTML.slice(0, 100)]; }"""
        )
        if tag not in ("BODY", "UL"):
            seen.append(tag)
            assert style != "none", label
            assert width >= 1, label
    assert len(seen) > 40


def test_the_server_had_no_error(server: Server) -> None:
    assert "Traceback" not in server.log.read_text()
