"""Token stores in other readers' formats: what comes back is what was there, and nothing is overwritten."""

import io
import json
import math
import re
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest
import torch
from commands import environment

from vq import tokens
from vq.data.stores.token_manifest import manifest_sha256, write_manifest
from vq.data.stores.token_shards import ShardFiles, bytes_per_index, write_shard
from vq.data.stores.token_store import TokenStore, TokenStoreError
from vq.errors import UserError
from vq.interop.llamagen_tokens import Grid, import_llamagen
from vq.interop.token_files import WRITERS, export_tokens

KEYS = ["a/b.c.png", "a/b_c.png", "../ä 1.jpeg", "n01/x", "5", "__x__", "y.cls"]
AXES = (2, 3, 2)


def make_store(
    directory: Path,
    *,
    views: int = 2,
    vocabulary: int = 70_000,
    keys: list[str] = KEYS,
    axes: tuple[int, ...] = AXES,
) -> TokenStore:
    """Three shards, the second without images: other readers fail on an empty file. The largest index is there."""
    directory.mkdir()
    width, first = bytes_per_index(vocabulary), 0
    for number, count in enumerate((4, 0, len(keys) - 4)):
        indices = torch.randint(vocabulary, (count, views, *axes))
        indices.view(-1)[:1] = vocabulary - 1
        write_shard(
            ShardFiles(directory=directory, number=number),
            indices,
            labels=[(first + row) % 3 for row in range(count)],
            keys=keys[first : first + count],
            undecodable=["broken"] if number else [],
            width=width,
        )
        first += count
    manifest: dict[str, Any] = {
        "tokenizer_sha256": "abc",
        "vocabulary_size": vocabulary,
        "bytes_per_index": width,
        "axes": list(axes),
        "views": views,
        "class_names": ["cat", "dog", "owl"],
    }
    write_manifest(directory, manifest, 3)
    return TokenStore(directory)


def everything(store: TokenStore) -> torch.Tensor:
    return torch.stack([store.read(i, v) for i in range(len(store)) for v in range(store.views)])


def labels(store: TokenStore) -> list[int]:
    return [store.label(i) for i in range(len(store))]


@pytest.mark.parametrize("vocabulary", [16384, 2**31 + 5])
def test_parquet_gives_back_keys_labels_views_and_indices(tmp_path: Path, vocabulary: int) -> None:
    pytest.importorskip("pyarrow")
    from pyarrow import parquet

    store = make_store(tmp_path / "s", vocabulary=vocabulary)
    assert export_tokens(tmp_path / "s", "parquet", tmp_path / "out") == 7
    files = sorted((tmp_path / "out").iterdir())
    assert [file.name for file in files] == [f"shard_{i:05d}.parquet" for i in range(2)]
    tables = [parquet.read_table(file) for file in files]
    kind = "int32" if vocabulary <= 2**31 else "int64"
    assert {str(table.schema.field("indices").type.value_type) for table in tables} == {kind}
    rows = [row for table in tables for row in table.to_pylist()]
    assert [row["key"] for row in rows] == [key for key in KEYS for _ in range(2)]
    assert [row["view"] for row in rows] == [0, 1] * 7
    assert [row["label"] for row in rows] == [label for label in labels(store) for _ in range(2)]
    assert torch.equal(torch.tensor([row["indices"] for row in rows]).view(-1, *AXES), everything(store))
    for table in tables:
        said = json.loads(table.schema.metadata[b"vq_tokens"])
        assert (said["axes"], said["tokenizer_sha256"]) == (list(AXES), "abc")


@pytest.mark.filterwarnings("ignore")  # of datasets itself
def test_datasets_reads_the_parquet_files(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    store = make_store(tmp_path / "s")
    export_tokens(tmp_path / "s", "parquet", tmp_path / "out")
    files = [str(file) for file in sorted((tmp_path / "out").glob("*.parquet"))]
    loaded = datasets.load_dataset("parquet", data_files=files, cache_dir=str(tmp_path / "cache"))["train"]
    assert torch.equal(torch.tensor(loaded["indices"][:]).view(-1, *AXES), everything(store))


def test_webdataset_members_are_safe_and_complete(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s")
    export_tokens(tmp_path / "s", "webdataset", tmp_path / "out")
    found, place = [], 0
    for number, count in enumerate((4, 3)):
        with tarfile.open(tmp_path / "out" / f"shard-{number:05d}.tar") as tar:
            names = tar.getnames()
            assert len(names) == 2 * count
            for name in names[1::2]:
                assert "/" not in name
                assert name.count(".") == 2
                key = name.removesuffix(".indices.npy")
                assert unquote(key) == KEYS[place]
                label = tar.extractfile(f"{key}.cls")
                codes = tar.extractfile(name)
                assert label is not None
                assert codes is not None
                assert int(label.read()) == store.label(place)
                found.append(np.load(io.BytesIO(codes.read())))
                place += 1
    assert found[0].dtype == np.int32
    assert torch.equal(torch.from_numpy(np.concatenate(found)), everything(store))
    assert json.loads((tmp_path / "out" / "tokens.json").read_text())["class_names"] == ["cat", "dog", "owl"]
    export_tokens(tmp_path / "s", "webdataset", tmp_path / "again")
    for file in (tmp_path / "out").iterdir():
        assert (tmp_path / "again" / file.name).read_bytes() == file.read_bytes()


@pytest.mark.filterwarnings("ignore")  # of webdataset itself
def test_webdataset_reads_them(tmp_path: Path) -> None:
    webdataset = pytest.importorskip("webdataset")
    store = make_store(tmp_path / "s")
    export_tokens(tmp_path / "s", "webdataset", tmp_path / "out")
    files = [str(file) for file in sorted((tmp_path / "out").glob("*.tar"))]
    samples = list(webdataset.WebDataset(files, shardshuffle=False).decode())
    assert [unquote(sample["__key__"]) for sample in samples] == KEYS
    assert [sample["cls"] for sample in samples] == labels(store)
    assert torch.equal(
        torch.from_numpy(np.concatenate([sample["indices.npy"] for sample in samples])), everything(store)
    )


def test_llamagen_gives_back_an_equal_store_but_for_the_keys(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s")
    export_tokens(tmp_path / "s", "llamagen", tmp_path / "codes", name="birds256")
    for row in range(7):  # as LlamaGen's own reader opens them
        codes = np.load(tmp_path / "codes" / "birds256_codes" / f"{row}.npy")
        label = np.load(tmp_path / "codes" / "birds256_labels" / f"{row}.npy")
        assert (codes.shape, codes.dtype, label.shape) == ((1, 2, math.prod(AXES)), np.int64, (1,))
        assert codes[:, 1].tolist() == [store.read(row, 1).flatten().tolist()]
    assert (
        tokens.main(
            ["import", str(tmp_path / "codes"), "--from", "llamagen", "--out", str(tmp_path / "back")]
        )
        == 7
    )
    back = TokenStore(tmp_path / "back")
    back.verify()
    assert torch.equal(everything(back), everything(store))
    assert labels(back) == labels(store)
    assert [back.key(row) for row in range(7)] == [str(row) for row in range(7)]
    for name in ("tokenizer_sha256", "vocabulary_size", "bytes_per_index", "axes", "views", "class_names"):
        assert back.manifest[name] == store.manifest[name]


def test_llamagens_own_files_need_no_notes(tmp_path: Path) -> None:
    folders = [tmp_path / "imagenet256_codes", tmp_path / "imagenet256_labels"]
    values = torch.randint(16384, (1030, 2, 16))
    for folder in folders:
        folder.mkdir()
    for row, codes in enumerate(values):
        np.save(folders[0] / f"{row}.npy", codes[None].numpy())
        np.save(folders[1] / f"{row}.npy", np.array([row % 10]))
    import_llamagen(tmp_path, tmp_path / "store")
    store = TokenStore(tmp_path / "store")
    store.verify()
    assert (store.axes, store.width, store.manifest["vocabulary_size"], len(store.shards)) == (
        (4, 4),
        2,
        16384,
        2,
    )
    assert torch.equal(everything(store), values.view(-1, 4, 4))
    assert labels(store) == [row % 10 for row in range(1030)]
    assert len(store.manifest["class_names"]) == 10
    grid = Grid(axes=(2, 8), vocabulary_size=100_000)
    import_llamagen(tmp_path, tmp_path / "wide", grid)
    wide = TokenStore(tmp_path / "wide")
    assert (wide.axes, wide.width) == ((2, 8), 3)
    assert torch.equal(everything(wide).flatten(1), everything(store).flatten(1))
    with pytest.raises(UserError, match=r"expected a grid of 16 indices, got 3 x 5; give --grid"):
        import_llamagen(tmp_path, tmp_path / "bad", Grid(axes=(3, 5)))
    with pytest.raises(UserError, match=r"expected a --vocabulary-size of 1 to 2\^32, got 0"):
        import_llamagen(tmp_path, tmp_path / "bad", Grid(vocabulary_size=0))
    with pytest.raises(
        UserError, match=r"0\.npy: expected indices in \[0, 3\), got .*give --vocabulary-size"
    ):
        import_llamagen(tmp_path, tmp_path / "bad", Grid(vocabulary_size=3))
    assert not list(tmp_path.glob("bad*"))


ARRAYS = {
    "pickle": ("x_codes/2.npy", np.array([{}])),
    "float": ("x_codes/2.npy", np.zeros((1, 2, 12))),
    "shape": ("x_codes/2.npy", np.zeros((1, 1, 12), dtype=np.int64)),
    "flat": ("x_codes/0.npy", np.zeros(12, dtype=np.int64)),
    "negative": ("x_codes/2.npy", np.full((1, 2, 12), -1)),
    "label": ("x_labels/2.npy", np.array([3])),
}


def spoil(folder: Path, how: str) -> None:
    codes = folder / "x_codes"
    if how in ARRAYS:
        name, content = ARRAYS[how]
        np.save(folder / name, content, allow_pickle=True)
    elif how == "gap":
        (codes / "3.npy").unlink()
    elif how == "counts":
        (folder / "x_labels" / "6.npy").unlink()
    elif how == "empty":
        for file in codes.iterdir():
            file.unlink()
    elif how == "cut":
        (codes / "2.npy").write_bytes((codes / "2.npy").read_bytes()[:-8])
    elif how == "axes":
        (folder / "tokens.json").write_text('{"axes": "wide"}')
    elif how == "notes":
        (folder / "tokens.json").write_text("[]")
    elif how == "two":
        (folder / "y_codes").mkdir()
        (folder / "y_labels").mkdir()


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("gap", r"x_codes: expected 0\.npy, 1\.npy, .* got 6 files without 3\.npy"),
        ("counts", r"expected as many codes as labels, got 7 and 6"),
        ("empty", r"got 0 files without 0\.npy"),
        ("cut", r"x_codes.2\.npy: cannot be read"),
        ("pickle", r"x_codes.2\.npy: cannot be read: .*Python objects"),
        ("float", r"2\.npy: expected integers, got float64"),
        ("shape", r"2\.npy: expected the shape \(1, 2, 12\) of the first file, got \(1, 1, 12\)"),
        ("flat", r"expected codes of shape \(1, views, indices\) .*, got \(12,\)"),
        ("negative", r"2\.npy: expected indices in \[0, 70000\), got -1 to -1"),
        ("label", r"x_labels.2\.npy: expected one label in \[0, 3\), got \[3\]"),
        ("axes", r"tokens\.json: cannot be read: .*repair or remove it"),
        ("notes", r"tokens\.json: cannot be read"),
        ("two", r"expected one pair of folders X_codes and X_labels .*\['x_codes', 'y_codes'\]"),
    ],
)
def test_bad_llamagen_files_are_named_and_leave_nothing(tmp_path: Path, how: str, message: str) -> None:
    make_store(tmp_path / "s")
    export_tokens(tmp_path / "s", "llamagen", tmp_path / "codes", name="x")
    spoil(tmp_path / "codes", how)
    with pytest.raises(UserError, match=message):
        import_llamagen(tmp_path / "codes", tmp_path / "back")
    assert not list(tmp_path.glob("back*"))


def test_a_damaged_store_is_not_exported(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s")
    content = bytearray(store.shards[0].tokens.read_bytes())
    content[3] ^= 1
    store.shards[0].tokens.write_bytes(bytes(content))
    with pytest.raises(TokenStoreError, match=r"shard_00000\.bin: expected the checksum"):
        export_tokens(tmp_path / "s", "webdataset", tmp_path / "out")
    with pytest.raises(UserError, match=r"shard_00000\.bin: expected the checksum"):
        tokens.main(["export", str(tmp_path / "s"), "--to", "llamagen", "--out", str(tmp_path / "out")])
    assert not list(tmp_path.glob("out*"))


@pytest.mark.parametrize("place", ["out", "out.partial"])
def test_nothing_is_overwritten(tmp_path: Path, place: str) -> None:
    make_store(tmp_path / "s")
    (tmp_path / "out").mkdir()  # an empty folder will do
    export_tokens(tmp_path / "s", "llamagen", tmp_path / "out")
    export_tokens(tmp_path / "s", "llamagen", tmp_path / "codes")
    (tmp_path / "out").rename(tmp_path / "kept")
    (tmp_path / place).mkdir()
    (tmp_path / place / "mine").touch()
    with pytest.raises(
        UserError,
        match=rf"{place}: expected a folder that is empty or does not exist, got one that holds files",
    ):
        export_tokens(tmp_path / "s", "webdataset", tmp_path / "out")
    with pytest.raises(UserError, match=rf"{place}: expected a folder that is empty or does not exist"):
        import_llamagen(tmp_path / "codes", tmp_path / "out")
    assert [file.name for file in (tmp_path / place).iterdir()] == ["mine"]


def test_a_store_without_images_is_not_exported(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s", keys=KEYS[:4])
    manifest = {**store.manifest, "shards": [], "num_images": 0}
    manifest["manifest_sha256"] = manifest_sha256(manifest)
    (tmp_path / "s" / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match=r"s: expected at least one image, got none"):
        export_tokens(tmp_path / "s", "parquet", tmp_path / "out")


def test_bad_arguments_say_what_to_do(tmp_path: Path) -> None:
    make_store(tmp_path / "s", keys=["a", "b", "c", "d", "a"])
    with pytest.raises(
        UserError, match=r"WebDataset needs unique keys, got 'a' twice; export with --to parquet"
    ):
        export_tokens(tmp_path / "s", "webdataset", tmp_path / "out")
    assert not list(tmp_path.glob("out*"))
    with pytest.raises(UserError, match=r"--to: expected one of parquet, webdataset, llamagen, got 'csv'"):
        export_tokens(tmp_path / "s", "csv", tmp_path / "out")
    with pytest.raises(UserError, match=r"expected a name of letters"):
        export_tokens(tmp_path / "s", "llamagen", tmp_path / "out", name="../x")
    for words, message in (
        ([], "required: export|import"),
        (["export", "s", "--out", "out"], "required: --to; `vq tokens export --help`"),
        (["import", "s", "--out", "out"], "required: --from"),
        (
            ["import", "s", "--from", "llamagen", "--grid", "0", "--out", "out"],
            "--grid: expected at least 1, got 0",
        ),
    ):
        with pytest.raises(UserError, match=re.escape(message)):
            tokens.main(words)
    with pytest.raises(UserError, match=r"expected a finished token store"):
        tokens.main(["export", str(tmp_path / "none"), "--to", "parquet", "--out", str(tmp_path / "out")])


def test_the_help_names_each_format() -> None:
    assert tuple(WRITERS) == tokens.FORMATS


def test_a_missing_package_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_store(tmp_path / "s")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pyarrow, which is not installed; run .*\[data\]"):
        export_tokens(tmp_path / "s", "parquet", tmp_path / "out")
    assert not list(tmp_path.glob("out*"))


def test_it_runs_as_a_script_from_any_folder_and_keeps_names_that_are_not_utf8(tmp_path: Path) -> None:
    # ImageFolder gives such names with their bytes escaped: text that every format can hold.
    keys = [r"a/x\udce4.png", "a/é \n.png", "a/ok.png", "a/p q.png", "a/p,q.png"]
    make_store(tmp_path / "s", keys=keys)
    script = Path(__file__).parents[2] / "tools" / "export_tokens.py"
    done = subprocess.run(
        [sys.executable, script, "s", "--to", "webdataset", "--out", "w"],
        cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    names: list[str] = []
    for shard in sorted((tmp_path / "w").glob("*.tar")):
        with tarfile.open(shard) as tar:
            names += [name.removesuffix(".cls") for name in tar.getnames() if name.endswith(".cls")]
    assert [unquote(name) for name in names] == keys
