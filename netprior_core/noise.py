"""Noise models: what is added to a clean measurement, with the unit said."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import BeforeValidator, SerializeAsAny

from netprior_core.settings import Registry, Settings, setting


class Noise(Settings):
    """A noise model ``y = noise(A x)``, drawn on the CPU from a seed so that every device sees the same."""

    registry: ClassVar[Registry[Any]] = Registry("noise model")
    unit: ClassVar[str] = ""

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        cls.registry.add(cls)

    def apply(self, clean: torch.Tensor, *, seed: int) -> torch.Tensor:
        """A noisy copy of ``clean`` (any shape and device)."""
        raise NotImplementedError

    def std(self, clean_shape: tuple[int, ...]) -> float | None:
        """Standard deviation in units of the measurement, or None when it depends on the image."""
        raise NotImplementedError

    def describe(self) -> str:
        """The noise in a few words, unit included."""
        return self.title


class GaussianNoise(Noise):
    """White Gaussian noise, e ~ N(0, (σ/255)²), σ in 8-bit units (25 means 25/255 when images are in [0, 1])."""

    title: ClassVar[str] = "Gaussian"
    unit: ClassVar[str] = "8-bit levels"

    kind: Literal["gaussian"] = "gaussian"
    sigma: float = setting(
        25.0, "Standard deviation of the noise on each measurement.", ge=0, le=100, unit="of 255", label="Noise σ", main=True
    )

    def apply(self, clean: torch.Tensor, *, seed: int) -> torch.Tensor:
        if self.sigma == 0:
            return clean.clone()
        generator = torch.Generator().manual_seed(seed)
        noise = torch.randn(clean.shape, generator=generator, dtype=torch.float32)
        return clean + noise.to(clean) * (self.sigma / 255)

    def std(self, clean_shape: tuple[int, ...]) -> float | None:
        return self.sigma / 255

    def describe(self) -> str:
        return f"Gaussian noise, σ = {self.sigma:g} of 255" if self.sigma else "no noise"


AnyNoise = Annotated[SerializeAsAny[Noise], BeforeValidator(Noise.registry.parse)]
