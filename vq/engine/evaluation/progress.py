"""The progress of a pass over a set."""

import logging
import sys
import time
from collections.abc import Iterable

from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from vq import distributed
from vq.text import printable

logger = logging.getLogger(__name__)

_LOG_SECONDS = 30.0
"""Time between two lines in the log."""

_ESTIMATE_SECONDS = 300.0
"""Speed and ETA are those of the images that were done in this time."""


class PassProgress:
    """Shows how many images of a set are done, how fast, and the ETA: a bar on a terminal, elsewhere lines in the log.

    Only rank 0 shows it, and assumes that the other ranks have done as many.

    Args:
        what: What is being done, in one word.
        total: Images in the set, over all ranks.
    """

    def __init__(self, what: str, total: int) -> None:
        self._what, self._total, self._done = what, total, 0
        self._bar = progress_bar(_ESTIMATE_SECONDS) if distributed.rank() == 0 else None
        self._logged = time.monotonic()
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
        task = self._bar.tasks[self._task]
        speed = f"{task.speed:.1f} images/s" if task.speed else ""
        self._bar.update(self._task, note=speed)
        now = time.monotonic()
        if self._bar.disable and now - self._logged > _LOG_SECONDS:
            self._logged = now
            rest = (
                f"  {speed}  eta {duration(float(task.time_remaining))}"
                if speed and task.time_remaining
                else ""
            )
            logger.info("%s: %d/%d images%s", self._what, self._done, self._total, rest)


class NotedProgress(Progress):
    """Progress bars, with the notes of their tasks (the field `note`) on lines of their own below."""

    def get_renderables(self) -> Iterable[RenderableType]:
        """The bars, then the notes."""
        yield from super().get_renderables()
        for task in self.tasks:
            if note := task.fields.get("note"):
                yield Text(note, no_wrap=True, overflow="ellipsis")


def progress_bar(estimate_seconds: float = 30.0) -> Progress:
    """A progress bar with ETA; it shows nothing where there is no terminal.

    Args:
        estimate_seconds: How much of the past the ETA is estimated from.
    """
    return NotedProgress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("eta"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        speed_estimate_period=estimate_seconds,
        disable=not sys.stderr.isatty(),
    )


def duration(seconds: float) -> str:
    """Formats seconds as h:mm:ss."""
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"
