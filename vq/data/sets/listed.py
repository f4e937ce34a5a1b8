"""What all sets of image files share: their paths and labels, listed at the first use."""

import os
from abc import abstractmethod
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from vq.data.base import DataError, ImageDataset, Pixels
from vq.data.decode import ImageDecoder
from vq.files import sha256_of


class Listing(NamedTuple):
    """The files of a set, in the order of their indices.

    The columns are arrays, not lists: a worker that reads a Python string changes its reference count, so that the
    memory of a million strings would be copied into every worker.
    """

    paths: npt.NDArray[np.bytes_]  # relative to the root, in the encoding of the file system
    labels: npt.NDArray[np.int32]
    class_names: tuple[str, ...]

    def select(self, mask: npt.NDArray[np.bool_]) -> "Listing":
        """Keeps the files where a mask is true; the classes stay."""
        return self._replace(paths=self.paths[mask], labels=self.labels[mask])


class ListedImages(ImageDataset):
    """Images in files below a root. A subclass implements `_list`, which runs once, at the first use.

    Args:
        root: The folder that all paths are relative to; it is not accessed on construction.
        decoder: Decodes the files.
    """

    def __init__(self, root: Path, decoder: ImageDecoder) -> None:
        self.root = root
        self.decoder = decoder
        self.channels = decoder.channels

    @abstractmethod
    def _list(self) -> Listing:
        """Lists the files.

        Raises:
            DataError: If the root is missing or has another layout.
        """

    @cached_property
    def listing(self) -> Listing:
        """The files, listed at the first access."""
        return self._list()

    def __len__(self) -> int:
        """Returns the number of files."""
        return len(self.listing.paths)

    def path(self, index: int) -> Path:
        """Returns the path of file `index`."""
        return self.root / os.fsdecode(self.listing.paths[index].item())

    def read(self, index: int) -> Pixels:
        """Decodes file `index` to upright pixels in 0..255."""
        return self.decoder.read(self.path(index), self.key(index))

    def read_scaled(self, index: int, *, min_side: int) -> Pixels:
        """Decodes file `index`, a large JPEG at a lower resolution of at least `min_side` pixels."""
        return self.decoder.read(self.path(index), self.key(index), min_side=min_side)

    def size(self, index: int) -> tuple[int, int]:
        """Returns the height and width of image `index` from the header of its file."""
        return self.decoder.size(self.path(index), self.key(index))

    def sha256(self, index: int) -> str:
        """Returns the SHA-256 of file `index`, in hexadecimal; "" if it cannot be read."""
        path = self.path(index)
        try:
            return sha256_of(path) if path.is_file() else ""
        except OSError:
            return ""

    def key(self, index: int) -> str:
        """Returns the path of file `index` below the root, with forward slashes; bytes not in UTF-8 are escaped."""
        return as_text(self.listing.paths[index].item())

    def label(self, index: int) -> int:
        """Returns the class of file `index`."""
        return int(self.listing.labels[index])

    @property
    def class_names(self) -> Sequence[str]:
        """The name of each class, in the order of the labels."""
        return self.listing.class_names

    def check(self) -> None:
        """Lists the files.

        Raises:
            DataError: If the root is missing, has another layout, or no files.
        """
        if len(self) == 0:
            super().check()


def as_text(name: bytes) -> str:
    r"""Decodes a name in any locale; bytes that are not UTF-8 are escaped (`\udce4`), as by `printable`."""
    text = name.decode("utf-8", errors="surrogateescape")
    return text.encode("utf-8", errors="backslashreplace").decode("utf-8")


def expanded(root: str | Path) -> Path:
    """Replaces a leading `~` or `~name` of a path by that home folder.

    Args:
        root: The path, as the user wrote it.

    Raises:
        DataError: If there is no such user.
    """
    try:
        return Path(root).expanduser()
    except RuntimeError as error:
        raise DataError(
            f"root: expected a folder, got {str(root)!r}: {error}; write the path of the home folder instead"
        ) from error


def data_folder(root: str | Path | None, name: str) -> Path:
    """Returns where a published set is: at `root` if that is given, else `$VQ_DATA/name`, else `data/name`.

    Args:
        root: The argument of the data set's class.
        name: The folder's name below the folder of all sets, such as `imagenet`.
    """
    return expanded(Path(os.environ.get("VQ_DATA") or "data") / name if root is None else root)
