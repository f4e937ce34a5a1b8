"""Learning-rate schedules: the factor of the base rate as a pure function of the step."""

import logging
import math
from abc import ABC, abstractmethod

from vq.registry import SCHEDULES

logger = logging.getLogger(__name__)


class Schedule(ABC):
    """Maps a step to the factor by which every learning rate is multiplied."""

    @abstractmethod
    def factor(self, step: int) -> float:
        """The factor of optimizer step `step` (0-based)."""


@SCHEDULES.register_module()
class Constant(Schedule):
    """Keeps the learning rate constant after a linear warm-up.

    Args:
        warmup_steps: Steps over which the rate rises from near 0; the first step uses 1/warmup_steps.

    Raises:
        ValueError: If `warmup_steps` is below 0.
    """

    def __init__(self, *, warmup_steps: int = 0) -> None:
        _check_warmup(warmup_steps)
        self.warmup_steps = warmup_steps

    def factor(self, step: int) -> float:
        """Rises linearly to 1 over the warm-up, then stays there."""
        return min(1.0, (step + 1) / max(1, self.warmup_steps))


@SCHEDULES.register_module()
class WarmupCosine(Schedule):
    """Raises the rate linearly, then lowers it along half a cosine (SGDR without restarts).

    A run that is not longer than its warm-up (a smoke run) ends before the full rate is reached, and a warning says so.

    Source: Loshchilov and Hutter 2017, https://arxiv.org/abs/1608.03983, eq. 5.

    Args:
        total_steps: The step at which the final rate is reached.
        warmup_steps: Steps of the linear rise; the first step uses 1/warmup_steps.
        final_factor: The factor at the end.

    Raises:
        ValueError: If `total_steps` is below 1 or `warmup_steps` below 0.

    Example:
        >>> [round(WarmupCosine(total_steps=10, warmup_steps=2).factor(step), 2) for step in (0, 1, 6, 10)]
        [0.5, 1.0, 0.5, 0.0]
    """

    def __init__(self, *, total_steps: int, warmup_steps: int = 0, final_factor: float = 0.0) -> None:
        _check_warmup(warmup_steps)
        if total_steps < 1:
            raise ValueError(f"total_steps: expected at least 1, got {total_steps}")
        if warmup_steps >= total_steps:
            logger.warning(
                "the run ends at step %d, within its warm-up of %d steps: its last learning rate is %.3g times the "
                "full one",
                total_steps, warmup_steps, total_steps / warmup_steps,
            )  # fmt: skip
        self.total_steps, self.warmup_steps, self.final_factor = total_steps, warmup_steps, final_factor

    def factor(self, step: int) -> float:
        """Rises linearly to 1 over the warm-up, then follows half a cosine down to `final_factor`."""
        if step < self.warmup_steps or self.total_steps <= self.warmup_steps:
            return min(1.0, (step + 1) / self.warmup_steps)
        progress = min(1.0, (step - self.warmup_steps) / (self.total_steps - self.warmup_steps))
        return self.final_factor + (1 - self.final_factor) * 0.5 * (1 + math.cos(math.pi * progress))


def _check_warmup(warmup_steps: int) -> None:
    if warmup_steps < 0:
        raise ValueError(f"warmup_steps: expected at least 0, got {warmup_steps}; 0 is no warm-up")
