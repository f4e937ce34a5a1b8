"""Learning-rate schedules: a factor of the base rate, as a pure function of the step."""

import math
from abc import ABC, abstractmethod

from vq.registry import SCHEDULES


class Schedule(ABC):
    """Maps a step to the factor by which every learning rate is multiplied."""

    @abstractmethod
    def factor(self, step: int) -> float:
        """The factor of optimizer step `step` (0-based)."""


@SCHEDULES.register_module()
class Constant(Schedule):
    """Keeps the learning rate, after a linear warm-up.

    Args:
        warmup_steps: Steps over which the rate rises from near 0; the first step uses 1/warmup_steps.
    """

    def __init__(self, *, warmup_steps: int = 0) -> None:
        self.warmup_steps = warmup_steps

    def factor(self, step: int) -> float:
        """See `Schedule`."""
        return min(1.0, (step + 1) / max(1, self.warmup_steps))


@SCHEDULES.register_module()
class WarmupCosine(Schedule):
    """Raises the rate linearly, then lowers it along half a cosine (SGDR without restarts).

    Source: Loshchilov and Hutter 2017, https://arxiv.org/abs/1608.03983, eq. 5.

    Args:
        total_steps: The step at which the final rate is reached.
        warmup_steps: Steps of the linear rise; the first step uses 1/warmup_steps.
        final_factor: The factor at the end.

    Raises:
        ValueError: If the warm-up is longer than the run.

    Example:
        >>> [round(WarmupCosine(total_steps=10, warmup_steps=2).factor(step), 2) for step in (0, 1, 6, 10)]
        [0.5, 1.0, 0.5, 0.0]
    """

    def __init__(self, *, total_steps: int, warmup_steps: int = 0, final_factor: float = 0.0) -> None:
        if warmup_steps >= total_steps:
            raise ValueError(
                f"warmup_steps: expected fewer than total_steps={total_steps}, got {warmup_steps}"
            )
        self.total_steps, self.warmup_steps, self.final_factor = total_steps, warmup_steps, final_factor

    def factor(self, step: int) -> float:
        """See `Schedule`."""
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        progress = min(1.0, (step - self.warmup_steps) / (self.total_steps - self.warmup_steps))
        return self.final_factor + (1 - self.final_factor) * 0.5 * (1 + math.cos(math.pi * progress))
