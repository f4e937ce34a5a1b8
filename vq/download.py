"""Downloads a file over HTTP, and resumes an interrupted download. The SHA-256 is checked before the file appears.

`fetch` is the only function of this package that opens a connection, and `vq weights` its only caller.
"""

import http.client
import logging
import os
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from vq.errors import UserError
from vq.files import sha256_of

logger = logging.getLogger(__name__)

Progress = Callable[[int, int | None], None]
"""Called with the number of bytes that have arrived, and the total if the server states it."""

MAX_BYTES = 2**34
"""The largest download if the size of the file is unknown: 16 GiB."""

_CHUNK = 1 << 20
_TIMEOUT = 30.0  # seconds to wait for the next byte


class DownloadError(UserError, OSError):
    """A file that could not be downloaded; the message names the address and the reason."""


class WrongFileError(UserError, ValueError):
    """The SHA-256 of the download differs from the expected one."""


class _TooLongError(DownloadError):
    """More bytes than the file can have; another attempt would end in the same way."""


def fetch(
    address: str,
    target: Path,
    *,
    sha256: str,
    attempts: int = 5,
    pause: float = 1.0,
    max_bytes: int = MAX_BYTES,
    on_progress: Progress | None = None,
) -> None:
    """Downloads a file to `target`, replacing one that exists.

    Until the download is complete and its hash is right it is `target.partial`, from which the next call resumes.

    Args:
        address: `http://`, `https://` or `file://`.
        target: Its folder is made if it is missing.
        sha256: In hexadecimal: all digits, or the leading ones that are known.
        attempts: How often to try; each attempt resumes where the last one was interrupted.
        pause: Seconds before the second attempt. It doubles before each further one.
        max_bytes: If the server announces or sends more bytes, the download stops and is discarded.
        on_progress: Called after each chunk.

    Raises:
        DownloadError: If the download fails (the bytes that have arrived are kept), or exceeds `max_bytes`.
        WrongFileError: If its SHA-256 differs; the download is discarded.
    """
    partial = target.with_name(f"{target.name}.partial")
    target.parent.mkdir(parents=True, exist_ok=True)
    is_continued = partial.exists()
    _complete(address, partial, attempts, pause, max_bytes=max_bytes, on_progress=on_progress)
    found = sha256_of(partial)
    if is_continued and not found.startswith(sha256):
        # The earlier part may belong to another file.
        logger.warning("%s: the sha256 is wrong after resuming an earlier download; starting over", target)
        partial.unlink()
        _complete(address, partial, attempts, pause, max_bytes=max_bytes, on_progress=on_progress)
        found = sha256_of(partial)
    if not found.startswith(sha256):
        partial.unlink()
        raise WrongFileError(
            f"download: expected sha256 {sha256}{'' if len(sha256) == 64 else '...'} of {address}, got {found}; "
            "nothing of it was kept"
        )
    partial.replace(target)


def _complete(
    address: str,
    partial: Path,
    attempts: int,
    pause: float,
    *,
    max_bytes: int,
    on_progress: Progress | None,
) -> None:
    """Repeats attempts until the partial file is complete."""
    for attempt in range(1, attempts + 1):
        try:
            with partial.open("ab") as file:
                _continue(address, file, max_bytes, on_progress)
                file.flush()
                os.fsync(file.fileno())
            return
        except _TooLongError:
            partial.unlink()
            raise
        except urllib.error.HTTPError as error:
            error.close()
            if error.code < 500 or attempt == attempts:  # a missing file will not appear within seconds
                _drop_if_empty(partial)
                raise DownloadError(
                    f"download: {address}: the server answered {error.code} {error.reason}"
                ) from error
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", None) or error
            has_no_network = isinstance(error, urllib.error.URLError) and partial.stat().st_size == 0
            if attempt == attempts or has_no_network:
                kept = partial.stat().st_size
                _drop_if_empty(partial)
                raise DownloadError(
                    f"download: {address}: {reason}" + (f"; {kept:,} bytes are kept" if kept else "")
                ) from error
            logger.warning("%s: %s; resuming at byte %d", address, reason, partial.stat().st_size)
        time.sleep(pause * 2 ** (attempt - 1))


def _drop_if_empty(partial: Path) -> None:
    if partial.exists() and partial.stat().st_size == 0:
        partial.unlink()


def _continue(address: str, file: BinaryIO, max_bytes: int, on_progress: Progress | None) -> None:
    """Appends the bytes that the file lacks.

    Raises:
        _TooLongError: If there are more than `max_bytes`.
        OSError: If the connection ends before the last byte.
    """
    start = file.seek(0, os.SEEK_END)
    request = urllib.request.Request(address, headers={"User-Agent": "vq", "Accept-Encoding": "identity"})
    if start:
        request.add_header("Range", f"bytes={start}-")
    try:
        response = urllib.request.urlopen(request, timeout=_TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code != 416:
            raise
        error.close()
        if _size_of_all(error.headers.get("Content-Range")) == start:
            return  # the file was complete
        file.truncate(0)
        raise ConnectionError("the part that was kept is longer than the file") from error
    with response:
        if start and response.status != 206:  # the server cannot resume
            start = 0
            file.truncate(0)
        length = response.headers.get("Content-Length")
        total = start + int(length) if length is not None and length.isdecimal() else None
        if total is not None and total > max_bytes:
            raise _TooLongError(f"download: {address}: {total:,} bytes, expected at most {max_bytes:,}")
        done = start
        while piece := response.read(_CHUNK):
            done += len(piece)
            if done > max_bytes:
                raise _TooLongError(f"download: {address}: sends more than the expected {max_bytes:,} bytes")
            file.write(piece)
            if on_progress is not None:
                on_progress(done, total)
        if total is not None and done < total:
            raise ConnectionError(f"the connection ended after {done:,} of {total:,} bytes")


def _size_of_all(content_range: str | None) -> int | None:
    """The number in `bytes */123`."""
    size = (content_range or "").rpartition("/")[2]
    return int(size) if size.isdigit() else None


def file_name(address: str) -> str:
    """The last component of the path of an address or a file.

    Example:
        >>> file_name("https://example.org/weights/a%20b.pth?download=1")
        'a b.pth'
    """
    return Path(urllib.parse.unquote(urllib.parse.urlsplit(address).path)).name


def is_address(text: str) -> bool:
    """Whether a word is an HTTP address, not a file."""
    return urllib.parse.urlsplit(text).scheme in ("http", "https")
