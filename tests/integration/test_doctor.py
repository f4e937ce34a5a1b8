"""The command vq doctor: what it examines, prints and returns, and that it writes nothing."""

import io
import json
import re
import shutil
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import TINY, accepted, contents, environment, refused
from PIL import Image
from rich.console import Console

from vq import doctor
from vq.completion import candidates
from vq.engine.doctor.findings import ok, trouble, warning
from vq.engine.doctor.report import show


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        accepted("train", "tiny", TINY)
    return folder


@pytest.fixture
def run(trained: Path, empty: Path) -> Path:
    shutil.copytree(trained, empty, dirs_exist_ok=True)
    return empty / "work_dirs" / "tiny"


def examined(capsys: pytest.CaptureFixture[str], *words: object, code: int = 0) -> dict[str, Any]:
    """Runs the command with --json; its findings. It prints nothing else, and writes nothing."""
    before = contents(Path.cwd())
    with nullcontext() if code == 0 else pytest.raises(SystemExit) as end:
        doctor.main(["--json", *map(str, words)])
    if code:
        assert end.value.code == code
    printed = capsys.readouterr()
    assert printed.err == ""
    assert contents(Path.cwd()) == before
    found: dict[str, Any] = json.loads(printed.out)
    assert not [f for f in found["findings"] if f["place"] == "doctor"], "a check failed"
    assert sum(f["level"] == "trouble" for f in found["findings"]) == found["troubles"]
    return found


def lines_of(found: dict[str, Any], level: str) -> list[str]:
    return [f"{f['place']}: {f['what']}" for f in found["findings"] if f["level"] == level]


def test_without_arguments_it_examines_the_machine(empty: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = examined(capsys)
    assert found["subject"] == "this machine"
    assert {"packages", "device"} <= {f["place"] for f in found["findings"]}
    assert "train_data" not in {f["place"] for f in found["findings"]}


def test_a_page_that_is_fine(empty: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = examined(capsys, TINY)
    assert found["subject"] == f"page {TINY}"
    assert found["troubles"] == found["warnings"] == 0
    assert any(
        text.startswith("batch: 8 per step: 1 process x 1 micro-batch of 8") for text in lines_of(found, "ok")
    )


def test_the_options_of_a_training_count(empty: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = examined(
        capsys, "new", TINY, "--config-options", "max_steps:3", "--override", ".evaluator.every:2", "--wandb"
    )
    assert found["subject"] == f"{TINY} as work_dirs/new"
    assert any("3 steps are 0.4 epochs of 64 samples" in text for text in lines_of(found, "warning"))


def test_warnings_alone_end_with_0_and_trouble_with_1(
    empty: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = examined(capsys, TINY, "--override", ".evaluator.every:9")
    assert (found["troubles"], found["warnings"]) == (0, 1)
    found = examined(capsys, TINY, "--override", ".evaluator.every:9", ".train_step.optimizer.lr:0.0", code=1)
    levels = [(f["level"], f["step"]) for f in found["findings"][:2]]
    assert levels == [("trouble", None), ("warning", 8)]  # what never shows comes first


def test_a_page_without_its_data_and_weights(
    empty: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("VQ_DATA", raising=False)
    found = examined(capsys, "vqgan/8192_imagenet_ddp", "--device", "cpu", code=1)
    missing = [text for text in lines_of(found, "trouble") if "expected" in text or "pretrained" in text]
    assert [text.partition(":")[0] for text in missing] == [
        "evaluator.metrics[5].network",
        "evaluator.metrics[5].reference",
        "train_data",
        "val_data",
    ]
    disk = [f["what"] for f in found["findings"] if f["place"] == "disk"]  # all else was done
    assert (
        len(disk) == 1
    )  # whether 26 checkpoints fit depends on the machine's disk, so the level is not compared
    assert "the run writes 26 checkpoints of 8" in disk[0]
    named = {f["place"] for f in found["findings"]}
    assert {"memory", "time", "batch"} <= named


def test_a_run(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = examined(capsys, "tiny")
    assert found["subject"] == "run work_dirs/tiny"
    assert lines_of(found, "trouble") == []
    assert lines_of(found, "warning") == [
        "trainer.max_steps: 8, and iter_8 is there already: nothing is left to train"
    ]
    found = examined(capsys, "tiny", "--override", ".trainer.max_steps:20")
    assert "resume: continues from work_dirs/tiny/checkpoints/iter_8; 12 of 20 steps are left" in lines_of(
        found, "ok"
    )
    found = examined(capsys, "tiny", TINY, code=1)
    assert "work_dirs/tiny: already holds a trained run" in lines_of(found, "trouble")
    (run / "checkpoints/iter_8/train_state.pt").write_bytes(b"cut")
    found = examined(capsys, "tiny")
    assert any("iter_8: damaged: train_state.pt has 3 bytes" in text for text in lines_of(found, "warning"))
    assert any("continues from work_dirs/tiny/checkpoints/iter_6" in text for text in lines_of(found, "ok"))


def test_own_pictures_with_broken_ones(empty: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for i in range(40):
        path = empty / "mine" / ("val" if i % 4 == 0 else "train") / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(i).integers(0, 256, (20, 30, 3), dtype=np.uint8)).save(path)
    for i in range(1, 4):
        (empty / f"mine/train/{i}.png").write_bytes(b"nothing")
    shutil.copy(empty / "mine/train/5.png", empty / "mine/val/5.png")
    crop = "[dict(type='Resize', size=16), dict(type='CenterCrop', size=16)]"
    changes = [
        f".{name}_data.dataset:dict(type='vq.data.ImageFolder', root='mine/{name}')"
        for name in ("train", "val")
    ]
    changes += [f".{name}_data.transforms:{crop}" for name in ("train", "val")]
    found = examined(capsys, TINY, "--override", *changes, code=1)
    overlap, broken = lines_of(found, "trouble")
    assert overlap == "val_data: 1 of 11 validation images are among 30 training images: 5.png"
    assert broken.startswith("train_data: 3 of 30 images of a sample cannot be decoded: ")


def test_what_is_refused(empty: Path) -> None:
    assert "there is no such file" in refused("doctor", "no_such_page")
    assert "did you mean 'optimizer'?" in refused("doctor", TINY, "--override", ".train_step.optimiser:1")
    assert "expected a CONFIG, since there is no run of this name" in refused(
        "doctor", "none", "--auto-resume"
    )
    done = subprocess.run(
        [sys.executable, "-m", "vq", "doctor", str(TINY), "--nonsense"],
        cwd=empty, env=environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stdout == ""


def test_one_process_of_torchrun_speaks(
    empty: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"RANK": "1", "WORLD_SIZE": "3", "LOCAL_WORLD_SIZE": "3", "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    assert doctor.main([str(TINY)]) == []
    assert capsys.readouterr() == ("", "")
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("MASTER_ADDR", "localhost")
    monkeypatch.setenv("MASTER_PORT", "1")
    found = examined(capsys, TINY, code=1)
    assert any(
        "8 images do not divide into 3 rank(s) x 1 micro-batch(es)" in text
        for text in lines_of(found, "trouble")
    )


def test_a_dry_run_examines_too(empty: Path) -> None:
    said = accepted("train", "x", TINY, "--dry-run", "--override", ".evaluator.every:9")
    warned, summary, plan = (
        said.index(words)
        for words in (
            "warning  step 8: evaluator.every: 9, but",
            "examined: 0 troubles, 1 warning, ",
            "plan: 8 steps",
        )
    )
    assert warned < summary < plan
    with pytest.raises(SystemExit) as end:
        accepted("train", "x", TINY, "--dry-run", "--override", ".train_step.optimizer.lr:0.0")
    assert end.value.code == 1
    assert not list(empty.iterdir())


def test_lines_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str], empty: Path) -> None:
    with pytest.raises(SystemExit):
        doctor.main([str(TINY), "--override", ".train_step.optimizer.lr:0.0"])
    first, second, *_, last = capsys.readouterr().out.splitlines()
    assert first == f"page {TINY}"
    assert second == "trouble  never: train_step.optimizer.lr: 0: nothing is learned; raise it"
    assert re.fullmatch(r"1 trouble, 0 warnings, \d+ checks are fine", last)


def test_a_table_on_a_terminal() -> None:
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=60, color_system=None)
    found = [
        trouble("disk", "is full " * 9, "free some space", step=500),
        warning("x\n", "[red]y"),
        ok("z", "fine"),
    ]
    show(console, "page x", found)
    lines = [line.rstrip() for line in out.getvalue().splitlines()]
    assert lines[0] == "page x"
    assert re.match(r"✗  step 500  disk +is full is full", lines[1])
    assert "→ free some space" in out.getvalue()
    assert any(re.match(r"!  at start  x\\n +\[red\]y", line) for line in lines)  # names are text, not markup
    assert lines[-1] == "1 trouble, 1 warning, 1 check is fine"
    assert all(len(line) <= 60 for line in lines)


def test_completion(run: Path) -> None:
    assert candidates(["doctor", "ti"]) == ["tiny"]
    assert candidates(["doctor", "fsq/1000_e"]) == ["fsq/1000_emoji"]
    assert candidates(["doctor", "tiny", "fsq/1000_e"]) == ["fsq/1000_emoji"]
    assert candidates(["doctor", "--js"]) == ["--json"]
