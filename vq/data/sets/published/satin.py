"""SATIN: 27 data sets of satellite and aerial images."""

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt

from vq.data.base import DataError, ImageDataset
from vq.data.decode import MAX_PIXELS, checked_max_pixels
from vq.data.sets.combined import Concatenation, Selection
from vq.data.sets.listed import data_folder
from vq.data.sets.sharded.parquet_table import ParquetTable, RecentShards
from vq.data.sets.sharded.shard_files import protocol_of
from vq.data.sets.sharded.table_images import TableImages
from vq.data.sets.sharded.table_labels import has_labels
from vq.data.sets.splits import interleaved
from vq.registry import DATASETS
from vq.text import printable, suggest

SATIN_SUBSETS = (
    "SAT-4", "SAT-6", "NASC-TG2",
    "WHU-RS19", "RSSCN7", "RS_C11", "SIRI-WHU", "EuroSAT", "NWPU-RESISC45", "PatternNet", "RSD46-WHU", "GID", "CLRS",
    "Optimal-31",
    "Million-AID", "RSI-CB256",
    "UC_Merced_LandUse_MultiLabel", "MLRSNet", "MultiScene", "AID_MultiLabel",
    "Airbus-Wind-Turbines-Patches", "USTC_SmokeRS", "Canadian_Cropland", "Ships-In-Satellite-Imagery",
    "Satellite-Images-of-Hurricane-Damage",
    "Brazilian_Coffee_Scenes", "Brazilian_Cerrado-Savanna_Scenes",
)  # fmt: skip
"""The sub-sets, in the order of the publishers' six tasks."""

_OWNER = "jonathan-roberts1"  # of the repositories on the hub
_LABELS = ("label", "label_3", "label_2", "label_1")  # from the finest
_IMAGES_PER_VALIDATION_IMAGE = 10


@DATASETS.register_module()
class SATIN(Selection):
    """Reads SATIN (SATellite ImageNet): the images of 27 data sets in Parquet files, all with three channels.

    Each sub-set is a repository of its own, `jonathan-roberts1/SUBSET`, on the Hugging Face hub. The repository
    `jonathan-roberts1/SATIN` contains a program that names them, which is not used. A local copy has one folder per
    sub-set, in which the Parquet files may be in folders:

        root/EuroSAT/data/train-00000-of-00001-26e80b6de2d4dca7.parquet        columns image (struct of bytes), label
        hf download jonathan-roberts1/EuroSAT --repo-type dataset --local-dir root/EuroSAT

        land cover             SAT-4, SAT-6, NASC-TG2
        land use               WHU-RS19, RSSCN7, RS_C11, SIRI-WHU, EuroSAT, NWPU-RESISC45, PatternNet, RSD46-WHU, GID,
                               CLRS, Optimal-31
        hierarchical land use  Million-AID, RSI-CB256 (one class per level, of which the finest is used)
        complex scenes         UC_Merced_LandUse_MultiLabel, MLRSNet, MultiScene, AID_MultiLabel (several classes)
        rare scenes            Airbus-Wind-Turbines-Patches, USTC_SmokeRS, Canadian_Cropland,
                               Ships-In-Satellite-Imagery, Satellite-Images-of-Hurricane-Damage
        false colours          Brazilian_Coffee_Scenes, Brazilian_Cerrado-Savanna_Scenes

    Classes are named after their sub-set, such as `EuroSAT/forest`. The images of a sub-set with several classes per
    image, or without classes, have the class `SUBSET/any`. In each sub-set every tenth image is for validation. The key
    of an image is its sub-set and its row, such as `EuroSAT/17`. The layout is known from the publishers' pages, not
    from a copy of the data.

    Source: Roberts et al. 2023, https://arxiv.org/abs/2304.11619; https://huggingface.co/datasets/jonathan-roberts1/SATIN
        says "other" for the licence, since each sub-set has its own: MIT for EuroSAT, public domain for SAT-6, academic
        use for RSI-CB256, and so on.

    Args:
        root: The folder of the sub-sets; by default `$VQ_DATA/satin`, or `data/satin`. The address
            `"hf://datasets/jonathan-roberts1/SATIN"` reads row groups from the hub as they are needed.
        split: `"train"` or `"val"`.
        subsets: The names of the sub-sets to read, in this order; None reads all 27.
        max_pixels: The maximum height times width of an image; larger images count as undecodable. Some images of
            Million-AID are up to 10,500 pixels wide.

    Raises:
        DataError: If an argument is out of range; at the first use, if a sub-set is missing, or its files are damaged
            or have no images.
    """

    def __init__(
        self,
        *,
        root: str | Path | None = None,
        split: str = "train",
        subsets: Sequence[str] | None = None,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        if split not in ("train", "val"):
            raise DataError(f"SATIN: expected split 'train' or 'val', got {split!r}")
        self.subsets = SATIN_SUBSETS if subsets is None else tuple(subsets)
        for name in self.subsets:
            if name not in SATIN_SUBSETS:
                raise DataError(f"SATIN: there is no sub-set {name!r}{suggest(name, SATIN_SUBSETS)}")
        if len(set(self.subsets)) < len(self.subsets) or not self.subsets:
            raise DataError(f"SATIN: expected one or more different subsets, got {list(self.subsets)}")
        is_address = root is not None and bool(protocol_of(str(root)))
        self.root = str(root).rstrip("/") if is_address else str(data_folder(root, "satin"))
        self.split = split
        self.max_pixels = checked_max_pixels("SATIN", max_pixels)

    def _whole(self) -> Concatenation:
        files = {name: self._files_of(name) for name in self.subsets}
        missing = [name for name, found in files.items() if found is None]
        if missing:
            raise DataError(
                f"SATIN: expected a folder with Parquet files for each of {len(files)} sub-sets in "
                f"{printable(self.root)}, such as {missing[0]}/data/train-00000-of-00001.parquet, found none for "
                f"{', '.join(missing)}; get them with `hf download {_OWNER}/{missing[0]} --repo-type dataset "
                f"--local-dir {printable(self.root)}/{missing[0]}`, or set `root` or `subsets`"
            )
        recent = RecentShards()
        parts = {
            name: _Subset(name, found, self.max_pixels, recent) for name, found in files.items() if found
        }
        return Concatenation(parts=parts)

    def _select(self, whole: ImageDataset) -> npt.NDArray[np.bool_]:
        sizes = [len(part) for part in cast("Concatenation", whole).parts]
        split = [interleaved(size, max(1, size // _IMAGES_PER_VALIDATION_IMAGE)) for size in sizes]
        val = np.concatenate(split)
        return val if self.split == "val" else ~val

    def _files_of(self, name: str) -> str | list[Path] | None:
        """Returns the Parquet files of a sub-set, or a pattern of addresses; None if its folder has none."""
        if protocol_of(self.root):
            return f"{self.root.removesuffix('/SATIN')}/{name}/**/*.parquet"
        entries = Path(self.root).iterdir() if Path(self.root).is_dir() else ()
        # Upper and lower case do not matter: NASC-TG2 is NaSC-TG2 on the hub.
        folder = next((e for e in entries if e.name.casefold() == name.casefold()), None)
        files = () if folder is None else folder.rglob("*.parquet")
        return (
            sorted(f for f in files if not any(p.startswith(".") for p in f.relative_to(self.root).parts))
            or None
        )


class _Subset(TableImages):
    """The images of a sub-set, whose keys are their rows."""

    def __init__(self, name: str, files: str | Sequence[Path], max_pixels: int, recent: RecentShards) -> None:
        self._rows = ParquetTable(files, recent=recent, place=f"SATIN {name}")
        super().__init__(
            f"SATIN {name}", image="image", label=_label_column(self._rows), max_pixels=max_pixels
        )

    def _open(self) -> ParquetTable:
        return self._rows

    def key(self, index: int) -> str:
        return str(index)

    @property
    def class_names(self) -> Sequence[str]:
        return ("any",) if self.label_column is None else super().class_names


def _label_column(table: ParquetTable) -> str | None:
    """Returns the column that gives each image one class; of several levels the finest."""
    from pyarrow import types

    for name in _LABELS:
        is_there = name in table.schema.names and types.is_integer(table.schema.field(name).type)
        if is_there and has_labels(table, name):
            return name
    return None
