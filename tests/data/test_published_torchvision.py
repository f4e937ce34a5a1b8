"""TorchvisionDataset over small files in the layouts that torchvision reads."""

import hashlib
import json
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
from PIL import Image
from torchvision import datasets

from vq.data import DataError, ImageLoader, TorchvisionDataset, UndecodableImage
from vq.data.sets.published.torchvision_sets import NAMES


def md5(file: Path) -> str:
    return hashlib.md5(file.read_bytes()).hexdigest()


@pytest.fixture
def cifar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """CIFAR-10 with three training images and one for testing, and their checksums in place of the real ones."""
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for name, labels in (("data_batch_1", [6, 9, 0]), ("test_batch", [3])):
        pixels = np.arange(len(labels) * 3072).reshape(len(labels), 3072) % 251
        content = {"data": pixels.astype(np.uint8), "labels": labels}
        (folder / name).write_bytes(pickle.dumps(content))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": [f"class {i}" for i in range(10)]}))
    sums = {file.name: md5(file) for file in folder.iterdir()}
    monkeypatch.setattr(datasets.CIFAR10, "train_list", [["data_batch_1", sums["data_batch_1"]]])
    monkeypatch.setattr(datasets.CIFAR10, "test_list", [["test_batch", sums["test_batch"]]])
    meta = {"filename": "batches.meta", "key": "label_names", "md5": sums["batches.meta"]}
    monkeypatch.setattr(datasets.CIFAR10, "meta", meta)
    return tmp_path


def put_mnist(root: Path, name: str, prefix: str, labels: list[int]) -> None:
    folder = root / name / "raw"
    folder.mkdir(parents=True, exist_ok=True)
    pixels = bytes(range(6)) * len(labels)
    header = struct.pack(">4i", 2051, len(labels), 2, 3)
    (folder / f"{prefix}-images-idx3-ubyte").write_bytes(header + pixels)
    (folder / f"{prefix}-labels-idx1-ubyte").write_bytes(
        struct.pack(">2i", 2049, len(labels)) + bytes(labels)
    )


def put_food(root: Path) -> Path:
    """Food-101 with two images of two classes in the training split."""
    folder = root / "food-101"
    (folder / "meta").mkdir(parents=True)
    for split, number in (("train", 1), ("test", 2)):
        listed = {name: [f"{name}/{number}"] for name in ("apple_pie", "waffles")}
        (folder / "meta" / f"{split}.json").write_text(json.dumps(listed))
        for name in listed:
            file = folder / "images" / name / f"{number}.jpg"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (6, 4), (50, 50, 50)).save(file)
    return folder


class TestCIFAR:
    def test_pixels_labels_and_names_are_those_of_the_files(self, cifar: Path) -> None:
        train = TorchvisionDataset(name="CIFAR10", root=cifar)
        test = TorchvisionDataset(name="CIFAR10", root=cifar, split="test")
        assert [train.label(i) for i in range(len(train))] == [6, 9, 0]
        assert (len(test), test.label(0), test.class_names[3]) == (1, 3, "class 3")
        assert [train.key(i) for i in range(3)] == [f"CIFAR10/train/0000{i}" for i in range(3)]
        assert test.key(0) == "CIFAR10/test/00000"
        expected = (np.arange(3072) % 251).reshape(3, 32, 32)
        np.testing.assert_array_equal(test.read(0).numpy(), expected)

    def test_workers_read_the_same(self, cifar: Path) -> None:
        loader = ImageLoader(
            dataset=TorchvisionDataset(name="CIFAR10", root=cifar), batch_size=3, num_workers=2
        )
        (batch,) = loader.pass_batches()
        assert (batch["label"].tolist(), batch["key"][2]) == ([6, 9, 0], "CIFAR10/train/00002")

    @pytest.mark.parametrize("name", ["test_batch", "batches.meta"])
    def test_a_pickle_with_another_checksum_is_refused_and_never_run(self, cifar: Path, name: str) -> None:
        marker = cifar / "executed"

        class Code:
            def __reduce__(self) -> tuple[Any, ...]:
                return Path.touch, (marker,)

        (cifar / "cifar-10-batches-py" / name).write_bytes(pickle.dumps(Code()))
        with pytest.raises(
            DataError, match=r"torchvision cannot read CIFAR10 in .*found or corrupted.*check `split`"
        ):
            TorchvisionDataset(name="CIFAR10", root=cifar, split="test").check()
        assert not marker.exists()
        pickle.loads((cifar / "cifar-10-batches-py" / name).read_bytes())
        assert marker.exists(), "the file would have run code"

    def test_real_checksums_are_used(self, tmp_path: Path) -> None:
        assert datasets.CIFAR10.meta["md5"] == "5ff9c542aee3614f3951f8cda6e48888"
        with pytest.raises(DataError, match=r"put its files there, or set `root` or download=True"):
            TorchvisionDataset(name="CIFAR100", root=tmp_path).check()


class TestOtherSets:
    @pytest.mark.parametrize("name", ["MNIST", "FashionMNIST", "KMNIST"])
    def test_mnist_is_grey(self, tmp_path: Path, name: str) -> None:
        put_mnist(tmp_path, name, "t10k", [7, 2])
        put_mnist(tmp_path, name, "train", [1])
        grey = TorchvisionDataset(name=name, root=tmp_path, split="test", channels=1)
        assert (grey.channels, grey.read(1).flatten().tolist()) == (1, list(range(6)))
        assert [grey.label(i) for i in range(2)] == [7, 2]
        assert len(grey.class_names) == 10
        rgb = TorchvisionDataset(name=name, root=tmp_path, split="test")
        assert rgb.read(1).shape == (3, 2, 3)
        assert (rgb.read(1) == grey.read(1)).all()

    def test_emnist_takes_its_own_split_as_an_argument(self, tmp_path: Path) -> None:
        put_mnist(tmp_path, "EMNIST", "emnist-letters-train", [1, 26])
        letters = TorchvisionDataset(name="EMNIST", root=tmp_path, arguments={"split": "letters"})
        assert [letters.class_names[letters.label(i)] for i in range(2)] == ["a", "z"]

    def test_svhn_names_its_classes_by_numbers(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        pixels = np.zeros((32, 32, 3, 2), dtype=np.uint8)
        file = tmp_path / "test_32x32.mat"
        scipy.io.savemat(file, {"X": pixels, "y": np.array([[10], [3]], dtype=np.uint8)})
        monkeypatch.setitem(datasets.SVHN.split_list, "test", ["", file.name, md5(file)])
        dataset = TorchvisionDataset(name="SVHN", root=tmp_path, split="test")
        assert [dataset.label(i) for i in range(2)] == [0, 3]
        assert dataset.class_names == ("0", "1", "2", "3")

    def test_images_without_a_label_are_one_more_class(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        folder = tmp_path / "stl10_binary"
        folder.mkdir()
        for name in ("train_X.bin", "unlabeled_X.bin", "test_X.bin"):
            (folder / name).write_bytes(bytes(2 * 3 * 96 * 96))
        for name in ("train_y.bin", "test_y.bin"):
            (folder / name).write_bytes(bytes([2, 1]))
        (folder / "class_names.txt").write_text("airplane\nbird\n")
        for name in ("train_list", "test_list"):
            listed = [[file, md5(folder / file)] for file, _ in getattr(datasets.STL10, name)]
            monkeypatch.setattr(datasets.STL10, name, listed)
        both = TorchvisionDataset(name="STL10", root=tmp_path, split="train+unlabeled")
        assert [both.class_names[both.label(i)] for i in range(4)] == [
            "bird",
            "airplane",
            *2 * ["unlabeled"],
        ]
        assert TorchvisionDataset(name="STL10", root=tmp_path).class_names == ("airplane", "bird")
        assert both.key(3) == "STL10/train+unlabeled/00003"

    def test_a_set_of_files_decodes_each_once(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        put_food(tmp_path)
        dataset = TorchvisionDataset(name="Food101", root=tmp_path)
        assert dataset.class_names == ("apple_pie", "waffles")
        opened: list[Any] = []
        real = Image.open
        monkeypatch.setattr(Image, "open", lambda file, *args: opened.append(file) or real(file, *args))
        assert [(dataset.read(i).shape, dataset.label(i)) for i in range(2)] == [
            ((3, 4, 6), 0),
            ((3, 4, 6), 1),
        ]
        assert len(opened) == 2

    def test_a_broken_image_is_undecodable(self, tmp_path: Path) -> None:
        (put_food(tmp_path) / "images/waffles/1.jpg").write_bytes(b"broken")
        dataset = TorchvisionDataset(name="Food101", root=tmp_path)
        with pytest.raises(UndecodableImage, match=r"^Food101/train/00001: UnidentifiedImageError"):
            dataset.read(1)

    def test_an_eps_file_starts_no_program(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        program = tmp_path / "bin" / "gs"
        program.parent.mkdir()
        program.write_text(f"#!/bin/sh\ntouch {tmp_path}/executed\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{program.parent}:/bin:/usr/bin")
        monkeypatch.setattr("PIL.EpsImagePlugin.gs_binary", None)
        file = put_food(tmp_path) / "images/waffles/1.jpg"
        file.write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 4\n%%EndComments\nshowpage\n%%EOF\n")
        dataset = TorchvisionDataset(name="Food101", root=tmp_path)
        with pytest.raises(UndecodableImage, match="Ghostscript"):
            dataset.read(1)
        assert not (tmp_path / "executed").exists()
        monkeypatch.setattr("PIL.EpsImagePlugin.gs_binary", None)
        with Image.open(file) as image, pytest.raises(OSError, match=r"."):
            image.load()
        assert (tmp_path / "executed").exists(), "Pillow alone would have started it"

    def test_a_set_without_splits(self, tmp_path: Path) -> None:
        for name in ("Forest", "River"):
            file = tmp_path / "eurosat" / "2750" / name / f"{name}_1.jpg"
            file.parent.mkdir(parents=True)
            Image.new("RGB", (6, 4)).save(file)
        dataset = TorchvisionDataset(name="EuroSAT", root=tmp_path, split=None)
        assert (dataset.key(1), dataset.label(1)) == ("EuroSAT/00001", 1)
        assert dataset.class_names == ("Forest", "River")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"name": "CIFAR"}, r"got 'CIFAR'; did you mean 'CIFAR10'\?"),
        ({"name": "LSUN"}, r"expected the name of a class of torchvision.datasets .* got 'LSUN'"),
        ({"name": "CIFAR10", "split": "val"}, r"CIFAR10: expected split 'train' or 'test', got 'val'"),
        ({"name": "CIFAR10", "split": None}, r"CIFAR10: expected split=a split such as 'train', got None"),
        ({"name": "EuroSAT"}, r"EuroSAT: expected split=None, because it has no splits, got 'train'"),
        ({"name": "CIFAR10", "channels": 2}, r"expected channels 1, 3 or 4, got 2"),
        ({"name": "FER2013", "download": True}, r"torchvision cannot download FER2013; set download=False"),
        (
            {"name": "MNIST", "arguments": {"train": False}},
            r"takes no 'train' .*valid: none \(the split is `split`\)",
        ),
        ({"name": "STL10", "arguments": {"fold": 1}}, r"STL10 takes no 'fold' in `arguments`; valid: folds$"),
        ({"name": "SVHN", "arguments": {"split": "extra"}}, r"SVHN takes no 'split' .* \(the split is"),
        ({"name": "DTD", "arguments": {"transform": None}}, r"DTD takes no 'transform' .*valid: partition$"),
    ],
)
def test_arguments_are_checked_against_the_class(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError, match=said):
        TorchvisionDataset(**arguments)


def test_what_torchvision_refuses_is_named(tmp_path: Path) -> None:
    dataset = TorchvisionDataset(name="SVHN", root=tmp_path, split="val")
    with pytest.raises(
        DataError, match=r"cannot read SVHN .*ValueError: Unknown value 'val' for argument split"
    ):
        dataset.check()


def test_labels_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    put_food(tmp_path)
    dataset = TorchvisionDataset(name="Food101", root=tmp_path)
    dataset._source._labels = [None, None]  # as in the test split of CLEVRClassification
    with pytest.raises(DataError, match=r"the number of its class from Food101, got the label None; check"):
        dataset.label(0)


@pytest.mark.parametrize("name", NAMES)
def test_every_name_is_a_class_that_can_be_configured(name: str) -> None:
    splits = [split for split in ("train", None) if _accepts(name, split)]
    assert len(splits) == 1


def _accepts(name: str, split: str | None) -> bool:
    try:
        TorchvisionDataset(name=name, split=split)
    except DataError:
        return False
    return True


def test_the_root_is_an_argument_or_below_vq_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VQ_DATA", str(tmp_path))
    assert TorchvisionDataset(name="MNIST").root == tmp_path / "torchvision"
    assert TorchvisionDataset(name="MNIST", root="x").root == Path("x")


def test_a_download_waits_for_that_of_another_process(cifar: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever comes later finds the files; nothing is downloaded again."""
    calls: list[bool] = []
    monkeypatch.setattr(datasets.CIFAR10, "download", lambda self: calls.append(self._check_integrity()))
    assert len(TorchvisionDataset(name="CIFAR10", root=cifar, download=True)) == 3
    assert calls == [True]
    assert (cifar / ".download.lock").exists()
