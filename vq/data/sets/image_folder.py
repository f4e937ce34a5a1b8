"""Image files in folders on disk."""

import logging
import os
import re
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from jaxtyping import UInt8
from torch import Tensor

from vq.data.base import DataError, ImageDataset
from vq.data.decode import MAX_PIXELS, checked_max_pixels, read_image
from vq.files import sha256_of
from vq.registry import DATASETS
from vq.text import printable

logger = logging.getLogger(__name__)

EXTENSIONS = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".avif", ".bmp", ".gif", ".tif", ".tiff",
)  # fmt: skip


class _Listing(NamedTuple):
    # Arrays, not lists: a worker that touches a Python string writes its reference count, and a million
    # of them would be copied into every worker's memory.
    paths: npt.NDArray[np.bytes_]  # below the root, the bytes of the file system
    labels: npt.NDArray[np.int32]
    class_names: tuple[str, ...]


@DATASETS.register_module()
class ImageFolder(ImageDataset):
    r"""Reads the image files below a folder, in sorted order; each subfolder is a class.

    Two layouts: `root/CLASS/.../picture.png`, whose labels follow the sorted names of the folders directly
    below `root` (an empty one keeps its number); or all pictures directly in `root`, which is one class.
    Names are sorted as text, by code points: class `10` comes before class `9`, which is logged where it matters.
    Hidden files and folders are passed over, links to folders are followed, but not in circles. See docs/data.md for
    which files are read, and what happens to grey, palette, 16-bit, CMYK, transparent and rotated images.

    Names that are not UTF-8 are read; in keys and class names their bytes are escaped (`x\udce4.png`), which is logged
    when the folder is listed.

    Args:
        root: The folder, a leading `~` being the home folder; looked at when first used, not when this object is made.
        extensions: Endings of the files to take, in any case, such as `(".png", ".jpg")`.
        max_pixels: Height times width of the largest image that is decoded; a larger one counts as undecodable.

    Raises:
        DataError: If an extension has no leading dot, or `max_pixels` is out of range; when first used, if `root` is
            missing or cannot be read, holds no such file, or holds some both directly and in folders.
    """

    def __init__(
        self, *, root: str | Path, extensions: Sequence[str] = EXTENSIONS, max_pixels: int = MAX_PIXELS
    ) -> None:
        if isinstance(extensions, str) or not extensions or not all(e.startswith(".") for e in extensions):
            raise DataError(f"ImageFolder: expected extensions such as ('.png', '.jpg'), got {extensions!r}")
        self.root = expanded(root)
        self.extensions = tuple(extension.lower() for extension in extensions)
        self.max_pixels = checked_max_pixels("ImageFolder", max_pixels)

    def __len__(self) -> int:
        """The number of files."""
        return len(self._listing.paths)

    def read(self, index: int) -> UInt8[Tensor, "3 h w"]:
        """Decodes file `index` to RGB pixels 0..255, upright, on white."""
        path = self.root / os.fsdecode(self._listing.paths[index].item())
        return read_image(path, self.key(index), max_pixels=self.max_pixels)

    def sha256(self, index: int) -> str:
        """The SHA-256 of file `index`, in hexadecimal; "" if it cannot be read."""
        path = self.root / os.fsdecode(self._listing.paths[index].item())
        try:
            return sha256_of(path) if path.is_file() else ""
        except OSError:
            return ""

    def key(self, index: int) -> str:
        """The file's path below the root, with forward slashes; bytes that are not UTF-8 are escaped."""
        return _as_text(self._listing.paths[index].item())

    def label(self, index: int) -> int:
        """The number of the file's class folder among the sorted folders."""
        return int(self._listing.labels[index])

    @property
    def class_names(self) -> Sequence[str]:
        """The sorted names of the class folders; of a flat folder, its own name."""
        return self._listing.class_names

    def check(self) -> None:
        """Lists the files; see the class for what it raises."""
        _ = self._listing

    @cached_property
    def _listing(self) -> _Listing:
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
            name = _as_text(os.fsencode(self.root.resolve().name))
            return _Listing(paths, np.zeros(len(found), dtype=np.int32), (name,))
        number = {name: i for i, name in enumerate(folders)}
        labels = np.array([number[path.partition("/")[0]] for path in found], dtype=np.int32)
        return _Listing(paths, labels, tuple(_as_text(os.fsencode(name)) for name in folders))

    def _walk(self, folder: Path, prefix: str, parents: set[str]) -> Iterator[str]:
        real = os.path.realpath(folder)
        if real in parents:
            return  # a link back to a folder that we are in
        for entry in _entries(folder):
            if _is_folder(entry):
                yield from self._walk(folder / entry.name, f"{prefix}{entry.name}/", parents | {real})
            elif entry.name.lower().endswith(self.extensions):
                yield f"{prefix}{entry.name}"


@DATASETS.register_module()
class ImageNet(ImageDataset):
    """Reads ImageNet-1k from its usual layout, `root/{train,val}/WNID/*.JPEG`.

    Labels are the sorted WordNet numbers, 0..999, the order of every published classifier. A folder with
    fewer classes works too (ImageNet-100); the numbers then count its folders.

    Source: Deng et al. 2009 and Russakovsky et al. 2015, https://arxiv.org/abs/1409.0575; to be obtained
    from https://image-net.org, for non-commercial research.

    Args:
        root: The folder that holds `train` and `val`; looked at when first used.
        split: `"train"` (1,281,167 images) or `"val"` (50,000 images).

    Raises:
        DataError: If `split` is another; when first used, if the folder is missing or laid out otherwise.
    """

    def __init__(self, *, root: str | Path = "data/imagenet", split: str = "train") -> None:
        if split not in ("train", "val"):
            raise DataError(f"ImageNet: expected split 'train' or 'val', got {split!r}")
        self.root = expanded(root)
        self.split = split

    def __len__(self) -> int:
        """The number of files."""
        return len(self._folder)

    def read(self, index: int) -> UInt8[Tensor, "3 h w"]:
        """Decodes image `index` to RGB pixels 0..255; sizes differ."""
        return self._folder.read(index)

    def sha256(self, index: int) -> str:
        """The SHA-256 of file `index`, in hexadecimal; "" if it cannot be read."""
        return self._folder.sha256(index)

    def key(self, index: int) -> str:
        """Such as `n01440764/n01440764_10026.JPEG`."""
        return self._folder.key(index)

    def label(self, index: int) -> int:
        """The class number, 0..999."""
        return self._folder.label(index)

    @property
    def class_names(self) -> Sequence[str]:
        """The WordNet numbers, such as `n01440764` (tench)."""
        return self._folder.class_names

    def check(self) -> None:
        """Lists the files; see the class for what it raises."""
        _ = self._folder

    @cached_property
    def _folder(self) -> ImageFolder:
        layout = f"{self.root}/{self.split}/n01440764/*.JPEG"
        if not (self.root / self.split).is_dir():
            raise DataError(
                f"ImageNet: expected {layout} and so on, found no folder {self.root / self.split}; "
                "get ImageNet from https://image-net.org, unpack it there, or set `root`"
            )
        folder = ImageFolder(root=self.root / self.split, extensions=(".jpeg", ".jpg"))
        # The archive of the validation images unpacks into one flat folder; they have to be sorted first.
        strange = [name for name in folder.class_names if not re.fullmatch(r"n\d{8}", name)]
        if strange:
            raise DataError(
                f"ImageNet: expected {layout} and so on, but {strange[0]!r} in {self.root / self.split} is not "
                "named like n01440764; sort the images into one folder a class, or use ImageFolder"
            )
        return folder


def expanded(root: str | Path) -> Path:
    """A folder as the user wrote it, with a leading `~` or `~name` replaced by that home folder.

    Raises:
        DataError: If there is no such user.
    """
    try:
        return Path(root).expanduser()
    except RuntimeError as error:
        raise DataError(f"root: expected a folder, got {str(root)!r}: {error}") from error


def _entries(folder: Path) -> "list[os.DirEntry[str]]":
    """What is in a folder and not hidden."""
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if not entry.name.startswith(".")]
    except OSError as error:
        raise DataError(
            f"ImageFolder: the folder {printable(str(folder))} cannot be read ({error.strerror}); mend that, or "
            f"move it away"
        ) from error


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _as_text(name: bytes) -> str:
    r"""A name as text, whatever the locale: bytes that are not UTF-8 become `\udce4`, as `printable` shows them."""
    text = name.decode("utf-8", errors="surrogateescape")
    return text.encode("utf-8", errors="backslashreplace").decode("utf-8")


def _report_names(root: str, found: Sequence[str], folders: Sequence[str]) -> None:
    strange = [path for path in found if os.fsencode(path) != _as_text(os.fsencode(path)).encode()]
    if strange:
        if len({_as_text(os.fsencode(path)) for path in found}) < len(found):
            raise DataError(
                f"ImageFolder: two files below {root} have the same name once their bytes are escaped"
            )
        logger.warning(
            "%s: %d names are not UTF-8, such as %s; they are stored and shown with these bytes escaped",
            root,
            len(strange),
            printable(_as_text(os.fsencode(strange[0]))),
        )
    if all(re.fullmatch("[0-9]+", name) for name in folders) and sorted(folders, key=int) != list(folders):
        logger.warning(
            "%s: classes are numbered in the order of their names as text: %s, ...",
            root,
            ", ".join(f"folder {name} is class {i}" for i, name in enumerate(folders[:3])),
        )
