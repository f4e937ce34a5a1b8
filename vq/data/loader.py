"""Batches of images, a pure function of seed and step: the same for any number of workers and ranks."""

import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from typing import cast

import torch
from jaxtyping import Float64, Int64
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from vq.data.base import DataError, ImageDataset, UndecodableImage, UndecodableSetError
from vq.data.reader import Draw, SampleReader, quiet_worker, signals_held
from vq.data.sample import Batch, Sample, collate
from vq.data.transforms import Transform
from vq.distributed import rank, world_size
from vq.errors import UserError
from vq.ops.keyed import generator
from vq.registry import LOADERS
from vq.text import printable

_FEWEST_UNDECODABLE = 3  # so many have to be broken before their share means anything
_SHARE_OF_AT_LEAST = 1000  # samples; a few broken ones at the very start must not end a long run


class LoaderWorkerError(UserError, RuntimeError):
    """A process that read images ahead ended before its work was done."""


@LOADERS.register_module()
class ImageLoader:
    """Reads, transforms and batches the images of a set, for training and for exact passes.

    A sample is a pure function of (seed, epoch, index): its generator is keyed by them. The sequence of
    global batches is a pure function of (seed, step). So neither workers nor ranks nor a resumed run
    change a pixel, and resuming at step k decodes no image of the k steps before.

    An image that cannot be decoded is replaced in training by the next one in the set (as it looks in the
    same epoch), left out of a pass, and named in `batch["undecodable"]` in both.

    Args:
        dataset: The images.
        transforms: Applied in order; after them all images must have one size.
        batch_size: Images a step over *all* ranks (and all micro-batches).
        num_workers: Processes a rank that read ahead; 0 reads in the main process.
        shuffle: Whether training visits the set in a new random order each epoch.
        max_undecodable: The share of broken images that is put up with, in [0, 1].
        balance_classes: Whether an epoch draws with replacement, an image with a probability proportional
            to 1 / sqrt(number of images in its class). An image drawn twice in an epoch looks the same.

    Raises:
        ValueError: If `batch_size`, `num_workers` or `max_undecodable` is out of range, or if
            `balance_classes` is set without `shuffle`.
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
    ) -> None:
        if batch_size < 1:
            raise DataError(f"ImageLoader: expected a batch_size of at least 1, got {batch_size}")
        if num_workers < 0:
            raise DataError(f"ImageLoader: expected num_workers of at least 0, got {num_workers}")
        if not 0 <= max_undecodable <= 1:
            raise DataError(f"ImageLoader: expected max_undecodable in [0, 1], got {max_undecodable}")
        if balance_classes and not shuffle:
            raise DataError("ImageLoader: balance_classes draws at random; it needs shuffle=True")
        self.dataset = dataset
        self.transforms = tuple(transforms)
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.shuffle = shuffle
        self.max_undecodable = max_undecodable
        self.balance_classes = balance_classes

    @property
    def num_samples(self) -> int:
        """The number of images in the set."""
        return len(self.dataset)

    @cached_property
    def image_size(self) -> tuple[int, int]:
        """Height and width of a transformed image; reads one at the first call."""
        _, _, height, width = self.fixed_batch(1)["image"].shape
        return height, width

    def check(self) -> None:
        """Finds out before any training whether the set is there and a few images decode to one size.

        Raises:
            ValueError: If there are no images, or if their sizes differ after the transforms.
            UndecodableSetError: If no image can be decoded.
        """
        self.dataset.check()
        self.fixed_batch(4)

    def train_batches(self, *, seed: int, start_step: int = 0, micro_batches: int = 1) -> Iterator[Batch]:
        """Yields this rank's part of every training batch, without end.

        An epoch is a permutation of the set keyed by (seed, epoch); its ragged end, less than a batch, is
        dropped. Of each global batch, rank r takes the r-th contiguous part and yields it in
        `micro_batches` consecutive pieces.

        Args:
            seed: Decides the order and every transform.
            start_step: The first step to yield; nothing before it is decoded.
            micro_batches: Pieces a step, for gradient accumulation.

        Raises:
            ValueError: At once, if the global batch cannot be divided or is larger than the set.
            UndecodableSetError: While reading, if more than `max_undecodable` of the images are broken.
        """
        if start_step < 0 or micro_batches < 1:
            raise DataError(
                "ImageLoader: expected start_step of at least 0 and micro_batches of at least 1, "
                f"got {start_step} and {micro_batches}"
            )
        self._check_divisible(micro_batches)
        if self.batch_size > len(self.dataset):
            raise DataError(
                f"ImageLoader: expected a batch_size of at most the {len(self.dataset)} images of the set, "
                f"got {self.batch_size}; use a smaller one"
            )
        draws = self._training_draws(seed, start_step, micro_batches)
        budget = _Budget(self.max_undecodable, min(len(self.dataset) // world_size(), _SHARE_OF_AT_LEAST))
        return self._load(draws, budget, replace=True)

    def pass_batches(self) -> Iterator[Batch]:
        """Yields this rank's share of the set once, in order: every image on exactly one rank, none twice.

        Shares are contiguous and may differ by one image, so ranks may yield different numbers of batches. With
        several ranks a batch may hold no image, if none of a rank's can be decoded.
        Random transforms see the same generator in every pass.

        Raises:
            ValueError: At once, if the global batch cannot be divided.
            UndecodableSetError: While reading, if more than `max_undecodable` of the images are broken, or all.
        """
        self._check_divisible(1)
        total, ranks, mine = len(self.dataset), world_size(), rank()
        share = range(mine * total // ranks, (mine + 1) * total // ranks)
        local = self.batch_size // ranks
        draws = ([Draw(0, 0, i) for i in share[s : s + local]] for s in range(0, len(share), local))
        return _without_gaps(self._load(draws, _Budget(self.max_undecodable, len(share)), replace=False))

    def chosen_batches(self, groups: Iterable[Sequence[int]]) -> Iterator[Batch]:
        """Yields a batch for each group of indices, in order, without the images that cannot be decoded.

        Random transforms see the same generator in every pass. A batch may be empty.

        Args:
            groups: Indices of the set; whatever the ranks share is up to the caller.

        Raises:
            UndecodableSetError: While reading, if more than `max_undecodable` of the images are broken.
        """
        budget = _Budget(self.max_undecodable, min(len(self.dataset), _SHARE_OF_AT_LEAST))
        return self._load(([Draw(0, 0, i) for i in group] for group in groups), budget, replace=False)

    def fixed_batch(self, num: int) -> Batch:
        """Reads `num` images spread evenly over the set (or all, if it has fewer), the same ones each time.

        Args:
            num: At least 1.

        Raises:
            ValueError: If `num` is below 1.
            UndecodableSetError: If no image can be decoded.
        """
        if num < 1:
            raise DataError(f"ImageLoader: expected num of at least 1 image, got {num}")
        total = len(self.dataset)
        num = min(num, total)
        reader = SampleReader(dataset=self.dataset, transforms=self.transforms, replace=True)
        return collate([cast(Sample, reader[Draw(0, 0, i * total // num)]) for i in range(num)])

    def order(self, *, seed: int, epoch: int) -> Int64[Tensor, "samples"]:
        """The indices that an epoch visits, in order, its ragged end included."""
        total = len(self.dataset)
        if not self.shuffle:
            return torch.arange(total, device="cpu")
        keyed = generator("order", seed, epoch)
        if not self.balance_classes:
            return torch.randperm(total, generator=keyed, device="cpu")
        # Inverts the distribution function; torch.multinomial takes no more than 2^24 images.
        edges = self._cumulative_weights
        points = torch.rand(total, generator=keyed, dtype=torch.float64, device="cpu") * edges[-1]
        return torch.searchsorted(edges, points, right=True).clamp(max=total - 1)

    @cached_property
    def _cumulative_weights(self) -> Float64[Tensor, "samples"]:
        labels = torch.tensor([self.dataset.label(i) for i in range(len(self.dataset))], device="cpu")
        return labels.bincount()[labels].to(torch.float64).rsqrt().cumsum(0)

    def _check_divisible(self, micro_batches: int) -> None:
        if self.batch_size % (world_size() * micro_batches):
            raise DataError(
                f"ImageLoader: expected a batch_size (over all ranks) divisible by {world_size()} rank(s) x "
                f"{micro_batches} micro-batch(es), got {self.batch_size}; "
                f"use a multiple of {world_size() * micro_batches}"
            )

    def _training_draws(self, seed: int, start_step: int, micro_batches: int) -> Iterator[list[Draw]]:
        piece = self.batch_size // (world_size() * micro_batches)
        mine = rank() * micro_batches * piece
        epoch, first = divmod(start_step, len(self.dataset) // self.batch_size)
        while True:
            order = self.order(seed=seed, epoch=epoch)
            for start in range(first * self.batch_size, len(order) - self.batch_size + 1, self.batch_size):
                for i in range(micro_batches):
                    begin = start + mine + i * piece
                    yield [Draw(seed, epoch, index) for index in order[begin : begin + piece].tolist()]
            epoch, first = epoch + 1, 0

    def _load(self, draws: Iterable[list[Draw]], budget: "_Budget", *, replace: bool) -> Iterator[Batch]:
        reader = SampleReader(dataset=self.dataset, transforms=self.transforms, replace=replace)
        loader: Iterable[Batch | UserError] = DataLoader(
            _Reported(reader),
            batch_sampler=draws,  # type: ignore[arg-type]  # any iterable of keys will do
            collate_fn=_batch_or_error,
            num_workers=self.num_workers,
            worker_init_fn=quiet_worker,
            # Forked workers share the dataset's memory and start at once; they never touch the GPU.
            multiprocessing_context="fork" if self.num_workers and sys.platform == "linux" else None,
            # Without one of its own the loader draws from the global generator, and a resumed run drifts.
            generator=generator("workers"),
            pin_memory=torch.cuda.is_available(),
        )
        with warnings.catch_warnings():
            # Python 3.12 warns that a lock held by another thread stays locked in a fork; ours take none.
            warnings.filterwarnings(
                "ignore", message=".*multi-threaded, use of fork", category=DeprecationWarning
            )
            with signals_held():
                batches = iter(loader)
        for batch in self._checked(batches):
            # A stand-in fills the place of its broken image; without one the place is empty.
            num_read = len(batch["key"]) + (0 if replace else len(batch["undecodable"]))
            budget.spend(num_read, batch["undecodable"])
            yield batch

    def _checked(self, batches: Iterator[Batch | UserError]) -> Iterator[Batch]:
        """Raises the errors that workers give, and says what to do about a worker that died."""
        while True:
            try:
                batch = next(batches, None)
            except RuntimeError as error:
                if not str(error).startswith("DataLoader worker"):
                    raise
                reason = str(error).splitlines()[0].rstrip(". ")
                raise LoaderWorkerError(
                    f"ImageLoader: a process that reads images ended: {reason}; if it was killed, memory or shared "
                    f"memory was full: lower num_workers={self.num_workers} or batch_size={self.batch_size}; "
                    f"num_workers=0 shows at which image"
                ) from error
            if batch is None:
                return
            if isinstance(batch, UserError):
                try:
                    raise batch
                finally:
                    del batch  # or the error would hold this frame, and with it the workers, until the next collection
            yield batch


class _Reported(Dataset[Sample | UserError]):
    """Gives the error of a sample instead of raising it: a worker would wrap it into its own traceback."""

    def __init__(self, reader: SampleReader) -> None:
        self._reader = reader

    def __getitem__(self, draw: Draw) -> Sample | UserError:
        try:
            return self._reader[draw]
        except UserError as error:
            return error


class _Budget:
    """Counts broken images and ends the run when they are too many."""

    def __init__(self, largest_share: float, of_at_least: int) -> None:
        self._largest_share = largest_share
        self._of_at_least = of_at_least
        self._num_read = 0
        self._num_broken = 0
        self._first_names: list[str] = []

    def spend(self, num_read: int, broken: Sequence[str]) -> None:
        self._num_read += num_read
        self._num_broken += len(broken)
        for name in broken:
            if name not in self._first_names and len(self._first_names) < 5:
                self._first_names.append(name)
        allowed = self._largest_share * max(self._num_read, self._of_at_least)
        if self._num_broken >= _FEWEST_UNDECODABLE and self._num_broken > allowed:
            raise UndecodableSetError(
                f"ImageLoader: {self._num_broken} of {self._num_read} images read "
                f"({self._num_broken / self._num_read:.1%}) cannot be decoded, more than max_undecodable="
                f"{self._largest_share:.1%}; the first: {', '.join(map(printable, self._first_names))}; "
                "mend or remove them, or raise max_undecodable"
            )


def _batch_or_error(samples: list[Sample | UserError]) -> Batch | UserError:
    """A batch, or the first error that is not about a broken image."""
    readable: list[Sample | UndecodableImage] = []
    for sample in samples:
        if isinstance(sample, UserError) and not isinstance(sample, UndecodableImage):
            return sample
        readable.append(sample)
    try:
        return _collate_decodable(readable)
    except UserError as error:
        return error


def _collate_decodable(samples: Sequence[Sample | UndecodableImage]) -> Batch:
    """Stacks what could be decoded; a batch of nothing holds no image and all the names."""
    names = [sample.name for sample in samples if isinstance(sample, UndecodableImage)]
    decoded = [sample for sample in samples if not isinstance(sample, UndecodableImage)]
    if decoded:
        batch = collate(decoded)
        batch["undecodable"] += names
        return batch
    image = torch.empty((0, 3, 0, 0), dtype=torch.uint8, device="cpu")
    label = torch.empty(0, dtype=torch.int64, device="cpu")
    return {"image": image, "label": label, "key": [], "undecodable": names}


def _without_gaps(batches: Iterator[Batch]) -> Iterator[Batch]:
    """Drops batches without images and hands their names to the next batch, at the end to the last.

    One of several ranks that has broken images only gives one batch, of no image and all the names.
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
        yield empty | {"undecodable": names}  # a small share, all broken: other ranks may have images
    elif names:
        raise UndecodableSetError(
            f"ImageLoader: none of the {len(names)} images can be decoded, from {printable(names[0])} on; "
            "check that the set consists of images"
        )
