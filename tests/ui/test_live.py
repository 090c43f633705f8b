"""The live view in headless Chromium, fed by the mock race: what a person sees, presses and scrubs."""

from __future__ import annotations

import importlib.util
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

playwright = pytest.importorskip("playwright.sync_api")
CHROMIUM = Path(os.environ.get("CHROMIUM", "/usr/bin/chromium"))
pytestmark = [pytest.mark.browser, pytest.mark.skipif(not CHROMIUM.exists(), reason="Chromium is not installed")]

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-sync"]
STATE = "document.querySelector('.np').parentElement.netpriorView"
PIXELS = """(i) => { const c = document.querySelectorAll('.np-tile canvas')[i];
  const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;
  let sum = 0; for (let k = 0; k < d.length; k += 97) sum = (sum * 31 + d[k]) % 1000003; return sum; }"""


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    spec = importlib.util.spec_from_file_location("mock_app", Path(__file__).with_name("mock_app.py"))
    assert spec is not None
    assert spec.loader is not None
    mock = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(mock)
    from netprior_core.ui.theme import CSS, theme

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    demo = mock.build()
    _, local, _ = demo.launch(server_port=port, theme=theme(), css=CSS, quiet=True, prevent_thread_lock=True)
    yield local
    demo.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=str(CHROMIUM), args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture
def open_page(browser: Any, address: str) -> Iterator[Any]:
    """Open the mock page at a query; at the end of the test there were no errors and no outside requests."""
    pages, complaints = [], []

    def opened(query: str, width: int = 1280, height: int = 900) -> Any:
        page = browser.new_page(viewport={"width": width, "height": height})
        page.set_default_timeout(15000)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        page.on("request", lambda r: complaints.append(r.url) if not r.url.startswith((address, "data:", "blob:")) else None)
        page.goto(f"{address}{query}")
        page.wait_for_selector(".np-status:not(:empty)")
        pages.append(page)
        return page

    yield opened
    for page in pages:
        page.close()
    assert complaints == []


def text(page: Any, ref: str) -> str:
    return page.text_content(f"[data-ref={ref}]")


def wait_state(page: Any, state: str) -> None:
    page.wait_for_function(f"{STATE}.state.state === '{state}'")


def test_a_recording_is_scrubbed_without_the_server(open_page: Any) -> None:
    page = open_page("?show=recording&lanes=2")
    page.wait_for_function(f"{STATE}.tiles.length === 2 && {STATE}.tiles.every((t) => t.slot.version > 0)")
    assert "recorded" in text(page, "status")
    assert page.is_enabled("[data-ref=run]")
    assert page.is_disabled("[data-ref=pause]")
    last = page.evaluate(PIXELS, 0)
    page.evaluate("(s) => { s.value = 10; s.dispatchEvent(new Event('input')); }", page.query_selector("[data-ref=slider]"))
    page.wait_for_function("document.querySelector('[data-ref=at]').textContent === 'it 10'")
    page.wait_for_function(f"({PIXELS})(0) !== {last}")
    assert page.locator(".np-sub").first.text_content() == "it 9 / 120exact"
    page.click("[data-ref=live]")
    page.wait_for_function(f"({PIXELS})(0) === {last}")


def test_a_race_runs_pauses_steps_resumes_and_stops(open_page: Any) -> None:
    page = open_page("?show=setup&lanes=2&fps=15&total=4000")
    page.wait_for_function(f"{STATE}.tiles.length === 2")
    page.evaluate("document.querySelectorAll('.np-tile canvas')[0].dataset.kept = 'yes'")
    page.click("[data-ref=run]")
    assert page.is_disabled("[data-ref=run]")  # a second press has nothing to press
    wait_state(page, "running")
    page.wait_for_function(f"{STATE}.state.lanes[0].iteration > 10")
    assert page.evaluate("document.querySelectorAll('.np-tile canvas')[0].dataset.kept") == "yes"  # values do not touch the DOM
    assert page.evaluate(f"{STATE}.state.holes") == 0
    assert "preview (jpeg)" in page.locator(".np-sub").first.text_content()
    page.keyboard.press("Space")
    wait_state(page, "paused")
    page.wait_for_function("document.querySelector('.np-sub').textContent.includes('exact')")
    at = page.evaluate(f"{STATE}.state.lanes[0].iteration")
    page.keyboard.press("s")
    page.wait_for_function(f"{STATE}.state.lanes[0].iteration === {at + 1}")
    assert text(page, "pauseText") == "Resume"
    page.click("[data-ref=pause]")
    wait_state(page, "running")
    page.click("[data-ref=stop]")
    wait_state(page, "stopped")
    page.wait_for_function("!document.querySelector('[data-ref=run]').disabled")
    assert text(page, "status").startswith("Stopped after")


def test_scrubbing_back_while_running_asks_for_exact_frames(open_page: Any) -> None:
    page = open_page("?show=setup&lanes=2&fps=20&total=4000")
    page.click("[data-ref=run]")
    page.wait_for_function(f"{STATE}.state.lanes[0]?.iteration > 25")
    page.evaluate("(s) => { s.value = 17; s.dispatchEvent(new Event('input')); }", page.query_selector("[data-ref=slider]"))
    page.wait_for_function("document.querySelector('.np-sub').textContent === 'it 10 / 4,000exact'")  # the mock keeps every tenth
    live = page.evaluate(f"{STATE}.state.lanes[0].iteration")
    page.wait_for_function(f"{STATE}.state.lanes[0].iteration > {live + 3}")
    assert page.locator(".np-sub").first.text_content() == "it 10 / 4,000exact"  # the race goes on, the picture stays
    page.click("[data-ref=live]")
    page.wait_for_function("!document.querySelector('.np-sub').textContent.startsWith('it 10 ')")
    page.click("[data-ref=stop]")
    wait_state(page, "stopped")


def test_a_race_the_server_forgot_can_be_stopped(open_page: Any) -> None:
    page = open_page("?show=recording&lanes=1")
    page.wait_for_function(f"{STATE}.tiles.length === 1")
    lost = {"v": 1, "type": "race", "run": "lost", "seq": 1, "state": "paused", "lanes": []}
    page.evaluate(f"(message) => {STATE}.receive(message)", lost)
    page.wait_for_function("!document.querySelector('[data-ref=stop]').disabled")
    page.click("[data-ref=stop]")
    page.wait_for_function("document.querySelector('[data-ref=status]').textContent.includes('over')")
    page.wait_for_function("!document.querySelector('[data-ref=run]').disabled")


def test_keys_typed_into_a_field_are_text(open_page: Any) -> None:
    page = open_page("?show=recording&lanes=1")
    page.wait_for_function(f"{STATE}.tiles.length === 1")
    field = page.get_by_label("A text field")
    field.click()
    page.keyboard.press("End")
    page.keyboard.type(" s")
    page.keyboard.press("ArrowLeft")
    assert field.input_value() == "Space types here s"
    assert page.evaluate(f"{STATE}.position") is None
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("ArrowLeft")
    assert page.evaluate(f"{STATE}.position.value") == 119


def test_without_a_truth_there_is_no_psnr_anywhere(open_page: Any) -> None:
    page = open_page("?show=recording&lanes=2&truth=0")
    page.wait_for_function(f"{STATE}.tiles.length === 2 && {STATE}.geometry !== null")
    seen = page.inner_text(".np")
    assert "dB" not in seen
    assert "PSNR" not in seen
    assert page.get_attribute("[data-metric=residual]", "aria-pressed") == "true"
    assert page.is_disabled("[data-ref=wipe]")
    assert page.is_disabled("[data-ref=error]")


def test_wipe_error_map_and_zoom_change_all_tiles(open_page: Any) -> None:
    page = open_page("?show=recording&lanes=2")
    page.wait_for_function(f"{STATE}.tiles.length === 2 && {STATE}.tiles.every((t) => t.slot.version > 0)")
    page.wait_for_timeout(200)
    plain = [page.evaluate(PIXELS, i) for i in (0, 1)]
    for press, undo in [("error", "error"), ("zoomIn", "zoomReset")]:
        page.click(f"[data-ref={press}]")
        page.wait_for_function(f"({PIXELS})(0) !== {plain[0]} && ({PIXELS})(1) !== {plain[1]}")
        page.click(f"[data-ref={undo}]")
        page.wait_for_function(f"({PIXELS})(0) === {plain[0]} && ({PIXELS})(1) === {plain[1]}")
    page.hover(".np-tile canvas")
    page.keyboard.down("Control")
    page.mouse.wheel(0, -200)
    page.keyboard.up("Control")
    page.wait_for_function(f"{STATE}.zoom.k > 2 && ({PIXELS})(1) !== {plain[1]}")  # the tile beside it zooms too
    page.click("[data-ref=zoomReset]")
    page.evaluate("(s) => { s.value = 0; s.dispatchEvent(new Event('input')); }", page.query_selector("[data-ref=wipe]"))
    page.wait_for_function(f"({PIXELS})(0) === ({PIXELS})(1) && ({PIXELS})(0) !== {plain[0]}")  # both tiles show the truth


def test_hovering_the_curves_reads_all_methods_and_a_click_pins(open_page: Any) -> None:
    page = open_page("?show=recording&lanes=3")
    page.wait_for_function(f"{STATE}.geometry !== null")
    page.locator("[data-ref=plot]").scroll_into_view_if_needed()
    box = page.locator("[data-ref=plot]").bounding_box()
    page.mouse.move(box["x"] + 0.4 * box["width"], box["y"] + 100)
    page.wait_for_function("document.querySelectorAll('[data-ref=readout] b').length === 3")
    hovered = page.evaluate(f"{STATE}.hover.value")
    assert text(page, "readout").startswith(f"it {hovered}")
    page.mouse.click(box["x"] + 0.4 * box["width"], box["y"] + 100)
    page.mouse.move(5, 5)
    page.wait_for_function(f"{STATE}.hover === null")
    assert page.evaluate(f"{STATE}.position.value") == hovered


def test_run_pressed_before_anything_is_known_starts_as_soon_as_it_is(open_page: Any) -> None:
    page = open_page("?show=setup&lanes=1&fps=30&total=20")
    page.wait_for_function(f"{STATE}.tiles.length === 1")
    page.evaluate(f"{STATE}.messages = 0")
    page.click("[data-ref=run]")
    page.wait_for_function("document.querySelector('[data-ref=status]').textContent === 'Starting.'")
    assert page.evaluate(f"{STATE}.state.type") == "setup"
    page.evaluate(f"{STATE}.receive({{ v: 1, type: 'setup', run: '', seq: 0, state: 'idle' }})")
    wait_state(page, "finished")


def test_a_failed_lane_says_so_in_its_own_tile_and_the_others_go_on(open_page: Any) -> None:
    page = open_page("?show=failed&lanes=2&fps=30&total=60")
    page.click("[data-ref=run]")
    wait_state(page, "finished")
    tiles = page.locator(".np-tile")
    assert "Lower the learning rate" in tiles.nth(1).locator(".np-message").text_content()
    assert tiles.nth(0).locator(".np-message").is_hidden()
    page.wait_for_function("document.querySelector('.np-state').textContent === 'finished'")
    assert "1 of 2 methods failed" in text(page, "status")


@pytest.mark.parametrize(("width", "lanes"), [(1280, 3), (390, 4)])
def test_nothing_scrolls_sideways_and_nothing_jumps(open_page: Any, width: int, lanes: int) -> None:
    page = open_page(f"?show=setup&lanes={lanes}&fps=20&total=16", width, 844)
    page.wait_for_function(f"{STATE}.tiles.length === {lanes}")
    page.evaluate("document.fonts.ready")
    tops = "['.np-tiles', '.np-timeline', '.np-plot'].map((s) => document.querySelector(s).getBoundingClientRect().top + scrollY)"
    before = page.evaluate(tops)
    page.click("[data-ref=run]")
    wait_state(page, "finished")
    page.wait_for_timeout(200)
    assert page.evaluate(tops) == before
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_dark_follows_the_page(open_page: Any) -> None:
    page = open_page("?show=recording&lanes=2&__theme=dark")
    page.wait_for_function(f"{STATE}.colours.lanes[0].toLowerCase() === '#56b4e9'")
    page.evaluate("document.body.classList.remove('dark')")
    page.wait_for_function(f"{STATE}.colours.lanes[0].toLowerCase() === '#0072b2'")


def test_a_second_start_leaves_one_set_of_key_handlers(open_page: Any) -> None:
    page = open_page("?show=recording&lanes=1")
    page.wait_for_function(f"{STATE}.tiles.length === 1")
    undone = page.evaluate(
        f"(() => {{ const v = {STATE}; v.element.netpriorDispose(); v.element.netpriorDispose(); return v.undo.length; }})()"
    )
    assert undone == 0
    page.keyboard.press("ArrowLeft")
    assert page.evaluate(f"{STATE}.position") is None
