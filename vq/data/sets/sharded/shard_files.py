"""Files of shards, on disk or behind an address, which are read by range and never change."""

import glob
import hashlib
import io
import itertools
import math
import os
import re
import stat
import subprocess
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple, cast

from vq.data.base import DataError
from vq.data.sets.listed import expanded
from vq.files import fsync
from vq.packages import require
from vq.text import file_name, printable

PROTOCOLS = ("http", "https", "s3", "gs", "gcs", "az", "abfs", "hf", "memory")
"""The kinds of addresses that are read. fsspec knows others, some of which nest addresses or start programs."""

ALLOW_PIPES = "VQ_ALLOW_PIPES"
"""The environment variable that allows `pipe:` shards. No config can allow them, because weight files hold configs."""

_MAX_SHARDS = 1_000_000
_BUFFER = 2**22  # bytes of a request while a whole file is read
_ATTEMPTS = 4  # to read a range behind an address; the pauses between them are 0.5, 1 and 2 seconds
_VERSIONS = (
    "ETag", "etag", "Last-Modified", "LastModified", "updated", "last_modified", "mtime", "created",
)  # fmt: skip  # where the file systems of fsspec say which version a file has
_SECONDS_BETWEEN_STAMPS = 60.0  # behind an address, where each stamp is a request
_COPY_IT = "set cache_folder, so that whole shards are copied to this machine"


class Stamp(NamedTuple):
    """What tells one version of a file from another."""

    size: int
    version: str  # the time of the last change, in nanoseconds, or what a server states: an ETag or a date


class ShardFile(ABC):
    """A file of which ranges of bytes are read, in any process.

    Args:
        url: The path or address, which messages show.
    """

    def __init__(self, url: str) -> None:
        self.url = url

    @abstractmethod
    def stamp(self) -> Stamp:
        """Looks up the present version of the file.

        Raises:
            DataError: If there is no such file.
        """

    @abstractmethod
    def read(self, offset: int, size: int, stamp: Stamp) -> bytes:
        """Reads `size` bytes from `offset` on.

        Args:
            offset: The position of the first byte.
            size: The number of bytes.
            stamp: The version that the offset belongs to.

        Raises:
            DataError: If the file has changed, or cannot be read.
        """

    @abstractmethod
    def open(self) -> io.BufferedReader:
        """Opens the file to read all of it.

        Raises:
            DataError: If there is no such file.
        """

    def check(self, found: Stamp, stamp: Stamp) -> None:
        """Compares the version of the file with the expected one.

        Raises:
            DataError: If they differ.
        """
        if found != stamp:
            raise DataError(
                f"{self}: expected the version of {stamp.size:,} bytes ({stamp.version}) that was there when the run "
                f"looked it up, found {found.size:,} bytes ({found.version}); a shard must not change while it is "
                "read: start again, and write new shards under new names"
            )

    def __str__(self) -> str:
        """Returns the path or address, on one line."""
        return printable(self.url)


class LocalShard(ShardFile):
    """A file on disk. Each read opens it, so that processes share nothing, and a file that was replaced is noticed."""

    def stamp(self) -> Stamp:
        """Returns the size and the time of the last change."""
        with self._explained():
            return _stamp_of(os.stat(self.url))

    def read(self, offset: int, size: int, stamp: Stamp) -> bytes:
        """Reads a range of the file."""
        with self._explained():
            # Without O_NONBLOCK, opening a pipe would wait for a writer.
            descriptor = os.open(self.url, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                self.check(_stamp_of(os.fstat(descriptor)), stamp)
                content = os.pread(descriptor, size, offset)
                while len(content) < size and (
                    more := os.pread(descriptor, size - len(content), offset + len(content))
                ):
                    content += more  # one call reads at most 2 GiB
                return content
            finally:
                os.close(descriptor)

    def open(self) -> io.BufferedReader:
        """Opens the file."""
        with self._explained():
            _stamp_of(os.stat(self.url))
            return open(self.url, "rb")

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise DataError(
                f"{self}: expected a shard, but it cannot be read ({error.strerror or error})"
            ) from error


class RemoteShard(ShardFile):
    """A file behind an address, read by range through fsspec."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._checked_at = -_SECONDS_BETWEEN_STAMPS

    def stamp(self) -> Stamp:
        """Returns the size, and the ETag or date that the server states."""
        info = self._attempt(lambda fs, path: fs.info(path))
        if info.get("size") is None or info.get("type") == "directory":
            raise DataError(
                f"{self}: expected a shard of known size, got {info.get('type')} of size {info.get('size')}; copy it "
                "to this machine"
            )
        version = next((info[name] for name in _VERSIONS if info.get(name)), "undated")
        return Stamp(int(info["size"]), str(version))

    def read(self, offset: int, size: int, stamp: Stamp) -> bytes:
        """Reads a range of the file; the version is looked up at the first read and then once per minute."""
        if time.monotonic() - self._checked_at >= _SECONDS_BETWEEN_STAMPS:
            self.check(self.stamp(), stamp)
            self._checked_at = time.monotonic()
        if size == 0:
            return b""
        # The file system of the Hugging Face hub would read 5 MB more than it is asked for.
        exactly = {"cache_type": "none"} if protocol_of(self.url) == "hf" else {}
        content = self._attempt(
            lambda fs, path: fs.cat_file(path, start=offset, end=offset + size, **exactly)
        )
        if len(content) != size:
            raise DataError(
                f"{self}: expected {size:,} bytes from {offset:,} on, got {len(content):,}; {_COPY_IT}"
            )
        return cast("bytes", content)

    def open(self) -> io.BufferedReader:
        """Opens the file; reading is buffered in blocks."""
        self._attempt(_read_second_byte)
        return io.BufferedReader(_Ranges(self, self.stamp()), buffer_size=_BUFFER)

    def copy_to(self, target: Path) -> None:
        """Copies the whole file."""
        self._attempt(lambda fs, path: fs.get_file(path, str(target)))

    def _attempt(self, read: Callable[[Any, str], Any]) -> Any:
        """Calls `read` with the file system and the path; errors of the network are tried again."""
        fsspec = require("fsspec", needed_by="a shard behind an address")
        for pause in (*(0.5 * 2**i for i in range(_ATTEMPTS - 1)), None):
            try:
                return read(*fsspec.url_to_fs(self.url))
            except FileNotFoundError as error:
                # fsspec says so of a web server that it cannot reach, too.
                if pause is None or getattr(error.__cause__, "status", 404) == 404:
                    reason = printable(f" ({error.__cause__})" if error.__cause__ else "")
                    raise DataError(
                        f"{self}: expected a shard, found nothing{reason}; check the address"
                    ) from error
                time.sleep(pause)
            except (ImportError, PermissionError) as error:
                raise DataError(f"{self}: cannot be read ({printable(str(error))})") from error
            except ValueError as error:  # of fsspec, for a server that ignores ranges
                raise DataError(
                    f"{self}: cannot be read by range ({printable(str(error))}); {_COPY_IT}"
                ) from error
            except Exception as error:  # each file system has errors of its own for a connection that breaks
                if pause is None:
                    reason = printable(f"{type(error).__name__}: {error}")
                    raise DataError(
                        f"{self}: cannot be read after {_ATTEMPTS} attempts ({reason})"
                    ) from error
                time.sleep(pause)
        raise AssertionError


class _Ranges(io.RawIOBase):
    """A file behind an address as a stream; the reads are tried again if the connection breaks."""

    def __init__(self, shard: RemoteShard, stamp: Stamp) -> None:
        self._shard, self._stamp, self._position = shard, stamp, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._stamp.size}[whence]
        self._position = max(0, start + offset)
        return self._position

    def readinto(self, buffer: Any) -> int:
        size = max(0, min(len(buffer), self._stamp.size - self._position))
        buffer[:size] = self._shard.read(self._position, size, self._stamp)
        self._position += size
        return size


class CopiedShard(ShardFile):
    """A file that is copied to a folder of this machine at the first use, once for all processes.

    Args:
        source: The file.
        folder: Where copies are kept; they are named after the address and version, and never deleted.
    """

    def __init__(self, source: RemoteShard, folder: Path) -> None:
        super().__init__(source.url)
        self.source, self.folder = source, folder
        self._copies: dict[Stamp, LocalShard] = {}

    def stamp(self) -> Stamp:
        """Returns the version of the original."""
        return self.source.stamp()

    def read(self, offset: int, size: int, stamp: Stamp) -> bytes:
        """Reads a range of the copy."""
        copy = self._copy(stamp)
        return copy.read(offset, size, copy.stamp())

    def open(self) -> io.BufferedReader:
        """Opens the copy."""
        return self._copy(self.stamp()).open()

    def _copy(self, stamp: Stamp) -> LocalShard:
        if stamp not in self._copies:
            target = self.folder / cached_name(self.url, *map(str, stamp))
            _make_once(target, self.source.copy_to)
            if (size := target.stat().st_size) != stamp.size:
                target.unlink()
                raise DataError(
                    f"{self}: expected {stamp.size:,} bytes, got {size:,}; start again to copy it again"
                )
            self._copies[stamp] = LocalShard(str(target))
        return self._copies[stamp]


class PipedShard(ShardFile):
    """The output of a shell command, which is copied to a folder of this machine at the first use.

    Args:
        url: `pipe:` and the command.
        folder: Where copies are kept; they are named after the command.
    """

    def __init__(self, url: str, folder: Path) -> None:
        super().__init__(url)
        self.folder = folder

    def stamp(self) -> Stamp:
        """Returns the version of the copy; whether the command would now print something else is not known."""
        return self._copy().stamp()

    def read(self, offset: int, size: int, stamp: Stamp) -> bytes:
        """Reads a range of the copy."""
        return self._copy().read(offset, size, stamp)

    def open(self) -> io.BufferedReader:
        """Opens the copy."""
        return self._copy().open()

    def _copy(self) -> LocalShard:
        target = self.folder / cached_name(self.url)
        _make_once(target, self._run)
        return LocalShard(str(target))

    def _run(self, target: Path) -> None:
        command = ["sh", "-c", self.url.removeprefix("pipe:")]
        with target.open("wb") as output:
            done = subprocess.run(command, stdout=output, stderr=subprocess.PIPE, check=False)
        if done.returncode:
            said = printable(done.stderr.decode(errors="replace").strip()[-200:])
            raise DataError(f"{self}: the command failed with exit code {done.returncode}: {said}")


def shard_file(url: str, cache_folder: Path | None, *, place: str) -> ShardFile:
    """Makes the object that reads a shard; nothing is accessed.

    Args:
        url: A path, an address of one of `PROTOCOLS`, or `pipe:` and a shell command.
        cache_folder: Where whole shards behind an address are kept; None reads ranges of them instead.
        place: The class that reads it. Error messages start with it.

    Raises:
        DataError: If the kind of address is not allowed.
    """
    protocol = protocol_of(url)
    if protocol == "pipe":
        if os.environ.get(ALLOW_PIPES) != "1":
            raise DataError(
                f"{place}: {printable(url)!r} would run a shell command; set the environment variable {ALLOW_PIPES}=1 "
                "to allow it, or copy the shards"
            )
        if cache_folder is None:
            raise DataError(
                f"{place}: {printable(url)!r} can be read only once; set cache_folder, so that its output is kept"
            )
        return PipedShard(url, cache_folder)
    if not protocol:
        return LocalShard(str(expanded(url)))
    if protocol not in PROTOCOLS:
        raise DataError(
            f"{place}: expected a path or an address of {', '.join(PROTOCOLS)}, got {printable(url)!r}; copy the "
            "shards to this machine"
        )
    return RemoteShard(url) if cache_folder is None else CopiedShard(RemoteShard(url), cache_folder)


def protocol_of(url: str) -> str:
    """Returns what precedes `://` or, for a pipe or a chain of file systems, the first colon; "" for a path.

    Example:
        >>> [protocol_of(x) for x in ("s3://a/b.tar", "pipe:cat a.tar", "simplecache::s3://a", "data/a.tar")]
        ['s3', 'pipe', 'simplecache', '']
    """
    found = re.match(r"([A-Za-z][A-Za-z0-9+.-]*)(://|::)|(pipe):", url)
    return (found[1] or found[3]).lower() if found else ""


def expand_shards(patterns: Sequence[str], *, place: str) -> list[str]:
    """Writes out patterns of shards: braces as in a shell, and `*`, `?` and `[...]` in paths, in sorted order.

    Args:
        patterns: Paths or addresses, which may contain `{000..127}` or `{a,b}`.
        place: The class that reads them. Error messages start with it.

    Raises:
        DataError: If a pattern matches nothing, or a shard is listed twice.
    """
    found: list[str] = []
    for pattern in patterns:
        for url in _braces(pattern, place) if "{" in pattern else [pattern]:
            found += _matches(url.removeprefix("file://"), place)
    twice = next((url for url, group in itertools.groupby(sorted(found)) if len(list(group)) > 1), None)
    if twice is not None:
        raise DataError(f"{place}: the shard {printable(twice)!r} is listed twice; list each shard once")
    return found


def names_of(urls: Sequence[str]) -> tuple[str, ...]:
    """Returns the paths of shards below their common folder, without the query of an address if they still differ."""
    for paths in ([url.partition("?")[0] if protocol_of(url) else url for url in urls], urls):
        parts = [path.split("/") for path in paths]
        depth = 0
        while all(len(part) > depth + 1 and part[depth] == parts[0][depth] for part in parts):
            depth += 1
        names = tuple(printable("/".join(part[depth:])) for part in parts)
        if len(set(names)) == len(names):
            break
    return names


def cached_name(*parts: str) -> str:
    """Returns the name of a file in a cache: the end of an address, and a hash of it and its version."""
    digest = hashlib.sha256("\0".join(parts).encode("utf-8", errors="surrogatepass")).hexdigest()
    return f"{digest[:24]}-{file_name(parts[0].rpartition('/')[2])[-100:]}"


@contextmanager
def one_process(target: Path) -> Iterator[None]:
    """Lets one process at a time make a file; the others wait for it.

    Args:
        target: The file, whose folder is created.
    """
    import fcntl

    target.parent.mkdir(parents=True, exist_ok=True)
    lock = target.with_name(f".{target.name}.lock")
    with lock.open("wb") as file:
        with suppress(OSError):  # without locks, each process makes the file and renames it when it is whole
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
        if target.exists():
            lock.unlink(missing_ok=True)  # whoever still waits for it finds the file


def _make_once(target: Path, make: Callable[[Path], None]) -> None:
    """Makes a large file that does not exist yet, under a temporary name, and renames it when it is whole."""
    if target.exists():
        return
    with one_process(target):
        if target.exists():
            return
        partial = target.with_name(f".{target.name}.{uuid.uuid4().hex}.partial")
        try:
            make(partial)
            fsync(partial)
            os.replace(partial, target)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise


def _read_second_byte(fs: Any, path: str) -> None:
    """Fails at once if a server ignores ranges; reading a whole range from it would read the whole file first."""
    with fs.open(path, "rb", cache_type="none") as file:
        file.seek(1)
        file.read(1)


def _stamp_of(status: os.stat_result) -> Stamp:
    if not stat.S_ISREG(status.st_mode):
        raise OSError(None, "not a regular file: a folder's shards are written as FOLDER/*.tar")
    return Stamp(status.st_size, str(status.st_mtime_ns))


def _braces(pattern: str, place: str) -> list[str]:
    require("webdataset", needed_by=f"{place} with braces in the names of shards")  # it installs braceexpand
    from braceexpand import braceexpand

    if math.prod(map(_choices, re.findall(r"\{([^{}]*)\}", pattern))) > _MAX_SHARDS:
        raise DataError(f"{place}: {printable(pattern)!r} gives more than {_MAX_SHARDS:,} shards")
    try:
        return list(braceexpand(pattern))
    except ValueError as error:
        raise DataError(f"{place}: the braces of {printable(pattern)!r} do not match ({error})") from error


def _choices(inside: str) -> int:
    """Returns the number of choices between two braces, without writing them out."""
    ends = re.match(r"(-?\d+)\.\.(-?\d+)", inside)
    return abs(int(ends[2]) - int(ends[1])) + 1 if ends else inside.count(",") + 1


def _matches(url: str, place: str) -> list[str]:
    protocol = protocol_of(url)
    if protocol == "pipe" or not re.search(r"[*?\[]" if protocol not in ("http", "https") else r"\*", url):
        return [url]
    if not protocol:
        path = str(expanded(url))
        found = [path] if os.path.lexists(path) else sorted(glob.glob(path, recursive=True))
    elif protocol in ("http", "https"):
        raise DataError(
            f"{place}: {printable(url)!r}: a web server does not list files; write braces, {{000..127}}"
        )
    else:
        fs, path = require("fsspec", needed_by=f"{place} with shards behind an address").url_to_fs(url)
        found = sorted(fs.unstrip_protocol(name) for name in fs.glob(path))
    if not found:
        raise DataError(f"{place}: expected shards at {printable(url)!r}, found none; set `shards`")
    return found
