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
from commands import MARK, TINY, command, environment, processes

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
