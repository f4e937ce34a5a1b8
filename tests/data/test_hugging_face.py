"""HuggingFaceDataset: on disk, streamed, and from a server on this machine that answers as the hub does."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import huggingface_hub
import pytest
import torch
from hub_server import NAME, hub
from parquet_files import UNEVEN, images, numbers_in, table, write, write_numbered
from tar_shards import png

from vq.data import DataError, HuggingFaceDataset, ImageLoader, ParquetImages, UndecodableImage

TOTAL = sum(map(sum, UNEVEN))


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    datasets.disable_progress_bars()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set as the hub holds it."""
    made = tmp_path_factory.mktemp("numbers")
    write_numbered(made / "data")
    columns = {"image": images([png(n) for n in (30, 31)]), "label": [0, 2], "caption": ["x", "y"]}
    write(made / "data" / "test-00000-of-00001.parquet", table(columns, ("a", "b", "c")))
    return made


def assert_same(first: Any, second: Any) -> None:
    assert len(first) == len(second)
    assert list(first.class_names) == list(second.class_names)
    for index in range(len(first)):
        assert first.key(index) == second.key(index)
        assert first.label(index) == second.label(index)
        assert first.sha256(index) == second.sha256(index)
        assert torch.equal(first.read(index), second.read(index))


@pytest.mark.parametrize("split", ["train", "test"])
def test_downloaded_and_streamed_are_the_same(folder: Path, split: str) -> None:
    downloaded = HuggingFaceDataset(name=str(folder), split=split)
    streamed = HuggingFaceDataset(name=str(folder), split=split, streaming=True)
    for dataset in (downloaded, streamed):
        dataset.check()
    assert_same(downloaded, streamed)
    assert downloaded.key(1) == f"{split}:1"
    assert numbers_in(streamed) == (list(range(TOTAL)) if split == "train" else [30, 31])
    assert downloaded.shard_sizes is None
    assert streamed.shard_sizes == ((5, 3, 1, 7, 2, 4) if split == "train" else (2,))
    assert streamed.value(1, "caption") == downloaded.value(1, "caption")


def test_a_part_of_a_split(folder: Path) -> None:
    assert numbers_in(HuggingFaceDataset(name=str(folder), split="train[3:6]")) == [3, 4, 5]
    with pytest.raises(DataError, match="a part of a split cannot be streamed"):
        HuggingFaceDataset(name=str(folder), split="train[3:6]", streaming=True).check()


def test_a_set_that_save_to_disk_has_written(folder: Path, tmp_path: Path) -> None:
    loaded = datasets.load_dataset(str(folder))
    loaded.save_to_disk(tmp_path / "both")
    loaded["train"].select([4, 2, 9]).save_to_disk(tmp_path / "one")
    assert numbers_in(HuggingFaceDataset(name=str(tmp_path / "both"), split="test")) == [30, 31]
    one = HuggingFaceDataset(name=str(tmp_path / "one"))
    assert (numbers_in(one), [one.label(i) for i in range(3)]) == ([4, 2, 9], [1, 2, 0])
    for settings, message in (
        ({"split": "val"}, r"has the split\(s\) 'train', 'test'"),
        ({"streaming": True}, "read in place anyway; leave out streaming"),
        ({"config": "small"}, "has no configurations"),
    ):
        with pytest.raises(DataError, match=message):
            HuggingFaceDataset(name=str(tmp_path / "both"), **settings).check()


def test_arrays_of_numbers(tmp_path: Path) -> None:
    features = datasets.Features({"image": datasets.Array3D((6, 2, 3), "uint8")})
    rows = [
        [[[c * 10 + y * 3 + x + n for x in range(3)] for y in range(2)] for c in range(6)] for n in range(4)
    ]
    made = datasets.Dataset.from_dict({"image": rows}, features=features)
    made.save_to_disk(tmp_path / "saved")
    made.to_parquet(tmp_path / "arrays" / "train.parquet")
    settings: dict[str, Any] = {"label": None, "channels": 6}
    saved = HuggingFaceDataset(name=str(tmp_path / "saved"), **settings)
    streamed = HuggingFaceDataset(name=str(tmp_path / "arrays"), streaming=True, **settings)
    plain = ParquetImages(files=tmp_path / "arrays", **settings)
    for dataset in (saved, streamed, plain):
        dataset.check()
        assert [dataset.read(n).tolist() for n in range(4)] == rows


def test_images_in_folders_of_classes(tmp_path: Path) -> None:
    for name, number in (("ant/1.png", 1), ("ant/2.png", 2), ("bee/1.png", 11)):
        path = tmp_path / "insects" / "train" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(number))
    dataset = HuggingFaceDataset(name=str(tmp_path / "insects"))
    dataset.check()
    assert (numbers_in(dataset), list(dataset.class_names)) == ([1, 2, 11], ["ant", "bee"])
    assert [dataset.label(i) for i in range(3)] == [0, 0, 1]
    with pytest.raises(DataError, match="only Parquet files can be streamed, and it has imagefolder data"):
        HuggingFaceDataset(name=str(tmp_path / "insects"), streaming=True).check()
    (tmp_path / "insects" / "train" / "bee" / "1.png").unlink()
    with pytest.raises(UndecodableImage, match="cannot be read"):
        dataset.read(2)


def test_paths_in_a_table_are_read_below_its_folder_only(tmp_path: Path) -> None:
    for path in (tmp_path / "set" / "in.png", tmp_path / "out.png"):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(png(5))
    inside, outside = str(tmp_path / "set" / "in.png"), str(tmp_path / "set" / ".." / "out.png")
    column = images([None, None], [inside, outside])
    write(tmp_path / "set" / "train.parquet", table({"image": column, "label": [0, 0]}))
    dataset = HuggingFaceDataset(name=str(tmp_path / "set"))
    assert int(dataset.read(0)[0, 0, 0]) == 5
    with pytest.raises(UndecodableImage, match="outside of the data set"):
        dataset.read(1)
    with pytest.raises(UndecodableImage, match="only the path of an image"):
        HuggingFaceDataset(name=str(tmp_path / "set"), streaming=True).read(0)


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"split": "val"}, "'train', 'test'"),
        (
            {"config": "small"},
            "the split 'train' of '.*small.*' cannot be used: .*'small' not found.*check `name`",
        ),
        ({"image": "img"}, "expected a column 'img'.*set `image`"),
        ({"label": "category"}, "expected a column 'category'.*or to None"),
        ({"name": "/no/such/folder"}, "there is nothing; give a folder"),
        ({"max_pixels": 0}, "max_pixels"),
    ],
)
def test_settings_that_do_not_fit(
    folder: Path, streaming: bool, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError, match=f"HuggingFaceDataset: .*{message}"):
        HuggingFaceDataset(**({"name": str(folder), "streaming": streaming} | settings)).check()


@pytest.mark.parametrize("streaming", [False, True])
def test_without_a_network(streaming: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(
        DataError, match=r"'user/set' cannot be used: .*HF_HUB_OFFLINE is set.*download the set first"
    ):
        HuggingFaceDataset(name="user/set", streaming=streaming).check()


@pytest.fixture
def requests(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[list[tuple[str, str, int]]]:
    """A hub on this machine with the set; the requests for files that it has answered."""
    with hub(folder) as (address, answered):
        template = address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", address)
        monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setattr(datasets.config, "HF_ENDPOINT", address)
        huggingface_hub.HfFileSystem.clear_instance_cache()
        yield answered
    huggingface_hub.HfFileSystem.clear_instance_cache()


def test_the_hub_gives_the_same_downloaded_and_streamed(
    folder: Path, requests: list[tuple[str, str, int]]
) -> None:
    on_disk = HuggingFaceDataset(name=str(folder))
    streamed = HuggingFaceDataset(name=NAME, streaming=True)
    assert_same(streamed, on_disk)
    sizes = {path.name: path.stat().st_size for path in (folder / "data").iterdir()}
    footers = 3  # these small files are read whole with their footers
    read = [(name, size) for command, name, size in requests if command == "GET" and name in sizes]
    assert all(size < sizes[name] for name, size in read[footers:])
    assert not any(name.startswith("test") for name, _ in read)
    assert_same(HuggingFaceDataset(name=NAME), on_disk)
    by_address = ParquetImages(files=f"hf://datasets/{NAME}/data/train-*.parquet")
    assert numbers_in(by_address) == list(range(TOTAL))
    for streaming in (False, True):
        with pytest.raises(DataError, match="'user/other' cannot be used: DatasetNotFoundError"):
            HuggingFaceDataset(name="user/other", streaming=streaming).check()


def test_workers_read_from_the_hub(folder: Path, requests: list[tuple[str, str, int]]) -> None:
    dataset = HuggingFaceDataset(name=NAME, streaming=True)
    dataset.read(0)  # a connection is open when the workers are forked
    batches = ImageLoader(dataset=dataset, batch_size=4, num_workers=2, shuffle=False).pass_batches()
    assert [number for batch in batches for number in batch["image"][:, 0, 0, 0].tolist()] == list(
        range(TOTAL)
    )
