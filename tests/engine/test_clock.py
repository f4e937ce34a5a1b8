"""How long the parts of a step take."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from vq.engine import ReconstructionStep, assembly
from vq.engine.loop.step_runner import StepRunner
from vq.engine.reporting.run_folder import Row
from vq.engine.reporting.times import times_of
from vq.engine.steps.clock import BACKWARD, OPTIMIZER, StepClock
from vq.losses import L1Loss

Tree = dict[str, Any]


class Sleeping(torch.autograd.Function):
    """Takes 20 ms in the forward pass and 60 ms in the backward pass."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        time.sleep(0.02)
        return value.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]  # as torch documents it
        time.sleep(0.06)
        return gradient


class SlowLoss(L1Loss):
    def forward(self, compared: Tensor, image: Tensor) -> Tensor:
        slow: Tensor = Sleeping.apply(super().forward(compared, image))
        return slow


def runner(tree: Tree, step: ReconstructionStep) -> StepRunner:
    return StepRunner(train_step=step, data=assembly.make_loader(tree, "train_data"), seed=0)


def test_forward_and_backward_are_told_apart(
    tree: Callable[..., Tree], make_step: Callable[..., ReconstructionStep]
) -> None:
    step = make_step(train_step__accumulate=2)
    step.losses["l1"] = SlowLoss()
    for result in runner(tree(), step).run(stop=2):
        took = time.perf_counter() - result.started - result.data_seconds
        seconds = step.optimization.clock.seconds()
        assert set(seconds) == {"forward", "backward", "optimizer"}
        assert seconds["forward"] >= 0.04  # two micro-batches
        assert seconds["backward"] >= 0.12
        assert sum(seconds.values()) <= took  # those of one step, not of all


def test_nothing_is_measured_of_a_step_that_does_not_tell_its_backward_pass() -> None:
    clock = StepClock(torch.device("cpu"))
    clock.start()
    with clock.part(OPTIMIZER):
        pass
    clock.stop()
    assert clock.seconds() == {}


def test_parts_inside_one_another_are_counted_once() -> None:
    clock = StepClock(torch.device("cpu"))
    began = time.perf_counter()
    clock.start()
    with clock.part("discriminator"):
        time.sleep(0.01)
        with clock.part(BACKWARD):
            time.sleep(0.02)
        time.sleep(0.01)
    clock.stop()
    seconds = clock.seconds()
    assert seconds["discriminator"] >= 0.02
    assert seconds[BACKWARD] >= 0.02
    assert sum(seconds.values()) <= time.perf_counter() - began


def rows(*, parts: dict[str, float]) -> list[Row]:
    """Steps of 0.5 s, of which 0.1 s are a wait for data."""
    return [
        Row(
            step=step,
            split="train",
            values={
                "time/unix": 1000.0 + step / 2,
                "time/elapsed": step / 2,
                "time/data": 0.1,
                "time/step": 0.5,
            }
            | {f"time/{name}": seconds for name, seconds in parts.items()},
        )
        for step in (10, 20, 30)
    ]


def test_shares_of_the_parts() -> None:
    times = times_of(rows(parts={"forward": 0.1, "backward": 0.2, "optimizer": 0.05}))
    assert times is not None
    assert times.data == pytest.approx(0.2)
    assert times.parts == pytest.approx({"forward": 0.2, "backward": 0.4, "optimizer": 0.1})


def test_parts_of_logged_steps_that_were_slow_are_not_more_than_the_whole() -> None:
    times = times_of(rows(parts={"forward": 0.4, "backward": 0.4}))
    assert times is not None
    assert times.parts == pytest.approx({"forward": 0.4, "backward": 0.4})


def test_rows_of_earlier_versions_have_no_parts() -> None:
    times = times_of(rows(parts={}))
    assert times is not None
    assert times.parts == {}


def test_a_log_has_the_parts_of_every_logged_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from commands import TINY, accepted

    monkeypatch.chdir(tmp_path)
    accepted("train", "run", TINY, "--config-options", "max_steps:4")
    logged = [json.loads(line) for line in Path("work_dirs/run/metrics.jsonl").read_text().splitlines()]
    train = [row for row in logged if row["split"] == "train"]
    assert [row["step"] for row in train] == [2, 4]
    for row in train:
        parts = [row[f"time/{name}"] for name in ("forward", "backward", "optimizer")]
        assert min(parts) > 0
        assert sum(parts) + row["time/data"] <= row["time/step"]
