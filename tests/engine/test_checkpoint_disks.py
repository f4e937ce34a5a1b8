"""Disks that become read-only or full: the last good checkpoint stays, and training goes on once there is room."""

import logging
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from vq.engine import Checkpointer, ReconstructionStep, Trainer, assembly
from vq.engine.loop.checkpoint_files import estimated_bytes
from vq.engine.loop.checkpointer import SaveError
from vq.engine.loop.launch import Machine
from vq.tokenizers.manifest import verify

Make = Callable[..., ReconstructionStep]
Tree = dict
MACHINE = Machine(device="cpu", rank=0, world_size=1, threads=1, autocast=False)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 4 MiB, where mounting one is permitted."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("mounting is not permitted here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def remount(folder: Path, mode: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{mode}", str(folder)], check=True)


def names(folder: Path) -> set[str]:
    return {p.name for p in folder.iterdir()}


def trainer(tree: Tree, directory: Path, run: Path, **rules: object) -> Trainer:
    """A trainer whose checkpoints are on another disk than the other files of the run."""
    step = assembly.make_step(tree, assembly.make_tokenizer(tree))
    made: Trainer = assembly.make_trainer(tree, run, step, MACHINE, seed=0)
    made.checkpointer = Checkpointer(directory=directory, config=tree, every=4, keep=2, **rules)
    return made


def after_each_step(made: Trainer, do: Callable[[int], None]) -> None:
    inner = made.callback.on_step_end

    def both(step: int) -> None:
        inner(step)
        do(step)

    made.callback.on_step_end = both  # type: ignore[method-assign]


LENGTH = {"trainer__max_steps": 16, "trainer__log_every": 2, "evaluator__every": 16}


@pytest.mark.parametrize("state", ["read-only", "full"])
def test_training_goes_on_and_saves_once_it_can(
    tree: Callable[..., Tree], tmp_path: Path, disk: Path, state: str, caplog: pytest.LogCaptureFixture
) -> None:
    directory = disk / "checkpoints"
    made = trainer(tree(**LENGTH), directory, tmp_path / "run")
    during: list[set[str]] = []

    def change(step: int) -> None:
        if step == 7:
            made.checkpointer.settle()
            if state == "full":
                (disk / "filler").write_bytes(bytes(free(disk) - 50_000))
            else:
                remount(disk, "ro")
        if step == 9:
            made.checkpointer._jobs.wait()
            during.append(names(directory))
            if state == "full":
                (disk / "filler").unlink()
            else:
                remount(disk, "rw")

    after_each_step(made, change)
    with caplog.at_level(logging.ERROR):
        made.fit()
    said = {"full": "the disk is full", "read-only": "Read-only file system"}[state]
    assert f"iter_8: could not be saved: {said}" in caplog.text.replace("[Errno 30] ", "")
    assert f"The last good checkpoint is {directory / 'iter_4'}" in caplog.text
    assert during == [{"iter_4"}]
    assert names(directory) == {"iter_12", "iter_16"}
    assert all(verify(folder) is None for folder in directory.iterdir())


def free(folder: Path) -> int:
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize


def test_a_read_only_disk_is_refused_before_training(make_step: Make, disk: Path) -> None:
    (disk / "checkpoints").mkdir()
    remount(disk, "ro")
    checkpointer = Checkpointer(directory=disk / "checkpoints", config={}, every=1)
    with pytest.raises(SaveError, match="checkpoints: cannot be written: Read-only file system"):
        checkpointer.begin(make_step(), 0, 5)


def test_a_read_only_disk_at_the_end_leaves_the_last_good_one(
    tree: Callable[..., Tree], tmp_path: Path, disk: Path
) -> None:
    directory = disk / "checkpoints"
    made = trainer(tree(**LENGTH | {"trainer__max_steps": 6}), directory, tmp_path / "run")

    def change(step: int) -> None:
        if step == 5:
            made.checkpointer.settle()
            remount(disk, "ro")

    after_each_step(made, change)
    with pytest.raises(SaveError, match=r"iter_6: could not be saved: .*Read-only.*last good .*iter_4"):
        made.fit()
    assert names(directory) == {"iter_4"}


def test_a_full_disk_of_the_backups_does_not_end_the_training(
    tree: Callable[..., Tree], make_step: Make, tmp_path: Path, disk: Path, caplog: pytest.LogCaptureFixture
) -> None:
    directory = tmp_path / "mine" / "checkpoints"
    made = trainer(tree(**LENGTH), directory, tmp_path / "run", backup_to=disk)
    (disk / "filler").write_bytes(bytes(free(disk) - 3 * estimated_bytes(made.train_step)))
    made.fit()
    assert "not enough for the backups of all checkpoints to come" in caplog.text
    assert "iter_16: no backup in" in caplog.text
    assert names(directory) == {"iter_12", "iter_16"}
    assert "iter_4" in names(disk / "mine" / "checkpoints")
    assert all(verify(folder) is None for folder in (disk / "mine" / "checkpoints").iterdir())
