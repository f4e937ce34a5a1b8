"""Files that are whole or absent: written under another name, flushed to the disk, then renamed."""

import errno
import hashlib
import json
import os
import shutil
import stat
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vq.errors import UserError

if TYPE_CHECKING:
    import numpy as np


def sha256_of(file: Path) -> str:
    """The SHA-256 of a file's content, in hexadecimal."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def read_regular(path: Path, *, most: int) -> bytes:
    """The content of a regular file, or of a link to one; a pipe or a device is not waited for.

    Args:
        path: The file.
        most: A longer file is not read.

    Raises:
        OSError: If it is something else, cannot be read, or has more than `most` bytes.
    """
    # Opening a pipe would wait for a writer without O_NONBLOCK; a regular file is read as always.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "expected a regular file, found a folder, pipe or device")
        if status.st_size > most:
            raise OSError(errno.EFBIG, f"the file has {status.st_size:,} bytes, more than {most:,}")
        return file.read(status.st_size + 1)


def read_json(path: Path, *, most: int = 2**28) -> Any:
    """The value in a JSON file, which may be damaged or of another origin.

    Args:
        path: The file.
        most: A file of more bytes is not read.

    Raises:
        ValueError: If it is not JSON in UTF-8, or nested too deeply.
        OSError: If it is not a regular file, or cannot be read.
    """
    try:
        return json.loads(read_regular(path, most=most).decode("utf-8"))
    except RecursionError as error:
        raise ValueError("JSON that is nested too deeply") from error


def read_npy(path: Path) -> "np.ndarray[Any, Any]":
    """The one array of a `.npy` file; its header is compared with the file's size before any memory is taken.

    Raises:
        ValueError: If it is no such file, of Python objects, or shorter than its header says.
        OSError: If it is not a regular file, or cannot be read.
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
    """Refuses a file with another SHA-256 than the expected one; None expects nothing.

    Raises:
        ValueError: With both.
    """
    if expected is not None and (found := sha256_of(file)) != expected:
        raise ValueError(
            f"{file}: not the file that the config means: expected the SHA-256 {expected}, got {found}; --weights "
            f"KEY=PATH says where it is now"
        )


def write_atomically(path: Path, content: str | bytes) -> None:
    r"""Writes a file so that a reader, or a restart after a crash, finds the old content or the new, never a part.

    Args:
        path: Its folder is created if it does not exist.
        content: Text is written as UTF-8; file names that are not UTF-8 inside it are kept escaped (`\udce4`).

    Raises:
        OSError: If the disk is full or the folder cannot be written; `path` is then unchanged.
    """
    data = content.encode("utf-8", errors="backslashreplace") if isinstance(content, str) else content
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, partial = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:100]}.", suffix=".partial")
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(partial, 0o666 & ~_umask())
        os.replace(partial, path)
    except BaseException:
        Path(partial).unlink(missing_ok=True)
        raise
    fsync(path.parent)


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """Yields OUT.partial to write to, which is renamed to OUT at the end, or removed if an error occurs.

    Args:
        out: A folder that is empty or does not exist.

    Raises:
        UserError: If `out` or OUT.partial holds files already.
    """
    out = out.resolve()
    partial = out.with_name(f"{out.name}.partial")
    for place in (out, partial):
        if place.exists() and (not place.is_dir() or any(place.iterdir())):
            raise UserError(
                f"{place}: expected a folder that is empty or does not exist, got one that holds files; nothing is "
                f"overwritten: remove it, or choose another --out"
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
    """Appends to a file, all of the data or nothing.

    Raises:
        OSError: If the disk is full or the file cannot be written; the file is then as it was before.
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
    """Why a file could not be written, in words: torch and safetensors hide a full disk behind other messages."""
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
    """Makes the operating system write a file's or a folder's content to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
