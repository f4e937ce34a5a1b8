"""Whether a training that is continued still has the images with which it began."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vq import distributed
from vq.data import ImageLoader
from vq.data.base import keys_sha256
from vq.data.stores.stored import StoredLoader
from vq.engine.loop.resuming import ResumeError, changes_between, recorded_arguments
from vq.files import read_json

DATA = "train_images"
"""The argument in a checkpoint that identifies the images of the training."""


def identity_of(loader: Any) -> dict[str, Any]:
    """What identifies the images of a loader: their number and the SHA-256 of their names, in order.

    Sets in shards are identified by the sizes of their shards: their names would have to be read one by one. The
    content of the images is not read. Nothing is known of a loader of another kind than those here.
    """
    found: dict[str, Any] = {}
    if distributed.rank() == 0 and (digest := _digest(loader)) is not None:
        found = {"number": len(loader.dataset), "sha256": digest}
    return distributed.broadcast_object(found)


def _digest(loader: Any) -> str | None:
    """The SHA-256 of the names of a loader's images, in hexadecimal; None if it is not known."""
    if isinstance(loader, StoredLoader):
        return loader.dataset.store.manifest.get("keys_sha256")
    if not isinstance(loader, ImageLoader):
        return None
    if loader.dataset.shard_sizes is not None:
        return hashlib.sha256(json.dumps(list(loader.dataset.shard_sizes)).encode()).hexdigest()
    return keys_sha256(loader.dataset)


def check_same_data(
    checkpoint: Path, tree: Mapping[str, Any], identity: Mapping[str, Any], *, may_differ: bool
) -> None:
    """Refuses to continue with other images, unless the config names another set.

    Args:
        checkpoint: The checkpoint to continue from.
        tree: The present config.
        identity: That of the present images.
        may_differ: Whether the user has agreed to other images; the difference is then logged.

    Raises:
        ResumeError: If images were added, removed or renamed.
    """
    before = recorded_arguments(checkpoint).get(DATA)
    if not before or not identity or before == identity:
        return
    old, new = (config["train_data"] for config in (read_json(checkpoint / "config.json"), tree))
    if may_differ or changes_between(old.get("dataset", {}), new.get("dataset", {})):
        return  # `Checkpointer.restore` logs the difference
    raise ResumeError(
        f"train_data: expected the {before['number']:,} images with which {checkpoint} was trained, got "
        f"{identity['number']:,} images{'' if before['number'] != identity['number'] else ' with other names'}: images "
        f"were added, removed or renamed; put them back, or continue with the present ones by --changed-data"
    )
