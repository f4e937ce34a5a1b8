"""One training at a time in a run folder: a lock that names the process which holds it."""

import errno
import fcntl
import json
import logging
import os
import socket
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType

from vq import distributed
from vq.errors import UserError

logger = logging.getLogger(__name__)
LOCK = "run.lock"
BUSY_SECONDS = 3.0
"""How long to wait for another process that may be about to end, before an error is raised."""
SIGN_SECONDS = 10.0
"""How often the holder updates the time of the file."""
STALE_SECONDS = 45.0
"""How long the time of the file must not change before the lock of a holder on another machine is taken over."""


class RunLockedError(UserError, RuntimeError):
    """Another process trains in the folder, or the folder cannot be written; the message names it."""


@dataclass(frozen=True)
class Holder:
    """The process that holds a lock: its machine, its number, and when it started."""

    host: str
    pid: int
    started: str

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host} (since {self.started})"


class RunLock:
    """Inside its `with`, no other training can run in the same folder; rank 0 holds the lock for all ranks.

    The operating system releases the lock when the process ends, however it ends. A lock file that a process of this
    machine left behind is taken over, and that is logged. The processes of another machine cannot be examined, so its
    lock file is taken over after it has not been updated for 45 seconds.

    Args:
        folder: `work_dirs/NAME`; made if it is missing.

    Raises:
        RunLockedError: On every rank, with the host and the process that holds it, or if the folder cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.path = folder, folder / LOCK
        self._descriptor: int | None = None
        self._ended = threading.Event()

    def __enter__(self) -> "RunLock":
        problem = ""
        if distributed.rank() == 0:
            try:
                self._acquire()
            except RunLockedError as error:
                problem = str(error)
            except OSError as error:
                problem = (
                    f"{self.folder}: expected a folder that can be written, got: {error.strerror or error}"
                )
        if problem := distributed.broadcast_object(problem):
            raise RunLockedError(problem)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._descriptor is not None:
            self._ended.set()
            self.path.unlink(missing_ok=True)
            os.close(self._descriptor)
            self._descriptor = None

    def _acquire(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        deadline = time.monotonic() + BUSY_SECONDS
        while not isinstance(found := self._try(), int):
            if time.monotonic() > deadline:
                raise self._busy(found)
            time.sleep(0.1)
        descriptor = found
        try:
            self._take_over(holder_of(descriptor), descriptor)
            holder = Holder(socket.gethostname(), os.getpid(), time.strftime("%Y-%m-%d %H:%M:%S"))
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, json.dumps(asdict(holder)).encode(), 0)
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor = descriptor
        threading.Thread(target=self._mark, args=(descriptor,), daemon=True).start()

    def _busy(self, holder: Holder | None) -> RunLockedError:
        return RunLockedError(
            f"{self.folder}: {holder or 'another process'} is training in this folder; wait for its end, stop it, or "
            f"choose another NAME"
        )

    def _try(self) -> int | Holder | None:
        """A descriptor that holds the lock; if another process has it, that process, as far as it is known."""
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            # A lock of the process: unlike with flock, forked workers that outlive the process do not keep it.
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(descriptor), os.stat(self.path)):
                return descriptor
        except FileNotFoundError:
            pass  # its last holder has just removed it
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EAGAIN):
                logger.warning(
                    "%s: this file system has no locks (%s); start no second run here", self.path, error
                )
                return descriptor
        holder = holder_of(descriptor)
        os.close(descriptor)  # this process holds no lock on the file
        return holder

    def _take_over(self, holder: Holder | None, descriptor: int) -> None:
        if holder is None:
            return
        if holder.host != socket.gethostname():
            seen, deadline = os.fstat(descriptor).st_mtime_ns, time.monotonic() + STALE_SECONDS
            logger.warning(
                "%s: left by %s; waiting %.0f s to see whether it is still updated",
                self.path,
                holder,
                STALE_SECONDS,
            )
            while time.monotonic() < deadline:
                time.sleep(1)
                if os.fstat(descriptor).st_mtime_ns != seen:
                    raise self._busy(holder)
        logger.warning("%s: %s is gone without releasing it; taking over", self.path, holder)

    def _mark(self, descriptor: int) -> None:
        while not self._ended.wait(SIGN_SECONDS):
            try:
                os.utime(descriptor)
            except OSError:
                return


def holder_of(descriptor: int) -> Holder | None:
    """The process that a lock file names; None if the file is empty or damaged."""
    try:
        content = json.loads(os.pread(descriptor, 4096, 0))
        return Holder(str(content["host"]), int(content["pid"]), str(content["started"]))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
