"""How far a pass over a set is."""

import logging
import sys
import time

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from vq import distributed
from vq.text import printable

logger = logging.getLogger(__name__)

_QUIET_SECONDS = 30.0


class PassProgress:
    """Shows how many images of a set are done: a bar with ETA on a terminal, elsewhere a line in the log.

    Only rank 0 shows it, and takes the others to be as far as it is.

    Args:
        what: What is being done, in a word.
        total: Images in the set, over all ranks.
    """

    def __init__(self, what: str, total: int) -> None:
        self._what, self._total, self._done = what, total, 0
        self._bar = progress_bar() if distributed.rank() == 0 else None
        self._started = self._said = time.monotonic()

    def __enter__(self) -> "PassProgress":
        if self._bar is not None:
            self._task = self._bar.add_task(printable(self._what), total=self._total, note="")
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def advance(self, num_images: int) -> None:
        """Counts the images that this rank has just done."""
        self._done = min(self._done + num_images * distributed.world_size(), self._total)
        if self._bar is None:
            return
        self._bar.update(self._task, completed=self._done)
        now = time.monotonic()
        if self._bar.disable and now - self._said > _QUIET_SECONDS:
            self._said = now
            left = (now - self._started) / max(1, self._done) * (self._total - self._done)
            logger.info("%s: %d/%d images  eta %s", self._what, self._done, self._total, duration(left))


def progress_bar() -> Progress:
    """A bar with ETA on a terminal; nothing elsewhere."""
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("eta"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
        console=Console(stderr=True),
        disable=not sys.stderr.isatty(),
    )


def duration(seconds: float) -> str:
    """Seconds as h:mm:ss."""
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"
