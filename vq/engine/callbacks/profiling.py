"""The trace of chosen steps."""

import logging
from pathlib import Path

from vq.engine.callbacks.base import Callback
from vq.engine.callbacks.recording import Recording
from vq.registry import CALLBACKS

logger = logging.getLogger(__name__)


@CALLBACKS.register_module()
class Profile(Callback):
    """Records consecutive steps, and logs the operators that took longest.

    The trace of the steps 11 to 13 is `profile/steps_11-13.json.gz`. If training ends earlier, it has the steps until
    then.

    Args:
        directory: The run folder.
        first: The first step of the trace, counted from 1 at the start of this process.
        last: The last one.

    Raises:
        ValueError: If not 1 <= first <= last.
    """

    def __init__(self, *, directory: Path, first: int, last: int) -> None:
        if not 1 <= first <= last:
            raise ValueError(
                f"Profile: expected steps with 1 <= first <= last, got first={first}, last={last}"
            )
        self.directory, self.first, self.last = directory / "profile", first, last
        self._num_steps = 0
        self._recording: Recording | None = None

    def on_start(self, step: int, max_steps: int) -> None:
        """Begins to record if the first step is part of the trace."""
        self._begin_if_due()

    def on_step_end(self, step: int) -> None:
        """Begins or ends to record between two steps."""
        self._num_steps += 1
        if self._recording is not None:
            self._recording.mark_step()
            if self._num_steps == self.last:
                self._write(self._recording)
        self._begin_if_due()

    def on_end(self, step: int) -> None:
        """Writes the trace if training ends before its last step."""
        if self._recording is not None:
            self._write(self._recording)
        elif self._num_steps < self.first:
            logger.warning(
                "--profile: training ended after %d steps, before step %d, so there is no trace",
                self._num_steps, self.first,
            )  # fmt: skip

    def _begin_if_due(self) -> None:
        if self._num_steps == self.first - 1:
            self._recording = Recording()

    def _write(self, recording: Recording) -> None:
        self._recording = None
        file = self.directory / f"steps_{self.first}-{self._num_steps}.json.gz"
        for line in recording.write(file):
            logger.info("%s", line)
        logger.info("the trace of these steps is %s", file)
