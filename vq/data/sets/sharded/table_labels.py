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
        if shard not in self._labels:
            self._labels[shard] = self._labels_of(self._read(shard))
        return int(self._labels[shard][offset])

    @cached_property
    def class_names(self) -> Sequence[str]:
        """The name of each class, in the order of the labels.

        Raises:
            DataError: If the values cannot be classes.
        """
        from pyarrow import types

        kind = self._table.schema.field(self._name).type
        kind = kind.value_type if types.is_dictionary(kind) else kind
        declared = self._table.class_names.get(self._name)
        if is_text(kind):
            return declared or self._distinct_texts()
        if not (types.is_integer(kind) or types.is_boolean(kind)):
            raise self._unusable(f"has the type {kind}")
        low, high, nulls = self._table.bounds(self._name) or self._bounds()
        if nulls:
            raise self._unusable(f"has no value in {nulls:,} row(s)")
        if low < 0:
            raise self._unusable(f"has the label {low}, which marks images whose class is not published")
        if high >= (len(declared) if declared else _MAX_CLASSES):
            limit = f"{len(declared)} class names" if declared else f"{_MAX_CLASSES:,} classes at most"
            raise self._unusable(f"has the label {high:,} with {limit}")
        return declared or tuple(str(number) for number in range(high + 1))

    def _labels_of(self, values: Any) -> npt.NDArray[np.int32]:
        import pyarrow
        from pyarrow import compute

        if is_text(values.type):
            names = pyarrow.array(self.class_names, type=values.type)
            values = compute.index_in(values, names)
        if values.null_count:
            raise self._unusable(
                f"has {values.null_count:,} row(s) without a value, or with an unknown class"
            )
        labels = values.to_numpy().astype(np.int64)
        if not 0 <= labels.min() <= labels.max() < len(self.class_names):
            raise self._unusable(
                f"has labels from {labels.min()} to {labels.max()}, with {len(self.class_names)} names"
            )
        return labels.astype(np.int32)

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

    def _bounds(self) -> tuple[int, int, int]:
        from pyarrow import compute

        lows, highs, nulls = [], [], 0
        for shard in range(len(self._table.sizes)):
            values = self._read(shard)
            nulls += values.null_count
            if values.null_count < len(values):
                found = compute.min_max(values).as_py()
                lows.append(int(found["min"]))
                highs.append(int(found["max"]))
        return min(lows, default=0), max(highs, default=0), nulls

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
