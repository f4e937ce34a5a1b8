"""Batches of workers arrive complete, and stay as they are while later batches are read."""

import gc
import weakref

import pytest
import torch

from vq.data import ImageLoader, collate, slots
from vq.data.slots import BatchSlots, taken


@pytest.fixture
def batch():
    pixels = torch.randint(0, 256, (4, 3, 8, 8), dtype=torch.uint8)
    return collate(
        [{"image": p, "label": i, "key": f"image-{i}", "undecodable": ""} for i, p in enumerate(pixels)]
    )


def same(one, other):
    return (
        torch.equal(one["image"], other["image"])
        and one["image"].dtype == other["image"].dtype
        and torch.equal(one["label"], other["label"])
        and (one["key"], one["undecodable"]) == (other["key"], other["undecodable"])
    )


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize("num_bytes", [4 * 3 * 8 * 8 * 4, 4 * 3 * 8 * 8 - 1], ids=["fits", "too large"])
def test_a_batch_comes_out_as_it_went_in(batch, dtype, num_bytes):
    batch["image"] = batch["image"].to(dtype)
    memory = BatchSlots(2, num_bytes)
    packed = memory.put(5, batch)
    assert isinstance(packed["image"], torch.Tensor) == (batch["image"].nbytes > num_bytes)
    assert same(taken(packed), batch)


def test_a_batch_that_was_taken_is_not_overwritten(batch):
    memory = BatchSlots(1, batch["image"].nbytes)
    first = taken(memory.put(0, batch))
    before = first["image"].clone()
    memory.put(1, batch | {"image": 255 - batch["image"]})
    assert torch.equal(first["image"], before)


def test_an_empty_batch(batch):
    batch["image"], batch["label"], batch["key"] = batch["image"][:0], batch["label"][:0], []
    batch["undecodable"] = ["image-7"]
    assert same(taken(BatchSlots(2, 100).put(0, batch)), batch)


@pytest.mark.parametrize("workers", [1, 2])
def test_all_batches_of_workers_may_be_kept(numbered, workers):
    options = {"dataset": numbered(60), "batch_size": 4}
    expected = ImageLoader(**options).train_batches(seed=0)
    found = ImageLoader(**options, num_workers=workers).train_batches(seed=0)
    kept = [(next(expected), next(found)) for _ in range(40)]
    assert all(same(*pair) for pair in kept)


def test_workers_that_do_not_inherit_memory(numbered, monkeypatch):
    monkeypatch.setattr("vq.data.loader._FORKS", False)  # as on macOS
    options = {"dataset": numbered(60), "batch_size": 4}
    expected = list(ImageLoader(**options).pass_batches())
    found = list(ImageLoader(**options, num_workers=2).pass_batches())
    assert all(same(*pair) for pair in zip(found, expected, strict=True))


def test_batches_of_images_larger_than_the_first(numbered):
    options = {"dataset": numbered(6, sizes=(8, 12, 16)), "batch_size": 1}
    expected = list(ImageLoader(**options).pass_batches())
    found = list(ImageLoader(**options, num_workers=2).pass_batches())
    assert [b["image"].shape[-1] for b in found] == [8, 12, 16, 8, 12, 16]
    assert all(same(*pair) for pair in zip(found, expected, strict=True))


def test_the_memory_is_given_back(numbered, monkeypatch):
    made = []

    class Watched(BatchSlots):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            made.append(weakref.ref(self))

    monkeypatch.setattr("vq.data.loader.BatchSlots", Watched)
    batches = ImageLoader(dataset=numbered(60), batch_size=4, num_workers=1).train_batches(seed=0)
    next(batches)
    assert made[0]() is not None
    del batches
    gc.collect()
    assert made[0]() is None
    assert len(slots._open_slots) == 0


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_images_are_pinned_for_a_gpu(numbered):
    options = {"dataset": numbered(60), "batch_size": 4}
    found = ImageLoader(**options, num_workers=2).train_batches(seed=0)
    expected = ImageLoader(**options).train_batches(seed=0)
    for _ in range(20):
        batch = next(found)
        assert batch["image"].is_pinned()
        assert same(batch, next(expected))


@pytest.mark.parametrize("workers", [0, 2])
def test_chosen_batches_have_the_checksums_of_their_images(numbered, workers):
    dataset = numbered(20)
    groups = [[3, 1, 2], [0], [19, 3]]
    batches = ImageLoader(dataset=dataset, batch_size=4, num_workers=workers).chosen_batches(groups)
    assert [batch["sha256"] for batch in batches] == [[dataset.sha256(i) for i in group] for group in groups]
