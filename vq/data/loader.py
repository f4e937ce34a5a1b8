"""The loader of image batches, which are a pure function of seed and step for any number of workers and ranks."""

import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from typing import Any, cast

import torch
from jaxtyping import Int64
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from vq.data.base import DataError, ImageDataset
from vq.data.order import SampleOrder
from vq.data.reader import Draw, SampleReader, quiet_worker, signals_held
from vq.data.sample import Batch, Sample, collate
from vq.data.slots import BatchSlots, taken
from vq.data.transforms import Transform
from vq.data.undecodable import UndecodableBudget, batch_or_error, without_gaps
from vq.distributed import world_size
from vq.errors import UserError
from vq.ops.keyed import generator
from vq.registry import LOADERS

_FRACTION_OF_AT_LEAST = 1000  # images; see UndecodableBudget
_FORKS = sys.platform == "linux"
_PREFETCHED = 2  # batches per worker


class LoaderWorkerError(UserError, RuntimeError):
    """A prefetching worker process that ended before its work was done."""


@LOADERS.register_module()
class ImageLoader:
    """Reads, transforms and batches the images of a set, for training and for exact passes over the set.

    A sample is a pure function of (seed, epoch, index), which key its random generator. The sequence of global batches
    is a pure function of (seed, step). Therefore neither workers, ranks nor a resume change a pixel, and resuming at
    step k decodes none of the images of the first k steps.

    In training, an image that cannot be decoded is replaced by the next one of the set, as it looks in the same epoch.
    In a pass, it is skipped. In both cases its name is listed in `batch["undecodable"]`.

    Args:
        dataset: The images.
        transforms: The transforms, applied in order. Their outputs must all have the same size.
        batch_size: The number of images per step, over *all* ranks and micro-batches.
        num_workers: The number of prefetching worker processes per rank; 0 reads in the main process.
        shuffle: Whether training visits the set in a new random order in each epoch.
        max_undecodable: The maximum tolerated fraction of undecodable images, in [0, 1].
        balance_classes: Whether an epoch samples with replacement, with probabilities proportional to
            1 / sqrt(number of images in the class). An image that is sampled twice in an epoch looks the same.
        scaled_decoding: Whether training decodes a large JPEG at a lower resolution if the first transform is a
            `Resize` to less than half its size, which is faster. Passes over the set always decode in full.

    Raises:
        DataError: If `batch_size`, `num_workers` or `max_undecodable` is out of range, or `balance_classes` is set
            without `shuffle`.
    """

    def __init__(
        self,
        *,
        dataset: ImageDataset,
        transforms: Sequence[Transform] = (),
        batch_size: int,
        num_workers: int = 0,
        shuffle: bool = True,
        max_undecodable: float = 0.01,
        balance_classes: bool = False,
        scaled_decoding: bool = True,
    ) -> None:
        self._order = SampleOrder(
            "ImageLoader",
            dataset=dataset,
            batch_size=batch_size,
            shuffle=shuffle,
            balance_classes=balance_classes,
        )
        if num_workers < 0:
            raise DataError(f"ImageLoader: expected num_workers of at least 0, got {num_workers}")
        if not 0 <= max_undecodable <= 1:
            raise DataError(f"ImageLoader: expected max_undecodable in [0, 1], got {max_undecodable}")
        self.dataset = dataset
        self.transforms = tuple(transforms)
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.max_undecodable = max_undecodable
        self.scaled_decoding = scaled_decoding
        self._reported: set[str] = set()  # undecodable images, each of which is logged once, not in each pass

    @property
    def num_samples(self) -> int:
        """The number of images in the set."""
        return len(self.dataset)

    @cached_property
    def image_size(self) -> tuple[int, int]:
        """The height and width of a transformed image; the first access reads one image."""
        _, _, height, width = self.fixed_batch(1)["image"].shape
        return height, width

    def check(self) -> None:
        """Checks before training that the set exists and that a few of its images can be decoded to one size.

        Raises:
            DataError: If there are no images, or their sizes differ after the transforms.
            UndecodableSetError: If no image can be decoded.
        """
        self.dataset.check()
        self.fixed_batch(4)

    def train_batches(self, *, seed: int, start_step: int = 0, micro_batches: int = 1) -> Iterator[Batch]:
        """Yields this rank's part of every training batch, without end.

        An epoch is a permutation of the set that is keyed by (seed, epoch); its incomplete last batch is dropped. Rank
        r takes the r-th contiguous part of each batch and yields it in `micro_batches` consecutive pieces.

        Args:
            seed: The seed of the order and of all transforms.
            start_step: The first step to yield; images of earlier steps are not decoded.
            micro_batches: The number of pieces per step, for gradient accumulation.

        Raises:
            DataError: Immediately, if the batch cannot be divided evenly or is larger than the set.
            UndecodableSetError: While reading, if more than `max_undecodable` of the images are undecodable.
        """
        pieces = self._order.train_pieces(seed=seed, start_step=start_step, micro_batches=micro_batches)
        draws = ([Draw(seed, piece.epoch, index) for index in piece.indices] for piece in pieces)
        return self._load(draws, self._budget(len(self.dataset) // world_size()), replace=True)

    def pass_batches(self) -> Iterator[Batch]:
        """Yields this rank's share of the set once, in order, so that every image is on exactly one rank.

        Shares are contiguous and may differ by one image, so ranks may yield different numbers of batches. With several
        ranks, a batch may have no image if none of a rank's images can be decoded. Random transforms use the same
        generators in every pass.

        Raises:
            DataError: Immediately, if the batch cannot be divided evenly over the ranks.
            UndecodableSetError: While reading, if more than `max_undecodable` of the images are undecodable, or all.
        """
        self._order.check_divisible()
        budget = UndecodableBudget(self.max_undecodable, len(self._order.rank_share()))
        return without_gaps(self._load(_pass_draws(self._order.pass_pieces()), budget, replace=False))

    def chosen_batches(self, groups: Iterable[Sequence[int]], *, checksums: bool = True) -> Iterator[Batch]:
        """Yields a batch for each group of indices, in order, without the images that cannot be decoded.

        Random transforms use the same generators as in a pass. A batch may be empty.

        Args:
            groups: Groups of indices into the set. The caller decides how ranks divide them.
            checksums: Whether a batch has the `sha256` of each image of its group, computed by the workers.

        Raises:
            UndecodableSetError: While reading, if more than `max_undecodable` of the images are undecodable.
        """
        budget = self._budget(len(self.dataset))
        return self._load(_pass_draws(groups), budget, replace=False, checksums=checksums)

    def fixed_batch(self, num: int) -> Batch:
        """Reads `num` images spread evenly over the set, or all if it has fewer; they are the same each time.

        Args:
            num: The number of images, at least 1.

        Raises:
            DataError: If `num` is below 1.
            UndecodableSetError: If no image can be decoded.
        """
        if num < 1:
            raise DataError(f"ImageLoader: expected num of at least 1 image, got {num}")
        reader = SampleReader(
            dataset=self.dataset, transforms=self.transforms, replace=True, reported=self._reported
        )
        return collate([cast(Sample, reader[Draw(0, 0, index)]) for index in self._order.spread(num)])

    def order(self, *, seed: int, epoch: int) -> Int64[Tensor, "samples"]:
        """Returns the indices that an epoch visits, in order, including its incomplete last batch."""
        return self._order.epoch(seed=seed, epoch=epoch)

    def _budget(self, num_images: int) -> UndecodableBudget:
        return UndecodableBudget(self.max_undecodable, min(num_images, _FRACTION_OF_AT_LEAST))

    def _load(
        self,
        draws: Iterable[list[Draw]],
        budget: UndecodableBudget,
        *,
        replace: bool,
        checksums: bool = False,
    ) -> Iterator[Batch]:
        reader = SampleReader(
            dataset=self.dataset,
            transforms=self.transforms,
            replace=replace,
            scaled=replace and self.scaled_decoding,
            reported=self._reported,
        )
        slots = self._slots()
        loader: Iterable[Any] = DataLoader(
            _BatchReader(reader, slots, checksums_of=self.dataset if checksums else None),
            sampler=cast("Any", enumerate(draws)),  # the annotation has integers alone
            batch_size=None,  # one key is one batch
            collate_fn=cast("Any", _unchanged),
            num_workers=self.num_workers,
            prefetch_factor=_PREFETCHED if self.num_workers else None,
            worker_init_fn=quiet_worker,
            # Forked workers share the memory of the dataset and start at once. They never use the GPU.
            multiprocessing_context="fork" if self.num_workers and _FORKS else None,
            # Without its own generator, the loader would draw from the global one, and a resumed run would differ.
            generator=generator("workers"),
            pin_memory=torch.cuda.is_available(),
        )
        with warnings.catch_warnings():
            # Python 3.12 warns that a lock held by another thread stays locked in a fork; the workers take none.
            warnings.filterwarnings(
                "ignore", message=".*multi-threaded, use of fork", category=DeprecationWarning
            )
            with signals_held():
                batches = iter(loader)
        for received in self._checked(batches):
            batch: Batch = received if slots is None else taken(received)
            # With `replace`, another image takes the position of an undecodable one; without, the position is empty.
            num_read = len(batch["key"]) + (0 if replace else len(batch["undecodable"]))
            budget.spend(num_read, batch["undecodable"])
            self._reported.update(batch["undecodable"])
            yield batch

    def _slots(self) -> BatchSlots | None:
        """Allocates memory for the batches of workers, or None where they do not inherit it or no image can be read."""
        if not self.num_workers or not _FORKS or not self._bytes_per_image:
            return None
        local_batch = max(1, self.batch_size // world_size())
        # Beside the batches that are prefetched, there is the one that this process copies.
        return BatchSlots(_PREFETCHED * self.num_workers + 1, local_batch * self._bytes_per_image)

    @cached_property
    def _bytes_per_image(self) -> int:
        try:
            return self.fixed_batch(1)["image"].nbytes
        except UserError:
            return 0  # the error is raised when a batch is read

    def _checked(self, batches: Iterator[Any]) -> Iterator[Any]:
        """Raises the errors that workers return, and explains the death of a worker."""
        while True:
            try:
                batch = next(batches, None)
            except RuntimeError as error:
                if not str(error).startswith("DataLoader worker"):
                    raise
                reason = str(error).splitlines()[0].rstrip(". ")
                raise LoaderWorkerError(
                    f"ImageLoader: a worker process ended: {reason}; if it was killed, memory or shared memory was "
                    f"full: lower num_workers={self.num_workers} or batch_size={self.batch_size}; num_workers=0 shows "
                    f"at which image"
                ) from error
            if batch is None:
                return
            if isinstance(batch, UserError):
                try:
                    raise batch
                finally:
                    del batch  # else the error would keep this frame, and with it the workers, alive
            yield batch


class _BatchReader(Dataset[Any]):
    """Reads whole batches, and returns errors instead of raising them: a worker would wrap them in its own traceback.

    Args:
        reader: Reads the samples.
        slots: Where a worker puts the images; None in the main process.
        checksums_of: The images, if batches have their `sha256`.
    """

    def __init__(
        self, reader: SampleReader, slots: BatchSlots | None, *, checksums_of: ImageDataset | None
    ) -> None:
        self._reader = reader
        self._slots = slots
        self._checksums_of = checksums_of

    def __getitem__(self, job: tuple[int, Sequence[Draw]]) -> Batch | dict[str, Any] | UserError:
        number, draws = job
        batch = batch_or_error([self._sample(draw) for draw in draws])
        if isinstance(batch, UserError):
            return batch
        if self._checksums_of is not None:
            try:
                batch["sha256"] = [self._checksums_of.sha256(draw.item) for draw in draws]
            except UserError as error:
                return error
        return batch if self._slots is None else self._slots.put(number, batch)

    def _sample(self, draw: Draw) -> Sample | UserError:
        try:
            return self._reader[draw]
        except UserError as error:
            return error


def _unchanged(batch: Batch | dict[str, Any] | UserError) -> Batch | dict[str, Any] | UserError:
    return batch


def _pass_draws(groups: Iterable[Sequence[int]]) -> Iterator[list[Draw]]:
    return ([Draw(0, 0, index) for index in group] for group in groups)
