"""Noise models: what is added to a clean measurement, with the unit said."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import BeforeValidator, SerializeAsAny

from netprior_core.errors import InvalidSettings
from netprior_core.settings import Registry, Settings, setting


class Noise(Settings):
    """A noise model ``y = noise(A x)``, drawn on the CPU from a seed so that every device sees the same."""

    registry: ClassVar[Registry[Any]] = Registry("noise model")
    order: ClassVar[int] = 100
    #: Whether it is Gaussian noise added to the clean measurement, with a standard deviation that ``std`` knows.
    additive: ClassVar[bool] = False

    @property
    def white(self) -> bool:
        """Whether it is additive, and as it is drawn: independent from value to value, nothing cut off."""
        return self.additive

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        if isinstance(cls.model_fields["kind"].default, str):  # a family without a kind of its own is not one to choose
            cls.registry.add(cls)

    def apply(self, clean: torch.Tensor, *, seed: int) -> torch.Tensor:
        """A noisy copy of ``clean`` ``(1, *measurement shape)``, on its device. Raises InvalidSettings where it makes no sense."""
        raise NotImplementedError

    def std(self, measurement: torch.Tensor) -> float | None:
        """Standard deviation in units of ``measurement``, estimated from it where it depends on it; None when it has none."""
        raise NotImplementedError

    def describe(self) -> str:
        """The noise in a few words, unit included."""
        return self.title


class AdditiveNoise(Noise):
    """White Gaussian noise e ~ N(0, s²) on every measured value; subclasses say what s is."""

    additive: ClassVar[bool] = True

    def apply(self, clean: torch.Tensor, *, seed: int) -> torch.Tensor:
        std = self.std(clean)
        if not std:
            return clean.clone()
        return clean + std * self._draw(clean, seed)

    def _draw(self, clean: torch.Tensor, seed: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(clean.shape, generator=generator, dtype=torch.float32).to(clean)

    def std(self, measurement: torch.Tensor) -> float:
        raise NotImplementedError


class GaussianNoise(AdditiveNoise):
    """White Gaussian noise, e ~ N(0, (σ/255)²), σ in 8-bit units (25 means 25/255 when images are in [0, 1]).

    Published figures differ in two details, given here as options: the noisy image of DIP and Deep Decoder is clipped to
    [0, 1], and Deep Decoder's noise is the same in all channels.
    """

    title: ClassVar[str] = "Gaussian"
    order: ClassVar[int] = 10

    kind: Literal["gaussian"] = "gaussian"
    sigma: float = setting(
        25.0, "Standard deviation of the noise on each measurement.", ge=0, le=100, unit="of 255", label="Noise σ", main=True
    )
    clip: bool = setting(False, "Clip the noisy measurement to [0, 1], as a camera does. For measurements that are pictures.")
    grey: bool = setting(False, "The same noise in all colour channels.", label="Equal in all channels")

    @property
    def white(self) -> bool:
        return not (self.clip or self.grey)

    def apply(self, clean: torch.Tensor, *, seed: int) -> torch.Tensor:
        noisy = super().apply(clean, seed=seed)
        return noisy.clamp_(0, 1) if self.clip else noisy

    def _draw(self, clean: torch.Tensor, seed: int) -> torch.Tensor:
        if self.grey and clean.ndim >= 3:
            return super()._draw(clean[:, :1], seed).expand_as(clean)
        return super()._draw(clean, seed)

    def std(self, measurement: torch.Tensor) -> float:
        return self.sigma / 255

    def describe(self) -> str:
        if not self.sigma:
            return "no noise"
        words = ", equal in all channels" * self.grey + ", clipped" * self.clip
        return f"Gaussian noise, σ = {self.sigma:g} of 255{words}"


class TotalVarianceNoise(AdditiveNoise):
    """White Gaussian noise whose variance is shared by the m measurements, as in compressed sensing with A ~ N(0, 1/m).

    CS-DIP (Van Veen et al. 2018, section 5.1): e ~ N(0, σ²/m) for images in [−1, 1]; in [0, 1] that is a standard deviation of
    σ / (2 √m). The released code takes σ/m for the standard deviation instead (σ / (2 m) here).
    """

    title: ClassVar[str] = "Gaussian, shared variance"
    order: ClassVar[int] = 20

    kind: Literal["gaussian-total"] = "gaussian-total"
    variance: float = setting(
        10.0,
        "σ², the variance of all m measurements together, for images in [−1, 1].",
        ge=0,
        le=1e5,
        label="Variance σ²",
        main=True,
    )
    reading: Literal["published", "released"] = setting(
        "published", "Published: each measurement has variance σ²/m. Released code: standard deviation σ/m."
    )

    def std(self, measurement: torch.Tensor) -> float:
        m = measurement[0].numel()
        return 0.5 * self.variance**0.5 / (m**0.5 if self.reading == "published" else m)

    def describe(self) -> str:
        return f"Gaussian noise, variance {self.variance:g}/m for images in [−1, 1]" if self.variance else "no noise"


class RelativeNoise(AdditiveNoise):
    """White Gaussian noise relative to the measurement: standard deviation = level · mean |A x|.

    5% is the usual choice in tomography (Otero Baguer et al. 2020; Barbano et al. 2021). What a method is told is the same share
    of mean |y|, since it has no clean measurement.
    """

    title: ClassVar[str] = "Gaussian, relative"
    order: ClassVar[int] = 30

    kind: Literal["gaussian-relative"] = "gaussian-relative"
    level: float = setting(
        5.0, "Standard deviation as a share of the mean size of a measurement.", ge=0, le=100, unit="% of mean |y|", main=True
    )

    def std(self, measurement: torch.Tensor) -> float:
        return self.level / 100 * float(measurement.abs().mean())

    def describe(self) -> str:
        return f"Gaussian noise, {self.level:g}% of mean |y|" if self.level else "no noise"


#: Share of the largest value by which a filter may undershoot 0, and photons still be counted (none, there).
OVERSHOOT = 0.15


class PoissonNoise(Noise):
    """Photon noise. Emission: ``y = Poisson(N z) / N`` for z = A x ≥ 0. Transmission: ``y = −log(Poisson(N e^(−z)) / N)``.

    N is the mean number of photons where z = 1 (emission) or where nothing is in the way (transmission, as in CT; a ray on which
    nothing arrived counts as half a photon). ``std`` is the root mean square over the measurement.
    """

    title: ClassVar[str] = "Poisson"
    order: ClassVar[int] = 40

    kind: Literal["poisson"] = "poisson"
    photons: float = setting(
        100.0, "Photons where the signal is 1 (or the beam is free). Fewer is noisier.", ge=1, le=1e7, log=True, main=True
    )
    law: Literal["emission", "transmission"] = setting(
        "emission", "Emission: a camera counts light. Transmission: X-rays are counted behind an object."
    )

    def apply(self, clean: torch.Tensor, *, seed: int) -> torch.Tensor:
        if self.law == "emission" and float(clean.min()) < -OVERSHOOT * max(float(clean.max()), 1e-3):
            raise InvalidSettings(
                "Poisson noise counts photons, and this operator measures negative values too. Choose Gaussian noise, or another "
                "operator."
            )
        expected = clean.clamp_min(0) if self.law == "emission" else torch.exp(-clean)
        rate = (expected * self.photons).cpu().double().numpy()
        counts = np.random.default_rng(seed).poisson(rate)
        if self.law == "emission":
            return torch.from_numpy(counts / self.photons).to(clean)
        return torch.from_numpy(-np.log(np.maximum(counts, 0.5) / self.photons)).to(clean)

    def std(self, measurement: torch.Tensor) -> float:
        variance = measurement.clamp_min(0) if self.law == "emission" else torch.exp(measurement)
        return float(variance.mean() / self.photons) ** 0.5

    def describe(self) -> str:
        return f"Poisson noise, {self.photons:g} photons" + (
            " behind the object" if self.law == "transmission" else " at full signal"
        )


class SaltAndPepperNoise(Noise):
    """A share of the measured values is lost: half of them read as the least value, half as the largest.

    These are 0 and 1 where the clean measurement lies in [0, 1], as in a picture; else its own least and largest value.
    """

    title: ClassVar[str] = "Salt and pepper"
    order: ClassVar[int] = 50

    kind: Literal["salt-and-pepper"] = "salt-and-pepper"
    share: float = setting(10.0, "Share of the measured values that are lost.", ge=0, le=90, unit="%", main=True)

    def apply(self, clean: torch.Tensor, *, seed: int) -> torch.Tensor:
        low, high = float(clean.min()), float(clean.max())
        if low >= -1e-3 and high <= 1 + 1e-3:
            low, high = 0.0, 1.0
        draw = torch.rand(clean.shape, generator=torch.Generator().manual_seed(seed)).to(clean.device)
        half = self.share / 200
        return torch.where(draw < half, low, torch.where(draw >= 1 - half, high, clean))

    def std(self, measurement: torch.Tensor) -> float | None:
        return None

    def describe(self) -> str:
        return f"salt and pepper on {self.share:g}% of the measured values" if self.share else "no noise"


AnyNoise = Annotated[SerializeAsAny[Noise], BeforeValidator(Noise.registry.parse)]
