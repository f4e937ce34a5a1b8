"""ImageFolder: layouts, order, labels and errors."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vq.data import DataError, ImageFolder, ImageLoader, ProceduralDataset, UndecodableImage
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
        (
            ".npy",
            r"but 2 that end in \.npy; set `value_range`, such as \(0, 255\), and `channels` to those of",
        ),
        (".heic", r"but 2 that end in \.heic; set `root` or `extensions`"),
    ],
)
def test_a_folder_of_other_files_is_named_with_what_was_found(tmp_path, ending, said):
    (tmp_path / "a").mkdir()
    for i in range(2):
        (tmp_path / "a" / f"{i}{ending.upper()}").write_text("")
    with pytest.raises(DataError, match=said):
        ImageFolder(root=tmp_path).check()


def test_arrays_are_read_where_their_range_or_channels_are_given(tmp_path):
    put(tmp_path / "a.png")
    np.save(tmp_path / "b.npy", np.full((4, 6, 3), 1000, dtype=np.uint16))
    assert keys(ImageFolder(root=tmp_path)) == ["a.png"]
    dataset = ImageFolder(root=tmp_path, value_range=(0, 4000))
    assert keys(dataset) == ["a.png", "b.npy"]
    assert dataset.read(1)[0, 0, 0] == pytest.approx(63.75)
    np.save(tmp_path / "c.npy", np.zeros((6, 4, 5), dtype=np.uint8))
    assert ImageFolder(root=tmp_path, channels=6).read(2).shape == (6, 4, 5)
    assert keys(ImageFolder(root=tmp_path, channels=6, extensions=(".png",))) == ["a.png"]


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


class TestSplits:
    def put_numbered(self, root, num=40, classes=("ant", "bee")):
        for i in range(num):
            put(root / classes[i % len(classes)] / f"{i:02}.png")

    def test_the_hash_of_the_name_decides(self, tmp_path):
        self.put_numbered(tmp_path)
        train, val, both = (ImageFolder(root=tmp_path, split=s) for s in ("train", "val", "all"))
        assert sorted(keys(train) + keys(val)) == keys(both)
        assert keys(val) == [key for key in keys(both) if is_validation(key, 0.1)]
        assert 0 < len(val) < 12
        assert train.class_names == val.class_names == both.class_names == ("ant", "bee")
        label = dict(zip(keys(both), labels(both), strict=True))
        assert labels(val) == [label[key] for key in keys(val)]
        larger = ImageFolder(root=tmp_path, split="val", val_fraction=0.3)
        assert set(keys(val)) < set(keys(larger))

    def test_images_keep_their_split_when_others_are_added(self, tmp_path):
        self.put_numbered(tmp_path)
        before = keys(ImageFolder(root=tmp_path, split="val"))
        for i in range(40):
            put(tmp_path / "cat" / f"{i}.png")
        after = keys(ImageFolder(root=tmp_path, split="val"))
        assert [key for key in after if not key.startswith("cat/")] == before

    @pytest.mark.parametrize("fraction", [0.0001, 0.9999])
    def test_neither_split_of_a_tiny_set_is_empty(self, tmp_path, fraction):
        self.put_numbered(tmp_path, num=3)
        sizes = [len(ImageFolder(root=tmp_path, split=s, val_fraction=fraction)) for s in ("train", "val")]
        assert sorted(sizes) == [1, 2]

    def test_one_image_cannot_be_divided(self, tmp_path):
        put(tmp_path / "a.png")
        assert len(ImageFolder(root=tmp_path)) == 1
        with pytest.raises(
            DataError, match=r"ImageFolder: expected at least 2 images in .*got 'a.png' alone"
        ):
            ImageFolder(root=tmp_path, split="train").check()

    def test_a_folder_val_holds_the_validation_images(self, tmp_path):
        for name in ("train/bee/1.png", "train/ant/1.png", "val/cat/2.png", "val/ant/2.png"):
            put(tmp_path / name)
        train, val, both = (ImageFolder(root=tmp_path, split=s) for s in ("train", "val", "all"))
        assert train.class_names == val.class_names == both.class_names == ("ant", "bee", "cat")
        assert (keys(train), labels(train)) == (["train/ant/1.png", "train/bee/1.png"], [0, 1])
        assert (keys(val), labels(val)) == (["val/ant/2.png", "val/cat/2.png"], [0, 2])
        assert keys(both) == keys(train) + keys(val)

    def test_training_images_may_be_beside_the_folder_val(self, tmp_path):
        for name in ("1.png", "2.png", "val/3.png"):
            put(tmp_path / name)
        train, val = (ImageFolder(root=tmp_path, split=s) for s in ("train", "val"))
        assert (keys(train), keys(val)) == (["1.png", "2.png"], ["val/3.png"])
        assert train.class_names == val.class_names == (tmp_path.name,)
        put(tmp_path / "ant" / "val" / "4.png")  # a folder of this name further down is nothing special
        train, val = (ImageFolder(root=tmp_path, split=s) for s in ("train", "val"))
        assert keys(train) == ["1.png", "2.png", "ant/val/4.png"]
        assert train.class_names == val.class_names == ("ant", ".")

    def test_what_is_beside_train_and_val_is_not_read_and_named(self, tmp_path, caplog):
        for name in ("train/a/1.png", "val/a/2.png", "test/a/3.png", "cover.png"):
            put(tmp_path / name)
        assert keys(ImageFolder(root=tmp_path)) == ["train/a/1.png", "val/a/2.png"]
        assert "so nothing else in it is read: cover.png, test" in caplog.text

    def test_train_without_val_is_a_class_and_that_is_told(self, tmp_path, caplog):
        for name in ("train/1.png", "valid/2.png"):
            put(tmp_path / name)
        assert ImageFolder(root=tmp_path, split="train").class_names == ("train", "valid")
        assert "has a folder 'train' but none named 'val'" in caplog.text

    @pytest.mark.parametrize(("split", "images"), [("train", "training"), ("val", "validation")])
    def test_an_empty_part_is_named(self, tmp_path, split, images):
        (tmp_path / "train").mkdir()
        (tmp_path / "val").mkdir()
        put(tmp_path / ("val" if split == "train" else "train") / "1.png")
        with pytest.raises(
            DataError, match=rf"expected {images} images in .*/{split}/, found none; put images"
        ):
            ImageFolder(root=tmp_path, split=split).check()

    @pytest.mark.parametrize(
        ("settings", "said"),
        [
            ({"split": "test"}, "expected split 'train', 'val', 'all', got 'test'"),
            ({"val_fraction": 0.0}, "expected val_fraction above 0 and below 1, got 0.0; split='all' reads"),
            ({"val_fraction": 1.0}, "expected val_fraction above 0 and below 1, got 1.0"),
        ],
    )
    def test_settings_are_checked(self, settings, said):
        with pytest.raises(DataError, match=said):
            ImageFolder(root="x", **settings)


class TestDescription:
    def test_it_counts_images_classes_sizes_and_what_is_set_aside(self, tmp_path):
        for i in range(40):
            put(tmp_path / "ant" / f"{i:02}.png", size=(20 + i, 10 + i))  # width, height
        (tmp_path / "bee").mkdir()
        (tmp_path / "ant" / "notes.txt").write_text("")
        (tmp_path / "ant" / "photo.HEIC").write_text("")
        num_val = len(ImageFolder(root=tmp_path, split="val"))
        said = ImageFolder(root=tmp_path, split="train").describe()
        assert said.startswith(
            f"{40 - num_val} images; 2 classes (ant, bee); height x width 10 x 20 to 49 x 59, "
        )
        assert "(of all images)" in said
        assert "1 class has no image here" in said
        assert (
            f"{num_val} of 40 images are for validation, by the hash of their names (val_fraction=0.1)"
            in said
        )
        assert said.endswith("2 other files are not read (1 .txt, 1 .heic)")

    def test_sizes_are_those_of_a_sample_of_headers(self, tmp_path):
        for i in range(150):
            put(tmp_path / f"{i:03}.png", size=(8, 8))
        (tmp_path / "003.png").write_bytes(b"broken")
        said = ImageFolder(root=tmp_path).describe()
        assert said == (
            f"150 images; 1 class ({tmp_path.name}); height x width all 8 x 8 (of 100 images, evenly spread; "
            f"1 cannot be decoded)"
        )

    def test_a_class_with_a_line_break_stays_on_one_line(self, tmp_path):
        put(tmp_path / "a\nb" / "1.png")
        put(tmp_path / "a\nb" / "2.png")
        said = ImageFolder(root=tmp_path, split="train").describe()
        assert "1 class (a\\nb)" in said
        assert "\n" not in said

    def test_only_broken_images(self, tmp_path):
        (tmp_path / "a\nb.png").write_bytes(b"broken")
        assert "none of 1 images can be decoded" in ImageFolder(root=tmp_path).describe()

    def test_the_folder_val_is_named(self, tmp_path):
        for name in ("1.png", "val/2.png"):
            put(tmp_path / name)
        said = ImageFolder(root=tmp_path, split="train").describe()
        assert said.endswith(f"1 of 2 images are for validation, those in {tmp_path}/val")

    def test_any_other_set_is_described_too(self):
        said = ProceduralDataset(num_images=6, image_size=16).describe()
        assert said.startswith("6 images; ")
        assert said.endswith("height x width all 16 x 16 (of all images)")


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

    def test_a_file_that_cannot_be_read_counts_as_undecodable(self, tmp_path, monkeypatch):
        put(tmp_path / "a.png")
        put(tmp_path / "b.png")
        opened = os.open

        def refuse(path, *args, **kwargs):
            if Path(os.fsdecode(path)).name == "b.png":
                raise PermissionError(13, "Permission denied", str(path))
            return opened(path, *args, **kwargs)

        monkeypatch.setattr(os, "open", refuse)  # the tests may run as root, who can read any file
        dataset = ImageFolder(root=tmp_path)
        assert dataset.read(0).shape == (3, 4, 6)
        with pytest.raises(UndecodableImage, match=r"^b\.png: cannot be read \(Permission denied\)"):
            dataset.read(1)
        assert "all images; 1 cannot be decoded" in dataset.describe()

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
