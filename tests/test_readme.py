"""The README keeps its promises: every method and operator is in it, and its example of a new method works as printed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from netprior_core.experiment import parse, race_of
from netprior_core.methods import Method
from netprior_core.operators import Operator

README = (Path(__file__).resolve().parents[1] / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("cls", [*Method.registry, *Operator.registry], ids=lambda cls: cls.__name__)
def test_every_method_and_operator_has_a_row(cls: Any) -> None:
    assert f"| {cls.title} |" in README


def test_the_example_of_a_new_method_solves() -> None:
    code = re.search(r"```python\n(.*?)```", README, re.S)
    assert code is not None
    namespace: dict[str, Any] = {"__name__": "readme_example"}
    try:
        exec(compile(code[1], "README.md", "exec", dont_inherit=True), namespace)
        experiment = parse(
            {
                "format": "netprior-experiment",
                "target": {"source": "embedded", "set": "faces"},
                "size": 32,
                "channels": 1,
                "operator": {"kind": "super-resolution", "factor": 2},
                "noise": {"kind": "gaussian", "sigma": 0},
                "methods": [{"kind": "landweber", "iterations": 60}],
            }
        )
        lane = race_of(experiment, {}).run().lanes[0]
    finally:
        Method.registry._members.pop("landweber", None)
    assert lane.state == "finished", lane.message
    assert lane.curve.objective[-1] < lane.curve.objective[0]
    assert lane.curve.psnr[-1] > lane.curve.psnr[0]


def test_the_hugging_face_front_matter_names_the_app() -> None:
    front = README.split("---")[1]
    assert "sdk: gradio" in front
    assert "app_file: app.py" in front
