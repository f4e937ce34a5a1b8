"""The token store: the indices of a set of images on disk, a few bytes each, found again without a search.

docs/tokens.md states the format byte by byte.
"""

import hashlib
import json
import os
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int, Int64
from torch import Tensor

from vq.errors import UserError

FORMAT = "vq-tokens-1"
MANIFEST = "manifest.json"
CONVENTION = (
    "row by row; stacked indices of a position side by side, the first (coarsest) first; little-endian"
)


class TokenStoreError(UserError, ValueError):
    """A token store that cannot be used: missing, damaged, or of another tokenizer."""


def bytes_per_index(vocabulary_size: int) -> int:
    """How many bytes hold an index: 2 up to 65,536 codes, then 3, then 4.

    Raises:
        ValueError: If four bytes are too few.
    """
    if not 0 < vocabulary_size <= 2**32:
        raise ValueError(f"token store: expected 1 to 2^32 different indices, got {vocabulary_size}")
    return 2 if vocabulary_size <= 2**16 else 3 if vocabulary_size <= 2**24 else 4


def pack(indices: Int[Tensor, "*shape"], width: int) -> bytes:
    """Indices to unsigned little-endian integers of `width` bytes, one after the other."""
    flat = np.ascontiguousarray(indices.cpu().numpy().astype("<u8").reshape(-1))
    return flat.view(np.uint8).reshape(-1, 8)[:, :width].tobytes()


def unpack(content: Any, width: int) -> Int64[Tensor, "n"]:
    """The inverse of `pack`."""
    raw = np.frombuffer(content, dtype=np.uint8).reshape(-1, width)
    padded = np.zeros((len(raw), 8), dtype=np.uint8)
    padded[:, :width] = raw
    return torch.from_numpy(padded.view("<i8").reshape(-1).astype(np.int64))


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardFiles:
    """The files of one shard."""

    directory: Path
    number: int

    @property
    def tokens(self) -> Path:
        """The packed indices."""
        return self.directory / f"shard_{self.number:05d}.bin"

    @property
    def notes(self) -> Path:
        """Labels, keys, what was left out, and the checksum of the tokens; written last: it makes a shard whole."""
        return self.directory / f"shard_{self.number:05d}.notes"


def write_shard(
    files: ShardFiles,
    indices: Int[Tensor, "n views *axes"],
    *,
    labels: Sequence[int],
    keys: Sequence[str],
    undecodable: Sequence[str],
    width: int,
) -> None:
    """Writes a shard whole or not at all.

    Args:
        files: Where.
        indices: Of each image and view.
        labels: One for each image.
        keys: One for each image.
        undecodable: The names of images that are left out.
        width: Bytes of an index.
    """
    content = pack(indices, width)
    notes = {
        "count": len(keys),
        "sha256": hashlib.sha256(content).hexdigest(),
        "labels": list(labels),
        "keys": list(keys),
        "undecodable": list(undecodable),
    }
    _write(files.tokens, content)
    _write(files.notes, zlib.compress(json.dumps(notes, separators=(",", ":")).encode(), 9))


def read_notes(files: ShardFiles) -> dict[str, Any]:
    """What `write_shard` noted.

    Raises:
        TokenStoreError: If the file is missing or damaged.
    """
    try:
        notes: dict[str, Any] = json.loads(zlib.decompress(files.notes.read_bytes()))
    except (OSError, zlib.error, ValueError) as error:
        raise TokenStoreError(f"{files.notes}: missing or damaged: {error}; tokenize again") from error
    return notes


def is_whole(files: ShardFiles) -> bool:
    """Whether a shard is there and its tokens are what was written."""
    if not (files.notes.is_file() and files.tokens.is_file()):
        return False
    try:
        return bool(read_notes(files)["sha256"] == _sha256(files.tokens))
    except TokenStoreError:
        return False


def write_manifest(directory: Path, manifest: Mapping[str, Any], num_shards: int) -> dict[str, Any]:
    """Finishes a store: what its shards hold, and what made them.

    Raises:
        TokenStoreError: If a shard is missing.
    """
    shards = []
    for number in range(num_shards):
        files = ShardFiles(directory=directory, number=number)
        notes = read_notes(files)
        shards.append(
            {
                "file": files.tokens.name,
                "count": notes["count"],
                "sha256": notes["sha256"],
                "notes_sha256": _sha256(files.notes),
                "undecodable": notes["undecodable"],
            }
        )
    whole = {
        "format": FORMAT,
        "convention": CONVENTION,
        **manifest,
        "num_images": sum(shard["count"] for shard in shards),
        "num_undecodable": sum(len(shard["undecodable"]) for shard in shards),
        "shards": shards,
    }
    _write(directory / MANIFEST, json.dumps(whole, indent=1).encode())
    return whole


class TokenStore:
    """Reads a store; an image's indices cost one read of their bytes, wherever they stand.

    Args:
        directory: Where `vq.tokenize` wrote.

    Raises:
        TokenStoreError: If there is no manifest, it is of another format, or a shard has not its length.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        try:
            self.manifest: dict[str, Any] = json.loads((directory / MANIFEST).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise TokenStoreError(
                f"{directory}: expected a finished token store with {MANIFEST}: {error}; make one with "
                f"python -m vq.tokenize NAME CONFIG"
            ) from error
        if self.manifest.get("format") != FORMAT:
            raise TokenStoreError(
                f"{directory}: expected the format {FORMAT}, got {self.manifest.get('format')!r}; tokenize again"
            )
        self.axes = tuple(self.manifest["axes"])
        self.views, self.width = int(self.manifest["views"]), int(self.manifest["bytes_per_index"])
        self.record = self.views * int(np.prod(self.axes)) * self.width
        self.shards = [ShardFiles(directory=directory, number=i) for i in range(len(self.manifest["shards"]))]
        counts = [int(shard["count"]) for shard in self.manifest["shards"]]
        self.ends = np.cumsum(counts, dtype=np.int64)
        for files, count in zip(self.shards, counts, strict=True):
            size = files.tokens.stat().st_size if files.tokens.is_file() else -1
            if size != count * self.record:
                raise TokenStoreError(
                    f"{files.tokens}: expected {count * self.record} bytes for {count} images, got "
                    f"{'no file' if size < 0 else size}; delete it and tokenize again"
                )

    def __len__(self) -> int:
        """The number of images."""
        return int(self.ends[-1]) if len(self.ends) else 0

    def read(self, index: int, view: int = 0) -> Int64[Tensor, "*axes"]:
        """The indices of an image in a view.

        Raises:
            IndexError: If there is no such image or view.
        """
        if not 0 <= view < self.views:
            raise IndexError(f"{self.directory}: expected a view in [0, {self.views}), got {view}")
        shard, row = self._place(index)
        size = self.record // self.views
        start = row * self.record + view * size
        return unpack(self._maps[shard][start : start + size].tobytes(), self.width).view(self.axes)

    def label(self, index: int) -> int:
        """The class of an image."""
        shard, row = self._place(index)
        return int(self._notes(shard)["labels"][row])

    def key(self, index: int) -> str:
        """The name of an image."""
        shard, row = self._place(index)
        return str(self._notes(shard)["keys"][row])

    def verify(self) -> None:
        """Compares every shard with its checksum, and its indices with the vocabulary.

        A manifest that was written before notes had a checksum there is accepted: such notes must be readable and
        those of their shard.

        Raises:
            TokenStoreError: If one is damaged.
        """
        for number, (files, shard) in enumerate(zip(self.shards, self.manifest["shards"], strict=True)):
            checksums = {files.tokens: shard["sha256"]}
            if "notes_sha256" in shard:
                checksums[files.notes] = shard["notes_sha256"]
            else:
                _check_notes(files, shard)
            for file, expected in checksums.items():
                found = _sha256(file) if file.is_file() else "no file"
                if found != expected:
                    raise TokenStoreError(
                        f"{file}: expected the checksum {expected[:16]}..., got {found[:16]}...: "
                        f"the file was changed or damaged; delete it and tokenize again"
                    )
            largest = int(unpack(self._maps[number], self.width).max()) if shard["count"] else 0
            if largest >= self.manifest["vocabulary_size"]:
                raise TokenStoreError(
                    f"{files.tokens}: expected indices below {self.manifest['vocabulary_size']}, got {largest}"
                )

    def _place(self, index: int) -> tuple[int, int]:
        if not 0 <= index < len(self):
            raise IndexError(f"{self.directory}: expected an index in [0, {len(self)}), got {index}")
        shard = int(np.searchsorted(self.ends, index, side="right"))
        return shard, index - (int(self.ends[shard - 1]) if shard else 0)

    @cached_property
    def _maps(self) -> list[Any]:
        return [
            np.memmap(files.tokens, dtype=np.uint8, mode="r") if shard["count"] else np.zeros(0, np.uint8)
            for files, shard in zip(self.shards, self.manifest["shards"], strict=True)
        ]

    def _notes(self, shard: int) -> dict[str, Any]:
        if shard not in self._read_notes:
            self._read_notes[shard] = read_notes(self.shards[shard])
        return self._read_notes[shard]

    @cached_property
    def _read_notes(self) -> dict[int, dict[str, Any]]:
        return {}


def _check_notes(files: ShardFiles, shard: Mapping[str, Any]) -> None:
    """Refuses notes that are damaged (zlib has a checksum of its own) or another shard's."""
    notes = read_notes(files)
    counts = [notes["count"], len(notes["labels"]), len(notes["keys"])]
    if notes["sha256"] != shard["sha256"] or counts != [shard["count"]] * 3:
        raise TokenStoreError(
            f"{files.notes}: expected the notes of {shard['count']} images, got those of another shard ({counts[0]} "
            f"images); delete it and tokenize again"
        )


def _write(file: Path, content: bytes) -> None:
    partial = file.with_name(f"{file.name}.partial")
    with partial.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    partial.replace(file)


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
