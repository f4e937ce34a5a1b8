"""Folders on disk: layouts, order, labels, and what is said when something is missing."""

import os

import numpy as np
import pytest
import torch
from PIL import Image

from vq.data import ImageFolder, ImageLoader, ImageNet, UndecodableImage


def put(path, value=0, size=(6, 4)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (value, value, value)).save(
        path, format=None if path.suffix.lower() != ".jpeg" else "JPEG"
    )


def keys(dataset):
    return [dataset.key(i) for i in range(len(dataset))]


def labels(dataset):
    return [dataset.label(i) for i in range(len(dataset))]


def test_class_folders_are_labels_in_sorted_order(tmp_path):
    for i, name in enumerate(["dog/2.png", "dog/10.png", "cat/deep/er/x.JPG", "cat/a.webp", "ant/z.bmp"]):
        put(tmp_path / name, value=i)
    dataset = ImageFolder(root=tmp_path)
    assert dataset.class_names == ("ant", "cat", "dog")
    assert keys(dataset) == ["ant/z.bmp", "cat/a.webp", "cat/deep/er/x.JPG", "dog/10.png", "dog/2.png"]
    assert labels(dataset) == [0, 1, 1, 2, 2]
    assert dataset.read(3).shape == (3, 4, 6)
    assert dataset.read(4)[0, 0, 0] == 0
    assert dataset.read(3)[0, 0, 0] == 1


def test_a_flat_folder_is_one_class(tmp_path):
    for name in ("b.png", "a.png"):
        put(tmp_path / "faces" / name)
    dataset = ImageFolder(root=str(tmp_path / "faces"))
    assert (keys(dataset), labels(dataset), dataset.class_names) == (["a.png", "b.png"], [0, 0], ("faces",))


def test_an_empty_class_keeps_its_number(tmp_path):
    put(tmp_path / "b" / "1.png")
    (tmp_path / "a").mkdir()
    dataset = ImageFolder(root=tmp_path)
    assert (labels(dataset), dataset.class_names) == ([1], ("a", "b"))


def test_other_files_and_hidden_ones_are_passed_over(tmp_path):
    for name in ("a/1.png", "a/._1.png", ".cache/2.png", "a/.hidden/3.png"):
        put(tmp_path / name)
    (tmp_path / "a" / "notes.txt").write_text("no image")
    assert keys(ImageFolder(root=tmp_path)) == ["a/1.png"]


def test_extensions_choose(tmp_path):
    for name in ("1.png", "2.jpg", "3.JPG"):
        put(tmp_path / name)
    assert keys(ImageFolder(root=tmp_path, extensions=(".JPG",))) == ["2.jpg", "3.JPG"]


def test_names_of_any_script_are_kept(tmp_path):
    put(tmp_path / "кот" / "猫 1.png", value=9)
    dataset = ImageFolder(root=tmp_path)
    assert keys(dataset) == ["кот/猫 1.png"]
    assert dataset.read(0)[0, 0, 0] == 9


def test_links_to_folders_are_followed_but_not_in_circles(tmp_path):
    put(tmp_path / "store" / "1.png")
    (tmp_path / "set").mkdir()
    os.symlink(tmp_path / "store", tmp_path / "set" / "a")
    os.symlink(tmp_path / "store", tmp_path / "set" / "b")
    os.symlink(tmp_path / "set", tmp_path / "store" / "back")
    assert keys(ImageFolder(root=tmp_path / "set")) == ["a/1.png", "b/1.png"]


def test_nothing_is_touched_before_the_first_use(tmp_path):
    dataset = ImageFolder(root=tmp_path / "later")
    put(tmp_path / "later" / "a.png")
    dataset.check()
    assert len(dataset) == 1


def test_a_missing_root_is_named(tmp_path):
    with pytest.raises(
        ValueError, match=r"ImageFolder: expected a folder of images at .*nowhere, found nothing; put .*\.png"
    ):
        ImageFolder(root=tmp_path / "nowhere").check()
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"at .*file, found a file"):
        len(ImageFolder(root=tmp_path / "file"))


def test_a_root_without_images_is_named_with_what_was_looked_for(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.png").write_text("")
    with pytest.raises(
        ValueError, match=rf"images in {tmp_path} or its subfolders, found no file that ends in \.jpg, \.tif"
    ):
        ImageFolder(root=tmp_path, extensions=(".jpg", ".tif")).check()


def test_a_mixed_layout_is_refused(tmp_path):
    for name in ("a/1.png", "2.png"):
        put(tmp_path / name)
    with pytest.raises(ValueError, match=r"got both \('2.png' and 'a/1.png'\); move some of them"):
        ImageFolder(root=tmp_path).check()


@pytest.mark.parametrize("extensions", [("png",), ()])
def test_extensions_have_a_dot(extensions):
    with pytest.raises(ValueError, match=r"ImageFolder: expected extensions such as \('.png', '.jpg'\), got"):
        ImageFolder(root="x", extensions=extensions)


def test_a_broken_file_is_named_by_its_key(tmp_path):
    put(tmp_path / "a" / "1.png")
    (tmp_path / "a" / "2.png").write_bytes(b"")
    with pytest.raises(UndecodableImage, match=r"^a/2\.png: the file is empty"):
        ImageFolder(root=tmp_path).read(1)


def test_a_folder_with_a_few_broken_files_trains_and_passes(tmp_path):
    rng = np.random.default_rng(0)
    for i in range(40):
        pixels = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{i:02}.png")
    (tmp_path / "07.png").write_bytes((tmp_path / "07.png").read_bytes()[:60])
    loader = ImageLoader(
        dataset=ImageFolder(root=tmp_path), batch_size=8, num_workers=2, max_undecodable=0.05
    )
    found = list(loader.pass_batches())
    assert [name for batch in found for name in batch["undecodable"]] == ["07.png"]
    assert [len(batch["key"]) for batch in found] == [7, 8, 8, 8, 8]
    batches = loader.train_batches(seed=0)
    epoch = [next(batches) for _ in range(5)]
    assert [name for batch in epoch for name in batch["undecodable"]] == ["07.png"]
    assert sorted(key for batch in epoch for key in batch["key"]).count("08.png") == 2


class TestImageNet:
    def test_layout(self, tmp_path):
        for split, name in [("train", "n01443537/n01443537_2.JPEG"), ("val", "n01440764/v_1.JPEG")]:
            put(tmp_path / split / "n01443537" / "n01443537_1.JPEG")
            put(tmp_path / split / name)
        train, val = ImageNet(root=tmp_path), ImageNet(root=tmp_path, split="val")
        assert keys(train) == ["n01443537/n01443537_1.JPEG", "n01443537/n01443537_2.JPEG"]
        assert val.class_names == ("n01440764", "n01443537")
        assert labels(val) == [0, 1]
        assert val.read(0).shape == (3, 4, 6)
        val.check()

    def test_it_can_be_configured_where_it_is_not(self):
        with torch.device("meta"):
            loader = ImageLoader(dataset=ImageNet(root="/nowhere/imagenet", split="val"), batch_size=8)
        with pytest.raises(
            ValueError,
            match=r"ImageNet: expected /nowhere/imagenet/val/n01440764/\*\.JPEG.*no folder .*/val; get",
        ):
            loader.check()

    def test_the_unsorted_validation_archive_is_told(self, tmp_path):
        put(tmp_path / "val" / "ILSVRC2012_val_00000001.JPEG")
        with pytest.raises(ValueError, match=r"'val' in .*val is not named like n01440764; sort the images"):
            ImageNet(root=tmp_path, split="val").check()

    def test_split(self):
        with pytest.raises(ValueError, match="ImageNet: expected split 'train' or 'val', got 'test'"):
            ImageNet(split="test")
