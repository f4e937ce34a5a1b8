"""Watches a training from another process: its checkpoints as they appear, and whether it still runs."""

import errno
import fcntl
import logging
import os
import socket
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from vq import distributed
from vq.engine.loop.run_lock import LOCK, STALE_SECONDS, holder_of
from vq.engine.loop.stopping import ENDED
from vq.text import printable
from vq.tokenizers.checkpoint import CheckpointError, checkpoints_in, step_of

POLL_SECONDS = 5.0
logger = logging.getLogger(__name__)


def checkpoints_to_score(run: Path, names: Sequence[str], *, follow: bool, last_step: int) -> Iterator[Path]:
    """The checkpoints of a run, oldest first; with `follow` also those that its training has yet to save.

    Args:
        run: `work_dirs/NAME`.
        names: Some checkpoints such as `iter_100`; none for all.
        follow: Wait for checkpoints that do not exist yet.
        last_step: `trainer.max_steps` of the run.

    Raises:
        CheckpointError: At once and without `follow`, if there is no checkpoint, or none of these names.
    """
    if follow:
        return follow_run(run, names, last_step=last_step)
    directory = run / "checkpoints"
    checkpoints = list(reversed(checkpoints_in(directory)))
    known = [path.name for path in checkpoints]
    missing = [name for name in names if name not in known]
    if missing and len(missing) == len(names):
        what = (
            f"{names[0]!r}"
            if len(names) == 1
            else f"of the {len(names)} names from {names[0]!r} to {names[-1]!r}"
        )
        raise CheckpointError(
            f"{directory}: has no checkpoint {what}; there are: {', '.join(known) or 'none'}"
        )
    if missing:
        logger.warning(
            "%s: has no checkpoint %s; validating the other %d",
            directory, ", ".join(map(printable, missing)), len(names) - len(missing),
        )  # fmt: skip
    if not checkpoints:
        raise CheckpointError(
            f"{directory}: there is no checkpoint; train first with vq train {run.name} ..."
        )
    return iter([path for path in checkpoints if not names or path.name in names])


def follow_run(run: Path, names: Sequence[str], *, last_step: int) -> Iterator[Path]:
    """Yields each checkpoint of a run when it appears, oldest first, the same on every rank.

    Ends after the checkpoint of the last step, or the last of `names`, or when the training has ended.

    Args:
        run: `work_dirs/NAME`. While it does not exist or holds no run, this waits for the training to begin.
        names: Checkpoints to wait for; none for all.
        last_step: `trainer.max_steps` of the run.
    """
    directory, training = run / "checkpoints", Training(run)
    done: set[str] = set()
    polls_after_its_end = 0
    while True:
        # Before the folder is read: what a training saves last is then found even if it ends in between.
        is_running = distributed.broadcast_object(training.is_running())
        polls_after_its_end = 0 if is_running else polls_after_its_end + 1
        found = [p.name for p in reversed(checkpoints_in(directory)) if not names or p.name in names]
        for name in distributed.broadcast_object([name for name in found if name not in done]):
            done.add(name)
            yield directory / name
            if step_of(directory / name) >= last_step or (names and done.issuperset(names)):
                return
        if polls_after_its_end > 1:  # after one poll it may just be starting again
            if distributed.rank() == 0:
                logger.warning("%s", training.end(done, last_step))
            return
        time.sleep(POLL_SECONDS)


class Training:
    """The training of a run folder, as seen from outside.

    Args:
        run: `work_dirs/NAME`.
    """

    def __init__(self, run: Path) -> None:
        self.run, self.lock = run, run / LOCK
        self._seen: tuple[int, float] | None = None

    def is_running(self) -> bool:
        """Whether it runs, or has not begun yet."""
        try:
            descriptor = os.open(self.lock, os.O_RDONLY)
        except FileNotFoundError:
            return not (self.run / "config.json").exists()  # written when a training begins
        try:
            holder = holder_of(descriptor)
            if holder is not None and holder.host != socket.gethostname():
                return self._gives_signs(os.fstat(descriptor).st_mtime_ns)
            try:
                fcntl.lockf(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except OSError as error:
                is_held = error.errno in (errno.EACCES, errno.EAGAIN)  # else the file system has no locks
                return is_held or (holder is not None and Path(f"/proc/{holder.pid}").exists())
            return False
        finally:
            os.close(descriptor)

    def end(self, done: set[str], last_step: int) -> str:
        """The message about a training that has ended before its last step."""
        last = max((int(name.removeprefix("iter_")) for name in done), default=0)
        how = (
            "ended without a message, by a crash or a kill,"
            if self.lock.exists()
            else f"has ended{self._reason()}"
        )
        return (
            f"{self.run}: the training {how} before step {last_step}; the last checkpoint here is that of step {last}. "
            f"Continue it with --auto-resume and start this command again"
        )

    def _reason(self) -> str:
        try:
            with (self.run / ENDED).open(encoding="utf-8", errors="replace") as stream:
                return f" ({printable(stream.read(500).strip())})"
        except OSError:  # its time limit was reached, or it was of an earlier version
            return ""

    def _gives_signs(self, changed: int) -> bool:
        """Whether a training on another machine has marked its lock recently; its clock may differ from ours."""
        if self._seen is None or self._seen[0] != changed:
            self._seen = changed, time.monotonic()
        return time.monotonic() - self._seen[1] < STALE_SECONDS
