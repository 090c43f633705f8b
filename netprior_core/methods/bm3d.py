"""BM3D: similar patches are stacked, and what the stack has in common is kept."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Literal

from netprior_core import denoisers
from netprior_core.methods import _classical
from netprior_core.methods._common import partial
from netprior_core.methods._tunable import Grid, Tunable
from netprior_core.problem import Problem, Step
from netprior_core.settings import setting


class BM3D(Tunable):
    """BM3D: the denoiser that everybody compares with. Block matching, then joint filtering of the stacks, twice.

    For y = x + e, e ~ N(0, σ²): hard thresholding of the 3-D transform of each stack of similar blocks, then Wiener filtering
    with the first result as pilot (Dabov, Foi, Katkovnik & Egiazarian 2007); colour in opponent space with blocks matched in the
    luma (CBM3D). One step: the answer comes at once.

    This is the authors' own package ``bm3d`` (Mäkinen, Azzari & Foi 2020), which is not part of NetPrior and is **licensed for
    non-commercial use only** (Tampere University). Without it the method is greyed out. It runs on the CPU.
    """

    title: ClassVar[str] = "BM3D"
    family: ClassVar[str] = _classical.FAMILY
    order: ClassVar[int] = 63
    citation: ClassVar[str] = (
        "K. Dabov, A. Foi, V. Katkovnik, K. Egiazarian, Image denoising by sparse 3-D transform-domain collaborative filtering, "
        "IEEE TIP 2007; Y. Mäkinen, L. Azzari, A. Foi, Collaborative filtering of correlated noise, IEEE TIP 2020"
    )

    tunable: ClassVar[Mapping[str, Grid]] = {"strength": (0.6, 0.8, 1.25, 1.6)}

    kind: Literal["bm3d"] = "bm3d"
    strength: float = setting(1.0, "σ that BM3D is told, over the true one.", ge=0.1, le=5, unit="× σ", main=True)

    def accepts(self, problem: Problem) -> str | None:
        if problem.operator.kind != "denoising":
            return f"{self.title} denoises: choose denoising, or D-AMP with BM3D for compressed sensing."
        if problem.noise_std is None:
            return f"{self.title} has to be told how strong the noise is, and nobody knows here."
        if reason := partial(problem, self.title):
            return reason
        missing = denoisers.get("bm3d").available()
        return f"{self.title}: {missing}" if missing else super().accepts(problem)

    def _solve(self, problem: Problem, seed: int, prepared: Any) -> Iterator[Step]:
        _classical.finite_measurement(problem, self.title)
        denoise = denoisers.load("bm3d", problem.device)
        yield from _classical.at_once(self, problem, denoise(problem.measurement, self.strength * (problem.noise_std or 0.0)))
