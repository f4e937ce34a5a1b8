"""The one place that takes optimizer steps one after another, each on its own batch and with its own seed."""

import logging
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from vq import distributed
from vq.data import FeatureLoader, ImageLoader, TokenLoader
from vq.data.transfer import Transfer
from vq.engine.steps.base import TrainStep
from vq.engine.steps.checks import check_all_updated
from vq.ops.keyed import stable_hash

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class StepResult:
    """One optimizer step that was taken.

    Attributes:
        step: Number of optimizer steps taken so far, this one included.
        scalars: What the step returned, on its device.
        started: `time.perf_counter()` before the step's batch was asked for.
        data_seconds: Time spent waiting for that batch.
        batch: The number of the batch in the order of the data, counted from 0.
        keys: The keys of this rank's samples of the batch.
    """

    step: int
    scalars: dict[str, Tensor]
    started: float
    data_seconds: float
    batch: int
    keys: Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRunner:
    """Takes optimizer steps; each is a function of the state so far and of (seed, step, rank).

    The order of the data and their augmentation depend on the seed and the step, and the global generators are seeded
    anew before each step. So a run that is resumed, or taken in several stretches, equals an unbroken one bit for bit.

    Args:
        train_step: Takes one step.
        data: The training set.
        seed: Base seed of the batches and of everything that a step draws.
        skipped: Numbers of batches that no step takes. The step that would take one takes the next batch.

    Example:
        ```python
        for result in StepRunner(train_step=step, data=loader, seed=0).run(stop=100):
            print(result.step, float(result.scalars["loss/total"]))
        ```
    """

    train_step: TrainStep
    data: ImageLoader | TokenLoader | FeatureLoader
    seed: int
    skipped: Collection[int] = ()

    def run(self, start: int = 0, *, stop: int) -> Iterator[StepResult]:
        """Takes the steps from `start` up to, but not including, `stop`, and yields after each.

        Raises:
            ValueError: If the model has a parameter that is neither updated nor declared frozen.
        """
        check_all_updated(self.train_step.model, self.train_step.updated_parameters())
        first = batch_of(start, self.skipped)
        batches = enumerate(grouped_batches(self.data, self.seed, self.train_step.accumulate, first), first)
        wanted = ((number, group) for number, group in batches if number not in self.skipped)
        to_device, clock = Transfer(self.train_step.device), self.train_step.optimization.clock
        for step in range(start, stop):
            started = time.perf_counter()
            number, group = next(wanted)
            micro_batches = [to_device(batch) for batch in group]
            data_seconds = time.perf_counter() - started
            torch.manual_seed(stable_hash(self.seed, "step", step, distributed.rank()))
            clock.start()
            scalars = self.train_step(micro_batches, step)
            clock.stop()
            yield StepResult(
                step=step + 1,
                scalars=scalars,
                started=started,
                data_seconds=data_seconds,
                batch=number,
                keys=[key for batch in group for key in batch["key"]],
            )


def batch_of(step: int, skipped: Collection[int]) -> int:
    """The number of the batch that a step takes if no step takes those in `skipped`.

    Example:
        >>> [batch_of(step, skipped={5, 1}) for step in range(6)]
        [0, 2, 3, 4, 6, 7]
    """
    number = step
    for left_out in sorted(skipped):
        number += left_out <= number
    return number


def grouped_batches(
    loader: ImageLoader | TokenLoader | FeatureLoader, seed: int, accumulate: int, start_step: int
) -> Iterator[Sequence[Any]]:
    """Yields the micro-batches of each step from `start_step` on; each undecodable image is logged once."""
    named: set[str] = set()
    batches = loader.train_batches(seed=seed, start_step=start_step, micro_batches=accumulate)
    while True:
        group = list(islice(batches, accumulate))
        for name in {name for batch in group for name in batch["undecodable"]} - named:
            named.add(name)
            logger.warning("%s cannot be decoded; the next image replaces it (%d so far)", name, len(named))
        yield group
