"""The token store: packed indices, random access, and detection of damage."""

import hashlib
import json
import zlib
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vq.data import TokenDataset, TokenLoader, TokenStore, TokenStoreError
from vq.data.stores.token_manifest import MANIFEST, manifest_sha256, write_manifest
from vq.data.stores.token_shards import ShardFiles, bytes_per_index, is_whole, pack, unpack, write_shard


def make_store(
    directory: Path, counts: tuple[int, ...] = (5, 3), views: int = 2, vocabulary: int = 1000
) -> dict[tuple[int, int], torch.Tensor]:
    directory.mkdir(exist_ok=True)
    width, expected, number = bytes_per_index(vocabulary), {}, 0
    for shard, count in enumerate(counts):
        indices = torch.randint(vocabulary, (count, views, 3, 4))
        for row in range(count):
            for view in range(views):
                expected[number + row, view] = indices[row, view]
        write_shard(
            ShardFiles(directory=directory, number=shard),
            indices,
            labels=[(number + row) % 4 for row in range(count)],
            keys=[f"image-{number + row}" for row in range(count)],
            undecodable=["broken"] if shard else [],
            width=width,
        )
        number += count
    manifest: dict[str, Any] = {
        "vocabulary_size": vocabulary,
        "bytes_per_index": width,
        "axes": [3, 4],
        "views": views,
        "class_names": list("abcd"),
        "tokenizer_sha256": "x",
    }
    write_manifest(directory, manifest, len(counts))
    return expected


@given(st.lists(st.integers(0, 2**32 - 1), max_size=20), st.sampled_from([2, 3, 4]))
def test_packing_is_a_bijection_little_end_first(values: list[int], width: int) -> None:
    kept = torch.tensor([v % 2 ** (8 * width) for v in values], dtype=torch.int64)
    content = pack(kept, width)
    assert len(content) == width * len(values)
    assert torch.equal(unpack(content, width), kept)
    assert content[:width] == (int(kept[0]).to_bytes(width, "little") if values else b"")


@pytest.mark.parametrize(("value", "width"), [(-1, 2), (2**16, 2), (2**24, 3), (2**32, 4), (2**62, 4)])
def test_indices_that_do_not_fit_are_refused_not_cut_off(value: int, width: int) -> None:
    with pytest.raises(TokenStoreError, match=rf"which {width} bytes hold, got .*{value}"):
        pack(torch.tensor([0, value]), width)


@pytest.mark.parametrize("kind", [torch.uint8, torch.int16, torch.int32, torch.uint16])
def test_indices_of_any_integer_type_are_stored(kind: torch.dtype) -> None:
    assert unpack(pack(torch.tensor([3, 100]).to(kind), 2), 2).tolist() == [3, 100]


def test_widths_follow_the_vocabulary() -> None:
    assert [bytes_per_index(n) for n in (2, 2**16, 2**16 + 1, 2**24, 2**24 + 1, 2**32)] == [2, 2, 3, 3, 4, 4]
    with pytest.raises(ValueError, match=r"expected 1 to 2\^32 different indices"):
        bytes_per_index(2**32 + 1)


@pytest.mark.parametrize("vocabulary", [1000, 70_000, 2**25])
def test_every_image_and_view_comes_back(tmp_path: Path, vocabulary: int) -> None:
    expected = make_store(tmp_path / "s", vocabulary=vocabulary)
    store = TokenStore(tmp_path / "s")
    store.verify()
    assert len(store) == 8
    for (index, view), indices in expected.items():
        assert torch.equal(store.read(index, view), indices)
        assert (store.key(index), store.label(index)) == (f"image-{index}", index % 4)
    assert store.manifest["num_undecodable"] == 1
    with pytest.raises(IndexError, match=r"expected an index in \[0, 8\), got 8"):
        store.read(8)
    with pytest.raises(IndexError, match=r"expected a view in \[0, 2\), got 2"):
        store.read(0, 2)


def test_fifty_thousand_images_of_256_tokens_take_at_most_26_mb(tmp_path: Path) -> None:
    count = 12_500  # a quarter of them
    indices = torch.randint(16384, (count, 1, 16, 16))
    names = [f"n{1440764 + i // 50:08d}/ILSVRC2012_val_{i:08d}.JPEG" for i in range(count)]
    files = ShardFiles(directory=tmp_path, number=0)
    write_shard(files, indices, labels=[i // 50 for i in range(count)], keys=names, undecodable=[], width=2)
    size = files.tokens.stat().st_size + files.notes.stat().st_size
    assert 4 * size <= 26e6


def test_damage_is_named(tmp_path: Path) -> None:
    make_store(tmp_path / "s")
    shard = tmp_path / "s" / "shard_00001.bin"
    content = bytearray(shard.read_bytes())
    content[7] ^= 1
    shard.write_bytes(bytes(content))
    assert not is_whole(ShardFiles(directory=tmp_path / "s", number=1))
    with pytest.raises(TokenStoreError, match=r"shard_00001\.bin: expected the checksum .* tokenize again"):
        TokenLoader(dataset=TokenDataset(root=tmp_path / "s"), batch_size=2).check()
    content[7] ^= 1
    shard.write_bytes(bytes(content))
    notes = tmp_path / "s" / "shard_00000.notes"
    kept = notes.read_bytes()
    notes.write_bytes(kept[:-3])
    with pytest.raises(TokenStoreError, match=r"shard_00000\.notes: expected the checksum"):
        TokenStore(tmp_path / "s").verify()
    notes.write_bytes(kept)
    TokenStore(tmp_path / "s").verify()
    shard.write_bytes(bytes(content[:-1]))
    with pytest.raises(TokenStoreError, match=r"shard_00001\.bin: expected 144 bytes for 3 images, got 143"):
        TokenStore(tmp_path / "s")
    shard.unlink()
    with pytest.raises(TokenStoreError, match="got no file"):
        TokenStore(tmp_path / "s")
    with pytest.raises(TokenStoreError, match="expected a finished token store with manifest"):
        len(TokenDataset(root=tmp_path / "nothing"))


def test_another_format_and_indices_out_of_range_are_refused(tmp_path: Path) -> None:
    make_store(tmp_path / "s")
    file = tmp_path / "s" / MANIFEST
    manifest = json.loads(file.read_text())
    file.write_text(json.dumps(manifest | {"vocabulary_size": 10}))
    with pytest.raises(TokenStoreError, match="it does not match its own checksum"):
        TokenStore(tmp_path / "s")
    del manifest["manifest_sha256"]
    file.write_text(json.dumps(manifest | {"vocabulary_size": 10}))
    with pytest.raises(TokenStoreError, match="expected indices below 10, got"):
        TokenStore(tmp_path / "s").verify()
    file.write_text(json.dumps(manifest | {"format": "other"}))
    with pytest.raises(TokenStoreError, match="expected the format vq-tokens-1, got 'other'"):
        TokenStore(tmp_path / "s")


def test_a_manifest_without_checksums_of_the_notes_is_accepted_and_its_notes_are_read(tmp_path: Path) -> None:
    make_store(tmp_path / "s")
    file = tmp_path / "s" / MANIFEST
    manifest = json.loads(file.read_text())
    del manifest["manifest_sha256"]
    for shard in manifest["shards"]:
        del shard["notes_sha256"]
    file.write_text(json.dumps(manifest))
    TokenLoader(dataset=TokenDataset(root=tmp_path / "s"), batch_size=2).check()
    first, second = (ShardFiles(directory=tmp_path / "s", number=i).notes for i in (0, 1))
    kept = first.read_bytes()
    first.write_bytes(second.read_bytes())
    with pytest.raises(
        TokenStoreError, match=r"shard_00000\.notes: expected the notes of 5 images, got .* \(3"
    ):
        TokenStore(tmp_path / "s").verify()
    first.write_bytes(kept[:-3])
    with pytest.raises(TokenStoreError, match=r"shard_00000\.notes: missing or damaged: .* tokenize again"):
        TokenStore(tmp_path / "s").verify()


class TestLoader:
    def test_an_epoch_visits_every_image_once_and_goes_on_from_any_step(self, tmp_path: Path) -> None:
        make_store(tmp_path / "s")
        loader = TokenLoader(dataset=TokenDataset(root=tmp_path / "s"), batch_size=4)
        batches = loader.train_batches(seed=1)
        some = [next(batches) for _ in range(4)]
        assert sorted(some[0]["key"] + some[1]["key"]) == [f"image-{i}" for i in range(8)]
        assert sorted(some[2]["key"] + some[3]["key"]) == [f"image-{i}" for i in range(8)]
        resumed = next(loader.train_batches(seed=1, start_step=3))
        assert resumed["key"] == some[3]["key"]
        assert torch.equal(resumed["indices"], some[3]["indices"])

    def test_views_are_drawn_in_training_and_the_first_is_taken_in_a_pass(self, tmp_path: Path) -> None:
        expected = make_store(tmp_path / "s", counts=(8,))
        loader = TokenLoader(dataset=TokenDataset(root=tmp_path / "s"), batch_size=4)
        seen = set()
        for _, batch in zip(range(8), loader.train_batches(seed=0), strict=False):
            for key, indices in zip(batch["key"], batch["indices"], strict=True):
                views = [torch.equal(indices, expected[int(key[6:]), view]) for view in (0, 1)]
                seen.add(views.index(True))
        assert seen == {0, 1}
        passed = [b for batch in loader.pass_batches() for b in batch["indices"]]
        assert all(torch.equal(indices, expected[i, 0]) for i, indices in enumerate(passed))

    def test_a_batch_that_cannot_be_divided_is_refused(self, tmp_path: Path) -> None:
        make_store(tmp_path / "s")
        loader = TokenLoader(dataset=TokenDataset(root=tmp_path / "s"), batch_size=9)
        with pytest.raises(ValueError, match="at most the 8 images of the set, got 9"):
            loader.train_batches(seed=0)


def states(directory: Path) -> Any:
    """Opens and verifies a store, and returns all of its content."""
    store = TokenStore(directory)
    store.verify()
    rows = range(len(store))
    return store.manifest, [
        (store.key(i), store.label(i), [store.read(i, v).tolist() for v in range(store.views)]) for i in rows
    ]


@pytest.mark.parametrize("name", [MANIFEST, "shard_00000.bin", "shard_00000.notes"])
@pytest.mark.parametrize("has_checksum", [True, False])
def test_any_changed_byte_is_a_damaged_store_or_changes_nothing(
    tmp_path: Path, name: str, has_checksum: bool
) -> None:
    make_store(tmp_path, counts=(2, 1), views=1)
    if not has_checksum:  # an older manifest: there must be no KeyError, and never another number of images
        manifest = json.loads((tmp_path / MANIFEST).read_text())
        del manifest["manifest_sha256"]
        (tmp_path / MANIFEST).write_text(json.dumps(manifest))
    file, whole = tmp_path / name, states(tmp_path)
    content, draws = file.read_bytes(), torch.Generator().manual_seed(0)
    refused = 0
    for place in range(len(content)):
        changed = bytearray(content)
        changed[place] ^= 1 << int(torch.randint(8, (), generator=draws))
        file.write_bytes(changed)
        try:
            found = states(tmp_path)
        except TokenStoreError:
            refused += 1
            continue
        if has_checksum:
            found[0]["manifest_sha256"] = whole[0]["manifest_sha256"]
            names = {key for key in found[0] if key not in whole[0]}
            assert {key: value for key, value in found[0].items() if key not in names} == whole[0]
        assert [row[0] for row in found[1]] == [row[0] for row in whole[1]]
    assert refused > (0.8 if has_checksum else 0.2) * len(content)


@pytest.mark.parametrize(
    "changes",
    [
        {"shards": None}, {"shards": [1]}, {"shards": [{}]}, {"axes": [0]}, {"axes": "34"}, {"axes": [True, 2]},
        {"views": 0}, {"views": -1}, {"views": "2"}, {"bytes_per_index": 3}, {"vocabulary_size": 0},
        {"vocabulary_size": 2**40}, {"vocabulary_size": 1e3}, {"class_names": "abcd"}, {"num_images": 7},
        {"tokenizer_sha256": None},
    ],
)  # fmt: skip
def test_a_manifest_that_cannot_be_is_a_damaged_store(tmp_path: Path, changes: dict[str, Any]) -> None:
    make_store(tmp_path)
    manifest = json.loads((tmp_path / MANIFEST).read_text())
    for removed in ([], list(changes)):
        wrong = {key: value for key, value in (manifest | changes).items() if key not in removed}
        wrong["manifest_sha256"] = manifest_sha256(wrong)  # so that only the entries are wrong
        (tmp_path / MANIFEST).write_text(json.dumps(wrong))
        with pytest.raises(TokenStoreError, match="was changed or damaged"):
            TokenStore(tmp_path)


@pytest.mark.parametrize("text", ["", "[]", "null", "3", "{", "[" * 10**5, '{"format": "vq-tokens-1"}'])
def test_another_file_in_place_of_a_manifest(tmp_path: Path, text: str) -> None:
    make_store(tmp_path)
    (tmp_path / MANIFEST).write_text(text)
    with pytest.raises(TokenStoreError, match="tokenize"):
        TokenStore(tmp_path)


def test_labels_that_are_no_class_are_refused(tmp_path: Path) -> None:
    make_store(tmp_path)
    notes = json.loads(zlib.decompress((tmp_path / "shard_00000.notes").read_bytes()))
    manifest = json.loads((tmp_path / MANIFEST).read_text())
    for labels, message in (([0, 1, 2, 3, 4], "expected labels below 4"), ([0], "missing or damaged"),
                            ([0, 1, 2, 3, -1], "missing or damaged"), (["0"] * 5, "missing or damaged")):  # fmt: skip
        content = zlib.compress(json.dumps(notes | {"labels": labels}).encode())
        (tmp_path / "shard_00000.notes").write_bytes(content)
        manifest["shards"][0]["notes_sha256"] = hashlib.sha256(content).hexdigest()
        manifest["manifest_sha256"] = manifest_sha256(manifest)
        (tmp_path / MANIFEST).write_text(json.dumps(manifest))
        with pytest.raises(TokenStoreError, match=message):
            TokenStore(tmp_path).verify()
