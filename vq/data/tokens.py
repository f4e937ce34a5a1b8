"""Batches of indices from a token store, by the same rules as batches of images."""

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TypedDict

import torch
from jaxtyping import Int64
from torch import Tensor

from vq.data.base import DataError
from vq.data.sets.image_folder import expanded
from vq.data.token_store import TokenStore, TokenStoreError
from vq.distributed import rank, world_size
from vq.ops.keyed import generator
from vq.registry import DATASETS, LOADERS


class TokenBatch(TypedDict):
    """Indices of images, with what is known of them."""

    indices: Int64[Tensor, "b *axes"]
    label: Int64[Tensor, "b"]
    key: list[str]
    undecodable: list[str]  # always empty: what could not be decoded is not in the store


@DATASETS.register_module()
class TokenDataset:
    """The indices of a set of images, as `vq.tokenize` wrote them.

    Making one touches no file.

    Args:
        root: The store's folder.

    Raises:
        TokenStoreError: When first used, if the store is missing or damaged.
    """

    def __init__(self, *, root: str | Path) -> None:
        self.root = expanded(root)

    @cached_property
    def store(self) -> TokenStore:
        """The store, opened at the first use."""
        return TokenStore(self.root)

    def __len__(self) -> int:
        """The number of images."""
        return len(self.store)

    @property
    def class_names(self) -> Sequence[str]:
        """The name of each class."""
        return tuple(self.store.manifest["class_names"])

    def check(self) -> None:
        """Compares the store with its checksums.

        Raises:
            ValueError: If it is damaged or empty.
        """
        self.store.verify()
        if len(self) == 0:
            raise TokenStoreError(f"{self.root}: expected at least one image, got none")


@LOADERS.register_module()
class TokenLoader:
    """Batches the indices of a store, for training and for exact passes.

    Like `ImageLoader`: the sequence of global batches is a function of (seed, step), whatever the ranks.
    In training one of an image's views is drawn; a pass takes the first.

    Args:
        dataset: The indices.
        batch_size: Images a step over all ranks and micro-batches.
        shuffle: Whether training visits the set in a new random order each epoch.
        balance_classes: Draw with replacement, an image with a probability proportional to
            1 / sqrt(number of images in its class).

    Raises:
        ValueError: If `batch_size` is below 1, or `balance_classes` is set without `shuffle`.
    """

    def __init__(
        self,
        *,
        dataset: TokenDataset,
        batch_size: int,
        shuffle: bool = True,
        balance_classes: bool = False,
    ) -> None:
        if batch_size < 1:
            raise DataError(f"TokenLoader: expected a batch_size of at least 1, got {batch_size}")
        if balance_classes and not shuffle:
            raise DataError("TokenLoader: balance_classes draws at random; it needs shuffle=True")
        self.dataset, self.batch_size, self.shuffle = dataset, batch_size, shuffle
        self.balance_classes = balance_classes

    @property
    def num_samples(self) -> int:
        """The number of images."""
        return len(self.dataset)

    def check(self) -> None:
        """Finds out before any training whether the store is there and whole."""
        self.dataset.check()

    def train_batches(
        self, *, seed: int, start_step: int = 0, micro_batches: int = 1
    ) -> Iterator[TokenBatch]:
        """Yields this rank's part of every training batch, without end; see `ImageLoader.train_batches`.

        Raises:
            ValueError: At once, if the global batch cannot be divided or is larger than the set.
        """
        pieces = world_size() * micro_batches
        if self.batch_size % pieces or self.batch_size > self.num_samples:
            raise DataError(
                f"TokenLoader: expected a batch_size that is a multiple of {pieces} (ranks x micro-batches) and at "
                f"most the {self.num_samples} images of the store, got {self.batch_size}"
            )
        return self._training(seed, start_step, micro_batches)

    def _training(self, seed: int, start_step: int, micro_batches: int) -> Iterator[TokenBatch]:
        piece = self.batch_size // (world_size() * micro_batches)
        epoch, first = divmod(start_step, self.num_samples // self.batch_size)
        while True:
            order = self._order(seed, epoch)
            views = torch.randint(
                self.dataset.store.views, (self.num_samples,), generator=generator("view", seed, epoch)
            )
            last = len(order) - self.batch_size + 1
            for start in range(first * self.batch_size, last, self.batch_size):
                for i in range(micro_batches):
                    begin = start + (rank() * micro_batches + i) * piece
                    rows = order[begin : begin + piece]
                    yield self._batch(rows.tolist(), views[begin : begin + piece].tolist())
            epoch, first = epoch + 1, 0

    def pass_batches(self) -> Iterator[TokenBatch]:
        """Yields this rank's share of the store once, in order: every image on exactly one rank."""
        total, ranks, mine = self.num_samples, world_size(), rank()
        share = range(mine * total // ranks, (mine + 1) * total // ranks)
        local = max(1, self.batch_size // ranks)
        for start in range(0, len(share), local):
            rows = list(share[start : start + local])
            yield self._batch(rows, [0] * len(rows))

    def fixed_batch(self, num: int) -> TokenBatch:
        """`num` images spread evenly over the store (or all, if it has fewer), the same ones each time."""
        total = self.num_samples
        num = min(num, total)
        return self._batch([i * total // num for i in range(num)], [0] * num)

    def _order(self, seed: int, epoch: int) -> Int64[Tensor, "samples"]:
        if not self.shuffle:
            return torch.arange(self.num_samples)
        keyed = generator("order", seed, epoch)
        if not self.balance_classes:
            return torch.randperm(self.num_samples, generator=keyed)
        edges = self._labels.bincount()[self._labels].double().rsqrt().cumsum(0)
        points = torch.rand(self.num_samples, generator=keyed, dtype=torch.float64) * edges[-1]
        return torch.searchsorted(edges, points, right=True).clamp(max=self.num_samples - 1)

    @cached_property
    def _labels(self) -> Int64[Tensor, "samples"]:
        return torch.tensor([self.dataset.store.label(i) for i in range(self.num_samples)])

    def _batch(self, rows: Sequence[int], views: Sequence[int]) -> TokenBatch:
        store = self.dataset.store
        return {
            "indices": torch.stack([store.read(r, v) for r, v in zip(rows, views, strict=True)]),
            "label": torch.tensor([store.label(r) for r in rows], dtype=torch.int64),
            "key": [store.key(r) for r in rows],
            "undecodable": [],
        }
