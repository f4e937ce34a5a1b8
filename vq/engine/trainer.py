"""The training loop, on one page, in the order in which time passes."""

import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from vq import distributed
from vq.data import Batch, ImageLoader, TokenLoader
from vq.engine.callbacks import Callback
from vq.engine.checkpointer import Checkpointer
from vq.engine.ending import Ending
from vq.engine.evaluator import Evaluation
from vq.engine.steps import TrainStep
from vq.errors import UserError
from vq.ops.keyed import stable_hash
from vq.registry import ENGINES

logger = logging.getLogger(__name__)


@runtime_checkable
class Validator(Protocol):
    """What validates a model during training: `Evaluator` for tokenizers.

    Attributes:
        every: Steps between validations.
    """

    every: int

    def evaluate(
        self,
        model: Any,
        loader: Any,
        *,
        on_batch: Callable[[Any, Tensor, Tensor], None] | None = None,
        on_progress: Callable[[int], None] | None = None,
    ) -> Evaluation:
        """The model's scores on a set; the callables get each batch, and how many samples it had."""

    def picture(self, model: Any, loader: Any) -> Tensor:
        """uint8 (3, h, w): what the model makes of a few fixed samples."""


class NonFiniteLossError(UserError, RuntimeError):
    """A loss or gradient became NaN or infinite; the message says when, which, and what to go back to."""


@ENGINES.register_module()
class Trainer:
    """Takes optimizer steps; validates, saves and logs when it is time.

    Args:
        train_step: What happens to one batch.
        batches: From a step on, the micro-batches of every further step.
        checkpointer: Saves; its `every` says when.
        evaluator: Validates; its `every` says when.
        val_data: What is validated on.
        callback: Looks at what happens.
        seed: With the step and the rank it decides everything that a step draws.
        max_steps: Optimizer steps of the whole run.
        log_every: Steps between two rows of scalars.
        max_minutes: End the run at the first log step after so long, whatever the step; None for no limit.

    Raises:
        ValueError: If max_steps or log_every is below 1.
    """

    def __init__(
        self,
        *,
        train_step: TrainStep,
        batches: Callable[[int], Iterator[Sequence[Batch]]],
        checkpointer: Checkpointer,
        evaluator: Validator,
        val_data: ImageLoader | TokenLoader,
        callback: Callback,
        seed: int,
        max_steps: int,
        log_every: int = 50,
        max_minutes: float | None = None,
    ) -> None:
        if max_steps < 1 or log_every < 1:
            raise ValueError(f"expected at least 1, got max_steps={max_steps}, log_every={log_every}")
        self.train_step, self.batches, self.callback = train_step, batches, callback
        self.checkpointer, self.evaluator, self.val_data = checkpointer, evaluator, val_data
        self.seed, self.max_steps, self.log_every = seed, max_steps, log_every
        self.max_minutes = max_minutes

    def fit(self, start_step: int = 0) -> dict[str, float]:
        """Trains from `start_step` to `max_steps`.

        Returns:
            The scores of the last validation.

        Raises:
            NonFiniteLossError: Before anything is overwritten.
        """
        self.step = start_step
        with Ending(self.max_minutes) as ending:
            try:
                return self._fit(start_step, ending)
            finally:
                self.callback.on_end(self.step)

    def _fit(self, start_step: int, ending: Ending) -> dict[str, float]:
        step, scores, self.last_step = start_step, dict[str, float](), self.max_steps
        self.train_step.model.train()
        self.callback.on_start(step, self.max_steps)
        batches, loaded_at = self.batches(step), time.perf_counter()
        while step < self.last_step:
            micro_batches = next(batches)
            waited = time.perf_counter() - loaded_at
            torch.manual_seed(stable_hash(self.seed, "step", step, distributed.rank()))
            scalars = self.train_step(micro_batches, step)
            step += 1

            if reason := ending.reason(is_agreed=step % self.log_every == 0):
                logger.info("stopping at step %d: %s", step, reason)
                self.last_step = step
            if self._is_time(self.log_every, step) or self._is_time(self.checkpointer.every, step):
                values = self._checked(scalars, step)
                seconds = time.perf_counter() - loaded_at
                self.callback.on_log(step, values | {"time/step": seconds, "time/data": waited})
            if self._is_time(self.evaluator.every, step):
                scores = self._evaluate(step)
            if self._is_time(self.checkpointer.every, step):
                self.checkpointer.save(self.train_step, step)
            self.callback.on_step_end(step)
            self.step, loaded_at = step, time.perf_counter()
        return scores

    def _is_time(self, every: int, step: int) -> bool:
        return step % every == 0 or step == self.last_step

    def _evaluate(self, step: int) -> dict[str, float]:
        model, ema = self.train_step.model, self.train_step.weight_ema
        with ema.applied() if ema is not None else nullcontext():
            scores = self.evaluator.evaluate(model, self.val_data).scores
            picture = self.evaluator.picture(model, self.val_data)
        self.callback.on_evaluation_end(step, scores, picture)
        return scores

    def _checked(self, scalars: dict[str, torch.Tensor], step: int) -> dict[str, float]:
        """The scalars' means over the ranks, on every rank; the one point where the host waits."""
        stacked = torch.stack([value.double().to(self.train_step.device) for value in scalars.values()])
        means = distributed.all_reduce_sum(stacked) / distributed.world_size()
        values = dict(zip(scalars, means.tolist(), strict=True))
        broken = [name for name, value in values.items() if not math.isfinite(value)]
        if broken:
            last = self.checkpointer.newest_valid()
            raise NonFiniteLossError(
                f"step {step}: {', '.join(broken)} is not finite; training stopped and nothing was saved. "
                f"The last good checkpoint is {last or 'not yet written'}. "
                f"Lower train_step.optimizer.lr or set train_step.max_gradient_norm"
            )
        return values
