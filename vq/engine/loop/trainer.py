"""The training loop, on one page, in the order in which time passes."""

import logging
import math
import time

import torch

from vq import distributed
from vq.engine.loop.callbacks import Callback
from vq.engine.loop.checkpointer import Checkpointer, NonFiniteLossError, SaveError
from vq.engine.loop.step_runner import StepResult, StepRunner
from vq.engine.loop.stopping import StopDecision, Stopped, StopRequest
from vq.engine.loop.validation import Validation, averaged_weights
from vq.registry import ENGINES

logger = logging.getLogger(__name__)


@ENGINES.register_module()
class Trainer:
    """Takes optimizer steps; after each it logs, saves and validates, in this order, whatever is due.

    SIGTERM, SIGINT, SIGHUP and SIGUSR1 end a run after the step under way, saved but not validated, with exit code
    128 + signal; all ranks end after the same step. A checkpoint that cannot be written is tried again at the next log
    step; only a failure to write the last one ends the run.

    Args:
        runner: Takes the steps; knows the training data and the seed.
        validation: Scores the model; its `every` says at which steps.
        checkpointer: Saves; its `every` says at which steps.
        callback: Is told what happens.
        max_steps: Optimizer steps of the whole run.
        log_every: Steps between two rows of scalars.
        max_minutes: End the run at the first log step after this time, whatever the step; None for no limit.

    Raises:
        ValueError: If max_steps or log_every is below 1, or max_minutes not above 0.
    """

    def __init__(
        self,
        *,
        runner: StepRunner,
        validation: Validation,
        checkpointer: Checkpointer,
        callback: Callback,
        max_steps: int,
        log_every: int = 50,
        max_minutes: float | None = None,
    ) -> None:
        if max_steps < 1 or log_every < 1:
            raise ValueError(f"expected at least 1, got max_steps={max_steps}, log_every={log_every}")
        if max_minutes is not None and not max_minutes > 0:
            raise ValueError(f"max_minutes: expected a number above 0 or None, got {max_minutes}")
        self.runner, self.train_step = runner, runner.train_step
        self.validation, self.checkpointer, self.callback = validation, checkpointer, callback
        self.max_steps, self.log_every, self.max_minutes = max_steps, log_every, max_minutes
        self.is_prepared = False
        self.step, self.last_step = 0, max_steps  # a run that is stopped lowers its last step
        self.saved_step: int | None = None
        self.is_save_overdue = False

    def prepare(self, start_step: int = 0) -> None:
        """Finds out before the first step what would end the run later, and sets aside checkpoints that it replaces.

        Raises:
            ConfigError: If the validation set or a metric does not fit the model.
            SaveError: If the folder cannot be written, or the disk has no space for the checkpoints to come.
        """
        self.validation.check(self.train_step.model)
        self.checkpointer.begin(self.train_step, start_step, self.max_steps)
        self.is_prepared = True

    def fit(self, start_step: int = 0) -> dict[str, float]:
        """Trains from `start_step` to `max_steps`; calls `prepare` if that has not been done.

        Returns:
            The scores of the last validation.

        Raises:
            NonFiniteLossError: Before anything is overwritten.
            SaveError: If the last checkpoint could not be saved.
            Stopped: After a signal, when the step is saved; a `SystemExit` with 128 + signal.
        """
        if not self.is_prepared:
            self.prepare(start_step)
        self.step, self.last_step = start_step, self.max_steps
        self.saved_step = None if self.checkpointer.origin is None else start_step
        with StopRequest() as request:
            decision = StopDecision(request, self.max_minutes)
            try:
                self.train_step.model.train()
                self.callback.on_start(start_step, self.max_steps)
                scores = self._missed_validation(request)
                for result in self.runner.run(start_step, stop=self.max_steps):
                    self.step = result.step
                    self._stop_here(decision.after_step(may_time_out=self.step % self.log_every == 0))
                    is_save_due = self._is_save_due()
                    if is_save_due or self._is_due(self.log_every):
                        self._log(result)
                    if is_save_due:
                        self._save()
                    decision.raise_if_stopped()
                    if is_validated := self._is_due(self.validation.every):
                        scores = self._validate(request)
                    # Saving and validating take long: a signal may have come in the meantime.
                    if (is_save_due or is_validated) and self.step < self.last_step:
                        self._stop_if_asked(decision)
                    self.callback.on_step_end(self.step)
                    if self.step == self.last_step:
                        break
            finally:
                self.callback.on_end(self.step)
        return scores

    def _is_due(self, every: int) -> bool:
        return self.step % every == 0 or self.step == self.last_step

    def _is_save_due(self) -> bool:
        is_retried = self.is_save_overdue and self.step % self.log_every == 0
        return is_retried or self._is_due(self.checkpointer.every)

    def _stop_here(self, reason: str) -> None:
        """Makes the present step the last one, if there is a reason."""
        if reason:
            logger.info("stopping at step %d: %s", self.step, reason)
            self.last_step = self.step

    def _stop_if_asked(self, decision: StopDecision) -> None:
        """Saves and ends the run if any rank has received a signal by now."""
        if reason := decision.now():
            self._stop_here(reason)
            self._save()
            decision.raise_if_stopped()

    def _log(self, result: StepResult) -> None:
        values = self._checked(result.scalars)
        times = {"time/step": time.perf_counter() - result.started, "time/data": result.data_seconds}
        self.callback.on_log(self.step, values | times)

    def _checked(self, scalars: dict[str, torch.Tensor]) -> dict[str, float]:
        """The means of the scalars over the ranks, the same on every rank; raises if one is not finite."""
        stacked = torch.stack([value.double().to(self.train_step.device) for value in scalars.values()])
        means = distributed.all_reduce_sum(stacked) / distributed.world_size()
        # `tolist` waits for the device. Between log steps nothing does, and the host runs ahead of the device.
        values = dict(zip(scalars, means.tolist(), strict=True))
        broken = [name for name, value in values.items() if not math.isfinite(value)]
        if broken:
            last = self.checkpointer.newest_valid()
            raise NonFiniteLossError(
                f"step {self.step}: {', '.join(broken)} is not finite; training stopped and nothing was saved. "
                f"The last good checkpoint is {last or 'not yet written'}. "
                f"Lower train_step.optimizer.lr or set train_step.max_gradient_norm"
            )
        self.checkpointer.confirm(self.step)
        return values

    def _save(self) -> None:
        """Saves the step unless it is saved already; a failure ends the run only at the last step."""
        if self.saved_step == self.step:
            return
        try:
            self.checkpointer.save(self.train_step, self.step)
        except SaveError as error:
            if self.step == self.last_step:
                raise
            logger.error("%s. Training continues; the next log step tries again", error)
            self.is_save_overdue = True
        else:
            self.saved_step, self.is_save_overdue = self.step, False

    def _missed_validation(self, request: StopRequest) -> dict[str, float]:
        """The scores at the restored step, computed now if the run ended between saving and validating it."""
        if self.step == 0 or self.checkpointer.origin is None or not self._is_due(self.validation.every):
            return {}
        scores = self.checkpointer.scores()
        return self._validate(request) if scores is None else scores

    def _validate(self, request: StopRequest) -> dict[str, float]:
        """Validates the step. If an error or a signal ends the validation, the step is saved first."""
        try:
            # A signal must not interrupt the exchange of the weights, so `at_once` is the inner one.
            with averaged_weights(self.train_step), request.at_once():
                scores, picture = self.validation.run(self.train_step.model)
        except BaseException as error:
            self.train_step.model.train()
            if isinstance(error, Stopped):
                self._stop_here(f"{error.signal.name} asked for it")
            if self.saved_step != self.step:
                self.checkpointer.save_alone(self.train_step, self.step)
            logger.error("validation at step %d ended early (%s); the step is saved", self.step, error)
            raise
        self.callback.on_evaluation_end(self.step, scores, picture)
        if self.saved_step == self.step:
            self.checkpointer.write_scores(self.step, scores)
            if all(map(math.isfinite, scores.values())):
                self.checkpointer.confirm(self.step)
        return scores
