"""Brings a file over HTTP: resumed where it was cut, whole or absent, its sha256 checked.

Nothing in this package opens a connection but `fetch`, and nothing calls it but `tools/prepare_checkpoints.py`.
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
"""Gets the bytes that are there, and those that there will be if the server says so."""

MAX_BYTES = 2**34
"""The largest download where nothing is known of its size: 16 GiB."""

_CHUNK = 1 << 20
_TIMEOUT = 30.0  # seconds without a byte


class DownloadError(UserError, OSError):
    """A file that could not be fetched; the message says from where and why."""


class WrongFileError(UserError, ValueError):
    """What was fetched is another file than expected, by its SHA-256."""


class _TooLongError(DownloadError):
    """More bytes than the file can have; another attempt would bring the same."""


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
    """Writes what an address serves to `target`, replacing a file already there.

    What has come lies in `target.partial` until it is all there and has the right hash, so an interrupted
    command goes on where it stopped.

    Args:
        address: `http://`, `https://` or `file://`.
        target: Its folder is made if it is missing.
        sha256: In hex, all digits or the first few, as far as it is known.
        attempts: How often to try before giving up, each going on where the last one was cut.
        pause: Seconds before the second attempt; doubled before each further one.
        max_bytes: The download ends, and nothing of it is kept, as soon as the server announces or sends more.
        on_progress: Called after each piece.

    Raises:
        DownloadError: If it cannot be fetched; what has come is kept, to go on from. Or if it has more than
            `max_bytes`.
        WrongFileError: If its sha256 is another one; nothing of it is kept.
    """
    partial = target.with_name(f"{target.name}.partial")
    target.parent.mkdir(parents=True, exist_ok=True)
    is_continued = partial.exists()
    _complete(address, partial, attempts, pause, max_bytes=max_bytes, on_progress=on_progress)
    found = sha256_of(partial)
    if is_continued and not found.startswith(sha256):
        # The piece from an earlier day may be another file's.
        logger.warning(
            "%s: the sha256 is wrong after going on from an earlier piece; from the start again", target
        )
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
    """Attempts until the partial file is complete."""
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
            if error.code < 500 or attempt == attempts:  # what is not there will not be there in a second
                _drop_if_empty(partial)
                raise DownloadError(
                    f"download: {address}: the server answers {error.code} {error.reason}"
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
            logger.warning("%s: %s; going on from byte %d", address, reason, partial.stat().st_size)
        time.sleep(pause * 2 ** (attempt - 1))


def _drop_if_empty(partial: Path) -> None:
    if partial.exists() and partial.stat().st_size == 0:
        partial.unlink()


def _continue(address: str, file: BinaryIO, max_bytes: int, on_progress: Progress | None) -> None:
    """Appends the bytes from the end of the file on.

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
            return  # it was complete already
        file.truncate(0)
        raise ConnectionError("the piece that is there is longer than the file") from error
    with response:
        if start and response.status != 206:  # the server cannot go on in the middle
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
    """The last part of an address's or file's path.

    Example:
        >>> file_name("https://example.org/weights/a%20b.pth?download=1")
        'a b.pth'
    """
    return Path(urllib.parse.unquote(urllib.parse.urlsplit(address).path)).name


def is_address(text: str) -> bool:
    """Whether a word names something to bring over the network, not a file."""
    return urllib.parse.urlsplit(text).scheme in ("http", "https")
