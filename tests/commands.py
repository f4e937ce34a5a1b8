"""Runs the real commands as a user does: in a folder of their own, on one or several processes."""

import importlib
import io
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, suppress
from pathlib import Path

import pytest

from vq import failures, packages

ROOT = Path(__file__).parents[1]
TINY = ROOT / "tests" / "tiny_page.py"
MARK = "VQ_TEST_PROCESS"
RAY = ["--engine", "ray", "--ray-workers", "2"]
TORCHRUN_STOPPED = (1, -signal.SIGABRT)
"""With which torchrun ends when it was stopped: 1, or rarely an abort by one of its threads as it ends (torch 2.15)."""
needs_ray = pytest.mark.skipif(not packages.is_installed("ray"), reason="pip install 'ray[data]'")


def command(module: str, *arguments: object, ranks: int = 1) -> list[str]:
    """The command line, under torchrun for several ranks."""
    start = [sys.executable, "-m"]
    if ranks > 1:
        start += ["torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}", "-m"]
    return [*start, f"vq.{module}", *map(str, arguments)]


def environment(**extra: str) -> dict[str, str]:
    """One thread a process, so that sums do not depend on how many cores are free."""
    kept = {
        key: value
        for key, value in os.environ.items()
        if key == "VQ_CACHE" or not key.startswith(("VQ_", "TORCHELASTIC"))
    }
    return kept | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""} | extra


def run(
    module: str, *arguments: object, cwd: Path, ranks: int = 1, expect: int = 0, timeout: float = 240
) -> subprocess.CompletedProcess[str]:
    """Runs a command to its end and checks its exit code.

    If it takes longer than `timeout` seconds, the test fails with the last lines and the stacks of all its processes.
    """
    mark = uuid.uuid4().hex
    words = command(module, *arguments, ranks=ranks)
    with subprocess.Popen(
        words,
        cwd=cwd,
        env=environment(**{MARK: mark, "PYTHONFAULTHANDLER": "1"}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            stdout, stderr = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            send_to_all(mark, signal.SIGABRT)
            said = process.communicate(timeout=60)[1]
            pytest.fail(f"{module} {arguments}: not ended after {timeout:.0f} s\n{said[-30_000:]}")
        finally:
            if process.poll() is None:  # pytest's own limit has passed
                send_to_all(mark, signal.SIGKILL)
    assert process.returncode == expect, f"exit code {process.returncode}\n{stdout[-2000:]}\n{stderr[-4000:]}"
    return subprocess.CompletedProcess(words, process.returncode, stdout, stderr)


def refused(module: str, *arguments: object) -> str:
    """Runs a command in this process, in the current folder; the one message with which it ends."""
    main = importlib.import_module(f"vq.{module}").main
    try:
        main([str(a) for a in arguments])
    except Exception as error:
        message = failures.user_message(error)
        if message is None:  # a defect: show where
            raise
        return message
    pytest.fail(f"vq.{module} {arguments} was not refused")


def accepted(module: str, *arguments: object) -> str:
    """Runs a command in this process, in the current folder; what it logged."""
    main = importlib.import_module(f"vq.{module}").main
    said = io.StringIO()
    with redirect_stderr(said):
        main([str(a) for a in arguments])
    return said.getvalue()


def run_and_kill(
    module: str, arguments: Sequence[object], *, cwd: Path, ranks: int, when: Callable[[], bool], delay: float
) -> None:
    """Starts a command and sends SIGKILL to all its processes, `delay` seconds after `when` holds."""
    mark = uuid.uuid4().hex
    process = subprocess.Popen(
        command(module, *arguments, ranks=ranks),
        cwd=cwd,
        env=environment(**{MARK: mark}),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 120
    while not when():
        assert process.poll() is None, "the command ended before it could be killed"
        assert time.monotonic() < deadline, "nothing to kill appeared"
        time.sleep(0.01)
    time.sleep(delay)
    assert process.poll() is None, "the command ended before it could be killed"
    for _ in range(3):  # a process may have just started another
        send_to_all(mark, signal.SIGKILL)
        time.sleep(0.05)
    process.wait(timeout=30)


def run_and_stop(
    words: Sequence[object],
    number: signal.Signals,
    *,
    cwd: Path,
    when: Callable[[Path], bool],
    ranks: int = 1,
) -> str:
    """Starts a command and sends it a signal once `when(cwd)` holds; what it said.

    Checks that it ends within seconds, with 128 + signal (torchrun itself ends with 1), and leaves no partial file.
    """
    with subprocess.Popen(
        command(str(words[0]), *words[1:], ranks=ranks),
        cwd=cwd,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        deadline = time.monotonic() + 120
        while not when(cwd):
            assert process.poll() is None, process.stderr and process.stderr.read()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(number)
        _, said = process.communicate(timeout=60)
        assert process.returncode in ([128 + number] if ranks == 1 else TORCHRUN_STOPPED), said
    assert f"stopped by {number.name}" in said, said
    assert not list(cwd.rglob("*.partial"))
    return said


def contents(folder: Path) -> dict[str, bytes]:
    """The bytes of every file in a folder by its name."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def send_to_all(mark: str, number: signal.Signals) -> None:
    """Sends a signal to all `processes(mark)`."""
    for pid in processes(mark):
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def processes(mark: str) -> list[int]:
    """The processes that were started with `MARK=mark` in their environment, and still run."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and f"{MARK}={mark}".encode() in (entry / "environ").read_bytes():
                found.append(int(entry.name))
        except OSError:
            continue
    return found
