"""The interface of image data sets, and the errors of data."""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TypeAlias

from jaxtyping import Float32, UInt8
from torch import Tensor

from vq.errors import UserError
from vq.text import printable

Pixels: TypeAlias = UInt8[Tensor, "_channels _h _w"] | Float32[Tensor, "_channels _h _w"]
"""An image in a data set. Its values are 0..255 in both types: float32 keeps what 8 bits would round."""


_SHOWN_CLASSES = 10
_SAMPLED, _SAMPLED_OF_SHARDS = 100, 16  # images whose sizes `describe` looks up


class DataError(UserError, ValueError):
    """Data, or settings of data, that cannot be used."""


class UndecodableImage(UserError, ValueError):  # noqa: N818  # the name says what is wrong with the image
    """An image that exists but cannot be decoded.

    Args:
        name: The key or the path of the image.
        reason: The error of the decoder.
    """

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(name, reason)  # both arguments, so that the exception can be pickled by a worker
        self.name = name
        self.reason = reason

    def __str__(self) -> str:
        return printable(f"{self.name}: {self.reason}")


class UndecodableSetError(UserError, RuntimeError):
    """A set with too many undecodable images."""


class ImageDataset(ABC):
    """A finite set of labelled images, accessed by index, without randomness.

    Constructing a set does not access files, so that a config can be built on a machine without the images. The files
    are looked up at the first `len`, `key`, `label`, `class_names`, `read` or `check`.

    Attributes:
        channels: The number of channels of every image: 1 for grey, 3 for RGB, 4 for RGBA, or any other up to 16.
    """

    channels: int = 3

    @abstractmethod
    def __len__(self) -> int:
        """Returns the number of images."""

    @abstractmethod
    def read(self, index: int) -> Pixels:
        """Decodes image `index` to pixels in 0..255, uint8 or float32, which the caller must not modify.

        Raises:
            UndecodableImage: If the image cannot be decoded.
        """

    def read_scaled(self, index: int, *, min_side: int) -> Pixels:  # used by sets of JPEG files
        """Decodes image `index` for a transform that resizes it to a shorter side of `min_side` pixels.

        A set may decode at a lower resolution if that is faster; the shorter side stays at least `min_side`. Sets that
        cannot do so read the image in full.

        Raises:
            UndecodableImage: If the image cannot be decoded.
        """
        return self.read(index)

    def size(self, index: int) -> tuple[int, int]:
        """Returns the height and width of image `index`; sets of files read only the header.

        Raises:
            UndecodableImage: If the image cannot be decoded.
        """
        _, height, width = self.read(index).shape
        return height, width

    @property
    def shard_sizes(self) -> Sequence[int] | None:
        """The number of images in each shard, in the order of the indices; None if every access costs the same.

        Sets in tar or Parquet shards return it, and training then reads a few shards at a time
        (`vq.data.order.SampleOrder`).
        """
        return None

    @abstractmethod
    def key(self, index: int) -> str:
        """Returns a name for image `index` that is unique in the set and the same on every machine."""

    @abstractmethod
    def label(self, index: int) -> int:
        """Returns the class of image `index`, an index into `class_names`."""

    def sha256(self, index: int) -> str:
        """Returns the SHA-256 of the file of image `index`, or of its pixels if there is no file.

        It is in hexadecimal, and "" for an image that cannot be read.
        """
        try:
            pixels = self.read(index)
        except UndecodableImage:
            return ""
        shape = str(tuple(pixels.shape)).encode()
        return hashlib.sha256(shape + pixels.contiguous().numpy().tobytes()).hexdigest()

    @property
    @abstractmethod
    def class_names(self) -> Sequence[str]:
        """The name of each class, in the order of the labels."""

    def describe(self) -> str:
        """Summarizes the set in one line: the number of images, the classes, and the sizes of a sample of images."""
        return f"{len(self):,} images; {classes_in_words(self.class_names)}; {_sizes_in_words(self)}"

    def check(self) -> None:
        """Checks before any work that the files exist.

        Raises:
            DataError: If there are none. The message says what to do.
        """
        if len(self) == 0:
            raise DataError(
                f"{type(self).__name__}: expected at least 1 image, got none; use a set that has images"
            )


def keys_sha256(dataset: ImageDataset) -> str:
    """The SHA-256 of the names and labels of a set's images, in order."""
    digest = hashlib.sha256()
    for i in range(len(dataset)):
        digest.update(json.dumps([dataset.key(i), dataset.label(i)]).encode() + b"\n")
    return digest.hexdigest()


def classes_in_words(names: Sequence[str]) -> str:
    """Returns the number of classes and the first names.

    Example:
        >>> classes_in_words(["ant", "bee"])
        '2 classes (ant, bee)'
    """
    shown = ", ".join(printable(name) for name in names[:_SHOWN_CLASSES])
    more = ", ..." if len(names) > _SHOWN_CLASSES else ""
    return f"{len(names):,} {'class' if len(names) == 1 else 'classes'} ({shown}{more})"


def _sizes_in_words(dataset: ImageDataset) -> str:
    """Returns the smallest, median and largest of the sizes, by area, of a sample of images."""
    total = len(dataset)
    if dataset.shard_sizes is None:
        indices, which = _spread(total, _SAMPLED), "evenly spread"
    else:  # images of many shards would be slow to read
        indices, which = list(range(min(total, _SAMPLED_OF_SHARDS))), "the first ones"
    sizes = []
    for index in indices:
        try:
            sizes.append(dataset.size(index))
        except UndecodableImage:
            continue
    if not sizes:
        return f"none of {len(indices)} images can be decoded ({which})"
    sizes.sort(key=lambda size: (size[0] * size[1], size))
    smallest, median, largest = (f"{h} x {w}" for h, w in (sizes[0], sizes[len(sizes) // 2], sizes[-1]))
    text = f"all {smallest}" if sizes[0] == sizes[-1] else f"{smallest} to {largest}, median {median}"
    broken = len(indices) - len(sizes)
    sample = f"{len(indices)} images, {which}" if len(indices) < total else "all images"
    return f"height x width {text} (of {sample}{f'; {broken} cannot be decoded' if broken else ''})"


def _spread(total: int, most: int) -> list[int]:
    num = min(total, most)
    return [i * total // num for i in range(num)]
