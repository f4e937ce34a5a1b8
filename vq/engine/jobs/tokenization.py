"""A set of images becomes a token store: shard by shard, on all ranks, restartable at any moment."""

import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int64
from torch import Tensor, nn
from torchvision.transforms.v2 import functional

from vq import distributed
from vq.data import Batch, CenterCrop, ImageLoader, Resize
from vq.data.base import ImageDataset
from vq.data.token_store import (
    MANIFEST,
    ShardFiles,
    TokenStoreError,
    bytes_per_index,
    is_whole,
    read_notes,
    write_manifest,
    write_shard,
)
from vq.files import read_json, write_atomically
from vq.text import printable
from vq.tokenizers.fingerprint import fingerprint

logger = logging.getLogger(__name__)
SETTINGS = "settings.json"
TEN_CROP_SCALE = 1.1
VIEWS = {
    1: "the image",
    2: "the image, and its mirror image",
    10: "the four corners and the centre of the image at 1.1 times the size, then their mirror images",
}


def settings_of(
    config: Mapping[str, Any], tokenizer: nn.Module, *, split: str, autocast: bool
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


def views_of(loader: ImageLoader, crops: int, size: tuple[int, int]) -> ImageLoader:
    """The loader whose batches `cut_views` cuts.

    Args:
        loader: Of single images.
        crops: Views an image: 1, 2 or 10.
        size: Height and width of a view.

    Raises:
        TokenStoreError: If there is no such number of views, or ten of images that are not square.
    """
    if crops not in VIEWS:
        raise TokenStoreError(f"--crops: expected one of {', '.join(map(str, VIEWS))}, got {crops}")
    if crops < 10:
        return loader
    if size[0] != size[1]:
        raise TokenStoreError(f"--crops 10: expected square images, got {size[0]} x {size[1]}")
    larger = int(TEN_CROP_SCALE * size[0])  # rounded down, as LlamaGen does: 281 pixels for 256
    return ImageLoader(
        dataset=loader.dataset,
        transforms=[Resize(size=larger), CenterCrop(size=larger)],
        batch_size=loader.batch_size,
        num_workers=loader.num_workers,
        shuffle=False,
        max_undecodable=loader.max_undecodable,
    )


def cut_views(image: Tensor, crops: int, size: tuple[int, int]) -> list[Tensor]:
    """(b, 3, h, w) pixels to the views in the order of `VIEWS`."""
    if crops == 1:
        return [image]
    if crops == 2:
        return [image, image.flip(-1)]
    corners = list(functional.five_crop(image, list(size)))
    return corners + [corner.flip(-1) for corner in corners]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokenization:
    """What a run of `vq.tokenize` found.

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
    tokenizer: nn.Module,
    loader: ImageLoader,
    directory: Path,
    *,
    crops: int = 1,
    images_per_shard: int = 1024,
    settings: Mapping[str, Any],
    on_progress: Callable[[int], None] = lambda n: None,
) -> Tokenization:
    """Writes the store; shards that are whole already, and of the images that the set has now, are kept.

    A shard holds a fixed part of the set and is encoded in fixed batches, so neither ranks nor a run that
    was killed change a byte. The ranks share the shards; nothing is exchanged until the end.

    Args:
        tokenizer: In eval mode, on its device.
        loader: Reads the images as they are to be tokenized.
        directory: Made if it is missing.
        crops: Views an image, see `VIEWS`.
        images_per_shard: How many images of the set a shard covers.
        settings: What the indices depend on: written to the manifest; a folder made with others is refused.
        on_progress: Gets the number of images that this rank has just done.

    Raises:
        TokenStoreError: On every rank, if the folder holds tokens of another tokenizer, or of images with other
            names or contents.
    """
    vocabulary = int(tokenizer.codebook_size)  # type: ignore[arg-type]
    width = bytes_per_index(vocabulary)
    size = loader.image_size
    source = views_of(loader, crops, size)
    device = next(tokenizer.parameters()).device
    axes = list(tokenizer.encode(torch.zeros(1, 3, *size, device=device)).shape[1:])  # type: ignore[operator]
    manifest = {
        **settings,
        "vocabulary_size": vocabulary,
        "bytes_per_index": width,
        "axes": axes,
        "views": crops,
        "view_order": VIEWS[crops],
        "images_per_shard": images_per_shard,
        "batch_size": source.batch_size,
        "num_source_images": source.num_samples,
        "class_names": list(source.dataset.class_names),
        "keys_sha256": keys_sha256(source.dataset),
    }
    _claim(directory, manifest)
    num_shards = max(1, -(-source.num_samples // images_per_shard))
    mine = range(distributed.rank(), num_shards, distributed.world_size())
    shards = [
        (ShardFiles(directory=directory, number=n), _items(n, images_per_shard, source.num_samples))
        for n in mine
    ]
    todo = _unwritten(source.dataset, shards, on_progress)
    _write_shards(
        tokenizer,
        source,
        todo,
        crops=crops,
        size=size,
        width=width,
        on_progress=on_progress,
    )
    distributed.barrier()
    found: dict[str, Any] = {}
    if distributed.rank() == 0:
        ranges = [list(pair) for pair in tokenizer.index_ranges]  # type: ignore[union-attr]
        found = write_manifest(directory, {**manifest, "index_ranges": ranges}, num_shards)
    text = distributed.broadcast_object(json.dumps(found))
    whole = json.loads(text)
    return Tokenization(
        num_images=whole["num_images"],
        undecodable=[name for shard in whole["shards"] for name in shard["undecodable"]],
        num_bytes=whole["num_images"] * crops * int(torch.tensor(axes).prod()) * width,
    )


def keys_sha256(dataset: ImageDataset) -> str:
    """The SHA-256 of the names and labels of a set's images, in order."""
    digest = hashlib.sha256()
    for i in range(len(dataset)):
        digest.update(json.dumps([dataset.key(i), dataset.label(i)]).encode() + b"\n")
    return digest.hexdigest()


def source_sha256(dataset: ImageDataset, items: range) -> str:
    """The SHA-256 of some images of a set, by what decides their pixels: the bytes of their files."""
    with ThreadPoolExecutor(max_workers=8, thread_name_prefix="checksums") as pool:
        return hashlib.sha256("\n".join(pool.map(dataset.sha256, items)).encode()).hexdigest()


def _unwritten(
    dataset: ImageDataset, shards: Sequence[tuple[ShardFiles, range]], on_progress: Callable[[int], None]
) -> list[tuple[ShardFiles, range]]:
    """This rank's shards that are not whole yet.

    Raises:
        TokenStoreError: On every rank, if a whole shard was made from other images than the set has now.
    """
    todo, problem = [], ""
    for files, items in shards:
        if not is_whole(files):
            todo.append((files, items))
        elif read_notes(files).get("source_sha256") != source_sha256(dataset, items):
            problem = problem or (
                f"{printable(str(files.directory))}: holds tokens of other images under the names of "
                f"{printable(dataset.key(items[0]))} to {printable(dataset.key(items[-1]))}; choose another --out"
            )
        else:
            on_progress(len(items))
    if problems := [text for text in distributed.gather_objects(problem) if text]:
        raise TokenStoreError(problems[0])
    return todo


def _items(number: int, images_per_shard: int, total: int) -> range:
    return range(number * images_per_shard, min((number + 1) * images_per_shard, total))


def _write_shards(
    tokenizer: nn.Module,
    loader: ImageLoader,
    shards: Sequence[tuple[ShardFiles, range]],
    *,
    crops: int,
    size: tuple[int, int],
    width: int,
    on_progress: Callable[[int], None],
) -> None:
    """Encodes the images of the shards in one stream, so that the reading never waits for a shard's end."""
    local = loader.batch_size
    groups = [items[i : i + local] for _, items in shards for i in range(0, len(items), local)]
    batches = read_ahead(loader.chosen_batches(groups))
    for files, items in shards:
        parts: list[Tensor] = []
        labels: list[int] = []
        keys: list[str] = []
        undecodable: list[str] = []
        for start in range(0, len(items), local):
            batch = next(batches)
            undecodable += batch["undecodable"]
            if batch["key"]:
                parts.append(encode_views(tokenizer, batch, crops, size))  # a GPU is waited for once a shard
                labels += batch["label"].tolist()
                keys += batch["key"]
            on_progress(min(local, len(items) - start))
        indices = torch.cat(parts).cpu() if parts else torch.zeros(0, crops, dtype=torch.int64)
        write_shard(
            files,
            indices,
            labels=labels,
            keys=keys,
            undecodable=undecodable,
            width=width,
            source_sha256=source_sha256(loader.dataset, items),
        )


def read_ahead(batches: Iterator[Batch]) -> Iterator[Batch]:
    """Yields the same batches; a thread fetches the next one while the caller works on this one.

    Taking a batch over from a worker costs a millisecond or two, which the encoder need not wait for.
    """
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="read_ahead") as pool:
        batch = next(batches, None)  # here, not in the thread: it starts the workers
        while batch is not None:
            following = pool.submit(next, batches, None)
            yield batch
            batch = following.result()


def encode_views(
    tokenizer: nn.Module, batch: Batch, crops: int, size: tuple[int, int]
) -> Int64[Tensor, "b views *axes"]:
    """The indices of each view of a batch of images."""
    device = next(tokenizer.parameters()).device
    image = batch["image"].to(device, non_blocking=True)
    views = [tokenizer.encode(view) for view in cut_views(image, crops, size)]  # type: ignore[operator]
    return torch.stack(views, dim=1)


def _claim(directory: Path, manifest: Mapping[str, Any]) -> None:
    """On rank 0 writes what the folder is for, or refuses one that is for something else; all ranks wait."""
    problem = ""
    if distributed.rank() == 0:
        try:
            problem = _difference(directory, manifest)
            if not problem and not (directory / SETTINGS).exists():
                write_atomically(directory / SETTINGS, json.dumps(manifest, indent=1))
        except (ValueError, RecursionError) as error:
            problem = f"its {SETTINGS} cannot be read: {error}"
        except OSError as error:
            problem = f"cannot be read or written: {error.strerror or error}"
    if problem := distributed.broadcast_object(problem):
        raise TokenStoreError(f"{printable(str(directory))}: {printable(problem)}; choose another --out")


def _difference(directory: Path, manifest: Mapping[str, Any]) -> str:
    """Why the store cannot be made there; "" if it can."""
    file = directory / SETTINGS
    if file.exists():
        there = read_json(file)
        if not isinstance(there, dict):
            raise ValueError(f"expected an object, got {type(there).__name__}")
        now = json.loads(json.dumps(manifest))
        different = [k for k in sorted({*there, *now}) if there.get(k) != now.get(k)]
        changes = "; ".join(f"{k}: {there.get(k)} there, {now.get(k)} now" for k in different)
        return f"holds tokens made otherwise ({changes})" if different else ""
    if directory.exists() and not directory.is_dir():
        return "expected a folder, got a file"
    if directory.is_dir() and (found := [*directory.glob("shard_*"), *directory.glob(MANIFEST)]):
        return f"holds {found[0].name}, but no {SETTINGS} that says what it was made for"
    return ""
