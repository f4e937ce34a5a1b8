"""The shards of a store: packed indices or features in one file, labels, keys and a checksum in another.

docs/tokens.md specifies the format byte by byte.
"""

import hashlib
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64, Shaped
from torch import Tensor

from vq.errors import UserError
from vq.files import read_regular, sha256_of, write_atomically
from vq.ops.numerics.integers import as_int64
from vq.text import printable

_MAX_NOTES = 2**27  # bytes of the uncompressed notes of a shard whose number of images is unknown
_MAX_NOTES_PER_IMAGE = 2**13  # bytes on average, and a megabyte on top

_NOTES: Mapping[str, Any] = {
    "count": int,
    "sha256": str,
    "labels": [int],
    "keys": [str],
    "undecodable": [str],
}


class TokenStoreError(UserError, ValueError):
    """A token store that cannot be used: missing, damaged, or of another tokenizer."""


def bytes_per_index(vocabulary_size: int) -> int:
    """Returns how many bytes an index takes: 2 up to 65,536 codes, then 3, then 4.

    Args:
        vocabulary_size: The number of codes.

    Raises:
        ValueError: If an index would take more than four bytes.
    """
    if not 0 < vocabulary_size <= 2**32:
        raise ValueError(f"token store: expected 1 to 2^32 different indices, got {vocabulary_size}")
    return 2 if vocabulary_size <= 2**16 else 3 if vocabulary_size <= 2**24 else 4


def pack(indices: Shaped[Tensor, "*shape"], width: int) -> bytes:
    """Packs indices as consecutive unsigned little-endian integers.

    Args:
        indices: The indices, of any integer dtype.
        width: The number of bytes per index.

    Raises:
        TokenStoreError: If an index is negative or too large.
    """
    whole = as_int64("indices", indices.cpu()).numpy()
    if whole.size and not 0 <= whole.min() <= whole.max() < 2 ** (8 * width):
        raise TokenStoreError(
            f"token store: expected indices from 0 to {2 ** (8 * width) - 1}, which {width} bytes hold, got "
            f"{whole.min()} to {whole.max()}"
        )
    flat = np.ascontiguousarray(whole.astype("<u8").reshape(-1))
    return flat.view(np.uint8).reshape(-1, 8)[:, :width].tobytes()


def unpack(content: Any, width: int) -> Int64[Tensor, "n"]:
    """Unpacks what `pack` has packed.

    Args:
        content: The bytes, or an array of them.
        width: The number of bytes per index.
    """
    raw = np.frombuffer(content, dtype=np.uint8).reshape(-1, width)
    padded = np.zeros((len(raw), 8), dtype=np.uint8)
    padded[:, :width] = raw
    return torch.from_numpy(padded.view("<i8").reshape(-1).astype(np.int64))


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardFiles:
    """The two files of a shard.

    Attributes:
        directory: The folder of the store.
        number: The number of the shard, counted from 0.
    """

    directory: Path
    number: int

    @property
    def tokens(self) -> Path:
        """The file of the packed indices or features."""
        return self.directory / f"shard_{self.number:05d}.bin"

    @property
    def notes(self) -> Path:
        """The file of labels, keys, skipped images and the checksum of the tokens; it is written last."""
        return self.directory / f"shard_{self.number:05d}.notes"


def write_shard(
    files: ShardFiles,
    indices: Shaped[Tensor, "n views *axes"],
    *,
    labels: Sequence[int],
    keys: Sequence[str],
    undecodable: Sequence[str],
    width: int,
    source_sha256: str = "",
) -> None:
    """Writes a shard of a token store atomically: it is complete once its notes exist.

    Args:
        files: The files to write.
        indices: The indices of each image and view.
        labels: The label of each image.
        keys: The key of each image.
        undecodable: The names of images that were skipped because they cannot be decoded.
        width: The number of bytes per index.
        source_sha256: The SHA-256 of the images that the shard was made from.
    """
    write_packed(
        files,
        pack(indices, width),
        labels=labels,
        keys=keys,
        undecodable=undecodable,
        source_sha256=source_sha256,
    )


def write_packed(
    files: ShardFiles,
    content: bytes,
    *,
    labels: Sequence[int],
    keys: Sequence[str],
    undecodable: Sequence[str],
    source_sha256: str,
) -> None:
    """Writes a shard of any store atomically: it is complete once its notes exist.

    Args:
        files: The files to write.
        content: What the shard holds of its images, with the same number of bytes for each.
        labels: The label of each image.
        keys: The key of each image.
        undecodable: The names of images that were skipped because they cannot be decoded.
        source_sha256: The SHA-256 of the images that the shard was made from.
    """
    notes = {
        "count": len(keys),
        "sha256": hashlib.sha256(content).hexdigest(),
        "labels": list(labels),
        "keys": list(keys),
        "undecodable": list(undecodable),
        "source_sha256": source_sha256,
    }
    write_atomically(files.tokens, content)
    write_atomically(files.notes, zlib.compress(json.dumps(notes, separators=(",", ":")).encode(), 9))


def read_notes(files: ShardFiles, *, num_images: int | None = None) -> dict[str, Any]:
    """Reads the notes that `write_shard` has written.

    Args:
        files: The files of the shard.
        num_images: The number of images that the notes list, including skipped ones, if it is known. It limits the
            size of the notes to 8 KiB per image.

    Raises:
        TokenStoreError: If the file is missing, damaged, or not such notes.
    """
    try:
        most = _MAX_NOTES if num_images is None else 2**20 + num_images * _MAX_NOTES_PER_IMAGE
        notes: dict[str, Any] = json.loads(_decompress(read_regular(files.notes, most=most), most))
        for name, kind in _NOTES.items():
            check_field(notes, name, kind)
        if not len(notes["labels"]) == len(notes["keys"]) == notes["count"]:
            raise ValueError(
                f"{notes['count']} images, {len(notes['labels'])} labels and {len(notes['keys'])} keys"
            )
    except (OSError, zlib.error, ValueError, RecursionError) as error:
        raise TokenStoreError(
            f"{printable(str(files.notes))}: missing or damaged: {printable(str(error))}; tokenize again"
        ) from error
    return notes


def is_whole(files: ShardFiles) -> bool:
    """Tests whether both files of a shard exist and the tokens match their checksum."""
    if not (files.notes.is_file() and files.tokens.is_file()):
        return False
    try:
        return bool(read_notes(files)["sha256"] == sha256_of(files.tokens))
    except TokenStoreError:
        return False


def check_field(found: Any, name: str, kind: Any) -> None:
    """Checks that an entry of a JSON object exists, has the given type, and holds no negative integers.

    Args:
        found: The object.
        name: The name of the entry.
        kind: A type, or a list with one type for a list of such values.

    Raises:
        ValueError: If it is not so.
    """
    value = found.get(name) if isinstance(found, dict) else None
    is_right = (
        isinstance(value, list) and all(type(item) is kind[0] for item in value)
        if isinstance(kind, list)
        else type(value) is kind
    )
    numbers = value if isinstance(value, list) else [value]
    if not is_right or any(type(item) is int and item < 0 for item in numbers):
        raise ValueError(f"its {name!r} is missing or has an invalid value")


def _decompress(content: bytes, most: int) -> bytes:
    """Decompresses one complete zlib stream, with nothing after it, of at most `most` bytes."""
    worker = zlib.decompressobj()
    found = worker.decompress(content, most)
    if not worker.eof or worker.unused_data:
        raise ValueError(f"not one whole zlib stream of at most {most:,} bytes")
    return found
