"""CelebA, CelebA-HQ and FFHQ in folders that the tests make in their layouts."""

from pathlib import Path

import pytest
from PIL import Image

from vq.data import FFHQ, CelebA, CelebAHQ, DataError, ImageDataset


def put(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (6, 4), (7, 7, 7)).save(path)


def keys(dataset: ImageDataset) -> list[str]:
    return [dataset.key(i) for i in range(len(dataset))]


class TestCelebA:
    PARTITION = "000001.jpg 0\n000002.jpg 1\n000003.jpg 2\n000004.jpg 0\n"

    def put(self, root: Path, folder: str, file: str, text: str = PARTITION) -> None:
        put(*(root / folder / f"{number:06d}.jpg" for number in range(1, 5)))
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_text(text)

    @pytest.mark.parametrize(
        ("folder", "file"),
        [
            ("img_align_celeba", "list_eval_partition.txt"),
            ("Img/img_align_celeba", "Eval/list_eval_partition.txt"),
            ("celeba/img_align_celeba", "celeba/list_eval_partition.txt"),
            ("img_align_celeba/img_align_celeba", "list_eval_partition.csv"),
        ],
    )
    def test_the_official_split_in_each_layout(self, tmp_path: Path, folder: str, file: str) -> None:
        text = self.PARTITION
        if file.endswith(".csv"):
            text = "image_id,partition\n" + text.replace(" ", ",")
        self.put(tmp_path, folder, file, text)
        found = {split: keys(CelebA(root=tmp_path, split=split)) for split in ("train", "val", "test")}
        assert found == {
            "train": ["000001.jpg", "000004.jpg"],
            "val": ["000002.jpg"],
            "test": ["000003.jpg"],
        }
        dataset = CelebA(root=tmp_path, split="val")
        assert (dataset.label(0), dataset.class_names, dataset.read(0).shape) == (0, ("face",), (3, 4, 6))

    def test_images_without_a_line_and_lines_without_an_image(self, tmp_path: Path) -> None:
        self.put(tmp_path, "img_align_celeba", "list_eval_partition.txt")
        (tmp_path / "img_align_celeba/000002.jpg").rename(tmp_path / "img_align_celeba/000009.jpg")
        with pytest.raises(
            DataError, match=r"CelebA: .*no file, such as '000002.jpg'; 1 image files .*'000009.jpg'"
        ):
            CelebA(root=tmp_path).check()

    @pytest.mark.parametrize("line", ["000002.jpg 3", "000001.jpg 0", "000002.png 0", ""])
    def test_a_damaged_line_is_named(self, tmp_path: Path, line: str) -> None:
        self.put(
            tmp_path,
            "img_align_celeba",
            "list_eval_partition.txt",
            self.PARTITION.replace("000002.jpg 1", line),
        )
        with pytest.raises(DataError, match=rf"CelebA: expected another image .*, got '{line}' in line 2 of"):
            CelebA(root=tmp_path).check()

    def test_a_missing_part_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(
            DataError, match=r"CelebA: expected .*000001.jpg .* found none of img_align_celeba/"
        ):
            CelebA(root=tmp_path).check()
        put(tmp_path / "img_align_celeba" / "000001.jpg")
        with pytest.raises(DataError, match=r"found none of list_eval_partition.txt, .*get both from https"):
            CelebA(root=tmp_path).check()


class TestCelebAHQ:
    def test_folders_train_and_val_decide(self, tmp_path: Path) -> None:
        for name in ("train/female/1.jpg", "train/male/2.jpg", "val/male/3.jpg", "celeba_hq_256/9.jpg"):
            put(tmp_path / name)
        train, val = (CelebAHQ(root=tmp_path, split=split) for split in ("train", "val"))
        assert (keys(train), keys(val)) == (["train/female/1.jpg", "train/male/2.jpg"], ["val/male/3.jpg"])
        assert train.class_names == val.class_names == ("female", "male")
        assert val.label(0) == 1
        with pytest.raises(DataError, match=r"split 'train' or 'val' for .*/train and val, got 'test'"):
            CelebAHQ(root=tmp_path, split="test").check()

    def test_the_mapping_to_celeba_gives_its_official_split(self, tmp_path: Path) -> None:
        originals = (1, 162_770, 162_771, 182_637, 182_638, 202_599)
        put(*(tmp_path / f"CelebA-HQ-img/{i}.jpg" for i in range(6)))
        lines = [f"{i:<12}{n - 1:<12}{n:06d}.jpg" for i, n in enumerate(originals)]
        mapping = tmp_path / "CelebA-HQ-to-CelebA-mapping.txt"
        mapping.write_text("\n".join(["idx         orig_idx    orig_file", *lines, ""]))
        found = [keys(CelebAHQ(root=tmp_path, split=split)) for split in ("train", "val", "test")]
        assert found == [[f"CelebA-HQ-img/{i}.jpg" for i in pair] for pair in ((0, 1), (2, 3), (4, 5))]
        put(tmp_path / "CelebA-HQ-img/6.jpg")
        with pytest.raises(DataError, match=r"CelebAHQ: .*1 image files are not in it, such as '6.jpg'"):
            CelebAHQ(root=tmp_path).check()
        mapping.write_text(lines[0] + "\n0 1\n")
        with pytest.raises(DataError, match=r"idx orig_idx orig_file`, got '0 1' in line 2 of .*mapping.txt"):
            CelebAHQ(root=tmp_path).check()

    def test_else_the_last_images_are_for_validation(self, tmp_path: Path) -> None:
        put(*(tmp_path / f"celeba_hq_256/{i:05d}.jpg" for i in range(5)))
        train, val = (CelebAHQ(root=tmp_path, split=split, num_val=2) for split in ("train", "val"))
        assert keys(train) == [f"celeba_hq_256/{i:05d}.jpg" for i in range(3)]
        assert keys(val) == [f"celeba_hq_256/{i:05d}.jpg" for i in (3, 4)]
        with pytest.raises(
            DataError, match=r"expected num_val from 1 to 4 for a set of 5 images, got 5,000; set num_val"
        ):
            CelebAHQ(root=tmp_path).check()
        with pytest.raises(
            DataError, match=r"for .*celeba_hq_256 without CelebA-HQ-to-.*, got 'test'; only the images"
        ):
            CelebAHQ(root=tmp_path, split="test").check()

    def test_of_several_folders_one_is_chosen(self, tmp_path: Path) -> None:
        put(*(tmp_path / f"{folder}/{i}.jpg" for folder in ("data256x256", "data1024x1024") for i in (1, 2)))
        with pytest.raises(
            DataError, match=r"found data256x256 and data1024x1024; choose one by images='data256x256'"
        ):
            CelebAHQ(root=tmp_path).check()
        chosen = CelebAHQ(root=tmp_path, images="data1024x1024", num_val=1)
        assert keys(chosen) == ["data1024x1024/1.jpg"]
        assert keys(CelebAHQ(root=tmp_path / "data256x256", images=".", num_val=1)) == ["1.jpg"]

    def test_no_folder_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(
            DataError, match=r"or one of images named CelebA-HQ-img, celeba_hq_256, .* neither"
        ):
            CelebAHQ(root=tmp_path).check()
        with pytest.raises(DataError, match=r"or one of images named faces, found neither"):
            CelebAHQ(root=tmp_path, images="faces").check()


class TestFFHQ:
    @pytest.mark.parametrize("folder", ["images1024x1024", "thumbnails128x128"])
    def test_the_number_decides(self, tmp_path: Path, folder: str) -> None:
        names = ["00000/00000.png", "59000/59999.png", "60000/60000.png", "69000/69999.png"]
        put(*(tmp_path / folder / name for name in names))
        (tmp_path / folder / "LICENSE.txt").write_text("CC BY-NC-SA 4.0")
        train, val = (FFHQ(root=tmp_path, split=split) for split in ("train", "val"))
        assert keys(train) == [f"{folder}/{name}" for name in names[:2]]
        assert keys(val) == [f"{folder}/{name}" for name in names[2:]]
        assert (val.class_names, val.label(1), val.read(1).shape) == (("face",), 0, (3, 4, 6))

    def test_smaller_copies_without_folders_of_1000(self, tmp_path: Path) -> None:
        put(tmp_path / "resized/00001.jpg", tmp_path / "resized/69999.jpg")
        assert keys(FFHQ(root=tmp_path, split="val", images="resized")) == ["resized/69999.jpg"]

    def test_folders_train_and_val_decide(self, tmp_path: Path) -> None:
        put(tmp_path / "train/69999.png", tmp_path / "val/00000.png")
        assert keys(FFHQ(root=tmp_path, split="val")) == ["val/00000.png"]

    @pytest.mark.parametrize("name", ["face.png", "70000.png", "a/00000.png", "1.png"])
    def test_another_name_is_refused(self, tmp_path: Path, name: str) -> None:
        put(tmp_path / "images256x256" / "00000.png", tmp_path / "images256x256" / name)
        with pytest.raises(DataError, match=rf"FFHQ: expected images named by their numbers.*, got '{name}'"):
            FFHQ(root=tmp_path).check()

    def test_a_split_without_images_is_refused(self, tmp_path: Path) -> None:
        put(tmp_path / "images256x256" / "00000.png")
        with pytest.raises(DataError, match=r"FFHQ: expected at least 1 image, got none"):
            FFHQ(root=tmp_path, split="val").check()


@pytest.mark.parametrize(("kind", "name"), [(CelebA, "celeba"), (CelebAHQ, "celeba_hq"), (FFHQ, "ffhq")])
def test_arguments_and_roots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type, name: str) -> None:
    monkeypatch.setenv("VQ_DATA", str(tmp_path))
    assert kind().root == tmp_path / name
    assert kind(root="here").root == Path("here")
    with pytest.raises(DataError, match=rf"{kind.__name__}: expected split 'train'.* got 'valid'"):
        kind(split="valid")
