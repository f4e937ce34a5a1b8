"""The order of sets in shards: few shards at a time, every sample once per epoch, disjoint ranks, exact resume."""

import itertools
from collections.abc import Sequence

import pytest
import torch

from vq.data import order as order_module
from vq.data.order import SHARDS_PER_WINDOW, SampleOrder

UNEVEN = (5, 17, 0, 3, 11) * 8  # 40 shards, three windows, the last of which is smaller
WITHOUT_SHARDS = {
    (False, 0): [
        23, 32, 42, 20, 12, 28, 8, 47, 38, 4, 43, 40, 18, 15, 34, 44, 49, 17, 51, 2, 25, 14, 39, 13,
        31, 3, 36, 9, 10, 48, 11, 35, 22, 16, 50, 27, 7, 33, 46, 30, 29, 6, 0, 41, 45, 1, 26, 24,
        52, 37, 5, 21, 19,
    ],
    (True, 7): [
        40, 35, 47, 10, 36, 51, 26, 47, 31, 35, 52, 44, 50, 10, 17, 51, 44, 51, 19, 46, 2, 52, 50,
        16, 44, 45, 12, 46, 49, 47, 46, 22, 51, 50, 50, 42, 50, 42, 51, 45, 47, 47, 49, 52, 14, 50,
        52, 51, 49, 44, 30, 44, 20,
    ],
}  # fmt: skip
"""The orders of 53 samples with seed 5 before there were shards, by (balance_classes, epoch)."""


class Labels:
    """A set with the labels of tests/data/test_order.py, of which class 0 has most samples."""

    def __init__(self, shard_sizes: Sequence[int] | None, count: int = 53) -> None:
        self.count = count if shard_sizes is None else sum(shard_sizes)
        self.shard_sizes = shard_sizes

    def __len__(self) -> int:
        return self.count

    def label(self, index: int) -> int:
        return max(0, index + 10 - self.count)


def make(shard_sizes: Sequence[int] | None = UNEVEN, **settings: bool) -> SampleOrder:
    settings = {"shuffle": True, "balance_classes": False} | settings
    return SampleOrder("Test", dataset=Labels(shard_sizes), batch_size=8, **settings)


def shard_of(index: int) -> int:
    return next(i for i, end in enumerate(itertools.accumulate(UNEVEN)) if index < end)


def steps(order: SampleOrder, count: int, start_step: int = 0, micro_batches: int = 1) -> list[list[int]]:
    pieces = order.train_pieces(seed=5, start_step=start_step, micro_batches=micro_batches)
    return [piece.indices for piece in itertools.islice(pieces, count * micro_batches)]


def windows_of(order: list[int]) -> list[set[int]]:
    """The shards of each part of an order whose shards occur in no other part."""
    windows: list[set[int]] = []
    last, until = {shard_of(index): place for place, index in enumerate(order)}, -1
    for place, index in enumerate(order):
        if place > until:  # no shard from before this sample occurs after it
            windows.append(set())
        windows[-1].add(shard_of(index))
        until = max(until, last[shard_of(index)])
    return windows


@pytest.mark.parametrize(("balanced", "epoch"), WITHOUT_SHARDS)
def test_sets_without_shards_keep_their_order(balanced: bool, epoch: int) -> None:
    found = make(None, balance_classes=balanced).epoch(seed=5, epoch=epoch)
    assert found.tolist() == WITHOUT_SHARDS[balanced, epoch]


def test_a_set_of_one_window_is_shuffled_as_a_whole() -> None:
    sizes = [3] * (SHARDS_PER_WINDOW - 1) + [8]
    assert make(sizes).epoch(seed=5, epoch=0).tolist() == WITHOUT_SHARDS[False, 0]


@pytest.mark.parametrize("epoch", range(3))
def test_an_epoch_has_every_sample_once_and_reads_one_window_after_the_other(epoch: int) -> None:
    order = make().epoch(seed=5, epoch=epoch).tolist()
    assert sorted(order) == list(range(sum(UNEVEN)))
    windows = windows_of(order)
    assert len(windows) == 3
    assert max(len(window) for window in windows) <= SHARDS_PER_WINDOW


def test_shards_and_samples_come_in_another_order_in_each_epoch() -> None:
    first, second = (make().epoch(seed=5, epoch=epoch).tolist() for epoch in range(2))
    assert {shard_of(i) for i in first[:60]} != {shard_of(i) for i in second[:60]}
    assert first != sorted(first, key=shard_of)
    assert make().epoch(seed=5, epoch=0).tolist() == first
    assert make().epoch(seed=6, epoch=0).tolist() != first


@pytest.mark.parametrize("micro_batches", [1, 2])
@pytest.mark.parametrize("ranks", [2, 4])
def test_ranks_and_micro_batches_divide_the_batches_of_one_process(
    monkeypatch: pytest.MonkeyPatch, ranks: int, micro_batches: int
) -> None:
    whole = steps(make(), 80)  # two epochs
    parts = []
    monkeypatch.setattr(order_module, "world_size", lambda: ranks)
    for rank in range(ranks):
        monkeypatch.setattr(order_module, "rank", lambda rank=rank: rank)
        pieces = steps(make(), 80, micro_batches=micro_batches)
        mine, size = list(itertools.chain.from_iterable(pieces)), 8 // ranks
        parts.append([mine[i : i + size] for i in range(0, len(mine), size)])
    assert [list(itertools.chain.from_iterable(batch)) for batch in zip(*parts, strict=True)] == whole


@pytest.mark.parametrize("start_step", [1, 35, 36, 37, 60])
def test_a_resumed_order_continues_the_first(start_step: int) -> None:
    assert steps(make(), 80)[start_step:] == steps(make(), 80 - start_step, start_step)


def test_balanced_epochs_draw_the_same_samples_as_without_shards_but_read_few_shards_at_a_time() -> None:
    local = make(balance_classes=True).epoch(seed=5, epoch=0)
    total = sum(UNEVEN)
    whole = SampleOrder(
        "Test", dataset=Labels(None, total), batch_size=8, shuffle=True, balance_classes=True
    ).epoch(seed=5, epoch=0)
    assert torch.equal(local.sort().values, whole.sort().values)
    most = [max(map(len, windows_of(order.tolist()))) for order in (local, whole)]
    assert most[0] <= SHARDS_PER_WINDOW < most[1]


def test_an_unshuffled_set_of_shards_is_read_in_order() -> None:
    assert make(shuffle=False).epoch(seed=5, epoch=3).tolist() == list(range(sum(UNEVEN)))
