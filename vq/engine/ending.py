"""Why a run may end before its last step: its time is over, or somebody asked it to."""

import math
import signal
import threading
import time
from types import FrameType, TracebackType

from vq import distributed


class Ending:
    """Inside its `with`, SIGTERM no longer kills: the run takes its step, validates, saves and ends.

    Clusters send SIGTERM before they take a machine away. Several ranks agree on the step to end at.

    Args:
        max_minutes: End after so long; None for no limit.
    """

    def __init__(self, max_minutes: float | None) -> None:
        self.max_minutes = max_minutes
        self.deadline = math.inf if max_minutes is None else time.monotonic() + 60 * max_minutes
        self.is_asked = False

    def __enter__(self) -> "Ending":
        self.is_main = (
            threading.current_thread() is threading.main_thread()
        )  # only there may signals be caught
        if self.is_main:
            self.previous = signal.signal(signal.SIGTERM, self._ask)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.is_main:
            signal.signal(signal.SIGTERM, self.previous)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.is_asked = True

    def reason(self, *, is_agreed: bool) -> str:
        """Why to end now; empty to go on.

        Args:
            is_agreed: Whether all ranks ask at this step. At others only a single process may end, and only
                by a signal, which is urgent.
        """
        own = "SIGTERM asked for it" if self.is_asked else ""
        if not is_agreed:
            return own if distributed.world_size() == 1 else ""
        if not own and time.monotonic() > self.deadline:
            own = f"{self.max_minutes} minutes are over"
        return next((reason for reason in distributed.gather_objects(own) if reason), "")
