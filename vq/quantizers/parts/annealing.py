"""Values as functions of the step: attributes of a quantizer, such as its temperature, and the weights of losses.

They are pure functions of the optimizer step and keep no state. The caller, who counts the steps, sets the value:
`quantizer.temperature = annealing.at(step)`.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

from vq.registry import QUANTIZER_PARTS


class Annealing(ABC):
    """Maps an optimizer step to a value."""

    @abstractmethod
    def at(self, step: int) -> float:
        """Returns the value at optimizer step `step`, counted from 0."""


@QUANTIZER_PARTS.register_module()
@dataclass(frozen=True, kw_only=True)
class LinearAnnealing(Annealing):
    """Keeps a value, changes it linearly to another, and keeps that.

    Args:
        first: Value until step `start`.
        last: Value from step `start + steps` on.
        steps: Number of steps of the change, at least 1.
        start: The step at which the change begins.

    Raises:
        ValueError: If `steps` is below 1 or `start` below 0.

    Example:
        >>> LinearAnnealing(first=0.0, last=6.6, steps=5000).at(2500)
        3.3
    """

    first: float
    last: float
    steps: int
    start: int = 0

    def __post_init__(self) -> None:
        _check_steps(type(self).__name__, self.steps, self.start)

    def at(self, step: int) -> float:
        """Returns the value at optimizer step `step`, counted from 0."""
        return self.first + (self.last - self.first) * _progress(step - self.start, self.steps)


@QUANTIZER_PARTS.register_module()
@dataclass(frozen=True, kw_only=True)
class CosineAnnealing(Annealing):
    """Keeps a value, changes it to another along half a cosine, and keeps that.

    Source: Ramesh et al. 2021 (DALL-E), https://arxiv.org/abs/2102.12092, appendix A.2: the temperature
        from 1 to 1/16 over 150,000 steps.

    Args:
        first: Value until step `start`.
        last: Value from step `start + steps` on.
        steps: Number of steps of the change, at least 1.
        start: The step at which the change begins.

    Raises:
        ValueError: If `steps` is below 1 or `start` below 0.

    Example:
        >>> CosineAnnealing(first=1.0, last=1 / 16, steps=150_000).at(75_000)
        0.53125
    """

    first: float
    last: float
    steps: int
    start: int = 0

    def __post_init__(self) -> None:
        _check_steps(type(self).__name__, self.steps, self.start)

    def at(self, step: int) -> float:
        """Returns the value at optimizer step `step`, counted from 0."""
        remaining = (1 + math.cos(math.pi * _progress(step - self.start, self.steps))) / 2
        return self.last + (self.first - self.last) * remaining


@QUANTIZER_PARTS.register_module()
@dataclass(frozen=True, kw_only=True)
class GeometricAnnealing(Annealing):
    """Multiplies a value by a constant factor in every step until it reaches a minimum.

    Source: Baevski et al. 2020 (wav2vec 2.0), https://arxiv.org/abs/2006.11477, section 4.2: the
        temperature from 2 to 0.5 by the factor 0.999995.

    Args:
        first: Value at step 0.
        last: Minimum, at which the value stays.
        factor: Factor per step, in (0, 1).

    Raises:
        ValueError: If the factor is not in (0, 1).

    Example:
        >>> GeometricAnnealing(first=2.0, last=0.5, factor=0.5).at(1)
        1.0
    """

    first: float
    last: float
    factor: float

    def __post_init__(self) -> None:
        if not 0 < self.factor < 1:
            raise ValueError(f"GeometricAnnealing: expected a factor in (0, 1), got {self.factor}")

    def at(self, step: int) -> float:
        """Returns the value at optimizer step `step`, counted from 0."""
        return max(self.last, self.first * self.factor**step)


def _progress(step: int, steps: int) -> float:
    return min(1.0, max(0, step) / steps)


def _check_steps(place: str, steps: int, start: int) -> None:
    if steps < 1:
        raise ValueError(f"{place}: expected at least 1 step, got {steps}")
    if start < 0:
        raise ValueError(f"{place}: expected start to be at least 0, got {start}; 0 is the first step")
