"""A set of images becomes a store: shard by shard, on all ranks, restartable at any moment."""

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Shaped
from torch import Tensor

from vq import distributed
from vq.data import Batch, ImageLoader
from vq.data.base import keys_sha256
from vq.data.stores.token_manifest import MANIFEST, StoreFormat, write_manifest
from vq.data.stores.token_shards import ShardFiles, write_packed
from vq.data.transfer import Transfer
from vq.engine.evaluation.pace import Pace, PaceMeter
from vq.engine.jobs.token_folder import SETTINGS, claim, common_sha256, unwritten
from vq.engine.jobs.views import VIEWS, views_of
from vq.files import remove_unfinished


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredSet:
    """What was stored of a set of images.

    Attributes:
        num_images: Images in the store.
        undecodable: The names of those that were left out.
        num_bytes: Size of the packed values.
        pace: How the time for the shards that were not there yet was spent; not compared.
    """

    num_images: int
    undecodable: list[str]
    num_bytes: int
    pace: Pace = field(compare=False)


@runtime_checkable
class Recorder(Protocol):
    """Computes what is stored of each view of an image, and packs it."""

    @property
    def device(self) -> torch.device:
        """Where it computes."""

    def to(self, device: str) -> None:
        """Moves the network to a device."""

    @property
    def crops(self) -> int:
        """Views per image."""

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of a view."""

    @property
    def kind(self) -> StoreFormat:
        """The format of the store."""

    @property
    def width(self) -> int:
        """Bytes of a stored value."""

    def axes(self) -> list[int]:
        """The shape of what is stored of one view."""

    def entries(self) -> dict[str, Any]:
        """The entries of the manifest that say how the values are stored."""

    def later_entries(self) -> dict[str, Any]:
        """Entries of the manifest that are not compared when the command is started again."""

    def __call__(self, batch: Batch) -> Shaped[Tensor, "b views *axes"]:
        """Computes what is stored of each view of a batch of images."""

    def pack(self, values: Shaped[Tensor, "b views *axes"]) -> bytes:
        """The bytes of values in a shard."""


Shard = tuple[ShardFiles, range]
"""The files of a shard, and its images in the set."""

WriteShards = Callable[[Recorder, ImageLoader, Sequence[Shard], Callable[[int], None]], Pace]
"""Writes shards, calls the last argument with the number of images that are done, and returns the pace of the work."""


@torch.no_grad()
def write_shards(
    recorder: Recorder, loader: ImageLoader, shards: Sequence[Shard], on_progress: Callable[[int], None]
) -> Pace:
    """Records the images of the shards of this rank in this process; the pace is that of all ranks."""
    meter = PaceMeter(recorder.device)
    _write_in_turn(recorder, loader, shards, on_progress, meter)
    return meter.pace()


@torch.no_grad()
def write_store(
    recorder: Recorder,
    loader: ImageLoader,
    directory: Path,
    *,
    images_per_shard: int,
    settings: Mapping[str, Any],
    on_progress: Callable[[int], None],
    write: WriteShards = write_shards,
) -> StoredSet:
    """Writes a store; shards that are complete already, and of the set's present images, are kept.

    Args:
        recorder: Computes what is stored.
        loader: Reads the images.
        directory: Made if it is missing.
        images_per_shard: How many images of the set a shard covers.
        settings: What the values depend on: written to the manifest; a folder made with others is refused.
        on_progress: Receives the number of images that this rank has just finished.
        write: Writes the shards that are missing; by default this process does.

    Raises:
        TokenStoreError: On every rank, if the folder holds something else, or of images with other names or contents.
    """
    source = views_of(loader, recorder.crops, loader.image_size)
    manifest = _manifest(recorder, source, images_per_shard, settings)
    claim(directory, manifest, recorder.kind.content)
    shards = [
        (
            ShardFiles(directory=directory, number=number),
            _items(number, images_per_shard, source.num_samples),
        )
        for number in range(max(1, -(-source.num_samples // images_per_shard)))
    ]
    mine = shards[distributed.rank() :: distributed.world_size()]
    todo = unwritten(source.dataset, mine, on_progress, recorder.kind.content)
    pace = write(recorder, source, todo, on_progress)
    distributed.barrier()
    return _finish(recorder, directory, manifest, len(shards), pace)


def _manifest(
    recorder: Recorder, source: ImageLoader, images_per_shard: int, settings: Mapping[str, Any]
) -> dict[str, Any]:
    """What the folder is for: everything that decides its bytes."""
    return {
        **settings,
        **recorder.entries(),
        "axes": recorder.axes(),
        "views": recorder.crops,
        "view_order": VIEWS[recorder.crops],
        "images_per_shard": images_per_shard,
        "batch_size": source.batch_size,
        "num_source_images": source.num_samples,
        "class_names": list(source.dataset.class_names),
        "keys_sha256": keys_sha256(source.dataset),
    }


def _items(number: int, images_per_shard: int, total: int) -> range:
    """The images of a shard."""
    return range(number * images_per_shard, min((number + 1) * images_per_shard, total))


def _write_in_turn(
    recorder: Recorder,
    loader: ImageLoader,
    shards: Sequence[Shard],
    on_progress: Callable[[int], None],
    meter: PaceMeter,
) -> None:
    """Records the images of the shards in one stream, so that reading never waits for the end of a shard."""
    size = loader.batch_size
    groups = [items[i : i + size] for _, items in shards for i in range(0, len(items), size)]
    batches = read_ahead(loader.chosen_batches(groups))
    to_device = Transfer(recorder.device)
    for files, items in shards:
        parts: list[Tensor] = []
        labels: list[int] = []
        keys: list[str] = []
        undecodable: list[str] = []
        checksums: list[str] = []
        for start in range(0, len(items), size):
            with meter.waiting():
                batch = next(batches)
                images = to_device(batch)
            undecodable += batch["undecodable"]
            checksums += batch["sha256"]
            if batch["key"]:
                with meter.computing():
                    parts.append(recorder(images))
                labels += batch["label"].tolist()
                keys += batch["key"]
            on_progress(min(size, len(items) - start))
        # The host waits for the device here, once per shard.
        content = recorder.pack(torch.cat(parts).cpu()) if parts else b""
        meter.settle()
        write_packed(
            files,
            content,
            labels=labels,
            keys=keys,
            undecodable=undecodable,
            source_sha256=common_sha256(checksums),
        )


def read_ahead(batches: Iterator[Batch]) -> Iterator[Batch]:
    """Yields the same batches; a thread fetches the next one while the caller works on this one.

    Receiving a batch from a worker takes a millisecond or two, for which the encoder need not wait.
    """
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="read_ahead") as pool:
        batch = next(batches, None)  # here, not in the thread: it starts the workers
        while batch is not None:
            following = pool.submit(next, batches, None)
            yield batch
            batch = following.result()


def _finish(
    recorder: Recorder, directory: Path, manifest: Mapping[str, Any], num_shards: int, pace: Pace
) -> StoredSet:
    """Writes `manifest.json` on rank 0, which completes the store; the result is the same on every rank.

    Half-written files of processes that were killed are removed before.
    """
    found: dict[str, Any] = {}
    if distributed.rank() == 0:
        remove_unfinished(directory, "shard_*", SETTINGS, MANIFEST)
        entries = {**manifest, **recorder.later_entries()}
        found = write_manifest(directory, entries, num_shards, kind=recorder.kind)
    complete = json.loads(distributed.broadcast_object(json.dumps(found)))
    return StoredSet(
        num_images=complete["num_images"],
        undecodable=[name for shard in complete["shards"] for name in shard["undecodable"]],
        num_bytes=complete["num_images"] * recorder.crops * math.prod(manifest["axes"]) * recorder.width,
        pace=pace,
    )
