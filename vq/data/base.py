"""The interface of image data sets, and the errors of data."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence

from jaxtyping import UInt8
from torch import Tensor

from vq.errors import UserError
from vq.text import printable


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
    """

    @abstractmethod
    def __len__(self) -> int:
        """Returns the number of images."""

    @abstractmethod
    def read(self, index: int) -> UInt8[Tensor, "3 h w"]:
        """Decodes image `index` to RGB pixels in 0..255, which the caller must not modify.

        Raises:
            UndecodableImage: If the image cannot be decoded.
        """

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

    def check(self) -> None:
        """Checks before any work that the files exist.

        Raises:
            DataError: If there are none. The message says what to do.
        """
        if len(self) == 0:
            raise DataError(
                f"{type(self).__name__}: expected at least 1 image, got none; use a set that has images"
            )
