"""The ranks of a real gloo group get the parts of one global batch, and divide a pass without gaps."""

import itertools

import pytest

from vq.data import ImageLoader, RandomCrop


@pytest.fixture
def loader(numbered):
    def make(**options):
        return ImageLoader(
            dataset=numbered(50, broken=(20,)),
            transforms=(RandomCrop(size=8),),
            batch_size=12,
            max_undecodable=0.5,
            **options,
        )

    return make


def summary(batches):
    """Returns plain numbers, because tensors would be in the shared memory of a process that has ended."""
    return [(batch["key"], batch["image"].flatten().tolist(), batch["undecodable"]) for batch in batches]


def flat(lists):
    return list(itertools.chain.from_iterable(lists))


@pytest.mark.parametrize("ranks", [2, 3])
def test_training_batches_are_parts_of_the_same_global_batch(loader, on_ranks, ranks):
    whole = summary(itertools.islice(loader().train_batches(seed=1, start_step=2), 6))
    parts = on_ranks(
        ranks, lambda: summary(itertools.islice(loader().train_batches(seed=1, start_step=2), 6))
    )
    for step, (keys, pixels, undecodable) in enumerate(whole):
        assert flat(part[step][0] for part in parts) == keys
        assert flat(part[step][1] for part in parts) == pixels
        assert flat(part[step][2] for part in parts) == undecodable


def test_ranks_and_micro_batches_together_make_up_the_global_batch(loader, on_ranks):
    whole = summary(itertools.islice(loader().train_batches(seed=1), 4))
    parts = on_ranks(
        2, lambda: summary(itertools.islice(loader().train_batches(seed=1, micro_batches=3), 12))
    )
    for step, (keys, pixels, _) in enumerate(whole):
        pieces = [piece for part in parts for piece in part[step * 3 : step * 3 + 3]]
        assert [len(piece[0]) for piece in pieces] == [2] * 6
        assert flat(piece[0] for piece in pieces) == keys
        assert flat(piece[1] for piece in pieces) == pixels


@pytest.mark.parametrize("workers", [0, 1])
def test_a_pass_over_three_ranks_takes_each_of_fifty_images_once(loader, on_ranks, workers):
    parts = on_ranks(3, lambda: summary(loader(num_workers=workers).pass_batches()))
    keys = [[key for batch in part for key in batch[0]] for part in parts]
    assert flat(keys) == [f"image-{i}" for i in range(50) if i != 20]
    assert [len(part) for part in keys] == [16, 16, 17]
    assert [name for part in parts for batch in part for name in batch[2]] == ["image-20"]


def test_fixed_batches_are_the_same_on_every_rank(loader, on_ranks):
    here = summary([loader().fixed_batch(7)])
    assert on_ranks(2, lambda: summary([loader().fixed_batch(7)])) == [here, here]


def test_a_batch_that_the_ranks_cannot_share_is_refused_at_once(loader, on_ranks):
    def refusals():
        messages = []
        for start in (lambda: loader().train_batches(seed=0), lambda: loader().pass_batches()):
            try:
                start()
            except ValueError as error:
                messages.append(str(error))
        return messages

    expected = "divisible by 5 rank(s) x 1 micro-batch(es), got 12; use a multiple of 5"
    assert [[expected in message for message in found] for found in on_ranks(5, refusals)] == [
        [True, True]
    ] * 5


def test_broken_images_are_counted_alike_however_many_ranks_share_them(numbered, on_ranks):
    """Rank 1 of 2 has two images, both undecodable: the pass succeeds, as it does on one rank."""

    def passed():
        loader = ImageLoader(dataset=numbered(4, broken=(2, 3)), batch_size=2, max_undecodable=0.5)
        return [(batch["key"], batch["undecodable"]) for batch in loader.pass_batches()]

    assert passed() == [(["image-0", "image-1"], ["image-2", "image-3"])]
    first, second = on_ranks(2, passed)
    assert first == [(["image-0"], []), (["image-1"], [])]
    assert second == [([], ["image-2", "image-3"])]
