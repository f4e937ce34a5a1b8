"""A training with a black picture, for which the loss is infinite: it stops, or goes back and skips its batch."""

import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from black_image import (
    BLACK,
    SEED,
    failing_step,
    page_of,
    trainer_of,
    tree_of,
    without_checkpoints_after,
    write_pictures,
)
from commands import accepted

from vq.engine import NonFiniteLossError, Trainer
from vq.engine.callbacks import Origin
from vq.engine.loop import recent_steps
from vq.engine.loop.recent_steps import FEWEST, RecentSteps
from vq.engine.loop.resuming import SKIPPED, recorded_arguments
from vq.engine.loop.step_runner import StepResult
from vq.errors import ConfigError

HERE = Path(__file__).parent
REWIND = {"trainer__on_nonfinite": "rewind"}


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    write_pictures(tmp_path / "pictures")
    return tmp_path / "pictures"


def rows(run: Path, split: str) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [row for row in found if row["split"] == split]


def state_of(trainer: Trainer) -> dict[str, torch.Tensor]:
    assert trainer.train_step.weight_ema is not None
    average = {f"average.{name}": tensor for name, tensor in trainer.train_step.weight_ema.average.items()}
    return {**trainer.train_step.model.state_dict(), **average}


def assert_equal_states(first: Trainer, second: Trainer) -> None:
    expected = state_of(second)
    for name, tensor in state_of(first).items():
        assert torch.equal(tensor, expected[name]), name


@pytest.mark.parametrize("log_every", [2, 3])
def test_the_error_names_the_step_the_values_and_the_samples(
    pictures: Path, tmp_path: Path, log_every: int
) -> None:
    tree = tree_of(pictures, trainer__log_every=log_every)
    batch, keys = failing_step(tree)
    said = (
        rf"step {batch + 1}: loss/total, loss/l1, gradient_norm is not finite; .*batch {batch}, {', '.join(keys)}\. "
        rf"The last good checkpoint is .*iter_4"
    )
    with pytest.raises(NonFiniteLossError, match=said):
        trainer_of(tree, tmp_path / "run").fit()
    (row,) = rows(tmp_path / "run", "not_finite")
    assert (row["step"], row["batch"], row["samples"]) == (batch + 1, batch, keys)
    assert BLACK in row["samples"]


def test_many_steps_are_examined_before_one_is_logged(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recent_steps, "MOST_STEPS", 3)
    trainer = trainer_of(tree_of(pictures, trainer__log_every=100, checkpointer__every=100), tmp_path / "run")
    with pytest.raises(NonFiniteLossError, match=r"step 5: "):
        trainer.fit()
    assert trainer.step == 6


def test_a_weight_that_is_not_finite_is_named_with_the_samples_of_the_step(
    pictures: Path, tmp_path: Path
) -> None:
    trainer = trainer_of(tree_of(pictures), tmp_path / "run")
    inner = trainer.train_step.optimization.step

    def overflowing() -> dict[str, torch.Tensor]:
        scalars = inner()
        with torch.no_grad():
            next(trainer.train_step.model.parameters()).fill_(float("inf"))
        return scalars

    trainer.train_step.optimization.step = overflowing  # type: ignore[method-assign]
    trainer.checkpointer.every = trainer.log_every = 1
    with pytest.raises(NonFiniteLossError, match=r"step 1: the weight .* is not finite.*batch 0, picture_"):
        trainer.fit()


def test_a_run_that_goes_back_equals_one_that_never_took_the_batches(pictures: Path, tmp_path: Path) -> None:
    tree = tree_of(pictures, **REWIND)
    first = failing_step(tree)[0]
    second, keys = failing_step(tree, first + 1)
    trainer = trainer_of(tree, tmp_path / "run")
    scores = trainer.fit()
    assert list(trainer.runner.skipped) == [first, second]

    straight = trainer_of(tree, tmp_path / "straight")
    straight.skip([first, second])
    assert straight.fit() == scores
    assert_equal_states(trainer, straight)
    for split in ("train", "val"):
        timeless = [
            [{k: v for k, v in row.items() if "time" not in k} for row in rows(tmp_path / name, split)]
            for name in ("run", "straight")
        ]
        assert timeless[0] == timeless[1]

    found = rows(tmp_path / "run", "not_finite")
    assert [row["batch"] for row in found] == [first, second]
    assert found[1]["samples"] == keys
    assert found[1]["num_skipped"] == len(keys)
    assert recorded_arguments(tmp_path / "run" / "checkpoints" / "iter_10")[SKIPPED] == [first, second]


@pytest.mark.parametrize("killed_at", [4, 6])
def test_a_run_that_is_killed_skips_the_same_batches_when_it_continues(
    pictures: Path, tmp_path: Path, killed_at: int
) -> None:
    tree = tree_of(pictures, **REWIND)
    whole = trainer_of(tree, tmp_path / "run")
    whole.fit()
    without_checkpoints_after(tmp_path / "run", killed_at)
    resumed = trainer_of(tree, tmp_path / "run")
    checkpoint = resumed.checkpointer.to_resume()
    assert checkpoint is not None
    before = recorded_arguments(checkpoint).get(SKIPPED, [])
    assert len(before) == (killed_at > failing_step(tree)[0])
    resumed.skip(before)
    resumed.fit(resumed.checkpointer.restore(resumed.train_step, checkpoint))
    assert list(resumed.runner.skipped) == list(whole.runner.skipped)
    assert_equal_states(resumed, whole)


def test_the_command_skips_the_same_batches_when_it_continues(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("page.py").write_text(page_of(pictures))
    words = ("page.py", "--seed", SEED, "--config-options")
    said = accepted("train", "run", *words, "max_steps:6", "batch_size:4")
    assert "going back to step 4" in said
    again = accepted("train", "run", *words, "max_steps:10", "batch_size:4", "--auto-resume")
    assert "going back to step 6" in again
    assert SKIPPED not in again
    assert "step 8: loss/total, loss/l1, gradient_norm is not finite" in again  # batch 8, one step earlier
    assert recorded_arguments(Path("work_dirs/run/checkpoints/iter_10"))[SKIPPED] == [4, 8]


def test_a_step_that_fails_with_every_batch_ends_the_run(
    pictures: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trainer = trainer_of(tree_of(pictures, **REWIND), tmp_path / "run")
    inner = trainer.train_step.optimization.prepare

    def diverging(step: int) -> None:
        inner(step)
        if step == 2:  # the third step, after the checkpoint of the second
            with torch.no_grad():
                next(trainer.train_step.model.parameters()).fill_(float("nan"))

    trainer.train_step.optimization.prepare = diverging  # type: ignore[method-assign]
    with caplog.at_level(logging.WARNING), pytest.raises(NonFiniteLossError, match=r"step 3: .*iter_2"):
        trainer.fit()
    warnings = [record.message for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(warnings) == 3
    assert all("step 3: loss/total" in line and "going back to step 2" in line for line in warnings)
    assert list(trainer.runner.skipped) == [2, 3, 4]


def test_without_a_checkpoint_there_is_nothing_to_go_back_to(pictures: Path, tmp_path: Path) -> None:
    tree = tree_of(pictures, **REWIND, checkpointer__every=100)
    with pytest.raises(NonFiniteLossError, match=r"step 5: .*last good checkpoint is not yet written"):
        trainer_of(tree, tmp_path / "run").fit()


def test_another_word_is_refused(pictures: Path) -> None:
    with pytest.raises(ConfigError, match=r"trainer.on_nonfinite: expected .*'stop', 'rewind'.*, got 'back'"):
        tree_of(pictures, trainer__on_nonfinite="back")


@pytest.mark.parametrize("words", [(), ("divided",)])
@pytest.mark.slow
def test_two_ranks_skip_what_one_process_skips(words: tuple[str, ...]) -> None:
    result = subprocess.run(
        [sys.executable, HERE / "rewind_ranks.py", *words],
        env=os.environ | {"PYTHONPATH": f"{HERE.parents[1]}:{HERE.parent}:{HERE}", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    assert result.returncode == 0, result.stdout + result.stderr


def result_of(step: int, norm: float) -> StepResult:
    scalars = {"loss/total": torch.tensor(1.0), "gradient_norm": torch.tensor(norm, dtype=torch.float64)}
    return StepResult(
        step=step, scalars=scalars, started=0.0, data_seconds=0.0, batch=step - 1, keys=[f"{step}.png"]
    )


def test_a_gradient_far_above_the_median_is_logged_once_in_a_while(caplog: pytest.LogCaptureFixture) -> None:
    recent = RecentSteps(torch.device("cpu"))
    spikes = {FEWEST: 90.0, 100: 50.0, 102: 95.0, 130: 200.0, 700: 30.0}
    with caplog.at_level(logging.WARNING):
        for step in range(1, 801):
            recent.add(result_of(step, spikes.get(step, 2.0 + 0.01 * (step % 7))))
            if step % 10 == 0:
                means, failed = recent.examine()
                assert failed is None
                assert means["gradient_norm"] == spikes.get(step, 2.0 + 0.01 * (step % 7))
    assert [record.message for record in caplog.records] == [
        "step 100: the norm of the gradient is 50, 25 times the median of the steps before; samples: batch 99, "
        "100.png (1 such steps so far)",
        "step 700: the norm of the gradient is 30, 15 times the median of the steps before; samples: batch 699, "
        "700.png (4 such steps so far)",
    ]


def test_samples_in_words() -> None:
    keys = [[f"{i}.png" for i in range(18)], ["a.png", "b.png"]]
    both = Origin(step=4, batch=3, keys=keys, ranks=[0, 1])
    assert str(both).startswith("batch 3, rank 0: 0.png, 1.png, ")
    assert str(both).endswith("15.png and 2 more; rank 1: a.png, b.png")
    assert both.all_keys[-3:] == ["17.png", "a.png", "b.png"]
