"""LAION-Aesthetics on small copies of the three output formats of img2dataset."""

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

from vq.data import DataError, LAIONAesthetics

FAILED = {"000000001", "000010002"}
KEYS = [f"{shard:05d}{row:04d}" for shard in (0, 1, 2) for row in range(4)]
"""Three shards of four images, of which two could not be downloaded."""


def order(form: str) -> list[str]:
    """The keys of the images that were downloaded: in tars and tables in the order in which they arrived."""
    arrived = KEYS if form == "files" else sorted(KEYS, key=lambda key: (key[:5], -int(key)))
    return [key for key in arrived if key not in FAILED]


def jpeg(value: int) -> bytes:
    content = io.BytesIO()
    Image.fromarray(np.full((8, 10, 3), value, np.uint8)).save(content, "JPEG")
    return content.getvalue()


def record(key: str) -> dict:
    """What img2dataset writes about an image, in a JSON file and in a row of Parquet."""
    failed = key in FAILED
    return {
        "url": f"https://example.org/{key}.jpg",
        "caption": f"picture {key} ü",
        "key": key,
        "status": "failed_to_download" if failed else "success",
        "error_message": "HTTP Error 404: Not Found" if failed else None,
        "width": None if failed else 10,
        "height": None if failed else 8,
    }


def write_copy(root: Path, form: str) -> Path:
    """Writes what `img2dataset --output_format FORM` of version 1.47 wrote when it was run."""
    root.mkdir(parents=True, exist_ok=True)
    for shard in (0, 1, 2):
        keys = [key for key in reversed(KEYS) if int(key[:5]) == shard]
        rows = [record(key) for key in keys]
        if form == "parquet":
            for row in rows:
                row["jpg"] = jpeg(KEYS.index(row["key"])) if row["status"] == "success" else None
        table = pyarrow.Table.from_pylist(rows)
        pyarrow.parquet.write_table(table, root / f"{shard:05d}.parquet", row_group_size=2)
        (root / f"{shard:05d}_stats.json").write_text(json.dumps({"count": 4, "successes": 4}))
        if form == "parquet":
            continue
        files = {}
        for key in keys:
            if key not in FAILED:
                files[f"{key}.jpg"] = jpeg(KEYS.index(key))
                files[f"{key}.txt"] = record(key)["caption"].encode()
                files[f"{key}.json"] = json.dumps(record(key), indent=4).encode()
        if form == "files":
            (root / f"{shard:05d}").mkdir()
            for name, content in files.items():
                (root / f"{shard:05d}" / name).write_bytes(content)
        else:
            with tarfile.open(root / f"{shard:05d}.tar", "w") as tar:
                for name, content in files.items():
                    member = tarfile.TarInfo(name)
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))
    return root


def keys(dataset):
    return [dataset.key(i) for i in range(len(dataset))]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("VQ_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("form", ["files", "webdataset", "parquet"])
def test_the_three_formats_give_the_same_images(tmp_path, form):
    root = write_copy(tmp_path / "laion", form)
    train, val = (LAIONAesthetics(root=root, split=split, num_val=3) for split in ("train", "val"))
    assert keys(train) + keys(val) == order(form)
    assert len(val) == 3
    for dataset in (train, val):
        dataset.check()
        assert dataset.class_names == ("laion_aesthetics",)
        for i, key in enumerate(keys(dataset)):
            assert dataset.caption(i) == f"picture {key} ü"
            assert dataset.label(i) == 0
            assert dataset.size(i) == (8, 10)
            assert dataset.read(i).shape == (3, 8, 10)
            assert abs(int(dataset.read(i)[0, 0, 0]) - KEYS.index(key)) <= 1
            assert dataset.read_scaled(i, min_side=8).shape == (3, 8, 10)
    hashes = [LAIONAesthetics(root=root, num_val=3).sha256(i) for i in range(2)]
    assert len(set(hashes)) == 2
    assert all(len(each) == 64 for each in hashes)


def test_shards_are_divided_with_the_split(tmp_path):
    train, val = (
        LAIONAesthetics(root=write_copy(tmp_path / "tars", "webdataset"), split="train", num_val=5),
        LAIONAesthetics(root=tmp_path / "tars", split="val", num_val=5),
    )
    assert (train.shard_sizes, val.shard_sizes) == ([3, 2], [1, 4])
    rows = LAIONAesthetics(root=write_copy(tmp_path / "rows", "parquet"), split="val", num_val=5)
    assert rows.shard_sizes == [1, 2, 2], "of the row groups of two rows"
    assert LAIONAesthetics(root=write_copy(tmp_path / "files", "files"), num_val=5).shard_sizes is None


@pytest.mark.parametrize("form", ["files", "webdataset", "parquet"])
def test_a_download_without_captions_has_empty_ones(tmp_path, form):
    root = write_copy(tmp_path / "laion", form)
    for file in root.rglob("*.txt"):
        file.unlink()
    if form == "webdataset":
        (root / "00000.tar").unlink()
        with tarfile.open(root / "00000.tar", "w") as tar:
            member = tarfile.TarInfo("000000000.jpg")
            member.size = len(jpeg(0))
            tar.addfile(member, io.BytesIO(jpeg(0)))
    if form == "parquet":
        for file in root.glob("*.parquet"):
            pyarrow.parquet.write_table(pyarrow.parquet.read_table(file).drop_columns("caption"), file)
    assert LAIONAesthetics(root=root, num_val=3).caption(0) == ""


def test_the_default_folder_follows_the_environment(monkeypatch):
    monkeypatch.setenv("VQ_DATA", "/sets")
    assert LAIONAesthetics().root == Path("/sets/laion_aesthetics")


def test_other_folders_are_refused(tmp_path):
    (tmp_path / "train").mkdir()
    for root in (tmp_path, tmp_path / "missing"):
        with pytest.raises(
            DataError, match=r"expected shards of img2dataset in .*, such as 00000.tar, a folder"
        ):
            LAIONAesthetics(root=root).check()
    write_copy(tmp_path, "files")
    write_copy(tmp_path / "tars", "webdataset")
    (tmp_path / "tars/00001.tar").rename(tmp_path / "00001.tar")
    with pytest.raises(DataError, match=r"of one format in .*, got tars \(00001.tar\) and folders \(00000\)"):
        LAIONAesthetics(root=tmp_path).check()


def test_the_metadata_of_other_shards_are_not_images(tmp_path):
    root = write_copy(tmp_path / "laion", "webdataset")
    for tar in root.glob("*.tar"):
        tar.unlink()
    with pytest.raises(DataError, match=r"expected a column 'jpg' .* get the tars or folders beside them"):
        LAIONAesthetics(root=root).check()


def test_a_tar_that_was_cut_short_is_refused(tmp_path):
    root = write_copy(tmp_path / "laion", "webdataset")
    with (root / "00002.tar").open("r+b") as file:
        file.truncate(3000)
    with pytest.raises(DataError, match=r"00002.tar: cut short or damaged"):
        LAIONAesthetics(root=root, num_val=3).check()


@pytest.mark.parametrize("form", ["files", "webdataset", "parquet"])
def test_a_set_must_have_more_images_than_are_for_validation(tmp_path, form):
    root = write_copy(tmp_path / "laion", form)
    with pytest.raises(
        DataError, match=r"num_val from 1 to 9 for a set of 10 images, got 25,000; set num_val"
    ):
        LAIONAesthetics(root=root).check()
    with pytest.raises(DataError, match="expected split 'train' or 'val', got 'all'"):
        LAIONAesthetics(split="all")
