"""Which differences between contestants are more than chance: paired 95 % intervals over the seeds."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

CONFIDENCE = 0.95
Scores = Mapping[int, float]
"""Seed -> score."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean over seeds and its 95 % confidence interval, which assumes a normal distribution over seeds.

    Attributes:
        mean: The mean.
        half: Half the width of the interval; None for a single seed, which has no interval.
        num_seeds: Over how many seeds.
    """

    mean: float
    half: float | None
    num_seeds: int

    @property
    def excludes_zero(self) -> bool:
        """Whether a difference with this interval counts."""
        return self.half is not None and abs(self.mean) > self.half


def interval(values: Sequence[float]) -> Interval:
    """The mean of values with its interval by Student's t.

    Example:
        >>> found = interval([1.0, 2.0, 3.0])
        >>> round(found.mean, 3), round(found.half, 3)
        (2.0, 2.484)
    """
    mean, count = statistics.mean(values), len(values)
    if count < 2:
        return Interval(mean, None, count)
    from scipy.stats import t

    quantile = float(t.ppf((1 + CONFIDENCE) / 2, count - 1))
    return Interval(mean, quantile * statistics.stdev(values) / math.sqrt(count), count)


def difference(ours: Scores, theirs: Scores) -> Interval | None:
    """The interval of `ours - theirs`, paired by seed; None if no seed is in both."""
    seeds = sorted(ours.keys() & theirs.keys())
    return interval([ours[seed] - theirs[seed] for seed in seeds]) if seeds else None


def ranks(scores: Mapping[str, Scores], *, is_higher_better: bool) -> dict[str, int]:
    """The rank of each contestant: 1 + how many are better by a difference that counts. Ties share a rank."""
    sign = 1 if is_higher_better else -1
    found = {}
    for name, own in scores.items():
        others = [difference(other, own) for key, other in scores.items() if key != name]
        found[name] = 1 + sum(d is not None and d.excludes_zero and sign * d.mean > 0 for d in others)
    return found
