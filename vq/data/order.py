"""The order of the samples of a set: epochs, and their division into batches, ranks and micro-batches.

A set of single files is shuffled as a whole. A set of shards is shuffled within windows of `SHARDS_PER_WINDOW` shards,
so that a run reads only a few shards at a time, while shards and samples still come in a new order in each epoch.
"""

from collections.abc import Iterator
from functools import cached_property
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from vq.data.base import DataError
from vq.distributed import rank, world_size
from vq.ops.keyed import generator

SHARDS_PER_WINDOW = 16
"""The number of shards whose samples are shuffled together."""


@runtime_checkable
class LabelledSet(Protocol):
    """A set of samples with classes: an `ImageDataset` or a `TokenDataset`."""

    def __len__(self) -> int:
        """Returns the number of samples."""

    def label(self, index: int) -> int:
        """Returns the class of sample `index`."""


class Piece(NamedTuple):
    """The samples of one micro-batch of one rank.

    Attributes:
        epoch: The epoch, counted from 0.
        start: The position of the first sample in the order of the epoch.
        indices: The indices of the samples in the set.
    """

    epoch: int
    start: int
    indices: list[int]


class SampleOrder:
    """Decides which samples of a set each rank reads, and in which order, as a pure function of (seed, step).

    If the set has `shard_sizes`, a shuffled epoch visits the shards in a new random order, 16 at a time: all samples of
    these 16 in random order, and then those of the next 16. A set of at most 16 shards is shuffled as a whole.

    Args:
        place: The loader that takes the order. Error messages start with it.
        dataset: The set; it is not used before the first call of a method.
        batch_size: The number of samples per step, over all ranks and micro-batches.
        shuffle: Whether training visits the set in a new random order in each epoch.
        balance_classes: Whether an epoch samples with replacement, with probabilities proportional to
            1 / sqrt(number of samples in the class).

    Raises:
        DataError: If `batch_size` is below 1, or `balance_classes` is set without `shuffle`.
    """

    def __init__(
        self, place: str, *, dataset: LabelledSet, batch_size: int, shuffle: bool, balance_classes: bool
    ) -> None:
        if batch_size < 1:
            raise DataError(f"{place}: expected a batch_size of at least 1, got {batch_size}")
        if balance_classes and not shuffle:
            raise DataError(f"{place}: balance_classes draws at random; it needs shuffle=True")
        self.place, self.dataset, self.batch_size = place, dataset, batch_size
        self.shuffle, self.balance_classes = shuffle, balance_classes

    def check_divisible(self, micro_batches: int = 1) -> None:
        """Checks that the batch can be divided evenly into ranks and micro-batches.

        Args:
            micro_batches: The number of micro-batches per step and rank.

        Raises:
            DataError: If it cannot.
        """
        if self.batch_size % (world_size() * micro_batches):
            raise DataError(
                f"{self.place}: expected a batch_size (over all ranks) divisible by {world_size()} rank(s) x "
                f"{micro_batches} micro-batch(es), got {self.batch_size}; "
                f"use a multiple of {world_size() * micro_batches}"
            )

    def epoch(self, *, seed: int, epoch: int) -> Int64[Tensor, "samples"]:
        """Returns the indices that an epoch visits, in order, including its incomplete last batch."""
        total = len(self.dataset)
        if not self.shuffle:
            return torch.arange(total, device="cpu")
        keyed = generator("order", seed, epoch)
        if self.balance_classes:
            # Inverts the cumulative distribution, because torch.multinomial is limited to 2^24 samples.
            edges = self._cumulative_weights
            points = torch.rand(total, generator=keyed, dtype=torch.float64, device="cpu") * edges[-1]
            shuffled = torch.searchsorted(edges, points, right=True).clamp(max=total - 1)
        else:
            shuffled = torch.randperm(total, generator=keyed, device="cpu")
        ends = self._shard_ends
        if len(ends) <= SHARDS_PER_WINDOW:
            return shuffled
        position = torch.randperm(len(ends), generator=generator("shards", seed, epoch), device="cpu")
        window = (position // SHARDS_PER_WINDOW)[torch.searchsorted(ends, shuffled, right=True)]
        return shuffled[window.argsort(stable=True)]  # the order within a window stays random

    def train_pieces(self, *, seed: int, start_step: int = 0, micro_batches: int = 1) -> Iterator[Piece]:
        """Yields this rank's part of every training batch, without end.

        The incomplete last batch of an epoch is dropped. Rank r takes the r-th contiguous part of each batch and yields
        it in `micro_batches` consecutive pieces.

        Args:
            seed: The seed of the order.
            start_step: The first step to yield.
            micro_batches: The number of pieces per step.

        Raises:
            DataError: Immediately, if an argument is out of range, or the batch cannot be divided or is larger than
                the set.
        """
        if start_step < 0 or micro_batches < 1:
            raise DataError(
                f"{self.place}: expected start_step of at least 0 and micro_batches of at least 1, "
                f"got {start_step} and {micro_batches}"
            )
        self.check_divisible(micro_batches)
        if self.batch_size > len(self.dataset):
            raise DataError(
                f"{self.place}: expected a batch_size of at most the {len(self.dataset)} images of the set, "
                f"got {self.batch_size}; lower it (--override .train_data.batch_size:N)"
            )
        return self._train_pieces(seed, start_step, micro_batches)

    def _train_pieces(self, seed: int, start_step: int, micro_batches: int) -> Iterator[Piece]:
        size = self.batch_size // (world_size() * micro_batches)
        mine = rank() * micro_batches * size
        epoch, first = divmod(start_step, len(self.dataset) // self.batch_size)
        while True:
            order = self.epoch(seed=seed, epoch=epoch)
            for batch in range(first * self.batch_size, len(order) - self.batch_size + 1, self.batch_size):
                for i in range(micro_batches):
                    start = batch + mine + i * size
                    yield Piece(epoch, start, order[start : start + size].tolist())
            epoch, first = epoch + 1, 0

    def rank_share(self) -> range:
        """Returns the indices of this rank's contiguous share of the set; shares may differ by one sample."""
        total, ranks, mine = len(self.dataset), world_size(), rank()
        return range(mine * total // ranks, (mine + 1) * total // ranks)

    def pass_pieces(self) -> Iterator[range]:
        """Yields the indices of this rank's share of the set in order, one batch at a time."""
        share, local = self.rank_share(), max(1, self.batch_size // world_size())
        return (share[start : start + local] for start in range(0, len(share), local))

    def spread(self, num: int) -> list[int]:
        """Returns the indices of `num` samples spread evenly over the set, or of all if it has fewer."""
        total = len(self.dataset)
        num = min(num, total)
        return [i * total // num for i in range(num)]

    @cached_property
    def _shard_ends(self) -> Int64[Tensor, "shards"]:
        """The index after the last sample of each shard; empty for a set without shards."""
        sizes = getattr(self.dataset, "shard_sizes", None) or ()
        return torch.tensor(list(sizes), dtype=torch.int64, device="cpu").cumsum(0)

    @cached_property
    def _cumulative_weights(self) -> Float64[Tensor, "samples"]:
        labels = torch.tensor([self.dataset.label(i) for i in range(len(self.dataset))], device="cpu")
        return labels.bincount()[labels].to(torch.float64).rsqrt().cumsum(0)
