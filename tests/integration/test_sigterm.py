"""A run that is asked to end takes its step, saves, and ends with the signal's exit code; then it can go on."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from commands import TINY, accepted, command, environment, run

from vq.engine.jobs import following
from vq.engine.loop.stopping import Stopped, StopRequest

ARGUMENTS = ["run", TINY, "--config-options", "max_steps:100000", "--override", ".checkpointer.every:7"]


def start(folder: Path, *arguments: object, ranks: int = 1) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command("train", *arguments, ranks=ranks),
        cwd=folder,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while not path.exists():
        assert process.poll() is None, process.communicate()[1][-3000:]
        assert time.monotonic() < deadline, f"{path} did not appear"
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("ranks", "number"), [pytest.param(1, signal.SIGUSR1, marks=pytest.mark.slow), (2, signal.SIGTERM)]
)
def test_a_signal_saves_and_the_run_can_go_on(
    ranks: int, number: signal.Signals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints = tmp_path / "work_dirs" / "run" / "checkpoints"
    # With log steps far apart: the ranks agree without them.
    process = start(tmp_path, *ARGUMENTS, ".trainer.log_every:50000", ".evaluator.every:50000", ranks=ranks)
    wait_for(checkpoints / "iter_7", process)
    process.send_signal(number)
    asked_at = time.monotonic()
    _, said = process.communicate(timeout=60)
    assert time.monotonic() - asked_at < 15
    assert f"{number.name} asked for it" in said, said[-2000:]
    newest = max(int(p.name.removeprefix("iter_")) for p in checkpoints.glob("iter_*"))
    assert f"stopping at step {newest}: " in said
    assert "validation" not in said
    assert not list(checkpoints.glob("*.partial"))
    if ranks == 1:
        assert process.returncode == 128 + number
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(following, "POLL_SECONDS", 0.1)
        followed = accepted("val", "run", "--follow", "--load-from", "iter_7", f"iter_{newest + 2}")
        assert f"the training has ended (stopped by {number.name}) before step 100000" in followed
        more = ["--config-options", f"max_steps:{newest + 2}", "--auto-resume"]
        run("train", "run", TINY, *more, cwd=tmp_path)
        assert (checkpoints / f"iter_{newest + 2}").exists()
        assert not (tmp_path / "work_dirs/run/run.ended").exists()


def test_a_second_signal_ends_at_once(tmp_path: Path) -> None:
    code = """
import time
from vq.engine.loop.stopping import StopRequest
with StopRequest() as stop:
    print("ready", flush=True)
    while not stop.requested:
        time.sleep(0.01)
    print("asked", stop.exit_code, flush=True)
    time.sleep(60)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGHUP)
    assert process.stdout.readline() == f"asked {128 + signal.SIGHUP}\n"
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=10)
    assert process.returncode == 128 + signal.SIGINT
    assert "second signal (SIGINT): ending at once" in said


def replaced(number: signal.Signals) -> None:
    try:
        signal.raise_signal(number)
    except BaseException:
        raise ValueError("not a safetensors file") from None


def dropped(number: signal.Signals) -> None:
    with suppress(BaseException):
        signal.raise_signal(number)


@pytest.mark.parametrize("native_code", [replaced, dropped])
def test_native_code_does_not_hide_a_signal(native_code: Callable[[signal.Signals], None]) -> None:
    """Safetensors replaces the exception of a signal that arrives while it reads: "damaged" would be wrong."""
    with pytest.raises(Stopped, match="stopped by SIGHUP"), StopRequest() as stop, stop.at_once():
        native_code(signal.SIGHUP)
    with pytest.raises(ValueError, match="an error without a signal"), StopRequest() as stop, stop.at_once():
        raise ValueError("an error without a signal")
