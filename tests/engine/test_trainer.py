"""The loop: when it saves and validates, and that it stops before it harms."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from vq.engine import NonFiniteLossError, ReconstructionStep, Trainer, assemble
from vq.engine.callbacks import Callback, Guarded, MetricsFile
from vq.engine.launch import Machine

MACHINE = Machine(device="cpu", rank=0, world_size=1, threads=1, autocast=False)
Tree = dict


def trainer(tree: Tree, run: Path) -> Trainer:
    step = assemble.make_step(tree, assemble.make_tokenizer(tree))
    return assemble.make_trainer(tree, run, step, MACHINE, seed=0)


def test_a_loss_that_is_not_finite_stops_the_run_and_overwrites_nothing(
    tree: Callable[..., Tree], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = trainer(tree(), tmp_path)
    real = made.train_step._backward

    def poisoned(self: ReconstructionStep, batch: object, share: float) -> dict[str, torch.Tensor]:
        scalars = real(batch, share)
        if made.train_step.poison:
            scalars["loss/l1"] = scalars["loss/l1"] * float("nan")
        return scalars

    made.train_step.poison = False
    monkeypatch.setattr(ReconstructionStep, "_backward", poisoned)
    inner = made.callback.on_step_end

    def poison_after_five(step: int) -> None:
        made.train_step.poison = step >= 5
        inner(step)

    made.callback.on_step_end = poison_after_five
    with pytest.raises(
        NonFiniteLossError, match=r"step 6: loss/l1 is not finite.*last good checkpoint is .*iter_4"
    ):
        made.fit()
    assert {p.name for p in (tmp_path / "checkpoints").iterdir()} == {"iter_2", "iter_4"}


def test_time_is_up(tree: Callable[..., Tree], tmp_path: Path) -> None:
    made = trainer(tree(trainer__max_steps=400, trainer__max_minutes=0.0), tmp_path)
    scores = made.fit()
    assert "psnr" in scores  # validated and saved all the same
    assert {p.name for p in (tmp_path / "checkpoints").iterdir()} == {"iter_2"}


def test_a_callback_that_fails_does_not_stop_training(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Callback):
        def on_log(self, step: int, scalars: object) -> None:
            raise OSError("no space left on device")

    class Counting(Callback):
        seen = 0

        def on_log(self, step: int, scalars: object) -> None:
            self.seen += 1

    counting = Counting()
    guarded = Guarded([Broken(), counting])
    with caplog.at_level("ERROR"):
        guarded.on_log(1, {})
        guarded.on_log(2, {})
    assert counting.seen == 2
    assert len(guarded.callbacks) == 1


def test_rows_past_the_step_of_a_resumed_run_are_dropped(tmp_path: Path) -> None:
    rows = MetricsFile(directory=tmp_path)
    for step in (1, 2, 3, 4):
        rows.on_log(step, {"loss/total": float(step)})
    with rows.path.open("a") as file:
        file.write('{"step": 5, "spl')  # cut by the kill
    rows.on_start(2, 10)
    assert [json.loads(line)["step"] for line in rows.path.read_text().splitlines()] == [1, 2]


def test_arguments(tree: Callable[..., Tree], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected at least 1, got max_steps=0"):
        trainer(tree(trainer__max_steps=0, train_step__schedule=None), tmp_path)
