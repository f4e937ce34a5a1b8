"""A set of images becomes a token store."""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int64
from torch import Tensor

from vq.data import Batch, ImageLoader
from vq.data.stores.token_manifest import TOKENS, StoreFormat
from vq.data.stores.token_shards import bytes_per_index, pack
from vq.engine.jobs.store_writing import StoredSet, WriteShards, write_shards, write_store
from vq.engine.jobs.views import cut_views
from vq.ops.images import encodable
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
    write: WriteShards = write_shards,
) -> StoredSet:
    """Writes the token store of a set; shards that are complete already, and of the set's present images, are kept.

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
        write: Writes the shards that are missing; by default this process does.

    Raises:
        TokenStoreError: On every rank, if the folder holds tokens of another tokenizer, or of images with other
            names or contents.
    """
    encoder = ViewEncoder(tokenizer=tokenizer, crops=crops, size=loader.image_size)
    return write_store(
        encoder,
        loader,
        directory,
        images_per_shard=images_per_shard,
        settings=settings,
        on_progress=on_progress,
        write=write,
    )


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
        return self.tokenizer.device

    def to(self, device: str) -> None:
        """Moves the tokenizer to a device."""
        self.tokenizer.to(device)

    @property
    def kind(self) -> StoreFormat:
        """The format of the store."""
        return TOKENS

    @property
    def width(self) -> int:
        """Bytes of a stored index."""
        return bytes_per_index(self.tokenizer.codebook_size)

    def entries(self) -> dict[str, Any]:
        """The entries of the manifest that say how indices are stored."""
        return {"vocabulary_size": self.tokenizer.codebook_size, "bytes_per_index": self.width}

    def later_entries(self) -> dict[str, Any]:
        """Entries of the manifest that the settings of stores of version 0.1 do not have."""
        return {"index_ranges": [list(pair) for pair in self.tokenizer.index_ranges]}

    def axes(self) -> list[int]:
        """The axes of the indices of one view."""
        image = torch.zeros(1, self.tokenizer.image_channels, *self.size, device=self.device)
        return list(self.tokenizer.encode(image).shape[1:])

    def __call__(self, batch: Batch) -> Int64[Tensor, "b views *axes"]:
        """The indices of each view of a batch of images, on the tokenizer's device."""
        image = encodable(batch["image"].to(self.device, non_blocking=True))
        views = [self.tokenizer.encode(view) for view in cut_views(image, self.crops, self.size)]
        return torch.stack(views, dim=1)

    def pack(self, values: Int64[Tensor, "b views *axes"]) -> bytes:
        """The bytes of indices in a shard."""
        return pack(values, self.width)
