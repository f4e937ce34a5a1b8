"""The main job, command by command, on one run that is trained once."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import ROOT, TINY, accepted, environment, refused, run
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import vq

KEYS = {"psnr", "codebook_usage", "perplexity"}


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    run("train", "a/run", TINY, cwd=folder)
    return folder


@pytest.fixture
def trained(once: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(once)
    return once


def picture(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def test_a_run_leaves_everything_that_is_promised(trained: Path) -> None:
    folder = trained / "work_dirs" / "a" / "run"
    assert (folder / "config.py").read_text() == TINY.read_text()
    assert json.loads((folder / "config.json").read_text())["trainer"]["max_steps"] == 8
    environment = json.loads((folder / "environment.json").read_text())
    assert environment["machine"]["world_size"] == 1
    assert environment["versions"]["torch"] == torch.__version__
    assert {p.name for p in (folder / "checkpoints").iterdir()} == {f"iter_{n}" for n in (2, 4, 6, 8)}
    checkpoint = {p.name for p in (folder / "checkpoints" / "iter_8").iterdir()}
    assert checkpoint == {
        "MANIFEST.json", "arguments.json", "config.json", "model.safetensors", "model_ema.safetensors",
        "train_state.pt", "validation.json",
    }  # fmt: skip
    assert {p.name for p in (folder / "images").iterdir()} == {"iter_4.png", "iter_8.png"}
    log = (folder / "log.txt").read_text()
    assert "cpu, float32, 1 process x 1 threads" in log
    assert "step 8/8" in log
    assert "eta" in log
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [r["step"] for r in rows if r["split"] == "train"] == [2, 4, 6, 8]
    assert [r["step"] for r in rows if r["split"] == "val"] == [4, 8]
    assert all(KEYS.issubset(r) for r in rows if r["split"] == "val")
    board = EventAccumulator(str(folder / "tensorboard"))
    board.Reload()
    assert [e.step for e in board.Scalars("train/loss/total")] == [2, 4, 6, 8]


def test_val_scores_every_checkpoint_and_ends(trained: Path) -> None:
    done = run("val", "a/run", TINY, cwd=trained)  # a process of its own: it must end
    folder = trained / "work_dirs" / "a" / "run"
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    during_training = {r["step"]: r["psnr"] for r in rows if r["split"] == "val"}
    for step in (2, 4, 6, 8):
        record = json.loads((folder / "val" / f"iter_{step}" / "metrics.json").read_text())
        assert record["num_images"] == 13
        assert record["averaged_weights"] is True
        if step in during_training:  # the same weights, the same set, the same number
            assert record["scores"]["psnr"] == pytest.approx(during_training[step], abs=1e-9)
    assert "psnr" in done.stdout
    assert (folder / "val" / "iter_8" / "reconstructions.png").is_file()


@pytest.mark.slow
def test_val_takes_names_and_visuals_on_two_ranks(trained: Path) -> None:
    folder = trained / "work_dirs" / "a" / "run" / "val" / "iter_8"
    accepted("val", "a/run", TINY, "--load-from", "iter_8")
    alone = json.loads((folder / "metrics.json").read_text())["scores"]
    run("val", "a/run", TINY, "--load-from", "iter_8", "--visual", "recon.*|image", cwd=trained, ranks=2)
    record = json.loads((folder / "metrics.json").read_text())
    assert record["num_images"] == 13  # 13 images on 2 ranks: each counted once
    assert record["scores"] == pytest.approx(alone, rel=1e-6)
    assert len(list((folder / "visual").glob("image_*.png"))) == 13
    assert len(list((folder / "visual").glob("reconstruction_*.png"))) == 13
    missing = refused("val", "a/run", TINY, "--load-from", "iter_9")
    assert "has no checkpoint 'iter_9'; there are: iter_2, iter_4, iter_6, iter_8" in missing


def test_follow_ends_with_the_last_step(trained: Path) -> None:
    assert "iter_8" in accepted("val", "a/run", TINY, "--follow")


def test_test_scores_one_file(trained: Path) -> None:
    weights = "work_dirs/a/run/checkpoints/iter_4/model.pth"  # the file's name in the original commands
    accepted("test", "b", TINY, "--load-model-from", weights)
    record = json.loads((trained / "work_dirs" / "b" / "test" / "metrics.json").read_text())
    assert record["weights"] == [weights.replace(".pth", ".safetensors")]
    assert record["averaged_weights"] is False


def test_load_gives_a_tokenizer_without_executing_a_file(trained: Path) -> None:
    code = (
        "import sys, torch, vq; t = vq.load('work_dirs/a/run'); i = t.encode(torch.zeros(2, 3, 16, 16));"
        "assert i.dtype == torch.int64 and i.shape == (2, 8, 8);"
        "assert t.decode(i).shape == (2, 3, 16, 16) and not t.training;"
        "assert 'tiny_page' not in str(list(sys.modules)); print('ok')"
    )
    config = trained / "work_dirs" / "a" / "run" / "config.py"
    config.write_text("raise SystemExit('executed')")
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=trained,
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "ok"
    config.write_text(TINY.read_text())


def test_inference_writes_pictures_and_indices_that_decode(trained: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 255, (37, 50, 3), dtype=np.uint8)).save(tmp_path / "a.png")
    model = trained / "work_dirs" / "a" / "run"
    run("inference", model, tmp_path / "a.png", "--out", tmp_path / "out", cwd=trained)
    indices = np.load(tmp_path / "out" / "a_indices.npy")
    assert indices.shape == (18, 25)  # cropped to what the stride of 2 divides
    beside = picture(tmp_path / "out" / "a_reconstruction.png")
    assert beside.shape == (36, 50 + 4 + 50, 3)
    assert picture(tmp_path / "out" / "a_indices.png").shape == (36, 50, 3)
    accepted("inference", model, tmp_path / "out" / "a_indices.npy", "--out", tmp_path / "out")
    assert np.array_equal(picture(tmp_path / "out" / "a_indices_decoded.png"), beside[:, 54:])
    other = ["--load-model-from", model, "--size", 16, "--out", tmp_path / "two"]
    accepted("inference", TINY, tmp_path / "a.png", *other)
    assert np.load(tmp_path / "two" / "a_indices.npy").shape == (8, 8)


def test_dry_run_prints_the_plan_and_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    said = accepted("train", "plan", TINY, "--dry-run")
    for words in (
        "parameters: ",
        "memory per rank, estimated",
        "plan: 8 steps of 8 images",
        "8 x 8 indices out of 16",
    ):
        assert words in said
    assert not list(tmp_path.iterdir())


def test_bf16_and_weights_from_another_run(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    weights = trained / "work_dirs" / "a" / "run" / "checkpoints" / "iter_8"
    accepted("train", "bf16", TINY, "--autocast", "--load-model-from", weights)
    assert "bfloat16 autocast" in (tmp_path / "work_dirs" / "bf16" / "log.txt").read_text()
    loaded = vq.load(tmp_path / "work_dirs" / "bf16")
    assert loaded.encode(torch.zeros(1, 3, 16, 16)).shape == (1, 8, 8)


def test_wandb_works_offline(tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    done = subprocess.run(
        [sys.executable, "-m", "vq.train", "run", str(TINY), "--wandb"],
        cwd=tmp_path, env=environment(WANDB_MODE="offline", WANDB_SILENT="true"),
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "failed in" not in done.stderr
    assert list((tmp_path / "work_dirs" / "run" / "wandb").glob("offline-run-*/*.wandb"))


def test_a_resumed_run_keeps_what_it_was_started_with(
    once: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(once / "work_dirs" / "a" / "run", tmp_path / "work_dirs" / "run")
    accepted("train", "run", TINY, "--auto-resume", "--override", ".trainer.max_steps:10")
    folder = tmp_path / "work_dirs" / "run"
    steps = [
        json.loads((folder / name).read_text())["trainer"]["max_steps"]
        for name in ("config.json", "config.json.1")
    ]
    assert steps == [10, 8]
    assert (folder / "environment.json.1").is_file()
    assert (folder / "checkpoints" / "iter_10").is_dir()


@pytest.mark.parametrize(
    "module", ["train", "val", "test", "inference", "compare", "tokenize", "generate", "fid"]
)
def test_help_teaches(module: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", f"vq.{module}", "--help"],
        cwd=ROOT, env=environment(), capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "example:" in done.stdout
    assert f"vq {module}" in done.stdout
