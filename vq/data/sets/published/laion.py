"""LAION-Aesthetics, as img2dataset writes it."""

import os
import re
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt

from vq.data.base import DataError, ImageDataset
from vq.data.decode import MAX_PIXELS, ImageDecoder, checked_max_pixels
from vq.data.sets.combined import Selection
from vq.data.sets.listed import ListedImages, Listing, data_folder
from vq.data.sets.sharded.parquet_table import ParquetTable
from vq.data.sets.sharded.table_images import TableImages
from vq.data.sets.sharded.webdataset import WebDataset
from vq.data.sets.splits import tail
from vq.files import read_regular
from vq.registry import DATASETS
from vq.text import printable

_CLASS_NAMES = ("laion_aesthetics",)
_FORMATS = ("jpg", "png", "webp")  # of img2dataset's --encode_format
_ENDINGS = tuple(f".{kind}" for kind in _FORMATS)
_MOST_OF_A_CAPTION = 2**20  # bytes


@DATASETS.register_module()
class LAIONAesthetics(Selection):
    """Reads LAION-Aesthetics from what img2dataset downloaded, in any of its three output formats.

    The publishers distribute addresses and captions, and img2dataset downloads the images in shards of 10,000:

        --output_format files       root/00000/000000123.jpg, 000000123.txt (caption), 000000123.json
        --output_format webdataset  root/00000.tar with the same three files for each image
        --output_format parquet     root/00000.parquet with the columns key, jpg, caption, status and others

    The first two formats have metadata in `root/00000.parquet` too, and all have `root/00000_stats.json`; neither is
    read. An image whose download failed has no file; in Parquet files its status is not `success`, and its row is left
    out. The key of an image is the key of img2dataset.

    The last `num_val` images are for validation. Shards are in sorted order. In them, files are in sorted order, and
    members of tars and rows are as img2dataset wrote them, which is the order in which they arrived. So the split
    depends on the download. All images have label 0.

    Source: Schuhmann et al. 2022, https://arxiv.org/abs/2210.08402; the addresses are available from
        https://huggingface.co/datasets/laion/laion2B-en-aesthetic under CC BY 4.0, the images are under the licences of
        their owners.

    Args:
        root: The folder of the shards; by default `$VQ_DATA/laion_aesthetics`, or `data/laion_aesthetics`.
        split: `"train"` or `"val"`.
        num_val: The number of validation images.
        max_pixels: The maximum height times width of an image; larger images count as undecodable.

    Raises:
        DataError: If an argument is out of range; at the first use, if the folder is missing, has no shards or damaged
            ones, has shards of two formats, or if there are not more than `num_val` images.
    """

    def __init__(
        self,
        *,
        root: str | Path | None = None,
        split: str = "train",
        num_val: int = 25_000,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        if split not in ("train", "val"):
            raise DataError(f"LAIONAesthetics: expected split 'train' or 'val', got {split!r}")
        self.root = data_folder(root, "laion_aesthetics")
        self.split = split
        self.num_val = num_val
        self.max_pixels = checked_max_pixels("LAIONAesthetics", max_pixels)

    def caption(self, index: int) -> str:
        """Returns the caption of image `index`; "" if img2dataset was called without `--caption_col`."""
        return cast("_Files | _Tars | _Rows", self.whole).caption(int(self.indices[index]))

    def label(self, index: int) -> int:
        """Returns 0."""
        return 0

    @property
    def class_names(self) -> Sequence[str]:
        """The name of the only class."""
        return _CLASS_NAMES

    def _whole(self) -> "_Files | _Tars | _Rows":
        names = sorted(os.listdir(self.root)) if self.root.is_dir() else []
        tars = [name for name in names if re.fullmatch(r"\d+\.tar", name)]
        folders = [name for name in names if re.fullmatch(r"\d+", name) and (self.root / name).is_dir()]
        tables = [name for name in names if re.fullmatch(r"\d+\.parquet", name)]
        root = printable(str(self.root))
        if tars and folders:
            raise DataError(
                f"LAIONAesthetics: expected shards of one format in {root}, got tars ({tars[0]}) and folders "
                f"({folders[0]}); move one of the two elsewhere"
            )
        if tars:
            return _Tars([self.root / name for name in tars], self.max_pixels)
        if folders:
            return _Files(self.root, folders, self.max_pixels)
        if tables:
            return _Rows([self.root / name for name in tables], self.max_pixels)
        raise DataError(
            f"LAIONAesthetics: expected shards of img2dataset in {root}, such as 00000.tar, a folder 00000 or "
            f"00000.parquet, found none; download the images with img2dataset from the addresses at "
            f"https://huggingface.co/datasets/laion/laion2B-en-aesthetic, or set `root`"
        )

    def _select(self, whole: ImageDataset) -> npt.NDArray[np.bool_]:
        downloaded = whole.succeeded if isinstance(whole, _Rows) else np.ones(len(whole), dtype=bool)
        split = np.zeros(len(whole), dtype=bool)
        split[downloaded] = tail(int(downloaded.sum()), self.num_val)
        return split if self.split == "val" else downloaded & ~split


class _Files(ListedImages):
    """Images in `SHARD/KEY.jpg`, with captions in `SHARD/KEY.txt`."""

    def __init__(self, root: Path, shards: Sequence[str], max_pixels: int) -> None:
        super().__init__(root, ImageDecoder(max_pixels=max_pixels, place="LAIONAesthetics"))
        self._shards = shards

    def key(self, index: int) -> str:
        return self.path(index).stem

    def caption(self, index: int) -> str:
        try:
            content = read_regular(self.path(index).with_suffix(".txt"), most=_MOST_OF_A_CAPTION)
        except FileNotFoundError:
            return ""
        except OSError as error:
            key = printable(self.key(index))
            raise DataError(
                f"LAIONAesthetics: the caption of {key} cannot be read ({error}); make it readable"
            ) from error
        return content.decode(errors="replace")

    def _list(self) -> Listing:
        paths = [
            os.fsencode(f"{shard}/{name}")
            for shard in self._shards
            for name in sorted(os.listdir(self.root / shard))
            if name.endswith(_ENDINGS)
        ]
        return Listing(np.array(paths, dtype=np.bytes_), np.zeros(len(paths), dtype=np.int32), _CLASS_NAMES)


class _Tars(WebDataset):
    """Images in tars, with captions in the same tars."""

    def __init__(self, shards: Sequence[Path], max_pixels: int) -> None:
        super().__init__(
            shards=[str(shard) for shard in shards],
            image=_FORMATS,
            label=None,
            caption="txt",
            max_pixels=max_pixels,
        )

    def key(self, index: int) -> str:
        return super().key(index).rpartition(":")[2]


class _Rows(TableImages):
    """Images in the rows of Parquet files, with captions in another column."""

    def __init__(self, files: Sequence[Path], max_pixels: int) -> None:
        self._rows = ParquetTable(files, place="LAIONAesthetics")
        image = next((kind for kind in _FORMATS if kind in self._rows.schema.names), _FORMATS[0])
        for column in (image, "key", "status"):
            self._rows.check_column(
                column,
                "for other Parquet files use ParquetImages; if these are the metadata of other shards, get the tars or "
                "folders beside them",
            )
        super().__init__("LAIONAesthetics", image=image, label=None, max_pixels=max_pixels)

    def _open(self) -> ParquetTable:
        return self._rows

    def key(self, index: int) -> str:
        return str(self.value(index, "key"))

    def caption(self, index: int) -> str:
        return str(self.value(index, "caption") or "") if "caption" in self._rows.schema.names else ""

    @cached_property
    def succeeded(self) -> npt.NDArray[np.bool_]:
        """A mask of the rows whose image was downloaded."""
        from pyarrow import compute

        return np.asarray(compute.equal(self._rows.column("status"), "success").fill_null(False))
