"""Whole adversarial runs: what ends them, what is said before they begin."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from golden.record_adversarial_run import ADVERSARY

from vq.engine import NonFiniteLossError, Trainer, assembly
from vq.engine.loop.launch import Machine

MACHINE = Machine(device="cpu", rank=0, world_size=1, threads=1, autocast=False)
Make = Callable[..., Trainer]
NAN = float("nan")


@pytest.fixture
def adversarial(tree: Callable[..., dict[str, Any]]) -> dict[str, Any]:
    loaded = tree()
    loaded["train_step"] |= {
        "type": "AdversarialStep",
        "adversary": ADVERSARY,
        "weights": {"l1": 1.0, "quantizer": 1.0, "adversarial": 0.8},
    }
    return loaded


def nan_in_the_loss(trainer: Trainer) -> None:
    trainer.train_step.losses["l1"].register_forward_hook(lambda m, i, o: o * NAN)


def nan_in_the_objective(trainer: Trainer) -> None:
    trainer.train_step.adversary.weights["objective"] = NAN


def nan_in_a_penalty(trainer: Trainer) -> None:
    trainer.train_step.adversary.penalties["lecam"].get_buffer("anchors").fill_(NAN)


def nan_in_the_discriminator(trainer: Trainer) -> None:
    with torch.no_grad():
        next(trainer.train_step.adversary.discriminator.parameters()).fill_(NAN)


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize(
    ("poison", "terms"),
    [
        (nan_in_the_loss, ("loss/total, .*loss/l1", "loss/quantizer")),
        (nan_in_the_objective, ("discriminator/total", "loss/total")),
        (nan_in_a_penalty, ("discriminator/total, .*discriminator/lecam", "loss/total")),
        (nan_in_the_discriminator, ("loss/adversarial.*discriminator/total", "loss/l1")),
    ],
)
def test_a_loss_that_is_not_finite_stops_the_run_and_overwrites_nothing(
    adversarial: dict[str, Any],
    poison: Callable[[Trainer], None],
    terms: tuple[str, str],
    accumulate: int,
    tmp_path: Path,
) -> None:
    named, innocent = terms
    adversarial["train_step"]["accumulate"] = accumulate
    step = assembly.make_step(adversarial, assembly.make_tokenizer(adversarial))
    trainer = assembly.make_trainer(adversarial, tmp_path, step, MACHINE, seed=0)
    inner = trainer.callback.on_step_end
    before: dict[Path, bytes] = {}

    def poison_after_five(number: int) -> None:
        inner(number)
        if number == 5:
            before.update((p, p.read_bytes()) for p in tmp_path.rglob("checkpoints/*/*"))
            poison(trainer)

    trainer.callback.on_step_end = poison_after_five
    with pytest.raises(NonFiniteLossError, match=f"step 6: .*{named}.* is not finite") as caught:
        trainer.fit()
    said = str(caught.value)
    assert innocent not in said.partition(" is not finite")[0].split(": ")[1].split(", ")
    assert f"The last good checkpoint is {tmp_path / 'checkpoints' / 'iter_4'}" in said
    assert before
    assert {p: p.read_bytes() for p in tmp_path.rglob("checkpoints/*/*")} == before


@pytest.mark.parametrize("poison", [nan_in_a_penalty, nan_in_the_discriminator])
def test_going_back_restores_the_discriminator_and_its_penalties(
    adversarial: dict[str, Any], poison: Callable[[Trainer], None], tmp_path: Path
) -> None:
    adversarial["trainer"]["on_nonfinite"] = "rewind"
    made = []
    for name in ("poisoned", "straight"):
        step = assembly.make_step(adversarial, assembly.make_tokenizer(adversarial))
        made.append(assembly.make_trainer(adversarial, tmp_path / name, step, MACHINE, seed=0))
    trainer, straight = made
    inner = trainer.callback.on_step_end
    numbers: list[int] = []

    def poison_after_five(number: int) -> None:
        inner(number)
        if number == 5 and number not in numbers:
            poison(trainer)
        numbers.append(number)

    trainer.callback.on_step_end = poison_after_five
    scores = trainer.fit()
    assert numbers == [1, 2, 3, 4, 5, 5, 6, 7, 8]
    straight.skip([5])  # the batch of step 6, in which the values show
    assert straight.fit() == scores
    assert_equal(trainer.train_step.state_dict(), straight.train_step.state_dict())


def assert_equal(tree: Any, expected: Any) -> None:
    if isinstance(expected, torch.Tensor):
        assert torch.equal(tree, expected)
    elif isinstance(expected, dict):
        assert tree.keys() == expected.keys()
        for key, value in expected.items():
            assert_equal(tree[key], value)


def test_the_plan_counts_the_discriminator(adversarial: dict[str, Any]) -> None:
    def lines(train_step: dict[str, Any]) -> list[str]:
        tree = adversarial | {"train_step": train_step}
        step = assembly.make_step(tree, assembly.make_tokenizer(tree))
        return assembly.describe(step, image_size=(16, 16), batch=4)

    plain = adversarial["train_step"] | {
        "type": "ReconstructionStep",
        "weights": {"l1": 1.0, "quantizer": 1.0},
    }
    del plain["adversary"]
    # Kernels of 4 x 4: 3 -> 8 with a bias, 8 -> 16 with a norm, 16 -> 1 with a bias.
    count = (3 * 8 * 16 + 8) + (8 * 16 * 16 + 2 * 16) + (16 * 16 + 1)
    found = lines(adversarial["train_step"])
    assert found[1].startswith(f"parameters of the discriminator: {count:,}")
    assert lines(plain)[0] == found[0]
    book = {"type": "LearnedCodebook", "size": 16, "dim": 4, "init": {"type": "NormalInit"}}
    adversarial["tokenizer"]["quantizer"]["codebook"] = book
    sgd = {"type": "torch.optim.SGD", "lr": 0.1}
    around = {"type": "AlternatingStep", "step": adversarial["train_step"], "optimizer": sgd}
    assert lines(around)[1] == found[1]


def test_a_start_beyond_the_end_warns_before_training(
    adversarial: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    adversarial["train_step"]["adversary"] = ADVERSARY | {"start_step": 8}
    with caplog.at_level(logging.WARNING):
        assembly.make_step(adversarial, assembly.make_tokenizer(adversarial))
    assert "adversary.start_step: the run ends at step 8, before step 8" in caplog.text
