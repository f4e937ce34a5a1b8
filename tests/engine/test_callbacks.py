"""Callbacks: what a full disk, a failing logger and a resumed run do to what is written."""

import json
import logging
import os
import resource
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from vq.engine.callbacks import (
    Callback,
    ConsoleProgress,
    Guarded,
    LoggerError,
    MetricsFile,
    TensorBoard,
    WandB,
)

PICTURE = torch.zeros(3, 8, 8, dtype=torch.uint8)


def steps(path: Path) -> list[int]:
    return [json.loads(line)["step"] for line in path.read_text().splitlines()]


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Inside, the operating system refuses to write past so many bytes, in the middle of a row if it comes so."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)


class Broken(Callback):
    seen = 0

    def on_log(self, step: int, scalars: object) -> None:
        self.seen += 1
        if self.seen < 4:
            raise RuntimeError("the logger's process has ended")


def test_a_callback_that_fails_is_tried_again_and_ends_nothing(caplog: pytest.LogCaptureFixture) -> None:
    class Counting(Callback):
        seen = 0

        def on_log(self, step: int, scalars: object) -> None:
            self.seen += 1

    broken, counting = Broken(), Counting()
    guarded = Guarded([broken, counting])
    with caplog.at_level(logging.WARNING):
        for step in range(5):
            guarded.on_log(step, {})
            guarded.on_step_end(step)
    assert (broken.seen, counting.seen) == (5, 5)
    told = [record.message for record in caplog.records]
    assert "Broken failed in on_log" in told[0]
    assert "training continues, and it is tried again (failure 2)" in told[1]
    assert told[2:] == ["Broken works again after 3 failures"]


def test_a_row_that_does_not_fit_waits_whole(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = MetricsFile(directory=tmp_path)
    guarded = Guarded([rows])
    guarded.on_log(1, {"loss/total": 1.0})
    with largest_file(rows.path.stat().st_size + 10), caplog.at_level(logging.WARNING):
        guarded.on_log(2, {"loss/total": 2.0})  # ten bytes of it fit
        assert steps(rows.path) == [1]
        guarded.on_evaluation_end(2, {"psnr": 20.0}, PICTURE)
    assert "metrics.jsonl: " in caplog.text
    assert "2 rows are kept in memory" in caplog.text
    guarded.on_log(3, {"loss/total": 3.0})
    assert steps(rows.path) == [1, 2, 2, 3]
    assert json.loads(rows.path.read_text().splitlines()[2])["psnr"] == 20


def test_a_full_disk_is_called_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = MetricsFile(directory=tmp_path)
    if not os.path.exists("/dev/full"):
        pytest.skip("no device here that is always full")
    rows.path.symlink_to("/dev/full")
    guarded = Guarded([rows])
    with caplog.at_level(logging.WARNING):
        guarded.on_log(1, {})
    assert f"{rows.path}: the disk is full" in caplog.text
    assert "Traceback" not in caplog.text
    rows.path.unlink()
    guarded.on_end(1)
    assert steps(rows.path) == [1]


def test_a_resumed_run_repeats_no_row_and_loses_none(tmp_path: Path) -> None:
    rows = MetricsFile(directory=tmp_path)
    for step in (1, 2, 3, 4):
        rows.on_log(step, {"loss/total": float(step)})
    rows.on_evaluation_end(2, {"psnr": 1.0}, PICTURE)
    with rows.path.open("a") as file:
        file.write('[1, 2]\n{"step": 5, "spl')  # no row, and one cut by a kill
    resumed = MetricsFile(directory=tmp_path)
    resumed.on_start(2, 10)
    resumed.on_evaluation_end(2, {"psnr": 1.0}, PICTURE)  # was killed before it could note that it validated
    assert steps(rows.path) == [1, 2, 2]
    moved = (tmp_path / "metrics.jsonl.1").read_text()
    assert '"step": 3' in moved
    assert moved.endswith('"spl')
    resumed.on_start(1, 10)
    assert steps(rows.path) == [1]
    assert steps(tmp_path / "metrics.jsonl.2") == [2, 2]


def test_tensorboard_forgets_the_steps_that_are_taken_again(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    first, second = TensorBoard(directory=tmp_path), TensorBoard(directory=tmp_path)
    first.on_start(0, 10)
    for step in (1, 2, 3, 4):
        first.on_log(step, {"loss": 1.0})
    first.on_end(4)
    # Two files of one second are told apart by their process and a counter.
    second.on_start(2, 10)
    for step in (3, 4, 5):
        second.on_log(step, {"loss": 2.0})
    second.on_end(5)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(e.step, e.value) for e in events.Scalars("train/loss")] == [
        (1, 1.0),
        (2, 1.0),
        (3, 2.0),
        (4, 2.0),
        (5, 2.0),
    ]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_tensorboard_goes_on_after_an_error(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    before = set(threading.enumerate())
    board = TensorBoard(directory=tmp_path)
    guarded = Guarded([board])
    guarded.on_start(0, 10)
    guarded.on_log(1, {"loss": 1.0})
    board.writer.flush()
    with largest_file(1):
        for step in (2, 3):
            guarded.on_evaluation_end(step, {"psnr": 1.0}, PICTURE)
    guarded.on_log(4, {"loss": 4.0})
    guarded.on_end(4)
    for thread in set(threading.enumerate()) - before:
        thread.join()  # a writer's thread reports its error as it ends, which must not be in the next test
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert 4 in [e.step for e in events.Scalars("train/loss")]


def test_names_are_text_on_the_console(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    progress = ConsoleProgress()
    progress.progress.disable = False
    progress.on_start(0, 10)
    progress.progress.update(progress.task, note="w[/q]", description="[red]x[/q]")
    progress.progress.refresh()
    with caplog.at_level("INFO", logger="vq"):
        progress.on_log(1, {"loss/[/q]": 1.0})
    progress.on_end(1)
    shown = capsys.readouterr()
    assert "[red]x[/q]" in shown.out + shown.err
    assert "[/q]" in caplog.text


def test_wandb_without_a_login_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))  # where logins are kept
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with pytest.raises(LoggerError, match=r"expected a login to Weights & Biases.*WANDB_MODE=offline"):
        WandB(directory=tmp_path, name="run", config={})
    monkeypatch.setenv("WANDB_MODE", "offline")
    WandB(directory=tmp_path, name="run", config={})
