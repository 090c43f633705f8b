"""What the browser tests do with a page: ask the live view what it knows, press, choose, unfold."""

from __future__ import annotations

import json
from typing import Any

from netprior_core import link
from netprior_core.experiment import Experiment

VIEW = "document.querySelector('#live .np').parentElement.netpriorView"
HASHES = """() => [...document.querySelectorAll('#live .np-tile canvas')].map((c) => {
  const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;
  let sum = 0;
  for (let k = 0; k < d.length; k += 97) sum = (sum * 31 + d[k]) % 1000003;
  return sum;
})"""


def state(page: Any) -> dict[str, Any]:
    """What the live view knows: state, run, iterations and scores of the lanes, number of curve points."""
    return page.evaluate(  # type: ignore[no-any-return]
        f"""() => {{ const s = {VIEW}.state; return {{
            type: s.type, state: s.state, run: s.run, place: s.place,
            lanes: s.lanes.map(({{name, state, iteration, psnr, best}}) => ({{name, state, iteration, psnr, best}})),
            points: [...s.curves.values()].map((c) => c.iteration.length),
            first: [...s.curves.values()].map((c) => c.psnr[0]) }}; }}"""
    )


def wait_state(page: Any, *states: str) -> dict[str, Any]:
    page.wait_for_function(f"{json.dumps(states)}.includes({VIEW}.state.state) && {VIEW}.pending === null")
    return state(page)


def wait_iterations(page: Any, least: int) -> None:
    page.wait_for_function(f"{VIEW}.state.type === 'race' && {VIEW}.state.lanes.every((l) => l.iteration >= {least})")


def press(page: Any, ref: str) -> None:
    page.click(f"#live [data-ref={ref}]:not([disabled])")


def choose(page: Any, element: str, label: str) -> None:
    """Choose an entry of a drop-down by its text, once the list that was opened before it has closed."""
    page.wait_for_function("!document.querySelector('ul[role=listbox]')")
    page.click(f"#{element} input")
    page.locator(f"ul[role=listbox] [role=option][aria-label={json.dumps(label)}]").click()
    page.wait_for_function(f"document.querySelector('#{element} input')?.value === {json.dumps(label)}")


def unfold(page: Any, title: str) -> None:
    page.get_by_role("button", name=title).first.click()


def value(page: Any, element: str) -> str:
    return page.input_value(f"#{element} input")  # type: ignore[no-any-return]


def link_of(experiment: Experiment) -> str:
    text = link.encode(experiment)
    assert text is not None
    return f"?x={text}"
