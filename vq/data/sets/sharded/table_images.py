"""What all sets of images in columns of tables share: finding the columns, and reading images and labels from them."""

import hashlib
from abc import abstractmethod
from collections.abc import Sequence
from functools import cached_property
from typing import Any, TypedDict, Unpack

import numpy as np
import numpy.typing as npt

from vq.data.base import DataError, ImageDataset, Pixels, UndecodableImage
from vq.data.decode import ImageDecoder
from vq.data.sets.sharded.parquet_table import DamagedRowsError, Table, described
from vq.data.sets.sharded.table_labels import LabelColumn, is_text
from vq.text import printable

_ONE_CLASS = ("images",)


class DecodingArguments(TypedDict, total=False):
    """Keyword arguments that say how the images of a set are decoded, as for `ImageDecoder`.

    Attributes:
        channels: The number of channels of the images, by default 3.
        value_range: The values in the data that become 0 and 255; None, the default, for images of 8 bits.
        max_pixels: The maximum height times width; larger images count as undecodable.
    """

    channels: int
    value_range: Sequence[float | int] | None
    max_pixels: int


class TableImages(ImageDataset):
    """Images in a column of a table, with labels in another one. A subclass implements `_open` and `key`.

    Args:
        place: The subclass. Error messages start with it.
        image: The column of the images.
        label: The column of the classes; None for a set of one class.
        **decoding: How images are decoded.

    Raises:
        DataError: If a setting is out of range.
    """

    def __init__(
        self, place: str, *, image: str, label: str | None, **decoding: Unpack[DecodingArguments]
    ) -> None:
        self.place, self.image, self.label_column = place, image, label
        self.decoder = ImageDecoder(**decoding, place=place)
        self.channels = self.decoder.channels

    @abstractmethod
    def _open(self) -> Table:
        """Opens the table, at the first use.

        Raises:
            DataError: If there is none.
        """

    @cached_property
    def table(self) -> Table:
        """The table, whose columns of images and labels have been checked."""
        table = self._open()
        table.check_column(self.image, "set `image` to the column of the images")
        kind = table.schema.field(self.image).type
        if not (_is_encoded(kind) or 2 <= _depth_of_numbers(kind) <= 3):
            raise DataError(
                f"{self.place}: expected images in the column {printable(self.image)!r}: the bytes of files, or arrays "
                f"of numbers with 2 or 3 axes; it has {printable(str(kind))}; the table has {described(table.schema)}; "
                f"set `image` to the column of the images{_if_links(kind)}"
            )
        return table

    def __len__(self) -> int:
        """Returns the number of rows."""
        return len(self.table)

    @property
    def shard_sizes(self) -> Sequence[int] | None:
        """The number of images in each shard, which is read as a whole."""
        return self.table.sizes

    def read(self, index: int) -> Pixels:
        """Decodes the image of row `index` to upright pixels in 0..255."""
        return self._decode(index, None)

    def read_scaled(self, index: int, *, min_side: int) -> Pixels:
        """Decodes the image of row `index`, a large JPEG at a lower resolution of at least `min_side` pixels."""
        return self._decode(index, min_side)

    def size(self, index: int) -> tuple[int, int]:
        """Returns the height and width of image `index`, from the header of an encoded image."""
        content = self._content(index)
        if isinstance(content, bytes):
            return self.decoder.size_of(content, self.key(index))
        return super().size(index)

    def sha256(self, index: int) -> str:
        """Returns the SHA-256 of the encoded image of row `index`, or of an array's pixels; "" if it is unreadable."""
        try:
            content = self._content(index)
        except UndecodableImage:
            return ""
        return hashlib.sha256(content).hexdigest() if isinstance(content, bytes) else super().sha256(index)

    def content(self, index: int) -> bytes:
        """Returns the encoded image of row `index`.

        Raises:
            DataError: If the column holds arrays, which are not encoded.
            UndecodableImage: If the row has no image, or is damaged.
        """
        content = self._content(index)
        if not isinstance(content, bytes):
            raise DataError(
                f"{self.place}: the column {self.image!r} has arrays, not encoded images; use `read`"
            )
        return content

    def value(self, index: int, column: str) -> Any:
        """Returns the value in another column of row `index`, such as a caption, as a Python object.

        Raises:
            DataError: If there is no such column, or it is damaged.
        """
        self.table.check_column(column)
        shard, offset = self.table.locate(index)
        try:
            return self.table.read(shard, column)[offset].as_py()
        except (DamagedRowsError, UnicodeDecodeError) as error:
            raise DataError(
                f"{self.place}: {self.key(index)}: the column {printable(column)!r} cannot be read "
                f"({printable(str(error))}); get the file again"
            ) from error

    def label(self, index: int) -> int:
        """Returns the class of row `index`."""
        return 0 if self._labels is None else self._labels.label(*self.table.locate(index))

    @property
    def class_names(self) -> Sequence[str]:
        """The class names that the set declares, else the texts or the numbers in the column of labels.

        Raises:
            DataError: If there is no such column, or its values cannot be classes.
        """
        return _ONE_CLASS if self._labels is None else self._labels.class_names

    def describe(self) -> str:
        """Summarizes the set in one line: images, classes, sizes, and in how many row groups the images are."""
        sizes = self.shard_sizes
        return super().describe() + (f"; {len(sizes):,} row groups" if sizes is not None else "")

    def check(self) -> None:
        """Opens the table, and looks for its columns and classes.

        Raises:
            DataError: If files or columns are missing, or cannot be used.
        """
        super().check()
        if self._labels is not None:
            self._labels.check()

    def _decode(self, index: int, min_side: int | None) -> Pixels:
        content, key = self._content(index), self.key(index)
        if isinstance(content, bytes):
            return self.decoder.decode(content, key, min_side=min_side)
        return self.decoder.from_array(content, key)

    def _content(self, index: int) -> bytes | npt.NDArray[Any]:
        """Returns the encoded image, or the array, of a row.

        Raises:
            UndecodableImage: If it has none.
        """
        from pyarrow import types

        shard, offset = self.table.locate(index)
        try:
            cell = _stored(self.table.read(shard, self.image)[offset])
        except DamagedRowsError as error:
            raise UndecodableImage(self.key(index), str(error)) from error
        if not cell.is_valid:
            raise UndecodableImage(self.key(index), "the row has no image")
        try:
            if _depth_of_numbers(cell.type):
                return _array(cell)
            is_struct = types.is_struct(cell.type)
            content = cell["bytes"] if is_struct else cell
            if content.is_valid:
                return bytes(content.as_py())
            path = cell["path"].as_py() if is_struct and "path" in cell else None
        except ValueError as error:
            raise UndecodableImage(self.key(index), str(error)) from error
        return self._linked(index, path)

    def _linked(self, index: int, path: str | None) -> bytes:
        """Returns the content of an image of which the table only has the path.

        Raises:
            UndecodableImage: If there is no path, or it must not be read.
        """
        reason = (
            "the row has no image" if path is None else f"the row has only the path of an image, {path!r}"
        )
        raise UndecodableImage(self.key(index), reason)

    @cached_property
    def _labels(self) -> LabelColumn | None:
        if self.label_column is None:
            return None
        return LabelColumn(self.table, self.label_column, place=self.place)


def _is_encoded(kind: Any) -> bool:
    """Whether a type holds encoded images: their bytes, or the struct of bytes and path that `datasets` writes."""
    from pyarrow import types

    if types.is_struct(kind):
        return any(field.name == "bytes" and _is_encoded(field.type) for field in kind)
    return bool(types.is_binary(kind) or types.is_large_binary(kind) or types.is_binary_view(kind))


def _depth_of_numbers(kind: Any) -> int:
    """Returns how many lists a type nests around numbers; 0 if it is no list of numbers."""
    from pyarrow import types

    depth = 0
    kind = getattr(kind, "storage_type", kind)  # of an extension type
    while types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        depth, kind = depth + 1, kind.value_type
    return depth if types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind) else 0


def _if_links(kind: Any) -> str:
    return (
        "; images that are paths or addresses must be fetched first, by img2dataset" if is_text(kind) else ""
    )


def _stored(cell: Any) -> Any:
    """Returns the value behind an extension type, such as the arrays of `datasets`, as plain lists."""
    import pyarrow

    return cell.value if isinstance(cell, pyarrow.ExtensionScalar) else cell


def _array(cell: Any) -> npt.NDArray[Any]:
    """Converts nested lists of numbers to an array.

    Raises:
        ValueError: If the lists differ in length, or an entry is missing.
    """
    from pyarrow import compute

    values, shape = cell.values, [len(cell.values)]
    while _depth_of_numbers(values.type):
        lengths = compute.list_value_length(values).unique().to_pylist()
        if values.null_count or len(lengths) != 1:
            raise ValueError("expected an array, got lists that are missing or differ in length")
        shape.append(lengths[0])
        values = values.flatten()
    if values.null_count:
        raise ValueError("expected an array, got one with missing values")
    return np.array(values.to_numpy(zero_copy_only=False)).reshape(
        shape
    )  # a copy: Arrow's memory must not change
