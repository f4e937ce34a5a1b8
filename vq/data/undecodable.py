"""Bookkeeping of images that cannot be decoded: batches without them, and a limit on how many there may be."""

from collections.abc import Iterator, Sequence

import torch

from vq.data.base import UndecodableImage, UndecodableSetError
from vq.data.sample import Batch, Sample, collate
from vq.distributed import world_size
from vq.errors import UserError
from vq.text import printable

_MIN_UNDECODABLE = 3  # with fewer, their fraction means nothing


class UndecodableBudget:
    """Counts undecodable images and raises an error if there are too many.

    Args:
        max_fraction: The maximum tolerated fraction of undecodable images, in [0, 1].
        of_at_least: The fraction is taken of at least so many images, so that a few undecodable ones at the start do
            not end a long run.
    """

    def __init__(self, max_fraction: float, of_at_least: int) -> None:
        self._max_fraction = max_fraction
        self._of_at_least = of_at_least
        self._num_read = 0
        self._num_undecodable = 0
        self._first_names: list[str] = []

    def spend(self, num_read: int, undecodable: Sequence[str]) -> None:
        """Adds the images of a batch.

        Args:
            num_read: The number of images that were read, including undecodable ones.
            undecodable: The names of the undecodable images.

        Raises:
            UndecodableSetError: If more than the tolerated fraction are undecodable, and at least 3.
        """
        self._num_read += num_read
        self._num_undecodable += len(undecodable)
        for name in undecodable:
            if name not in self._first_names and len(self._first_names) < 5:
                self._first_names.append(name)
        allowed = self._max_fraction * max(self._num_read, self._of_at_least)
        if self._num_undecodable >= _MIN_UNDECODABLE and self._num_undecodable > allowed:
            raise UndecodableSetError(
                f"ImageLoader: {self._num_undecodable} of {self._num_read} images read "
                f"({self._num_undecodable / self._num_read:.1%}) cannot be decoded, more than max_undecodable="
                f"{self._max_fraction:.1%}; the first: {', '.join(map(printable, self._first_names))}; "
                "repair or remove them, or raise max_undecodable"
            )


def batch_or_error(samples: list[Sample | UserError]) -> Batch | UserError:
    """Collates samples and the errors of undecodable images, or returns the first error of another kind."""
    readable: list[Sample | UndecodableImage] = []
    for sample in samples:
        if isinstance(sample, UserError) and not isinstance(sample, UndecodableImage):
            return sample
        readable.append(sample)
    try:
        return _collate_decodable(readable)
    except UserError as error:
        return error


def without_gaps(batches: Iterator[Batch]) -> Iterator[Batch]:
    """Drops batches without images and moves their undecodable names to the next batch, at the end to the last one.

    With several ranks, a rank whose images are all undecodable yields one batch with no image and all the names.

    Args:
        batches: The batches of this rank's share of the set.

    Raises:
        UndecodableSetError: At the end, if there is a single rank and no image was decoded.
    """
    held: Batch | None = None
    names: list[str] = []
    empty: Batch | None = None
    for batch in batches:
        if not batch["key"]:
            names += batch["undecodable"]
            empty = batch
            continue
        if held is not None:
            yield held
        batch["undecodable"] = names + batch["undecodable"]
        held, names = batch, []
    if held is not None:
        held["undecodable"] = held["undecodable"] + names
        yield held
    elif empty is not None and world_size() > 1:
        yield empty | {"undecodable": names}  # the share is small; other ranks may have images
    elif names:
        raise UndecodableSetError(
            f"ImageLoader: none of the {len(names)} images can be decoded, from {printable(names[0])} on; "
            "check that the set consists of images"
        )


def _collate_decodable(samples: Sequence[Sample | UndecodableImage]) -> Batch:
    """Collates the samples that could be decoded; if there are none, the batch has no image and all the names."""
    names = [sample.name for sample in samples if isinstance(sample, UndecodableImage)]
    decoded = [sample for sample in samples if not isinstance(sample, UndecodableImage)]
    if decoded:
        batch = collate(decoded)
        batch["undecodable"] += names
        return batch
    image = torch.empty((0, 0, 0, 0), dtype=torch.uint8, device="cpu")
    label = torch.empty(0, dtype=torch.int64, device="cpu")
    return {"image": image, "label": label, "key": [], "undecodable": names}
