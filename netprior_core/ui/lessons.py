"""Every method in a few sentences for a newcomer, with the equation it solves. What has no lesson yet shows its own summary."""

from __future__ import annotations

import html
from collections.abc import Mapping

from netprior_core.methods import Method

_FIT = "‖<i>A f<sub>θ</sub></i>(<i>z</i>) − <i>y</i>‖²"

#: kind of method: (equation as HTML, what it does and what to look for, at most 70 words)
METHODS: Mapping[str, tuple[str, str]] = {
    "dip": (
        f"min<sub><i>θ</i></sub> {_FIT}, <i>x̂</i> = <i>f<sub>θ</sub></i>(<i>z</i>)",
        "A convolutional network with random weights <i>θ</i> draws a picture from a fixed random input <i>z</i>. Its weights are "
        "changed until its picture measures like yours. It saw no other picture: that it draws edges and surfaces more easily than "
        "noise is all that it knows. Left running, it draws the noise too, so it must be stopped.",
    ),
    "deep-decoder": (
        "min<sub><i>C</i></sub> ‖<i>A G<sub>C</sub></i>(<i>z</i>) − <i>y</i>‖²",
        "A network so small that it has fewer weights than the picture has pixels: it only mixes channels, enlarges, and mixes "
        "again. Too small to draw noise well, it hardly needs stopping. The price: fine detail does not fit in either.",
    ),
    "siren": (
        "min<sub><i>θ</i></sub> ‖<i>A f<sub>θ</sub></i> − <i>y</i>‖², <i>f<sub>θ</sub></i>: (row, column) → colour",
        "The picture is a function: asked for a place, the network answers with a colour. Sines inside it make smooth waves "
        "of chosen fineness. A weak prior without convolutions: neighbouring pixels are tied together by smoothness alone.",
    ),
    "dip-tv": (
        f"min<sub><i>θ</i></sub> {_FIT} + <i>λ</i> TV(<i>f<sub>θ</sub></i>)",
        "A Deep Image Prior that also pays for every jump between neighbouring pixels (total variation, TV). Flat regions and "
        "sharp edges are cheap, grain is dear. With a good <i>λ</i> the picture stays good much longer; too large a <i>λ</i> "
        "paints it in flat patches.",
    ),
    "self-guided-dip": (
        f"min<sub><i>θ</i>,<i>z</i></sub> {_FIT} + <i>α</i> ‖<i>f<sub>θ</sub></i>(<i>z</i>) − <i>z</i>‖²",
        "In a Deep Image Prior the input <i>z</i> is meaningless noise. Here it is learned as well, and becomes a picture: the "
        "network must turn it, with fresh noise on top, into itself. So it practises removing noise while it fits the measurement.",
    ),
    "aseqdip": (
        f"<i>z<sub>k</sub></i><sub>+1</sub> = <i>f<sub>θ</sub></i>(<i>z<sub>k</sub></i>), "
        f"min<sub><i>θ</i></sub> {_FIT} + <i>λ</i> ‖<i>f<sub>θ</sub></i>(<i>z</i>) − <i>z</i>‖²",
        "Starts from the cheap first picture. Every few steps what the network drew becomes its next input, and a second "
        "term asks that it change that input little. Going round like this removes noise a little at a time.",
    ),
    "cs-dip": (
        "min<sub><i>w</i></sub> ‖<i>A G<sub>w</sub></i>(<i>z</i>) − <i>y</i>‖² + <i>λ</i> TV(<i>G<sub>w</sub></i>(<i>z</i>))",
        "The network is a generator of the kind that draws faces after long training, but untrained. Fitted to a few random sums "
        "of the pixels, with a price on jumps, it finds a plausible picture. From the measurements of similar pictures it can "
        "learn what its weights tend to be.",
    ),
    "low-shot": (
        "min<sub><i>z</i></sub>, then min<sub><i>z</i>,<i>θ</i></sub> ‖<i>A G<sub>θ</sub></i>(<i>z</i>) − <i>y</i>‖²",
        "First a generator <i>G</i> learns to draw your examples, each from a code <i>z</i> of its own. Then, for a new "
        "measurement, only the code is searched: the answer stays one of the kind it knows. At last weights and code move "
        "together, so that the answer may differ from all examples.",
    ),
    "edip": (
        f"<i>θ</i><sub>0</sub> = taught, min<sub><i>θ</i></sub> {_FIT} + <i>γ</i> TV(<i>f<sub>θ</sub></i>), "
        "<i>z</i> = <i>A</i><sup>†</sup><i>y</i>",
        "A network was taught beforehand to clean up cheap first pictures, of generated phantoms (tomography) or photographs. "
        "Shown your first picture it answers at once; then, like a Deep Image Prior, its weights are fitted to your measurement. "
        "Look at iteration 0: that is education alone.",
    ),
    "metadip": (
        f"<i>θ<sub>t</sub></i><sub>+1</sub> = <i>θ<sub>t</sub></i> − <i>η<sub>t</sub></i> ∇{_FIT}, <i>θ</i><sub>0</sub>, "
        "<i>η</i> learned",
        "Where should a Deep Image Prior start, and how large should its steps be? Both were learned by rehearsing many short "
        "runs, so that a few steps end near the truth. Fifty steps then do what takes hundreds from random weights: put DIP "
        "beside it.",
    ),
    "metasiren": (
        "<i>θ</i><sub>0</sub> learned, <i>θ<sub>t</sub></i><sub>+1</sub> = <i>θ<sub>t</sub></i> − <i>η</i> ∇‖<i>A f<sub>θ</sub></i>"
        " − <i>y</i>‖²",
        "The same rehearsal for a network that answers places with colours (SIREN). It starts as a blurred average of the pictures "
        "rehearsed on and adapts in a few large steps. The weaker prior of the two: compare it with MetaDIP.",
    ),
    "adjoint": (
        "<i>x̂</i> = <i>A</i><sup>T</sup> <i>y</i>",
        "The cheapest picture: every measured number is smeared back over the pixels it came from, and what was not measured stays "
        "empty. No prior, no iterations. What a method adds to this is what its prior knew.",
    ),
    "pseudo-inverse": (
        "<i>x̂</i> = <i>A</i><sup>+</sup> <i>y</i>",
        "Of all pictures that explain the measurement exactly, the smallest one: everything that <i>A</i> cannot see is set to "
        "zero. The best that can be done without a prior when there is no noise; with noise it explains the noise as well.",
    ),
    "bicubic": (
        "<i>x̂</i> = cubic interpolation of <i>y</i>",
        "Smooth curves through the pixels of the small picture, as photo programs enlarge. It invents no detail and "
        "makes no bold mistakes: the yardstick for super-resolution.",
    ),
    "csgm": (
        "min<sub><i>z</i></sub> ‖<i>A G</i>(<i>z</i>) − <i>y</i>‖² + <i>λ</i> ‖<i>z</i>‖²",
        "A generator was trained to draw pictures of one kind from codes <i>z</i>. Its weights stay as they are; the code is "
        "searched whose picture measures like yours. Very few measurements are enough, but what the generator cannot draw is never "
        "found: with more measurements it stops getting better.",
    ),
    "pgdgan": (
        "<i>x</i> ← nearest <i>G</i>(<i>z</i>) to <i>x</i> + <i>η A</i><sup>T</sup>(<i>y</i> − <i>A x</i>)",
        "Two steps in turn: move the picture so that it measures more like <i>y</i>, then replace it by the nearest one that the "
        "generator can draw, found by a search over its codes. Safe but slow: every turn holds a search of its own.",
    ),
    "npgd": (
        "<i>x</i> ← <i>G</i>(<i>G</i><sup>†</sup>(<i>x</i> + <i>η A</i><sup>T</sup>(<i>y</i> − <i>A x</i>)))",
        "As PGDGAN, but the search is replaced by a second network <i>G</i><sup>†</sup>, which looks at a picture and says at once "
        "which code draws something like it. A step costs two looks through networks, so a whole run takes a blink. It ends as "
        "near as <i>G</i><sup>†</sup> is exact; polishing the code along gradients of <i>G</i> gets the rest.",
    ),
    "iagan": (
        "min<sub><i>z</i></sub>, then min<sub><i>z</i>,<i>θ</i></sub> ‖<i>A G<sub>θ</sub></i>(<i>z</i>) − <i>y</i>‖²",
        "First the best code for a trained generator, as in CSGM; then its weights may change as well, so that the picture can "
        "leave what it was trained on. Many measurements make the second part worth while, few make it risky.",
    ),
    "lasso": (
        "min<sub><i>c</i></sub> ½ ‖<i>A W</i><sup>T</sup><i>c</i> − <i>y</i>‖² + <i>λ</i> ‖<i>c</i>‖<sub>1</sub>",
        "The classical prior: pictures are sums of few waves or wavelets <i>W</i>. The 1-norm prefers many coefficients to be "
        "exactly zero. Nothing is learned, and no stopping is needed: the iterations settle. Years of compressed sensing "
        "rest on it.",
    ),
    "tv": (
        "min<sub><i>x</i></sub> ½ ‖<i>A x</i> − <i>y</i>‖² + <i>λ</i> TV(<i>x</i>)",
        "Of all pictures that fit, the one with the fewest and smallest jumps between neighbours. Edges survive, noise and grain "
        "do not; slopes turn into steps when <i>λ</i> is large. No network: the yardstick that a learned prior has to beat.",
    ),
    "tval3": (
        "min Σ ‖<i>w<sub>i</sub></i>‖, <i>w</i> = ∇<i>x</i>, <i>A x</i> = <i>y</i>",
        "Total variation again, solved in another way: the jumps <i>w</i> are unknowns of their own and are tied to the picture "
        "ever more closely. Untrained networks were first compared with it in compressed sensing.",
    ),
    "bm3d": (
        "<i>x̂</i> = BM3D(<i>y</i>, <i>σ</i>)",
        "Pictures repeat themselves. Blocks that look alike are stacked, the stack is transformed, what is small in it is thrown "
        "away; then once more with the first result as a guide. Before networks it was the denoiser to beat, and it "
        "still is a hard one.",
    ),
    "d-amp": (
        "<i>x</i> ← <i>D</i>(<i>x</i> + <i>A</i><sup>T</sup><i>z</i>; <i>σ̂</i>), <i>z</i> ← <i>y</i> − <i>A x</i> + correction",
        "Compressed sensing as repeated denoising: what is left over is sent back through <i>A</i><sup>T</sup>, and a correction "
        "keeps the error of each picture like plain noise, which is what the denoiser <i>D</i> was made for. A few turns are "
        "enough; with too few measurements it runs away.",
    ),
    "fbp": (
        "<i>x̂</i> = Σ<sub><i>θ</i></sub> back-projection of <i>h</i> ∗ <i>y<sub>θ</sub></i>",
        "What scanners did for decades: every shadow is sharpened with a filter <i>h</i>, then smeared back over the picture along "
        "its rays. Exact with very many views; with few, streaks. A denoiser can clean up afterwards.",
    ),
    "denoiser": (
        "<i>x̂</i> = <i>D</i>(<i>y</i>, <i>σ</i>)",
        "A network that was shown many pictures with and without noise, and told how strong the noise was, answers in one pass. "
        "It knows what thousands of pictures have in common; DIP beside it knows nothing but its own shape.",
    ),
    "pnp-admm": (
        "<i>x</i> = fit(<i>v</i> − <i>u</i>), <i>v</i> = <i>D</i>(<i>x</i> + <i>u</i>), <i>u</i> ← <i>u</i> + <i>x</i> − <i>v</i>",
        "Plug-and-play: a denoiser <i>D</i> serves as the prior for any operator. One step makes the picture fit the measurement, "
        "the next cleans it, and a memory <i>u</i> of their disagreement makes the two meet.",
    ),
    "dpir": (
        "<i>x</i> = fit(<i>v</i>), <i>v</i> = <i>D</i>(<i>x</i>, <i>σ<sub>k</sub></i>), <i>σ<sub>k</sub></i> ↓ <i>σ</i>",
        "Fit to the measurement and denoise, in turns: at first as if the noise were strong, so that only broad shapes stay, then "
        "less and less. Eight to twenty-four turns are all it takes.",
    ),
    "red": (
        "min<sub><i>x</i></sub> ½ ‖<i>A x</i> − <i>y</i>‖² + (<i>ρ</i>/2) <i>x</i><sup>T</sup>(<i>x</i> − <i>D</i>(<i>x</i>))",
        "A picture is good when a denoiser leaves it alone. What the denoiser <i>D</i> would take away, <i>x</i> − "
        "<i>D</i>(<i>x</i>), is used as the slope of the prior, and the picture slides down until fit and prior balance.",
    ),
    "noise-impedance": (
        "min<sub><i>θ</i></sub> ‖<i>f<sub>θ</sub></i>(<i>z</i>) − <i>t</i>‖²",
        "No reconstruction but a demonstration: the same untrained network is fitted to a target <i>t</i> that is a picture, a "
        "noisy picture, shuffled pixels or pure noise. It can draw all of them; how long it resists is what makes it a prior.",
    ),
}


def method_html(method: type[Method]) -> str:
    """A method's card: title, equation, lesson."""
    kind = method.model_fields["kind"].default
    equation, text = METHODS.get(kind, ("", html.escape(method.summary().replace("``", ""))))
    line = f"<p class='np-equation'>{equation}</p>" if equation else ""
    return f"<h3>{html.escape(method.title)}</h3>{line}<p>{text}</p>"
