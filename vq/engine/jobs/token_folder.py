"""The folder of a store while it is written: what it is for, and which of its shards are complete."""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from vq import distributed
from vq.data.base import ImageDataset
from vq.data.stores.token_manifest import MANIFEST
from vq.data.stores.token_shards import ShardFiles, is_whole, read_notes
from vq.data.stores.token_store import TokenStoreError
from vq.files import read_json, write_atomically
from vq.text import printable

SETTINGS = "settings.json"


def claim(directory: Path, manifest: Mapping[str, Any], content: str) -> None:
    """On rank 0 writes what the folder is for, or refuses one that is for something else; all ranks wait.

    Args:
        directory: The folder.
        manifest: What the folder is for.
        content: What the store holds, in one word, such as `tokens`.

    Raises:
        TokenStoreError: On every rank, if the folder holds something that was made otherwise, or cannot be used.
    """
    problem = ""
    if distributed.rank() == 0:
        try:
            problem = _difference(directory, manifest, content)
            if not problem and not (directory / SETTINGS).exists():
                write_atomically(directory / SETTINGS, json.dumps(manifest, indent=1))
        except (ValueError, RecursionError) as error:
            problem = f"its {SETTINGS} cannot be read: {error}"
        except OSError as error:
            problem = f"cannot be read or written: {error.strerror or error}"
    if problem := distributed.broadcast_object(problem):
        raise TokenStoreError(f"{printable(str(directory))}: {printable(problem)}; choose another --out")


def _difference(directory: Path, manifest: Mapping[str, Any], content: str) -> str:
    """Why the store cannot be written there; empty if it can."""
    file = directory / SETTINGS
    if file.exists():
        stored = read_json(file)
        if not isinstance(stored, dict):
            raise ValueError(f"expected an object, got {type(stored).__name__}")
        now = json.loads(json.dumps(manifest))
        different = [key for key in sorted({*stored, *now}) if stored.get(key) != now.get(key)]
        changes = "; ".join(f"{key}: {stored.get(key)} there, {now.get(key)} now" for key in different)
        return f"holds {content} made otherwise ({changes})" if different else ""
    if directory.exists() and not directory.is_dir():
        return "expected a folder, got a file"
    if directory.is_dir() and (found := [*directory.glob("shard_*"), *directory.glob(MANIFEST)]):
        return f"holds {found[0].name}, but no {SETTINGS} that says what it was made for"
    return ""


def source_sha256(dataset: ImageDataset, items: range) -> str:
    """The SHA-256 of what decides the pixels of some images: the bytes of their files."""
    with ThreadPoolExecutor(max_workers=8, thread_name_prefix="checksums") as pool:
        return common_sha256(pool.map(dataset.sha256, items))


def common_sha256(checksums: Iterable[str]) -> str:
    """The SHA-256 of the checksums of some images."""
    return hashlib.sha256("\n".join(checksums).encode()).hexdigest()


def unwritten(
    dataset: ImageDataset,
    shards: Sequence[tuple[ShardFiles, range]],
    on_progress: Callable[[int], None],
    content: str,
) -> list[tuple[ShardFiles, range]]:
    """The shards of this rank that are not complete; `on_progress` receives the number of images in the others.

    Args:
        dataset: The images.
        shards: The shards of this rank, each with its images.
        on_progress: Receives the number of images in a complete shard.
        content: What the store holds, in one word, such as `tokens`.

    Raises:
        TokenStoreError: On every rank, if a complete shard was made from other images than the set has now.
    """
    todo, problem = [], ""
    for files, items in shards:
        if not is_whole(files):
            todo.append((files, items))
        elif read_notes(files).get("source_sha256") != source_sha256(dataset, items):
            problem = problem or (
                f"{printable(str(files.directory))}: holds {content} of other images under the names of "
                f"{printable(dataset.key(items[0]))} to {printable(dataset.key(items[-1]))}; choose another --out"
            )
        else:
            on_progress(len(items))
    if problems := [text for text in distributed.gather_objects(problem) if text]:
        raise TokenStoreError(problems[0])
    return todo
