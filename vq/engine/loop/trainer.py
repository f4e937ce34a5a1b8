"""The training loop, on one page, in the order in which time passes."""

import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext

import torch

from vq import distributed
from vq.data import Batch, ImageLoader, TokenLoader
from vq.engine.evaluation.base import Validator
from vq.engine.loop.callbacks import Callback
from vq.engine.loop.checkpointer import Checkpointer, NonFiniteLossError, SaveError
from vq.engine.loop.stopping import Ending, Stopped, StopRequest
from vq.engine.steps.base import TrainStep
from vq.ops.keyed import stable_hash
from vq.registry import ENGINES

logger = logging.getLogger(__name__)


@ENGINES.register_module()
class Trainer:
    """Takes optimizer steps; logs, saves and validates when it is time, in this order.

    SIGTERM, SIGINT, SIGHUP and SIGUSR1 end a run after its step, saved and not validated, with exit code 128 + signal;
    with several ranks all of them end after the same step. A checkpoint that cannot be written is tried again at the
    next log step; only the last one ends the run.

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
        ValueError: If max_steps or log_every is below 1, or max_minutes not above 0.
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
        if max_minutes is not None and not max_minutes > 0:
            raise ValueError(f"max_minutes: expected a number above 0 or None, got {max_minutes}")
        self.train_step, self.batches, self.callback = train_step, batches, callback
        self.checkpointer, self.evaluator, self.val_data = checkpointer, evaluator, val_data
        self.seed, self.max_steps, self.log_every = seed, max_steps, log_every
        self.max_minutes, self.is_prepared = max_minutes, False

    def prepare(self, start_step: int = 0) -> None:
        """Finds out before the first step what would end the run later, and sets aside checkpoints that it replaces.

        Raises:
            ConfigError: If the validation set or a metric does not fit the model.
            SaveError: If the folder cannot be written, or the disk has no space for the checkpoints to come.
        """
        self.evaluator.check(self.train_step.model, self.val_data)
        self.checkpointer.begin(self.train_step, start_step, self.max_steps)
        self.is_prepared = True

    def fit(self, start_step: int = 0) -> dict[str, float]:
        """Trains from `start_step` to `max_steps`, after `prepare`, which may have been called before.

        Returns:
            The scores of the last validation.

        Raises:
            NonFiniteLossError: Before anything is overwritten.
            SaveError: If the last checkpoint could not be saved.
            Stopped: After a signal, when the step is saved; a `SystemExit` with 128 + signal.
        """
        self.step, self.last_step = start_step, self.max_steps
        self.saved_at = start_step if self.checkpointer.origin is not None else -1
        self.is_save_overdue = False
        if not self.is_prepared:
            self.prepare(start_step)
        with StopRequest() as stop:
            ending = Ending(stop, self.max_minutes)
            try:
                return self._fit(start_step, ending)
            finally:
                self.callback.on_end(self.step)

    def _fit(self, step: int, ending: Ending) -> dict[str, float]:
        self.train_step.model.train()
        self.callback.on_start(step, self.max_steps)
        scores = self._missed_validation(step, ending)
        batches, loaded_at = self.batches(step), time.perf_counter()
        while step < self.last_step:
            micro_batches = next(batches)
            waited = time.perf_counter() - loaded_at
            torch.manual_seed(stable_hash(self.seed, "step", step, distributed.rank()))
            scalars = self.train_step(micro_batches, step)
            self.step = step = step + 1

            if reason := ending.after_step(may_time_out=step % self.log_every == 0):
                self._stop_at(step, reason)
            is_save_due = self._is_time(self.checkpointer.every, step) or (
                self.is_save_overdue and step % self.log_every == 0
            )
            if is_save_due or self._is_time(self.log_every, step):
                values = self._checked(scalars, step)
                seconds = time.perf_counter() - loaded_at
                self.callback.on_log(step, values | {"time/step": seconds, "time/data": waited})
            if is_save_due:
                self._save(step)
            if stopped := ending.error():
                raise stopped
            if is_validated := self._is_time(self.evaluator.every, step):
                scores = self._evaluate(step, ending.stop)
            if (is_save_due or is_validated) and step < self.last_step and (reason := ending.now()):
                self._stop_at(step, reason)
                self._save(step)
                raise ending.error() or AssertionError("only a signal asks for an end here")
            self.callback.on_step_end(step)
            loaded_at = time.perf_counter()
        return scores

    def _is_time(self, every: int, step: int) -> bool:
        return step % every == 0 or step == self.last_step

    def _stop_at(self, step: int, reason: str) -> None:
        logger.info("stopping at step %d: %s", step, reason)
        self.last_step = step

    def _save(self, step: int) -> None:
        """Saves the step if it is not saved yet; only at the last step a failure ends the run."""
        if self.saved_at == step:
            return
        try:
            self.checkpointer.save(self.train_step, step)
        except SaveError as error:
            if step == self.last_step:
                raise
            logger.error("%s. Training goes on; the next log step tries again", error)
            self.is_save_overdue = True
        else:
            self.saved_at, self.is_save_overdue = step, False

    def _missed_validation(self, step: int, ending: Ending) -> dict[str, float]:
        """The scores at the restored step, taken now if the run was ended between saving and validating."""
        if step == 0 or self.checkpointer.origin is None or not self._is_time(self.evaluator.every, step):
            return {}
        scores = self.checkpointer.scores()
        return self._evaluate(step, ending.stop) if scores is None else scores

    def _evaluate(self, step: int, stop: StopRequest) -> dict[str, float]:
        """Validates the average of the weights if there is one; whatever ends it, the step is saved."""
        model, ema = self.train_step.model, self.train_step.weight_ema
        try:
            with ema.applied() if ema is not None else nullcontext(), stop.at_once():
                scores = self.evaluator.evaluate(model, self.val_data).scores
                picture = self.evaluator.picture(model, self.val_data)
        except BaseException as error:
            model.train()
            if isinstance(error, Stopped):
                self._stop_at(step, f"{error.signal.name} asked for it")
            if self.saved_at != step:
                self.checkpointer.save_alone(self.train_step, step)
            logger.error("validation at step %d ended early (%s); the step is saved", step, error)
            raise
        self.callback.on_evaluation_end(step, scores, picture)
        if self.saved_at == step:
            self.checkpointer.write_scores(step, scores)
            if all(map(math.isfinite, scores.values())):
                self.checkpointer.confirm(step)
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
        self.checkpointer.confirm(step)
        return values
