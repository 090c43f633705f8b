"""A program that talks to the running app: ``/run`` streams and gives the numbers of a headless run, and says no in words."""

from __future__ import annotations

import json
import socket
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from gradio_client import Client
from gradio_client.exceptions import AppError
from shared import Server, dip, serving

from netprior_core.experiment import Experiment, race_of
from netprior_core.race import summary

Tiny = Callable[..., Experiment]


@pytest.fixture(scope="module")
def client(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    found = Client(server.url, verbose=False, download_files=str(tmp_path_factory.mktemp("client")), analytics_enabled=False)
    yield found
    found.close()


def said(client: Client, experiment: Any) -> str:
    with pytest.raises(AppError) as caught:
        client.predict(experiment, api_name="/run")
    return str(caught.value)


def test_a_run_streams_and_ends_with_the_numbers_of_a_headless_run(client: Client, tiny: Tiny) -> None:
    experiment = tiny(methods=[dip(120), {"kind": "adjoint"}, {"kind": "bicubic"}])
    job = client.submit(experiment.model_dump(mode="json"), api_name="/run")
    job.result(timeout=120)
    messages = job.outputs()
    final = messages[-1]
    assert final["state"] == "finished"
    assert "PSNR" in final["convention"]
    assert len(messages) >= 2
    iterations = [message["rows"][0]["iterations"] for message in messages]
    assert iterations == sorted(iterations)
    assert iterations[-1] == 120
    expected = summary(race_of(experiment, {}, keep_frames=False).run())
    assert [row["state"] for row in final["rows"]] == ["finished", "finished", "refused"]
    for row, mine in zip(final["rows"], expected, strict=True):
        assert row["method"] == mine["method"]
        assert row["message"] == mine["message"]
        for name in ("psnr", "best_psnr", "ssim", "residual"):
            assert row[name] == (None if mine[name] is None else pytest.approx(mine[name], abs=1e-4))
        assert row["best_iteration"] == mine["best_iteration"]


def document(**changes: Any) -> dict[str, Any]:
    target = {"source": "embedded", "set": "faces", "index": 0}
    base: dict[str, Any] = {
        "format": "netprior-experiment",
        "target": target,
        "size": 32,
        "channels": 1,
        "methods": [{"kind": "adjoint"}],
    }
    return {**base, "operator": {"kind": "denoising"}, **changes}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"methods": [{"kind": "dip", "learning_rate": 7}]}, "learning_rate"),
        ({"methods": [{"kind": "dip", "iterations": 10**9}]}, "iterations"),
        ({"noise": {"kind": "gaussian", "sigma": -3}}, "sigma"),
        ({"operator": {"kind": "compressed-sensing", "ratio": 9}}, "ratio"),
        ({"version": 2}, "newer NetPrior"),
        ({"methods": [{"kind": "dip", "version": 5}]}, "newer NetPrior"),
        ({"size": 256}, "128×128"),
        ({"surprise": 1}, "surprise"),
        ({"format": "x"}, "not an experiment"),
        ({"target": {"source": "upload", "sha256": "ab" * 32, "name": "me.png"}}, "me.png"),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_what_does_not_fit_is_said_in_words(client: Client, changes: dict[str, Any], words: str) -> None:
    assert words in said(client, document(**changes))


@pytest.mark.parametrize("given", [None, 3, "text", [], {}], ids=repr)
def test_what_is_no_experiment_is_refused(client: Client, given: Any) -> None:
    assert said(client, given)


def test_cancelling_frees_the_device(client: Client, tiny: Tiny) -> None:
    long = client.submit(tiny(methods=[dip(50_000)]).model_dump(mode="json"), api_name="/run")
    first = next(iter(long))
    assert first["state"] in ("ready", "running")
    long.cancel()
    quick = client.submit(tiny(methods=[{"kind": "adjoint"}]).model_dump(mode="json"), api_name="/run")
    quick.result(timeout=60)  # would wait for ever behind 50,000 iterations
    assert quick.outputs()[-1]["state"] == "finished"


def test_only_run_is_public(client: Client, server: Server) -> None:
    api: Any = client.view_api(return_format="dict", print_info=False)
    assert list(api["named_endpoints"]) == ["/run"]
    assert api["unnamed_endpoints"] == {}
    config = json.load(urllib.request.urlopen(server.url + "/config", timeout=30))
    public = [d["api_name"] for d in config["dependencies"] if d.get("api_visibility", "public") == "public"]
    assert public == ["run"]


def test_it_listens_on_this_machine_only(server: Server) -> None:
    assert server.url == f"http://127.0.0.1:{server.port}"
    listening = (
        [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]] if Path("/proc/net/tcp").exists() else []
    )
    mine = [row[1].split(":")[0] for row in listening if row[3] == "0A" and int(row[1].split(":")[1], 16) == server.port]
    assert mine == ["0100007F"] or not listening
    with socket.socket() as probe, pytest.raises(OSError, match="refused"):
        probe.connect(("127.0.0.2", server.port))


def test_no_file_of_the_machine_is_served(server: Server) -> None:
    for path in ("/etc/passwd", "app.py", str(server.log)):
        with pytest.raises(urllib.error.HTTPError):
            urllib.request.urlopen(f"{server.url}/gradio_api/file={path}", timeout=30)


def test_a_second_one_takes_the_next_free_port(server: Server, tmp_path: Path) -> None:
    with serving(tmp_path, port=server.port) as second:
        assert server.port < second.port < server.port + 50
