"""ImageNet-1k."""

import re
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from jaxtyping import UInt8
from torch import Tensor

from vq.data.base import DataError, ImageDataset
from vq.data.sets.image_folder import ImageFolder
from vq.data.sets.listed import expanded
from vq.registry import DATASETS


@DATASETS.register_module()
class ImageNet(ImageDataset):
    """Reads ImageNet-1k from its usual layout, `root/{train,val}/WNID/*.JPEG`.

    Labels, 0..999, are the numbers of the sorted WordNet IDs, as in all published classifiers. A folder with fewer
    classes (such as ImageNet-100) can be used too; its labels are the numbers of its own folders.

    Source: Deng et al. 2009 and Russakovsky et al. 2015, https://arxiv.org/abs/1409.0575; available from
        https://image-net.org for non-commercial research.

    Args:
        root: The folder that contains `train` and `val`; it is accessed at the first use.
        split: `"train"` (1,281,167 images) or `"val"` (50,000 images).

    Raises:
        DataError: If the split is unknown; at the first use, if the folder is missing or has another layout.
    """

    def __init__(self, *, root: str | Path = "data/imagenet", split: str = "train") -> None:
        if split not in ("train", "val"):
            raise DataError(f"ImageNet: expected split 'train' or 'val', got {split!r}")
        self.root = expanded(root)
        self.split = split

    def __len__(self) -> int:
        """Returns the number of files."""
        return len(self._folder)

    def read(self, index: int) -> UInt8[Tensor, "3 h w"]:
        """Decodes image `index` to RGB pixels in 0..255; image sizes differ."""
        return self._folder.read(index)

    def sha256(self, index: int) -> str:
        """Returns the SHA-256 of file `index`, in hexadecimal; "" if it cannot be read."""
        return self._folder.sha256(index)

    def key(self, index: int) -> str:
        """Returns the name of image `index`, such as `n01440764/n01440764_10026.JPEG`."""
        return self._folder.key(index)

    def label(self, index: int) -> int:
        """Returns the class of image `index`, 0..999."""
        return self._folder.label(index)

    @property
    def class_names(self) -> Sequence[str]:
        """The WordNet IDs, such as `n01440764` (tench)."""
        return self._folder.class_names

    def check(self) -> None:
        """Lists the files.

        Raises:
            DataError: If the folder is missing or has another layout.
        """
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
        # The archive of the validation images has no class folders, so the images must be sorted into folders first.
        unknown = [name for name in folder.class_names if not re.fullmatch(r"n\d{8}", name)]
        if unknown:
            raise DataError(
                f"ImageNet: expected {layout} and so on, but {unknown[0]!r} in {self.root / self.split} is not "
                "named like n01440764; sort the images into one folder per class, or use ImageFolder"
            )
        return folder
