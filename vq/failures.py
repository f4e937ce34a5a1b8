"""How a program ends: which errors a user can mend, what is said about them, and with which exit code.

0: done. 2: something a user can mend; the message says what. 1: a defect, with its traceback. 128 + a signal's
number: a signal ended it; 130 is Ctrl-C. Under torchrun one process speaks for all of them.
"""

import errno
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from vq import packages
from vq.errors import UserError
from vq.text import printable

MENDABLE = 2
_CURES = {
    errno.EACCES: "you may not read or write it; change its permissions or choose another place",
    errno.EPERM: "you may not read or write it; change its permissions or choose another place",
    errno.EROFS: "the file system can only be read; choose another place",
    errno.ENOENT: "there is no such file or folder",
    errno.ENOTDIR: "a part of this path is a file, not a folder; choose another",
    errno.EISDIR: "it is a folder, and a file is needed",
    errno.EEXIST: "it exists and is not a folder; choose another place",
    errno.ENOTEMPTY: "the folder is not empty; choose another place",
    errno.ENOSPC: "the disk is full; free some space and start the command again",
    errno.EDQUOT: "your quota on this disk is used up; free some space and start the command again",
    errno.ENAMETOOLONG: "the name is too long; choose a shorter one",
    errno.ELOOP: "its links lead in a circle",
    errno.EMFILE: "too many files are open; raise `ulimit -n` or lower num_workers",
    errno.ENFILE: "too many files are open on this machine",
    errno.EADDRINUSE: "the port is in use; start torchrun with --standalone or another --rdzv-endpoint",
    errno.ENOMEM: "the memory is full; lower the batch size or num_workers",
    errno.EIO: "the disk cannot be read or written",
}
_MISPLACED = (FileNotFoundError, FileExistsError, IsADirectoryError, NotADirectoryError, PermissionError)


@contextmanager
def reported() -> Iterator[None]:
    """Inside, an error that a user can mend ends the program with one message and exit code 2."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        # Whatever reads our output has ended, as `| head` does; Python would complain again at its own end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)
    except SystemExit as error:
        if (
            isinstance(error.code, int) and error.code > 128 and str(error)
        ):  # a signal: `engine.ending.Stopped`
            _end(str(error), error.code)
        raise
    except KeyboardInterrupt:
        _end("interrupted", 128 + signal.SIGINT)
    except Exception as error:
        message = mendable(error)
        if message is not None:
            _end(f"error: {message}", MENDABLE)
        if isinstance(error, RuntimeError) and _another_has_spoken(2.0):
            sys.exit(MENDABLE)  # a collective failed because the other process has ended
        raise


def mendable(error: BaseException) -> str | None:
    """What to say about an error that a user can mend; None for any other."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, ModuleNotFoundError):
        return _missing_module(error)
    if isinstance(error, OSError) and error.errno in _CURES:
        names = [
            printable(os.fsdecode(n)) for n in (error.filename, error.filename2) if isinstance(n, str | bytes)
        ]
        what = " -> ".join(names) or error.strerror or str(error)
        return f"{what}: {_CURES[error.errno]}"
    if isinstance(error, _MISPLACED) and error.errno is None:
        text = str(error).strip()
        return text.splitlines()[-1] if "Original Traceback" in text else text  # of a data loader's worker
    kind = f"{type(error).__module__}.{type(error).__name__}"  # torch may not have been imported
    if kind.startswith("torch") and kind.endswith(".OutOfMemoryError"):
        return f"the GPU's memory is full: {_first_line(error)}; lower the batch size, or use --autocast"
    if kind.startswith("torch") and kind.endswith(".DistNetworkError"):
        return f"the processes cannot reach each other: {_first_line(error)}"
    return None


def _missing_module(error: ModuleNotFoundError) -> str | None:
    name = (error.name or "").partition(".")[0]
    if name == "vq" or (error.name is not None and name in sys.modules):
        return None  # a part of something that is installed: a defect
    if name in packages.EXTRAS:
        return str(packages.missing(name, needed_by="this command"))
    return f"the package {name} is not installed; pip install {name}" if name else str(error)


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [""])[0].rstrip(".")


def _end(message: str, code: int) -> None:
    """Says why, on one process of all, and ends."""
    if _may_speak():
        sys.stderr.write("\n".join(map(printable, message.split("\n"))) + "\n")
        sys.stderr.flush()
    sys.exit(code)


def _may_speak() -> bool:
    """Whether this process is the one that says why all of them end: the first, if it fails too."""
    if not _is_one_of_many():
        return True
    if os.environ.get("RANK", "0") != "0":
        time.sleep(1.0)  # the same error comes to the first process at about the same time
    try:
        is_first = int(_store().add(_key(), 1)) == 1
    except Exception:  # the store ends with torchrun, or was the first process's
        return os.environ.get("RANK", "0") == "0"
    if not is_first:
        time.sleep(0.5)  # torchrun ends all processes as soon as one has ended: let the other one speak
    return is_first


def _another_has_spoken(seconds: float) -> bool:
    """Whether another process says within this time why it ends."""
    if not _is_one_of_many():
        return False
    try:
        store, deadline = _store(), time.monotonic() + seconds
        while time.monotonic() < deadline:
            if store.add(_key(), 0) > 0:
                return True
            time.sleep(0.1)
    except Exception:  # see `_may_speak`
        return False
    return False


def _is_one_of_many() -> bool:
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def _key() -> str:
    return f"vq/failure/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}"


def _store() -> Any:
    """The store through which the processes found each other; torch is imported only when they must agree."""
    from datetime import timedelta

    import torch.distributed as dist

    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    return dist.TCPStore(host, port, is_master=False, timeout=timedelta(seconds=5))  # type: ignore[attr-defined]
