"""COCO in a folder that the tests make in the layout of its archives."""

import json
from pathlib import Path

import pytest
from PIL import Image

from vq.data import COCO, DataError


def put(path: Path, value: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (6, 4), (value, value, value)).save(path, "JPEG", quality=100)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for number in (25, 9):
        put(tmp_path / f"train2017/{number:012d}.jpg", value=number)
        put(tmp_path / f"train2014/COCO_train2014_{number:012d}.jpg", value=number + 1)
    put(tmp_path / "val2017/000000000139.jpg")
    put(tmp_path / "val2014/COCO_val2014_000000000042.jpg")
    annotations = [(25, "A giraffe."), (9, "Lunch."), (25, "Two giraffes.")]
    text = json.dumps({"annotations": [{"image_id": n, "caption": c} for n, c in annotations]})
    (tmp_path / "annotations").mkdir()
    for year in (2014, 2017):
        (tmp_path / f"annotations/captions_train{year}.json").write_text(text)
    return tmp_path


@pytest.mark.parametrize(("year", "prefix"), [(2014, "COCO_train2014_"), (2017, "")])
def test_each_year_has_its_images_and_captions(root: Path, year: int, prefix: str) -> None:
    dataset = COCO(root=root, year=year)
    dataset.check()
    assert [dataset.key(i) for i in range(len(dataset))] == [f"{prefix}{n:012d}.jpg" for n in (9, 25)]
    assert (dataset.class_names, dataset.label(1)) == (("coco",), 0)
    assert int(dataset.read(1)[0, 0, 0]) == 25 + (year == 2014)
    assert [dataset.captions(i) for i in range(2)] == [("Lunch.",), ("A giraffe.", "Two giraffes.")]


def test_the_splits_are_folders(root: Path) -> None:
    assert COCO(root=root, split="val").key(0) == "000000000139.jpg"
    assert COCO(root=root, year=2014, split="val").key(0) == "COCO_val2014_000000000042.jpg"


def test_the_images_may_be_in_a_folder_images(root: Path) -> None:
    (root / "images").mkdir()
    (root / "train2017").rename(root / "images" / "train2017")
    dataset = COCO(root=root)
    assert (dataset.key(0), dataset.size(0)) == ("000000000009.jpg", (4, 6))


def test_a_missing_folder_is_named_with_where_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"COCO: expected .*/val2014/\*.jpg, found no folder .*get val2014.zip from"
    ):
        COCO(root=tmp_path, year=2014, split="val").check()


@pytest.mark.parametrize("name", ["COCO_train2014_000000000009.jpg", "notes.png", "deep/000000000009.jpg"])
def test_another_image_in_the_folder_is_refused(root: Path, name: str) -> None:
    put(root / "train2017" / name)
    with pytest.raises(DataError, match=rf"names such as 000000000009.jpg in .*train2017, got '{name}'"):
        COCO(root=root).check()


@pytest.mark.parametrize("content", [None, "[1]", '{"annotations": [{"image_id": 9}]}', "{"])
def test_captions_that_cannot_be_read(root: Path, content: str | None) -> None:
    file = root / "annotations/captions_train2017.json"
    file.unlink() if content is None else file.write_text(content)
    dataset = COCO(root=root)
    assert dataset.read(0).shape == (3, 4, 6)
    with pytest.raises(
        DataError, match=r'expected {"annotations": .*captions_train2017.json, got .*get annot'
    ):
        dataset.captions(0)


def test_arguments_are_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="COCO: expected year 2014 or 2017, got 2015"):
        COCO(year=2015)
    with pytest.raises(DataError, match="COCO: expected split 'train' or 'val', got 'test'"):
        COCO(split="test")
    monkeypatch.setenv("VQ_DATA", str(tmp_path))
    assert COCO().root == tmp_path / "coco"
