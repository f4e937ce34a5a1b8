"""The steps since the last log step: whether all their values are finite, and which gradients were unusually large."""

import logging
import math
import statistics
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from vq import distributed
from vq.engine.callbacks.not_finite import Origin
from vq.engine.loop.step_runner import StepResult

NORM = "gradient_norm"
MOST_STEPS = 1000
"""After so many steps they are examined even if none is logged, because their keys take memory."""
SPIKE = 10.0
"""A gradient is a spike if its norm is above this multiple of the median."""
WINDOW, FEWEST = 200, 20
"""Steps whose median counts, and how many are needed."""
QUIET_STEPS = 500
"""Steps between two warnings of spikes."""
logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class NotFinite:
    """The first step with a value that is not finite.

    Attributes:
        names: The values, in the order in which the step returns them.
        origin: The samples of the step.
    """

    names: Sequence[str]
    origin: Origin


class RecentSteps:
    """Keeps the scalars of steps on their device until `examine`, which waits for the device.

    Args:
        device: Of the training; the ranks exchange values there.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._results: list[StepResult] = []
        self._latest: StepResult | None = None
        self._norms: deque[float] = deque(maxlen=WINDOW)
        self._warned_at = -QUIET_STEPS
        self._num_spikes = 0

    def add(self, result: StepResult) -> None:
        """Takes note of a step; it does not wait for the device."""
        self._results.append(result)
        self._latest = result

    @property
    def is_full(self) -> bool:
        """Whether the steps should be examined now; the same on all ranks."""
        return len(self._results) >= MOST_STEPS

    def forget(self) -> None:
        """Drops the steps that have not been examined."""
        self._results = []

    def origin_of_latest(self) -> Origin:
        """The samples of the step that was added last; every rank must call it."""
        assert self._latest is not None
        return self._origin(self._latest)

    def examine(self) -> tuple[dict[str, float], NotFinite | None]:
        """Examines the steps since the last call, of which there must be one; every rank must call it.

        Returns:
            The means of the latest step's scalars over the ranks, and the first step with a value that is not finite on
            any rank.
        """
        results, self._results = self._results, []
        values = _values(results)
        means = self._sums(list(values[-1].values())) / distributed.world_size()
        is_broken = [float(not all(map(math.isfinite, own.values()))) for own in values]
        norms = [own.get(NORM, 0.0) for own in values]
        # What a rank does next must depend on values that are the same on all ranks.
        broken, summed = self._sums([is_broken, norms]).tolist()
        first = next((i for i, count in enumerate(broken) if count), None)
        failed = None if first is None else self._not_finite(results[first], values[first])
        if failed is None:
            self._look_for_spikes(results, [norm / distributed.world_size() for norm in summed])
        return dict(zip(values[-1], means.tolist(), strict=True)), failed

    def _sums(self, values: list[float] | list[list[float]]) -> Float[Tensor, "..."]:
        return distributed.all_reduce_sum(torch.tensor(values, dtype=torch.float64, device=self.device))

    def _origin(self, result: StepResult) -> Origin:
        keys = distributed.gather_objects(list(result.keys))
        return Origin(step=result.step, batch=result.batch, keys=keys, ranks=range(len(keys)))

    def _not_finite(self, result: StepResult, values: dict[str, float]) -> NotFinite:
        own = [name for name, value in values.items() if not math.isfinite(value)]
        broken = distributed.gather_objects(own)
        # A gradient is averaged over the ranks, so its norm is finite on none; a loss is that of a rank's own samples.
        shared = set(broken[0]).intersection(*broken)
        guilty = [rank for rank, names in enumerate(broken) if set(names) - shared]
        origin = self._origin(result)
        return NotFinite(
            names=[name for name in values if any(name in names for names in broken)],
            origin=replace(origin, ranks=guilty) if guilty else origin,
        )

    def _look_for_spikes(self, results: Sequence[StepResult], norms: Sequence[float]) -> None:
        """Warns of the largest gradient since the last call if it is far above the median of those before."""
        spikes = []
        for result, norm in zip(results, norms, strict=True):
            median = statistics.median(self._norms) if len(self._norms) >= FEWEST else math.inf
            if norm > SPIKE * median > 0:
                spikes.append((norm / median, norm, result))
            self._norms.append(norm)
        if not spikes:
            return
        self._num_spikes += len(spikes)
        ratio, norm, result = max(spikes, key=lambda spike: spike[0])
        if result.step - self._warned_at < QUIET_STEPS:
            return
        self._warned_at = result.step
        logger.warning(
            "step %d: the norm of the gradient is %.3g, %.0f times the median of the steps before; samples: %s "
            "(%d such steps so far)",
            result.step, norm, ratio, self._origin(result), self._num_spikes,
        )  # fmt: skip


def _values(results: Sequence[StepResult]) -> list[dict[str, float]]:
    """This rank's scalars of each step as numbers; waits for the device once for each type of tensor."""
    tensors = [tensor for result in results for tensor in result.scalars.values()]
    numbers: dict[int, float] = {}
    for kind in {(tensor.device, tensor.dtype) for tensor in tensors}:
        alike = [tensor for tensor in tensors if (tensor.device, tensor.dtype) == kind]
        numbers |= zip(map(id, alike), torch.stack(alike).double().tolist(), strict=True)
    return [{name: numbers[id(tensor)] for name, tensor in result.scalars.items()} for result in results]
