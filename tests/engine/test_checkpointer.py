"""Checkpoints are whole or absent, and say when they are not."""

import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from commands import TINY, environment

from vq.engine import Checkpointer, NonFiniteLossError, ReconstructionStep
from vq.engine.loop.checkpoint_files import estimated_bytes
from vq.engine.loop.checkpointer import SaveError
from vq.errors import UserError
from vq.tokenizers.checkpoint import CheckpointError
from vq.tokenizers.manifest import MANIFEST, verify

Make = Callable[..., ReconstructionStep]


@pytest.fixture
def checkpointer(tmp_path: Path, tree: Callable[..., dict]) -> Checkpointer:
    return Checkpointer(directory=tmp_path / "checkpoints", config=tree(), every=1, keep=2)


def test_keeps_the_newest_and_restores_everything(checkpointer: Checkpointer, make_step: Make) -> None:
    step = make_step()
    for number in (9, 10, 11):
        with torch.no_grad():
            next(step.tokenizer.parameters()).add_(1)
        step.weight_ema.update()
        checkpointer.save(step, number)
    assert sorted(p.name for p in checkpointer.directory.iterdir()) == ["iter_10", "iter_11"]
    newest = checkpointer.newest_valid()
    assert newest is not None
    assert newest.name == "iter_11"
    other = make_step()
    assert checkpointer.restore(other, newest) == 11
    for name, tensor in step.tokenizer.state_dict().items():
        assert torch.equal(other.tokenizer.state_dict()[name], tensor)
        assert torch.equal(other.weight_ema.average[name], step.weight_ema.average[name])
    assert other.weight_ema.num_updates == 3


@pytest.mark.parametrize(
    "file", ["model.safetensors", "model_ema.safetensors", "train_state.pt", "config.json", MANIFEST]
)
@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_any_damage_is_found_and_passed_over(
    checkpointer: Checkpointer, make_step: Make, file: str, damage: str
) -> None:
    step = make_step()
    checkpointer.save(step, 1)
    checkpointer.save(step, 2)
    path = checkpointer.directory / "iter_2" / file
    content = bytearray(path.read_bytes())
    if damage == "flip":
        content[len(content) // 3] ^= 0x80
        path.write_bytes(content)
    elif damage == "cut":
        path.write_bytes(content[:-5])
    else:
        path.unlink()
    problem = verify(checkpointer.directory / "iter_2")
    assert problem is not None
    assert file in problem or file == MANIFEST
    newest = checkpointer.newest_valid()
    assert newest is not None
    assert newest.name == "iter_1"
    with pytest.raises(CheckpointError, match="damaged"):
        checkpointer.restore(step, checkpointer.directory / "iter_2")


def test_a_half_written_folder_is_never_taken_and_swept(checkpointer: Checkpointer, make_step: Make) -> None:
    step = make_step()
    checkpointer.save(step, 1)
    (checkpointer.directory / "iter_5.partial").mkdir()
    (checkpointer.directory / "iter_5.partial" / "model.safetensors").write_bytes(b"half")
    newest = checkpointer.newest_valid()
    assert newest is not None
    assert newest.name == "iter_1"
    checkpointer.save(step, 2)
    assert sorted(p.name for p in checkpointer.directory.iterdir()) == ["iter_1", "iter_2"]


def test_a_full_disk_leaves_the_old_checkpoint_and_no_stump(tmp_path: Path) -> None:
    """With files limited to 64 KiB the second save cannot be written; keep=1 must not have cost the first."""
    code = f"""
import resource, sys
from vq import config
from vq.engine import Checkpointer, assembly
tree = config.load({str(TINY)!r}).to_dict()
step = assembly.make_step(tree, assembly.make_tokenizer(tree))
saver = Checkpointer(directory=__import__("pathlib").Path("checkpoints"), config=tree, every=1, keep=1)
saver.save(step, 1)
import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try:
    saver.save(step, 2)
except Exception as error:
    print("failed", type(error).__name__, error)
print(saver.newest_valid(), *sorted(p.name for p in saver.directory.iterdir()))
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert "failed SaveError checkpoints/iter_2: could not be saved" in done.stdout, done.stderr
    assert "The last good checkpoint is checkpoints/iter_1" in done.stdout
    assert done.stdout.splitlines()[-1] == "checkpoints/iter_1 iter_1"
    assert not (tmp_path / "checkpoints" / "iter_2").exists()
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 20_000


def test_the_same_step_again_keeps_what_was_there(checkpointer: Checkpointer, make_step: Make) -> None:
    step = make_step()
    checkpointer.save(step, 1)
    checkpointer.save(step, 1)
    assert {p.name for p in checkpointer.directory.iterdir()} == {"iter_1", "iter_1.replaced_1"}
    assert verify(checkpointer.directory / "iter_1") is None


def test_manifest_describes_every_other_file(checkpointer: Checkpointer, make_step: Make) -> None:
    checkpointer.save(make_step(), 3)
    folder = checkpointer.directory / "iter_3"
    manifest = json.loads((folder / MANIFEST).read_text())
    assert set(manifest["files"]) == set(os.listdir(folder)) - {MANIFEST}
    assert manifest["step"] == 3
    assert manifest["versions"]["torch"] == torch.__version__


def test_averaged_weights_that_a_checkpoint_lacks(checkpointer: Checkpointer, make_step: Make) -> None:
    checkpointer.save(make_step(train_step__weight_ema=None), 1)
    with pytest.raises(CheckpointError, match="has no averaged weights"):
        checkpointer.restore(make_step(), checkpointer.directory / "iter_1")


def names(checkpointer: Checkpointer) -> set[str]:
    return {p.name for p in checkpointer.directory.iterdir()}


def cut(checkpoint: Path) -> None:
    (checkpoint / "train_state.pt").write_bytes(b"torn")


def test_what_was_just_written_is_never_pruned(
    checkpointer: Checkpointer, make_step: Make, caplog: pytest.LogCaptureFixture
) -> None:
    step = make_step()
    for number in (60, 80):
        checkpointer.save(step, number)
    with caplog.at_level("WARNING"):
        checkpointer.save(step, 40)
    assert names(checkpointer) == {"iter_40", "iter_60.replaced_1", "iter_80.replaced_1"}
    assert (
        "iter_80 belongs to a training that this one replaces; it is kept as iter_80.replaced_1"
        in caplog.text
    )
    checkpointer.save(step, 50)
    checkpointer.save(step, 60)
    assert names(checkpointer) == {"iter_50", "iter_60", "iter_60.replaced_1", "iter_80.replaced_1"}


@pytest.mark.parametrize("keep", [1, 2])
def test_falling_back_sets_the_later_ones_aside(
    checkpointer: Checkpointer, make_step: Make, keep: int
) -> None:
    step = make_step()
    checkpointer.keep = None
    for number in (100, 200, 300):
        checkpointer.save(step, number)
    for number in (200, 300):
        cut(checkpointer.directory / f"iter_{number}")
    resumed = Checkpointer(directory=checkpointer.directory, config=checkpointer.config, every=50, keep=keep)
    found = resumed.to_resume()
    assert found is not None
    assert found.name == "iter_100"
    assert names(resumed) == {"iter_100", "iter_200", "iter_300"}  # nothing moves before the run is accepted
    resumed.begin(step, resumed.restore(step, found), 1000)
    resumed.save(step, 150)
    assert names(resumed) == {"iter_100", "iter_150", "iter_200.replaced_1", "iter_300.replaced_1"}
    assert resumed.newest_valid() == resumed.directory / "iter_150"


def test_continuing_from_another_run_sets_all_aside(
    checkpointer: Checkpointer, make_step: Make, tmp_path: Path
) -> None:
    step = make_step()
    checkpointer.save(step, 5)
    checkpointer.save(step, 50)
    other = Checkpointer(directory=tmp_path / "other", config=checkpointer.config, every=1)
    other.save(step, 10)
    checkpointer.begin(step, checkpointer.restore(step, tmp_path / "other" / "iter_10"), 100)
    assert names(checkpointer) == {"iter_5.replaced_1", "iter_50.replaced_1"}


def test_damaged_ones_do_not_count(checkpointer: Checkpointer, make_step: Make) -> None:
    step = make_step()
    for number in (1, 2, 3):
        checkpointer.save(step, number)
    cut(checkpointer.directory / "iter_3")
    checkpointer.save(step, 4)
    assert names(checkpointer) == {"iter_2", "iter_3.replaced_1", "iter_4"}


def test_with_one_kept_the_last_good_one_survives_until_the_next_finite_step(
    checkpointer: Checkpointer, make_step: Make
) -> None:
    step = make_step()
    checkpointer.keep = 1
    for number in (1, 2, 3):
        checkpointer.save(step, number)
    assert names(checkpointer) == {"iter_2", "iter_3"}
    checkpointer.confirm(4)
    assert names(checkpointer) == {"iter_3"}


def test_entries_of_others_are_left_alone(
    checkpointer: Checkpointer, make_step: Make, tmp_path: Path
) -> None:
    step = make_step()
    checkpointer.directory.mkdir()
    archive = tmp_path / "archive"
    Checkpointer(directory=archive, config={}, every=1).save(step, 3)
    (checkpointer.directory / "iter_3").symlink_to(archive / "iter_3")
    (checkpointer.directory / "iter_4").symlink_to(tmp_path / "nothing")
    (checkpointer.directory / "iter_7").write_text("a file")
    (checkpointer.directory / "iter_900").mkdir()
    (checkpointer.directory / "iter_900" / "thesis.txt").write_text("all of it")
    (checkpointer.directory / "iter_8.partial").write_text("a file")
    (checkpointer.directory / "notes.txt").write_text("mine")
    before = names(checkpointer)
    checkpointer.begin(step, 0, 100)
    before = (before - {"iter_3"}) | {"iter_3.replaced_1"}
    for number in (11, 12, 13):
        checkpointer.save(step, number)
    assert names(checkpointer) == before | {"iter_12", "iter_13"}
    assert verify(archive / "iter_3") is None
    assert (checkpointer.directory / "iter_900" / "thesis.txt").read_text() == "all of it"
    checkpointer.save(step, 7)  # a name that is taken
    assert (checkpointer.directory / "iter_7.replaced_1").read_text() == "a file"


def poison_weight(step: ReconstructionStep) -> None:
    step.tokenizer.decoder.get_parameter(next(iter(dict(step.tokenizer.decoder.named_parameters())))).data[
        0
    ] = float("inf")


def poison_average(step: ReconstructionStep) -> None:
    assert step.weight_ema is not None
    next(iter(step.weight_ema.average.values())).fill_(float("nan"))


def poison_moment(step: ReconstructionStep) -> None:
    parameter = next(step.tokenizer.parameters())
    step.optimization.optimizer.inner.state[parameter] = {
        "step": torch.tensor(1.0),
        "exp_avg": parameter.data / 0,
    }


@pytest.mark.parametrize(
    ("poison", "said"),
    [
        (poison_weight, "the weight decoder"),
        (poison_average, "the averaged weight encoder"),
        (
            poison_moment,
            r"the state of the optimizer train_step.optimizer.state.0.exp_avg",
        ),
    ],
)
def test_what_is_not_finite_is_never_saved(
    checkpointer: Checkpointer, make_step: Make, poison: Callable[[ReconstructionStep], None], said: str
) -> None:
    checkpointer.keep = 1
    step = make_step()
    checkpointer.save(step, 1)
    poison(step)
    with pytest.raises(NonFiniteLossError, match=f"step 2: {said}.* is not finite.*iter_1") as caught:
        checkpointer.save(step, 2)
    assert isinstance(caught.value, UserError)
    assert names(checkpointer) == {"iter_1"}


def test_only_damaged_checkpoints_are_refused(checkpointer: Checkpointer, make_step: Make) -> None:
    assert checkpointer.to_resume() is None
    step = make_step()
    for number in (1, 2):
        checkpointer.save(step, number)
    for number in (1, 2):
        cut(checkpointer.directory / f"iter_{number}")
    with pytest.raises(CheckpointError, match=r"every checkpoint is damaged: iter_2 \(.*iter_1 \(.*remove"):
        checkpointer.to_resume()


@pytest.mark.parametrize(
    "content",
    ["[]", "null", "3", "{}", '{"files": []}', '{"files": {"a": 3}}', '{"files": {"train_state.pt": {"byte": 3}}}',
     '{"files": {"train_state.pt": {"bytes": "3", "sha256": 7}}}', '{"fil', "\x00\xff", '{"files": {}}'],
)  # fmt: skip
def test_a_malformed_manifest_is_a_damaged_one(
    checkpointer: Checkpointer, make_step: Make, content: str
) -> None:
    step = make_step()
    checkpointer.save(step, 1)
    checkpointer.save(step, 2)
    (checkpointer.directory / "iter_2" / MANIFEST).write_text(content, encoding="latin-1")
    newest = checkpointer.to_resume()
    assert newest is not None
    assert newest.name == "iter_1"
    checkpointer.save(step, 3)  # pruning looks at manifests too
    assert {"iter_1", "iter_3"} <= names(checkpointer)


def test_what_does_not_exist_is_not_called_damaged(
    tree: Callable[..., dict], make_step: Make, tmp_path: Path
) -> None:
    step, runs = make_step(), tmp_path / "work_dirs"
    checkpointer = Checkpointer(directory=runs / "mine" / "checkpoints", config=tree(), every=1)
    with pytest.raises(CheckpointError, match="iter_2: no such checkpoint; there are: none"):
        checkpointer.restore(step, Path("iter_2"))
    other = Checkpointer(directory=runs / "other" / "checkpoints", config=tree(), every=1)
    for number in (2, 4):
        other.save(step, number)
    listed = r"no such checkpoint; there are: .*other/checkpoints/iter_2, .*other/checkpoints/iter_4"
    for wrong in (
        Path("iter_2"),
        runs / "other",
        runs / "other" / "checkpoints",
        runs / "none" / "checkpoints/iter_2",
    ):
        with pytest.raises(CheckpointError, match=listed):
            checkpointer.restore(step, wrong)


def test_a_disk_without_space_is_refused_before_training(make_step: Make, tmp_path: Path) -> None:
    """On a real file system of 256 KiB, where mounting one is permitted."""
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(small)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("mounting is not permitted here")
    try:
        step = make_step()
        size = estimated_bytes(step)
        checkpointer = Checkpointer(directory=small / "run", config={}, every=1, keep=1)
        assert size > 100_000
        with pytest.raises(SaveError, match=r"the disk has 0\.2 MiB left, but 3 checkpoints of about"):
            checkpointer.begin(step, 0, 100)
        (small / "filler").write_bytes(bytes(150_000))
        with pytest.raises(SaveError, match="iter_1: could not be saved: the disk is full"):
            checkpointer.save(step, 1)
        assert names(checkpointer) == set()
    finally:
        subprocess.run(["umount", str(small)], check=False)


def test_the_estimate_is_the_size(make_step: Make, checkpointer: Checkpointer) -> None:
    step = make_step()
    estimate = estimated_bytes(step)
    for parameter in step.tokenizer.parameters():
        parameter.grad = torch.zeros_like(parameter)
    step.optimization.optimizer.inner.step()
    checkpointer.save(step, 1)
    files = (checkpointer.directory / "iter_1").iterdir()
    sizes = sum(f.stat().st_size for f in files if f.suffix in (".safetensors", ".pt"))
    assert estimate <= sizes < 2 * estimate  # headers of many small tensors come on top
    states = step.optimization.optimizer.inner.state.values()
    moments = [t for state in states for name, t in state.items() if name != "step"]
    tensors = [*step.model.state_dict().values(), *step.weight_ema.average.values(), *moments]
    assert estimate == sum(tensor.nbytes for tensor in tensors)


def test_arguments() -> None:
    with pytest.raises(ValueError, match="expected every >= 1 and keep >= 1"):
        Checkpointer(directory=Path(), config={}, every=0)


def test_scores_come_back_with_the_checkpoint_they_belong_to(
    checkpointer: Checkpointer, make_step: Make
) -> None:
    step = make_step()
    for number in (1, 2):
        checkpointer.save(step, number)
    checkpointer.write_scores(1, {"psnr": 20.5, "loss": 3.0})
    assert checkpointer.scores() is None  # nothing has been restored
    checkpointer.restore(step, checkpointer.directory / "iter_1")
    assert checkpointer.scores() == {"psnr": 20.5, "loss": 3.0}
    checkpointer.restore(step, checkpointer.directory / "iter_2")
    assert checkpointer.scores() is None
