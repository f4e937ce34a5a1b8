"""The interface of callbacks, and the one that keeps their errors from ending a training."""

import logging
from collections.abc import Mapping
from typing import Any

from jaxtyping import UInt8
from torch import Tensor

from vq.engine.callbacks.not_finite import NonFiniteLossError
from vq.files import why

logger = logging.getLogger(__name__)
Scalars = Mapping[str, float]


class Callback:
    """Observes a run; a subclass overrides the methods that it needs."""

    def on_start(self, step: int, max_steps: int) -> None:
        """Training begins, or continues after `step` steps."""

    def on_step_end(self, step: int) -> None:
        """Step number `step` is done."""

    def on_log(self, step: int, scalars: Scalars) -> None:
        """Receives the scalars of the latest step, averaged over ranks."""

    def on_not_finite(self, error: NonFiniteLossError, back_to: int | None) -> None:
        """A value was not finite: training ends, or goes back to step `back_to` and skips the batch of the error."""

    def on_evaluation_end(self, step: int, scores: Scalars, picture: UInt8[Tensor, "3 h w"]) -> None:
        """Receives the scores of a validation and the picture that the evaluator drew."""

    def on_end(self, step: int) -> None:
        """Training has ended, possibly by an error."""


class Guarded(Callback):
    """Calls callbacks; one that fails is named in the log, and called again the next time.

    A full disk, a logger process that died or a lost network must not end a training.
    """

    def __init__(self, callbacks: list[Callback]) -> None:
        self.callbacks = list(callbacks)
        self._failures: dict[str, int] = {}

    def on_start(self, step: int, max_steps: int) -> None:
        """Calls the method of each callback."""
        self._each("on_start", step, max_steps)

    def on_step_end(self, step: int) -> None:
        """Calls the method of each callback."""
        self._each("on_step_end", step)

    def on_log(self, step: int, scalars: Scalars) -> None:
        """Calls the method of each callback."""
        self._each("on_log", step, scalars)

    def on_not_finite(self, error: NonFiniteLossError, back_to: int | None) -> None:
        """Calls the method of each callback."""
        self._each("on_not_finite", error, back_to)

    def on_evaluation_end(self, step: int, scores: Scalars, picture: UInt8[Tensor, "3 h w"]) -> None:
        """Calls the method of each callback."""
        self._each("on_evaluation_end", step, scores, picture)

    def on_end(self, step: int) -> None:
        """Calls the method of each callback."""
        self._each("on_end", step)

    def _each(self, method: str, *arguments: Any) -> None:
        for callback in self.callbacks:
            name = type(callback).__name__
            try:
                getattr(callback, method)(*arguments)
            except Exception as error:  # whatever a logger raises, training continues
                self._failures[name] = count = self._failures.get(name, 0) + 1
                if count & (count - 1) == 0:  # the 1st, 2nd, 4th, 8th, ... time
                    is_known = isinstance(error, OSError)
                    logger.warning(
                        "%s failed in %s (%s); training continues, and it is tried again (failure %d)",
                        name, method, why(error), count, exc_info=None if is_known else error,
                    )  # fmt: skip
            else:
                if method != "on_step_end" and (count := self._failures.pop(name, 0)):
                    logger.warning("%s works again after %d failures", name, count)
