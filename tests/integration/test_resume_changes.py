"""A run that continues with another config: each difference is said and applied, or the command changes nothing."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import TINY, accepted, refused
from PIL import Image

from vq import train
from vq.errors import UserError

SHORT = [".trainer.max_steps:4", ".evaluator.every:100", ".checkpointer.every:4"]
LONGER = [".trainer.max_steps:6", ".evaluator.every:100", ".checkpointer.every:6"]


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of four steps with seed 5."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        train.main(["run", str(TINY), "--seed", "5", "--override", *SHORT])
    return folder / "work_dirs" / "run"


@pytest.fixture
def run(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the trained run, in the current folder."""
    import shutil

    monkeypatch.chdir(tmp_path)
    shutil.copytree(template, tmp_path / "work_dirs" / "run")
    return tmp_path / "work_dirs" / "run"


def content(folder: Path) -> dict[str, bytes]:
    """All files but the lock and TensorBoard's."""
    kept = [
        p for p in folder.rglob("*") if p.is_file() and p.name != "run.lock" and "tensorboard" not in p.parts
    ]
    return {str(p.relative_to(folder)): p.read_bytes() for p in kept}


def resumed(*overrides: str, more: tuple[str, ...] = ()) -> str:
    return accepted("train", "run", TINY, "--auto-resume", *more, "--override", *LONGER, *overrides)


def state(run: Path, step: int) -> Any:
    return torch.load(run / "checkpoints" / f"iter_{step}" / "train_state.pt", weights_only=True)[
        "train_step"
    ]


def test_hyperparameters_come_from_the_config_and_moments_from_the_checkpoint(run: Path) -> None:
    said = resumed(".train_step.optimizer.weight_decay:0.5", ".train_step.optimizer.betas:[0.5, 0.6]")
    assert "train_step.optimizer.weight_decay: not set -> 0.5" in said
    assert "train_step.optimizer.betas: not set -> [0.5, 0.6]" in said
    (group,) = state(run, 6)["optimizer"]["param_groups"]
    assert group["weight_decay"] == 0.5
    assert list(group["betas"]) == [0.5, 0.6]
    moments = state(run, 6)["optimizer"]["state"]
    assert {float(values["step"]) for values in moments.values()} == {6.0}  # not begun anew
    assert json.loads((run / "config.json").read_text())["train_step"]["optimizer"]["weight_decay"] == 0.5


@pytest.mark.parametrize(
    ("override", "line"),
    [
        (".train_data.batch_size:4", "train_data.batch_size: 8 -> 4"),
        (".train_step.weights.l1:2.0", "train_step.weights.l1: 1.0 -> 2.0"),
        (
            ".train_step.losses.l1.type::vq.losses.MSELoss",
            "train_step.losses.l1.type: 'vq.losses.L1Loss' -> ",
        ),
        (".train_data.dataset.seed:3", "train_data.dataset.seed: not set -> 3"),
        (
            ".tokenizer.quantizer.commitment_weight:0.5",
            "tokenizer.quantizer.commitment_weight: not set -> 0.5",
        ),
        (".train_step.weight_ema:None", "train_step.weight_ema: 0.9 -> None"),
    ],
)
def test_what_is_applied_is_said(run: Path, override: str, line: str) -> None:
    said = resumed(override)
    assert f"changed since the checkpoint, and applied: {line}" in said
    assert line in (run / "log.txt").read_text()


def test_nothing_is_said_of_an_equal_config(run: Path) -> None:
    said = resumed()
    assert "changed since the checkpoint, and applied: trainer.max_steps: 4 -> 6" in said
    assert said.count("changed since the checkpoint") == 2  # and the checkpointer's rhythm


def test_the_seed_is_part_of_the_record_and_stays(run: Path) -> None:
    assert json.loads((run / "checkpoints" / "iter_4" / "arguments.json").read_text())["seed"] == 5
    resumed()
    assert json.loads((run / "checkpoints" / "iter_6" / "arguments.json").read_text())["seed"] == 5


def test_another_seed_is_applied_and_said(run: Path) -> None:
    assert "changed since the checkpoint, and applied: seed: 5 -> 6" in resumed(more=("--seed", "6"))
    assert json.loads((run / "checkpoints" / "iter_6" / "arguments.json").read_text())["seed"] == 6


SGD = "dict(type='torch.optim.SGD', lr=0.01)"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            f".train_step.optimizer:{SGD}",
            r"train_step\.optimizer\.type: 'torch\.optim\.AdamW' -> 'torch\.optim\.SGD'",
        ),
        (".train_step.optimizer.amsgrad:True", "the optimizer's settings need max_exp_avg_sq"),
        (".tokenizer.encoder.base_width:16", r"tokenizer\.encoder\.base_width: 8 -> 16"),
        (".tokenizer.encoder.attention:False", r"tokenizer\.encoder\.attention: not set -> False"),
        (".tokenizer.quantizer.codebook.size:32", r"tokenizer\.quantizer\.codebook\.size: 16 -> 32"),
        (".tokenizer.quantizer:dict(type='vq.quantizers.IdentityQuantizer', dim=4)", "VectorQuantizer' -> "),
    ],
    ids=["optimizer", "amsgrad", "width", "attention", "codebook", "quantizer"],
)
def test_what_would_be_meaningless_is_refused_and_touches_no_file(
    run: Path, override: str, message: str
) -> None:
    before = content(run)
    with pytest.raises(UserError, match=message) as caught:
        train.main(["run", str(TINY), "--auto-resume", "--override", *LONGER, override])
    assert "--load-model-from" in str(caught.value)
    assert content(run) == before


@pytest.fixture(autouse=True)
def _quiet() -> Any:
    """Commands that run in this process leave the log as it was."""
    yield
    from vq.engine.loop.launch import close_log

    close_log()
    logging.getLogger("vq").propagate = True


def test_other_images_than_those_of_the_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("pictures", "others"):
        Path(folder).mkdir()
        for i in range(8):
            Image.new("RGB", (16, 16), (20 * i, 0, 0)).save(f"{folder}/{i}.png")
    own = ".train_data.dataset:dict(type='vq.data.ImageFolder', root='{}')"
    accepted("train", "run", TINY, "--override", *SHORT, own.format("pictures"))
    again = ["train", "run", TINY, "--auto-resume", "--override", *LONGER]
    before = content(Path("work_dirs/run"))
    Image.new("RGB", (16, 16), (99, 99, 0)).save("pictures/8.png")
    said = refused(*again, own.format("pictures"))
    assert "train_data: expected the 8 images with which " in said
    assert "iter_4 was trained, got 9 images: images were added, removed or renamed" in said
    Path("pictures/0.png").unlink()
    assert "got 8 images with other names" in refused(*again, own.format("pictures"))
    assert content(Path("work_dirs/run")) == before
    said = accepted(*again[:4], "--changed-data", *again[4:], own.format("pictures"))
    assert "changed since the checkpoint, and applied: train_images.sha256: " in said
    said = accepted(*again[:4], "--override", *LONGER[1:], ".trainer.max_steps:8", own.format("others"))
    assert "train_data.dataset.root: 'pictures' -> 'others'" in said  # another set was asked for
