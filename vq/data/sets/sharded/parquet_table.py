"""Tables in Parquet files, on disk or at an address, whose rows are read in parts as they are needed."""

import io
import json
import logging
import os
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from vq.data.base import DataError
from vq.data.order import SHARDS_PER_WINDOW
from vq.data.sets.listed import expanded
from vq.data.sets.sharded.shard_files import (
    ShardFile,
    Stamp,
    expand_shards,
    names_of,
    protocol_of,
    shard_file,
)
from vq.packages import require
from vq.text import printable

logger = logging.getLogger(__name__)

_KEPT = (
    SHARDS_PER_WINDOW + 1
)  # shards of each column that a process keeps: those that training reads at a time
_LARGE_BYTES = 2**31  # of these shards; more is worth a warning
_READERS = 16  # threads that read the footers of files behind addresses


@runtime_checkable
class Table(Protocol):
    """Rows that are read one column of one shard at a time."""

    def __len__(self) -> int:
        """Returns the number of rows."""

    @property
    def schema(self) -> Any:
        """The Arrow schema."""

    @property
    def sizes(self) -> Sequence[int]:
        """The number of rows of each shard, in order."""

    @property
    def class_names(self) -> Mapping[str, tuple[str, ...]]:
        """The class names of each column that is declared to hold classes."""

    def locate(self, index: int) -> tuple[int, int]:
        """Returns the shard of row `index`, and the position of the row in it."""

    def read(self, shard: int, column: str) -> Any:
        """Reads a column of a shard as a chunked array of Arrow."""

    def check_column(self, name: str, cure: str = ...) -> None:
        """Checks that there is such a column; else the error says what to do."""

    @property
    def shards_to_check(self) -> range:
        """The shards whose labels are looked at before training."""


class DamagedRowsError(ValueError):
    """A row group that cannot be decoded; other row groups of its file may be intact."""


@dataclass(frozen=True)
class _File:
    """A Parquet file in the version of which the footer was read."""

    shard: ShardFile
    stamp: Stamp
    footer: Any
    schema: Any


class RecentShards:
    """The shards that a process read last, of one table or of several that share them.

    With several tables, the memory does not grow with their number. A copy for another process is empty.
    """

    def __init__(self) -> None:
        self._columns: dict[str, OrderedDict[tuple[object, int], Any]] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Leaves out what was read, which a worker process reads again."""
        return {"_columns": {}}

    def take(self, table: object, shard: int, column: str) -> Any:
        """Removes and returns a column of a shard of a table; None if it is not there."""
        return self._columns.setdefault(column, OrderedDict()).pop((table, shard), None)

    def keep(self, table: object, shard: int, column: str, values: Any) -> None:
        """Adds a column of a shard of a table, and drops the one of that column that was added first."""
        kept = self._columns.setdefault(column, OrderedDict())
        kept[table, shard] = values
        if len(kept) > _KEPT:
            kept.popitem(last=False)


class ParquetTable:
    """The rows of one or more Parquet files, in the order of the files.

    Constructing a table accesses no files. Before the first row only the footers of the files are read, then one column
    of one row group (a *shard*) at a time. Each process keeps the last ones.

    Args:
        files: A file, a folder (all `*.parquet` below it), a pattern with `*`, an address of one of
            `shard_files.PROTOCOLS`, or several of these. What a folder or a pattern stands for is sorted.
        cache_folder: A folder of this machine to which files behind an address are copied, whole, at their first use.
            By default nothing is copied, and each process transfers the row groups that it reads.
        recent: Where the shards that were read last are kept; tables that are used together may share one.
        place: The class that takes the files. Error messages start with it.
    """

    def __init__(
        self,
        files: str | Path | Sequence[str | Path],
        *,
        cache_folder: str | Path | None = None,
        recent: "RecentShards | None" = None,
        place: str = "ParquetTable",
    ) -> None:
        self._entries = (files,) if isinstance(files, str | Path) else tuple(files)
        self._cache_folder = None if cache_folder is None else expanded(cache_folder)
        self._place = place
        self._recent = RecentShards() if recent is None else recent
        self._checked: set[str] = set()

    def __len__(self) -> int:
        """Returns the number of rows."""
        return self._ends[-1]

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """The number of rows of each shard, in order; row groups without rows are left out."""
        return tuple(self._files[file].footer.row_group(group).num_rows for file, group in self._shards)

    @property
    def schema(self) -> Any:
        """The Arrow schema of the first file."""
        return self._files[0].schema

    @property
    def class_names(self) -> Mapping[str, tuple[str, ...]]:
        """The class names of each column that holds classes, according to the metadata that `datasets` writes."""
        return _class_names(self.schema)

    def locate(self, index: int) -> tuple[int, int]:
        """Returns the shard of row `index`, and the position of the row in it."""
        shard = bisect_right(self._ends, index) - 1
        return shard, index - self._ends[shard]

    def source(self, index: int) -> tuple[str, int]:
        """Returns the file of row `index`, below the folder of all files, and the position of the row in it."""
        file = self._shards[self.locate(index)[0]][0]
        return self._names[file], index - self._file_starts[file]

    def value(self, index: int, column: str) -> Any:
        """Returns the value in a column of row `index`, such as a caption, as a Python object.

        Raises:
            DataError: If there is no such column, or the file cannot be read or has changed.
            DamagedRowsError: If the row group is damaged.
        """
        shard, offset = self.locate(index)
        return self.read(shard, column)[offset].as_py()

    def column(self, name: str) -> Any:
        """Reads a column of all rows, without images, as a chunked array of Arrow.

        Raises:
            DataError: As for `value`.
            DamagedRowsError: As for `value`.
        """
        pyarrow = require("pyarrow", needed_by=self._place)
        self.check_column(name)
        chunks = [chunk for shard in range(len(self.sizes)) for chunk in self.read(shard, name).chunks]
        return pyarrow.chunked_array(chunks, type=self.schema.field(name).type)

    def read(self, shard: int, column: str) -> Any:
        """Reads a column of a shard as a chunked array of Arrow.

        Raises:
            DataError: As for `value`.
            DamagedRowsError: As for `value`.
        """
        found = self._recent.take(self, shard, column)
        if found is None:
            try:
                found = self._read(shard, column)
            except DamagedRowsError as error:
                found = error
        self._recent.keep(self, shard, column, found)
        if isinstance(found, DamagedRowsError):
            raise found
        return found

    def check_column(self, name: str, cure: str = "name one of these") -> None:
        """Checks that there is a column of this name, with the same type and class names in all files.

        Args:
            name: The name of the column.
            cure: What to do if there is none, for the message.

        Raises:
            DataError: If there is none, or the files differ.
        """
        if name in self._checked:
            return
        if name not in self.schema.names:
            raise DataError(
                f"{self._place}: expected a column {printable(name)!r} in {self._files[0].shard}, found "
                f"{described(self.schema)}; {cure}"
            )
        first, names = self.schema.field(name).type, _class_names(self.schema).get(name)
        for file in self._files[1:]:
            found = file.schema.field(name).type if name in file.schema.names else "no such column"
            if found != first or _class_names(file.schema).get(name) != names:
                raise DataError(
                    f"{self._place}: expected the column {printable(name)!r} to be the same in all files, found "
                    f"{first} in {self._files[0].shard} and "
                    f"{'other class names' if found == first else found} in {file.shard}; use the files "
                    f"of one set"
                )
        self._checked.add(name)

    @property
    def shards_to_check(self) -> range:
        """All shards if the files are on this machine, else the first, because each is a request.

        The footers have the lowest and highest value in each row group too, but pyarrow ends the process when it looks
        for them in a damaged footer.
        """
        is_remote = self._cache_folder is None and any(protocol_of(file.shard.url) for file in self._files)
        return range(1 if is_remote else len(self.sizes))

    @cached_property
    def _files(self) -> tuple[_File, ...]:
        require("pyarrow", needed_by=self._place)
        urls = [url for entry in self._entries for url in self._urls(entry)]
        if not urls:
            raise DataError(f"{self._place}: expected at least one Parquet file, got none; set `files`")
        if len(set(urls)) < len(urls):
            twice = next(url for i, url in enumerate(urls) if url in urls[:i])
            raise DataError(
                f"{self._place}: the file {printable(twice)!r} is given twice; give each file once"
            )
        shards = [shard_file(url, self._cache_folder, place=self._place) for url in urls]
        if any(map(protocol_of, urls)):
            with ThreadPoolExecutor(_READERS) as pool:
                files = tuple(pool.map(self._open, shards))
        else:
            files = tuple(map(self._open, shards))
        if not any(file.footer.num_rows for file in files):
            raise DataError(
                f"{self._place}: expected at least 1 row, got {len(files)} file(s) without rows, such as "
                f"{files[0].shard}; use files that have rows"
            )
        return files

    @cached_property
    def _shards(self) -> tuple[tuple[int, int], ...]:
        """The number of the file of each shard, and of the row group in it."""
        found = tuple(
            (number, group)
            for number, file in enumerate(self._files)
            for group in range(file.footer.num_row_groups)
            if file.footer.row_group(group).num_rows
        )
        sizes = sorted((self._files[n].footer.row_group(g).total_byte_size for n, g in found), reverse=True)
        if sum(sizes[:_KEPT]) > _LARGE_BYTES:
            logger.warning(
                "%s: the row groups are large (up to %.2f GB), and each worker process keeps up to %d of them in "
                "memory; files written with row_group_size=100 need less",
                self._place,
                sizes[0] / 1e9,
                _KEPT,
            )
        return found

    @cached_property
    def _ends(self) -> tuple[int, ...]:
        """0, and the number of rows up to the end of each shard."""
        return tuple(accumulate(self.sizes, initial=0))

    @cached_property
    def _file_starts(self) -> tuple[int, ...]:
        return tuple(accumulate((file.footer.num_rows for file in self._files), initial=0))

    @cached_property
    def _names(self) -> tuple[str, ...]:
        return names_of([file.shard.url for file in self._files])

    def _urls(self, entry: str | Path) -> list[str]:
        """Lists the files that a path, a folder, a pattern or an address stands for."""
        path = None if protocol_of(str(entry)) else expanded(entry)
        if path is None or not path.exists():
            return expand_shards([str(entry)], place=self._place)
        if not path.is_dir():
            return [str(path)]
        found = [file.relative_to(path) for file in path.rglob("*.parquet") if file.is_file()]
        if not found:
            raise DataError(
                f"{self._place}: expected files that end in .parquet in the folder {printable(str(path))}, found none"
            )
        return [str(path / file) for file in sorted(found) if not any(p.startswith(".") for p in file.parts)]

    def _open(self, shard: ShardFile) -> _File:
        from pyarrow import ArrowException, parquet

        stamp = shard.stamp()
        try:
            opened = parquet.ParquetFile(_RangeReader(shard, stamp))
            described(opened.schema_arrow)  # fails if a name is not UTF-8
            footer = opened.metadata
            rows = [footer.row_group(group).num_rows for group in range(footer.num_row_groups)]
            if min(rows, default=0) < 0 or sum(rows) != footer.num_rows:
                raise OSError(f"{footer.num_rows} rows in row groups of {rows[:5]} rows")
            return _File(shard, stamp, footer, opened.schema_arrow)
        except (ArrowException, OSError, UnicodeDecodeError) as error:
            raise DataError(
                f"{self._place}: expected a Parquet file, but {shard} is none, or its end is missing "
                f"({printable(str(error))}); get the file again"
            ) from error

    def _read(self, shard: int, column: str) -> Any:
        from pyarrow import ArrowException, parquet

        number, group = self._shards[shard]
        file = self._files[number]
        stream = _RangeReader(file.shard, file.stamp)
        try:
            # Reading ahead would start threads, which do not survive the fork of a worker process.
            opened = parquet.ParquetFile(
                stream, metadata=file.footer, pre_buffer=False, page_checksum_verification=True
            )
            found = opened.read_row_group(group, columns=[column], use_threads=False).column(column)
        except (ArrowException, OSError) as error:
            raise DamagedRowsError(f"row group {group} of {file.shard} is damaged: {error}") from error
        if len(found) != self.sizes[shard]:
            raise DamagedRowsError(
                f"row group {group} of {file.shard} is damaged: expected {self.sizes[shard]} rows, got {len(found)}"
            )
        return found


class _RangeReader(io.RawIOBase):
    """Reads a version of a file at any position.

    A file that has changed or cannot be reached raises a DataError, so that any other error comes from its content.
    """

    def __init__(self, shard: ShardFile, stamp: Stamp) -> None:
        super().__init__()
        self._shard, self._stamp, self._position = shard, stamp, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._stamp.size}[whence]
        self._position = start + offset
        return self._position

    def tell(self) -> int:
        return self._position

    def read(self, size: int | None = -1) -> bytes:
        rest = max(0, self._stamp.size - self._position)
        content = self._shard.read(
            self._position, rest if size is None or size < 0 else min(size, rest), self._stamp
        )
        self._position += len(content)
        return content


def described(schema: Any) -> str:
    """Lists the columns of a table with their types, for a message."""
    columns = [f"{printable(field.name)!r} ({printable(str(field.type))})" for field in schema]
    return f"the columns {', '.join(columns)}" if columns else "no columns"


def _class_names(schema: Any) -> dict[str, tuple[str, ...]]:
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return {
            str(column): tuple(map(str, feature["names"]))
            for column, feature in features.items()
            if isinstance(feature, dict) and feature.get("_type") == "ClassLabel" and feature.get("names")
        }
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError):  # no such metadata
        return {}
