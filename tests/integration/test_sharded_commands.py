"""`vq tokenize` and `vq fid` give for tars what they give for a folder with the same images."""

import json
from pathlib import Path

import pytest
import torch
from commands import TINY, accepted, refused
from tar_shards import png, write_shards, write_tar
from test_evaluation_commands import PAGE, SINGULAR, needs_weights

from vq.data import TokenStore
from vq.metrics import ReferenceStatistics

SIZES = (5, 0, 8)
TARS = "dict(type='vq.data.WebDataset', shards='tars/*.tar')"
FOLDER = "dict(type='vq.data.ImageFolder', root='folder')"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VQ_PRETRAINED", str(tmp_path / "pretrained"))
    monkeypatch.setenv("VQ_CACHE", str(tmp_path / "cache"))
    write_shards(tmp_path / "tars", SIZES)
    write_tar(tmp_path / "tars" / "003.tar", {"broken.png": b"not a picture", "broken.cls": b"1"})
    for number in range(sum(SIZES)):
        file = tmp_path / "folder" / str(number % 3) / f"{number:03d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(png(number))
    return tmp_path


def test_tokens_have_the_keys_and_labels_of_the_tars(place: Path) -> None:
    accepted("train", "run", TINY, "--override", ".trainer.max_steps:2", ".evaluator.every:9",
             f".train_data.dataset:{TARS}", f".val_data.dataset:{TARS}", ".train_data.max_undecodable:0.5")  # fmt: skip
    words = ["run", "--images-per-shard", "4", "--out"]
    accepted("tokenize", *words, "a", "--override", f".val_data.dataset:{TARS}")
    accepted("tokenize", *words, "b", "--override", f".val_data.dataset:{FOLDER}")
    tars, folder = TokenStore(place / "a"), TokenStore(place / "b")
    tars.verify()
    of_folder = {int(folder.key(i)[-7:-4]): folder.read(i) for i in range(len(folder))}
    assert len(tars) == len(folder) == sum(SIZES)
    for number in range(len(tars)):
        assert torch.equal(tars.read(number), of_folder[number])
        assert tars.label(number) == number % 3
    assert (tars.key(4), tars.key(5)) == ("000.tar:0004", "002.tar:0000")
    skipped = [name for shard in tars.manifest["shards"] for name in shard["undecodable"]]
    assert skipped == ["003.tar:broken"]


@needs_weights
@SINGULAR
def test_statistics_are_those_of_the_folder(place: Path) -> None:
    Path("page.py").write_text(PAGE)
    found = []
    for name, dataset in (("a", TARS), ("b", FOLDER)):
        accepted("fid", "page.py", "--out", f"{name}.npz", "--override", f".dataloader.dataset:{dataset}",
                 ".dataloader.batch_size:1")  # fmt: skip
        found.append(ReferenceStatistics.load(place / f"{name}.npz"))
    tars, folder = found
    assert tars.stamp.num_images == folder.stamp.num_images == sum(SIZES)
    torch.testing.assert_close(tars.mean, folder.mean, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(tars.covariance, folder.covariance, rtol=1e-5, atol=1e-6)


def test_a_config_names_what_it_does_not_know(place: Path) -> None:
    dataset = "dict(type='vq.data.WebDataset', shards='tars/*.tar', {}=1)"
    message = refused(
        "train", "run", TINY, "--override", f".train_data.dataset:{dataset.format('cache_foldr')}"
    )
    assert "did you mean 'cache_folder'" in message
    accepted("train", "run", TINY, "--override", ".trainer.max_steps:1", ".evaluator.every:100",
             f".train_data.dataset:{TARS[:-1]}, max_pixels=400)")  # fmt: skip
    stored = json.loads((place / "work_dirs" / "run" / "config.json").read_text())
    assert stored["train_data"]["dataset"]["max_pixels"] == 400
