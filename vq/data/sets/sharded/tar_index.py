"""The index of a tar: where the members of each sample are, so that any of them is read without those before it.

A sample is what WebDataset defines: consecutive members whose paths agree up to the first dot of the file name. What
precedes the dot is the key of the sample, and what follows is the suffix of the member.
"""

import io
import json
import logging
import re
import tarfile
import zipfile
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from vq.data.base import DataError
from vq.data.sets.sharded.shard_files import ShardFile, Stamp, cached_name, one_process
from vq.files import read_regular, write_atomically
from vq.text import printable

logger = logging.getLogger(__name__)

_FORMAT = 1  # of cached indexes; raised when their meaning changes
_MAX_INDEX = 2**34  # bytes of a cached index
MAX_TEXT = 2**20
"""The largest size in bytes of a member with a class or a caption."""

_BLOCK = tarfile.BLOCKSIZE
_COMPRESSIONS = {
    b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd", b"PK": "zip",
}  # fmt: skip
_SUFFIX = re.compile(rb"((?:.*/|)[^.]+)[.]([^/]*)", re.DOTALL)
_META = re.compile(rb"__[^/]*__(/|\Z)")
_THREADS = 8  # that read indexes; behind addresses they wait for the network
_SHOWN = 3  # errors in a message


class TarError(DataError):
    """A tar that cannot be used as a shard."""


class ByteStrings(Sequence[bytes]):
    """Byte strings in two objects; a list of them would be copied into every worker, as in `Listing`.

    Args:
        joined: All strings, one after the other.
        ends: Where each string ends in `joined`.
    """

    def __init__(self, joined: bytes, ends: npt.NDArray[np.int64]) -> None:
        self.joined, self.ends = joined, ends

    @classmethod
    def of(cls, strings: Iterable[bytes]) -> "ByteStrings":
        """Joins strings."""
        strings = list(strings)
        return cls(b"".join(strings), np.cumsum([len(s) for s in strings], dtype=np.int64))

    @classmethod
    def concatenate(cls, parts: "Sequence[ByteStrings]") -> "ByteStrings":
        """Joins several columns into one."""
        starts = np.cumsum([0, *(len(part.joined) for part in parts)])
        ends = [part.ends + start for part, start in zip(parts, starts[:-1], strict=True)]
        return cls(b"".join(part.joined for part in parts), np.concatenate([np.zeros(0, np.int64), *ends]))

    def select(self, mask: npt.NDArray[np.bool_]) -> "ByteStrings":
        """Keeps the strings where a mask is true."""
        lengths = np.diff(self.ends, prepend=0)
        kept = np.frombuffer(self.joined, dtype=np.uint8)[np.repeat(mask, lengths)]
        return ByteStrings(kept.tobytes(), np.cumsum(lengths[mask], dtype=np.int64))

    def __len__(self) -> int:
        """Returns the number of strings."""
        return len(self.ends)

    def __getitem__(self, index: Any) -> Any:
        """Returns string `index`."""
        if not 0 <= index < len(self.ends):
            raise IndexError(index)
        return self.joined[self.ends[index - 1] if index else 0 : self.ends[index]]


@dataclass(frozen=True, slots=True)
class MemberText:
    """Names a short text of each sample, such as its class, that an index keeps.

    Attributes:
        rule: The suffix of a member (`cls`), or a top-level field of a JSON member (`json:label`).
    """

    rule: str

    @property
    def suffixes(self) -> tuple[str, ...]:
        """The suffixes of the members that have the text; a class may be in a member `.cls.txt` too."""
        if self.field:
            return ("json",)
        return ("cls", "cls.txt") if self.rule == "cls" else (self.rule,)

    @property
    def field(self) -> str:
        """The field of the JSON object, or "" if the text is the whole member."""
        return self.rule.removeprefix("json:") if self.rule.startswith("json:") else ""

    def of(self, content: bytes) -> bytes | None:
        """Returns the text in the content of a member, or None if its object has no such field.

        Raises:
            ValueError: If the content is not a JSON object, or the field is neither a text nor an integer.
        """
        if not self.field:
            return content.strip()
        try:
            value = json.loads(content.decode("utf-8"))
        except RecursionError as error:
            raise ValueError("JSON that is nested too deeply") from error
        if not isinstance(value, dict):
            raise ValueError("expected a JSON object")
        found = value.get(self.field)
        if found is None:
            return None
        if isinstance(found, bool) or not isinstance(found, str | int):
            raise ValueError(f"expected a text or an integer in the field {self.field!r}, got {found!r:.80}")
        return str(found).encode("utf-8", errors="surrogatepass")


class TarIndex(NamedTuple):
    """The samples of a tar and their members, in order.

    `sample`, `suffix`, `offset` and `size` have an entry per member; `keys`, `texts` and `has_text` one per sample.
    """

    stamp: Stamp
    keys: ByteStrings
    suffixes: tuple[str, ...]  # each suffix that occurs, in lower case
    sample: npt.NDArray[np.int32]  # the number of the sample that the member belongs to
    suffix: npt.NDArray[np.int32]  # an index into `suffixes`
    offset: npt.NDArray[np.int64]  # in bytes, from the start of the tar
    size: npt.NDArray[np.int64]
    texts: ByteStrings  # the text that was asked for; b"" if the sample has none
    has_text: npt.NDArray[np.bool_]
    num_ignored: int  # links, devices and sparse members

    def members(self, suffixes: Iterable[str]) -> npt.NDArray[np.int64]:
        """Returns the numbers of the members with one of these suffixes."""
        wanted = [number for number, suffix in enumerate(self.suffixes) if suffix in set(suffixes)]
        return np.flatnonzero(np.isin(self.suffix, wanted))


def index_tar(shard: ShardFile, text: MemberText | None = None) -> TarIndex:
    """Reads the headers of a tar.

    Args:
        shard: The tar, without compression.
        text: The text of each sample to keep.

    Raises:
        TarError: If the tar is compressed, cut short or damaged, or has two members of one name.
        DataError: If it cannot be read.
    """
    stamp = shard.stamp()
    with shard.open() as file:
        _check_uncompressed(shard, file.read(6))
        file.seek(0)
        builder = _Builder(shard, text)
        try:
            with tarfile.open(fileobj=file, mode="r:", errors="surrogateescape", encoding="utf-8") as tar:
                while (member := tar.next()) is not None:
                    builder.add(member, tar)
                    tar.members = []  # type: ignore[attr-defined]  # else it would keep them all
                end = tar.offset
            _check_end(shard, file, end)
        except (tarfile.TarError, EOFError, ValueError, OverflowError, MemoryError, RecursionError) as error:
            if isinstance(error, DataError):
                raise
            reason = printable(str(error) or type(error).__name__)
            raise TarError(
                f"{shard}: cut short or damaged after {builder.end:,} bytes, where {len(builder.keys):,} samples have "
                f"been read ({reason}); copy it again, or leave it out of the shards"
            ) from error
    return builder.index(stamp)


def load_indexes(shards: Sequence[ShardFile], text: MemberText | None, folder: Path) -> list[TarIndex]:
    """Returns the index of each tar: the one in a folder if the tar has not changed since, else a new one.

    Args:
        shards: The tars.
        text: The text of each sample to keep.
        folder: Where indexes are kept.

    Raises:
        DataError: If a tar cannot be used; the message names the first few of them.
    """
    errors: list[DataError] = []

    def load(shard: ShardFile) -> TarIndex | None:
        try:
            return _load(shard, text, folder)
        except DataError as error:
            errors.append(error)
            return None

    with ThreadPoolExecutor(min(_THREADS, max(1, len(shards)))) as pool:
        found = list(pool.map(load, shards))
    if errors:
        first = "; ".join(sorted(map(str, errors))[:_SHOWN])
        raise errors[0] if len(errors) == 1 else TarError(f"{len(errors)} shards cannot be used: {first}")
    return [index for index in found if index is not None]


class _Builder:
    """Collects the members of a tar."""

    def __init__(self, shard: ShardFile, text: MemberText | None) -> None:
        self.shard, self.text = shard, text
        self.end = 0  # of the last member, in whole blocks
        self.keys: list[bytes] = []
        self._sample_of: dict[bytes, int] = {}
        self._suffixes: dict[str, int] = {}
        self._columns: tuple[list[int], ...] = ([], [], [], [])  # sample, suffix, offset, size
        self._here: dict[str, int] = {}  # suffix -> offset, in the present sample
        self._texts: dict[int, bytes] = {}
        self._num_ignored = 0

    def add(self, member: tarfile.TarInfo, tar: tarfile.TarFile) -> None:
        """Adds a member, if it is a file of a sample."""
        if member.size < 0 or tar.offset <= self.end:
            raise ValueError("a member that does not follow the one before it")
        self.end = tar.offset
        if not member.isreg() or member.sparse is not None:
            self._num_ignored += not member.isdir()
            return
        name = member.name.encode("utf-8", errors="surrogateescape")
        parts = _SUFFIX.fullmatch(name)
        if parts is None or _META.match(name):
            return
        key, suffix = parts[1], parts[2].decode("utf-8", errors="backslashreplace").lower()
        if not self.keys or key != self.keys[-1]:
            self._start(key, member.offset_data)
        if suffix in self._here:
            raise self._twice(name, self._here[suffix], member.offset_data)
        self._here[suffix] = member.offset_data
        number = len(self.keys) - 1
        values = (
            number,
            self._suffixes.setdefault(suffix, len(self._suffixes)),
            member.offset_data,
            member.size,
        )
        for column, value in zip(self._columns, values, strict=True):
            column.append(value)
        if self.text is not None and suffix in self.text.suffixes:
            self._keep(number, name, member, tar)

    def index(self, stamp: Stamp) -> TarIndex:
        """Returns the index of what was added."""
        sample, suffix, offset, size = (np.array(column, dtype=np.int64) for column in self._columns)
        numbers = range(len(self.keys))
        return TarIndex(
            stamp=stamp,
            keys=ByteStrings.of(self.keys),
            suffixes=tuple(self._suffixes),
            sample=sample.astype(np.int32),
            suffix=suffix.astype(np.int32),
            offset=offset,
            size=size,
            texts=ByteStrings.of(self._texts.get(number, b"") for number in numbers),
            has_text=np.array([number in self._texts for number in numbers], dtype=bool),
            num_ignored=self._num_ignored,
        )

    def _start(self, key: bytes, offset: int) -> None:
        if key in self._sample_of:
            raise self._twice(key, self._sample_of[key], offset)
        self._sample_of[key] = offset
        self.keys.append(key)
        self._here = {}

    def _twice(self, name: bytes, first: int, second: int) -> TarError:
        shown = printable(name.decode("utf-8", errors="surrogateescape"))
        return TarError(
            f"{self.shard}: expected the members of each sample once and one after the other, got {shown!r} at the "
            f"bytes {first:,} and {second:,}; write the shard again with unique keys"
        )

    def _keep(self, number: int, name: bytes, member: tarfile.TarInfo, tar: tarfile.TarFile) -> None:
        assert self.text is not None
        try:
            if member.size > MAX_TEXT:
                raise ValueError(f"{member.size:,} bytes, more than {MAX_TEXT:,}")
            content = tar.extractfile(member)
            assert content is not None
            found = self.text.of(content.read())
        except ValueError as error:
            shown = printable(name.decode("utf-8", errors="surrogateescape"))
            raise TarError(f"{self.shard}: cannot read {self.text.rule!r} from {shown!r}: {error}") from error
        if found is not None and self._texts.setdefault(number, found) != found:
            raise self._twice(self.keys[number] + b".cls", self._here["cls"], self._here["cls.txt"])


def _check_uncompressed(shard: ShardFile, start: bytes) -> None:
    kind = next((kind for magic, kind in _COMPRESSIONS.items() if start.startswith(magic)), None)
    if kind is not None:
        raise TarError(
            f"{shard}: expected a tar without compression, got {kind}; members can be read in any order only without "
            "it, and it hardly makes images smaller: decompress the shard"
        )


def _check_end(shard: ShardFile, file: io.BufferedReader, end: int) -> None:
    """Checks that zeros follow the last member; `tarfile` takes the end of the file and a damaged header as the end."""
    file.seek(end)
    if len(block := file.read(_BLOCK)) < _BLOCK:
        raise ValueError("the end mark is missing")
    while block:
        if block.strip(b"\0"):
            raise ValueError("what follows is neither a header nor the end; tars cannot be joined by `cat`")
        block = file.read(2**20)


def _load(shard: ShardFile, text: MemberText | None, folder: Path) -> TarIndex:
    stamp = shard.stamp()
    target = folder / f"{cached_name(shard.url, text.rule if text else '')}.npz"
    if (found := _read(target, stamp)) is not None:
        return found
    try:
        with one_process(target):
            if (found := _read(target, stamp)) is None:
                found = index_tar(shard, text)
                _write(target, found)
            return found
    except OSError as error:
        logger.warning(
            "the index of %s cannot be kept in %s (%s) and is made each time; `index_folder` sets another folder",
            shard, folder, error.strerror,
        )  # fmt: skip
        return index_tar(shard, text)


def _write(target: Path, index: TarIndex) -> None:
    about = {
        "format": _FORMAT,
        "stamp": index.stamp,
        "suffixes": index.suffixes,
        "ignored": index.num_ignored,
    }
    content = io.BytesIO()
    np.savez(
        content,
        about=np.frombuffer(json.dumps(about).encode(), dtype=np.uint8),
        keys=np.frombuffer(index.keys.joined, dtype=np.uint8),
        key_ends=index.keys.ends,
        texts=np.frombuffer(index.texts.joined, dtype=np.uint8),
        text_ends=index.texts.ends,
        has_text=index.has_text,
        sample=index.sample,
        suffix=index.suffix,
        offset=index.offset,
        size=index.size,
    )
    write_atomically(target, content.getvalue())


def _read(target: Path, stamp: Stamp) -> TarIndex | None:
    """Reads a cached index; None if there is none for this version of the tar."""
    try:
        with np.load(io.BytesIO(read_regular(target, most=_MAX_INDEX)), allow_pickle=False) as file:
            about = json.loads(file["about"].tobytes())
            if about["format"] != _FORMAT or Stamp(*about["stamp"]) != stamp:
                return None
            return TarIndex(
                stamp=stamp,
                keys=ByteStrings(file["keys"].tobytes(), file["key_ends"]),
                suffixes=tuple(about["suffixes"]),
                sample=file["sample"],
                suffix=file["suffix"],
                offset=file["offset"],
                size=file["size"],
                texts=ByteStrings(file["texts"].tobytes(), file["text_ends"]),
                has_text=file["has_text"],
                num_ignored=about["ignored"],
            )
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        logger.warning("%s: a damaged index is made again (%s)", target, printable(str(error)))
        return None
