"""ParquetImages: columns, files and addresses, classes, damage, and the order in which row groups are read."""

import io
import pickle
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pytest
import torch
from parquet_files import UNEVEN, images, numbers_in, table, write, write_numbered
from PIL import Image
from pyarrow import parquet
from tar_shards import png, served

from vq.data import DataError, HashSplit, ImageLoader, ParquetImages, UndecodableImage
from vq.data.sets.sharded import parquet_table, shard_files

TOTAL = sum(map(sum, UNEVEN))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("parquet")
    write_numbered(made)
    return made


@pytest.fixture
def one(tmp_path: Path) -> Callable[..., ParquetImages]:
    """Writes a table to one file, and makes the set of its images."""

    def make(made: pa.Table, sizes: Any = None, **settings: Any) -> ParquetImages:
        return ParquetImages(files=write(tmp_path / "one.parquet", made, sizes), **settings)

    return make


def test_rows_are_those_of_the_files_in_order(folder: Path) -> None:
    dataset = ParquetImages(files=folder)
    dataset.check()
    assert numbers_in(dataset) == list(range(TOTAL))
    assert dataset.shard_sizes == (5, 3, 1, 7, 2, 4)
    assert dataset.class_names == ("a", "b", "c")
    assert [dataset.label(i) for i in range(TOTAL)] == [i % 3 for i in range(TOTAL)]
    assert [dataset.key(i) for i in (0, 7, 8, 9, 21)] == [
        "train-00000-of-00003.parquet:0",
        "train-00000-of-00003.parquet:7",
        "train-00001-of-00003.parquet:0",
        "train-00002-of-00003.parquet:0",
        "train-00002-of-00003.parquet:12",
    ]
    assert dataset.content(4) == png(4)
    assert dataset.value(20, "caption") == "number 20"
    assert dataset.size(3) == (16, 16)
    assert torch.equal(dataset.read_scaled(6, min_side=4), dataset.read(6))
    assert dataset.describe().startswith("22 images; 3 classes (a, b, c); ")
    assert dataset.describe().endswith("; 6 row groups")


@pytest.mark.parametrize("kind", ["files", "pattern", "list", "memory", "web", "copied from the web"])
def test_the_same_images_by_path_pattern_and_address(folder: Path, tmp_path: Path, kind: str) -> None:
    expected = ParquetImages(files=folder)
    names = [path.name for path in sorted(folder.iterdir())]
    with served(folder) as (address, server):
        for name in names:
            fsspec.filesystem("memory").pipe(f"/set/{name}", (folder / name).read_bytes())
        files = {
            "files": folder,
            "pattern": f"{folder}/train-*.parquet",
            "list": [folder / name for name in names],
            "memory": "memory://set/*.parquet",
            "web": [f"{address}/{name}?download=true" for name in names],
            "copied from the web": [f"{address}/{name}" for name in names],
        }[kind]
        cache_folder = tmp_path if kind == "copied from the web" else None
        dataset = ParquetImages(files=files, cache_folder=cache_folder)
        for index in (20, 0, 8, 3):
            assert dataset.key(index) == expected.key(index)
            assert dataset.label(index) == expected.label(index)
            assert torch.equal(dataset.read(index), expected.read(index))
        if kind == "web":
            assert all(range is not None for _, range in server.requests)
        if kind == "copied from the web":
            assert len(list(tmp_path.glob("*.parquet"))) == len(names)


def test_folders_are_searched_and_hidden_files_left_out(tmp_path: Path) -> None:
    made = table({"image": images([png(1)])})
    for name in ("b/0.parquet", "a/0.parquet", ".cache/0.parquet", "a/.0.parquet"):
        write(tmp_path / name, made)
    dataset = ParquetImages(files=tmp_path, label=None)
    assert [dataset.key(i) for i in range(len(dataset))] == ["a/0.parquet:0", "b/0.parquet:0"]


def arrays(shape: tuple[int, ...], dtype: str) -> np.ndarray:
    return (np.arange(np.prod(shape)).reshape(shape) % 100).astype(dtype)


@pytest.mark.parametrize(
    ("column", "settings", "pixels"),
    [
        (pa.array([png(7)], type=pa.binary()), {}, None),
        (pa.array([png(7)], type=pa.large_binary()), {}, None),
        (pa.array([{"bytes": png(7)}]), {}, None),
        (
            pa.array([arrays((3, 4), "uint8").tolist()], pa.list_(pa.list_(pa.uint8()))),
            {"channels": 1},
            (1, 3, 4),
        ),
        (
            pa.array([arrays((3, 4, 6), "uint8").tolist()], pa.list_(pa.list_(pa.list_(pa.uint8(), 6)))),
            {"channels": 6},
            (6, 3, 4),
        ),
        (
            pa.array([arrays((6, 3, 4), "int16").tolist()], pa.large_list(pa.list_(pa.list_(pa.int16())))),
            {"channels": 6, "value_range": (0, 255)},
            (6, 3, 4),
        ),
        (
            pa.array([arrays((3, 4), "float32").tolist()], pa.list_(pa.list_(pa.float32()))),
            {"channels": 1, "value_range": (0, 100)},
            (1, 3, 4),
        ),
    ],
)
def test_columns_of_images(
    one: Callable[..., ParquetImages], column: pa.Array, settings: Any, pixels: Any
) -> None:
    dataset = one(table({"image": column}), label=None, **settings)
    dataset.check()
    image = dataset.read(0)
    assert torch.equal(dataset.read(0), image)
    assert len(dataset.sha256(0)) == 64
    if pixels is None:
        assert int(image[0, 0, 0]) == 7
        return
    assert tuple(image.shape) == pixels
    assert dataset.size(0) == pixels[1:]
    with pytest.raises(DataError, match="has arrays, not encoded images"):
        dataset.content(0)
    raw = np.array(column[0].as_py(), dtype="float32")
    raw = raw[None] if raw.ndim == 2 else np.moveaxis(raw, 2, 0) if raw.shape[2] == 6 else raw
    low, high = settings.get("value_range", (0, 255))
    np.testing.assert_allclose(image.float().numpy(), (raw - low) / (high - low) * 255, atol=1e-3)


@pytest.mark.parametrize(
    ("column", "reason"),
    [
        (pa.array([[[1, 2], [3]]], pa.list_(pa.list_(pa.uint8()))), "differ in length"),
        (pa.array([[[1, None]]], pa.list_(pa.list_(pa.uint8()))), "missing values"),
        (pa.array([[[1.0]]], pa.list_(pa.list_(pa.float32()))), "no known range of values"),
        (images([None]), "the row has no image"),
        (images([None], ["/etc/passwd"]), "only the path of an image, '/etc/passwd'"),
        (images([b"no image"]), "UnidentifiedImageError"),
        (images([b""]), "empty"),
    ],
)
def test_undecodable_rows(one: Callable[..., ParquetImages], column: pa.Array, reason: str) -> None:
    dataset = one(table({"image": column}), label=None, channels=1)
    with pytest.raises(UndecodableImage, match=reason):
        dataset.read(0)


@pytest.mark.parametrize(
    ("labels", "names", "expected"),
    [
        (pa.array([2, 0, 1], pa.int64()), ("x", "y", "z"), (("x", "y", "z"), [2, 0, 1])),
        (pa.array([3, 0, 1], pa.uint8()), None, (("0", "1", "2", "3"), [3, 0, 1])),
        (pa.array(["dog", "cat", "dog"]), None, (("cat", "dog"), [1, 0, 1])),
        (pa.array(["dog", "cat", "dog"]), ("dog", "cow", "cat"), (("dog", "cow", "cat"), [0, 2, 0])),
        (pa.array(["dog", "cat", "dog"]).dictionary_encode(), None, (("cat", "dog"), [1, 0, 1])),
        (pa.array([True, False, True]), None, (("0", "1"), [1, 0, 1])),
    ],
)
@pytest.mark.parametrize("statistics", [True, False])
def test_classes(tmp_path: Path, labels: pa.Array, names: Any, expected: Any, statistics: bool) -> None:
    made = table({"image": images([png(i) for i in range(3)]), "label": labels}, names)
    path = write(tmp_path / "0.parquet", made, (2, 1), write_statistics=statistics)
    dataset = ParquetImages(files=path)
    dataset.check()
    assert (tuple(dataset.class_names), [dataset.label(i) for i in range(3)]) == expected


@pytest.mark.parametrize("statistics", [True, False])
@pytest.mark.parametrize(
    ("labels", "names", "reason"),
    [
        (pa.array([0, -1, -1]), ("x", "y"), "the label -1, which marks images whose class is not published"),
        (pa.array([0, 1, 2]), ("x", "y"), "the label 2 with 2 class names"),
        (pa.array([0, None, 1]), None, r"no value in 1 row\(s\)"),
        (pa.array([0, 1, 10**7]), None, "the label 10,000,000 with 1,000,000 classes at most"),
        (pa.array([0.0, 1.0, 2.0]), None, "the type double"),
        (pa.array([[0], [1], [2]]), None, "the type list"),
        (pa.array(["a", None, "b"]), None, "rows without a value"),
    ],
)
def test_labels_that_are_no_classes(
    tmp_path: Path, labels: pa.Array, names: Any, reason: str, statistics: bool
) -> None:
    made = table({"image": images([png(i) for i in range(3)]), "label": labels}, names)
    path = write(tmp_path / "0.parquet", made, (2, 1), write_statistics=statistics)
    with pytest.raises(DataError, match=f"'label', but it has {reason}.*None to use the set without classes"):
        ParquetImages(files=path).check()
    unlabelled = ParquetImages(files=path, label=None)
    unlabelled.check()
    assert (unlabelled.class_names, unlabelled.label(1)) == (("images",), 0)


def test_behind_an_address_the_labels_of_the_first_row_group_are_looked_at_before_training(
    tmp_path: Path,
) -> None:
    labels = pa.array([0, 1, 1, -1])
    made = table({"image": images([png(i) for i in range(4)]), "label": labels}, ("x", "y"))
    path = write(tmp_path / "0.parquet", made, (2, 2))
    with served(tmp_path) as (address, server):
        dataset = ParquetImages(files=f"{address}/0.parquet")
        dataset.check()
        requests = len(server.requests)
        assert (dataset.label(0), dataset.label(1)) == (0, 1)
        assert len(server.requests) == requests
        with pytest.raises(DataError, match="the label -1"):
            dataset.label(2)
    with pytest.raises(DataError, match="the label -1"):
        ParquetImages(files=path).check()


def test_a_text_that_is_no_declared_class(one: Callable[..., ParquetImages]) -> None:
    made = table({"image": images([png(0)]), "label": pa.array(["cow"])}, ("cat", "dog"))
    with pytest.raises(DataError, match="an unknown class"):
        one(made).label(0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"image": "img"}, r"column 'img' in .*'image' \(struct.*'label' \(int64\).*set `image`"),
        ({"image": "caption"}, "it has string; .*img2dataset"),
        ({"image": "label"}, "it has int64"),
        ({"label": "category"}, "expected a column 'category' .* or to None to use the set without classes"),
        ({"channels": 0}, "channels from 1 to 16"),
        ({"files": []}, "at least one Parquet file, got none"),
        ({"files": "/no/such.parquet"}, "/no/such.parquet: expected a shard, but it cannot be read"),
        ({"files": "ssh://host/0.parquet"}, "expected a path or an address"),
    ],
)
def test_settings_that_do_not_fit(folder: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        ParquetImages(**({"files": folder} | settings)).check()


def test_files_that_do_not_fit(folder: Path, tmp_path: Path) -> None:
    def refused(files: Any, message: str) -> None:
        with pytest.raises(DataError, match=message):
            ParquetImages(files=files).check()

    first = folder / "train-00000-of-00003.parquet"
    refused([first, first], "is given twice")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", r"files that end in .parquet in the folder .*, found none")
    content = first.read_bytes()
    for size in (0, 3, 100, len(content) - 1):
        (tmp_path / "cut.parquet").write_bytes(content[:size])
        refused([first, tmp_path / "cut.parquet"], "cut.parquet is none, or its end is missing")
    nothing = table({"image": images([]), "label": pa.array([], pa.int64())})
    refused(write(tmp_path / "nothing.parquet", nothing), "file.* without rows")
    columns = {"image": images([png(0)]), "label": pa.array(["a"])}
    refused(
        [first, write(tmp_path / "text.parquet", table(columns))], "int64 in .* and string in .*text.parquet"
    )
    columns["label"] = pa.array([0])
    other = write(tmp_path / "other.parquet", table(columns, ("other",)))
    refused([first, other], "other class names in .*other.parquet")
    missing = write(tmp_path / "missing.parquet", table({"label": pa.array([0])}))
    refused([first, missing], "and no such column in .*missing.parquet")


def damaged(folder: Path, target: Path) -> Path:
    """A copy of a file whose second row group has damaged images."""
    content = bytearray((folder / "train-00000-of-00003.parquet").read_bytes())
    start = (
        parquet.ParquetFile(folder / "train-00000-of-00003.parquet")
        .metadata.row_group(1)
        .column(0)
        .dictionary_page_offset
    )
    content[start : start + 40] = bytes(40)
    target.write_bytes(content)
    return target


def test_a_damaged_row_group_counts_as_undecodable_images(folder: Path, tmp_path: Path) -> None:
    dataset = ParquetImages(files=damaged(folder, tmp_path / "0.parquet"))
    dataset.check()
    assert [int(dataset.read(i)[0, 0, 0]) for i in range(5)] == list(range(5))
    for index in (5, 6, 7):
        with pytest.raises(UndecodableImage, match=r"0.parquet:\d: row group 1 of .* is damaged"):
            dataset.read(index)
        assert dataset.sha256(index) == ""
        assert dataset.label(index) == index % 3
    loader = ImageLoader(dataset=dataset, batch_size=4, shuffle=False, max_undecodable=0.5)
    batches = list(loader.pass_batches())
    assert [key for batch in batches for key in batch["key"]] == [f"0.parquet:{i}" for i in range(5)]
    assert [key for batch in batches for key in batch["undecodable"]] == [f"0.parquet:{i}" for i in (5, 6, 7)]


def test_any_damage_is_an_error_of_the_data(folder: Path, tmp_path: Path) -> None:
    content = (folder / "train-00002-of-00003.parquet").read_bytes()
    footer = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    draw = random.Random(0)
    for case in range(100):
        changed = bytearray(content)
        for _ in range(draw.choice((1, 20))):
            changed[draw.randrange(footer * (case % 2), len(changed))] = draw.randrange(256)
        path = tmp_path / f"{case}.parquet"
        path.write_bytes(changed)
        dataset = ParquetImages(files=path)
        try:
            dataset.check()
            for index in range(len(dataset)):
                dataset.label(index)
                try:
                    dataset.read(index)
                except UndecodableImage:
                    continue
        except DataError:
            continue


def test_a_file_that_changes_is_noticed(folder: Path, tmp_path: Path) -> None:
    content = (folder / "train-00000-of-00003.parquet").read_bytes()
    path = tmp_path / "0.parquet"
    path.write_bytes(content)
    dataset = ParquetImages(files=path)
    dataset.read(0)
    path.write_bytes(content + b" ")
    dataset.read(1)  # of a row group that is in memory
    with pytest.raises(DataError, match="must not change"):
        dataset.read(6)


def test_a_network_that_fails_does_not_make_images_undecodable(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shard_files, "_ATTEMPTS", 2)
    with served(folder) as (address, server):
        dataset = ParquetImages(files=f"{address}/train-00000-of-00003.parquet")
        dataset.check()
        server.failures = 1
        assert torch.equal(dataset.read(6), ParquetImages(files=folder).read(6))
        server.failures = 100
        with pytest.raises(DataError, match="cannot be read after"):
            dataset.read(0)


def test_pickles_in_extension_types_are_not_loaded(one: Callable[..., ParquetImages], tmp_path: Path) -> None:
    class Payload:
        def __reduce__(self) -> Any:
            return Path.touch, (tmp_path / "executed",)

    field = pa.field("image", pa.binary()).with_metadata(
        {
            "ARROW:extension:name": "arrow.py_extension_type",
            "ARROW:extension:metadata": pickle.dumps(Payload()),
        }
    )
    made = pa.Table.from_arrays([pa.array([png(3)], pa.binary())], schema=pa.schema([field]))
    dataset = one(made, label=None)
    assert numbers_in(dataset) == [3]
    assert not (tmp_path / "executed").exists()


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """More row groups than are shuffled together."""
    made = tmp_path_factory.mktemp("many")
    write_numbered(made, [(3, 1, 4, 2)] * 10)
    return made


@pytest.mark.parametrize("workers", [0, 2])
def test_an_epoch_has_every_image_once_and_resumes_exactly(many: Path, workers: int) -> None:
    loader = ImageLoader(dataset=ParquetImages(files=many), batch_size=10, num_workers=workers)

    def batches(start: int, count: int) -> list[tuple[list[str], list[int]]]:
        found = loader.train_batches(seed=5, start_step=start)
        return [
            (batch["key"], batch["image"][:, 0, 0, 0].tolist())
            for batch, _ in zip(found, range(count), strict=False)
        ]

    whole = batches(0, 15)
    assert whole[7:] == batches(7, 8)
    numbers = [number for _, shown in whole[:10] for number in shown]
    assert sorted(numbers) == list(range(100))
    assert numbers != sorted(numbers)


def test_ranks_read_disjoint_parts(many: Path, on_ranks: Callable[..., list[Any]]) -> None:
    loader = ImageLoader(dataset=ParquetImages(files=many), batch_size=10)

    def keys() -> list[list[str]]:
        found = loader.train_batches(seed=5)
        return [batch["key"] for batch, _ in zip(found, range(12), strict=False)]

    alone = keys()
    first, second = on_ranks(2, keys)
    assert [a + b for a, b in zip(first, second, strict=True)] == alone


def test_training_reads_each_row_group_about_once_per_epoch(
    many: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[tuple[int, str]] = []
    original = parquet_table.ParquetTable._read
    monkeypatch.setattr(
        parquet_table.ParquetTable,
        "_read",
        lambda self, shard, column: (reads.append((shard, column)), original(self, shard, column))[1],
    )
    dataset = ParquetImages(files=many)
    loader = ImageLoader(dataset=dataset, batch_size=10)
    for index in loader.order(seed=0, epoch=0).tolist():
        dataset.read(index)
    assert len(reads) == len(dataset.shard_sizes or ()) == 40


def test_workers_are_not_sent_what_was_read(one: Callable[..., ParquetImages]) -> None:
    noise = io.BytesIO()
    Image.effect_noise((100, 100), 80).save(noise, "PNG")
    dataset = one(table({"image": images([noise.getvalue()])}), label=None)
    expected = dataset.read(0)
    sent = pickle.dumps(dataset)
    assert noise.getvalue() not in sent
    assert torch.equal(pickle.loads(sent).read(0), expected)


def test_large_row_groups_are_reported(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(parquet_table, "_LARGE_BYTES", 1000)
    len(ParquetImages(files=folder))
    assert "row groups are large" in caplog.text


def test_validation_images_are_set_aside_by_the_hash_of_their_keys(many: Path) -> None:
    whole = ParquetImages(files=many)
    train, val = (HashSplit(dataset=whole, split=split, val_fraction=0.2) for split in ("train", "val"))
    train.check()
    assert sorted(numbers_in(train) + numbers_in(val)) == list(range(100))
    assert 10 <= len(val) <= 30
    assert sum(train.shard_sizes or ()) == len(train)
    assert val.class_names == ("a", "b", "c")
    fewer = HashSplit(dataset=ParquetImages(files=sorted(many.iterdir())[:5]), split="val", val_fraction=0.2)
    assert numbers_in(fewer) == [number for number in numbers_in(val) if number < 50]
    with pytest.raises(DataError, match="split 'train' or 'val'"):
        HashSplit(dataset=whole, split="test")
    with pytest.raises(DataError, match="val_fraction above 0 and below 1"):
        HashSplit(dataset=whole, split="val", val_fraction=1.0)


def test_a_large_jpeg_is_decoded_at_a_lower_resolution(one: Callable[..., ParquetImages]) -> None:
    content = io.BytesIO()
    Image.linear_gradient("L").resize((320, 240)).convert("RGB").save(content, "JPEG")
    dataset = one(table({"image": images([content.getvalue()])}), label=None)
    assert dataset.size(0) == (240, 320)
    assert tuple(dataset.read(0).shape) == (3, 240, 320)
    _, height, width = dataset.read_scaled(0, min_side=60).shape
    assert 60 <= height < 240
    assert width * 3 == height * 4
