"""Assembly asks what a class is and takes, never what it is called: subclasses and wrappers of a user's own work."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import pytest
import torch
from commands import TINY
from torch import Tensor

from vq import config
from vq.data import Batch, ImageFolder, ImageLoader
from vq.engine import AdversarialStep, Adversary, AlternatingStep, ReconstructionStep, assembly
from vq.engine.jobs.reference_statistics import reference_name, reference_section
from vq.engine.steps import Constant, TrainStep, WarmupCosine
from vq.engine.steps.base import Stateful
from vq.errors import ConfigError
from vq.losses import L1Loss

Tree = dict[str, Any]
SGD = {"type": "torch.optim.SGD", "lr": 0.01}
LEARNED = {"type": "LearnedCodebook", "size": 16, "dim": 4, "init": {"type": "vq.quantizers.NormalInit"}}
ADVERSARY = {
    "discriminator": {"type": "PatchDiscriminator", "base_width": 8, "depth": 1, "norm": "group"},
    "objective": {"type": "HingeObjective"},
    "optimizer": SGD,
    "start_step": 2,
}


class OwnAlternating(AlternatingStep):
    pass


class OwnAdversarial(AdversarialStep):
    pass


class OwnAdversary(Adversary):
    pass


class OwnConstant(Constant):
    pass


class OwnCosine(WarmupCosine):
    pass


class CustomLoader(ImageLoader):
    pass


class OwnFolder(ImageFolder):
    pass


class TwiceStep(TrainStep):
    """A wrapper of the user's own: takes the step that it wraps twice."""

    def __init__(self, *, step: TrainStep) -> None:
        self.wrapped, self.optimization = step, step.optimization

    def __call__(self, batches: Sequence[Batch], step: int) -> dict[str, Tensor]:
        self.wrapped(batches, step)
        return self.wrapped(batches, step)

    def parts(self) -> Mapping[str, Stateful]:
        return {"step": self.wrapped}


def made(tree: Tree, **options: Any) -> Any:
    return assembly.make_step(tree, assembly.make_tokenizer(tree, seed=1).train(), **options)


def takes_a_step(step: TrainStep) -> dict[str, Tensor]:
    batches = assembly.make_loader(config.load(TINY).to_dict(), "train_data").train_batches(seed=0)
    torch.manual_seed(0)
    return step([next(batches)], 5)


@pytest.fixture
def adversarial(tree: Callable[..., Tree]) -> Tree:
    loaded = tree()
    loaded["train_step"] |= {
        "type": OwnAdversarial,
        "adversary": ADVERSARY | {"type": OwnAdversary, "schedule": {"type": OwnCosine}},
        "schedule": {"type": OwnConstant},
        "weights": {"l1": 1.0, "quantizer": 1.0, "adversarial": 0.8},
    }
    return loaded


def test_subclasses_get_what_exists_only_at_run_time(adversarial: Tree) -> None:
    step = made(adversarial, autocast=True)
    assert type(step) is OwnAdversarial
    assert type(step.adversary) is OwnAdversary
    assert type(step.optimization.optimizer.schedule) is OwnConstant
    schedule = step.adversary.optimizer.schedule
    assert type(schedule) is OwnCosine
    assert schedule.total_steps == adversarial["trainer"]["max_steps"] - 2  # counted from its first step
    assert step.optimization.autocast
    assert takes_a_step(step)["adversarial_weight"] > 0


@pytest.mark.parametrize("wrapped", ["reconstruction", "adversarial"])
def test_a_subclass_of_the_alternating_step_takes_the_codes(
    tree: Callable[..., Tree], adversarial: Tree, wrapped: str
) -> None:
    inner = tree()["train_step"] if wrapped == "reconstruction" else adversarial["train_step"]
    loaded = tree(tokenizer__quantizer__codebook=LEARNED)
    loaded["train_step"] = {"type": OwnAlternating, "step": inner, "optimizer": SGD}
    step = made(loaded)
    codes = list(step.quantizer.codebook.parameters())
    held = step.step.optimization.optimizer.parameters
    assert [id(p) for p in step.optimizer.parameters] == [id(p) for p in codes]
    assert {id(p) for p in held} == {id(p) for p in step.model.parameters()} - {id(p) for p in codes}
    assert "loss/codes_alone" in takes_a_step(step)


class OpenStep(ReconstructionStep):
    def __init__(self, **options: Any) -> None:
        super().__init__(**options)


class OpenSGD(torch.optim.SGD):
    def __init__(self, params: Any, **options: Any) -> None:
        super().__init__(params, **options)


def test_classes_that_take_any_keyword_get_it_too(tree: Callable[..., Tree]) -> None:
    loaded = tree()
    loaded["train_step"] |= {"type": OpenStep, "optimizer": {"type": OpenSGD, "lr": 0.1}}
    step = made(loaded, autocast=True)
    assert step.optimization.autocast
    assert type(step.optimization.optimizer.inner) is OpenSGD


def test_a_wrapper_of_ones_own_is_built_around_a_whole_step(tree: Callable[..., Tree]) -> None:
    loaded = tree()
    loaded["train_step"] = {"type": TwiceStep, "step": loaded["train_step"]}
    step = made(loaded, autocast=True)
    assert step.optimization.autocast
    assert len(step.optimization.optimizer.parameters) == len(list(step.model.parameters()))
    assert {"loss/total", "learning_rate"} <= set(takes_a_step(step))


def test_loaders_and_folders_of_ones_own_have_reference_statistics(tree: Callable[..., Tree]) -> None:
    loaded = tree()
    loaded["val_data"] |= {"type": CustomLoader, "dataset": {"type": OwnFolder, "root": "data/flowers"}}
    loaded["evaluator"]["metrics"] = []
    assert reference_section(loaded, train=False)["shuffle"] is False
    assert reference_name(loaded, train=False) == "flowers_val"
    hub = {"type": "vq.data.HuggingFaceDataset", "name": "uoft-cs/cifar10"}
    loaded["val_data"]["dataset"] = {"type": "vq.data.HashSplit", "dataset": hub, "split": "train"}
    assert reference_name(loaded, train=True) == "cifar10_train"
    loaded["val_data"]["type"] = "vq.data.TokenLoader"
    with pytest.raises(ConfigError, match="expected an ImageLoader with a dataset of images"):
        reference_section(loaded, train=False)


class DeafStep(ReconstructionStep):
    """Takes no `autocast`."""

    def __init__(self, *, tokenizer: Any, losses: Any, weights: Any, optimizer: Any) -> None:
        super().__init__(tokenizer=tokenizer, losses=losses, weights=weights, optimizer=optimizer)


class NoStep:
    pass


def test_a_step_that_ignores_the_command_is_refused(tree: Callable[..., Tree]) -> None:
    loaded, whole = tree(), tree()["train_step"]
    loaded["train_step"] = {name: whole[name] for name in ("losses", "weights", "optimizer")} | {
        "type": DeafStep
    }
    assert "loss/total" in takes_a_step(made(loaded))
    with pytest.raises(ConfigError, match="--autocast: DeafStep does not pass it on; leave it out"):
        made(loaded, autocast=True)
    loaded["train_step"] = {"type": NoStep}
    with pytest.raises(ConfigError, match="expected a step that trains the section tokenizer, got NoStep"):
        made(loaded)


def plain_step(tokenizer: Any, **options: Any) -> ReconstructionStep:
    return ReconstructionStep(
        tokenizer=tokenizer, losses={"l1": L1Loss()}, weights={"l1": 1.0, "quantizer": 1.0}, **options
    )


def test_plain_python_takes_functions_and_what_they_make(tree: Callable[..., Tree]) -> None:
    """The same optimizer and schedule, made outside and made by the step."""
    tokenizers = [assembly.make_tokenizer(tree(), seed=1).train() for _ in range(2)]
    made_outside = plain_step(
        tokenizers[0],
        optimizer=torch.optim.Adam(tokenizers[0].parameters(), 1e-3),
        schedule=WarmupCosine(total_steps=10),
    )
    made_inside = plain_step(
        tokenizers[1], optimizer=partial(torch.optim.Adam, lr=1e-3), schedule=WarmupCosine, max_steps=10
    )
    one, other = (takes_a_step(step) for step in (made_outside, made_inside))
    assert one["learning_rate"] == other["learning_rate"] < 1e-3
    for a, b in zip(*(tokenizer.parameters() for tokenizer in tokenizers), strict=True):
        assert torch.equal(a, b)


def test_a_page_leaves_the_schedule_out_for_a_constant_rate(tree: Callable[..., Tree]) -> None:
    with pytest.raises(ConfigError, match=r"train_step\.schedule: expected Schedule, got None"):
        tree(train_step__schedule=None)
    loaded = tree()
    loaded["train_step"].pop("schedule", None)
    assert type(made(loaded).optimization.optimizer.schedule) is Constant


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (
            {"optimizer": lambda _: 3},
            TypeError,
            "optimizer: expected Optimizer or a function that makes one, got 3",
        ),
        (
            {"optimizer": partial(torch.optim.SGD, lr=0.1), "schedule": WarmupCosine},
            ValueError,
            "schedule: its length is unknown; give max_steps",
        ),
        (
            {"optimizer": partial(torch.optim.SGD, lr=0.1), "max_gradient_norm": 0.0},
            ValueError,
            "max_gradient_norm: expected a number above 0 or None, got 0.0",
        ),
    ],
)
def test_what_cannot_optimize_is_refused(
    tree: Callable[..., Tree], options: Tree, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        plain_step(assembly.make_tokenizer(tree(), seed=1), **options)
