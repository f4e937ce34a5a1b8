"""Backups: complete or absent, linked where that is possible, and never removed by the run."""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import fsspec
import pytest

from tools import backup as tool
from vq.engine import Checkpointer, ReconstructionStep
from vq.engine.loop.checkpoint_remote import backup_of
from vq.engine.loop.checkpointer import SaveError
from vq.errors import ConfigError, UserError
from vq.tokenizers.manifest import verify

Make = Callable[..., ReconstructionStep]


def names(folder: Path) -> set[str]:
    return {p.name for p in folder.iterdir()}


def are_linked(one: Path, other: Path) -> bool:
    return all(
        (one / name).samefile(other / name) for name in names(one) | names(other) if name != "validation.json"
    )


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return tmp_path / "work_dirs" / "group" / "mine"


@pytest.fixture
def backup(tmp_path: Path) -> Path:
    return tmp_path / "backups" / "group" / "mine" / "checkpoints"


def make(run: Path, backups: Path, keep: int | None = 2) -> Checkpointer:
    return Checkpointer(directory=run / "checkpoints", config={}, every=1, keep=keep, backup_to=backups)


def test_every_checkpoint_gets_a_backup_of_links(
    make_step: Make, run: Path, backup: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    step, checkpointer = make_step(), make(run, tmp_path / "backups")
    with caplog.at_level("INFO"):
        checkpointer.begin(step, 0, 5)
    assert f"backups in {backup} are hard links" in caplog.text
    for number in range(1, 5):
        checkpointer.save(step, number)
        checkpointer.write_scores(number, {"psnr": float(number)})
    assert names(checkpointer.directory) == {"iter_3", "iter_4"}
    assert names(backup) == {f"iter_{number}" for number in range(1, 5)}
    assert are_linked(checkpointer.directory / "iter_4", backup / "iter_4")
    assert all(
        verify(folder) is None and (folder / "validation.json").exists() for folder in backup.iterdir()
    )
    other = Checkpointer(directory=tmp_path / "other", config={}, every=1)
    assert other.restore(step, backup / "iter_1") == 1


@pytest.fixture
def other_disk(tmp_path: Path) -> Iterator[Path]:
    if not Path("/dev/shm").is_dir() or Path("/dev/shm").stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is no second file system here")
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        yield Path(folder)


def test_on_another_file_system_they_are_copies(
    make_step: Make, run: Path, other_disk: Path, caplog: pytest.LogCaptureFixture
) -> None:
    step, checkpointer = make_step(), make(run, other_disk)
    with caplog.at_level("INFO"):
        checkpointer.begin(step, 0, 5)
    assert "are copies on another file system" in caplog.text
    checkpointer.save(step, 1)
    copied = other_disk / "group" / "mine" / "checkpoints" / "iter_1"
    assert verify(copied) is None
    assert not (copied / "train_state.pt").samefile(checkpointer.directory / "iter_1" / "train_state.pt")


def test_a_backup_that_failed_is_made_with_the_next_checkpoint(
    make_step: Make, run: Path, backup: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    step, checkpointer = make_step(), make(run, tmp_path / "backups")
    checkpointer.save(step, 1)
    obstacle = backup / "iter_2.partial"
    obstacle.write_text("a file")
    checkpointer.save(step, 2)
    assert "iter_2: no backup in" in caplog.text
    assert names(backup) == {"iter_1", "iter_2.partial"}
    obstacle.unlink()
    obstacle.mkdir()  # or a process was killed here
    (obstacle / "train_state.pt").write_bytes(b"half")
    checkpointer.save(step, 3)
    assert names(backup) == {"iter_1", "iter_2", "iter_3"}
    assert verify(backup / "iter_2") is None


def test_the_backup_of_another_training_is_renamed(
    make_step: Make, run: Path, backup: Path, tmp_path: Path
) -> None:
    checkpointer = make(run, tmp_path / "backups")
    checkpointer.save(make_step(), 1)
    shutil.rmtree(run)
    other = make_step(train_step__weight_ema=None)
    checkpointer.save(other, 1)
    assert names(backup) == {"iter_1", "iter_1.replaced_1"}
    assert are_linked(checkpointer.directory / "iter_1", backup / "iter_1")


def test_a_folder_that_cannot_be_written_is_refused_before_training(
    make_step: Make, run: Path, tmp_path: Path
) -> None:
    (tmp_path / "backups").write_text("a file")
    with pytest.raises(SaveError, match=r"backups/group/mine/checkpoints: cannot be written.*backup_to"):
        make(run, tmp_path / "backups").begin(make_step(), 0, 5)


class TestTool:
    def test_adds_what_is_new_and_leaves_the_rest(
        self, make_step: Make, run: Path, backup: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        step = make_step()
        checkpointer = Checkpointer(directory=run / "checkpoints", config={}, every=1, keep=2)
        checkpointer.save(step, 1)
        checkpointer.save(step, 2)
        (run / "metrics.jsonl").write_text("one\n")
        (run / "images").mkdir()
        (run / "images" / "iter_2.png").write_bytes(b"picture")
        (run / "run.lock").write_text("me")
        (run / "checkpoints" / "iter_3.partial").mkdir()
        arguments = [str(tmp_path / "work_dirs"), str(tmp_path / "backups")]
        tool.main(arguments)
        saved = backup.parent
        assert names(saved) == {"checkpoints", "images", "metrics.jsonl"}
        assert are_linked(run / "checkpoints" / "iter_1", backup / "iter_1")
        assert (saved / "images" / "iter_2.png").samefile(run / "images" / "iter_2.png")

        with (run / "metrics.jsonl").open("a") as file:
            file.write("two\n")
        assert (saved / "metrics.jsonl").read_text() == "one\n"  # a copy
        for number in (3, 4):
            checkpointer.save(step, number)
        (run / "checkpoints" / "iter_3" / "train_state.pt").write_bytes(b"torn")
        tool.main(arguments)
        assert names(backup) == {"iter_1", "iter_2", "iter_4"}
        assert "iter_3: no backup in" in caplog.text
        assert (saved / "metrics.jsonl").read_text() == "one\ntwo\n"
        assert tool.back_up_folder(tmp_path / "work_dirs", tmp_path / "backups") == (0, 0)

    def test_folders_that_cannot_be_meant(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="expected the folder of the runs, found none"):
            tool.main([str(tmp_path / "none"), str(tmp_path / "backups")])
        with pytest.raises(UserError, match="expected a folder outside"):
            tool.main([str(tmp_path), str(tmp_path / "backups")])


class TestRemote:
    @pytest.fixture(params=["memory", "file"])
    def store(self, request: pytest.FixtureRequest, tmp_path: Path) -> str:
        return f"{request.param}://{tmp_path}/store"

    def test_every_checkpoint_is_copied_and_can_be_fetched(
        self, make_step: Make, run: Path, tmp_path: Path, store: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        step = make_step()
        checkpointer = Checkpointer(
            directory=run / "checkpoints", config={}, every=1, keep=2, backup_to=store
        )
        with caplog.at_level("INFO"):
            checkpointer.begin(step, 0, 5)
        assert f"backups in {store}/group/mine/checkpoints are copies in a remote store" in caplog.text
        for number in range(1, 5):
            checkpointer.save(step, number)
            checkpointer.write_scores(number, {"psnr": float(number)})
        files, root = fsspec.url_to_fs(f"{store}/group/mine")
        files.get(root, str(tmp_path / "fetched"), recursive=True)
        fetched = next((tmp_path / "fetched").rglob("checkpoints"))
        assert names(fetched) == {f"iter_{number}" for number in range(1, 5)}
        for folder in fetched.iterdir():
            assert verify(folder) is None
            assert (folder / "validation.json").exists()
        assert Checkpointer(directory=fetched, config={}, every=1).restore(step, fetched / "iter_1") == 1

    def test_what_was_interrupted_has_no_manifest_and_is_completed(
        self, make_step: Make, run: Path, store: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        checkpointer = Checkpointer(directory=run / "checkpoints", config={}, every=1)
        checkpointer.save(make_step(), 1)
        backup = backup_of(run / "checkpoints", store)
        backup.prepare(run / "checkpoints")
        files, root = fsspec.url_to_fs(f"{store}/group/mine/checkpoints")
        torn = run / "checkpoints" / "iter_1" / "train_state.pt"
        whole = torn.read_bytes()
        torn.write_bytes(whole[:-1])
        assert backup.add_all(run / "checkpoints") == 0
        assert "iter_1: no backup in" in caplog.text
        assert not files.exists(f"{root}/iter_1/MANIFEST.json")
        torn.write_bytes(whole)
        assert [backup.add_all(run / "checkpoints") for _ in range(2)] == [1, 0]
        assert files.cat_file(f"{root}/iter_1/train_state.pt") == whole

    def test_the_backup_of_another_training_is_renamed(self, make_step: Make, run: Path, store: str) -> None:
        backup = backup_of(run / "checkpoints", store)
        for changes in ({}, {"train_step__weight_ema": None}):
            shutil.rmtree(run, ignore_errors=True)
            checkpointer = Checkpointer(directory=run / "checkpoints", config={}, every=1)
            checkpointer.save(make_step(**changes), 1)
            assert backup.add_all(run / "checkpoints") == 1
        files, root = fsspec.url_to_fs(f"{store}/group/mine/checkpoints")
        assert {Path(name).name for name in files.ls(root, detail=False)} == {"iter_1", "iter_1.replaced_1"}
        assert files.exists(f"{root}/iter_1.replaced_1/model_ema.safetensors")
        assert not files.exists(f"{root}/iter_1/model_ema.safetensors")

    def test_addresses_that_cannot_be_used(self, make_step: Make, run: Path) -> None:
        with pytest.raises(
            ConfigError, match=r"backup_to: expected a folder, or an address .*, got 'ssh://a/b'"
        ):
            Checkpointer(directory=run / "checkpoints", config={}, every=1, backup_to="ssh://a/b")
