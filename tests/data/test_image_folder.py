"""ImageFolder: layouts, order, labels and errors."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vq.data import DataError, ImageFolder, ImageLoader, ImageNet, ProceduralDataset, UndecodableImage
from vq.data.sets.splits import is_validation


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


def test_images_outside_of_class_folders_are_the_last_class(tmp_path, caplog):
    for name in ("b/1.png", "a/1.png", "2.png"):
        put(tmp_path / name)
    dataset = ImageFolder(root=tmp_path)
    assert (keys(dataset), labels(dataset)) == (["2.png", "a/1.png", "b/1.png"], [2, 0, 1])
    assert dataset.class_names == ("a", "b", ".")
    assert "1 images are in no class folder (the first is 2.png); they form class 2, named '.'" in caplog.text


@pytest.mark.parametrize(
    ("ending", "said"),
    [
        (".npy", r"but 2 that end in \.npy; arrays are read with extensions=\('\.npy',\), their `channels`"),
        (".heic", r"but 2 that end in \.heic; set `root` or `extensions`"),
    ],
)
def test_a_folder_of_other_files_is_named_with_what_was_found(tmp_path, ending, said):
    (tmp_path / "a").mkdir()
    for i in range(2):
        (tmp_path / "a" / f"{i}{ending.upper()}").write_text("")
    with pytest.raises(DataError, match=said):
        ImageFolder(root=tmp_path).check()


def test_equal_files_of_different_names_are_different_images(tmp_path):
    for name in ("a.png", "b.png"):
        put(tmp_path / name, value=3)
    dataset = ImageFolder(root=tmp_path)
    assert keys(dataset) == ["a.png", "b.png"]
    assert dataset.sha256(0) == dataset.sha256(1)


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


class TestNames:
    @pytest.mark.parametrize(
        "name",
        [
            *("a.jpg", "a.jpeg", "a.jpe", "a.jfif", "a.png", "a.webp", "a.avif", "a.bmp", "a.gif", "a.tif"),
            *(
                "a.tiff",
                "A.PNG",
                "a.JPEG",
                "a.Jfif",
                "a b.png",
                "a.b.png",
                "#1.png",
                "[bold].png",
                "a%20.png",
            ),
        ],
    )
    def test_endings_in_any_case(self, tmp_path, name):
        Image.new("RGB", (6, 4), (9, 9, 9)).save(
            tmp_path / name, "PNG"
        )  # the content decides, not the extension
        dataset = ImageFolder(root=tmp_path)
        assert keys(dataset) == [name]
        assert dataset.read(0).shape == (3, 4, 6)

    @pytest.mark.parametrize("name", ["a", "a.txt", "png", "a.png.part", "a.jpg~", ".png", "a.eps", "a.svg"])
    def test_other_endings_are_passed_over(self, tmp_path, name):
        put(tmp_path / "there.png")
        (tmp_path / name).write_bytes(b"no image")
        assert keys(ImageFolder(root=tmp_path)) == ["there.png"]

    def test_folders_of_numbers_are_sorted_as_text_and_that_is_told(self, tmp_path, caplog):
        for name in ("0", "9", "10", "100"):
            put(tmp_path / name / "1.png")
        assert ImageFolder(root=tmp_path).class_names == ("0", "10", "100", "9")
        caplog.clear()
        ImageFolder(root=tmp_path).check()
        assert "folder 0 is class 0, folder 10 is class 1, folder 100 is class 2, ..." in caplog.text
        (tmp_path / "10").rename(tmp_path / "bird")
        caplog.clear()
        ImageFolder(root=tmp_path).check()
        assert caplog.text == ""

    def test_numbers_of_equal_length_need_no_word(self, tmp_path, caplog):
        for name in ("00", "09", "10"):
            put(tmp_path / name / "1.png")
        ImageFolder(root=tmp_path).check()
        assert caplog.text == ""

    def test_a_name_that_is_not_utf8_is_read_and_escaped(self, tmp_path, caplog):
        put(tmp_path / "a" / "1.png", value=5)
        folder = os.fsencode(tmp_path)
        os.makedirs(folder + b"/b\xe4")
        os.rename(folder + b"/a/1.png", folder + b"/b\xe4/x\xff.png")
        dataset = ImageFolder(root=tmp_path)
        assert dataset.class_names == ("a", "b\\udce4")
        assert keys(dataset) == ["b\\udce4/x\\udcff.png"]
        assert dataset.key(0).encode("utf-8")  # it can be written anywhere
        assert dataset.read(0)[0, 0, 0] == 5
        assert (
            "1 names are not UTF-8, such as b\\udce4/x\\udcff.png; they are stored and shown" in caplog.text
        )

    def test_a_root_that_is_not_utf8(self, tmp_path):
        root = os.fsdecode(os.fsencode(tmp_path) + b"/r\xe4")
        put(Path(root) / "1.png", value=7)
        dataset = ImageFolder(root=root)
        assert (dataset.class_names, int(dataset.read(0)[0, 0, 0])) == (("r\\udce4",), 7)
        with pytest.raises(ValueError, match=r"found no file"):
            ImageFolder(root=root, extensions=(".jpg",)).check()

    def test_two_names_that_would_be_equal_once_escaped_are_refused(self, tmp_path):
        put(tmp_path / "x\\udce4.png")
        os.link(os.fsencode(tmp_path) + b"/x\\udce4.png", os.fsencode(tmp_path) + b"/x\xe4.png")
        with pytest.raises(ValueError, match="the same name once their bytes are escaped"):
            ImageFolder(root=tmp_path).check()

    def test_a_name_with_a_line_break_stays_on_one_line_of_an_error(self, tmp_path):
        (tmp_path / "a\nb\x1b[31m.png").write_bytes(b"")
        dataset = ImageFolder(root=tmp_path)
        with pytest.raises(UndecodableImage) as caught:
            dataset.read(0)
        assert str(caught.value) == "a\\nb\\x1b[31m.png: the file is empty"


class TestPlaces:
    def test_a_tilde_is_the_home_folder(self, tmp_path, monkeypatch):
        put(tmp_path / "pictures" / "1.png")
        monkeypatch.setenv("HOME", str(tmp_path))
        assert len(ImageFolder(root="~/pictures")) == 1
        with pytest.raises(ValueError, match="root: expected a folder, got '~no_such_user_here/x'"):
            ImageFolder(root="~no_such_user_here/x")

    def test_links_in_a_circle_and_to_nothing_count_as_undecodable(self, tmp_path):
        put(tmp_path / "good.png")
        (tmp_path / "self.png").symlink_to(tmp_path / "self.png")
        (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere.png")
        os.mkfifo(tmp_path / "pipe.png")
        loader = ImageLoader(dataset=ImageFolder(root=tmp_path), batch_size=4, max_undecodable=1.0)
        (batch,) = loader.pass_batches()
        assert (batch["key"], batch["undecodable"]) == (["good.png"], ["gone.png", "pipe.png", "self.png"])

    def test_a_folder_with_the_name_of_an_image_is_a_folder(self, tmp_path):
        put(tmp_path / "cat.png" / "1.png")
        dataset = ImageFolder(root=tmp_path)
        assert (dataset.class_names, keys(dataset)) == (("cat.png",), ["cat.png/1.png"])

    def test_a_folder_that_cannot_be_read_is_named(self, tmp_path, monkeypatch):
        put(tmp_path / "a" / "1.png")
        (tmp_path / "b").mkdir()
        listed = os.scandir

        def scandir(folder):
            if Path(folder).name == "b":
                raise PermissionError(13, "Permission denied", str(folder))
            return listed(folder)

        monkeypatch.setattr(os, "scandir", scandir)  # the tests may run as root, who can read any folder
        with pytest.raises(DataError, match=r"the folder .*/b cannot be read \(Permission denied\); make"):
            ImageFolder(root=tmp_path).check()
