"""Image files in folders on disk."""

import logging
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from vq.data.base import DataError
from vq.data.decode import MAX_PIXELS, ImageDecoder
from vq.data.sets.listed import ListedImages, Listing, as_text, expanded
from vq.registry import DATASETS
from vq.text import printable

logger = logging.getLogger(__name__)

EXTENSIONS = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".avif", ".bmp", ".gif", ".tif", ".tiff",
)  # fmt: skip


@DATASETS.register_module()
class ImageFolder(ListedImages):
    r"""Reads the image files below a folder, in sorted order; each subfolder is a class.

    There are two layouts. In `root/CLASS/.../image.png`, the labels follow the sorted names of the folders directly
    below `root`; an empty folder also has a label. If all images are directly in `root`, they form one class. Names are
    sorted as text, by code points, so that class `10` comes before class `9`; this is logged if it matters. Hidden
    files and folders are skipped. Links to folders are followed, except back to a parent folder. docs/data.md describes
    which files are read, and how grey, palette, 16-bit, CMYK, transparent and rotated images are decoded.

    Names that are not UTF-8 can be read. In keys and class names their bytes are escaped (`x\udce4.png`), which is
    logged when the folder is listed.

    Args:
        root: The folder; a leading `~` means the home folder. It is accessed at the first use, not on construction.
        extensions: The endings of the files to read, such as `(".png", ".jpg")`; case does not matter.
        channels: The number of channels of the images, as for `ImageDecoder`.
        value_range: The values in the files that become 0 and 255, as for `ImageDecoder`.
        max_pixels: The maximum height times width of an image; larger images count as undecodable.

    Raises:
        DataError: If an extension has no leading dot, or another setting is out of range; at the first use, if `root`
            is missing or cannot be read, contains no such file, or contains such files both directly and in folders.
    """

    def __init__(
        self,
        *,
        root: str | Path,
        extensions: Sequence[str] = EXTENSIONS,
        channels: int = 3,
        value_range: tuple[float, float] | None = None,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        if isinstance(extensions, str) or not extensions or not all(e.startswith(".") for e in extensions):
            raise DataError(f"ImageFolder: expected extensions such as ('.png', '.jpg'), got {extensions!r}")
        decoder = ImageDecoder(
            channels=channels, value_range=value_range, max_pixels=max_pixels, place="ImageFolder"
        )
        super().__init__(expanded(root), decoder)
        self.extensions = tuple(extension.lower() for extension in extensions)

    def _list(self) -> Listing:
        root = printable(str(self.root))
        if not self.root.is_dir():
            what = "a file" if self.root.exists() else "nothing"
            raise DataError(
                f"ImageFolder: expected a folder of images at {root}, found {what}; "
                f"put images ({', '.join(self.extensions)}) there, or set `root`"
            )
        found = sorted(self._walk(self.root, "", set()))
        folders = sorted(entry.name for entry in _entries(self.root) if _is_folder(entry))
        flat = [path for path in found if "/" not in path]
        if not found:
            raise DataError(
                f"ImageFolder: expected images in {root} or its subfolders, found no file that ends in "
                f"{', '.join(self.extensions)}; set `root` or `extensions`"
            )
        if flat and len(flat) < len(found):
            deep = next(path for path in found if "/" in path)
            raise DataError(
                f"ImageFolder: expected all images of {root} either directly in it or all in subfolders, "
                f"got both ({flat[0]!r} and {deep!r}); move some of them"
            )
        paths = np.array([os.fsencode(path) for path in found])
        _report_names(root, found, folders)
        if flat:
            name = as_text(os.fsencode(self.root.resolve().name))
            return Listing(paths, np.zeros(len(found), dtype=np.int32), (name,))
        number = {name: i for i, name in enumerate(folders)}
        labels = np.array([number[path.partition("/")[0]] for path in found], dtype=np.int32)
        return Listing(paths, labels, tuple(as_text(os.fsencode(name)) for name in folders))

    def _walk(self, folder: Path, prefix: str, parents: set[str]) -> Iterator[str]:
        real = os.path.realpath(folder)
        if real in parents:
            return  # a link back to a parent folder
        for entry in _entries(folder):
            if _is_folder(entry):
                yield from self._walk(folder / entry.name, f"{prefix}{entry.name}/", parents | {real})
            elif entry.name.lower().endswith(self.extensions):
                yield f"{prefix}{entry.name}"


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


def _report_names(root: str, found: Sequence[str], folders: Sequence[str]) -> None:
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
    if all(re.fullmatch("[0-9]+", name) for name in folders) and sorted(folders, key=int) != list(folders):
        logger.warning(
            "%s: classes are numbered in the order of their names as text: %s, ...",
            root,
            ", ".join(f"folder {name} is class {i}" for i, name in enumerate(folders[:3])),
        )
