"""Concatenations and selections of sets."""

import numpy as np
import pytest
import torch

from vq.data import Concatenation, DataError, ImageLoader
from vq.data.sets.combined import Selection


def sharded(numbered, sizes):
    """A set that says that it is in shards."""
    return type("Sharded", (numbered,), {"shard_sizes": sizes})(sum(sizes))


class EveryThird(Selection):
    def __init__(self, dataset):
        self.dataset = dataset

    def _whole(self):
        return self.dataset

    def _select(self, whole):
        return np.arange(len(whole)) % 3 == 0


def test_sets_follow_one_another(numbered):
    dataset = Concatenation(parts={"a": numbered(3), "b": numbered(20)})
    assert len(dataset) == 23
    assert dataset.key(2) == "a/image-2"
    assert dataset.key(3) == "b/image-0"
    assert dataset.class_names == ("a/common", "a/rare", "b/common", "b/rare")
    assert [dataset.label(i) for i in (0, 3, 22)] == [0, 2, 3]
    assert int(dataset.read(22)[0, 0, 0]) == 19
    assert dataset.size(22) == (12, 12)
    assert dataset.sha256(22) == dataset.parts[1].sha256(19)
    for index in (-1, 23):
        with pytest.raises(IndexError):
            dataset.key(index)
    loader = ImageLoader(dataset=dataset, batch_size=23, shuffle=False)
    (batch,) = loader.pass_batches()
    assert batch["image"][:, 0, 0, 0].tolist() == [0, 1, 2, *range(20)]


def test_a_set_without_shards_counts_as_one(numbered):
    parts = {"a": numbered(3), "b": sharded(numbered, [2, 4])}
    assert Concatenation(parts=parts).shard_sizes == [3, 2, 4]
    assert Concatenation(parts={"a": numbered(3)}).shard_sizes is None


def test_sets_of_different_channels_are_refused(numbered):
    grey = numbered(2)
    grey.channels = 1
    with pytest.raises(DataError, match=r"the same number of channels, got \{'a': 3, 'b': 1\}"):
        Concatenation(parts={"a": numbered(2), "b": grey})
    with pytest.raises(DataError, match="got no set"):
        Concatenation(parts={})


def test_a_selection_keeps_the_order_and_the_shards(numbered):
    dataset = EveryThird(sharded(numbered, [1, 2, 4, 4]))
    assert [dataset.key(i) for i in range(len(dataset))] == [f"image-{i}" for i in (0, 3, 6, 9)]
    assert dataset.shard_sizes == [1, 2, 1], "the second shard has no selected image"
    assert torch.equal(dataset.read(3), dataset.whole.read(9))
    assert dataset.label(3) == dataset.whole.label(9)
    assert EveryThird(numbered(11)).shard_sizes is None
    assert dataset.class_names == ("common", "rare")
