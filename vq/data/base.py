"""What every set of images offers: how many, which one, its name, its class."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence

from jaxtyping import UInt8
from torch import Tensor

from vq.errors import UserError
from vq.text import printable


class DataError(UserError, ValueError):
    """Data, or settings of them, that cannot be used."""


class UndecodableImage(UserError, ValueError):  # noqa: N818  # it names the image, which is the news
    """An image that is there but cannot be turned into pixels.

    Args:
        name: Which one: its key, or its path.
        reason: What the decoder said.
    """

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(name, reason)  # both, so that the exception survives the way out of a worker
        self.name = name
        self.reason = reason

    def __str__(self) -> str:
        return printable(f"{self.name}: {self.reason}")


class UndecodableSetError(UserError, RuntimeError):
    """So many images of a set are broken that work on it must not go on."""


class ImageDataset(ABC):
    """A finite set of labelled images, read by index; no randomness, no order of its own.

    Making one touches no file, so that a config can be built where the images are not at hand:
    files are looked for at the first `len`, `key`, `label`, `class_names`, `read` or `check`.
    """

    @abstractmethod
    def __len__(self) -> int:
        """The number of images."""

    @abstractmethod
    def read(self, index: int) -> UInt8[Tensor, "3 h w"]:
        """Decodes image `index` to RGB pixels 0..255, which the caller may not write into.

        Raises:
            UndecodableImage: If the file is broken.
        """

    @abstractmethod
    def key(self, index: int) -> str:
        """A name for image `index` that is unique in the set and the same on every machine."""

    @abstractmethod
    def label(self, index: int) -> int:
        """The class of image `index`, an index into `class_names`."""

    def sha256(self, index: int) -> str:
        """The SHA-256 of what decides image `index`: of its file, or where there is none of its pixels.

        In hexadecimal; "" for an image that cannot be read.
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

    def check(self) -> None:
        """Looks for the files, before any work begins.

        Raises:
            DataError: If there are none, with what to do about it.
        """
        if len(self) == 0:
            raise DataError(f"{type(self).__name__}: expected at least 1 image, got none")
