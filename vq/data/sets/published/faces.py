"""Faces: CelebA, CelebA-HQ and FFHQ."""

import os
import re
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from vq.data.base import DataError
from vq.data.decode import MAX_PIXELS, ImageDecoder
from vq.data.sets.image_folder import ImageFolder
from vq.data.sets.listed import ListedImages, Listing, as_text, data_folder
from vq.data.sets.published.agreement import bad_line, check_same_images, lines_of
from vq.data.sets.splits import tail
from vq.registry import DATASETS
from vq.text import printable, shown

_OFFICIAL = ("train", "val", "test")  # CelebA's partitions 0, 1 and 2
_LAST_TRAIN, _LAST_VAL = 162_770, 182_637  # the numbers of the last images of CelebA's partitions
_NUM_FFHQ, _NUM_FFHQ_TRAIN = 70_000, 60_000
_CLASS_NAMES = ("face",)


@DATASETS.register_module()
class CelebA(ListedImages):
    """Reads CelebA: 202,599 faces, aligned and cropped to 178 x 218 pixels (width x height).

    The images are in `root/img_align_celeba/000001.jpg` and so on, and the split in `root/list_eval_partition.txt`. The
    folders `Img` and `Eval` of the official distribution, Kaggle's `img_align_celeba/img_align_celeba` and
    `list_eval_partition.csv`, and the folder `celeba` of torchvision are found too. All images have label 0. The keys
    are the names of the files. The layouts are known from documentation, not from a copy of the data.

    Source: Liu et al. 2015, https://arxiv.org/abs/1411.7766; available from
        https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html for non-commercial research. The split is the official one.

    Args:
        root: The folder of the data set; by default `$VQ_DATA/celeba`, or `data/celeba`.
        split: `"train"` (162,770 images), `"val"` (19,867) or `"test"` (19,962).
        max_pixels: The maximum height times width of an image; larger images count as undecodable.

    Raises:
        DataError: If the split is unknown; at the first use, if the folder is missing or has another layout, or if the
            list of the split does not agree with the images.
    """

    def __init__(
        self, *, root: str | Path | None = None, split: str = "train", max_pixels: int = MAX_PIXELS
    ) -> None:
        if split not in _OFFICIAL:
            raise DataError(f"CelebA: expected split 'train', 'val' or 'test', got {split!r}")
        super().__init__(data_folder(root, "celeba"), ImageDecoder(max_pixels=max_pixels, place="CelebA"))
        self.split = split

    def key(self, index: int) -> str:
        """Returns the name of file `index`, such as `000001.jpg`."""
        return os.path.basename(super().key(index))

    def _list(self) -> Listing:
        folder = self._first(
            *("img_align_celeba/img_align_celeba", "img_align_celeba", "Img/img_align_celeba"),
            "celeba/img_align_celeba",
        )
        file = self._first(
            *("list_eval_partition.txt", "Eval/list_eval_partition.txt", "celeba/list_eval_partition.txt"),
            "list_eval_partition.csv",
        )
        split_of = _partitions(self.root / file)
        names = [as_text(path.item()) for path in ImageFolder(root=self.root / folder).listing.paths]
        check_same_images("CelebA", self.root / file, listed=split_of, found=names)
        return _faces(f"{folder}/{name}" for name in names if split_of[name] == self.split)

    def _first(self, *places: str) -> str:
        found = next((place for place in places if (self.root / place).exists()), None)
        if found is None:
            root = printable(str(self.root))
            raise DataError(
                f"CelebA: expected {root}/img_align_celeba/000001.jpg and so on and {root}/list_eval_partition.txt, "
                f"found none of {', '.join(places)}; get both from https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html, "
                "unpack them there, or set `root`"
            )
        return found


class _Faces(ListedImages):
    """Faces in one of several folders, or in folders `train` and `val`, which then decide the split."""

    name: ClassVar[str]
    folders: ClassVar[tuple[str, ...]]  # where the images may be
    source: ClassVar[str]

    def __init__(self, root: Path, *, split: str, images: str | None, max_pixels: int) -> None:
        super().__init__(root, ImageDecoder(max_pixels=max_pixels, place=self.name))
        self.split, self.images = split, images

    @abstractmethod
    def _select(self, folder: str, paths: Sequence[str]) -> Sequence[bool] | npt.NDArray[np.bool_]:
        """Tells which images of a folder belong to the split."""

    def _list(self) -> Listing:
        if self.images is None and all((self.root / part).is_dir() for part in ("train", "val")):
            if self.split not in ("train", "val"):
                raise self._no_such_split(f"{printable(str(self.root))}/train and val")
            return ImageFolder(root=self.root, split=self.split).listing
        folder = self._folder()
        paths = [os.fsdecode(path.item()) for path in ImageFolder(root=self.root / folder).listing.paths]
        chosen = self._select(folder, paths)
        prefix = "" if folder == "." else f"{folder}/"
        return _faces(f"{prefix}{path}" for path, is_chosen in zip(paths, chosen, strict=True) if is_chosen)

    def _folder(self) -> str:
        """Returns the folder of the images, relative to the root."""
        root = printable(str(self.root))
        found = [
            f for f in (self.folders if self.images is None else (self.images,)) if (self.root / f).is_dir()
        ]
        if not found:
            looked_for = ", ".join(self.folders) if self.images is None else self.images
            raise DataError(
                f"{self.name}: expected folders train and val in {root}, or one of images named {looked_for}, found "
                f"neither; get the images from {self.source}, unpack them there, or set `root` or `images`"
            )
        if len(found) > 1:
            raise DataError(
                f"{self.name}: expected one folder of images in {root}, found {' and '.join(found)}; choose one by "
                f"images={found[0]!r}"
            )
        return found[0]

    def _no_such_split(self, where: str) -> DataError:
        return DataError(
            f"{self.name}: expected split 'train' or 'val' for {where}, got {self.split!r}; only the images in "
            "CelebA-HQ-img have a test split"
        )


@DATASETS.register_module()
class CelebAHQ(_Faces):
    """Reads CelebA-HQ: 30,000 faces of CelebA in a higher resolution.

    There is no official distribution as image files, and no official split. The first of these that fits is used:

    * Folders `root/train` and `root/val`, as in the reference framework and StarGAN v2 (28,000 and 2,000 images). Each
      subfolder is a class, such as `female` and `male`.
    * CelebAMask-HQ: `root/CelebA-HQ-img/0.jpg` and so on, and `root/CelebA-HQ-to-CelebA-mapping.txt`, by which the
      official split of CelebA decides (about 24,200 images for training, 3,000 for validation and 2,800 for testing).
    * One folder of images named `CelebA-HQ-img`, `celeba_hq_256`, `data256x256`, `celeba_hq_1024` or `data1024x1024`,
      or as `images` says. The last `num_val` in the order of their names are for validation.

    In the last two, all images have label 0. The layouts are known from documentation, not from a copy of the data.

    Source: Karras et al. 2018, https://arxiv.org/abs/1710.10196; as image files in CelebAMask-HQ, available from
        https://github.com/switchablenorms/CelebAMask-HQ for non-commercial research.

    Args:
        root: The folder of the data set; by default `$VQ_DATA/celeba_hq`, or `data/celeba_hq`.
        split: `"train"`, `"val"`, or with CelebAMask-HQ's mapping `"test"`.
        images: The folder of the images below the root, if it has another name or there are several; `"."` for the root
            itself.
        num_val: The number of validation images of a folder without a mapping.
        max_pixels: The maximum height times width of an image; larger images count as undecodable.

    Raises:
        DataError: If the split is unknown; at the first use, if the folder is missing or has another layout, if the
            mapping does not agree with the images, or if there are not more than `num_val` images.
    """

    name = "CelebAHQ"
    folders = ("CelebA-HQ-img", "celeba_hq_256", "data256x256", "celeba_hq_1024", "data1024x1024")
    source = "https://github.com/switchablenorms/CelebAMask-HQ"

    def __init__(
        self,
        *,
        root: str | Path | None = None,
        split: str = "train",
        images: str | None = None,
        num_val: int = 5000,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        if split not in _OFFICIAL:
            raise DataError(f"CelebAHQ: expected split 'train', 'val' or 'test', got {split!r}")
        super().__init__(data_folder(root, "celeba_hq"), split=split, images=images, max_pixels=max_pixels)
        self.num_val = num_val

    def _select(self, folder: str, paths: Sequence[str]) -> Sequence[bool] | npt.NDArray[np.bool_]:
        mapping = self.root / "CelebA-HQ-to-CelebA-mapping.txt"
        if folder == "CelebA-HQ-img" and mapping.exists():
            split_of = _mapped_splits(mapping)
            check_same_images("CelebAHQ", mapping, listed=split_of, found=paths)
            return [split_of[path] == self.split for path in paths]
        if self.split == "test":
            raise self._no_such_split(f"{printable(str(self.root))}/{folder} without {mapping.name}")
        is_val = tail(len(paths), self.num_val)
        return is_val if self.split == "val" else ~is_val


@DATASETS.register_module()
class FFHQ(_Faces):
    """Reads FFHQ: 70,000 faces, aligned and cropped to 1024 x 1024 pixels, or their thumbnails of 128 x 128.

    The images are in `root/images1024x1024/00000/00000.png`, or in `root/thumbnails128x128` in the same way. Images
    that were made smaller may be in `root/images256x256` or `root/images512x512`, or where `images` says, with or
    without the folders of 1000. By their numbers, the first 60,000 are for training and the other 10,000 for
    validation, as the publishers appoint; StyleGAN trains on all 70,000. If there are folders `root/train` and
    `root/val`, these decide.

    All images have label 0. The layout is known from the publishers' documentation, not from a copy of the data.

    Source: Karras et al. 2019, https://arxiv.org/abs/1812.04948; available from https://github.com/NVlabs/ffhq-dataset
        under CC BY-NC-SA 4.0. The images are under CC BY 2.0, CC BY-NC 2.0, CC0 1.0, or in the public domain.

    Args:
        root: The folder of the data set; by default `$VQ_DATA/ffhq`, or `data/ffhq`.
        split: `"train"` or `"val"`.
        images: The folder of the images below the root, if it has another name or there are several; `"."` for the root
            itself.
        max_pixels: The maximum height times width of an image; larger images count as undecodable.

    Raises:
        DataError: If the split is unknown; at the first use, if the folder is missing or has another layout, or an
            image is not named by its number.
    """

    name = "FFHQ"
    folders = ("images1024x1024", "images512x512", "images256x256", "thumbnails128x128")
    source = "https://github.com/NVlabs/ffhq-dataset"

    def __init__(
        self,
        *,
        root: str | Path | None = None,
        split: str = "train",
        images: str | None = None,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        if split not in ("train", "val"):
            raise DataError(f"FFHQ: expected split 'train' or 'val', got {split!r}")
        super().__init__(data_folder(root, "ffhq"), split=split, images=images, max_pixels=max_pixels)

    def _select(self, folder: str, paths: Sequence[str]) -> Sequence[bool]:
        chosen = []
        for path in paths:
            found = re.fullmatch(r"(?:\d{5}/)?(\d{5})\.\w+", path)
            if found is None or int(found[1]) >= _NUM_FFHQ:
                raise DataError(
                    f"FFHQ: expected images named by their numbers, such as 00000/00000.png to 69000/69999.png, in "
                    f"{printable(str(self.root))}/{folder}, got {shown(path)}; the number decides the split, so keep "
                    "the names, or put the images into folders train and val"
                )
            chosen.append((int(found[1]) >= _NUM_FFHQ_TRAIN) == (self.split == "val"))
        return chosen


def _faces(paths: Iterable[str]) -> Listing:
    """Returns the listing of images of one class."""
    encoded = np.array([os.fsencode(path) for path in paths], dtype=np.bytes_)
    return Listing(encoded, np.zeros(len(encoded), dtype=np.int32), _CLASS_NAMES)


def _partitions(file: Path) -> dict[str, str]:
    """Reads the split of each image of CelebA from lines such as `000001.jpg 0`, or `000001.jpg,0` below a header."""
    found: dict[str, str] = {}
    for number, line in enumerate(lines_of("CelebA", file), start=1):
        if line == "image_id,partition" and number == 1:
            continue
        fields = re.fullmatch(r"(\d{6}\.jpg)(?:\s+|,)([012])\s*", line)
        if fields is None or fields[1] in found:
            raise bad_line("CelebA", file, number, line, "another image in each line with 0, 1 or 2")
        found[fields[1]] = _OFFICIAL[int(fields[2])]
    return found


def _mapped_splits(file: Path) -> dict[str, str]:
    """Reads lines `idx orig_idx orig_file`, such as `0 119613 119614.jpg`, and looks up the split of the original."""
    found: dict[str, str] = {}
    for number, line in enumerate(lines_of("CelebAHQ", file), start=1):
        if number == 1 and line.split() == ["idx", "orig_idx", "orig_file"]:
            continue
        fields = re.fullmatch(r"\s*(\d+)\s+\d+\s+(\d{6})\.jpg\s*", line)
        if fields is None or f"{fields[1]}.jpg" in found:
            raise bad_line(
                "CelebAHQ", file, number, line, "another idx in each line `idx orig_idx orig_file`"
            )
        original = int(fields[2])
        position = int(original > _LAST_TRAIN) + int(original > _LAST_VAL)
        found[f"{fields[1]}.jpg"] = _OFFICIAL[position]
    return found
