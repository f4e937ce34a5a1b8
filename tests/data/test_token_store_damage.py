"""Damaged or malicious token stores are errors: no silent differences, and bounded memory."""

import copy
import json
import os
import resource
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from test_token_store import make_store

from vq.data import TokenDataset, TokenLoader, TokenStore, TokenStoreError
from vq.data.stores.token_manifest import MANIFEST, manifest_sha256, write_manifest
from vq.data.stores.token_shards import ShardFiles, read_notes, write_shard

WRONG: list[Any] = [None, -1, 10**30, 1.5, True, "", "x", [], {}, [[]], [None], [-1], [10**30], [10**30, 1]]


def everything(store: TokenStore) -> list[Any]:
    """Returns all of the content of a store."""
    said = {name: value for name, value in store.manifest.items() if name != "manifest_sha256"}
    indices = [store.read(i, v).tolist() for i in range(len(store)) for v in range(store.views)]
    return [said, indices, [(store.key(i), store.label(i)) for i in range(len(store))]]


def read_all(folder: Path) -> list[Any]:
    store = TokenStore(folder)
    TokenLoader(dataset=TokenDataset(root=folder), batch_size=1).check()
    return everything(store)


def test_no_single_flipped_bit_of_the_manifest_goes_unnoticed(tmp_path: Path) -> None:
    make_store(tmp_path, counts=(2, 1))
    file = tmp_path / MANIFEST
    kept, expected = file.read_bytes(), read_all(tmp_path)
    accepted = 0
    for position in range(len(kept)):
        content = bytearray(kept)
        content[position] ^= 1 << (position % 8)
        file.write_bytes(content)
        try:
            found = everything(TokenStore(tmp_path))
        except TokenStoreError:
            continue
        # Only the name of the checksum itself can be damaged: the rest is then read as that of an older manifest.
        stray = set(found[0]) - set(expected[0])
        assert all(name.startswith(("manif", "m")) or name.endswith("sha256") for name in stray)
        assert {name: value for name, value in found[0].items() if name not in stray} == expected[0]
        assert found[1:] == expected[1:]
        accepted += 1
    assert accepted <= len('"manifest_sha256"')


@pytest.mark.parametrize("name", ["shard_00000.notes", "shard_00000.bin"])
def test_no_single_flipped_bit_of_a_shard_goes_unnoticed(tmp_path: Path, name: str) -> None:
    make_store(tmp_path, counts=(2, 1))
    kept = (tmp_path / name).read_bytes()
    for position in range(len(kept)):
        content = bytearray(kept)
        content[position] ^= 1 << (position % 8)
        (tmp_path / name).write_bytes(content)
        with pytest.raises(TokenStoreError, match=r"shard_00000\.(notes|bin)"):
            read_all(tmp_path)


@pytest.mark.parametrize("has_checksum", [True, False])
def test_every_wrong_entry_is_refused_or_harmless(tmp_path: Path, has_checksum: bool) -> None:
    """Writes a manifest with a correct checksum, or without one as in old stores."""
    make_store(tmp_path, counts=(2, 1))
    file = tmp_path / MANIFEST
    manifest, expected = json.loads(file.read_text()), read_all(tmp_path)
    assert manifest["shards"][0].keys() >= {"file", "count", "sha256", "notes_sha256", "undecodable"}
    for changed in _changes(manifest):
        changed.pop("manifest_sha256", None)
        if has_checksum:
            changed["manifest_sha256"] = manifest_sha256(changed)
        file.write_text(json.dumps(changed))
        try:
            found = read_all(tmp_path)
        except TokenStoreError:
            continue
        assert found[1:] == expected[1:]  # an entry that does not affect the tokens


def _changes(manifest: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for name in manifest:
        for value in WRONG:
            yield copy.deepcopy(manifest) | {name: value}
        yield {k: v for k, v in copy.deepcopy(manifest).items() if k != name}
    for name in manifest["shards"][0]:
        for value in WRONG:
            changed = copy.deepcopy(manifest)
            changed["shards"][0][name] = value
            yield changed
        changed = copy.deepcopy(manifest)
        del changed["shards"][0][name]
        yield changed


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"null", b"3", b'"x"', b"{", b"\xff\xfe", b"[" * 100_000, b'{"format": []}', b"\0" * 99],
)
def test_what_is_no_manifest_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / MANIFEST).write_bytes(content)
    with pytest.raises(TokenStoreError):
        TokenStore(tmp_path)


@pytest.mark.parametrize("name", [MANIFEST, "shard_00000.notes", "shard_00000.bin"])
def test_a_pipe_in_place_of_a_file_is_not_waited_for(tmp_path: Path, name: str) -> None:
    make_store(tmp_path, counts=(2,))
    (tmp_path / name).unlink()
    os.mkfifo(tmp_path / name)
    with pytest.raises(TokenStoreError):
        read_all(tmp_path)


def test_notes_that_would_fill_the_memory_are_refused(tmp_path: Path) -> None:
    """Makes 2 MB of notes that decompress to half a gigabyte, for two images."""
    make_store(tmp_path, counts=(2,))
    bomb = zlib.compress(b"[" + bytes(2**29), 1)
    files = ShardFiles(directory=tmp_path, number=0)
    files.notes.write_bytes(bomb)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    store = TokenStore(tmp_path)
    with pytest.raises(
        TokenStoreError, match=r"notes: missing or damaged: .*, more than 1,064,960; tokenize again"
    ):
        store.label(0)
    with pytest.raises(TokenStoreError, match="not one whole zlib stream of at most 134,217,728 bytes"):
        read_notes(files)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 * 1024  # KiB


def test_long_names_of_images_fit_into_the_limit(tmp_path: Path) -> None:
    files = ShardFiles(directory=tmp_path, number=0)
    keys = [f"{i}/" + "\U0001f600" * 250 for i in range(1000)]  # twelve bytes per character in JSON
    indices = torch.zeros(1000, 1, 1, dtype=torch.int64)
    write_shard(files, indices, labels=[0] * 1000, keys=keys, undecodable=[], width=2)
    assert read_notes(files, num_images=1000)["keys"] == keys


def test_indices_outside_the_range_of_their_place_are_refused(tmp_path: Path) -> None:
    """Makes the store of a two-level tokenizer: the top index is below 3, the others are at least 3."""
    files = ShardFiles(directory=tmp_path, number=0)
    manifest = {
        "vocabulary_size": 11,
        "bytes_per_index": 2,
        "axes": [2, 2, 3],
        "views": 1,
        "class_names": ["a"],
        "tokenizer_sha256": "x",
        "index_ranges": [[0, 3], [3, 11], [3, 11]],
    }
    good = torch.tensor([2, 3, 10]).expand(1, 1, 2, 2, 3).contiguous()
    for change, message in ((None, None), (3, "below 3, got 3"), (2, "below 11 and from 3 on, got 2")):
        indices = good.clone()
        if change is not None:
            indices[0, 0, 1, 1, 0 if change == 3 else 2] = change
        write_shard(files, indices, labels=[0], keys=["k"], undecodable=[], width=2)
        write_manifest(tmp_path, manifest, 1)
        if message is None:
            TokenStore(tmp_path).verify()
        else:
            with pytest.raises(TokenStoreError, match=f"expected indices {message}; tokenize again"):
                TokenStore(tmp_path).verify()


def test_ranges_that_do_not_fit_the_axes_are_refused(tmp_path: Path) -> None:
    make_store(tmp_path, counts=(2,))
    manifest = json.loads((tmp_path / MANIFEST).read_text())
    del manifest["manifest_sha256"]
    for ranges in ([[0, 5], [0, 5]], [[5, 5]], [[0, 1001]], [[0]], [0], 3, [["a", "b"]]):
        (tmp_path / MANIFEST).write_text(json.dumps(manifest | {"index_ranges": ranges}))
        with pytest.raises(TokenStoreError, match="index_ranges"):
            TokenStore(tmp_path)


def test_axes_are_at_most_two_to_the_31(tmp_path: Path) -> None:
    make_store(tmp_path, counts=())
    manifest = json.loads((tmp_path / MANIFEST).read_text())
    del manifest["manifest_sha256"]
    for axis, is_right in ((1, True), (2**31, True), (0, False), (2**31 + 1, False)):
        (tmp_path / MANIFEST).write_text(json.dumps(manifest | {"axes": [axis]}))
        if is_right:
            assert TokenStore(tmp_path).axes == (axis,)
        else:
            with pytest.raises(TokenStoreError, match=rf"axes are \[{axis}\]"):
                TokenStore(tmp_path)
