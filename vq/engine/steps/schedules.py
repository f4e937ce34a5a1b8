"""Pure functions of the step: the factor of the learning rates, and the weights of losses."""

import logging
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from vq.quantizers import Annealing
from vq.registry import SCHEDULES

logger = logging.getLogger(__name__)
SHAPES = ("linear", "sqrt")


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
        _check_length(total_steps, warmup_steps)
        self.total_steps, self.warmup_steps, self.final_factor = total_steps, warmup_steps, final_factor

    def factor(self, step: int) -> float:
        """Rises linearly to 1 over the warm-up, then follows half a cosine down to `final_factor`."""
        if step < self.warmup_steps or self.total_steps <= self.warmup_steps:
            return min(1.0, (step + 1) / self.warmup_steps)
        progress = min(1.0, (step - self.warmup_steps) / (self.total_steps - self.warmup_steps))
        return self.final_factor + (1 - self.final_factor) * 0.5 * (1 + math.cos(math.pi * progress))


@SCHEDULES.register_module()
class WarmupLinear(Schedule):
    """Raises the rate linearly, then lowers it linearly until the end of the run.

    A run that is not longer than its warm-up ends before the full rate is reached, and a warning says so.

    Source: Devlin et al. 2019 (BERT), https://arxiv.org/abs/1810.04805, appendix A.2.

    Args:
        total_steps: The step at which the final rate is reached.
        warmup_steps: Steps of the linear rise; the first step uses 1/warmup_steps.
        final_factor: The factor at the end.

    Raises:
        ValueError: If `total_steps` is below 1 or `warmup_steps` below 0.

    Example:
        >>> [WarmupLinear(total_steps=10, warmup_steps=2).factor(step) for step in (0, 1, 6, 10)]
        [0.5, 1.0, 0.5, 0.0]
    """

    def __init__(self, *, total_steps: int, warmup_steps: int = 0, final_factor: float = 0.0) -> None:
        _check_length(total_steps, warmup_steps)
        self.total_steps, self.warmup_steps, self.final_factor = total_steps, warmup_steps, final_factor

    def factor(self, step: int) -> float:
        """Rises linearly to 1 over the warm-up, then falls linearly to `final_factor`."""
        if step < self.warmup_steps or self.total_steps <= self.warmup_steps:
            return min(1.0, (step + 1) / self.warmup_steps)
        progress = min(1.0, (step - self.warmup_steps) / (self.total_steps - self.warmup_steps))
        return 1 - (1 - self.final_factor) * progress


@SCHEDULES.register_module()
class WarmupStableDecay(Schedule):
    """Raises the rate linearly, keeps it, and lowers it in the last steps of the run (WSD).

    A checkpoint from before the decline may be continued to another length: the rates before it are the same.

    Source: Hu et al. 2024 (MiniCPM), https://arxiv.org/abs/2404.06395, section 4.2, for the three stages; Haegele et
        al. 2024, https://arxiv.org/abs/2405.18392, section 3, for the shapes of the decline.
    Differs from the source: MiniCPM lowers the rate exponentially.

    Args:
        total_steps: The step at which the final rate is reached.
        decay_steps: Steps of the decline, the last ones of the run. Both papers take 10 to 20 % of the run.
        warmup_steps: Steps of the linear rise; the first step uses 1/warmup_steps.
        shape: The part of the decline that is left at the fraction x of its steps: `linear` for 1 - x, `sqrt` for
            1 - sqrt(x).
        final_factor: The factor at the end.

    Raises:
        ValueError: If `warmup_steps` is below 0, `decay_steps` below 1, both together exceed `total_steps`, or there is
            no such shape.

    Example:
        >>> schedule = WarmupStableDecay(total_steps=10, warmup_steps=2, decay_steps=4)
        >>> [schedule.factor(step) for step in (0, 1, 6, 7, 8, 10)]
        [0.5, 1.0, 1.0, 0.75, 0.5, 0.0]
    """

    def __init__(
        self,
        *,
        total_steps: int,
        decay_steps: int,
        warmup_steps: int = 0,
        shape: str = "linear",
        final_factor: float = 0.0,
    ) -> None:
        _check_warmup(warmup_steps)
        if decay_steps < 1:
            raise ValueError(
                f"decay_steps: expected at least 1, got {decay_steps}; for a rate that stays, take Constant"
            )
        if shape not in SHAPES:
            raise ValueError(f"shape: expected one of {list(SHAPES)}, got {shape!r}; take one of these")
        if warmup_steps + decay_steps > total_steps:
            raise ValueError(
                f"decay_steps: expected the warm-up and the decline to fit into a run of {total_steps} steps, got "
                f"{warmup_steps} + {decay_steps}; shorten them, or raise the number of steps"
            )
        self.total_steps, self.warmup_steps, self.decay_steps = total_steps, warmup_steps, decay_steps
        self.shape, self.final_factor = shape, final_factor

    def factor(self, step: int) -> float:
        """Rises linearly to 1, stays there, and falls to `final_factor` over the last `decay_steps`."""
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        progress = min(1.0, max(0, step - (self.total_steps - self.decay_steps)) / self.decay_steps)
        left = 1 - (math.sqrt(progress) if self.shape == "sqrt" else progress)
        return self.final_factor + (1 - self.final_factor) * left


@SCHEDULES.register_module()
class WarmupStepDrop(Schedule):
    """Raises the rate linearly, then multiplies it by a factor at certain steps.

    Source: He et al. 2016 (ResNet), https://arxiv.org/abs/1512.03385, section 4.2: a tenth at 32k and at 48k of 64k
        iterations.

    Args:
        total_steps: The length of the run, before which every drop has to be.
        drops: The steps from which the rate is lower, in ascending order.
        drop_factor: What each drop multiplies the rate by, in (0, 1).
        warmup_steps: Steps of the linear rise; the first step uses 1/warmup_steps.

    Raises:
        ValueError: If `warmup_steps` is below 0, a drop is within the warm-up or not before `total_steps`, the drops do
            not ascend, or the factor is outside (0, 1).

    Example:
        >>> schedule = WarmupStepDrop(total_steps=64, drops=[32, 48])
        >>> [round(schedule.factor(step), 3) for step in (31, 32, 47, 48)]
        [1.0, 0.1, 0.1, 0.01]
    """

    def __init__(
        self, *, total_steps: int, drops: Sequence[int], drop_factor: float = 0.1, warmup_steps: int = 0
    ) -> None:
        _check_warmup(warmup_steps)
        if not 0 < drop_factor < 1:
            raise ValueError(f"drop_factor: expected a number in (0, 1), got {drop_factor}; 0.1 is usual")
        if not drops or list(drops) != sorted(set(drops)) or drops[0] < max(1, warmup_steps):
            raise ValueError(
                f"drops: expected ascending steps from {max(1, warmup_steps)} on (after the warm-up), got "
                f"{list(drops)}; reorder or raise them"
            )
        if drops[-1] >= total_steps:
            raise ValueError(
                f"drops: expected steps before the end of the run at step {total_steps}, got {list(drops)}; lower "
                f"them, or raise the number of steps"
            )
        self.total_steps, self.drops = total_steps, tuple(drops)
        self.drop_factor, self.warmup_steps = drop_factor, warmup_steps

    def factor(self, step: int) -> float:
        """Rises linearly to 1 over the warm-up, then is `drop_factor` to the power of the number of drops so far."""
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        return float(self.drop_factor ** sum(drop <= step for drop in self.drops))


class Weights(dict[str, float]):
    """The weight of each term of a loss in the present step.

    A weight that is given as a function of the step is set anew by `prepare`. It has no state: a resumed run continues
    with the weights that it would have had.

    Args:
        given: Name -> weight, a number or a function of the step.
        terms: The names of the terms.

    Raises:
        ValueError: If a term has no weight or a weight no term, or a weight is neither a number nor a function.

    Example:
        >>> from vq.quantizers import LinearAnnealing
        >>> ramp = LinearAnnealing(first=0.0, last=0.5, start=100, steps=50)
        >>> weights = Weights({"l1": 1.0, "adversarial": ramp}, ["l1", "adversarial"])
        >>> weights.prepare(step=125)
        >>> weights
        {'l1': 1.0, 'adversarial': 0.25}
    """

    def __init__(self, given: Mapping[str, object], terms: Iterable[str]) -> None:
        super().__init__()
        if set(given) != set(terms := list(terms)):
            raise ValueError(f"weights: expected one for each of {terms}, got {list(given)}")
        self.functions: dict[str, Annealing] = {}
        for name, weight in given.items():
            if isinstance(weight, Annealing):
                self.functions[name] = weight
                self[name] = weight.at(0)
            elif isinstance(weight, int | float) and not isinstance(weight, bool):
                self[name] = weight
            else:
                raise ValueError(
                    f"weights: expected {name!r} to be a number or a function of the step, such as LinearAnnealing, "
                    f"got {weight!r}"
                )

    def prepare(self, step: int) -> None:
        """Sets the weights of a step."""
        self.update({name: function.at(step) for name, function in self.functions.items()})

    def scalars(self, prefix: str = "") -> dict[str, Float[Tensor, ""]]:
        """Returns the weights that change, to be logged."""
        return {f"{prefix}weight/{name}": torch.tensor(self[name]) for name in self.functions}


def _check_length(total_steps: int, warmup_steps: int) -> None:
    """Refuses lengths below 1 and 0, and warns of a run that ends within its warm-up."""
    _check_warmup(warmup_steps)
    if total_steps < 1:
        raise ValueError(f"total_steps: expected at least 1, got {total_steps}")
    if warmup_steps >= total_steps:
        logger.warning(
            "the run ends at step %d, within its warm-up of %d steps: its last learning rate is %.3g times the "
            "full one",
            total_steps, warmup_steps, total_steps / warmup_steps,
        )  # fmt: skip


def _check_warmup(warmup_steps: int) -> None:
    if warmup_steps < 0:
        raise ValueError(f"warmup_steps: expected at least 0, got {warmup_steps}; 0 is no warm-up")
