"""The one place that takes optimizer steps one after another, each on its own batch and with its own seed."""

import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from vq import distributed
from vq.data import FeatureLoader, ImageLoader, TokenLoader
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
    """

    step: int
    scalars: dict[str, Tensor]
    started: float
    data_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRunner:
    """Takes optimizer steps; each is a function of the state so far and of (seed, step, rank).

    The order of the data and their augmentation depend on the seed and the step, and the global generators are seeded
    anew before each step. So a run that is resumed, or taken in several stretches, equals an unbroken one bit for bit.

    Args:
        train_step: Takes one step.
        data: The training set.
        seed: Base seed of the batches and of everything that a step draws.

    Example:
        ```python
        for result in StepRunner(train_step=step, data=loader, seed=0).run(stop=100):
            print(result.step, float(result.scalars["loss/total"]))
        ```
    """

    train_step: TrainStep
    data: ImageLoader | TokenLoader | FeatureLoader
    seed: int

    def run(self, start: int = 0, *, stop: int) -> Iterator[StepResult]:
        """Takes the steps from `start` up to, but not including, `stop`, and yields after each.

        Raises:
            ValueError: If the model has a parameter that is neither updated nor declared frozen.
        """
        check_all_updated(self.train_step.model, self.train_step.updated_parameters())
        batches = grouped_batches(self.data, self.seed, self.train_step.accumulate, start)
        for step in range(start, stop):
            started = time.perf_counter()
            micro_batches = next(batches)
            data_seconds = time.perf_counter() - started
            torch.manual_seed(stable_hash(self.seed, "step", step, distributed.rank()))
            scalars = self.train_step(micro_batches, step)
            yield StepResult(step=step + 1, scalars=scalars, started=started, data_seconds=data_seconds)


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
