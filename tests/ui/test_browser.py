"""The app in headless Chromium: what a new user does in the first minutes, from choosing an example to the downloaded zip."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gradio_client import Client
from pages import HASHES, VIEW, choose, link_of, press, state, unfold, value, wait_iterations, wait_state
from PIL import Image
from shared import Server, dip

from netprior_core import data_axis, link
from netprior_core.experiment import Experiment
from netprior_core.methods.csdip import CSDIP
from netprior_core.methods.dip import DeepImagePrior
from netprior_core.recording import read

pytestmark = pytest.mark.browser
Tiny = Callable[..., Experiment]
Open = Callable[..., Any]


def two_methods(page: Any) -> None:
    """DIP with 2,000 iterations and CS-DIP, the other lanes empty."""
    for lane in (3, 2):
        if page.locator(f"#np-method-{lane}").is_visible() and value(page, f"np-method-{lane}") != "none":
            choose(page, f"np-method-{lane}", "none")
    choose(page, "np-method-0", DeepImagePrior.title)
    choose(page, "np-method-1", CSDIP.title)
    names = json.dumps([DeepImagePrior.title, CSDIP.title])
    page.wait_for_function(f"JSON.stringify({VIEW}.state.lanes.map((l) => l.name)) === JSON.stringify({names})")
    number = page.locator("#np-method-0-iterations input[type=number]")
    for _ in range(50):  # the settings are drawn anew after a choice: what was unfolded too early is folded again
        if number.is_visible():
            break
        unfold(page, f"{DeepImagePrior.title} settings")
        page.wait_for_timeout(300)
    number.fill("2000")
    number.press("Tab")
    page.wait_for_function("document.querySelector('#np-preset-0 input')?.value === 'changed by hand'")


def test_from_an_example_to_the_zip(open_page: Open, tmp_path: Path) -> None:
    page = open_page()
    page.locator("#np-sets button.thumbnail-item").first.click()
    page.wait_for_function(f"{VIEW}.state.type === 'setup'")
    two_methods(page)
    assert [lane["state"] for lane in state(page)["lanes"]] == ["ready", "ready"]

    # run: both tiles change and the PSNR rises
    press(page, "run")
    wait_iterations(page, 2)
    before, early = page.evaluate(HASHES), state(page)
    assert len(early["lanes"]) == 2
    wait_iterations(page, 30)
    after, later = page.evaluate(HASHES), state(page)
    assert all(a != b for a, b in zip(before, after, strict=True))
    assert later["lanes"][0]["psnr"] > later["first"][0] + 1
    assert later["lanes"][0]["best"]["psnr"] >= later["lanes"][0]["psnr"] - 1e-3
    assert later["points"][0] > early["points"][0]

    # pause: it stands still; step: one iteration more of each
    press(page, "pause")
    held = [lane["iteration"] for lane in wait_state(page, "paused")["lanes"]]
    page.wait_for_timeout(600)
    assert [lane["iteration"] for lane in state(page)["lanes"]] == held
    press(page, "step")
    page.wait_for_function(f"{VIEW}.state.lanes[0].iteration > {held[0]}")
    assert [lane["iteration"] for lane in wait_state(page, "paused")["lanes"]] == [i + 1 for i in held]

    # scrub: the pictures of another iteration, exact ones
    shown = page.evaluate(HASHES)
    slide = "(slider) => { slider.value = 2; slider.dispatchEvent(new Event('input')); }"
    page.eval_on_selector("#live [data-ref=slider]", slide)
    page.wait_for_function("document.querySelector('#live [data-ref=at]').textContent === 'it 2'")
    page.wait_for_function(f"{VIEW}.exact !== null")
    page.wait_for_function(f"({HASHES})().every((h, i) => h !== {json.dumps(shown)}[i])")
    assert "exact" in page.locator("#live .np-sub").first.text_content()
    press(page, "live")

    # go on, stop, results
    press(page, "pause")
    wait_iterations(page, held[0] + 3)
    press(page, "stop")
    final = wait_state(page, "stopped")
    assert [lane["state"] for lane in final["lanes"]] == ["stopped", "stopped"]
    page.wait_for_selector("#np-results table")
    rows = page.locator("#np-results tbody tr")
    assert rows.count() == 2
    assert DeepImagePrior.title in rows.first.text_content()
    assert f"{final['lanes'][0]['psnr']:.2f}" in rows.first.text_content()

    # the zip
    page.wait_for_selector("#np-download:not([disabled])")
    with page.expect_download() as download:
        page.click("#np-download")
    file = tmp_path / "run.zip"
    download.value.save_as(file)
    found = read(file.read_bytes())
    assert [lane.summary["method"] for lane in found.lanes] == [DeepImagePrior.title, CSDIP.title]
    assert found.lanes[0].metrics["iteration"][-1] == final["lanes"][0]["iteration"]
    assert found.lanes[0].summary["psnr"] == pytest.approx(final["lanes"][0]["psnr"], abs=1e-3)
    assert found.experiment.methods[0].iterations == 2000  # type: ignore[attr-defined]
    assert 1 in found.lanes[0].frames

    # the zip opened again is a recording to scrub, with everything set as it was
    fresh = open_page()
    unfold(fresh, "Share and restore")
    fresh.set_input_files("#np-open input[type=file]", file)
    fresh.wait_for_function(f"{VIEW}.state.type === 'recording' && {VIEW}.state.lanes.length === 2")
    assert value(fresh, "np-method-1") == CSDIP.title
    fresh.wait_for_function(f"{VIEW}.tiles.every((t) => t.slot.version > 0)")


def test_own_images_are_used_and_a_broken_one_is_named(open_page: Open, tiny: Tiny, tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    for i in range(4):
        pixels = generator.integers(0, 256, (40 + 9 * i, 60, 3), dtype=np.uint8)
        Image.fromarray(np.asarray(Image.fromarray(pixels[:4, :6]).resize((60, 40 + 9 * i), Image.Resampling.BICUBIC))).save(
            tmp_path / f"own{i}.png"
        )
    (tmp_path / "broken.png").write_bytes((tmp_path / "own0.png").read_bytes()[:300])
    page = open_page(link_of(tiny(methods=[dip(25), {"kind": "adjoint"}])))
    unfold(page, "Use your own images")
    page.set_input_files(
        "#np-shot-files input[type=file]", [tmp_path / name for name in ("own1.png", "broken.png", "own2.png", "own3.png")]
    )
    page.wait_for_selector("[data-testid=toast-body]")
    assert "broken.png" in page.locator("[data-testid=toast-body]").first.text_content()
    page.wait_for_function("document.querySelector('#np-blurb')?.textContent.includes('3 shots')")
    page.set_input_files("#np-target-file input[type=file]", tmp_path / "own0.png")
    page.wait_for_function("document.querySelector('#np-target input')?.value?.includes('own0.png')")
    press(page, "run")
    final = wait_state(page, "finished")
    assert [lane["iteration"] for lane in final["lanes"]] == [25, 1]
    assert all(lane["psnr"] is not None for lane in final["lanes"])
    assert page.locator("#live [data-ref=shots] canvas, #live [data-ref=shots] img").count() == 3


def test_a_number_box_left_with_what_cannot_be_used_says_so_and_shows_what_is_in_use(open_page: Open) -> None:
    page = open_page()
    seeds = page.locator("#np-seeds input")
    for typed, reason in (("99", "is from 1 to 16: not 99"), ("", "needs a number"), ("1.5", "is a whole number: not 1.5")):
        seeds.fill(typed)
        seeds.press("Tab")
        page.get_by_text(f"Runs of each method {reason}. It stays at 1.").wait_for()
        page.wait_for_function("document.querySelector('#np-seeds input').value === '1'")


def test_what_was_changed_a_moment_ago_is_what_is_run(open_page: Open, tiny: Tiny) -> None:
    page = open_page(link_of(tiny(methods=[dip(30), {"kind": "adjoint"}])))
    page.locator("#np-seed input").fill("90")
    page.locator("#np-seeds input").fill("2")
    press(page, "run")
    wait_state(page, "finished")
    run = link.decode(page.evaluate(f"{VIEW}.state.link").split("?x=")[1])
    assert (run.seed, run.seeds) == (90, 2)
    assert (value(page, "np-seed"), value(page, "np-seeds")) == ("90", "2")
    page.wait_for_timeout(1500)  # a preview that comes too late does not take the place of the race
    assert state(page)["type"] == "race"


def test_looking_at_the_set_up_changes_nothing(open_page: Open) -> None:
    page = open_page()
    page.wait_for_function(f"{VIEW}.state.type === 'recording'")
    unfold(page, "Share and restore")
    page.wait_for_function("document.querySelector('#np-link textarea')?.value?.includes('?x=')")
    link_before = page.input_value("#np-link textarea")
    page.click("#np-operator input")
    page.keyboard.press("Escape")
    page.locator("#np-target input").focus()
    for _ in range(14):  # through target, size, channels, operator, noise and the first methods
        page.keyboard.press("Tab")
        page.wait_for_timeout(120)
    page.wait_for_timeout(1000)
    assert page.input_value("#np-link textarea") == link_before
    assert state(page)["type"] == "recording"
    for element in ("np-target", "np-operator"):  # lists that were left are closed
        assert page.locator(f"#{element} ul[role=listbox]:visible").count() == 0


def test_the_link_restores_the_set_up(open_page: Open) -> None:
    page = open_page()
    choose(page, "np-operator", "Inpainting")
    choose(page, "np-method-0", CSDIP.title)
    page.locator("#np-seed input").fill("77")
    page.locator("#np-seed input").press("Tab")
    unfold(page, "Share and restore")
    page.wait_for_function("document.querySelector('#np-link textarea')?.value?.includes('?x=')")

    def settled() -> bool:
        experiment = link.decode(page.input_value("#np-link textarea").split("?x=")[1])
        return experiment.seed == 77 and experiment.methods[0].kind == "cs-dip"

    for _ in range(100):
        if settled():
            break
        page.wait_for_timeout(100)
    assert settled()
    address = page.input_value("#np-link textarea")
    again = open_page("?x=" + address.split("?x=")[1])
    for element in ("np-operator", "np-method-0", "np-method-1", "np-preset-0", "np-target", "np-seed"):
        assert value(again, element) == value(page, element), element
    assert value(again, "np-seed") == "77"
    unfold(again, "Share and restore")
    again.wait_for_function(f"document.querySelector('#np-link textarea')?.value === {json.dumps(address)}")


def test_a_point_of_the_data_axis_shows_its_reconstruction(open_page: Open, tiny: Tiny) -> None:
    method = {"kind": "low-shot", "channels": 8, "pretrain_iterations": 30, "latent_iterations": 2, "joint_iterations": 2}
    experiment = tiny(methods=[method])
    page = open_page(link_of(experiment))
    page.get_by_role("tab", name="Data axis").click()
    page.click("#np-axis-run")
    page.wait_for_function("document.querySelector('#np-axis-progress')?.textContent.includes('Done')", timeout=120_000)
    spots = page.locator("#np-axis-chart .spot")
    assert spots.count() == len(data_axis.points(experiment))
    spots.first.click()
    page.wait_for_function("document.querySelector('#np-axis-choice input').checked")
    page.wait_for_function("document.querySelector('#np-axis-picture').textContent.includes('untrained')")
    spots.nth(1).focus()
    page.keyboard.press("Enter")
    page.wait_for_function("document.querySelector('#np-axis-picture').textContent.includes('2 examples')")

    press(page, "run")
    wait_state(page, "finished")
    page.click("#np-walk")
    for shown in ("examples", "steps"):
        page.wait_for_function(f"document.querySelector('#np-walk-{shown} img')?.naturalWidth > 0")


def test_a_link_made_by_hand_is_a_warning_and_no_markup(open_page: Open, tiny: Tiny) -> None:
    text = json.dumps({**json.loads(tiny().to_json()), "<img src='http://example.invalid/x.png'>": 1})
    hostile = base64.urlsafe_b64encode(zlib.compress(text.encode())).decode().rstrip("=")
    page = open_page(f"?x={hostile}")
    toast = page.locator("[data-testid=toast-body]").first
    toast.wait_for()
    assert "<img src=" in toast.text_content()
    assert page.locator("[data-testid=toast-body] img").count() == 0
    assert value(page, "np-operator")  # the page is usable, at its defaults
    assert page.is_enabled("#live [data-ref=run]")


def test_a_second_tab_waits_its_turn_and_a_closed_one_frees_the_device(
    open_page: Open, tiny: Tiny, server: Server, tmp_path: Path
) -> None:
    address = link_of(tiny(methods=[dip(50_000)]))
    first, second = open_page(address), open_page(address)
    first.dblclick("#live [data-ref=run]")  # pressed twice: one run
    wait_iterations(first, 3)
    run = state(first)["run"]
    press(second, "run")
    waiting = wait_state(second, "waiting")
    assert waiting["place"] == 1
    assert "next in line" in second.text_content("#live [data-ref=status]")
    assert state(first)["run"] == run
    first.context.close()
    wait_iterations(second, 3)  # would wait behind 50,000 iterations
    second.context.close()
    client = Client(server.url, verbose=False, download_files=str(tmp_path), analytics_enabled=False)
    job = client.submit(tiny(methods=[{"kind": "adjoint"}]).model_dump(mode="json"), api_name="/run")
    job.result(timeout=60)
    assert job.outputs()[-1]["state"] == "finished"
    client.close()


def test_without_a_truth_no_psnr_is_shown(open_page: Open, tiny: Tiny, tmp_path: Path) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40), dtype=np.uint8)).save(tmp_path / "noisy.png")
    page = open_page(link_of(tiny(methods=[dip(10), {"kind": "adjoint"}])))
    unfold(page, "Use your own images")
    page.set_input_files("#np-target-file input[type=file]", tmp_path / "noisy.png")
    page.wait_for_function("document.querySelector('#np-target input')?.value?.includes('noisy.png')")
    page.get_by_label("the measurement itself").check()
    page.wait_for_function(f"{VIEW}.state.strip.truth === null")
    press(page, "run")
    final = wait_state(page, "finished")
    assert all(lane["psnr"] is None and lane["best"] is None for lane in final["lanes"])
    page.wait_for_selector("#np-results table")
    assert "PSNR" not in page.text_content("#np-results thead")
    assert "No ground truth" in page.text_content("#np-results")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_shows_it_without_scrolling_sideways(open_page: Open, scheme: str) -> None:
    page = open_page(f"?__theme={scheme}", width=390, height=844, color_scheme=scheme)
    page.wait_for_function("document.fonts.status === 'loaded'")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.evaluate("document.body.scrollWidth") <= 390
    assert ("dark" in (page.get_attribute("body", "class") or "")) == (scheme == "dark")
    brightness = page.evaluate(
        "getComputedStyle(document.querySelector('gradio-app')).backgroundColor.match(/\\d+/g).slice(0, 3).map(Number)"
    )
    assert (sum(brightness) < 200) == (scheme == "dark")


def test_the_server_had_no_error(server: Server) -> None:
    assert "Traceback" not in server.log.read_text()
