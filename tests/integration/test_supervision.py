"""Ranks and their launcher: who is stopped is named, a second run is refused, nothing trains on alone."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest
import torch
from commands import MARK, TINY, command, environment, processes, run
from safetensors.torch import load_file

from vq import train
from vq.engine.loop.run_lock import RunLockedError

ARGUMENTS = ["run", TINY, "--config-options", "max_steps:100000", "--timeout", 4, "--override"]
OVERRIDES = [
    ".checkpointer.every:7",
    ".evaluator.every:50000",
    ".trainer.log_every:50000",
    ".checkpointer.keep:2",
]


def of_rank(pids: list[int], rank: int) -> int:
    wanted = f"RANK={rank}".encode()
    (pid,) = [p for p in pids if wanted in Path(f"/proc/{p}/environ").read_bytes().split(b"\0")]
    return pid


@pytest.mark.slow
def test_a_second_run_is_refused_and_a_stopped_rank_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = uuid.uuid4().hex
    process = subprocess.Popen(
        command("train", *ARGUMENTS, *OVERRIDES, ranks=2), cwd=tmp_path, env=environment(**{MARK: mark}),
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    checkpoints = tmp_path / "work_dirs" / "run" / "checkpoints"
    deadline = time.monotonic() + 120
    while not (checkpoints / "iter_7").exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    pids = processes(mark)
    monkeypatch.chdir(tmp_path)
    said = f"process {of_rank(pids, 0)} on {socket.gethostname()} .* is training in this folder"
    with pytest.raises(RunLockedError, match=re.compile(said)):
        train.main(["run", str(TINY), "--auto-resume"])

    stopped = of_rank(pids, 1)
    os.kill(stopped, signal.SIGSTOP)
    stopped_at = time.monotonic()
    _, output = process.communicate(timeout=120)
    assert f"rank 1 (process {stopped} on {socket.gethostname()}) has given no sign of life for 4 s" in output
    assert time.monotonic() - stopped_at < 25  # torchrun alone takes 30 s to end a stopped process
    assert not processes(mark)


def test_a_rank_ends_with_its_launcher(tmp_path: Path) -> None:
    child = """
import time
from vq.engine.loop.heartbeat import watched_parent
with watched_parent():
    print("watching", flush=True)
    time.sleep(600)
"""
    mark = uuid.uuid4().hex
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    launcher = subprocess.Popen(
        [sys.executable, "-c", code],
        env=environment(**{MARK: mark}) | {"TORCHELASTIC_RUN_ID": "none", "RANK": "0"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert launcher.stdout is not None
    assert launcher.stdout.readline() == "watching\n"
    launcher.kill()
    launcher.wait()
    said, _ = launcher.communicate(timeout=20)
    assert f"torchrun (process {launcher.pid}) is gone; rank 0 ends" in said
    deadline = time.monotonic() + 10
    while processes(mark):
        assert time.monotonic() < deadline
        time.sleep(0.1)


SHORT = ["run", TINY, "--config-options", "max_steps:60", "--override", ".evaluator.every:60"]


def started(folder: Path, *options: str) -> tuple[subprocess.Popen[str], str]:
    """A short training on two ranks, with options of torchrun, and the mark of its processes."""
    mark = uuid.uuid4().hex
    words = command("train", *SHORT, ".checkpointer.every:4", ranks=2)
    words[words.index("--standalone") + 1 : words.index("--standalone") + 1] = options
    process = subprocess.Popen(
        words, cwd=folder, env=environment(**{MARK: mark}), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )  # fmt: skip
    return process, mark


def kill_rank(process: subprocess.Popen[str], mark: str, folder: Path, rank: int) -> None:
    """Sends SIGKILL to a rank once there are two checkpoints."""
    deadline = time.monotonic() + 120
    while not (folder / "work_dirs/run/checkpoints/iter_8").exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(of_rank(processes(mark), rank), signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_dies_ends_the_others_and_is_named(rank: int, tmp_path: Path) -> None:
    process, mark = started(tmp_path)
    kill_rank(process, mark, tmp_path, rank)
    killed_at = time.monotonic()
    _, said = process.communicate(timeout=60)
    assert time.monotonic() - killed_at < 30
    assert process.returncode == 1
    assert re.search(rf"Root Cause .*\n.*\n.*\n.*\n *rank +: {rank} .*\n *exitcode +: -9 .*SIGKILL", said), (
        said
    )
    assert not processes(mark)


@pytest.mark.slow
def test_a_restart_by_torchrun_continues_to_the_same_weights(tmp_path: Path) -> None:
    folders = [tmp_path / "unbroken", tmp_path / "killed"]
    for folder in folders:
        folder.mkdir()
    run("train", *SHORT, ".checkpointer.every:4", cwd=folders[0], ranks=2)
    process, mark = started(folders[1], "--max-restarts=3")
    kill_rank(process, mark, folders[1], 1)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 0, said
    assert "(SIGKILL)" in said or "-9" in said
    log = (folders[1] / "work_dirs/run/log.txt").read_text()
    assert len(re.findall(r"continuing from .*iter_\d+: \d+ steps are done", log)) == 1
    ends = [folder / "work_dirs/run/checkpoints/iter_60" for folder in folders]
    for name in ("model.safetensors", "model_ema.safetensors"):
        expected, ours = (load_file(end / name) for end in ends)
        assert ours.keys() == expected.keys()
        assert not [k for k in ours if not torch.equal(ours[k], expected[k])], name

    # A training that this torchrun did not begin is not continued unasked, however often it is started.
    process, _ = started(folders[1], "--max-restarts=1")
    _, said = process.communicate(timeout=120)
    assert process.returncode == 1
    assert said.count("already holds a trained run; continue it with --auto-resume") == 2, said
