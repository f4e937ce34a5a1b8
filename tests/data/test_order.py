"""The order of samples: every rank and micro-batch gets its own part, and a resumed order continues the first one."""

import itertools
from collections import Counter
from pathlib import Path

import pytest
import torch

from vq.data import DataError, ImageLoader, TokenDataset, TokenLoader
from vq.data import order as order_module
from vq.data.order import SampleOrder
from vq.data.stores.token_manifest import write_manifest
from vq.data.stores.token_shards import ShardFiles, write_shard

COUNT = 53  # not a multiple of the batch size


class Labels:
    """A set of labels, of which class 0 has most samples."""

    def __len__(self) -> int:
        return COUNT

    def label(self, index: int) -> int:
        return max(0, index - 43)


def make(*, batch_size: int = 8, shuffle: bool = True, balance_classes: bool = False) -> SampleOrder:
    return SampleOrder(
        "Test", dataset=Labels(), batch_size=batch_size, shuffle=shuffle, balance_classes=balance_classes
    )


def on_rank(monkeypatch: pytest.MonkeyPatch, rank: int, size: int) -> None:
    monkeypatch.setattr(order_module, "rank", lambda: rank)
    monkeypatch.setattr(order_module, "world_size", lambda: size)


def steps(order: SampleOrder, count: int, start_step: int = 0, micro_batches: int = 1) -> list[list[int]]:
    pieces = order.train_pieces(seed=5, start_step=start_step, micro_batches=micro_batches)
    return [piece.indices for piece in itertools.islice(pieces, count * micro_batches)]


@pytest.mark.parametrize(("shuffle", "balanced"), [(False, False), (True, False), (True, True)])
@pytest.mark.parametrize("micro_batches", [1, 2])
def test_ranks_and_micro_batches_divide_the_batches_of_one_process(
    monkeypatch: pytest.MonkeyPatch, shuffle: bool, balanced: bool, micro_batches: int
) -> None:
    order = make(shuffle=shuffle, balance_classes=balanced)
    whole = steps(order, 14)
    parts = []
    for rank in range(2):
        on_rank(monkeypatch, rank, 2)
        pieces = steps(order, 14, micro_batches=micro_batches)
        mine = list(itertools.chain.from_iterable(pieces))
        parts.append([mine[i : i + 4] for i in range(0, len(mine), 4)])
    assert [a + b for a, b in zip(*parts, strict=True)] == whole


@pytest.mark.parametrize("start_step", [1, 5, 6, 7, 20])
def test_a_resumed_order_continues_the_first(start_step: int) -> None:
    assert steps(make(), 30)[start_step:] == steps(make(), 30 - start_step, start_step)


def test_pieces_say_where_in_their_epoch_they_are() -> None:
    for piece in itertools.islice(make().train_pieces(seed=5), 20):
        whole = make().epoch(seed=5, epoch=piece.epoch)
        assert whole[piece.start : piece.start + 8].tolist() == piece.indices


def test_balanced_epochs_prefer_small_classes() -> None:
    drawn = torch.cat([make(balance_classes=True).epoch(seed=0, epoch=epoch) for epoch in range(100)])
    counts = Counter(max(0, index - 43) for index in drawn.tolist())
    # Class 0 has 44 samples and nine classes have one, so class 0 is drawn sqrt(44) times as often as each of them.
    share = 44**0.5 / (44**0.5 + 9)
    deviation = (share * (1 - share) / len(drawn)) ** 0.5
    assert abs(counts[0] / len(drawn) - share) < 5 * deviation


def test_shares_of_a_pass_are_contiguous_and_complete(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    for rank in range(3):
        on_rank(monkeypatch, rank, 3)
        pieces = list(make(batch_size=9).pass_pieces())
        assert {len(piece) for piece in pieces[:-1]} == {3}
        seen += [index for piece in pieces for index in piece]
    assert seen == list(range(COUNT))


def test_spread_samples_are_distinct_and_include_the_first() -> None:
    assert make().spread(4) == [0, 13, 26, 39]
    assert make().spread(1000) == list(range(COUNT))


def test_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="Test: expected a batch_size of at least 1, got 0"):
        make(batch_size=0)
    with pytest.raises(DataError, match="Test: balance_classes draws at random; it needs shuffle=True"):
        make(shuffle=False, balance_classes=True)
    on_rank(monkeypatch, 0, 3)
    with pytest.raises(DataError, match=r"Test: .* divisible by 3 rank\(s\) x 1 .*use a multiple of 3"):
        make().train_pieces(seed=0)


def test_images_and_tokens_have_the_same_order(numbered, tmp_path: Path) -> None:
    images = numbered(COUNT)
    write_shard(
        ShardFiles(directory=tmp_path, number=0),
        torch.arange(COUNT)[:, None, None],
        labels=[images.label(i) for i in range(COUNT)],
        keys=[images.key(i) for i in range(COUNT)],
        undecodable=[],
        width=2,
    )
    manifest = {
        "vocabulary_size": COUNT,
        "bytes_per_index": 2,
        "axes": [1],
        "views": 1,
        "tokenizer_sha256": "",
    }
    write_manifest(tmp_path, manifest | {"class_names": list(images.class_names)}, 1)
    for balanced in (False, True):
        loaders = (
            ImageLoader(dataset=images, batch_size=8, balance_classes=balanced),
            TokenLoader(dataset=TokenDataset(root=tmp_path), batch_size=8, balance_classes=balanced),
        )
        keys = [
            [batch["key"] for batch in itertools.islice(loader.train_batches(seed=2), 9)]
            for loader in loaders
        ]
        assert keys[0] == keys[1]
