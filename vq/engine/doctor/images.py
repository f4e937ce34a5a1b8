"""Decodes and transforms a random sample of a set of images, and measures it."""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from jaxtyping import Shaped
from torch import Tensor

from vq.data import ImageDataset, ImageLoader, UndecodableImage
from vq.data.reader import Draw, SampleReader
from vq.ops.keyed import stable_hash

NUM = 64
SECONDS = 10.0
"""The longest time that the sample of one set takes; a slow disk gives fewer images."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """One image of the sample.

    Attributes:
        key: Its name in the set.
        size: Height and width in the file.
        result: Channels, height and width after the transforms.
        lowest: The smallest value, in 0..255.
        highest: The largest value.
        clipped: The share of values that are 0 or 255, for images that are read as floats; else 0.
    """

    key: str
    size: tuple[int, int]
    result: tuple[int, ...]
    lowest: float
    highest: float
    clipped: float


@dataclass(slots=True, kw_only=True)
class Sample:
    """What a sample of a set shows.

    Attributes:
        total: Images of the set.
        looks: The images that were decoded.
        undecodable: The names of those that could not be, with the reason.
        seconds: The time to decode and transform one image on one core, the median.
    """

    total: int
    looks: list[Look] = field(default_factory=list)
    undecodable: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def num(self) -> int:
        """The number of images that were read."""
        return len(self.looks) + len(self.undecodable)

    def having(self, condition: Callable[[Look], bool]) -> list[Look]:
        """The images of which something is true."""
        return [look for look in self.looks if condition(look)]


def sample_of(loader: ImageLoader, *, is_training: bool, num: int = NUM, seconds: float = SECONDS) -> Sample:
    """Reads a random sample of the images of a loader, the same each time, as its training or its passes do.

    Args:
        loader: The loader.
        is_training: Whether images may be decoded at a lower resolution, as in training.
        num: The number of images.
        seconds: No further image is read after this time.
    """
    dataset = loader.dataset
    reader = SampleReader(
        dataset=dataset,
        transforms=loader.transforms,
        replace=False,
        scaled=is_training and loader.scaled_decoding,
    )
    found, times, started = Sample(total=len(dataset)), [], time.monotonic()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in a worker process
    try:
        for index in indices_of(dataset, num):
            began = time.perf_counter()
            sample = reader[Draw(0, 0, index)]
            times.append(time.perf_counter() - began)
            if isinstance(sample, UndecodableImage):
                found.undecodable.append(str(sample))
            else:
                found.looks.append(_look(dataset, index, sample["image"]))
            if time.monotonic() - started > seconds:
                break
    finally:
        torch.set_num_threads(threads)
    found.seconds = sorted(times)[len(times) // 2]
    return found


def indices_of(dataset: ImageDataset, num: int) -> list[int]:
    """The indices of a random sample, the same each time; of a set in shards they are in one shard."""
    keyed = random.Random(stable_hash("doctor"))
    start, total = 0, len(dataset)
    if (sizes := dataset.shard_sizes) is not None:
        shard = keyed.choice([i for i, size in enumerate(sizes) if size > 0])
        start, total = sum(sizes[:shard]), sizes[shard]
    return sorted(start + i for i in keyed.sample(range(total), min(num, total)))


def _look(dataset: ImageDataset, index: int, result: Shaped[Tensor, "channels h w"]) -> Look:
    pixels = dataset.read(index)
    _, height, width = pixels.shape
    is_clipped = (pixels <= 0) | (pixels >= 255)
    return Look(
        key=dataset.key(index),
        size=(height, width),
        result=tuple(result.shape),
        lowest=float(pixels.min()),
        highest=float(pixels.max()),
        clipped=float(is_clipped.float().mean()) if pixels.is_floating_point() else 0.0,
    )
