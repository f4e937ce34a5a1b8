"""The classes of images, in a column of a table."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from vq.data.base import DataError
from vq.data.sets.sharded.parquet_table import DamagedRowsError, Table
from vq.text import printable

_MAX_CLASSES = 1_000_000  # of a column of integers; larger numbers are something else than classes


class LabelColumn:
    """The labels in a column of integers or texts.

    Integers are labels; texts are names of classes. The names are those that the table declares, else the numbers up to
    the largest one, or the sorted distinct texts.

    Args:
        table: The table.
        name: The column.
        place: The class that reads it. Error messages start with it.

    Raises:
        DataError: If there is no such column.
    """

    def __init__(self, table: Table, name: str, *, place: str) -> None:
        table.check_column(
            name, "set `label` to the column of the classes, or to None to use the set without classes"
        )
        self._table, self._name, self._place = table, name, place
        self._labels: dict[int, npt.NDArray[np.int32]] = {}

    def label(self, shard: int, offset: int) -> int:
        """Returns the label of a row of a shard.

        Raises:
            DataError: If the row has none, or an unknown one, or the column is damaged.
        """
        return int(self._of_shard(shard)[offset])

    @cached_property
    def class_names(self) -> Sequence[str]:
        """The name of each class, in the order of the labels.

        Raises:
            DataError: If the values cannot be classes.
        """
        found = self._distinct_texts if is_text(self._type) else self._numbers
        return self._declared or found()

    def check(self) -> None:
        """Looks at the labels in `shards_to_check` of the table; the others are looked at when they are used.

        Raises:
            DataError: If a row has no label, or an unknown one.
        """
        _ = self.class_names
        for shard in self._table.shards_to_check:
            self._of_shard(shard)

    @cached_property
    def _type(self) -> Any:
        from pyarrow import types

        kind = self._table.schema.field(self._name).type
        kind = kind.value_type if types.is_dictionary(kind) else kind
        if not (is_text(kind) or types.is_integer(kind) or types.is_boolean(kind)):
            raise self._unusable(f"has the type {printable(str(kind))}")
        return kind

    @property
    def _declared(self) -> tuple[str, ...] | None:
        return self._table.class_names.get(self._name)

    def _of_shard(self, shard: int) -> npt.NDArray[np.int32]:
        if shard not in self._labels:
            values = self._read(shard)
            self._labels[shard] = (
                self._from_texts(values) if is_text(self._type) else self._from_numbers(values)
            )
        return self._labels[shard]

    def _from_texts(self, values: Any) -> npt.NDArray[np.int32]:
        import pyarrow
        from pyarrow import compute

        found = compute.index_in(values, pyarrow.array(self.class_names, type=values.type))
        if found.null_count:
            raise self._unusable(f"has {found.null_count:,} row(s) without a value, or with an unknown class")
        return np.asarray(found.to_numpy()).astype(np.int32)

    def _from_numbers(self, values: Any) -> npt.NDArray[np.int32]:
        if values.null_count:
            raise self._unusable(f"has no value in {values.null_count:,} row(s)")
        numbers = np.asarray(values.to_numpy())
        low, high = int(numbers.min()), int(numbers.max())
        if low < 0:
            raise self._unusable(f"has the label {low}, which marks images whose class is not published")
        if high >= (len(self._declared) if self._declared else _MAX_CLASSES):
            limit = (
                f"{len(self._declared)} class names"
                if self._declared
                else f"{_MAX_CLASSES:,} classes at most"
            )
            raise self._unusable(f"has the label {high:,} with {limit}")
        return numbers.astype(np.int32)

    def _numbers(self) -> tuple[str, ...]:
        highest = max(int(self._of_shard(shard).max()) for shard in range(len(self._table.sizes)))
        return tuple(str(number) for number in range(highest + 1))

    def _distinct_texts(self) -> tuple[str, ...]:
        found: set[str | None] = set()
        for shard in range(len(self._table.sizes)):
            try:
                found.update(self._read(shard).unique().to_pylist())
            except UnicodeDecodeError as error:
                raise self._unusable("has texts that are not UTF-8") from error
        if None in found:
            raise self._unusable("has rows without a value")
        return tuple(sorted(text for text in found if text is not None))

    def _read(self, shard: int) -> Any:
        from pyarrow import types

        try:
            values = self._table.read(shard, self._name)
        except DamagedRowsError as error:
            raise self._unusable(f"cannot be read ({printable(str(error))})") from error
        return values.cast(values.type.value_type) if types.is_dictionary(values.type) else values

    def _unusable(self, what: str) -> DataError:
        return DataError(
            f"{self._place}: expected integers from 0 on, or texts, in the column of labels {printable(self._name)!r}, "
            f"but it {what}; set `label` to another column, or to None to use the set without classes"
        )


def is_text(kind: Any) -> bool:
    """Whether a type of Arrow is text."""
    from pyarrow import types

    return bool(types.is_string(kind) or types.is_large_string(kind))


def has_labels(table: Table, name: str) -> bool:
    """Whether no row in `shards_to_check` lacks a number in a column of integers, or has -1, for an unknown class."""
    try:
        shards = [table.read(shard, name) for shard in table.shards_to_check]
    except DamagedRowsError:
        return True  # `LabelColumn.check` reports it
    return not any(values.null_count or int(values.to_numpy().min()) < 0 for values in shards)
