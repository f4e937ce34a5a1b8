"""SA-Med2D-20M: medical images of eight modalities."""

import logging
import os
import re
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from vq.data.base import DataError
from vq.data.decode import MAX_PIXELS, ImageDecoder
from vq.data.sets.listed import ListedImages, Listing, data_folder
from vq.data.sets.splits import interleaved
from vq.files import read_json
from vq.registry import DATASETS
from vq.text import printable

logger = logging.getLogger(__name__)

_INDEX = "SAMed2D_v1.json"
_MOST_OF_THE_INDEX = 2**33  # bytes
_NAME = re.compile(r"images/(x_ray|[^_/-]+)[^/]*")


@DATASETS.register_module()
class SAMed2D(ListedImages):
    """Reads SA-Med2D-20M, version 1: 3.8 million slices and photographs as PNG files, without their masks.

    The archive `SA-Med2D-16M.zip` unpacks to this folder. It may be `root` itself, and the two JSON files may be in a
    folder `annotations` below it:

        root/SAMed2Dv1/SAMed2D_v1.json                         {"images/NAME.png": ["masks/NAME--CLASS_ID.png", ...]}
        root/SAMed2Dv1/SAMed2D_v1_class_mapping_id.json        not read
        root/SAMed2Dv1/images/ct_00--AbdomenCT1K--Case_00011--x_0040.png
        root/SAMed2Dv1/masks/                                  not read

    A name is `MODALITY_KIND--SET--CASE--DIRECTION_SLICE.png`. The label is the modality: ct, dermoscopy, endoscopy,
    fundus, mr, pet, ultrasound or x_ray. The layout is known from the publishers' documentation and from programs that
    read it, not from a copy of the data.

    The images are those of the JSON file in sorted order, and every floor(N / num_val)-th of these N is for validation.
    The split is the same for an incomplete copy: images without a file, and files that are not in the JSON file, are
    left out, and their numbers are logged. Listing them takes about half a minute and 4 GB of memory per process.

    Source: Ye et al. 2023, https://arxiv.org/abs/2311.11969; available from
        https://huggingface.co/datasets/OpenGVLab/SA-Med2D-20M under CC BY-NC-SA 4.0.

    Args:
        root: The folder of the data set; by default `$VQ_DATA/sa_med2d_20m`, or `data/sa_med2d_20m`.
        split: `"train"` or `"val"`.
        num_val: The number of validation images.
        channels: 3 for RGB, where grey is repeated, or 1 for grey.
        max_pixels: The maximum height times width of an image; larger images count as undecodable.

    Raises:
        DataError: If an argument is out of range; at the first use, if the folder is missing or has another layout, if
            its JSON file lists none of its images, or if there are not more than `num_val` images.
    """

    def __init__(
        self,
        *,
        root: str | Path | None = None,
        split: str = "train",
        num_val: int = 25_000,
        channels: int = 3,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        if split not in ("train", "val"):
            raise DataError(f"SAMed2D: expected split 'train' or 'val', got {split!r}")
        if channels not in (1, 3):
            raise DataError(f"SAMed2D: expected channels 1 (grey) or 3 (RGB), got {channels}")
        decoder = ImageDecoder(channels=channels, max_pixels=max_pixels, place="SAMed2D")
        super().__init__(data_folder(root, "sa_med2d_20m"), decoder)
        self.split = split
        self.num_val = num_val

    def path(self, index: int) -> Path:
        """Returns the path of file `index`."""
        return self._layout[0] / self.key(index)

    def key(self, index: int) -> str:
        """Returns the name of image `index` in the JSON file, such as `images/ct_00--AMOS--0001--x_0040.png`."""
        return str(self.listing.paths[index].decode())

    def _list(self) -> Listing:
        folder, index = self._layout
        names = _listed_names(index)
        modalities = [_modality(name, index) for name in names]
        class_names = tuple(sorted(set(modalities)))
        number = {name: i for i, name in enumerate(class_names)}
        labels = np.array([number[name] for name in modalities], dtype=np.int32)
        split = interleaved(len(names), self.num_val)
        chosen = split if self.split == "val" else ~split
        kept = chosen & _present(folder, names)
        paths = np.array([os.fsencode(names[i]) for i in np.flatnonzero(kept)], dtype=np.bytes_)
        return Listing(paths, labels[kept], class_names)

    @cached_property
    def _layout(self) -> tuple[Path, Path]:
        """The folder that contains `images`, and the path of the JSON file."""
        for folder in (self.root, self.root / "SAMed2Dv1"):
            for index in (folder / _INDEX, folder / "annotations" / _INDEX):
                if index.is_file() and (folder / "images").is_dir():
                    return folder, index
        root = printable(str(self.root))
        raise DataError(
            f"SAMed2D: expected {root}/SAMed2Dv1/{_INDEX} and a folder {root}/SAMed2Dv1/images, did not find both; get "
            "the parts of SA-Med2D-16M.zip from https://huggingface.co/datasets/OpenGVLab/SA-Med2D-20M, join and "
            "unpack them there, or set `root`"
        )


def _listed_names(index: Path) -> list[str]:
    """Returns the names of all images in the JSON file, sorted."""
    place = printable(str(index))
    try:
        table = read_json(index, most=_MOST_OF_THE_INDEX)
    except (ValueError, OSError) as error:
        raise DataError(
            f"SAMed2D: {place} cannot be read as JSON ({error}); unpack the archive again"
        ) from error
    if not isinstance(table, dict) or not table:
        raise DataError(
            f'SAMed2D: expected {place} to map images to masks, such as {{"images/a.png": ["masks/a--0001_000.png"]}}, '
            f"got {'an empty object' if table == {} else type(table).__name__}; unpack the archive again"
        )
    return sorted(table)


def _modality(name: str, index: Path) -> str:
    found = _NAME.fullmatch(name)
    if found is None:
        raise DataError(
            f"SAMed2D: expected images in {printable(str(index))} with names such as "
            f"images/ct_00--AbdomenCT1K--Case_00011--x_0040.png, got {printable(name)}; unpack the archive again"
        )
    return found[1]


def _present(folder: Path, names: Sequence[str]) -> npt.NDArray[np.bool_]:
    """Returns a mask of the listed images that have a file, and logs how the list and the folder differ."""
    place = printable(str(folder))
    try:
        files = {f"images/{name}" for name in os.listdir(folder / "images")}
    except OSError as error:
        raise DataError(
            f"SAMed2D: the folder {place}/images cannot be read ({error.strerror}); make it readable"
        ) from error
    present = np.array([name in files for name in names])
    if not present.any():
        raise DataError(
            f"SAMed2D: none of the {len(names):,} images in {_INDEX} is in {place}/images, such as "
            f"{printable(names[0])}; unpack the archive again"
        )
    for what, differing in (
        (f"images in {_INDEX} have no file", sorted(set(names) - files)),
        (f"files are not in {_INDEX}", sorted(files.difference(names))),
    ):
        if differing:
            logger.warning(
                "%s: %d %s, such as %s; they are left out",
                place,
                len(differing),
                what,
                printable(differing[0]),
            )
    return present
