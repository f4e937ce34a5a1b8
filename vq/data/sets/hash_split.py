"""Divides any data set into training and validation images by the hash of their keys."""

import numpy as np
import numpy.typing as npt

from vq.data.base import DataError, ImageDataset
from vq.data.sets.combined import Selection
from vq.data.sets.splits import by_hash
from vq.registry import DATASETS


@DATASETS.register_module()
class HashSplit(Selection):
    """The training or the validation images of a data set that has no official division, chosen by their keys.

    Each image stays on its side when others are added. `ImageFolder` has this division built in; here it is for sets
    in shards, such as `ParquetImages`.

    Args:
        dataset: The whole set. Both sides must be given the same one.
        split: `"train"` or `"val"`.
        val_fraction: The expected fraction of validation images, in (0, 1). At least one image is for validation, and
            one for training.

    Raises:
        DataError: If a setting is out of range; at the first use, if there are fewer than 2 images.
    """

    def __init__(self, *, dataset: ImageDataset, split: str, val_fraction: float = 0.1) -> None:
        if split not in ("train", "val"):
            raise DataError(f"HashSplit: expected split 'train' or 'val', got {split!r}")
        if not 0 < val_fraction < 1:
            raise DataError(f"HashSplit: expected val_fraction above 0 and below 1, got {val_fraction}")
        self.dataset, self.split, self.val_fraction = dataset, split, val_fraction
        self.channels = dataset.channels

    def _whole(self) -> ImageDataset:
        return self.dataset

    def _select(self, whole: ImageDataset) -> npt.NDArray[np.bool_]:
        is_val = by_hash([whole.key(index) for index in range(len(whole))], self.val_fraction)
        return is_val if self.split == "val" else ~is_val

    def check(self) -> None:
        """Checks the whole set.

        Raises:
            DataError: If it has no images, or cannot be used.
        """
        self.dataset.check()
        super().check()
