"""The token store: the indices of a set of images on disk, a few bytes each, found again without a search.

docs/tokens.md states the format byte by byte.
"""

import hashlib
import json
import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
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

FORMAT = "vq-tokens-1"
MANIFEST = "manifest.json"
_MOST_MANIFEST = 2**30  # bytes
_MOST_NOTES = (
    2**27
)  # bytes of the notes of a shard, uncompressed, where the number of its images is not known
_MOST_NOTES_AN_IMAGE = 2**13  # on average, with a megabyte for all
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


def pack(indices: Shaped[Tensor, "*shape"], width: int) -> bytes:
    """Indices to unsigned little-endian integers of `width` bytes, one after the other.

    Raises:
        TokenStoreError: If one is negative or does not fit.
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
    indices: Shaped[Tensor, "n views *axes"],
    *,
    labels: Sequence[int],
    keys: Sequence[str],
    undecodable: Sequence[str],
    width: int,
    source_sha256: str = "",
) -> None:
    """Writes a shard whole or not at all.

    Args:
        files: Where.
        indices: Of each image and view.
        labels: One for each image.
        keys: One for each image.
        undecodable: The names of images that are left out.
        width: Bytes of an index.
        source_sha256: Of the images that the shard was made from.
    """
    content = pack(indices, width)
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
    """What `write_shard` noted.

    Args:
        files: Which shard.
        num_images: How many images it holds or leaves out, if that is known: notes may have 8 KiB for each.

    Raises:
        TokenStoreError: If the file is missing or damaged, or was written for something else.
    """
    try:
        most = _MOST_NOTES if num_images is None else 2**20 + num_images * _MOST_NOTES_AN_IMAGE
        notes: dict[str, Any] = json.loads(_decompress(read_regular(files.notes, most=most), most))
        for name, kind in _NOTES.items():
            _expect(notes, name, kind)
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
    """Whether a shard is there and its tokens are what was written."""
    if not (files.notes.is_file() and files.tokens.is_file()):
        return False
    try:
        return bool(read_notes(files)["sha256"] == sha256_of(files.tokens))
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
                "notes_sha256": sha256_of(files.notes),
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
    whole["manifest_sha256"] = manifest_sha256(whole)
    write_atomically(directory / MANIFEST, json.dumps(whole, indent=1))
    return whole


def manifest_sha256(manifest: Mapping[str, Any]) -> str:
    """The SHA-256 of what a manifest says, but for this checksum itself: of its JSON with sorted keys."""
    said = {name: value for name, value in manifest.items() if name != "manifest_sha256"}
    return hashlib.sha256(json.dumps(said, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def read_manifest(directory: Path) -> dict[str, Any]:
    """The manifest of a finished store, compared with its checksum and found complete.

    A manifest that was written before it had a checksum is accepted if its entries are such as they must be.

    Raises:
        TokenStoreError: If there is none, or it is damaged or of another format.
    """
    place = printable(str(directory))
    try:
        manifest = json.loads(read_regular(directory / MANIFEST, most=_MOST_MANIFEST).decode("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise TokenStoreError(
            f"{place}: expected a finished token store with {MANIFEST}, got: {printable(reason)}; make one with "
            "vq tokenize NAME"
        ) from error
    found = manifest.get("format") if isinstance(manifest, dict) else None
    if found != FORMAT:
        raise TokenStoreError(f"{place}: expected the format {FORMAT}, got {found!r}; tokenize again")
    try:
        _check_manifest(manifest)
    except ValueError as error:
        raise TokenStoreError(
            f"{place}: its {MANIFEST} was changed or damaged: {printable(str(error))}; tokenize again"
        ) from error
    return manifest  # type: ignore[no-any-return]


def _check_manifest(manifest: Mapping[str, Any]) -> None:
    """Raises a ValueError for a manifest that `write_manifest` did not write."""
    for name, kind in _MANIFEST.items():
        _expect(manifest, name, kind)
    for shard in manifest["shards"]:
        for name, kind in _SHARD.items():
            _expect(shard, name, kind)
        if "notes_sha256" in shard:  # older manifests have none
            _expect(shard, "notes_sha256", str)
    if manifest["views"] < 1 or manifest["bytes_per_index"] != bytes_per_index(manifest["vocabulary_size"]):
        raise ValueError(
            f"{manifest['views']} views, {manifest['bytes_per_index']} bytes for an index below "
            f"{manifest['vocabulary_size']}"
        )
    if not all(0 < axis <= 2**31 for axis in manifest["axes"]):
        raise ValueError(f"axes are {manifest['axes']}")
    if manifest.get("manifest_sha256", manifest_sha256(manifest)) != manifest_sha256(manifest):
        raise ValueError("it does not have its own checksum")
    ranges = manifest.get("index_ranges", [[0, manifest["vocabulary_size"]]])
    if not isinstance(ranges, list) or len(ranges) not in {1, *manifest["axes"][-1:]}:
        raise ValueError("its 'index_ranges' are not one, or one for each index of a place")
    for pair in ranges:
        _expect({"index_ranges": pair}, "index_ranges", [int])
        if len(pair) != 2 or not pair[0] < pair[1] <= manifest["vocabulary_size"]:
            raise ValueError(f"index_ranges has {pair}")
    count = sum(shard["count"] for shard in manifest["shards"])
    if manifest["num_images"] != count:
        raise ValueError(f"num_images is {manifest['num_images']}, its shards have {count}")
    names = [f"shard_{number:05d}.bin" for number in range(len(manifest["shards"]))]
    if [shard["file"] for shard in manifest["shards"]] != names:
        raise ValueError("its shards are not those of the format")


_NOTES: Mapping[str, Any] = {
    "count": int,
    "sha256": str,
    "labels": [int],
    "keys": [str],
    "undecodable": [str],
}
_SHARD: Mapping[str, Any] = {"file": str, "count": int, "sha256": str, "undecodable": [str]}
_MANIFEST: Mapping[str, Any] = {
    "vocabulary_size": int,
    "bytes_per_index": int,
    "axes": [int],
    "views": int,
    "class_names": [str],
    "tokenizer_sha256": str,
    "num_images": int,
    "shards": [dict],
}


def _expect(found: Any, name: str, kind: Any) -> None:
    """Raises a ValueError unless `found[name]` is there and of the kind: a type, or a list of one in brackets."""
    value = found.get(name) if isinstance(found, dict) else None
    is_right = (
        isinstance(value, list) and all(type(item) is kind[0] for item in value)
        if isinstance(kind, list)
        else type(value) is kind
    )
    numbers = value if isinstance(value, list) else [value]
    if not is_right or any(type(item) is int and item < 0 for item in numbers):
        raise ValueError(f"its {name!r} is missing or is not what it must be")


def _decompress(content: bytes, most: int) -> bytes:
    """The content of notes, which must end where the compressed data end and have at most so many bytes."""
    worker = zlib.decompressobj()
    found = worker.decompress(content, most)
    if not worker.eof or worker.unused_data:
        raise ValueError(f"not one whole zlib stream of at most {most:,} bytes")
    return found


class TokenStore:
    """Reads a store; an image's indices cost one read of their bytes, wherever they stand.

    Args:
        directory: Where `vq.tokenize` wrote.

    Raises:
        TokenStoreError: If there is no manifest, it is damaged or of another format, or a shard has not its length.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.manifest = read_manifest(directory)
        self.axes = tuple(self.manifest["axes"])
        self.views, self.width = int(self.manifest["views"]), int(self.manifest["bytes_per_index"])
        self.record = self.views * math.prod(self.axes) * self.width
        self.shards = [ShardFiles(directory=directory, number=i) for i in range(len(self.manifest["shards"]))]
        counts = [int(shard["count"]) for shard in self.manifest["shards"]]
        for files, count in zip(self.shards, counts, strict=True):
            size = files.tokens.stat().st_size if files.tokens.is_file() else -1
            if size != count * self.record:
                raise TokenStoreError(
                    f"{printable(str(files.tokens))}: expected {count * self.record} bytes for {count} images, got "
                    f"{'no file' if size < 0 else size}; delete it and tokenize again"
                )
        self.ends = np.cumsum(counts, dtype=np.int64)  # no count exceeds its file's size

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
        """Compares every shard with its checksum, its indices with their ranges, its labels with the classes.

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
                self._check_notes(number)
            for file, expected in checksums.items():
                found = sha256_of(file) if file.is_file() else "no file"
                if found != expected:
                    raise TokenStoreError(
                        f"{printable(str(file))}: expected the checksum {expected[:16]}..., got {found[:16]}...: "
                        f"the file was changed or damaged; delete it and tokenize again"
                    )
            labels = self._notes(number)["labels"]
            if max(labels, default=0) >= max(1, len(self.manifest["class_names"])):
                raise TokenStoreError(
                    f"{printable(str(files.notes))}: expected labels below {len(self.manifest['class_names'])}, the "
                    f"number of classes, got {max(labels)}; delete it and tokenize again"
                )
            if shard["count"]:
                self._check_indices(files.tokens, unpack(self._maps[number], self.width))

    def _check_indices(self, file: Path, indices: Int64[Tensor, "n"]) -> None:
        """Refuses indices outside of the ranges that the tokenizer has for each index of a place."""
        ranges = self.manifest.get("index_ranges", [[0, self.manifest["vocabulary_size"]]])
        for depth, own in enumerate(indices.view(-1, len(ranges)).unbind(1)):
            (start, stop), (lowest, highest) = ranges[depth], (int(x) for x in own.aminmax())
            if lowest < start or highest >= stop:
                raise TokenStoreError(
                    f"{printable(str(file))}: expected indices below {stop}{f' and from {start} on' if start else ''}, "
                    f"got {lowest if lowest < start else highest}; tokenize again"
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
            self._read_notes[shard] = read_notes(self.shards[shard], num_images=self._num_listed(shard))
        return self._read_notes[shard]

    def _num_listed(self, shard: int) -> int:
        """How many images of a shard have a name in its notes: those it holds and those that are left out."""
        listed = self.manifest["shards"][shard]
        return int(listed["count"]) + len(listed["undecodable"])

    def _check_notes(self, number: int) -> None:
        """Refuses notes that are damaged (zlib has a checksum of its own) or another shard's."""
        files, shard, notes = self.shards[number], self.manifest["shards"][number], self._notes(number)
        if notes["sha256"] != shard["sha256"] or notes["count"] != shard["count"]:
            raise TokenStoreError(
                f"{printable(str(files.notes))}: expected the notes of {shard['count']} images, got those of another "
                f"shard ({notes['count']} images); delete it and tokenize again"
            )

    @cached_property
    def _read_notes(self) -> dict[int, dict[str, Any]]:
        return {}
