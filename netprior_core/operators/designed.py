"""Designed sensing: rows made from example images, so that images like them keep their distances in the measurement."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch

from netprior_core.compute import choose
from netprior_core.errors import InvalidSettings, MissingPrior
from netprior_core.generators import generator_for, samples
from netprior_core.operators import compressed_sensing
from netprior_core.operators._sensing import (
    GAIN_ERROR_MEANS,
    MOST,
    SensingModel,
    rows_of,
    too_many,
    values_of,
    words_of_bytes,
)
from netprior_core.operators.base import Draw, ForwardModel, Operator
from netprior_core.operators.compressed_sensing import hartley
from netprior_core.problem import Shape
from netprior_core.settings import setting

#: Most differences of examples that a design looks at.
MOST_SECANTS = 4000
#: Samples that stand for a generator's range, and their seed.
GENERATED, SAMPLES_SEED = 512, 20_190_225
#: Directions of the examples whose singular value is below this share of the largest are rounding, not image.
RANK_TOLERANCE = 1e-5
#: Image values that are taken to float64 at a time.
BLOCK = 65_536
#: Steps of the design, and the multiplications that all of them together may take (about a second).
STEPS = 200
MULTIPLICATIONS = 3e9
#: The worst deviation is stood in for by the mean of this power.
POWER = 8
#: No designed row is shorter than this share of the longest: the pseudo-inverse divides by their lengths.
SHORTEST = 0.05


class DesignedSensing(Operator):
    """Designed sensing: weighted sums of all pixels, with weights made from the examples instead of drawn at random.

    y = A x + e with A ∈ R^{m×n} of orthogonal rows, a near-isometry on the differences (secants) of the examples: the condition
    under which projected gradient descent onto a set of images converges, and with which a learned A needs fewer measurements
    than a random one (restricted eigenvalue condition; NPGD slides, convergence analysis). The rows are, in this order: the mean
    picture's part outside the examples' span; the r directions of the span where m allows, else a design with least worst
    deviation |‖A v‖² − 1| over the secants v, as in NuMax (Hegde, Sankaranarayanan, Yin & Baraniuk 2015, IEEE TSP 63); random
    orthonormal directions of all that the examples lack.

    "rows" gives a row of A the energy of a row of Gaussian compressed sensing with N(0, 1/m) entries, n/m on average: the same
    light, spent where images differ. "isometry" sets ‖A v‖ ≈ ‖v‖ on the secants and in the mean outside their span, so that
    images like the examples are as strong against the noise as they are with a random A: then only the geometry differs.

    "generator" makes the rows from samples of the trained generator for this size in place of the examples: differences of its
    images are what NPGD's slides design A for.
    """

    title: ClassVar[str] = "Designed sensing"
    order: ClassVar[int] = 32
    equation: ClassVar[str] = "y = A x + e"
    shows: ClassVar[str] = "each grey value is one measured number"
    needs_shots: ClassVar[bool] = True
    error_means: ClassVar[str] = GAIN_ERROR_MEANS
    lesson: ClassVar[str] = (
        "If we know what kind of picture to expect, why ask random questions? Here the weights of each sum are made from your "
        "examples, so that two different pictures of their kind give clearly different numbers. A few such questions tell more "
        "than as many random ones about pictures like the examples, and little about others. Compare with compressed sensing at "
        "the same number of measurements. The strip shows the numbers as grey values, the designed ones first."
    )
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "as much light as random": {},
        "as strong a signal as random": {"normalisation": "isometry"},
        "digits, m = 25": {"count": 25},
        "for the trained generator": {"source": "generator", "normalisation": "isometry"},
    }

    kind: Literal["designed-sensing"] = "designed-sensing"
    ratio: float = setting(
        0.1, "Measurements per image value.", ge=0.0005, le=1.0, label="Ratio m/n", main=True, log=True, when=("count", 0)
    )
    count: int = setting(
        0,
        "Exact number of measurements m. 0 takes the ratio. With more of them than examples the rest are random.",
        ge=0,
        le=MOST,
        label="Count m",
        main=True,
    )
    normalisation: Literal["rows", "isometry"] = setting(
        "rows",
        "What is equal to a random A of variance 1/m: the energy of the rows, or the energy that images like the examples have "
        "in the measurement.",
    )

    source: Literal["shots", "generator"] = setting(
        "shots",
        "What images the rows are made from: your examples, or what the trained generator for this size draws.",
        label="Made from",
    )

    def wants_shots(self) -> bool:
        return self.source == "shots"

    def refuses(self, shape: Shape) -> str | None:
        reason = too_many(shape, self.count)
        if reason is None and self.source == "generator":
            try:
                generator_for(shape)
            except MissingPrior as error:
                reason = f"{self.title}: {error}"
        return reason

    def _build(self, shape: Shape, draw: Draw) -> ForwardModel:
        shots = draw.shots
        if self.source == "generator":
            # Always the same samples: they belong to the generator, not to this draw of A.
            shots = samples(generator_for(shape), choose("float32", "cpu"), GENERATED, seed=SAMPLES_SEED)
        assert shots is not None
        if tuple(shots.shape[1:]) != tuple(shape):
            have, want = ("×".join(map(str, s)) for s in (shots.shape[1:], shape))
            raise InvalidSettings(f"{self.title}: the examples are {have} and the image is {want}. Make them the same size.")
        m = rows_of(values_of(shape), self.ratio, self.count)
        of = "the generator's pictures" if self.source == "generator" else "the examples"
        return DesignedModel(shape, m, shots, self.normalisation, draw, of)


@dataclass(frozen=True, eq=False)
class Design:
    """Orthogonal rows ``lengths[:, None] * basis`` that keep the distances of a set of images. Everything is float64, on the CPU.

    mean: of the images, ``(n,)``. basis: ``(q, n)``, orthonormal. lengths: ``(q,)``, positive. rank: r, of the images' differences.
    deviation: the largest |‖A v‖²/scale − 1| over the secants v, scale the mean of ‖A v‖²; pairs: how many secants.
    random_deviation: the same for one Gaussian matrix of ``m`` rows. kept: directions of the images that the design could use.
    """

    mean: torch.Tensor
    basis: torch.Tensor
    lengths: torch.Tensor
    rank: int
    kept: int
    pairs: int
    deviation: float
    random_deviation: float


def secants(points: torch.Tensor, generator: torch.Generator, most: int = MOST_SECANTS) -> torch.Tensor:
    """Normalised differences ``(x_i − x_j) / ‖x_i − x_j‖`` of points ``(S, …)``, as ``(P, d)``; equal points give none.

    All S (S − 1) / 2 of them, or ``most`` of these, drawn without replacement from ``generator``.
    """
    points = points.flatten(1)
    first, second = torch.triu_indices(len(points), len(points), 1)
    if len(first) > most:
        chosen = torch.randperm(len(first), generator=generator)[:most].sort().values
        first, second = first[chosen], second[chosen]
    found = points[first] - points[second]
    sizes = found.norm(dim=1, keepdim=True)
    different = sizes[:, 0] > 1e-9 * points.norm(dim=1).max().clamp_min(1e-30) if len(points) else sizes[:, 0] > 0
    return found[different] / sizes[different]


def near_isometry(images: torch.Tensor, m: int, generator: torch.Generator, *, most: int | None = None) -> Design:
    """At most ``m`` orthogonal rows under which ``images`` ``(S, …)`` (shots, or samples of a generator) keep their distances.

    For m > r, an orthonormal basis of the span of their differences (and the mean's part outside it): exact. Else the design
    described in :class:`DesignedSensing`, started from the principal components. ``most`` bounds the basis, for its memory: then
    the first principal components stand for the span, and a difference counts with what random rows see of it, in the mean.
    Deterministic given ``generator``'s state.
    """
    flat = images.detach().flatten(1).cpu()
    mean = flat.mean(dim=0, dtype=torch.float64)
    span, points = _span(flat, mean, max(1, most - 1) if most else len(flat))
    outside = mean - span.T @ (span @ mean)
    # A row for the mean, unless the examples have none outside their span, or the only row is better spent on what differs.
    has_mean = float(outside.norm()) > 1e-6 * max(float(mean.norm()), 1e-6) and (m > 1 or not len(span))
    top = (outside / outside.norm())[None] if has_mean else span[:0]
    left = m - len(top)
    pairs = secants(points, generator)
    turns, lengths = torch.eye(len(span), dtype=torch.float64), torch.ones(len(span), dtype=torch.float64)
    if left < len(span):
        turns, lengths = _designed(pairs[:, : len(span)], left)
    # What no direction was kept for is seen by the random rows, as far as there are any.
    chance = (left - len(turns)) / max(flat.shape[1] - len(top) - len(turns), 1)
    seen = torch.cat([(pairs[:, : len(span)] @ turns.T) * lengths, pairs[:, len(span) :] * math.sqrt(chance)], dim=1)
    return Design(
        mean=mean,
        basis=torch.cat([top, turns @ span]),
        lengths=torch.cat([torch.ones(len(top), dtype=torch.float64), lengths]),
        rank=points.shape[1],
        kept=len(span),
        pairs=len(pairs),
        deviation=_deviation(seen),
        random_deviation=_deviation(_gaussian(pairs, m, generator)),
    )


class DesignedModel(SensingModel):
    """``A = diag(l) [Q; B'] · scale``: q designed rows, and k rows of random directions orthogonal to them.

    The latter are those of B = R H D (signs, Hartley transform, choice of k; see compressed sensing) made orthonormal on the
    complement of Q: B' = (I − C Cᵀ)^(−1/2) (B − C Q) with C = B Qᵀ, a correction of rank q. So A Aᵀ is diagonal, the
    pseudo-inverse is Aᵀ (A Aᵀ)⁻¹ and only q (n + k) numbers are stored.
    """

    has_pinv = True

    def __init__(self, shape: Shape, m: int, shots: torch.Tensor, normalisation: str, draw: Draw, of: str = "the examples") -> None:
        super().__init__(shape, m, draw)
        # The design is made in float64, and its last step holds the basis twice.
        most = compressed_sensing.MEMORY_BUDGET // (16 * (self.n + m))
        generator = draw.generator()
        design = near_isometry(shots, m, generator, most=most)
        q = len(design.basis)
        k = m - q
        signs = (torch.randint(0, 2, (1, self.n), generator=generator) * 2 - 1).double()
        rows = torch.randperm(self.n, generator=generator)[:k].sort().values
        across = torch.cat([hartley(row[None] * signs)[:, rows] for row in design.basis]).T if q else signs.new_zeros((k, 0))
        shares, turned = torch.linalg.eigh(across.T @ across)
        lost = shares.clamp(0, 1 - 1e-12)
        # (I − C Cᵀ)^(−1/2) = I + U ((1 − σ²)^(−1/2) − 1) Uᵀ with C Cᵀ = U σ² Uᵀ, U = C W / σ; written so that σ = 0 does no harm.
        grown = torch.where(lost > 1e-9, ((1 - lost).rsqrt() - 1) / lost.clamp_min(1e-9), 0.5)
        lengths = torch.cat([design.lengths, torch.ones(k, dtype=torch.float64)])
        if normalisation == "rows":
            lengths = lengths * math.sqrt(self.n / float(lengths.square().sum()))
        else:
            lengths[q:] *= math.sqrt((self.n - q) / max(k, 1))

        def kept(value: torch.Tensor) -> torch.Tensor:
            return value.to(self.dtype).to(self.device)

        self.basis, self.signs, self.lengths = kept(design.basis), kept(signs), kept(lengths)
        self.across, self.root = kept(across @ turned), kept(grown)
        self.rows = rows.to(self.device)
        self._line = self._words(design, of)
        self.mean = kept(design.mean).view(1, *shape)

    def norm(self) -> float:
        """The length of the longest row, since rows are orthogonal."""
        return float(self._weights().abs().max())

    def describe(self) -> str:
        return self._line

    def _words(self, design: Design, of: str) -> str:
        q = len(design.basis)
        line = f"designed A: {q:,} of {self.m:,} rows from {of}, {self.m - q:,} random ones on what {of} lack"
        if design.kept < design.rank:
            budget = words_of_bytes(compressed_sensing.MEMORY_BUDGET)
            line += f"; only the {design.kept} main of their {design.rank} directions fit (budget {budget})"
        if design.pairs:
            line += (
                f"; on {design.pairs:,} differences of {of}, ‖A v‖²/‖v‖² is constant within {_percent(design.deviation)} "
                f"(random Gaussian A of as many rows: {_percent(design.random_deviation)})"
            )
        return line

    def _forward(self, x: torch.Tensor) -> torch.Tensor:
        flat = x.flatten(1)
        known = flat @ self.basis.T
        rest = hartley((flat - known @ self.basis) * self.signs).index_select(1, self.rows)
        return torch.cat([known, self._whitened(rest)], dim=1) * self._weights()

    def _adjoint(self, y: torch.Tensor) -> torch.Tensor:
        return self._transposed(y * self._weights())

    def _pinv(self, y: torch.Tensor) -> torch.Tensor:
        return self._transposed(y / self._weights())

    def _preview(self, y: torch.Tensor) -> torch.Tensor:
        """The strip of the root of every value, sign kept: the designed rows are far stronger than the random ones."""
        return super()._preview(y.sign() * y.abs().sqrt())

    def _initial(self, y: torch.Tensor) -> torch.Tensor:
        """The picture nearest to the examples' mean that measures as y."""
        return self.mean + self._pinv(y - self._forward(self.mean))

    def _weights(self) -> torch.Tensor:
        return self.lengths if self.gains is None else self.lengths * self.gains

    def _whitened(self, rest: torch.Tensor) -> torch.Tensor:
        """``(I − C Cᵀ)^(−1/2)``, symmetric."""
        return rest + ((rest @ self.across) * self.root) @ self.across.T

    def _transposed(self, y: torch.Tensor) -> torch.Tensor:
        q = len(self.basis)
        known, rest = y[:, :q], self._whitened(y[:, q:])
        spectrum = y.new_zeros((len(y), self.n)).index_copy(1, self.rows, rest)
        back = hartley(spectrum) * self.signs
        return (back + (known - back @ self.basis.T) @ self.basis).view(-1, *self.shape)


def _span(flat: torch.Tensor, mean: torch.Tensor, most: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Principal directions ``(≤ most, n)`` of images ``(S, n)`` about their mean; coordinates in all r of them, ``(S, r)``.

    By the S × S Gram matrix, in blocks, so that the images are never copied whole.
    """
    count = len(flat)
    gram = torch.zeros((count, count), dtype=torch.float64)
    for block, middle in zip(flat.split(BLOCK, dim=1), mean.split(BLOCK), strict=True):
        centred = block.double() - middle
        gram += centred @ centred.T
    energies, vectors = torch.linalg.eigh(gram)
    energies, vectors = energies.flip(0), vectors.flip(1)
    rank = int((energies > RANK_TOLERANCE**2 * energies[0].clamp_min(1e-12)).sum()) if count > 1 else 0
    sizes, vectors = energies[:rank].sqrt(), vectors[:, :rank]
    coordinates = vectors * sizes
    if not rank:
        return mean.new_zeros((0, len(mean))), coordinates
    # The columns sum to 0 but for rounding, so that the images' mean, which is large, would drop out.
    weights = ((vectors - vectors.mean(dim=0)) / sizes)[:, :most]
    directions, triangle = torch.linalg.qr(torch.cat([block.double().T @ weights for block in flat.split(BLOCK, dim=1)]))
    return (directions * triangle.diagonal().sign()).T.contiguous(), coordinates


def _designed(pairs: torch.Tensor, m: int) -> tuple[torch.Tensor, torch.Tensor]:
    """m orthonormal rows in the coordinates of the span, and their lengths: least p-mean of |‖P v‖² − 1| over the secants.

    P is free; P = U diag(l) Wᵀ measures lengths as diag(l) Wᵀ does, which has orthogonal rows. Adam from the principal
    components, in float32; the iterate of least worst deviation is kept.
    """
    r = pairs.shape[1]
    vectors = pairs.float()
    rows = torch.eye(m, r)
    rows = (rows / _squared(vectors, rows).mean().clamp_min(1e-6).sqrt()).requires_grad_()
    steps = max(20, min(STEPS, int(MULTIPLICATIONS / (3 * max(vectors.numel(), 1) * m))))
    optimizer = torch.optim.Adam([rows], lr=0.05 / math.sqrt(r))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    best, least = rows.detach().clone(), math.inf
    with torch.enable_grad():
        for _ in range(steps):
            off = (_squared(vectors, rows) - 1).abs()
            worst = off.detach().max()
            if float(worst) < least:
                best, least = rows.detach().clone(), float(worst)
            optimizer.zero_grad()
            ((off / worst.clamp_min(1e-6)).pow(POWER).mean().pow(1 / POWER) * worst).backward()
            optimizer.step()
            schedule.step()
    _, lengths, directions = torch.linalg.svd(best.double(), full_matrices=False)
    return directions, lengths.clamp_min(SHORTEST * float(lengths.max()))


def _squared(vectors: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    return (vectors @ rows.T).square().sum(dim=1)


def _gaussian(pairs: torch.Tensor, m: int, generator: torch.Generator) -> torch.Tensor:
    """What a Gaussian A of m rows makes of the secants: as many numbers each as keep all lengths.

    In coordinates of an r-dimensional span A is an m × r Gaussian matrix G, and for m > r, R of G = Q R measures lengths alike.
    """
    r = pairs.shape[1]
    gram = torch.zeros((r, r), dtype=torch.float64)
    for first in range(0, m, 8192):
        block = torch.randn((min(8192, m - first), r), generator=generator).double()
        gram += block.T @ block
    energies, vectors = torch.linalg.eigh(gram / m)
    return (pairs @ vectors) * energies.clamp_min(0).sqrt()


def _deviation(measured: torch.Tensor) -> float:
    energy = measured.square().sum(dim=1)
    return float((energy / energy.mean().clamp_min(1e-30) - 1).abs().max()) if len(energy) else 0.0


def _percent(share: float) -> str:
    return f"±{100 * share:.2g}%" if share > 1e-6 else "rounding"
