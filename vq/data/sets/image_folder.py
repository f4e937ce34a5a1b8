"""Image files in folders on disk."""

import logging
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from vq.data.base import DataError
from vq.data.decode import MAX_PIXELS, ImageDecoder
from vq.data.sets.listed import ListedImages, Listing, as_text, expanded
from vq.data.sets.splits import by_hash
from vq.registry import DATASETS
from vq.text import printable

logger = logging.getLogger(__name__)

EXTENSIONS = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".avif", ".bmp", ".gif", ".tif", ".tiff",
)  # fmt: skip
SPLITS = ("train", "val", "all")
_COLOURS = (1, 3, 4)  # channels of grey, RGB and RGBA images


@DATASETS.register_module()
class ImageFolder(ListedImages):
    r"""Reads the image files below a folder, in sorted order; each subfolder is a class.

    In `root/CLASS/.../image.png`, the labels follow the sorted names of the folders directly below `root`; an empty
    folder also has a label. Images directly in `root` form one class, named like `root`; if there are class folders
    too, it is the last class, named `.`, which is logged. Names are sorted as text, by code points, so that class `10`
    comes before class `9`; this is logged if it matters. Hidden files and folders are skipped. Links to folders are
    followed, except back to a parent folder. docs/data.md describes which files are read, and how grey, palette,
    16-bit, CMYK, transparent and rotated images are decoded.

    If `root` contains a folder `val`, it holds the validation images, and the training images are in `root/train`, or
    without such a folder everywhere else in `root`; classes are the folders below these. Otherwise an image is a
    validation image if the hash of its path below `root` says so (`vq.data.sets.splits.by_hash`), which stays the same
    when other images are added. The classes and their numbers are the same in all splits.

    Names that are not UTF-8 can be read. In keys and class names their bytes are escaped (`x\udce4.png`), which is
    logged when the folder is listed.

    Args:
        root: The folder; a leading `~` means the home folder. It is accessed at the first use, not on construction.
        split: `"train"`, `"val"`, or `"all"` for the images of both.
        val_fraction: The expected fraction of validation images where their hashes decide, in (0, 1). At least one
            image is for validation, and one for training.
        extensions: The endings of the files to read, such as `(".png", ".jpg")`; case does not matter. None for
            `EXTENSIONS`, and for `.npy` too if `value_range` is given or the images are neither grey, RGB nor RGBA.
        channels: The number of channels of the images, as for `ImageDecoder`.
        value_range: The values in the files that become 0 and 255, as for `ImageDecoder`.
        max_pixels: The maximum height times width of an image; larger images count as undecodable.

    Raises:
        DataError: If an extension has no leading dot, or another setting is out of range; at the first use, if `root`
            is missing or cannot be read, or the split has no image.
    """

    def __init__(
        self,
        *,
        root: str | Path,
        split: str = "all",
        val_fraction: float = 0.1,
        extensions: Sequence[str] | None = None,
        channels: int = 3,
        value_range: Sequence[float | int] | None = None,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        if extensions is None:
            has_arrays = value_range is not None or channels not in _COLOURS
            extensions = (*EXTENSIONS, ".npy") if has_arrays else EXTENSIONS
        if isinstance(extensions, str) or not extensions or not all(e.startswith(".") for e in extensions):
            raise DataError(f"ImageFolder: expected extensions such as ('.png', '.jpg'), got {extensions!r}")
        if split not in SPLITS:
            raise DataError(f"ImageFolder: expected split {', '.join(map(repr, SPLITS))}, got {split!r}")
        if not 0 < val_fraction < 1:
            raise DataError(
                f"ImageFolder: expected val_fraction above 0 and below 1, got {val_fraction}; split='all' reads all "
                f"images"
            )
        decoder = ImageDecoder(
            channels=channels, value_range=value_range, max_pixels=max_pixels, place="ImageFolder"
        )
        super().__init__(expanded(root), decoder)
        self.split, self.val_fraction = split, val_fraction
        self.extensions = tuple(extension.lower() for extension in extensions)
        self._facts: list[str] = []  # for `describe`, known once the files are listed

    def describe(self) -> str:
        """Summarizes the set in one line: images, classes, sizes, validation images, and files that are not read."""
        summary = super().describe()
        empty = len(self.class_names) - len(np.unique(self.listing.labels))
        word = "class has" if empty == 1 else "classes have"
        facts = [f"{empty} {word} no image here", *self._facts] if empty else self._facts
        return "; ".join([summary, *facts])

    def _list(self) -> Listing:
        root = printable(str(self.root))
        if not self.root.is_dir():
            what = "a file" if self.root.exists() else "nothing"
            raise DataError(
                f"ImageFolder: expected a folder of images at {root}, found {what}; put images "
                f"({', '.join(self.extensions)}) there, or set `root` (--config-options root::FOLDER, if the page has "
                f"this option)"
            )
        layout = _Layout.of(self.root)
        files = sorted(path for part in layout.parts for path in _walk(self.root, part, layout, set()))
        found = [path for path in files if path.lower().endswith(self.extensions)]
        others = Counter(_ending(path) for path in files if not path.lower().endswith(self.extensions))
        if not found:
            raise DataError(self._nothing_found(root, others))
        _report_names(root, found)
        labels, class_names = self._classes(found, layout)
        listing = Listing(np.array([os.fsencode(path) for path in found]), labels, class_names)
        is_val = self._validation(found, layout)
        self._facts = [] if self.split == "val" else _not_read(others)
        if self.split == "all":
            return listing
        self._facts.insert(0, _set_aside(root, is_val, layout, self.val_fraction))
        return listing.select(is_val if self.split == "val" else ~is_val)

    def _classes(
        self, found: Sequence[str], layout: "_Layout"
    ) -> tuple[npt.NDArray[np.int32], tuple[str, ...]]:
        """Returns the labels of files, and the names of the classes."""
        root = printable(str(self.root))
        classes = [layout.class_of(path) for path in found]
        loose = classes.count("")
        if loose == len(found):
            return np.zeros(loose, dtype=np.int32), (as_text(os.fsencode(self.root.resolve().name)),)
        folders = layout.class_folders(self.root)
        _report_order(root, folders)
        names = [as_text(os.fsencode(name)) for name in folders]
        if loose:
            names.append(".")
            logger.warning(
                "%s: %d images are in no class folder (the first is %s); they form class %d, named '.'",
                root, loose, printable(found[classes.index("")]), len(folders),
            )  # fmt: skip
        number = {**{name: i for i, name in enumerate(folders)}, "": len(folders)}
        return np.array([number[name] for name in classes], dtype=np.int32), tuple(names)

    def _validation(self, found: Sequence[str], layout: "_Layout") -> npt.NDArray[np.bool_]:
        """Returns a mask of the validation images.

        Raises:
            DataError: If the split has no image.
        """
        root = printable(str(self.root))
        if not layout.has_val:
            if self.split == "all":
                return np.zeros(len(found), dtype=bool)
            if len(found) < 2:
                raise DataError(
                    f"ImageFolder: expected at least 2 images in {root}, to train with some and validate with others, "
                    f"got {printable(found[0])!r} alone; add images"
                )
            return by_hash([as_text(os.fsencode(path)) for path in found], self.val_fraction)
        is_val = np.array([path.startswith("val/") for path in found])
        for split, folder, mask in (("train", layout.parts[0], ~is_val), ("val", "val/", is_val)):
            if self.split == split and not mask.any():
                raise DataError(
                    f"ImageFolder: expected {'training' if split == 'train' else 'validation'} images in "
                    f"{root}/{folder}, found none; put images there, or remove {root}/val, and validation images are "
                    f"chosen by the hash of their names"
                )
        return is_val

    def _nothing_found(self, root: str, others: "Counter[str]") -> str:
        what = f"found no file that ends in {', '.join(self.extensions)}"
        if not others:
            return f"ImageFolder: expected images in {root} or its subfolders, {what}; set `root` or `extensions`"
        ending, count = others.most_common(1)[0]
        if ending == ".npy":
            cure = "set `value_range`, such as (0, 255), and `channels` to those of the arrays, and they are read"
        else:
            cure = "set `root` or `extensions`"
        return (
            f"ImageFolder: expected images in {root} or its subfolders, {what}, but {count:,} that end in "
            f"{ending or 'nothing'}; {cure}"
        )


class _Layout(NamedTuple):
    """Where the images of a root are.

    Attributes:
        parts: The folders with training images and, if there is one, with validation images: prefixes of paths below
            the root, such as `("train/", "val/")`.
        has_val: Whether there is a folder of validation images.
    """

    parts: tuple[str, ...]
    has_val: bool

    @classmethod
    def of(cls, root: Path) -> "_Layout":
        """Finds out the layout of a folder; logs what is not read."""
        entries = {entry.name: _is_folder(entry) for entry in _entries(root)}
        place = printable(str(root))
        if not entries.get("val"):
            if entries.get("train"):
                logger.warning(
                    "%s: has a folder 'train' but none named 'val', so 'train' is a class like any other folder; a "
                    "folder 'val' beside it would hold the validation images",
                    place,
                )
            return cls(("",), has_val=False)
        if not entries.get("train"):
            return cls(("", "val/"), has_val=True)
        if others := sorted(name for name in entries if name not in ("train", "val")):
            logger.warning(
                "%s: has the folders 'train' and 'val', so nothing else in it is read: %s%s",
                place, ", ".join(map(printable, others[:5])), ", ..." if len(others) > 5 else "",
            )  # fmt: skip
        return cls(("train/", "val/"), has_val=True)

    def skips(self, path: str) -> bool:
        """Whether a folder is not walked as a part of the root itself, because it is a part of its own."""
        return self.has_val and path == "val/"

    def class_of(self, path: str) -> str:
        """Returns the folder directly below its part that a path is in; "" if it is in none."""
        part = next(part for part in reversed(self.parts) if path.startswith(part))
        return path[len(part) :].rpartition("/")[0].partition("/")[0]

    def class_folders(self, root: Path) -> list[str]:
        """Lists the folders directly below the parts, sorted by name."""
        names = {
            entry.name
            for part in self.parts
            for entry in _entries(root / part)
            if _is_folder(entry) and not self.skips(f"{part}{entry.name}/")
        }
        return sorted(names)


def _walk(root: Path, prefix: str, layout: _Layout, parents: set[str]) -> Iterator[str]:
    """Yields the paths below the root of all files in the folder `prefix`."""
    real = os.path.realpath(root / prefix)
    if real in parents:
        return  # a link back to a parent folder
    for entry in _entries(root / prefix):
        if not _is_folder(entry):
            yield f"{prefix}{entry.name}"
        elif not layout.skips(f"{prefix}{entry.name}/"):
            yield from _walk(root, f"{prefix}{entry.name}/", layout, parents | {real})


def _ending(path: str) -> str:
    return os.path.splitext(path)[1].lower()


def _set_aside(root: str, is_val: npt.NDArray[np.bool_], layout: _Layout, fraction: float) -> str:
    total, num_val = len(is_val), int(is_val.sum())
    if layout.has_val:
        return f"{num_val:,} of {total:,} images are for validation, those in {root}/val"
    return f"{num_val:,} of {total:,} images are for validation, by the hash of their names (val_fraction={fraction:g})"


def _not_read(others: "Counter[str]") -> list[str]:
    """Counts the files with other endings, in words; returns no line if there are none."""
    if not others:
        return []
    kinds = [f"{count:,} {printable(ending) or 'without ending'}" for ending, count in others.most_common(4)]
    return [f"{others.total():,} other files are not read ({', '.join(kinds)})"]


def _entries(folder: Path) -> "list[os.DirEntry[str]]":
    """Lists the entries of a folder that are not hidden."""
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if not entry.name.startswith(".")]
    except OSError as error:
        raise DataError(
            f"ImageFolder: the folder {printable(str(folder))} cannot be read ({error.strerror}); make it readable, or "
            f"move it elsewhere"
        ) from error


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _report_names(root: str, found: Sequence[str]) -> None:
    escaped = [path for path in found if os.fsencode(path) != as_text(os.fsencode(path)).encode()]
    if escaped:
        if len({as_text(os.fsencode(path)) for path in found}) < len(found):
            raise DataError(
                f"ImageFolder: two files below {root} have the same name once their bytes are escaped; rename one"
            )
        logger.warning(
            "%s: %d names are not UTF-8, such as %s; they are stored and shown with these bytes escaped",
            root,
            len(escaped),
            printable(as_text(os.fsencode(escaped[0]))),
        )


def _report_order(root: str, folders: Sequence[str]) -> None:
    if all(re.fullmatch("[0-9]+", name) for name in folders) and sorted(folders, key=int) != list(folders):
        logger.warning(
            "%s: classes are numbered in the order of their names as text: %s, ...",
            root,
            ", ".join(f"folder {name} is class {i}" for i, name in enumerate(folders[:3])),
        )
