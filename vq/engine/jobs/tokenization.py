"""A set of images becomes a token store: shard by shard, on all ranks, restartable at any moment."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int64
from torch import Tensor

from vq import distributed
from vq.data import Batch, ImageLoader
from vq.data.token_manifest import write_manifest
from vq.data.token_shards import ShardFiles, bytes_per_index, write_shard
from vq.engine.jobs.token_folder import claim, keys_sha256, source_sha256, unwritten
from vq.engine.jobs.views import VIEWS, cut_views, views_of
from vq.tokenizers import Tokenizer
from vq.tokenizers.fingerprint import fingerprint


def settings_of(
    config: Mapping[str, Any], tokenizer: Tokenizer, *, split: str, autocast: bool
) -> dict[str, Any]:
    """What the indices of the page's `val_data` depend on, for the manifest of a store."""
    return {
        "tokenizer": config["tokenizer"],
        "tokenizer_config_sha256": hashlib.sha256(
            json.dumps(config["tokenizer"], sort_keys=True).encode()
        ).hexdigest(),
        "tokenizer_sha256": fingerprint(tokenizer),
        "dataset": config["val_data"]["dataset"],
        "transforms": config["val_data"].get("transforms", []),
        "split": split,
        "autocast": autocast,
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokenization:
    """The result of `tokenize`.

    Attributes:
        num_images: Images in the store.
        undecodable: The names of those that were left out.
        num_bytes: Size of the packed indices.
    """

    num_images: int
    undecodable: list[str]
    num_bytes: int


@torch.no_grad()
def tokenize(
    tokenizer: Tokenizer,
    loader: ImageLoader,
    directory: Path,
    *,
    crops: int = 1,
    images_per_shard: int = 1024,
    settings: Mapping[str, Any],
    on_progress: Callable[[int], None] = lambda n: None,
) -> Tokenization:
    """Writes the store; shards that are whole already, and of the images that the set has now, are kept.

    A shard holds a fixed part of the set and is encoded in fixed batches, so neither the number of ranks nor a run that
    was killed changes a byte. The ranks share the shards; nothing is exchanged until the end.

    Args:
        tokenizer: In eval mode, on its device.
        loader: Reads the images as they are to be tokenized.
        directory: Made if it is missing.
        crops: Views per image, see `VIEWS`.
        images_per_shard: How many images of the set a shard covers.
        settings: What the indices depend on: written to the manifest; a folder made with others is refused.
        on_progress: Receives the number of images that this rank has just finished.

    Raises:
        TokenStoreError: On every rank, if the folder holds tokens of another tokenizer, or of images with other
            names or contents.
    """
    encoder = ViewEncoder(tokenizer=tokenizer, crops=crops, size=loader.image_size)
    source = views_of(loader, crops, loader.image_size)
    manifest = _manifest(encoder, source, images_per_shard, settings)
    claim(directory, manifest)
    shards = [
        (
            ShardFiles(directory=directory, number=number),
            _items(number, images_per_shard, source.num_samples),
        )
        for number in range(max(1, -(-source.num_samples // images_per_shard)))
    ]
    mine = shards[distributed.rank() :: distributed.world_size()]
    todo = unwritten(source.dataset, mine, on_progress)
    _write_shards(encoder, source, todo, on_progress)
    distributed.barrier()
    return _finish(encoder, directory, manifest, len(shards))


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewEncoder:
    """Turns images into the indices of their views.

    Attributes:
        tokenizer: In eval mode, on its device.
        crops: Views per image.
        size: Height and width of a view.
    """

    tokenizer: Tokenizer
    crops: int
    size: tuple[int, int]

    @property
    def device(self) -> torch.device:
        """Where the tokenizer is."""
        return next(self.tokenizer.parameters()).device

    @property
    def width(self) -> int:
        """Bytes of a stored index."""
        return bytes_per_index(self.tokenizer.codebook_size)

    def axes(self) -> list[int]:
        """The axes of the indices of one view."""
        image = torch.zeros(1, 3, *self.size, device=self.device)
        return list(self.tokenizer.encode(image).shape[1:])

    def __call__(self, batch: Batch) -> Int64[Tensor, "b views *axes"]:
        """The indices of each view of a batch of images, on the tokenizer's device."""
        image = batch["image"].to(self.device, non_blocking=True)
        views = [self.tokenizer.encode(view) for view in cut_views(image, self.crops, self.size)]
        return torch.stack(views, dim=1)


def _manifest(
    encoder: ViewEncoder, source: ImageLoader, images_per_shard: int, settings: Mapping[str, Any]
) -> dict[str, Any]:
    """What the folder is for: everything that decides its bytes."""
    return {
        **settings,
        "vocabulary_size": encoder.tokenizer.codebook_size,
        "bytes_per_index": encoder.width,
        "axes": encoder.axes(),
        "views": encoder.crops,
        "view_order": VIEWS[encoder.crops],
        "images_per_shard": images_per_shard,
        "batch_size": source.batch_size,
        "num_source_images": source.num_samples,
        "class_names": list(source.dataset.class_names),
        "keys_sha256": keys_sha256(source.dataset),
    }


def _items(number: int, images_per_shard: int, total: int) -> range:
    """The images of a shard."""
    return range(number * images_per_shard, min((number + 1) * images_per_shard, total))


def _write_shards(
    encoder: ViewEncoder,
    loader: ImageLoader,
    shards: Sequence[tuple[ShardFiles, range]],
    on_progress: Callable[[int], None],
) -> None:
    """Encodes the images of the shards in one stream, so that reading never waits for the end of a shard."""
    size = loader.batch_size
    groups = [items[i : i + size] for _, items in shards for i in range(0, len(items), size)]
    batches = read_ahead(loader.chosen_batches(groups))
    for files, items in shards:
        parts: list[Tensor] = []
        labels: list[int] = []
        keys: list[str] = []
        undecodable: list[str] = []
        for start in range(0, len(items), size):
            batch = next(batches)
            undecodable += batch["undecodable"]
            if batch["key"]:
                parts.append(encoder(batch))
                labels += batch["label"].tolist()
                keys += batch["key"]
            on_progress(min(size, len(items) - start))
        # The host waits for the device here, once per shard.
        indices = torch.cat(parts).cpu() if parts else torch.zeros(0, encoder.crops, dtype=torch.int64)
        write_shard(
            files,
            indices,
            labels=labels,
            keys=keys,
            undecodable=undecodable,
            width=encoder.width,
            source_sha256=source_sha256(loader.dataset, items),
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
    encoder: ViewEncoder, directory: Path, manifest: Mapping[str, Any], num_shards: int
) -> Tokenization:
    """Writes `manifest.json` on rank 0, which makes the store whole; the result is the same on every rank."""
    found: dict[str, Any] = {}
    if distributed.rank() == 0:
        ranges = [list(pair) for pair in encoder.tokenizer.index_ranges]
        found = write_manifest(directory, {**manifest, "index_ranges": ranges}, num_shards)
    whole = json.loads(distributed.broadcast_object(json.dumps(found)))
    indices_per_view = int(torch.tensor(manifest["axes"]).prod())
    return Tokenization(
        num_images=whole["num_images"],
        undecodable=[name for shard in whole["shards"] for name in shard["undecodable"]],
        num_bytes=whole["num_images"] * encoder.crops * indices_per_view * encoder.width,
    )
