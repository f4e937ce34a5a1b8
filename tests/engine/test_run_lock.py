"""One training a folder: who holds the lock is named, and what a dead process left behind is taken over."""

import json
import logging
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from commands import environment

from vq.engine.loop import run_lock
from vq.engine.loop.run_lock import LOCK, RunLock, RunLockedError
from vq.errors import UserError

HOLD = """
import os, sys, time
from pathlib import Path
from vq.engine.loop.run_lock import RunLock
with RunLock(Path(sys.argv[1])):
    if os.fork() == 0:  # like a worker of a data loader
        time.sleep(600)
    print("held", flush=True)
    time.sleep(600)
"""


def leave(folder: Path, host: str) -> None:
    folder.mkdir()
    (folder / LOCK).write_text(json.dumps({"host": host, "pid": 4_000_000, "started": "2026-01-01 00:00:00"}))


def test_another_process_is_named_and_its_death_releases_the_lock(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], env=environment(), stdout=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        said = f"process {holder.pid} on {socket.gethostname()} .* is training in this folder"
        with pytest.raises(RunLockedError, match=said) as caught, RunLock(folder):
            pass
        assert isinstance(caught.value, UserError)
        holder.kill()  # its forked child lives on
        holder.wait()
        with RunLock(folder):
            assert json.loads((folder / LOCK).read_text())["pid"] == os.getpid()
        assert not (folder / LOCK).exists()
    finally:
        os.killpg(holder.pid, 9)
        holder.communicate()


def test_a_lock_of_a_dead_process_is_taken_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    leave(tmp_path / "run", socket.gethostname())
    with caplog.at_level(logging.WARNING), RunLock(tmp_path / "run"):
        pass
    assert f"process 4000000 on {socket.gethostname()}" in caplog.text
    assert "is gone without releasing it; taking over" in caplog.text


@pytest.mark.parametrize("content", ["", "{", "[]", '{"host": "a"}', "\x00"])
def test_a_damaged_lock_file_does_not_matter(content: str, tmp_path: Path) -> None:
    (tmp_path / LOCK).write_text(content)
    with RunLock(tmp_path):
        pass


@pytest.mark.parametrize("is_alive", [True, False])
def test_a_lock_of_another_machine_waits_for_a_sign(
    is_alive: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the file system does not pass locks on between machines, as some do not."""
    monkeypatch.setattr(run_lock, "STALE_SECONDS", 1.5)
    folder = tmp_path / "run"
    leave(folder, "another.example")
    ended = threading.Event()

    def mark() -> None:
        while not ended.wait(0.2):
            os.utime(folder / LOCK)

    thread = threading.Thread(target=mark)
    if is_alive:
        thread.start()
    try:
        if is_alive:
            with pytest.raises(RunLockedError, match=r"process 4000000 on another\.example"), RunLock(folder):
                pass
        else:
            start = time.monotonic()
            with RunLock(folder):
                assert time.monotonic() - start > 1.4
    finally:
        ended.set()
        if is_alive:
            thread.join()


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(RunLockedError, match="file: expected a folder that can be written"),
        RunLock(tmp_path / "file"),
    ):
        pass
