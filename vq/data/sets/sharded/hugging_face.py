"""Images in data sets of the library `datasets`, on the Hugging Face hub or on disk."""

import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Unpack

from vq.data.base import DataError, UndecodableImage
from vq.data.sets.listed import expanded
from vq.data.sets.sharded.parquet_table import ParquetTable, Table, described
from vq.data.sets.sharded.table_images import DecodingArguments, TableImages
from vq.files import read_regular
from vq.packages import require
from vq.registry import DATASETS
from vq.text import printable

_PLACE = "HuggingFaceDataset"


@DATASETS.register_module()
class HuggingFaceDataset(TableImages):
    """Reads images and labels from a data set on the Hugging Face hub, or from one on disk.

    `name` is a data set on the hub, a folder that `datasets.load_dataset` reads (Parquet files, or images in folders
    named like their classes), or a folder that `save_to_disk` has written. Scripts of data sets are never run.

    By default `datasets` downloads the split, converts it to Arrow files in its cache (`HF_HOME`), and reads these
    through a memory map, so that every access costs the same. With `streaming=True` nothing is copied: the Parquet
    files of the split are read a row group at a time, as `ParquetImages` does. The images, labels, keys and their order
    are the same. Set `HF_TOKEN` for a set that requires an account.

    Images and labels are as for `ParquetImages`. The key of an image is its split and row, such as `train:17`.
    `HashSplit` sets validation images aside if there is no split for them.

    Args:
        name: The data set, such as `uoft-cs/cifar10`, or a folder. It is accessed at the first use.
        split: The name of a split, or without `streaming` also a part of it, such as `train[:95%]`.
        config: The configuration of a data set that has several, also called its subset.
        revision: A branch, tag or commit of the data set on the hub.
        streaming: Whether to read the Parquet files in place instead of downloading the split.
        image: The column of the images; `img` in some data sets.
        label: The column of the classes; None for a set of one class.
        **decoding: How images are decoded.

    Raises:
        DataError: If a setting is out of range; at the first use, if the set cannot be loaded, or its columns cannot
            be used.
    """

    def __init__(
        self,
        *,
        name: str,
        split: str = "train",
        config: str | None = None,
        revision: str | None = None,
        streaming: bool = False,
        image: str = "image",
        label: str | None = "label",
        **decoding: Unpack[DecodingArguments],
    ) -> None:
        super().__init__(_PLACE, image=image, label=label, **decoding)
        self.name, self.split, self.config, self.revision = name, split, config, revision
        self.streaming = streaming

    def key(self, index: int) -> str:
        """Returns the split and row of image `index`, such as `train:17`."""
        return f"{self.split}:{index}"

    @property
    def shard_sizes(self) -> Sequence[int] | None:
        """The number of images in each row group if the set is streamed, else None."""
        return self.table.sizes if self.streaming else None

    def _open(self) -> Table:
        datasets = require("datasets", needed_by=_PLACE)
        folder = self._folder
        is_saved = folder is not None and any(
            (folder / file).is_file() for file in ("state.json", "dataset_dict.json")
        )
        if self.streaming and is_saved:
            raise self._unusable(
                "a set that save_to_disk has written is read in place anyway", "leave out streaming"
            )
        if is_saved and (self.config or self.revision):
            raise self._unusable(
                "a set that save_to_disk has written has no configurations", "leave out config"
            )
        try:
            if is_saved:
                return _ArrowTable(self._split_of(datasets.load_from_disk(str(folder))))
            where = {"path": str(folder or self.name), "name": self.config, "revision": self.revision}
            if self.streaming:
                return self._stream(datasets.load_dataset_builder(**where))
            return _ArrowTable(datasets.load_dataset(**where, split=self.split))
        except DataError:
            raise
        except Exception as error:  # datasets, huggingface_hub and their HTTP client share no class of errors
            raise self._unusable(printable(f"{type(error).__name__}: {error}"), _cure(error)) from error

    @cached_property
    def _folder(self) -> Path | None:
        """The folder of a set on disk; None for a set on the hub."""
        path = expanded(self.name)
        if path.is_dir():
            return path
        if path.exists() or self.name.startswith(("/", "~", ".")):
            what = "a file" if path.exists() else "nothing"
            raise self._unusable(f"there is {what}", "give a folder; ParquetImages reads single files")
        return None

    def _split_of(self, saved: Any) -> Any:
        if not isinstance(saved, Mapping):  # one split, whose name is not the user's to choose
            found = str(saved.split) if saved.split else self.split
            saved = {found: saved}
        if self.split not in saved:
            raise self._unusable(
                f"it has the split(s) {', '.join(map(repr, saved))}", "set `split` to one of them"
            )
        return saved[self.split]

    def _stream(self, builder: Any) -> ParquetTable:
        """Finds the Parquet files of the split."""
        files = builder.config.data_files or {}
        if type(builder).__module__.rpartition(".")[2] != "parquet":
            raise self._unusable(
                f"only Parquet files can be streamed, and it has {type(builder).__module__.rpartition('.')[2]} data",
                "leave out streaming, or set revision='refs/convert/parquet', where the hub keeps a copy as Parquet",
            )
        if self.split not in files:
            raise self._unusable(
                f"it has the split(s) {', '.join(repr(str(split)) for split in files)}",
                "set `split` to one of them; a part of a split cannot be streamed",
            )
        features = builder.info.features
        return _StreamedTable(files[self.split], place=_PLACE, features=features)

    def _linked(self, index: int, path: str | None) -> bytes:
        """Reads an image of which the table has the path, if it is below the folder of the set or in the cache."""
        if path is None or self.streaming:
            return super()._linked(index, path)
        if not any(Path(os.path.abspath(path)).is_relative_to(root) for root in self._readable):
            raise UndecodableImage(
                self.key(index), f"its path {path!r} is outside of the data set; it is not read"
            )
        try:
            return read_regular(Path(path), most=self.decoder.max_bytes)
        except OSError as error:
            raise UndecodableImage(
                self.key(index), f"{path} cannot be read ({error.strerror or error})"
            ) from error

    @cached_property
    def _readable(self) -> tuple[Path, ...]:
        datasets = require("datasets", needed_by=_PLACE)
        from huggingface_hub import constants

        caches = (datasets.config.HF_DATASETS_CACHE, constants.HF_HUB_CACHE)
        roots = [Path(os.path.abspath(os.path.expanduser(cache))) for cache in caches]
        return (*roots, *([] if self._folder is None else [Path(os.path.abspath(self._folder))]))

    def _unusable(self, why: str, cure: str) -> DataError:
        name = f"{self.name} ({self.config})" if self.config else self.name
        return DataError(
            f"{_PLACE}: the split {self.split!r} of {printable(name)!r} cannot be used: {why}; {cure}"
        )


class _ArrowTable:
    """The rows of a `datasets.Dataset`, in Arrow files that are mapped into memory; they are one shard."""

    def __init__(self, dataset: Any) -> None:
        self._dataset = dataset
        self.sizes = (len(dataset),)
        self.class_names = _class_names(dataset.features)
        self.schema = self._dataset.data.schema

    def __len__(self) -> int:
        return len(self._dataset)

    def locate(self, index: int) -> tuple[int, int]:
        return 0, index

    def read(self, shard: int, column: str) -> Any:
        return self._dataset.data.column(column)

    def check_column(self, name: str, cure: str = "name one of these") -> None:
        if name not in self.schema.names:
            raise DataError(
                f"{_PLACE}: expected a column {printable(name)!r}, found {described(self.schema)}; {cure}"
            )

    @property
    def shards_to_check(self) -> range:
        return range(1)


class _StreamedTable(ParquetTable):
    """Parquet files whose features may be declared elsewhere, in the data set's card."""

    def __init__(self, files: Sequence[str], *, place: str, features: Any) -> None:
        super().__init__(files, place=place)
        self._declared = _class_names(features or {})

    @property
    def class_names(self) -> Mapping[str, tuple[str, ...]]:
        return {**super().class_names, **self._declared}


def _class_names(features: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    return {
        column: tuple(feature.names)
        for column, feature in features.items()
        if type(feature).__name__ == "ClassLabel" and feature.names
    }


def _cure(error: Exception) -> str:
    """What to do after an error of `datasets`."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set, so only sets in the cache can be used: unset it, or download the set first"
    if isinstance(error, ConnectionError | TimeoutError):
        return "check the connection to the hub; HF_ENDPOINT is the address of a mirror"
    return "check `name`, `config`, `split` and `revision`, and HF_TOKEN for a set that requires an account"
