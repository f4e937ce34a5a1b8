"""The set that a store holds, and its loader, which follows the rules of `ImageLoader`."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from jaxtyping import Int64
from torch import Tensor

from vq.data.base import classes_in_words
from vq.data.order import SampleOrder
from vq.data.sets.listed import expanded
from vq.data.stores.store import Store
from vq.data.stores.token_shards import TokenStoreError
from vq.ops.keyed import generator
from vq.text import printable

S = TypeVar("S", bound=Store)
T = TypeVar("T")


class StoredDataset(ABC, Generic[S]):
    """What is stored of a set of images.

    Constructing the object does not access the store.

    Args:
        root: The folder of the store.

    Raises:
        TokenStoreError: When first used, if the store is missing or damaged.
    """

    def __init__(self, *, root: str | Path) -> None:
        self.root = expanded(root)

    @abstractmethod
    def _open(self) -> S:
        """Opens the store."""

    @cached_property
    def store(self) -> S:
        """The store, which is opened at the first access."""
        return self._open()

    def __len__(self) -> int:
        """Returns the number of images."""
        return len(self.store)

    def label(self, index: int) -> int:
        """Returns the class of image `index`."""
        return self.store.label(index)

    @property
    def class_names(self) -> Sequence[str]:
        """The name of each class."""
        return tuple(self.store.manifest["class_names"])

    def describe(self) -> str:
        """Summarizes the store in one line: the number of images, the classes, and what is stored of an image."""
        axes = " x ".join(map(str, self.store.axes))
        views = f"{self.store.views} views of " if self.store.views > 1 else ""
        return (
            f"{len(self):,} images; {classes_in_words(self.class_names)}; {views}{axes} values each, in "
            f"{printable(str(self.root))}"
        )

    def check(self) -> None:
        """Compares the store with its checksums.

        Raises:
            TokenStoreError: If it is damaged or empty.
        """
        self.store.verify()
        if len(self) == 0:
            raise TokenStoreError(
                f"{self.root}: expected at least one image, got none; tokenize a set with images"
            )


class StoredLoader(ABC, Generic[T]):
    """Batches what is stored of images, for training and for exact passes over the store.

    As with `ImageLoader`, the sequence of global batches is a pure function of (seed, step) for any number of ranks. In
    training, one view of each image is drawn at random; in a pass, it is the first view.

    Args:
        dataset: The stored set.
        batch_size: The number of images per step, over all ranks and micro-batches.
        shuffle: Whether training visits the set in a new random order in each epoch.
        balance_classes: Whether an epoch samples with replacement, with probabilities proportional to
            1 / sqrt(number of images in the class).

    Raises:
        DataError: If `batch_size` is below 1, or `balance_classes` is set without `shuffle`.
    """

    def __init__(
        self,
        *,
        dataset: StoredDataset[Any],
        batch_size: int,
        shuffle: bool = True,
        balance_classes: bool = False,
    ) -> None:
        self._order = SampleOrder(
            type(self).__name__,
            dataset=dataset,
            batch_size=batch_size,
            shuffle=shuffle,
            balance_classes=balance_classes,
        )
        self.dataset, self.batch_size = dataset, batch_size

    @property
    def num_samples(self) -> int:
        """The number of images."""
        return len(self.dataset)

    def check(self) -> None:
        """Checks before training that the store exists and is intact.

        Raises:
            TokenStoreError: If it is missing, damaged or empty.
        """
        self.dataset.check()

    def train_batches(self, *, seed: int, start_step: int = 0, micro_batches: int = 1) -> Iterator[T]:
        """Yields this rank's part of every training batch, without end.

        An epoch is a permutation of the set that is keyed by (seed, epoch); its incomplete last batch is dropped. Rank
        r takes the r-th contiguous part of each batch and yields it in `micro_batches` consecutive pieces.

        Args:
            seed: The seed of the order and of the views.
            start_step: The first step to yield.
            micro_batches: The number of pieces per step, for gradient accumulation.

        Raises:
            DataError: Immediately, if the batch cannot be divided evenly or is larger than the set.
        """
        pieces = self._order.train_pieces(seed=seed, start_step=start_step, micro_batches=micro_batches)

        def batches() -> Iterator[T]:
            epoch, views = -1, torch.zeros(0, dtype=torch.int64)
            for piece in pieces:
                if piece.epoch != epoch:
                    epoch, views = piece.epoch, self._views(seed, piece.epoch)
                stop = piece.start + len(piece.indices)
                yield self._batch(piece.indices, views[piece.start : stop].tolist())

        return batches()

    def pass_batches(self) -> Iterator[T]:
        """Yields this rank's share of the store once, in order, so that every image is on exactly one rank."""
        for piece in self._order.pass_pieces():
            yield self._batch(piece, [0] * len(piece))

    def fixed_batch(self, num: int) -> T:
        """Reads `num` images spread evenly over the store, or all if it has fewer; they are the same each time.

        Args:
            num: The number of images.
        """
        rows = self._order.spread(num)
        return self._batch(rows, [0] * len(rows))

    def _views(self, seed: int, epoch: int) -> Int64[Tensor, "samples"]:
        views = self.dataset.store.views
        return torch.randint(views, (self.num_samples,), generator=generator("view", seed, epoch))

    @abstractmethod
    def _batch(self, rows: Sequence[int], views: Sequence[int]) -> T:
        """Makes a batch of views of some images."""
