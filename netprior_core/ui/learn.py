"""The cards of the Learn view, at most 70 words each, with one equation and an experiment to try: first eight, then more races
and demonstrations."""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from netprior_core.experiment import MAX_LANES, Experiment, parse
from netprior_core.methods import Method
from netprior_core.operators import Operator
from netprior_core.ui.say import inform
from netprior_core.ui.setup import from_set, with_method, with_operator


@dataclass(frozen=True)
class Card:
    """A title, one equation (HTML), a short text, and the changes to an embedded set's set-up that “Try it” fills in.

    ``recording`` names a race of this experiment in ``assets``, to be scrubbed before anything is computed.
    """

    title: str
    equation: str
    text: str
    set: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    recording: str = ""

    def markup(self) -> str:
        """The card as HTML."""
        return f"<h3>{self.title}</h3><p class='np-equation'>{self.equation}</p><p>{self.text}</p>"

    def experiment(self) -> Experiment:
        """The experiment behind “Try it”."""
        base = from_set(self.set).model_dump(mode="json")
        return parse({**base, **self.changes})

    def instead_of(self, now: Experiment, _: Any) -> Experiment:
        """The card's experiment at the seed in use."""
        return self.experiment().model_copy(update={"seed": now.seed})


def operator_html(operator: type[Operator]) -> str:
    """An operator's card: its equation and what it means."""
    equation = f"<p class='np-equation'><i>{html.escape(operator.equation)}</i></p>"
    return f"<h3>{html.escape(operator.title)}</h3>{equation}<p>{html.escape(operator.lesson)}</p>"


def measured_with(kind: str) -> Callable[[Experiment, Any], Experiment]:
    """A change of the experiment in use: the same target, measured with this operator at its defaults."""

    def change(now: Experiment, _: Any) -> Experiment:
        return with_operator(now, kind)

    return change


def solved_with(kind: str) -> Callable[[Experiment, Any], Experiment]:
    """A change of the experiment in use: this method too, in the first free lane, or in place of the last one."""

    def change(now: Experiment, _: Any) -> Experiment:
        kinds = [method.kind for method in now.methods]
        title = Method.registry[kind].title
        if kind in kinds:
            inform(f"{title} is there already, as method {kinds.index(kind) + 1}.")
            return now
        if len(kinds) == MAX_LANES:
            inform(f"{title} takes the place of {now.methods[-1].title}: a race has at most {MAX_LANES} methods.")
        return with_method(now, kind, lane=min(len(kinds), MAX_LANES - 1))

    return change


def _dip(iterations: int, **changes: Any) -> dict[str, Any]:
    return {"kind": "dip", "iterations": iterations, **changes}


_SENSING = {"kind": "compressed-sensing", "ratio": 0.1}
_FEW = {"kind": "compressed-sensing", "ratio": 0.05}

CARDS: tuple[Card, ...] = (
    Card(
        "What is a prior?",
        "<i>y</i> = <i>A</i> <i>x</i> + <i>e</i>",
        "A measurement <i>y</i> never says everything about the image <i>x</i>: many images explain it equally well. A "
        "prior is "
        "whatever makes you prefer one of them. Here it is the shape of a network: what it draws easily counts as likely. "
        "Compare a network with the plain answer that has no prior at all.",
        "coins",
        {
            "operator": {"kind": "inpainting", "keep": 0.3},
            "noise": {"kind": "gaussian", "sigma": 5},
            "methods": [_dip(300), {"kind": "adjoint"}],
        },
    ),
    Card(
        "Why PSNR rises, then falls",
        "min<sub><i>θ</i></sub> ‖<i>A</i> <i>f<sub>θ</sub></i>(<i>z</i>) − <i>y</i>‖²",
        "A Deep Image Prior is an untrained network fitted to the one measurement you have. It draws smooth, regular "
        "structure first and "
        "noise last. So quality climbs, peaks, and drops while the loss keeps falling. Averaging the iterates (second "
        "lane) softens the fall.",
        "camera",
        {
            "size": 64,
            "operator": {"kind": "denoising"},
            "noise": {"kind": "gaussian", "sigma": 40},
            "methods": [_dip(700, averaging=0.0), _dip(700)],
        },
    ),
    Card(
        "The data axis",
        "<i>S</i> = 0, 5, 10, … 100",
        "Between a network that saw nothing and one that saw thousands of faces lies the low-shot prior: it studies the few "
        "examples you have, "
        "then solves. The fewer the measurements, the more an example is worth. Move the number of shots and run again, or "
        "have the whole axis drawn in the tab beside this one.",
        "faces",
        {"operator": _FEW, "noise": {"kind": "gaussian", "sigma": 2}},
    ),
    Card(
        "Start from what was learned",
        "<i>θ</i><sub>0</sub> = <i>θ̂</i>, <i>z</i><sub>0</sub> ∼ N(<i>μ̂</i>, <i>Σ̂</i>)",
        "A pre-trained network is a place to start, not an answer. First only the latent <i>z</i> moves: the image "
        "stays one the network can draw. "
        "Then <i>z</i> and weights <i>θ</i> move together, slowly, so that the result can leave what the examples "
        "showed. Watch the two stages in the curve.",
        "coins",
        {"operator": _SENSING, "noise": {"kind": "gaussian", "sigma": 2}},
    ),
    Card(
        "Colour needs meaning",
        "<i>y</i> = 0.299 <i>R</i> + 0.587 <i>G</i> + 0.114 <i>B</i>",
        "A grey picture fits endless coloured ones exactly. An untrained network has no reason to prefer any, so its "
        "colours drift. "
        "Only examples can say that membranes are brown and nuclei blue. The residual is small for both methods: it "
        "cannot tell them apart.",
        "histology",
        {"operator": {"kind": "colorization"}, "noise": {"kind": "gaussian", "sigma": 0}},
    ),
    Card(
        "<i>A</i> and what it cannot see",
        "<i>A</i>(<i>x</i> + <i>v</i>) = <i>A</i> <i>x</i> whenever <i>A</i> <i>v</i> = 0",
        "With a quarter of the measurements, three quarters of all directions are invisible: change the image along them and "
        "<i>y</i> does not move. "
        "The pseudo-inverse sets them to zero. Every other method fills them in from its prior. Error maps show what "
        "was filled in wrongly.",
        "coins",
        {
            "operator": {"kind": "compressed-sensing", "ratio": 0.25},
            "noise": {"kind": "gaussian", "sigma": 2},
            "methods": [_dip(400), {"kind": "pseudo-inverse"}, {"kind": "adjoint"}],
        },
    ),
    Card(
        "Stopping without the truth",
        "‖<i>A</i> <i>x̂</i> − <i>y</i>‖ ≈ <i>σ</i> √<i>m</i>",
        "Outside a demo nobody knows the PSNR. What you do know is the noise level: once the residual falls below it, "
        "the network has begun to fit noise. "
        "Run, open the Residual curve, and see how near to the PSNR peak it crosses the dotted line at <i>σ</i> "
        "(here 25/255 ≈ 0.098).",
        "cat",
        {
            "size": 64,
            "operator": {"kind": "denoising"},
            "noise": {"kind": "gaussian", "sigma": 25},
            "methods": [_dip(600, averaging=0.0)],
        },
    ),
    Card(
        "Reading the curves",
        "PSNR = −10 log<sub>10</sub> mean (<i>x̂</i> − <i>x</i>)²",
        "PSNR says how near the picture is to the truth: 1 dB more is about a fifth less squared error. A line ends at its "
        "method's name. The hollow diamond is its best iterate, which only the truth can reveal (the oracle): compare methods by "
        "what they <i>return</i>. Iterations differ in cost: switch the axis to seconds before you call one faster.",
        "faces",
        {
            "operator": {"kind": "super-resolution", "factor": 2},
            "noise": {"kind": "gaussian", "sigma": 5},
            "methods": [_dip(300), {"kind": "bicubic"}],
        },
    ),
)

MORE: tuple[Card, ...] = (
    Card(
        "A start from which little is missing",
        "<i>θ</i><sub>0</sub> = arg min E ℓ(<i>θ</i><sub>0</sub> after 20 steps)",
        "Deep Image Prior begins anywhere. MetaDIP begins where fitting many faces has led, with step sizes learned beside: fifty "
        "steps do the work of hundreds. The second lane is the same network from random weights: the start is all the "
        "difference. Look at the curves on the logarithmic axis.",
        "portrait",
        {
            "size": 64,
            "operator": {"kind": "denoising"},
            "noise": {"kind": "gaussian", "sigma": 25},
            "methods": [{"kind": "metadip"}, {"kind": "metadip", "start": "random"}, _dip(500)],
        },
    ),
    Card(
        "What a generator cannot draw",
        "<i>x̂</i> = <i>G</i>(<i>ẑ</i>)",
        "A generator that saw thousands of faces needs few measurements to find one that fits: but only among those it can draw. "
        "This face is near to them, not one of them, and no measurement mends that: CSGM's curve flattens early (representation "
        "error). IAGAN then lets the weights move, and leaves the range. Afterwards ask under Results for the best this prior "
        "could do.",
        "astronaut-face",
        {
            "operator": {"kind": "compressed-sensing", "ratio": 0.1},
            "noise": {"kind": "gaussian", "sigma": 1},
            "methods": [{"kind": "csgm"}, {"kind": "iagan"}, _dip(500)],
        },
    ),
    Card(
        "A denoiser is a prior",
        "<i>x</i> ← <i>D<sub>σ</sub></i>(<i>x</i> − <i>η</i> <i>A</i>ᵀ(<i>A</i> <i>x</i> − <i>y</i>))",
        "A network that only ever removed noise knows what pictures look like. Plug-and-play methods ask it again and again, "
        "between steps towards the measurement: here it sharpens a blurred photograph. Total variation is the oldest such prior: "
        "few, steep edges. Deep Image Prior learned nothing, and takes longest.",
        "camera",
        {
            "size": 128,
            "operator": {"kind": "deblurring"},
            "noise": {"kind": "gaussian", "sigma": 3},
            "methods": [{"kind": "dpir"}, {"kind": "pnp-admm"}, {"kind": "tv"}, _dip(400)],
        },
    ),
    Card(
        "Before networks",
        "min<sub><i>c</i></sub> ½ ‖<i>A</i> <i>W</i>ᵀ<i>c</i> − <i>y</i>‖² + <i>λ</i> ‖<i>c</i>‖<sub>1</sub>",
        "Pictures have few edges, and few large wavelet coefficients. That alone made compressed sensing famous: a slice from a "
        "fraction of its frequencies in a second, no training, no random start. A newer prior has to beat total variation first. "
        "The zero-filled picture is what no prior at all gives.",
        "mri",
        {
            "size": 128,
            "operator": {"kind": "fourier", "pattern": "radial", "lines": 30},
            "noise": {"kind": "gaussian", "sigma": 2},
            "methods": [{"kind": "tv"}, {"kind": "lasso", "basis": "db4"}, _dip(400), {"kind": "adjoint"}],
        },
    ),
    Card(
        "Educated by ellipses",
        "min<sub><i>θ</i></sub> ‖<i>A</i> <i>f<sub>θ</sub></i>(<i>A</i>⁺<i>y</i>) − <i>y</i>‖² + <i>γ</i> TV, from <i>θ̂</i>",
        "A scanner sees a body from 60 sides. Filtered back-projection inverts the formula, noise and all. A network that was "
        "taught on thousands of random ellipses starts from that picture and is then fitted to these views alone: it rises "
        "at once, where an untrained one has to climb.",
        "phantoms",
        {
            "size": 64,
            "operator": {"kind": "tomography", "angles": 60},
            "noise": {"kind": "gaussian-relative", "level": 5},
            "methods": [{"kind": "edip", "tv_weight": 1e-3}, _dip(400), {"kind": "fbp"}],
        },
    ),
)

DEMONSTRATIONS: tuple[Card, ...] = (
    Card(
        "Noise impedance",
        "min<sub><i>θ</i></sub> ‖<i>f<sub>θ</sub></i>(<i>z</i>) − <i>t</i>‖²",
        "The experiment that started it all. One untrained network, four targets: an image, the image with noise, its pixels "
        "shuffled, pure noise. The network could draw all four. Watch the first hundred iterations: the image is fitted fast, "
        "the others resist, and that resistance is the prior. The objectives are drawn on a logarithmic axis.",
        "cat",
        {
            "size": 64,
            "operator": {"kind": "denoising"},
            "noise": {"kind": "gaussian", "sigma": 0},
            "methods": [
                {"kind": "noise-impedance", "iterations": 400, "target": target}
                for target in ("the image", "the image with noise", "its pixels shuffled", "pure noise")
            ],
        },
        recording="noise_impedance.zip",
    ),
    Card(
        "When to stop",
        "Var(<i>x</i><sub><i>t</i>−<i>W</i></sub> … <i>x<sub>t</sub></i>) → min",
        "Four rules watch one run and say where they would stop, none of them seeing the truth. The diamonds in the curve carry "
        "what each loses against the best iterate. Choose one under “Stopped by” to let it really stop the methods.",
        "camera",
        {
            "size": 64,
            "operator": {"kind": "denoising"},
            "noise": {"kind": "gaussian", "sigma": 40},
            "methods": [_dip(600, averaging=0.0), {"kind": "deep-decoder", "iterations": 600, "keep_best": False}],
            "stopping": [
                {"kind": "wmv", "window": 40, "patience": 200},
                {"kind": "emv", "patience": 200},
                {"kind": "discrepancy"},
                {"kind": "held-out", "patience": 200},
            ],
        },
        recording="when_to_stop.zip",
    ),
    Card(
        "The same again?",
        "<i>θ</i><sub>0</sub>, <i>z</i> ∼ seed",
        "A network that starts from random weights ends somewhere else each time. Four runs of each method: the line is the "
        "median, the band the range, and the spread map shows where in the picture they disagree. Differences between methods that "
        "are smaller than the band mean little.",
        "coins",
        {
            "operator": {"kind": "compressed-sensing", "ratio": 0.2},
            "noise": {"kind": "gaussian", "sigma": 4},
            "methods": [_dip(250, averaging=0.0), {"kind": "cs-dip", "iterations": 250}],
            "seeds": 4,
        },
    ),
)
