"""Data sets made of other data sets: some of the images of a set, and several sets one after the other."""

from abc import abstractmethod
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import accumulate

import numpy as np
import numpy.typing as npt

from vq.data.base import DataError, ImageDataset, Pixels
from vq.registry import DATASETS


class Selection(ImageDataset):
    """Some of the images of another set, in their order there.

    A subclass implements `_whole` and `_select`, which run once, at the first use.
    """

    @abstractmethod
    def _whole(self) -> ImageDataset:
        """Returns the other set."""

    @abstractmethod
    def _select(self, whole: ImageDataset) -> npt.NDArray[np.bool_]:
        """Returns a mask of the images of the other set that belong to this one."""

    @cached_property
    def whole(self) -> ImageDataset:
        """The set that the images are selected from."""
        return self._whole()

    @cached_property
    def indices(self) -> npt.NDArray[np.int64]:
        """The index of each image in the other set, in increasing order."""
        return np.flatnonzero(self._select(self.whole))

    def __len__(self) -> int:
        """Returns the number of selected images."""
        return len(self.indices)

    def read(self, index: int) -> Pixels:
        """Decodes selected image `index`."""
        return self.whole.read(int(self.indices[index]))

    def read_scaled(self, index: int, *, min_side: int) -> Pixels:
        """Decodes selected image `index`, at a lower resolution of at least `min_side` pixels if that is faster."""
        return self.whole.read_scaled(int(self.indices[index]), min_side=min_side)

    def size(self, index: int) -> tuple[int, int]:
        """Returns the height and width of selected image `index`."""
        return self.whole.size(int(self.indices[index]))

    def sha256(self, index: int) -> str:
        """Returns the SHA-256 of selected image `index`, as the other set does."""
        return self.whole.sha256(int(self.indices[index]))

    def key(self, index: int) -> str:
        """Returns the key of selected image `index` in the other set."""
        return self.whole.key(int(self.indices[index]))

    def label(self, index: int) -> int:
        """Returns the class of selected image `index`."""
        return self.whole.label(int(self.indices[index]))

    @property
    def class_names(self) -> Sequence[str]:
        """The classes of the other set."""
        return self.whole.class_names

    @property
    def shard_sizes(self) -> Sequence[int] | None:
        """The number of selected images in each shard of the other set that has any."""
        sizes = self.whole.shard_sizes
        if sizes is None:
            return None
        borders = np.searchsorted(self.indices, np.cumsum([0, *sizes]))
        return [int(size) for size in np.diff(borders) if size]

    def check(self) -> None:
        """Checks the other set, and that images of it are selected.

        Raises:
            DataError: If the other set is missing, or no image is selected.
        """
        self.whole.check()
        super().check()


@DATASETS.register_module()
class Concatenation(ImageDataset):
    """Several data sets, one after the other.

    Keys and class names start with the name of the set, such as `emoji/1f600` and `emoji/Smileys`, so that classes of
    different sets stay different.

    Args:
        parts: The data sets, by names of your choice. All must have the same number of channels.

    Raises:
        DataError: If there are no parts, or their numbers of channels differ.
    """

    def __init__(self, *, parts: Mapping[str, ImageDataset]) -> None:
        channels = {name: part.channels for name, part in parts.items()}
        if len(set(channels.values())) != 1:
            raise DataError(
                f"Concatenation: expected one or more sets with the same number of channels, got "
                f"{channels or 'no set'}; set `channels` of each set"
            )
        self.names = tuple(parts)
        self.parts = tuple(parts.values())
        self.channels = self.parts[0].channels

    def __len__(self) -> int:
        """Returns the number of images of all sets."""
        return self._ends[-1]

    def read(self, index: int) -> Pixels:
        """Decodes image `index`."""
        part, offset = self._locate(index)
        return self.parts[part].read(offset)

    def read_scaled(self, index: int, *, min_side: int) -> Pixels:
        """Decodes image `index`, at a lower resolution of at least `min_side` pixels if that is faster."""
        part, offset = self._locate(index)
        return self.parts[part].read_scaled(offset, min_side=min_side)

    def size(self, index: int) -> tuple[int, int]:
        """Returns the height and width of image `index`."""
        part, offset = self._locate(index)
        return self.parts[part].size(offset)

    def sha256(self, index: int) -> str:
        """Returns the SHA-256 of image `index`, as its set does."""
        part, offset = self._locate(index)
        return self.parts[part].sha256(offset)

    def key(self, index: int) -> str:
        """Returns the name of the set of image `index`, a slash, and its key there."""
        part, offset = self._locate(index)
        return f"{self.names[part]}/{self.parts[part].key(offset)}"

    def label(self, index: int) -> int:
        """Returns the class of image `index`, counted over the classes of all sets."""
        part, offset = self._locate(index)
        return self._first_labels[part] + self.parts[part].label(offset)

    @property
    def class_names(self) -> Sequence[str]:
        """The classes of all sets, each with the name of its set, such as `emoji/Smileys`."""
        return self._class_names

    @property
    def shard_sizes(self) -> Sequence[int] | None:
        """The shards of all sets, where a set without shards counts as one; None if none has shards."""
        sizes = [part.shard_sizes for part in self.parts]
        if all(each is None for each in sizes):
            return None
        return [
            size
            for part, each in zip(self.parts, sizes, strict=True)
            for size in ([len(part)] if each is None else each)
            if size
        ]

    def check(self) -> None:
        """Checks each set.

        Raises:
            DataError: If a set is missing or has no images.
        """
        for part in self.parts:
            part.check()

    @cached_property
    def _class_names(self) -> tuple[str, ...]:
        named = zip(self.names, self.parts, strict=True)
        return tuple(f"{name}/{each}" for name, part in named for each in part.class_names)

    @cached_property
    def _ends(self) -> tuple[int, ...]:
        return tuple(accumulate(map(len, self.parts), initial=0))

    @cached_property
    def _first_labels(self) -> tuple[int, ...]:
        return tuple(accumulate((len(part.class_names) for part in self.parts), initial=0))

    def _locate(self, index: int) -> tuple[int, int]:
        """Returns the number of the part of image `index`, and its index there."""
        if not 0 <= index < len(self):
            raise IndexError(f"expected an index below {len(self)}, got {index}")
        part = bisect_right(self._ends, index) - 1
        return part, index - self._ends[part]
