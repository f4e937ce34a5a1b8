"""Builds the training step of a config on the meta device, without the losses whose weights are missing."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from vq.config import PRETRAINED_TOKENIZER, trained_section
from vq.engine.assembly import make_model, make_step
from vq.engine.steps.base import TrainStep
from vq.errors import UserError
from vq.registry import build

FAULTS = (UserError, OSError, ValueError, TypeError, RuntimeError, ImportError, LookupError, AttributeError)
"""What building or reading a part may raise; NotImplementedError, of the meta device, is a RuntimeError."""


@dataclass(frozen=True, slots=True)
class MetaStep:
    """A training step on the meta device.

    Attributes:
        step: The step.
        left_out: The losses that were left out because they cannot be built.
    """

    step: TrainStep
    left_out: list[str]


def meta_step(config: Mapping[str, Any]) -> MetaStep:
    """The training step of a config on the meta device.

    Raises:
        UserError: If its model cannot be built, for example because the weights of a teacher are missing.
    """
    tree = copy.deepcopy(dict(config))
    left_out = _without_missing_losses(tree)
    trained = trained_section(tree)
    tree["tokenizer"] = _described(tree.get("tokenizer"))
    with torch.device("meta"):
        frozen = None
        if trained == "probe" and tree["tokenizer"] is not None:
            frozen = build(tree["tokenizer"], path="tokenizer").eval().requires_grad_(requires_grad=False)
        model = make_model(tree, frozen_tokenizer=frozen).train().to("meta")  # teachers are read to the CPU
        return MetaStep(make_step(tree, model, frozen_tokenizer=frozen), left_out)


def _described(value: Any) -> Any:
    """A config with each pretrained tokenizer replaced by its description, as far as there is one."""
    if isinstance(value, list):
        return [_described(child) for child in value]
    if not isinstance(value, Mapping):
        return value
    if value.get("type") in PRETRAINED_TOKENIZER and value.get("tokenizer"):
        return _described(value["tokenizer"])
    return {key: _described(child) for key, child in value.items()}


def _without_missing_losses(tree: dict[str, Any]) -> list[str]:
    """Removes the losses that cannot be built from a config in place; returns their names."""
    step = tree["train_step"].get("step", tree["train_step"])
    missing = []
    for name, node in dict(step.get("losses") or {}).items():
        try:
            with torch.device("meta"):
                build(node, path=f"train_step.losses.{name}")
        except FAULTS:
            missing.append(name)
            del step["losses"][name]
            step.get("weights", {}).pop(name, None)
    return missing
