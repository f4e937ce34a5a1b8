"""ImageNet in each of its layouts, which the tests make with four images of three classes."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import torch
from PIL import Image

from vq.data import DataError, ImageLoader, ImageNet

VAL = ("n02119789", "n01440764", "n02119789", "n01443537")  # of the validation images 1 to 4
DEVKIT = {
    1: "n02119789",
    2: "n01443537",
    3: "n01440764",
}  # the numbers of the devkit, in another order than the IDs
KEYS = [f"{VAL[i]}/ILSVRC2012_val_0000000{i + 1}.JPEG" for i in (1, 3, 0, 2)]
TRUTH = "ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt"
CSV = "LOC_val_solution.csv"
LINES = "imagenet_2012_validation_synset_labels.txt"


def put(path: Path, value: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (6, 4), (value, value, value)).save(path, "JPEG", quality=100)


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def train_images(folder: Path) -> None:
    for wnid in DEVKIT.values():
        put(folder / wnid / f"{wnid}_1.JPEG")


def flat_val(folder: Path) -> None:
    for number in range(1, 5):
        put(folder / f"ILSVRC2012_val_{number:08d}.JPEG", value=10 * number)


def sorted_layout(root: Path) -> None:
    train_images(root / "train")
    for number, wnid in enumerate(VAL, start=1):
        put(root / "val" / wnid / f"ILSVRC2012_val_{number:08d}.JPEG", value=10 * number)


def kaggle(root: Path) -> None:
    train_images(root / "ILSVRC/Data/CLS-LOC/train")
    flat_val(root / "ILSVRC/Data/CLS-LOC/val")
    put(root / "ILSVRC/Data/CLS-LOC/test/ILSVRC2012_test_00000001.JPEG")
    rows = [f"ILSVRC2012_val_0000000{i + 1},{VAL[i]} 1 2 3 4 {VAL[i]} 5 6 7 8 " for i in (2, 0, 3, 1)]
    write(root / CSV, "\n".join(["ImageId,PredictionString", *rows, ""]))


def official(root: Path) -> None:
    kaggle(root)
    (root / CSV).unlink()
    for number, wnid in enumerate(VAL, start=1):
        objects = f"<object>\n\t<name>{wnid}</name>\n</object>\n" * 2
        name = f"ILSVRC2012_val_{number:08d}"
        write(root / f"ILSVRC/Annotations/CLS-LOC/val/{name}.xml", f"<annotation>\n{objects}</annotation>\n")


def devkit(root: Path) -> None:
    train_images(root / "train")
    flat_val(root / "val")
    numbers = {wnid: number for number, wnid in DEVKIT.items()}
    write(root / TRUTH, "".join(f"{numbers[wnid]}\n" for wnid in VAL))
    fields = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O"), ("num_children", "O")]
    groups = [(4, "n00001740", "entity", 3)]
    rows = [(number, wnid, "words", 0) for number, wnid in DEVKIT.items()] + groups
    scipy.io.savemat((root / TRUTH).with_name("meta.mat"), {"synsets": np.array(rows, dtype=fields)[:, None]})


def lines(root: Path) -> None:
    train_images(root / "train")
    flat_val(root / "val")
    write(root / LINES, "".join(f"{wnid}\n" for wnid in VAL))


LAYOUTS = [sorted_layout, kaggle, official, devkit, lines]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_has_the_same_keys_labels_and_pixels(
    tmp_path: Path, layout: Callable[[Path], None]
) -> None:
    layout(tmp_path)
    train, val = ImageNet(root=tmp_path), ImageNet(root=tmp_path, split="val")
    val.check()
    assert train.class_names == val.class_names == tuple(sorted(DEVKIT.values()))
    assert [val.key(i) for i in range(len(val))] == KEYS
    assert [val.label(i) for i in range(4)] == [0, 1, 2, 2]
    assert [int(val.read(i)[0, 0, 0]) for i in range(4)] == [20, 40, 10, 30]
    assert [train.key(i) for i in range(len(train))] == [f"{w}/{w}_1.JPEG" for w in sorted(DEVKIT.values())]
    assert [train.label(i) for i in range(3)] == [0, 1, 2]
    assert (val.size(0), len(val.sha256(0)), val.channels) == ((4, 6), 64, 3)


def test_the_folder_ilsvrc_itself_may_be_the_root(tmp_path: Path) -> None:
    official(tmp_path)
    val = ImageNet(root=tmp_path / "ILSVRC", split="val")
    assert [val.label(i) for i in range(len(val))] == [0, 1, 2, 2]


class TestReferenceFramework:
    def write(self, root: Path) -> None:
        """Renamed files, and annotations that name them."""
        for split, start in (("train", 10), ("val", 290)):
            names = [f"{start + i}.JPEG" for i in range(4)]
            for name, wnid in zip(names, VAL, strict=True):
                put(root / split / wnid / name)
            numbers = {wnid: number for number, wnid in DEVKIT.items()}
            entries = [{"name": n, "synset_id": numbers[w]} for n, w in zip(names, VAL, strict=True)]
            write(root / "annotations" / f"{split}.json", json.dumps(entries))
        synsets = {str(number): {"WNID": wnid, "words": "words"} for number, wnid in DEVKIT.items()}
        write(root / "synsets.json", json.dumps(synsets))

    def test_labels_are_those_of_the_sorted_wordnet_ids(self, tmp_path: Path) -> None:
        self.write(tmp_path)
        val = ImageNet(root=tmp_path, split="val")
        assert [val.key(i) for i in range(4)] == [f"{VAL[i]}/{290 + i}.JPEG" for i in (1, 3, 0, 2)]
        assert [val.label(i) for i in range(4)] == [0, 1, 2, 2]  # the reference's are 2, 1, 0, 0

    def test_a_missing_image_is_an_error(self, tmp_path: Path) -> None:
        self.write(tmp_path)
        (tmp_path / "train/n01440764/11.JPEG").unlink()
        with pytest.raises(
            DataError, match=r"train.json to list the 3 images.*lists 4: 1 of its.*'n01440764/11.JPEG'"
        ):
            ImageNet(root=tmp_path).check()

    @pytest.mark.parametrize(
        "entry", [{"image": "290.JPEG", "synset_id": 1}, ["290.JPEG", 1], {"name": "290.JPEG"}]
    )
    def test_other_entries_are_refused(self, tmp_path: Path, entry: object) -> None:
        self.write(tmp_path)
        write(tmp_path / "annotations/val.json", json.dumps([entry]))
        with pytest.raises(DataError, match=r'expected a list of {"name", "synset_id"} in .*val.json.*got'):
            ImageNet(root=tmp_path, split="val").check()

    def test_an_unknown_class_is_refused(self, tmp_path: Path) -> None:
        self.write(tmp_path)
        write(tmp_path / "annotations/val.json", json.dumps([{"name": "290.JPEG", "synset_id": 77}]))
        with pytest.raises(DataError, match=r"val.json has the class number 77, which synsets.json does not"):
            ImageNet(root=tmp_path, split="val").check()


class TestLabelFiles:
    """A label file that disagrees with the folder is one clear error."""

    def refused(self, root: Path) -> str:
        with pytest.raises(DataError) as caught:
            ImageNet(root=root, split="val").check()
        return str(caught.value)

    @pytest.mark.parametrize("layout", [kaggle, official, devkit, lines])
    def test_a_missing_image(self, tmp_path: Path, layout: Callable[[Path], None]) -> None:
        layout(tmp_path)
        next(tmp_path.rglob("ILSVRC2012_val_00000003.JPEG")).unlink()
        said = self.refused(tmp_path)
        assert "to list the 3 images of the folder, but it lists 4: 1 of its images have no file" in said
        assert "such as 'ILSVRC2012_val_00000003'; complete the images" in said

    @pytest.mark.parametrize("layout", [kaggle, official, devkit, lines])
    def test_an_image_too_many(self, tmp_path: Path, layout: Callable[[Path], None]) -> None:
        layout(tmp_path)
        put(next(tmp_path.rglob("ILSVRC2012_val_00000003.JPEG")).with_name("ILSVRC2012_val_00000005.JPEG"))
        said = self.refused(tmp_path)
        assert "lists 4: 1 image files are not in it, such as 'ILSVRC2012_val_00000005'" in said

    @pytest.mark.parametrize(
        ("file", "text", "expected"),
        [
            (
                TRUTH,
                "1\n2\n\n3\n",
                r"an ILSVRC2012_ID from 1 to 1000, got '' in line 3 of .*ground_truth.txt",
            ),
            (TRUTH, "1\n2\n3\n4\n", r"has the class number 4, which meta.mat does not list as a class"),
            (TRUTH, "1\n2\n3\n", r"4 images of the folder, but it lists 3: 1 image files are not in it"),
            (
                CSV,
                "ILSVRC2012_val_00000001,nothing\n",
                r"one WordNet ID such as n01440764 in line 1 of .*, got \[\]",
            ),
            (CSV, "a,n01440764 1\na,n01440764 1\n", r"another NAME in each line, got \['a', 'n01440764 1'\]"),
            (
                CSV,
                "a,n01440764 1 n01443537 2\n",
                r"one WordNet ID .* got \['n01440764', 'n01443537'\]; get the file",
            ),
            (CSV, "ImageId\na,b,c\n", r"NAME,WNID x y x y .*, got \['a', 'b', 'c'\] in line 2 of"),
            (
                LINES,
                "n01440764\ntench\n",
                r"one WordNet ID such as n01440764 in line 2 of .*, got \['tench'\]",
            ),
        ],
    )
    def test_damaged_content(self, tmp_path: Path, file: str, text: str, expected: str) -> None:
        devkit(tmp_path)
        if file != TRUTH:
            (tmp_path / TRUTH).unlink()
        write(tmp_path / file, text)
        with pytest.raises(DataError, match=expected):
            ImageNet(root=tmp_path, split="val").check()

    def test_a_damaged_meta_mat(self, tmp_path: Path) -> None:
        devkit(tmp_path)
        (tmp_path / TRUTH).with_name("meta.mat").write_bytes(b"MATLAB 5.0" * 50)
        said = self.refused(tmp_path)
        assert "expected the devkit's meta.mat with `synsets` at" in said
        assert said.endswith("unpack ILSVRC2012_devkit_t12.tar.gz again")

    def test_a_label_file_that_is_no_text(self, tmp_path: Path) -> None:
        lines(tmp_path)
        (tmp_path / LINES).write_bytes(b"\xff\xfe")
        assert "cannot be read ('utf-8' codec" in self.refused(tmp_path)

    def test_without_any_the_error_lists_where_it_was_looked_for(self, tmp_path: Path) -> None:
        put(tmp_path / "val" / "ILSVRC2012_val_00000001.JPEG")
        said = self.refused(tmp_path)
        assert "'ILSVRC2012_val_00000001.JPEG' in " in said
        assert "sort the images into one folder per class, or put their label file into" in said
        assert all(name in said for name in (CSV, TRUTH, "Annotations/CLS-LOC/val/*.xml", LINES))


def test_a_subset_has_the_labels_of_its_own_classes(tmp_path: Path) -> None:
    for split in ("train", "val"):
        for wnid in ("n01443537", "n02119789"):
            put(tmp_path / split / wnid / "1.JPEG")
    for split in ("train", "val"):
        dataset = ImageNet(root=tmp_path, split=split)
        assert (dataset.class_names, dataset.label(1)) == (("n01443537", "n02119789"), 1)


def test_a_class_without_validation_images_keeps_its_number(tmp_path: Path) -> None:
    train_images(tmp_path / "train")
    put(tmp_path / "val" / "n02119789" / "1.JPEG")
    assert ImageNet(root=tmp_path, split="val").label(0) == 2


def test_a_validation_class_that_training_lacks_is_refused(tmp_path: Path) -> None:
    put(tmp_path / "train" / "n02119789" / "1.JPEG")
    put(tmp_path / "val" / "n01440764" / "1.JPEG")
    put(tmp_path / "val" / "n02119789" / "1.JPEG")
    with pytest.raises(
        DataError, match=r"among the 1 of .*train, but 1 are not, such as n01440764, so that the labels"
    ):
        ImageNet(root=tmp_path, split="val").check()


def test_training_images_without_class_folders_are_refused(tmp_path: Path) -> None:
    put(tmp_path / "train" / "n01440764_1.JPEG")
    with pytest.raises(
        DataError, match=r"'n01440764_1.JPEG' in .*train is not in a folder .* or use ImageFolder$"
    ):
        ImageNet(root=tmp_path).check()


def test_images_beside_the_class_folders_are_refused(tmp_path: Path) -> None:
    lines(tmp_path)
    put(tmp_path / "val" / "n01440764" / "1.JPEG")
    with pytest.raises(DataError, match=r"'ILSVRC2012_val_00000001.JPEG' in .*val is not in a folder named"):
        ImageNet(root=tmp_path, split="val").check()


def test_another_folder_among_the_classes_is_refused(tmp_path: Path) -> None:
    put(tmp_path / "train" / "tench" / "1.JPEG")
    with pytest.raises(DataError, match=r"'tench' in .*train is not in a folder named like n01440764"):
        ImageNet(root=tmp_path).check()


def test_it_can_be_configured_where_it_is_not() -> None:
    with torch.device("meta"):
        loader = ImageLoader(dataset=ImageNet(root="/nowhere/imagenet", split="val"), batch_size=8)
    with pytest.raises(
        ValueError,
        match=r"ImageNet: expected /nowhere/imagenet/val/n01440764/\*\.JPEG.*no folder .*/val; get",
    ):
        loader.check()


def test_split() -> None:
    with pytest.raises(ValueError, match="ImageNet: expected split 'train' or 'val', got 'test'"):
        ImageNet(split="test")


def test_the_root_is_an_argument_or_below_vq_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VQ_DATA", raising=False)
    assert ImageNet().root == Path("data/imagenet")
    monkeypatch.setenv("VQ_DATA", str(tmp_path))
    assert ImageNet().root == tmp_path / "imagenet"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert ImageNet(root="~/pictures").root == tmp_path / "pictures"
