"""SATIN on a small copy of its layout: sub-sets as Parquet files, each with its own labels."""

import io
import itertools
import json
from pathlib import Path

import fsspec
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

from vq.data import SATIN, DataError, ImageLoader
from vq.data.sets.published.satin import SATIN_SUBSETS
from vq.data.sets.sharded import parquet_table
from vq.data.sets.sharded.parquet_table import ParquetTable

CLASS = {"_type": "ClassLabel"}
FEATURES = {
    "EuroSAT": {"label": CLASS | {"names": ["forest", "river"]}},
    "MultiScene": {"label": {"feature": CLASS | {"names": ["farmland", "bridge"]}, "_type": "Sequence"}},
    "RSI-CB256": {
        "label_1": CLASS | {"names": ["transportation", "woodland"]},
        "label_2": CLASS | {"names": ["parking lot", "avenue", "forest"]},
    },
}
COUNTS = {"EuroSAT": 25, "MultiScene": 12, "RSI-CB256": 20}


def png(value: int) -> dict:
    content = io.BytesIO()
    Image.fromarray(np.full((6, 8, 3), value, np.uint8)).save(content, "PNG")
    return {"bytes": content.getvalue(), "path": None}


def table(name: str) -> pyarrow.Table:
    """The rows of a sub-set, as the library `datasets` uploads them: image i has the value i."""
    columns = {"image": [png(i) for i in range(COUNTS[name])]}
    for column, feature in FEATURES[name].items():
        one = "names" in feature
        names = feature["names"] if one else feature["feature"]["names"]
        columns[column] = [i % len(names) if one else [0, 1] for i in range(COUNTS[name])]
    features = {"image": {"_type": "Image"}} | FEATURES[name]
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    return pyarrow.table(columns).replace_schema_metadata(metadata)


def write_copy(root: Path) -> Path:
    """Each of three sub-sets is in files of another layout: of a repository, of its conversion, and of no folder."""
    for name, file in (("EuroSAT", "data/train-{}-of-00002-26e80b.parquet"), ("MultiScene", "train/{}.parquet"),
                       ("RSI-CB256", "part-{}.parquet")):  # fmt: skip
        rows = table(name)
        for number, part in enumerate((rows.slice(0, 11), rows.slice(11))):
            path = root / name / file.format(f"{number:05d}")
            path.parent.mkdir(parents=True, exist_ok=True)
            pyarrow.parquet.write_table(part, path, row_group_size=5)
    return root


def keys(dataset):
    return [dataset.key(i) for i in range(len(dataset))]


def test_every_tenth_image_of_each_subset_is_for_validation(tmp_path):
    write_copy(tmp_path)
    (tmp_path / "EuroSAT" / ".cache").mkdir()
    (tmp_path / "EuroSAT" / ".cache" / "partial.parquet").write_bytes(b"what `hf download` has not finished")
    train, val = (SATIN(root=tmp_path, split=split, subsets=list(COUNTS)) for split in ("train", "val"))
    assert keys(val) == ["EuroSAT/0", "EuroSAT/12", "MultiScene/0", "RSI-CB256/0", "RSI-CB256/10"]
    everything = [f"{name}/{i}" for name, count in COUNTS.items() for i in range(count)]
    assert sorted(keys(train) + keys(val)) == sorted(everything)
    for dataset in (train, val):
        dataset.check()
        assert dataset.channels == 3
        for i, key in enumerate(keys(dataset)):
            assert dataset.read(i).unique().tolist() == [int(key.partition("/")[2])]
        assert dataset.size(0) == (6, 8)
        assert len(dataset.sha256(0)) == 64
    assert val.shard_sizes == [1, 1, 1, 1, 1]
    assert sum(train.shard_sizes) == len(train)


def test_classes_are_named_after_their_subset(tmp_path):
    write_copy(tmp_path)
    dataset = SATIN(root=tmp_path, subsets=list(COUNTS))
    assert dataset.class_names == (
        "EuroSAT/forest", "EuroSAT/river", "MultiScene/any",
        "RSI-CB256/parking lot", "RSI-CB256/avenue", "RSI-CB256/forest",
    )  # fmt: skip
    for i, key in enumerate(keys(dataset)):
        name, _, row = key.partition("/")
        first, count = {"EuroSAT": (0, 2), "MultiScene": (2, 1), "RSI-CB256": (3, 3)}[name]
        assert dataset.label(i) == first + int(row) % count
    assert SATIN(root=tmp_path, subsets=["RSI-CB256"]).class_names[0] == "RSI-CB256/parking lot"


def test_a_finer_label_that_some_images_lack_is_not_used(tmp_path):
    write_copy(tmp_path)
    for file in (tmp_path / "RSI-CB256").iterdir():
        rows = pyarrow.parquet.read_table(file)
        position = rows.schema.names.index("label_2")
        lacking = pyarrow.array([None if i == 3 else 1 for i in range(len(rows))], pyarrow.int64())
        pyarrow.parquet.write_table(rows.set_column(position, "label_2", lacking), file)
    assert SATIN(root=tmp_path, subsets=["RSI-CB256"]).class_names == (
        "RSI-CB256/transportation",
        "RSI-CB256/woodland",
    )


def test_the_hub_is_read_like_a_folder(tmp_path):
    """Each sub-set is a repository beside SATIN; fsspec's files in memory take the place of the hub."""
    write_copy(tmp_path)
    memory = fsspec.filesystem("memory")
    memory.put(f"{tmp_path}/", "/datasets/owner", recursive=True)
    try:
        local = SATIN(root=tmp_path, subsets=list(COUNTS))
        for root in ("memory://datasets/owner/SATIN", "memory://datasets/owner/"):
            dataset = SATIN(root=root, subsets=list(COUNTS))
            assert keys(dataset) == keys(local)
            assert [dataset.sha256(i) for i in (0, 30)] == [local.sha256(i) for i in (0, 30)]
    finally:
        memory.rm("/datasets", recursive=True)


def test_workers_read_the_same_batches_and_a_run_resumes(tmp_path):
    write_copy(tmp_path)

    def batches(workers, start_step):
        dataset = SATIN(root=tmp_path, subsets=list(COUNTS))
        loader = ImageLoader(dataset=dataset, batch_size=10, num_workers=workers)
        found = list(itertools.islice(loader.train_batches(seed=1, start_step=start_step), 8 - start_step))
        assert all(
            b["image"][:, 0, 0, 0].tolist() == [int(k.partition("/")[2]) for k in b["key"]] for b in found
        )
        return [(batch["key"], batch["label"].tolist()) for batch in found]

    whole = batches(0, 0)
    assert batches(2, 3) == whole[3:]
    epoch = [key for names, _ in whole[:5] for key in names]
    assert len(set(epoch)) == 50, "an epoch repeats no image"


def test_a_process_keeps_as_many_row_groups_of_all_subsets_as_of_one(tmp_path, monkeypatch):
    write_copy(tmp_path)
    dataset = SATIN(root=tmp_path, subsets=list(COUNTS))
    index = {name: keys(dataset).index(f"{name}/1") for name in COUNTS}
    read, real = [], ParquetTable._read

    def recorded(table, shard, column):
        read.append(
            next(name for name, part in zip(COUNTS, dataset.whole.parts, strict=True) if part.table is table)
        )
        return real(table, shard, column)

    monkeypatch.setattr(parquet_table, "_KEPT", 2)
    monkeypatch.setattr(ParquetTable, "_read", recorded)
    for name in ("EuroSAT", "MultiScene", "EuroSAT", "RSI-CB256", "EuroSAT", "MultiScene"):
        dataset.read(index[name])
    assert read == ["EuroSAT", "MultiScene", "RSI-CB256", "MultiScene"], (
        "the one read last longest ago is dropped"
    )


def test_the_default_folder_follows_the_environment(monkeypatch):
    monkeypatch.setenv("VQ_DATA", "/sets")
    assert SATIN().root == "/sets/satin"
    assert SATIN(root="hf://datasets/jonathan-roberts1/SATIN").root == "hf://datasets/jonathan-roberts1/SATIN"


def test_all_27_subsets_are_read_unless_named(tmp_path):
    assert len(set(SATIN_SUBSETS)) == 27
    for name in SATIN_SUBSETS:
        (tmp_path / name / "data").mkdir(parents=True)
        rows = table("EuroSAT").slice(0, 3)
        pyarrow.parquet.write_table(rows, tmp_path / name / "data" / "train-00000-of-00001.parquet")
    (tmp_path / "NASC-TG2").rename(tmp_path / "NaSC-TG2")  # as the repository is named
    assert keys(SATIN(root=tmp_path, split="val")) == [f"{name}/0" for name in SATIN_SUBSETS]
    (tmp_path / "GID" / "data" / "train-00000-of-00001.parquet").unlink()
    with pytest.raises(
        DataError,
        match=r"each of 27 sub-sets in .*, found none for GID; get them with `hf download .*/GID --repo",
    ):
        SATIN(root=tmp_path).check()


def test_bad_settings_are_refused():
    with pytest.raises(DataError, match=r"there is no sub-set 'Eurosat'; did you mean 'EuroSAT'\?"):
        SATIN(subsets=["Eurosat"])
    for subsets in ([], ["EuroSAT", "EuroSAT"]):
        with pytest.raises(DataError, match="expected one or more different subsets"):
            SATIN(subsets=subsets)
    with pytest.raises(DataError, match="expected split 'train' or 'val', got 'test'"):
        SATIN(split="test")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (pyarrow.table({"label": [0, 1]}), r"SATIN EuroSAT: expected a column 'image'"),
        (pyarrow.table({"image": [png(0)], "label": [0]}), r"num_val from 1 to 1 for a set of 1 images"),
        (
            pyarrow.table({"image": pyarrow.array([], pyarrow.binary())}),
            r"SATIN EuroSAT: expected at least 1 row",
        ),
    ],
)
def test_bad_files_are_refused(tmp_path, rows, message):
    (tmp_path / "EuroSAT").mkdir()
    file = tmp_path / "EuroSAT" / "0000.parquet"
    pyarrow.parquet.write_table(rows, file)
    with pytest.raises(DataError, match=message):
        SATIN(root=tmp_path, subsets=["EuroSAT"]).check()
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(
        DataError, match=r"SATIN EuroSAT: expected a Parquet file, but .*0000.parquet is none"
    ):
        SATIN(root=tmp_path, subsets=["EuroSAT"]).check()
