"""The loop: when it saves and validates, and that it stops before it harms."""

import json
import logging
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from vq.engine import NonFiniteLossError, ReconstructionStep, Trainer, assembly
from vq.engine.loop.checkpointer import SaveError
from vq.engine.loop.launch import Machine
from vq.engine.loop.stopping import SIGNALS, Stopped
from vq.errors import ConfigError
from vq.tokenizers.manifest import verify

MACHINE = Machine(device="cpu", rank=0, world_size=1, threads=1, autocast=False)
Tree = dict


def trainer(tree: Tree, run: Path) -> Trainer:
    step = assembly.make_step(tree, assembly.make_tokenizer(tree))
    return assembly.make_trainer(tree, run, step, MACHINE, seed=0)


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
        NonFiniteLossError, match=r"step 6: .*loss/l1 is not finite.*last good checkpoint is .*iter_4"
    ):
        made.fit()
    assert {p.name for p in (tmp_path / "checkpoints").iterdir()} == {"iter_2", "iter_4"}


def test_time_is_up(tree: Callable[..., Tree], tmp_path: Path) -> None:
    made = trainer(tree(trainer__max_steps=400, trainer__max_minutes=1e-9), tmp_path)
    scores = made.fit()
    assert "psnr" in scores  # validated and saved all the same
    assert {p.name for p in (tmp_path / "checkpoints").iterdir()} == {"iter_2"}


def stop_at(made: Trainer, step: int, number: signal.Signals) -> None:
    """Sends a real signal to this process after a step."""
    inner = made.callback.on_step_end

    def send(done: int) -> None:
        inner(done)
        if done == step:
            os.kill(os.getpid(), number)

    made.callback.on_step_end = send  # type: ignore[method-assign]


def rows(run: Path) -> list[tuple[int, str]]:
    found = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [(row["step"], row["split"]) for row in found]


FAR = {
    "checkpointer__every": 100,
    "evaluator__every": 100,
    "trainer__log_every": 100,
    "trainer__max_steps": 200,
}


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1"])
def test_a_signal_saves_the_step_and_does_not_validate(
    tree: Callable[..., Tree], tmp_path: Path, name: str
) -> None:
    made = trainer(tree(**FAR), tmp_path)
    stop_at(made, 3, signal.Signals[name])
    before = [signal.getsignal(number) for number in SIGNALS]
    with pytest.raises(Stopped) as caught:
        made.fit()
    assert caught.value.code == 128 + signal.Signals[name]
    assert [signal.getsignal(number) for number in SIGNALS] == before
    assert {p.name for p in (tmp_path / "checkpoints").iterdir()} == {"iter_4"}  # the step that was under way
    assert rows(tmp_path) == [(4, "train")]


def test_a_signal_during_validation_saves_the_step_and_a_resumed_run_validates_it(
    tree: Callable[..., Tree], tmp_path: Path
) -> None:
    loaded = tree(checkpointer__every=100, evaluator__every=4)
    made = trainer(loaded, tmp_path / "run")
    evaluate = made.validation.evaluator.evaluate

    def interrupted(model: torch.nn.Module, loader: object) -> object:
        os.kill(os.getpid(), signal.SIGTERM)
        return evaluate(model, loader)

    made.validation.evaluator.evaluate = interrupted
    with pytest.raises(Stopped):
        made.fit()
    checkpoints = tmp_path / "run" / "checkpoints"
    assert {p.name for p in checkpoints.iterdir()} == {"iter_4"}
    assert rows(tmp_path / "run") == [(2, "train"), (4, "train")]

    resumed = trainer(loaded, tmp_path / "run")
    scores = resumed.fit(resumed.checkpointer.restore(resumed.train_step, checkpoints / "iter_4"))
    whole = trainer(loaded, tmp_path / "whole")
    assert scores == whole.fit()
    assert rows(tmp_path / "run") == rows(tmp_path / "whole")
    assert (4, "val") in rows(tmp_path / "run")
    files = [tmp_path / name / "checkpoints" / "iter_8" / "model.safetensors" for name in ("run", "whole")]
    found, expected = map(load_file, files)
    assert all(torch.equal(found[k], expected[k]) for k in expected)

    again = trainer(loaded, tmp_path / "run")  # all is done, and known
    assert again.fit(again.checkpointer.restore(again.train_step, checkpoints / "iter_8")) == scores
    assert rows(tmp_path / "run") == rows(tmp_path / "whole")


def test_a_signal_while_saving_leaves_a_whole_checkpoint(tree: Callable[..., Tree], tmp_path: Path) -> None:
    made = trainer(tree(**FAR | {"checkpointer__every": 2}), tmp_path)
    state = made.train_step.state_dict

    def interrupted() -> dict[str, object]:
        os.kill(os.getpid(), signal.SIGHUP)
        return state()

    made.train_step.state_dict = interrupted
    with pytest.raises(Stopped):
        made.fit()
    assert {p.name for p in (tmp_path / "checkpoints").iterdir()} == {"iter_2"}
    assert verify(tmp_path / "checkpoints" / "iter_2") is None


def test_a_validation_that_fails_loses_no_step(tree: Callable[..., Tree], tmp_path: Path) -> None:
    made = trainer(tree(checkpointer__every=100, evaluator__every=3), tmp_path)
    made.prepare()

    def broken(**_: object) -> None:
        raise OSError("the network drive of the images is gone")

    made.validation.evaluator.metrics[0].update = broken
    with pytest.raises(OSError, match="network drive"):
        made.fit()
    assert {p.name for p in (tmp_path / "checkpoints").iterdir()} == {"iter_3"}
    other = trainer(tree(), tmp_path)
    assert other.checkpointer.restore(other.train_step, tmp_path / "checkpoints" / "iter_3") == 3


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"evaluator__metrics": [{"type": "CodebookUsage", "codebook_size": 100}]},
         r"evaluator\.metrics\[0\]: CodebookUsage has codebook_size 100, the tokenizer 16"),
        ({"evaluator__metrics": [{"type": "PSNR"}, {"type": "Perplexity", "codebook_size": 8}]},
         r"evaluator\.metrics\[1\]: Perplexity has codebook_size 8, the tokenizer 16"),
        ({"evaluator__metrics": [{"type": "CodebookUsage", "codebook_size": 16, "levels": 3}]},
         r"evaluator\.metrics\[0\]: does not fit val_data: .*levels"),
    ],
)  # fmt: skip
def test_metrics_that_do_not_fit_are_refused_before_the_first_step(
    tree: Callable[..., Tree], tmp_path: Path, changes: Tree, said: str
) -> None:
    made = trainer(tree(**changes), tmp_path)
    with pytest.raises(ConfigError, match=said):
        made.fit()
    assert not (tmp_path / "checkpoints").exists()


def test_the_check_before_the_first_step_changes_no_state(tree: Callable[..., Tree], tmp_path: Path) -> None:
    made = trainer(tree(), tmp_path)
    model = made.train_step.model.train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    made.prepare()
    assert model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert not any(int(metric.images) for metric in made.validation.evaluator.metrics)


def test_a_checkpoint_that_cannot_be_written_is_tried_again(
    tree: Callable[..., Tree], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = trainer(tree(**FAR | {"checkpointer__every": 3, "trainer__log_every": 1}), tmp_path)
    obstacle = tmp_path / "checkpoints" / "iter_3.partial"
    inner = made.callback.on_step_end

    def obstruct(step: int) -> None:
        inner(step)
        if step == 1:
            obstacle.write_text("a file")
        if step == 4:
            os.kill(os.getpid(), signal.SIGTERM)

    made.callback.on_step_end = obstruct
    with caplog.at_level(logging.ERROR), pytest.raises(Stopped):
        made.fit()
    assert "iter_3: could not be saved" in caplog.text
    assert "the next log step tries again" in caplog.text
    assert {p.name for p in (tmp_path / "checkpoints").iterdir()} == {"iter_3.partial", "iter_4", "iter_5"}


def test_a_last_checkpoint_that_cannot_be_written_ends_the_run(
    tree: Callable[..., Tree], tmp_path: Path
) -> None:
    made = trainer(tree(trainer__max_steps=4, checkpointer__every=2), tmp_path)
    made.prepare()
    (tmp_path / "checkpoints" / "iter_4.partial").write_text("a file")
    with pytest.raises(SaveError, match=r"iter_4: could not be saved: .*last good checkpoint is .*iter_2"):
        made.fit()


def test_arguments(tree: Callable[..., Tree], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected at least 1, got max_steps=0"):
        trainer(tree(trainer__max_steps=0, train_step__schedule={"type": "vq.engine.Constant"}), tmp_path)
