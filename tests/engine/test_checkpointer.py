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

from vq.engine import Checkpointer, ReconstructionStep
from vq.engine.checkpointer import MANIFEST, verify
from vq.tokenizers.checkpoint import CheckpointError

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
from vq.engine import Checkpointer, assemble
tree = config.load({str(TINY)!r}).to_dict()
step = assemble.make_step(tree, assemble.make_tokenizer(tree))
saver = Checkpointer(directory=__import__("pathlib").Path("checkpoints"), config=tree, every=1, keep=1)
saver.save(step, 1)
import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try:
    saver.save(step, 2)
except Exception as error:
    print("failed", type(error).__name__)
print(saver.newest_valid())
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert "failed" in done.stdout, done.stderr
    assert "checkpoints/iter_1" in done.stdout
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


def test_arguments() -> None:
    with pytest.raises(ValueError, match="expected every >= 1 and keep >= 1"):
        Checkpointer(directory=Path(), config={}, every=0)
