"""Images in Parquet files, on disk or at an address."""

from collections.abc import Sequence
from pathlib import Path
from typing import Unpack

from vq.data.sets.sharded.parquet_table import ParquetTable
from vq.data.sets.sharded.table_images import DecodingArguments, TableImages
from vq.registry import DATASETS


@DATASETS.register_module()
class ParquetImages(TableImages):
    """Reads images from a column of Parquet files, and labels from another one; nothing is copied or converted.

    The rows are those of the files in order. Before training only the footers of the files are read; then row groups
    are read when one of their images is needed, so that a set behind an address need not be downloaded. Row groups of
    about 100 images, as the library `datasets` writes, are best: training shuffles a few of them at a time.

    Images are encoded files (JPEG, PNG and so on), either as binary values or as the structs of bytes and path that
    `datasets` writes, or arrays of numbers as nested lists. An image that is missing, or whose row group is damaged,
    counts as undecodable. Nothing in a file is executed: unknown extension types are read as what they are stored as.

    Labels are integers or texts. If the file declares class names (the feature `ClassLabel` of `datasets`), they are
    used; else the classes are the numbers from 0 to the largest one, or the sorted distinct texts. A label of -1, which
    marks unpublished classes in some test splits, is refused; `label=None` reads such a split.

    The key of an image is its file, below the deepest folder that contains all files, and its row: `0000.parquet:17`.
    `HashSplit` sets validation images aside if there are no files of their own for them.

    Args:
        files: A file, a folder (all `*.parquet` below it), a pattern such as `data/train-*.parquet`, an address
            (`https://...`, `hf://datasets/USER/NAME/data/*.parquet`, `s3://...`), or several of these. They are
            accessed at the first use.
        image: The column of the images.
        label: The column of the classes; None for a set of one class.
        cache_folder: A folder of this machine to which files behind an address are copied, whole, at their first use.
            By default nothing is copied, and each worker process transfers the row groups of its images.
        **decoding: How images are decoded.

    Raises:
        DataError: If a setting is out of range; at the first use, if files or columns are missing or cannot be used.
    """

    def __init__(
        self,
        *,
        files: str | Path | Sequence[str | Path],
        image: str = "image",
        label: str | None = "label",
        cache_folder: str | Path | None = None,
        **decoding: Unpack[DecodingArguments],
    ) -> None:
        super().__init__("ParquetImages", image=image, label=label, **decoding)
        self._table = ParquetTable(files, cache_folder=cache_folder, place="ParquetImages")

    def _open(self) -> ParquetTable:
        return self._table

    def key(self, index: int) -> str:
        """Returns the file and row of image `index`, such as `0000.parquet:17`."""
        return "{}:{}".format(*self._table.source(index))
