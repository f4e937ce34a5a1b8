"""SA-Med2D-20M on a small copy of its layout: split, labels, and disagreements of the JSON file and the folder."""

import json
import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vq.data import DataError, SAMed2D
from vq.data.sets.splits import interleaved

NAMES = [
    *(f"images/ct_00--AMOS2022--amos_0001--x_{i:04d}.png" for i in range(7)),
    *(f"images/mr_t1--BraTS2013--case_1--z_{i:04d}.png" for i in range(4)),
    "images/fundus_photography--ADAM--1--2d_none.png",
    "images/x_ray--Covid_QU_Ex--5--2d_none.png",
]


def write_copy(folder: Path, *, names=NAMES, annotations="."):
    """Writes the layout of SAMed2Dv1: image i has the value i, ten masks lie beside it."""
    for part in ("images", "masks", annotations):
        (folder / part).mkdir(parents=True, exist_ok=True)
    table = {}
    for i, name in enumerate(names):
        Image.fromarray(np.full((4, 6), i, np.uint8)).save(folder / name)
        mask = name.replace("images/", "masks/").replace(".png", "--0001_000.png")
        Image.new("1", (6, 4)).save(folder / mask)
        table[name] = [mask]
    shuffled = dict(sorted(table.items(), key=lambda item: item[0][::-1]))
    (folder / annotations / "SAMed2D_v1.json").write_text(json.dumps(shuffled, indent=4))
    (folder / annotations / "SAMed2D_v1_class_mapping_id.json").write_text('{"AMOS2022": {"liver": "0001"}}')
    return folder


def keys(dataset):
    return [dataset.key(i) for i in range(len(dataset))]


@pytest.mark.parametrize("below", ["", "SAMed2Dv1"])
@pytest.mark.parametrize("annotations", [".", "annotations"])
def test_every_fourth_image_in_sorted_order_is_for_validation(tmp_path, below, annotations):
    write_copy(tmp_path / below, annotations=annotations)
    train = SAMed2D(root=tmp_path, split="train", num_val=3)
    val = SAMed2D(root=tmp_path, split="val", num_val=3)
    order = sorted(NAMES)
    assert keys(val) == [order[0], order[4], order[8]]
    assert sorted(keys(train) + keys(val)) == order
    assert [int(val.read(i)[0, 0, 0]) for i in range(3)] == [NAMES.index(key) for key in keys(val)]
    assert val.read(0).shape == (3, 4, 6)
    assert val.size(0) == (4, 6)


def test_the_label_is_the_modality(tmp_path):
    dataset = SAMed2D(root=write_copy(tmp_path), num_val=3)
    assert dataset.class_names == ("ct", "fundus", "mr", "x_ray")
    for i, key in enumerate(keys(dataset)):
        assert key.startswith("images/" + dataset.class_names[dataset.label(i)])


def test_grey_images_may_be_read_with_one_channel(tmp_path):
    dataset = SAMed2D(root=write_copy(tmp_path), num_val=3, channels=1)
    assert dataset.channels == 1
    assert dataset.read(0).shape == (1, 4, 6)
    with pytest.raises(DataError, match=r"SAMed2D: expected channels 1 \(grey\) or 3 \(RGB\), got 4"):
        SAMed2D(channels=4)


def test_the_default_folder_follows_the_environment(monkeypatch):
    monkeypatch.setenv("VQ_DATA", "/sets")
    assert SAMed2D().root == Path("/sets/sa_med2d_20m")


def test_an_incomplete_copy_keeps_the_split_and_tells_what_is_missing(tmp_path, caplog):
    write_copy(tmp_path)
    whole = {split: keys(SAMed2D(root=tmp_path, split=split, num_val=3)) for split in ("train", "val")}
    for name in (NAMES[0], NAMES[2]):
        (tmp_path / name).unlink()
    Image.new("L", (6, 4)).save(tmp_path / "images/pet_00--new--1--x_0001.png")
    with caplog.at_level(logging.WARNING):
        train, val = (SAMed2D(root=tmp_path, split=split, num_val=3) for split in ("train", "val"))
        assert keys(train) == [key for key in whole["train"] if key not in (NAMES[0], NAMES[2])]
        assert keys(val) == [key for key in whole["val"] if key not in (NAMES[0], NAMES[2])]
    assert len(keys(val)) == 2
    assert train.class_names == ("ct", "fundus", "mr", "x_ray")
    assert f"2 images in SAMed2D_v1.json have no file, such as {NAMES[0]}" in caplog.text
    assert (
        "1 files are not in SAMed2D_v1.json, such as images/pet_00--new--1--x_0001.png; they are left out"
        in caplog.text
    )


def test_a_folder_of_another_layout_is_refused(tmp_path):
    for folder in (tmp_path / "missing", tmp_path):
        with pytest.raises(DataError, match=r"expected .*/SAMed2Dv1/SAMed2D_v1.json and a folder .*/images"):
            len(SAMed2D(root=folder))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"images/ct_00--a--b--x_1.png": ["masks', r"SAMed2D_v1.json cannot be read as JSON"),
        ("[" * 200_000, r"SAMed2D_v1.json cannot be read as JSON"),
        ("[]", r"to map images to masks, .* got list"),
        ("{}", r"to map images to masks, .* got an empty object"),
        ('{"images/../../secret.png": []}', r"with names such as .*, got images/../../secret.png"),
        ('{"pictures/a.png": []}', r"with names such as .*, got pictures/a.png"),
        ('{"images/ct_00--other--1--x_1.png": [], "images/ct_00--other--2--x_1.png": []}', r"none of the 2 images"),
        ('{"images/ct_\\ud800.png": [], "images/ct_2.png": []}', r"none of the 2 images"),
    ],
)  # fmt: skip
def test_a_bad_json_file_is_refused(tmp_path, text, message):
    write_copy(tmp_path)
    (tmp_path / "SAMed2D_v1.json").write_text(text)
    with pytest.raises(DataError, match=message):
        SAMed2D(root=tmp_path, num_val=1).check()


def test_a_set_must_have_more_images_than_are_for_validation(tmp_path):
    dataset = SAMed2D(root=write_copy(tmp_path))
    with pytest.raises(
        DataError, match=r"num_val from 1 to 12 for a set of 13 images, got 25,000; set num_val"
    ):
        dataset.check()
    with pytest.raises(DataError, match="expected split 'train' or 'val', got 'test'"):
        SAMed2D(split="test")


def test_the_split_is_that_of_the_full_set():
    """The published numbers: 3,772,180 images, of which every 150th is for validation."""
    mask = interleaved(3_772_180, 25_000)
    assert mask.sum() == 25_000
    assert np.flatnonzero(mask)[:3].tolist() == [0, 150, 300]
