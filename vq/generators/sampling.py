"""Sampling of indices from logits: guidance, temperature, top-k, top-p, and one uniform number per draw.

The number is a function of the image's seed and of the position alone. So an image is the same in every batch, on
every rank, and with or without a cache, up to the rounding of the logits.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from vq.generators.errors import GeneratorError
from vq.registry import SAMPLING_PARTS

FIRST_CANDIDATES = 1024
"""The number of candidates with which top-p starts; it is doubled until their total probability is large enough."""


class NotFiniteLogitsError(GeneratorError):
    """Logits from which no index can be sampled: NaN, plus infinity, or only minus infinity."""


class Position(NamedTuple):
    """The position in the image at which an index is sampled.

    Attributes:
        place: The position in raster order; -1 if several positions are sampled at once.
        progress: The fraction of the image, in [0, 1), that is already sampled.
    """

    place: int
    progress: float


@dataclass(frozen=True, slots=True)
class Guidance(ABC):
    """A schedule of the classifier-free guidance scale over the course of sampling.

    logits = unconditional + scale * (conditional - unconditional); scale 1 is the conditional model without guidance.

    Source: Ho and Salimans 2022, https://arxiv.org/abs/2207.12598, eq. 6 (their w is scale - 1); the interval as in
        Kynkaanniemi et al. 2024, https://arxiv.org/abs/2404.07724.
    Differs from the source: applied to the logits of a discrete distribution, not to scores.

    Attributes:
        scale: The largest scale.
        start: The fraction of the image, in [0, 1], from which guidance is applied; the scale is 1 before it.
        end: The fraction up to which it is applied.

    Raises:
        ValueError: If the scale is negative or not finite, or not 0 <= start < end <= 1.
    """

    scale: float
    start: float = 0.0
    end: float = 1.0

    def __post_init__(self) -> None:
        name = type(self).__name__
        if not (math.isfinite(self.scale) and self.scale >= 0):
            raise GeneratorError(f"{name}: expected a finite scale of at least 0, got {self.scale}")
        if not 0 <= self.start < self.end <= 1:
            raise GeneratorError(f"{name}: expected 0 <= start < end <= 1, got {self.start} and {self.end}")

    def at(self, progress: float) -> float:
        """The scale when a fraction `progress` in [0, 1) of the image is sampled."""
        if not self.start <= progress < self.end:
            return 1.0
        return 1 + (self.scale - 1) * self.rise((progress - self.start) / (self.end - self.start))

    @abstractmethod
    def rise(self, progress: float) -> float:
        """Maps a fraction of the interval to the fraction of the way from 1 to `scale`."""


@SAMPLING_PARTS.register_module()
class ConstantGuidance(Guidance):
    """A constant scale from `start` to `end`.

    Example:
        >>> ConstantGuidance(2.0, end=0.5).at(0.25), ConstantGuidance(2.0, end=0.5).at(0.5)
        (2.0, 1.0)
    """

    __slots__ = ()

    def rise(self, progress: float) -> float:
        """Returns 1."""
        return 1.0


@SAMPLING_PARTS.register_module()
class LinearGuidance(Guidance):
    """A scale that grows linearly from 1 at `start` to `scale` at `end`.

    Example:
        >>> LinearGuidance(3.0).at(0.5)
        2.0
    """

    __slots__ = ()

    def rise(self, progress: float) -> float:
        """Returns `progress`."""
        return progress


@SAMPLING_PARTS.register_module()
class CosineGuidance(Guidance):
    """A scale that grows along half a cosine period: 1 + (scale - 1) (1 - cos(pi progress)) / 2.

    Source: Gao et al. 2023, https://arxiv.org/abs/2303.14389, eq. 2, with power 1.
    Differs from the source: `progress` is the fraction of an image's positions, not of diffusion steps.

    Example:
        >>> CosineGuidance(3.0).at(0.5)
        2.0
    """

    __slots__ = ()

    def rise(self, progress: float) -> float:
        """Returns (1 - cos(pi progress)) / 2."""
        return (1 - math.cos(math.pi * progress)) / 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampler:
    """Samples indices from logits.

    Attributes:
        guidance: The guidance schedule. Unless it is a `ConstantGuidance` of 1, the network runs twice for every
            image, with and without its class.
        temperature: Divides the logits; 0 takes the likeliest index. The quotient never overflows: as the
            temperature approaches 0, only the likeliest index is left, or several that are exactly equally likely.
        top_k: Only this many of the likeliest indices can be sampled; None for all.
        top_p: Of those, only the smallest number whose probabilities sum to at least this; None for all.
        ranges: The range (start, stop) of allowed values for each index of a position, or one range for all of them;
            None for the whole vocabulary.

    Raises:
        ValueError: If a value is outside its range.
    """

    guidance: Guidance
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    ranges: tuple[tuple[int, int], ...] | None = None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise GeneratorError(
                f"temperature: expected a finite number of at least 0, got {self.temperature}"
            )
        if self.top_k is not None and (type(self.top_k) is not int or self.top_k < 1):
            raise GeneratorError(
                f"top_k: expected a whole number of at least 1, got {self.top_k}; None allows every index"
            )
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise GeneratorError(
                f"top_p: expected a number in (0, 1], got {self.top_p}; None allows every index"
            )

    @property
    def copies(self) -> int:
        """The number of rows that an image takes in the network's batch: 2 with guidance, else 1."""
        return 1 if isinstance(self.guidance, ConstantGuidance) and self.guidance.scale == 1 else 2

    def rows(self, x: Int64[Tensor, "b *rest"]) -> Int64[Tensor, "rows *rest"]:
        """Repeats a batch of images once for each of their rows in the network's batch."""
        return x if self.copies == 1 else torch.cat([x, x])

    def guided(self, logits: Float[Tensor, "rows *v"], progress: float) -> Float[Tensor, "b *v"]:
        """Combines the network's rows, conditional ones first, to the float32 logits of each image.

        An index that is impossible given the class (a logit of minus infinity) stays so at every scale above 0.
        """
        logits = logits.float()
        if self.copies == 1:
            return logits
        conditional, unconditional = logits.chunk(2)
        scale = self.guidance.at(progress)
        if scale in (0, 1):
            return conditional if scale == 1 else unconditional
        return moved_away(unconditional, conditional, scale)

    def pick(
        self,
        logits: Float[Tensor, "*b v"],
        uniform: Float[Tensor, "*b"],
        *,
        place: int = -1,
        depth: int = 0,
    ) -> Int64[Tensor, "*b"]:
        """Samples one index from each row of logits by inverting the cumulative distribution function.

        The vocabulary is never sorted: top-k selects before the softmax. At temperature 0, ties go to the lowest
        index.

        Args:
            logits: Logits after guidance. Minus infinity excludes an index.
            uniform: Numbers in [0, 1).
            place: The position, for error messages; -1 if the last axis before the vocabulary is the positions.
            depth: The number of the index within its position. It selects the range, and appears in error messages.

        Raises:
            NotFiniteLogitsError: If a logit is NaN or plus infinity, or all of them are minus infinity.
        """
        start, logits = self._within_range(logits, depth)
        largest = logits.amax(-1, keepdim=True)
        self.check_finite(largest, logits, place, depth)
        index = logits.argmax(-1) if self.temperature == 0 else self._draw(logits, largest, uniform)
        return index + start

    def confidence(
        self, logits: Float[Tensor, "*b v"], index: Int64[Tensor, "*b"], *, depth: int = 0
    ) -> Float[Tensor, "*b"]:
        """Returns, in float64, the log-probability of each index under its logits within the allowed range.

        It disregards temperature, top-k and top-p.
        """
        start, logits = self._within_range(logits, depth)
        return log_probability(logits, index - start)

    def check_finite(
        self, largest: Float[Tensor, "*b 1"], logits: Float[Tensor, "*b v"], place: int, depth: int
    ) -> None:
        """Raises an error if an index cannot be sampled from some row of logits, given each row's largest one."""
        if not bool(largest.isfinite().all()):
            raise _not_finite(logits, place, depth)

    def _within_range(self, logits: Tensor, depth: int) -> tuple[int, Tensor]:
        """The first allowed value of an index, and the logits of all allowed ones."""
        if self.ranges is None:
            return 0, logits
        start, stop = self.ranges[depth if len(self.ranges) > 1 else 0]
        return start, logits[..., start:stop]

    def _draw(self, logits: Tensor, largest: Tensor, uniform: Tensor) -> Tensor:
        candidates = None
        top_p = 1.0 if self.top_p is None else self.top_p
        if self.top_k is not None and self.top_k < logits.shape[-1]:
            logits, candidates = logits.topk(self.top_k)
            mass = self._tempered(logits, largest).softmax(-1)
        elif top_p < 1:
            mass, candidates = _likeliest(self._tempered(logits, largest), top_p)
        else:
            mass = self._tempered(logits, largest).softmax(-1)
        if top_p < 1:  # the candidates are in descending order
            # An index is kept if those before it sum to less than top_p; the first is always kept.
            mass = mass.where(mass.cumsum(-1) - mass < top_p, 0)
        position = _invert(mass, uniform)
        return position if candidates is None else candidates.gather(-1, position[..., None])[..., 0]

    def _tempered(self, logits: Tensor, largest: Tensor) -> Tensor:
        """Logits minus the largest logit, divided by the temperature, so that none is above 0."""
        return (logits.double() - largest.double()) / self.temperature


def sampler_of(*, guidance: Guidance | float = 1.0, **settings: Any) -> Sampler:
    """Makes a `Sampler`, whose guidance may be given as a number for a constant scale.

    Raises:
        ValueError: If a value is outside its range.
        TypeError: If a setting is unknown or has the wrong type.
    """
    if isinstance(guidance, int | float):
        guidance = ConstantGuidance(float(guidance))
    if not isinstance(guidance, Guidance):
        raise TypeError(f"guidance: expected a number or a Guidance, got {guidance!r}")
    return Sampler(guidance=guidance, **settings)


def moved_away(
    unconditional: Float[Tensor, "b *v"],
    conditional: Float[Tensor, "b *v"],
    scale: float | Float[Tensor, "1"],
) -> Float[Tensor, "b *v"]:
    """Computes unconditional + scale * (conditional - unconditional); a conditional minus infinity stays as it is."""
    moved = torch.lerp(unconditional, conditional, scale)
    return moved.masked_fill(conditional == -torch.inf, -torch.inf)


def log_probability(logits: Float[Tensor, "*b v"], index: Int64[Tensor, "*b"]) -> Float[Tensor, "*b"]:
    """Computes the log-probability of an index, accurate in float64 even if the probability rounds to 1.

    log p_i = -log(1 + sum_{j != i} exp(l_j - l_i)), which keeps the precision of 1 - p.

    Example:
        >>> log_probability(torch.tensor([[100.0, 0.0]]), torch.tensor([0]))
        tensor([-3.7201e-44], dtype=torch.float64)
    """
    own = index[..., None]
    exact = logits.double()
    others = exact.scatter(-1, own, -torch.inf).logsumexp(-1)
    gap = others - exact.gather(-1, own)[..., 0]
    return -torch.logaddexp(gap, torch.zeros_like(gap))


def _not_finite(logits: Tensor, place: int, depth: int) -> NotFiniteLogitsError:
    """An error that names the first image and position whose logits cannot be sampled from."""
    is_bad = ~logits.amax(-1).isfinite()
    where = [int(i) for i in is_bad.nonzero()[0]]
    row = logits[tuple(where)]
    found = (
        "NaN"
        if bool(row.isnan().any())
        else "plus infinity"
        if bool((row > 0).any())
        else "only minus infinity"
    )
    picture = where[0] if where else 0
    place = where[1] if place < 0 and len(where) > 1 else max(place, 0)
    return NotFiniteLogitsError(
        f"sampling: expected finite logits, got {found} for image {picture} of the batch at position {place}, index "
        f"{depth} of the position; the generator's weights are not finite, or the guidance overflows; use an earlier "
        f"checkpoint, or a smaller guidance scale"
    )


def uniform_numbers(seeds: Int64[Tensor, "b"], count: int, stream: int = 0) -> Float[Tensor, "b {count}"]:
    """Generates float64 numbers in [0, 1), each a function of its seed, the stream and its position alone.

    Source: Steele et al. 2014, https://doi.org/10.1145/2714064.2660195 (the 53 highest bits of SplitMix64).
    Differs from the source: the seed is mixed once, so that neighbouring seeds give unrelated numbers.

    Args:
        seeds: Any 64-bit integers.
        count: The number of values per seed.
        stream: The number of an independent stream.

    Example:
        >>> a = uniform_numbers(torch.tensor([3, 4]), 2)
        >>> torch.equal(a[1:], uniform_numbers(torch.tensor([4]), 2))
        True
    """
    start = _mix(_mix(seeds) + _signed(stream * 0xD1B54A32D192ED03 % 2**64))
    step = torch.arange(1, count + 1, device=seeds.device) * _signed(0x9E3779B97F4A7C15)
    return _shifted(_mix(start[:, None] + step), 11).double() * 2.0**-53


def _mix(x: Tensor) -> Tensor:
    x = (x ^ _shifted(x, 30)) * _signed(0xBF58476D1CE4E5B9)
    x = (x ^ _shifted(x, 27)) * _signed(0x94D049BB133111EB)
    return x ^ _shifted(x, 31)


def _shifted(x: Tensor, bits: int) -> Tensor:
    """A logical right shift, which int64 does not have."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _signed(x: int) -> int:
    return x - (1 << 64) if x >= 1 << 63 else x


def _invert(mass: Tensor, uniform: Tensor) -> Tensor:
    total = mass.cumsum(-1)
    wanted = uniform.double()[..., None] * total[..., -1:]
    position = torch.searchsorted(total, wanted, right=True)
    # Rounding may put `wanted` at the very end; then the last index with a probability above 0 is taken.
    last = (total < total[..., -1:]).sum(-1, keepdim=True)
    return torch.minimum(position, last)[..., 0]


def _likeliest(logits: Tensor, top_p: float) -> tuple[Tensor, Tensor]:
    """The likeliest indices, enough of them to sum to `top_p` in every row, and their probabilities."""
    normalizer = logits.logsumexp(-1, keepdim=True)
    count = min(FIRST_CANDIDATES, logits.shape[-1])
    while True:
        values, candidates = logits.topk(count)
        mass = (values - normalizer).exp()
        if count == logits.shape[-1] or bool((mass.sum(-1) >= top_p).all()):
            return mass, candidates
        count = min(2 * count, logits.shape[-1])
