"""`vq.tokenize` as a user runs it: killed at any moment, on any number of ranks, the bytes are the same."""

import json
import random
import subprocess
import time
from pathlib import Path

import pytest
import torch
from commands import TINY, refused, run, run_and_kill
from PIL import Image

import vq
from vq.data import TokenStore
from vq.ops.images import to_signed_unit

SHARDS = ["--images-per-shard", "5"]
FOLDER = ".val_data.dataset:dict(type='vq.data.ImageFolder', root='pictures')"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    run("train", "run", TINY, "--config-options", "max_steps:4", cwd=folder)
    pictures = folder / "pictures"
    for i in range(23):
        picture = pictures / f"class{i % 3}" / f"{i:02d}.png"
        picture.parent.mkdir(parents=True, exist_ok=True)
        generator = torch.Generator().manual_seed(i)
        pixels = torch.randint(256, (16, 16, 3), generator=generator, dtype=torch.uint8)
        Image.fromarray(pixels.numpy()).save(picture)
    (pictures / "class1" / "99.png").write_bytes(b"not a picture")
    return folder


def content(store: Path) -> dict[str, bytes]:
    return {f.name: f.read_bytes() for f in sorted(store.iterdir())}


@pytest.fixture(scope="module")
def reference(trained: Path) -> Path:
    run("tokenize", "run", TINY, *SHARDS, "--override", FOLDER, "--out", "one", cwd=trained)
    return trained / "one"


def test_the_store_holds_what_the_tokenizer_says(trained: Path, reference: Path) -> None:
    store = TokenStore(reference)
    store.verify()
    assert (len(store), store.manifest["num_source_images"]) == (23, 24)
    assert [name for shard in store.manifest["shards"] for name in shard["undecodable"]] == ["class1/99.png"]
    tokenizer = vq.load(trained / "work_dirs" / "run")
    for index in (0, 9, 22):
        pixels = torch.frombuffer(
            bytearray(Image.open(trained / "pictures" / store.key(index)).tobytes()), dtype=torch.uint8
        )
        image = to_signed_unit(pixels.view(16, 16, 3).permute(2, 0, 1))[None]
        assert torch.equal(tokenizer.encode(image)[0], store.read(index))
        assert store.label(index) == int(store.key(index)[5])


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [2, 3])
def test_ranks_change_no_byte(trained: Path, reference: Path, ranks: int) -> None:
    out = f"ranks{ranks}"
    run(
        "tokenize", "run", TINY, *SHARDS, "--out", out,
        "--override", FOLDER, cwd=trained, ranks=ranks,
    )  # fmt: skip
    assert content(trained / out) == content(reference)


@pytest.mark.parametrize(
    ("begun", "ranks"),
    [
        ("settings.json", 1),
        pytest.param("shard_00001.notes", 2, marks=pytest.mark.slow),
    ],
)
def test_killed_and_started_again_it_ends_with_the_same_bytes(
    trained: Path, reference: Path, begun: str, ranks: int
) -> None:
    moment = random.SystemRandom().random()
    out = trained / f"killed{ranks}"
    arguments = ["run", TINY, *SHARDS, "--override", FOLDER, "--out", out.name]
    run_and_kill(
        "tokenize", arguments, cwd=trained, ranks=ranks,
        when=(out / begun).exists, delay=moment * 0.05,
    )  # fmt: skip
    damaged = out / "shard_00000.bin"
    if damaged.exists():
        damaged.write_bytes(damaged.read_bytes()[:-1])  # as if the disk had lost its end
    dead = subprocess.Popen(["true"])
    dead.wait()
    (out / f".shard_00001.bin.{dead.pid}.half.partial").write_bytes(b"cut by a kill in the middle of a write")
    before = time.time()
    run("tokenize", *arguments, cwd=trained)
    assert content(out) == content(reference), f"killed after {moment * 0.05:.3f} s"
    assert (out / "manifest.json").stat().st_mtime >= before - 1


def test_a_folder_of_other_tokens_is_refused(
    trained: Path, reference: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(trained)
    said = refused("tokenize", "run", TINY, *SHARDS, "--crops", "2", "--override", FOLDER, "--out", "one")
    assert "holds tokens made otherwise (" in said
    assert "views: 1 there, 2 now" in said


@pytest.mark.slow
def test_two_and_ten_views(trained: Path) -> None:
    overrides = ["--override", FOLDER]
    run("tokenize", "run", TINY, "--crops", "2", *overrides, "--out", "two", cwd=trained)
    run("tokenize", "run", TINY, "--crops", "10", *overrides, "--out", "ten", cwd=trained)
    two, ten = TokenStore(trained / "two"), TokenStore(trained / "ten")
    assert (two.views, ten.views) == (2, 10)
    assert two.read(0, 1).shape == ten.read(0, 9).shape == (8, 8)
    assert json.loads((trained / "ten" / "manifest.json").read_text())["num_images"] == 23


def test_validation_writes_the_same_tokens(trained: Path, reference: Path) -> None:
    run("val", "run", TINY, "--tokenize", "--load-from", "iter_4", "--override", FOLDER, cwd=trained)
    ours, theirs = TokenStore(trained / "work_dirs/run/val/iter_4/tokens"), TokenStore(reference)
    assert len(ours) == len(theirs)
    assert all(torch.equal(ours.read(i), theirs.read(i)) for i in range(len(ours)))
