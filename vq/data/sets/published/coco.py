"""COCO, the images with their captions."""

import os
import re
from functools import cached_property
from pathlib import Path

import numpy as np

from vq.data.base import DataError
from vq.data.decode import MAX_PIXELS, ImageDecoder
from vq.data.sets.image_folder import ImageFolder
from vq.data.sets.listed import ListedImages, Listing, as_text, data_folder
from vq.files import read_json
from vq.registry import DATASETS
from vq.text import printable, shown

YEARS = (2014, 2017)
"""The releases of COCO."""


@DATASETS.register_module()
class COCO(ListedImages):
    """Reads the images of COCO 2014 or 2017, and their captions if the annotations are there.

    The archives unpack to this folder. The images may also be in `root/images/train2017` and so on:

        root/train2017/000000000009.jpg             118,287 images; val2017 has 5,000
        root/train2014/COCO_train2014_000000000009.jpg   82,783 images; val2014 has 40,504
        root/annotations/captions_train2017.json    only for `captions`

    All images have label 0, because most show objects of several classes. The keys are the names of the files. The
    layout is known from the publishers' documentation, not from a copy of the data.

    Source: Lin et al. 2014, https://arxiv.org/abs/1405.0312; available from https://cocodataset.org. The annotations
        are under CC BY 4.0; for the images, the terms of use of Flickr apply. The split is the official one.

    Args:
        root: The folder of the data set; by default `$VQ_DATA/coco`, or `data/coco`.
        year: 2014 or 2017. Both releases have the same images in other splits.
        split: `"train"` or `"val"`.
        max_pixels: The maximum height times width of an image; larger images count as undecodable.

    Raises:
        DataError: If the year or the split is unknown; at the first use, if the folder is missing, or contains images
            that are not named as in this release.
    """

    def __init__(
        self,
        *,
        root: str | Path | None = None,
        year: int = 2017,
        split: str = "train",
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        if year not in YEARS:
            raise DataError(f"COCO: expected year 2014 or 2017, got {year!r}")
        if split not in ("train", "val"):
            raise DataError(f"COCO: expected split 'train' or 'val', got {split!r}")
        super().__init__(data_folder(root, "coco"), ImageDecoder(max_pixels=max_pixels, place="COCO"))
        self.year, self.split = year, split

    def key(self, index: int) -> str:
        """Returns the name of file `index`, such as `000000000009.jpg`."""
        return os.path.basename(super().key(index))

    def captions(self, index: int) -> tuple[str, ...]:
        """Returns the captions of image `index`, mostly five, in the order of the annotations.

        Raises:
            DataError: If `annotations/captions_{split}{year}.json` is missing or has another content.
        """
        return self._captions.get(int(Path(self.key(index)).stem.rpartition("_")[2]), ())

    def _list(self) -> Listing:
        name = f"{self.split}{self.year}"
        folder = next((f for f in (name, f"images/{name}") if (self.root / f).is_dir()), None)
        root = printable(str(self.root))
        if folder is None:
            raise DataError(
                f"COCO: expected {root}/{name}/*.jpg, found no folder {root}/{name}; get {name}.zip from "
                "https://cocodataset.org, unpack it there, or set `root` or `year`"
            )
        form = re.compile(rf"COCO_{name}_\d{{12}}\.jpg" if self.year == min(YEARS) else r"\d{12}\.jpg")
        found = ImageFolder(root=self.root / folder).listing.paths
        for path in found:
            if not form.fullmatch(as_text(path.item())):
                example = f"COCO_{name}_000000000009.jpg" if self.year == min(YEARS) else "000000000009.jpg"
                raise DataError(
                    f"COCO: expected names such as {example} in {root}/{folder}, got {shown(as_text(path.item()))}; "
                    "remove the file, or read the folder with ImageFolder"
                )
        paths = np.array([f"{folder}/".encode() + path.item() for path in found])
        return Listing(paths, np.zeros(len(paths), dtype=np.int32), ("coco",))

    @cached_property
    def _captions(self) -> dict[int, tuple[str, ...]]:
        """The captions of each image by its number."""
        file = self.root / "annotations" / f"captions_{self.split}{self.year}.json"
        found: dict[int, tuple[str, ...]] = {}
        try:
            for annotation in read_json(file)["annotations"]:
                number = int(annotation["image_id"])
                found[number] = (*found.get(number, ()), str(annotation["caption"]))
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise DataError(
                f'COCO: expected {{"annotations": [{{"image_id", "caption"}}, ...]}} in {printable(str(file))}, got '
                f"{type(error).__name__}: {error}; get annotations_trainval{self.year}.zip from https://cocodataset.org"
            ) from error
        return found
