"""Mismatch: what the methods are told differs from how the measurement was made, as it does outside a simulation."""

from __future__ import annotations

from typing import ClassVar, Literal

from netprior_core.errors import InvalidSettings
from netprior_core.operators import Operator
from netprior_core.settings import Settings, setting


class Mismatch(Settings):
    """How wrong the methods' picture of the measurement is.

    Measuring and reconstructing with one and the same discrete A is the "inverse crime" (Kaipio & Somersalo 2007): it makes every
    method look better than it would on real data. Nothing is wrong by default, as in the papers; the page says so.
    """

    title: ClassVar[str] = "Mismatch"

    kind: Literal["mismatch"] = "mismatch"
    operator_error: float = setting(
        0.0, "How wrong the operator is that methods are told; 0 is exact.", ge=0, le=1, label="Operator error", main=True
    )
    noise_factor: float = setting(
        1.0,
        "Methods are told this many times the true noise level.",
        ge=0.1,
        le=10,
        unit="× σ",
        label="Noise told",
        log=True,
        main=True,
    )
    finer_grid: bool = setting(
        False, "Measure a picture with twice the pixels along each side, reconstruct on the usual grid.", main=True
    )

    def require(self, operator: Operator) -> None:
        """Raises InvalidSettings when this operator cannot be wrong in the way that is asked for."""
        if self.operator_error and not operator.error_means:
            raise InvalidSettings(
                f"{operator.title} has nothing in it that methods could be told wrongly. Set the operator error to 0."
            )
        if self.finer_grid and not operator.simulates_finer:
            raise InvalidSettings(f"{operator.title} cannot be simulated on a finer grid. Turn that off.")

    def describe(self, operator: Operator) -> str:
        """What is wrong, in words; "" when nothing is."""
        parts = []
        if self.operator_error:
            share = "" if self.operator_error == 1 else f"{self.operator_error:g} × "
            parts.append(f"methods are told a wrong A ({share}{operator.error_means})")
        if self.noise_factor != 1:
            parts.append(f"methods are told {self.noise_factor:g} × the true σ")
        if self.finer_grid:
            parts.append("measured on a grid twice as fine")
        return "; ".join(parts)
