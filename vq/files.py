"""Reads untrusted files, and writes files atomically: under a temporary name, flushed to the disk, then renamed."""

import errno
import hashlib
import json
import os
import re
import shutil
import stat
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vq.errors import UserError

if TYPE_CHECKING:
    import numpy as np


def sha256_of(file: Path) -> str:
    """Returns the SHA-256 of the content of a file, in hexadecimal."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def read_regular(path: str | Path, *, most: int) -> bytes:
    """Reads a regular file, or a link to one, without waiting if the path is a pipe or a device.

    Args:
        path: The file.
        most: The maximum number of bytes.

    Raises:
        OSError: If the path is not a regular file, or the file cannot be read or has more than `most` bytes.
    """
    # Without O_NONBLOCK, opening a pipe would wait for a writer. It does not affect regular files.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:  # a file object would take as long to create as 20 kB take to read
        status, content = os.fstat(descriptor), b""
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "expected a regular file, found a folder, pipe or device")
        if status.st_size > most:
            raise OSError(errno.EFBIG, f"the file has {status.st_size:,} bytes, more than {most:,}")
        while piece := os.read(descriptor, status.st_size - len(content)):
            content = content + piece if content else piece
        return content
    finally:
        os.close(descriptor)


def read_json(path: Path, *, most: int = 2**28) -> Any:
    """Reads the value in a JSON file, which may be damaged or untrusted.

    Args:
        path: The file.
        most: The maximum number of bytes.

    Raises:
        ValueError: If the content is not JSON in UTF-8, or is nested too deeply.
        OSError: If the path is not a regular file, or the file cannot be read or has more than `most` bytes.
    """
    try:
        return json.loads(read_regular(path, most=most).decode("utf-8"))
    except RecursionError as error:
        raise ValueError("JSON that is nested too deeply") from error


def read_npy(path: Path) -> "np.ndarray[Any, Any]":
    """Reads the array of a `.npy` file. Its header is compared with the size of the file before memory is allocated.

    Args:
        path: The file.

    Raises:
        ValueError: If the file is not a `.npy` file, holds Python objects, or is shorter than its header says.
        OSError: If the path is not a regular file, or the file cannot be read.
    """
    import numpy as np

    if not path.is_file() and path.exists():
        raise OSError(errno.EINVAL, "expected a regular file, found a folder, pipe or device")
    try:
        mapped = np.load(path, mmap_mode="r", allow_pickle=False)
    except (EOFError, OverflowError, MemoryError, SyntaxError, TypeError, zipfile.BadZipFile) as error:
        raise ValueError(f"not a .npy file: {error}") from error
    if not isinstance(mapped, np.ndarray):
        mapped.close()
        raise ValueError("expected one array as numpy.save writes it, got an archive of several (.npz)")
    return np.array(mapped)


def check_sha256(file: Path, expected: str | None) -> None:
    """Checks the SHA-256 of a file.

    Args:
        file: The file.
        expected: The expected SHA-256, in hexadecimal; None accepts any file.

    Raises:
        ValueError: If it differs. The message contains both.
    """
    if expected is not None and (found := sha256_of(file)) != expected:
        raise ValueError(
            f"{file}: not the file of the config: expected the SHA-256 {expected}, got {found}; --weights KEY=PATH "
            f"gives the path of a file that has moved"
        )


def write_atomically(path: Path, content: str | bytes) -> None:
    r"""Writes a file atomically: at any time, even after a crash, it has either its old content or the new one.

    Args:
        path: The file. Its folder is created if it does not exist.
        content: The bytes, or text that is written as UTF-8; in text, bytes of file names that are not UTF-8 are
            escaped (`\udce4`).

    Raises:
        OSError: If the disk is full or the folder cannot be written to; the file is then unchanged.
    """
    data = content.encode("utf-8", errors="backslashreplace") if isinstance(content, str) else content
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, partial = tempfile.mkstemp(
        dir=path.parent, prefix=f".{path.name[:100]}.{os.getpid()}.", suffix=".partial"
    )
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(partial, usual_mode())
        os.replace(partial, path)
    except BaseException:
        Path(partial).unlink(missing_ok=True)
        raise
    fsync(path.parent)


def temporary_name(path: Path) -> Path:
    """The name under which this process writes a file before it renames it; `remove_unfinished` knows it."""
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")


def remove_unfinished(folder: Path, *patterns: str) -> list[str]:
    """Removes the temporary files of processes that were killed before they had written a file.

    Args:
        folder: Need not exist. Its subfolders are not searched.
        *patterns: The names of the finished files, such as `class*.png`.

    Returns:
        The names of the removed files. Those of a process that runs on this machine stay.
    """
    removed = []
    for file in folder.glob(".*") if folder.is_dir() else ():
        found = re.fullmatch(r"\.(.+)\.([0-9]{1,9})\.(?:tmp|[^.]*\.partial)", file.name)
        if found and any(fnmatchcase(found[1], pattern) for pattern in patterns) and not _runs(int(found[2])):
            file.unlink(missing_ok=True)
            removed.append(file.name)
    return sorted(removed)


def _runs(pid: int) -> bool:
    """Whether this machine has a process of this number."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # that of another user
        return True
    return True


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """Yields the folder OUT.partial, and renames it to OUT at the end, or removes it if an error occurs.

    Args:
        out: A folder that is empty or does not exist.

    Raises:
        UserError: If `out` or OUT.partial is not an empty folder.
    """
    out = out.resolve()
    partial = out.with_name(f"{out.name}.partial")
    for place in (out, partial):
        if place.exists() and (not place.is_dir() or any(place.iterdir())):
            raise UserError(
                f"{place}: expected a folder that is empty or does not exist, got one that holds files, which are not "
                f"overwritten; remove it, or choose another --out"
            )
    partial.mkdir(parents=True, exist_ok=True)
    try:
        yield partial
        if out.exists():
            out.rmdir()  # it is empty
        partial.replace(out)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def append_whole(path: Path, data: bytes) -> None:
    """Appends either all of the data to a file, or nothing.

    Args:
        path: The file, which is created if it does not exist.
        data: The bytes to append.

    Raises:
        OSError: If the disk is full or the file cannot be written to; the file is then unchanged.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    try:
        before = os.fstat(descriptor).st_size
        try:
            written = 0
            while written < len(data):
                written += os.write(descriptor, data[written:])
            os.fsync(descriptor)
        except OSError:
            with suppress(OSError):
                os.ftruncate(descriptor, before)
            raise
    finally:
        os.close(descriptor)


def why(error: BaseException) -> str:
    """Describes why a file could not be written; torch and safetensors report a full disk by misleading messages.

    Args:
        error: The error of the write.
    """
    text = str(error) if isinstance(error, OSError) else f"{type(error).__name__}: {error}"
    if (
        getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT)
        or "os error 28" in text
        or "No space" in text
    ):
        return text if "the disk is full" in text else f"the disk is full ({text})"
    if "unexpected pos" in text or "failed writing file" in text or "PytorchStreamWriter" in text:
        return f"the disk is full, or a quota or a limit on the size of files is reached ({text})"
    return text


def fsync(path: Path) -> None:
    """Flushes a file or a folder to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def usual_mode() -> int:
    """The permissions that `open` gives a new file; temporary files and those of safetensors are the owner's alone."""
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask
