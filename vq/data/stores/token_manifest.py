"""The manifest of a store: what its shards hold, what made them, and their checksums."""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vq.data.stores.token_shards import ShardFiles, TokenStoreError, bytes_per_index, check_field, read_notes
from vq.files import read_regular, sha256_of, write_atomically
from vq.text import printable

FORMAT = "vq-tokens-1"
MANIFEST = "manifest.json"
CONVENTION = (
    "row by row; stacked indices of a position side by side, the first (coarsest) first; little-endian"
)

_MAX_MANIFEST = 2**30  # bytes
_SHARD: Mapping[str, Any] = {"file": str, "count": int, "sha256": str, "undecodable": [str]}
_MANIFEST: Mapping[str, Any] = {
    "axes": [int],
    "views": int,
    "class_names": [str],
    "num_images": int,
    "shards": [dict],
}


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreFormat:
    """What a kind of store has in its manifest.

    Attributes:
        name: The name of the format, with its version.
        convention: The order of the values of an image, in words.
        content: What the store holds, in one word.
        command: The command that writes such a store.
        fields: The type of each entry that only this kind has.
        check: Raises a ValueError if the entries contradict each other.
    """

    name: str
    convention: str
    content: str
    command: str
    fields: Mapping[str, Any]
    check: Callable[[Mapping[str, Any]], None]

    @property
    def noun(self) -> str:
        """What error messages call the store, such as `token store`."""
        return f"{self.content.removesuffix('s')} store"


def _check_tokens(manifest: Mapping[str, Any]) -> None:
    if manifest["bytes_per_index"] != bytes_per_index(manifest["vocabulary_size"]):
        raise ValueError(
            f"{manifest['bytes_per_index']} bytes for an index below {manifest['vocabulary_size']}"
        )
    _check_ranges(manifest)


TOKENS = StoreFormat(
    name=FORMAT,
    convention=CONVENTION,
    content="tokens",
    command="vq tokenize NAME",
    fields={"vocabulary_size": int, "bytes_per_index": int, "tokenizer_sha256": str},
    check=_check_tokens,
)


def write_manifest(
    directory: Path, manifest: Mapping[str, Any], num_shards: int, *, kind: StoreFormat = TOKENS
) -> dict[str, Any]:
    """Completes a store by writing its manifest.

    Args:
        directory: The folder of the store.
        manifest: The entries that describe what is stored and what made it.
        num_shards: The number of shards, whose entries are added.
        kind: The format of the store.

    Returns:
        The whole manifest.

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
        "format": kind.name,
        "convention": kind.convention,
        **manifest,
        "num_images": sum(shard["count"] for shard in shards),
        "num_undecodable": sum(len(shard["undecodable"]) for shard in shards),
        "shards": shards,
    }
    whole["manifest_sha256"] = manifest_sha256(whole)
    write_atomically(directory / MANIFEST, json.dumps(whole, indent=1))
    return whole


def manifest_sha256(manifest: Mapping[str, Any]) -> str:
    """Computes the SHA-256 of a manifest without the entry of this checksum: that of its JSON with sorted keys."""
    entries = {name: value for name, value in manifest.items() if name != "manifest_sha256"}
    return hashlib.sha256(json.dumps(entries, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def read_manifest(directory: Path, *, kind: StoreFormat = TOKENS) -> dict[str, Any]:
    """Reads the manifest of a complete store, and checks its entries and its checksum.

    Manifests of older versions have no checksum; only their entries are checked.

    Args:
        directory: The folder of the store.
        kind: The format that the store should have.

    Raises:
        TokenStoreError: If there is no manifest, or it is damaged or of another format.
    """
    place = printable(str(directory))
    try:
        manifest = json.loads(read_regular(directory / MANIFEST, most=_MAX_MANIFEST).decode("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise TokenStoreError(
            f"{place}: expected a finished {kind.noun} with {MANIFEST}, got: {printable(reason)}; make one with "
            f"{kind.command}"
        ) from error
    found = manifest.get("format") if isinstance(manifest, dict) else None
    if found != kind.name:
        raise TokenStoreError(f"{place}: expected the format {kind.name}, got {found!r}; tokenize again")
    try:
        _check_manifest(manifest, kind)
    except ValueError as error:
        raise TokenStoreError(
            f"{place}: its {MANIFEST} was changed or damaged: {printable(str(error))}; tokenize again"
        ) from error
    return manifest


def _check_manifest(manifest: Mapping[str, Any], kind: StoreFormat) -> None:
    """Raises a ValueError if `write_manifest` cannot have written the manifest."""
    for name, value_type in {**_MANIFEST, **kind.fields}.items():
        check_field(manifest, name, value_type)
    for shard in manifest["shards"]:
        for name, value_type in _SHARD.items():
            check_field(shard, name, value_type)
        if "notes_sha256" in shard:  # older manifests have none
            check_field(shard, "notes_sha256", str)
    if manifest["views"] < 1:
        raise ValueError(f"{manifest['views']} views")
    if not all(0 < axis <= 2**31 for axis in manifest["axes"]):
        raise ValueError(f"axes are {manifest['axes']}")
    if manifest.get("manifest_sha256", manifest_sha256(manifest)) != manifest_sha256(manifest):
        raise ValueError("it does not match its own checksum")
    kind.check(manifest)
    count = sum(shard["count"] for shard in manifest["shards"])
    if manifest["num_images"] != count:
        raise ValueError(f"num_images is {manifest['num_images']}, its shards have {count}")
    names = [f"shard_{number:05d}.bin" for number in range(len(manifest["shards"]))]
    if [shard["file"] for shard in manifest["shards"]] != names:
        raise ValueError("the names of its shards are not those of the format")


def _check_ranges(manifest: Mapping[str, Any]) -> None:
    ranges = manifest.get("index_ranges", [[0, manifest["vocabulary_size"]]])
    if not isinstance(ranges, list) or len(ranges) not in {1, *manifest["axes"][-1:]}:
        raise ValueError("its 'index_ranges' must have one range, or one for each index of a position")
    for pair in ranges:
        check_field({"index_ranges": pair}, "index_ranges", [int])
        if len(pair) != 2 or not pair[0] < pair[1] <= manifest["vocabulary_size"]:
            raise ValueError(f"index_ranges has {pair}")
