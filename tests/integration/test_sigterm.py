"""A run that is asked to end takes its step, saves, and ends as a whole run does."""

import signal
import subprocess
import time
from pathlib import Path

import pytest
from commands import TINY, command, environment, run


@pytest.mark.parametrize("ranks", [1, 2])
def test_sigterm_saves_and_the_run_can_go_on(ranks: int, tmp_path: Path) -> None:
    checkpoints = tmp_path / "work_dirs" / "run" / "checkpoints"
    arguments = ["run", TINY, "--config-options", "max_steps:100000", "--override", ".checkpointer.every:7"]
    process = subprocess.Popen(
        command("train", *arguments, ranks=ranks),
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 120
    while not (checkpoints / "iter_7").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    assert "SIGTERM asked for it" in said, said[-2000:]
    newest = max(int(p.name.removeprefix("iter_")) for p in checkpoints.glob("iter_*"))
    assert f"stopping at step {newest}: " in said
    if ranks == 1:
        assert process.returncode == 0
        more = ["--config-options", f"max_steps:{newest + 2}", "--auto-resume"]
        run("train", "run", TINY, *more, cwd=tmp_path)
        assert (checkpoints / f"iter_{newest + 2}").exists()
