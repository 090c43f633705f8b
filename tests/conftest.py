"""What several tests share: small experiments, methods made for one test, a served app, a browser."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from pydantic import create_model
from shared import Server, Solve, experiment_of, serving

from netprior_core.experiment import Experiment
from netprior_core.methods import Method


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    """Everything here is tiny: threads would spend their time waiting for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """The global generator, from which many tests draw their data, begins alike for each: none passes or fails by chance."""
    torch.manual_seed(0)


@pytest.fixture
def tiny() -> Callable[..., Experiment]:
    """``tiny(seed=1, …)``: :func:`experiment_of`."""
    return experiment_of


@pytest.fixture
def stub() -> Iterator[Callable[..., Method]]:
    """``stub("kind", solve, refuses="…")``: a method that exists during this test only."""
    members = Method.registry._members
    before = dict(members)

    def make(kind: str, solve: Solve, *, refuses: str | None = None) -> Method:
        cls: Any = create_model(f"Stub_{kind}", __base__=Method, kind=(Literal[kind], kind))
        cls.title = kind.title()
        cls._solve = lambda self, problem, seed, prepared: solve(problem, seed)
        cls.accepts = lambda self, problem: refuses
        return cls()

    yield make
    members.clear()
    members.update(before)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One app for the tests of a module, on a free port, with a home of its own."""
    with serving(tmp_path_factory.mktemp("app"), "--max-size", "128") as running:
        yield running


# -- the browser -------------------------------------------------------------------------------------------------------------

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
FLAGS += ["--disable-component-update", "--disable-sync"]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Headless Chromium: $CHROMIUM, or the one on the path; skipped where there is none."""
    playwright = pytest.importorskip("playwright.sync_api")
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    if not chromium or not Path(chromium).exists():
        pytest.skip("Chromium is not installed")
    with playwright.sync_playwright() as driver:
        running = driver.chromium.launch(executable_path=chromium, args=FLAGS)
        yield running
        running.close()


@pytest.fixture
def open_page(browser: Any, server: Server) -> Iterator[Callable[..., Any]]:
    """Open the app. At the end of the test nothing was complained about on the console and nothing was asked of another host."""
    contexts, complaints = [], []

    def opened(query: str = "", width: int = 1280, height: int = 1000, **options: Any) -> Any:
        context = browser.new_context(viewport={"width": width, "height": height}, **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(30_000)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        page.on("request", lambda r: complaints.append(r.url) if not r.url.startswith((server.url, "data:", "blob:")) else None)
        page.goto(f"{server.url}/{query}")
        page.wait_for_selector("#live .np-status:not(:empty)")
        knows = "document.querySelector('#live .np').parentElement.netpriorView.messages > 0"
        page.wait_for_function(f"document.querySelector('#np-operator input')?.value && {knows}")
        return page

    yield opened
    for context in contexts:
        context.close()
    assert complaints == []
