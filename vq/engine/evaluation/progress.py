"""The progress of a pass over a set."""

import logging
import sys
import time

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from vq import distributed
from vq.text import printable

logger = logging.getLogger(__name__)

_LOG_SECONDS = 30.0
"""Time between two lines in the log."""


class PassProgress:
    """Shows how many images of a set are done: a bar with ETA on a terminal, elsewhere lines in the log.

    Only rank 0 shows it, and assumes that the other ranks have done as many.

    Args:
        what: What is being done, in one word.
        total: Images in the set, over all ranks.
    """

    def __init__(self, what: str, total: int) -> None:
        self._what, self._total, self._done = what, total, 0
        self._bar = progress_bar() if distributed.rank() == 0 else None
        self._started = self._logged = time.monotonic()
        self._task = TaskID(0)

    def __enter__(self) -> "PassProgress":
        if self._bar is not None:
            self._task = self._bar.add_task(printable(self._what), total=self._total, note="")
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def advance(self, num_images: int) -> None:
        """Adds the images that this rank has just finished."""
        self._done = min(self._done + num_images * distributed.world_size(), self._total)
        if self._bar is None:
            return
        self._bar.update(self._task, completed=self._done)
        now = time.monotonic()
        if self._bar.disable and now - self._logged > _LOG_SECONDS:
            self._logged = now
            left = (now - self._started) / max(1, self._done) * (self._total - self._done)
            logger.info("%s: %d/%d images  eta %s", self._what, self._done, self._total, duration(left))


def progress_bar() -> Progress:
    """A progress bar with ETA; it shows nothing where there is no terminal."""
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
    """Formats seconds as h:mm:ss."""
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"
