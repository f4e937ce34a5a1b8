"""The training loop, on one page, in the order in which time passes."""

import logging
import math
import time
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Literal, NoReturn

from vq.engine.callbacks import Callback, Guarded
from vq.engine.callbacks.not_finite import NonFiniteLossError, Origin
from vq.engine.loop.checkpointer import Checkpointer, SaveError
from vq.engine.loop.recent_steps import RecentSteps
from vq.engine.loop.resuming import SKIPPED
from vq.engine.loop.step_runner import StepResult, StepRunner
from vq.engine.loop.stopping import StopDecision, Stopped, StopRequest
from vq.engine.loop.validation import Validation, averaged_weights
from vq.registry import ENGINES

MOST_REWINDS = 3
"""How often a run goes back without getting past the step that has failed."""
logger = logging.getLogger(__name__)


@ENGINES.register_module()
class Trainer:
    """Takes optimizer steps; after each it logs, saves and validates, in this order, whatever is due.

    SIGTERM, SIGINT, SIGHUP and SIGUSR1 end a run after the step under way, saved but not validated, with exit code
    128 + signal; all ranks end after the same step. Checkpoints are written while training goes on. One that cannot be
    written is tried again at the next log step; only a failure to write the last one ends the run.

    Args:
        runner: Takes the steps; knows the training data and the seed.
        validation: Scores the model; its `every` says at which steps.
        checkpointer: Saves; its `every` says at which steps.
        max_steps: Optimizer steps of the whole run.
        log_every: Steps between two rows of scalars.
        max_minutes: End the run at the first log step after this time, whatever the step; None for no limit.
        on_nonfinite: What to do when a scalar of a step, or a weight that is to be saved, is NaN or infinite: `"stop"`
            with an error that names the step, the values and the samples; or `"rewind"`: go back to the last good
            checkpoint, and skip the batch of that step. If a step fails for the fourth time, its batches replaced, the
            run stops all the same.
        callbacks: Are told what happens. A command adds its own, and calls them on rank 0 only.

    Raises:
        ValueError: If max_steps or log_every is below 1, max_minutes not above 0, or on_nonfinite another word.
        TypeError: If one of the callbacks is not a `Callback`.
    """

    def __init__(
        self,
        *,
        runner: StepRunner,
        validation: Validation,
        checkpointer: Checkpointer,
        max_steps: int,
        log_every: int = 50,
        max_minutes: float | None = None,
        on_nonfinite: Literal["stop", "rewind"] = "stop",
        callbacks: Sequence[Callback] = (),
    ) -> None:
        for callback in callbacks:
            if not isinstance(callback, Callback):
                raise TypeError(f"callbacks: expected a subclass of Callback, got {type(callback).__name__}")
        if max_steps < 1 or log_every < 1:
            raise ValueError(f"expected at least 1, got max_steps={max_steps}, log_every={log_every}")
        if max_minutes is not None and not max_minutes > 0:
            raise ValueError(f"max_minutes: expected a number above 0 or None, got {max_minutes}")
        if on_nonfinite not in ("stop", "rewind"):
            raise ValueError(f'on_nonfinite: expected "stop" or "rewind", got {on_nonfinite!r}')
        self.runner, self.train_step = runner, runner.train_step
        self.validation, self.checkpointer = validation, checkpointer
        self.callbacks, self.callback = list(callbacks), Guarded([*callbacks])
        self.max_steps, self.log_every, self.max_minutes = max_steps, log_every, max_minutes
        self.on_nonfinite = on_nonfinite
        self.is_prepared = False
        self.step, self.last_step = 0, max_steps  # a run that is stopped lowers its last step
        self.saved_step: int | None = None
        self.is_save_overdue = False
        self.recent = RecentSteps(self.train_step.device)
        self.scores: dict[str, float] = {}  # of the last validation
        self._failed_step = self._num_failures = 0

    def prepare(self, start_step: int = 0) -> None:
        """Finds out before the first step what would end the run later, and sets aside checkpoints that it replaces.

        Raises:
            ConfigError: If the validation set or a metric does not fit the model, or the checkpointer keeps the best
                checkpoint by a score that the validation does not compute.
            SaveError: If the folder cannot be written, or the disk has no space for the checkpoints to come.
        """
        with self.train_step.optimization.strategy.whole(self.train_step.model):
            self.validation.check(self.train_step.model)
        directions = self.validation.evaluator.directions()
        self.checkpointer.rank_by(directions, validates_every=self.validation.every)
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
                self.scores = self._missed_validation(request)
                while self.step < self.last_step:
                    try:
                        self._train(request, decision)
                    except NonFiniteLossError as error:
                        self._go_back(error)
            finally:
                self.checkpointer.settle()
                self.callback.on_end(self.step)
        return self.scores

    def _train(self, request: StopRequest, decision: StopDecision) -> None:
        """Takes the steps from the present one to the last."""
        for result in self.runner.run(self.step, stop=self.max_steps):
            self.step = result.step
            self.recent.add(result)
            self._stop_here(decision.after_step(may_time_out=self.step % self.log_every == 0))
            is_save_due = self._is_save_due()
            if is_save_due or self._is_due(self.log_every):
                self._log(result)
            elif self.recent.is_full:
                self._checked()
            if is_save_due:
                self._save()
            decision.raise_if_stopped()
            if is_validated := self._is_due(self.validation.every):
                self.scores = self._validate(request)
            # Saving and validating take long: a signal may have come in the meantime.
            if (is_save_due or is_validated) and self.step < self.last_step:
                self._stop_if_asked(decision)
            if self._is_due(self.log_every):
                self._look_after_saving()
            self.callback.on_step_end(self.step)
            if self.step == self.last_step:
                break

    def _go_back(self, error: NonFiniteLossError) -> None:
        """Restores the last good checkpoint, and skips the batch of the failed step from now on.

        Raises:
            NonFiniteLossError: The given error, if the trainer should stop, there is no checkpoint, or the same step,
                or an earlier one, has failed too often.
        """
        if (origin := error.origin) is None:
            raise error  # one rank alone has saved what a failed validation left
        self._num_failures = 1 if origin.step > self._failed_step else self._num_failures + 1
        self._failed_step = max(origin.step, self._failed_step)
        is_allowed = self.on_nonfinite == "rewind" and self._num_failures <= MOST_REWINDS
        checkpoint = self.checkpointer.to_resume(may_be_none=True) or self.checkpointer.origin
        if not is_allowed or checkpoint is None:
            self.callback.on_not_finite(error, None)
            raise error
        step = self.checkpointer.restore(self.train_step, checkpoint)
        self.skip([*self.runner.skipped, origin.batch])
        logger.warning(
            "step %d: %s is not finite; going back to step %d; from now on the %d samples of this batch are skipped: "
            "%s (batches skipped so far: %d)",
            origin.step, error.what, step, len(origin.all_keys), origin, len(self.runner.skipped),
        )  # fmt: skip
        self.step = self.saved_step = step
        self.is_save_overdue = False
        self.recent.forget()
        self.callback.on_not_finite(error, step)

    def skip(self, batches: Collection[int]) -> None:
        """Lets no further step take these batches (`StepRunner.skipped`); checkpoints record them."""
        self.runner = replace(self.runner, skipped=sorted(batches))
        self.checkpointer.arguments = {**self.checkpointer.arguments, SKIPPED: sorted(batches)}

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
        values = self._checked()
        times = {"time/step": time.perf_counter() - result.started, "time/data": result.data_seconds}
        times |= {
            f"time/{part}": seconds for part, seconds in self.train_step.optimization.clock.seconds().items()
        }
        self.callback.on_log(self.step, values | times)

    def _checked(self) -> dict[str, float]:
        """The means of the step's scalars over the ranks; raises if one since the last log step is not finite."""
        values, failed = self.recent.examine()
        if failed is not None:
            self._fail(", ".join(failed.names), failed.origin)
        self.checkpointer.confirm(self.step)
        return values

    def _fail(self, what: str, origin: Origin) -> NoReturn:
        """Raises the error that names the values that are not finite, and the samples of their step."""
        raise NonFiniteLossError(origin.step, what, self.checkpointer.newest_valid(), origin)

    def _save(self) -> None:
        """Saves the step unless it is saved already; a failure ends the run only at the last step."""
        self._look_after_saving(wait=True)
        if self.saved_step == self.step:
            return
        self.saved_step, self.is_save_overdue = self.step, False
        try:
            if self.step == self.last_step:
                self.checkpointer.save(self.train_step, self.step)
            else:
                self.checkpointer.start_saving(self.train_step, self.step)
        except NonFiniteLossError as error:
            self._fail(error.what, self.recent.origin_of_latest())
        except SaveError as error:
            if self.step == self.last_step:
                raise
            self._save_later(error)

    def _look_after_saving(self, *, wait: bool = False) -> None:
        """Finds out whether the checkpoint that is being written could not be written."""
        try:
            self.checkpointer.is_saved(wait=wait)
        except SaveError as error:
            self._save_later(error)

    def _save_later(self, error: SaveError) -> None:
        logger.error("%s. Training continues; the next log step tries again", error)
        self.saved_step, self.is_save_overdue = None, True

    def _missed_validation(self, request: StopRequest) -> dict[str, float]:
        """The scores at the restored step, computed now if the run ended between saving and validating it."""
        if self.step == 0 or self.checkpointer.origin is None or not self._is_due(self.validation.every):
            return {}
        scores = self.checkpointer.scores()
        return self._validate(request) if scores is None else scores

    def _validate(self, request: StopRequest) -> dict[str, float]:
        """Validates the step. If an error or a signal ends the validation, the step is saved first."""
        strategy = self.train_step.optimization.strategy
        if strategy.is_sharded:
            self._save()  # no rank could save alone
        try:
            # A signal must not interrupt the exchange of the weights, so `at_once` is the inner one.
            with (
                averaged_weights(self.train_step),
                strategy.whole(self.train_step.model),
                request.at_once(),
            ):
                scores, picture = self.validation.run(self.train_step.model)
        except BaseException as error:
            self.train_step.model.train()
            if isinstance(error, Stopped):
                self._stop_here(f"{error.signal.name} asked for it")
            is_saved = self.checkpointer.settle() and self.saved_step == self.step
            if not is_saved and not strategy.is_sharded:
                self.checkpointer.save_alone(self.train_step, self.step)
                is_saved = True
            logger.error(
                "validation at step %d ended early (%s); the step is %s",
                self.step, error, "saved" if is_saved else "not saved",
            )  # fmt: skip
            raise
        self.callback.on_evaluation_end(self.step, scores, picture)
        if self.saved_step == self.step:
            self.checkpointer.write_scores(self.step, scores)
            if all(map(math.isfinite, scores.values())):
                self.checkpointer.confirm(self.step)
        return scores
