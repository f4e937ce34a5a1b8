"""Looks for validation images in the training set, by the hashes of their content."""

import random
import time
from collections.abc import Iterator, Sequence

from vq.data import ImageDataset, ImageLoader
from vq.engine.doctor.case import Case
from vq.engine.doctor.findings import NEVER, Finding, first_lines, ok, trouble, warning
from vq.ops.keyed import stable_hash

NUM_VAL = 1000
SECONDS = 4.0
"""The longest time for each of the two sets."""
MUCH = 0.01
"""The part of the validation images from which on their scores mean nothing."""


def check_overlap(case: Case) -> Iterator[Finding]:
    """Compares a sample of the validation images with the training set, the whole of it if there is time."""
    loaders = case.loaders()
    train, val = loaders.get("train_data"), loaders.get("val_data")
    if isinstance(train, ImageLoader) and isinstance(val, ImageLoader):
        yield from overlap(train.dataset, val.dataset)


def overlap(
    train: ImageDataset, val: ImageDataset, *, num_val: int = NUM_VAL, seconds: float = SECONDS
) -> Iterator[Finding]:
    """The validation images that are in the training set too.

    Args:
        train: The training set.
        val: The validation set.
        num_val: The number of validation images that are compared.
        seconds: The longest time for each set.
    """
    wanted, num_wanted = _hashes(val, num_val, seconds)
    compared, num_compared = _hashes(train, len(train), seconds)
    if not wanted or not compared:
        return
    common = wanted.keys() & compared.keys()
    words = f"{len(common)} of {num_wanted:,} validation images are among {num_compared:,} training images"
    part = "" if num_compared == len(train) else f", {num_compared / len(train):.1%} of the set"
    if common:
        keys = first_lines(wanted[digest] for digest in sorted(common))
        report = trouble if len(common) > MUCH * num_wanted else warning
        yield report("val_data", f"{words}{part}: {keys}", "remove them from one of the sets", step=NEVER)
    else:
        yield ok("val_data", f"{words}{part}")


def _hashes(dataset: ImageDataset, num: int, seconds: float) -> tuple[dict[str, str], int]:
    """The SHA-256 and the key of random images, until the time is over, and how many images were read."""
    keyed, found, started = random.Random(stable_hash("overlap")), dict[str, str](), time.monotonic()
    order: Sequence[int] = keyed.sample(range(len(dataset)), min(num, len(dataset)))
    if dataset.shard_sizes is not None:  # images of many shards would be slow to read
        order = range(len(order))
    for count, index in enumerate(order, start=1):
        if digest := dataset.sha256(index):
            found.setdefault(digest, dataset.key(index))
        if time.monotonic() - started > seconds:
            return found, count
    return found, len(order)
