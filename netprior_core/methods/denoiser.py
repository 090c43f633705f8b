"""The denoiser by itself: one pass, no iteration."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Literal

import torch

from netprior_core import denoisers
from netprior_core.errors import Unsolvable
from netprior_core.methods._common import partial, squares
from netprior_core.methods._tunable import Grid, Tunable
from netprior_core.methods.base import Method
from netprior_core.methods.pnp import denoiser_at_hand, denoiser_setting, refused
from netprior_core.problem import Problem, Step
from netprior_core.settings import setting


class OnePassDenoiser(Tunable):
    """A denoiser, once: ``x̂ = D(y, σ)``, with σ of the measurement times ``strength``. For denoising.

    The small DRUNet has no bias and is told σ by a map beside the picture, so that one network knows all noise levels (Zhang et
    al. 2021, "Plug-and-Play Image Restoration with Deep Denoiser Prior", section III); it is narrower than the published one
    and was taught for 4,025 seconds on one thread: its card says how well it does. BM3D and total variation are the alternatives
    without learning.
    """

    title: ClassVar[str] = "Denoiser, one pass"
    family: ClassVar[str] = "Plug-and-play"
    order: ClassVar[int] = 80
    citation: ClassVar[str] = (
        "K. Zhang, Y. Li, W. Zuo, L. Zhang, L. Van Gool, R. Timofte, Plug-and-Play Image Restoration with Deep Denoiser Prior, "
        "TPAMI 2021"
    )

    tunable: ClassVar[Mapping[str, Grid]] = {"strength": (0.6, 0.8, 1.25, 1.6)}

    kind: Literal["denoiser"] = "denoiser"
    denoiser: denoisers.Name = denoiser_setting()
    strength: float = setting(1.0, "σ that the denoiser is told, over the true one.", ge=0.1, le=5, unit="× σ", main=True)

    def at_hand(self) -> Method:
        return self.model_copy(update={"denoiser": denoiser_at_hand(self.denoiser)})

    def accepts(self, problem: Problem) -> str | None:
        if problem.operator.kind != "denoising":
            name = type(problem.operator).title.lower() or problem.operator.kind
            return (
                f"{self.title} cleans a noisy picture: it solves denoising only, not {name}. PnP-ADMM takes it to other operators."
            )
        if problem.noise_std is None:
            return f"{self.title} has to be told how strong the noise is, and this noise has no standard deviation."
        return super().accepts(problem) or partial(problem, self.title) or refused(self.title, self.denoiser, problem.shape[0])

    def _solve(self, problem: Problem, seed: int, prepared: Any) -> Iterator[Step]:
        y = problem.measurement
        if not bool(torch.isfinite(y).all()):
            raise Unsolvable(f"{self.title}: the measurement holds invalid values (not a number, or infinite).")
        assert problem.noise_std is not None
        estimate = denoisers.load(self.denoiser, problem.device)(y, self.strength * problem.noise_std)
        misfit = squares(problem.model.forward(estimate) - y).flatten(1).mean(dim=1)
        yield Step(1, 1, "solve", estimate, estimate, misfit)
        yield Step(1, 1, "result", estimate, estimate, misfit, info={"returns": 1})
