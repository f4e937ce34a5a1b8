"""How a program ends: which errors a user can fix, their messages, and the exit code.

0: done. 1: a defect, with its traceback. 2: something that a user can fix; the message says what. 128 + the number of
a signal: the signal ended it; 130 is Ctrl-C. Under torchrun one process prints the message for all of them.
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

USER_ERROR = 2
_CURES = {
    errno.EACCES: "permission denied; change its permissions or choose another place",
    errno.EPERM: "permission denied; change its permissions or choose another place",
    errno.EROFS: "the file system can only be read; choose another place",
    errno.ENOENT: "there is no such file or folder",
    errno.ENOTDIR: "a part of this path is a file, not a folder; choose another path",
    errno.EISDIR: "it is a folder, but a file is needed",
    errno.EEXIST: "it exists and is not a folder; choose another place",
    errno.ENOTEMPTY: "the folder is not empty; choose another place",
    errno.ENOSPC: "the disk is full; free some space and start the command again",
    errno.EDQUOT: "your quota on this disk is used up; free some space and start the command again",
    errno.ENAMETOOLONG: "the name is too long; choose a shorter one",
    errno.ELOOP: "its symbolic links form a loop",
    errno.EFBIG: "a file may not be so large here; raise `ulimit -f`, or choose another place",
    errno.EMFILE: "too many files are open; raise `ulimit -n` or lower num_workers",
    errno.ENFILE: "too many files are open on this machine; close other programs",
    errno.EADDRINUSE: "the port is in use; start torchrun with --standalone or another --rdzv-endpoint",
    errno.ENOMEM: "the memory is full; lower the batch size or num_workers",
    errno.EIO: "the disk cannot be read or written",
}
_MISPLACED = (FileNotFoundError, FileExistsError, IsADirectoryError, NotADirectoryError, PermissionError)


@contextmanager
def reported() -> Iterator[None]:
    """Inside, an error that a user can fix ends the program with one message and exit code 2."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader of our output has ended, as `| head` does; Python would complain again when it exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)
    except SystemExit as error:
        if isinstance(error.code, int) and error.code > 128 and str(error):  # `Stopped`, after a signal
            _end(str(error), error.code)
        raise
    except KeyboardInterrupt:
        _end("interrupted", 128 + signal.SIGINT)
    except Exception as error:
        message = user_message(error)
        if message is not None:
            _end(f"error: {message}", USER_ERROR, is_of_one=getattr(error, "is_of_one_process", False))
        if isinstance(error, RuntimeError) and _another_has_spoken(2.0):
            sys.exit(USER_ERROR)  # a collective failed because the other process has ended
        raise


def user_message(error: BaseException) -> str | None:
    """The message of an error that a user can fix; None for any other error."""
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
    return f"the package {name} is not installed; run `pip install {name}`" if name else str(error)


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [""])[0].rstrip(".")


def _end(message: str, code: int, *, is_of_one: bool = False) -> None:
    """Prints the message, on one process of all unless it is about this one, and ends."""
    if is_of_one or _may_speak():
        sys.stderr.write("\n".join(map(printable, message.split("\n"))) + "\n")
        sys.stderr.flush()
    sys.exit(code)


def _may_speak() -> bool:
    """Whether this process prints the message for all: the first process does, if it fails too."""
    if not _is_one_of_many():
        return True
    if os.environ.get("RANK", "0") != "0":
        time.sleep(1.0)  # the same error reaches the first process at about the same time
    try:
        is_first = claim_message()
    except Exception:  # the store ended with torchrun, or with the first process
        return os.environ.get("RANK", "0") == "0"
    if not is_first:
        time.sleep(0.5)  # torchrun ends all processes when one has ended: let the other print its message
    return is_first


def claim_message() -> bool:
    """Whether this process, of all that torchrun started, is the first that wants to print a message for all."""
    return int(torchrun_store().add(_key(), 1)) == 1


def _another_has_spoken(seconds: float) -> bool:
    """Whether another process prints a message within this time."""
    if not _is_one_of_many():
        return False
    try:
        store, deadline = torchrun_store(), time.monotonic() + seconds
        while time.monotonic() < deadline:
            if store.add(_key(), 0) > 0:
                return True
            time.sleep(0.1)
    except Exception:  # as in `_may_speak`
        return False
    return False


def _is_one_of_many() -> bool:
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def _key() -> str:
    return f"vq/failure/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}"


def torchrun_store() -> Any:
    """The store in which the processes of torchrun found each other; needs torch, which is imported only here."""
    from datetime import timedelta

    import torch.distributed as dist

    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    # torch defines TCPStore here, but does not export it by name.
    return dist.TCPStore(host, port, is_master=False, timeout=timedelta(seconds=5))  # type: ignore[attr-defined]
