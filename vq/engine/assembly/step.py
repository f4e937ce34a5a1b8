"""From a section `train_step` to a training step."""

import logging
from collections.abc import Callable, Mapping
from functools import partial
from itertools import chain
from typing import Any

import torch

from vq.config import trained_section
from vq.engine.assembly.build import Tree, section
from vq.engine.steps.base import TrainStep
from vq.engine.steps.checks import check_all_updated
from vq.engine.steps.tuning import Tuning, networks_of
from vq.errors import ConfigError
from vq.ops.keyed import seeded, stable_hash
from vq.registry import DISCRIMINATORS, build, slot_of
from vq.tokenizers import Tokenizer

logger = logging.getLogger(__name__)


def make_step(
    config: Tree,
    model: torch.nn.Module,
    *,
    seed: int = 0,
    autocast: bool = False,
    frozen_tokenizer: Tokenizer | None = None,
    tuning: Tuning | None = None,
) -> TrainStep:
    """The training step of a config.

    Args:
        config: The resolved config.
        model: What the step trains; tuned in place first.
        seed: That of the model's first weights; a discriminator's first weights are a function of it too.
        autocast: Run the networks in bfloat16.
        frozen_tokenizer: Turns images into the indices that a generator learns.
        tuning: For the model and its discriminator.

    Raises:
        ConfigError: If the step cannot be built, trains something else, or does not know `autocast`.
    """
    tuning = tuning or Tuning()
    tuning.apply(model, networks_of(model))
    if str(tuning):
        logger.info("%s", tuning)
    shared: dict[str, Any] = {
        "tokenizer": frozen_tokenizer,
        "autocast": autocast,
        "max_steps": section(config, "trainer").get("max_steps"),
    }
    trained = trained_section(config)
    shared[trained] = model
    device = next(chain(model.parameters(), model.buffers())).device
    make = partial(_make_discriminator, seed=seed, device=device, tuning=tuning)
    with seeded(seed, "weights"):
        node = _with_discriminators(section(config, "train_step"), "train_step", make)
        step = build(node, path="train_step", shared=shared)
    if not isinstance(step, TrainStep) or step.model is not model:
        raise ConfigError(
            f"train_step: expected a step that trains the section {trained}, got {type(step).__name__}"
        )
    try:
        check_all_updated(model, step.updated_parameters())
    except ValueError as error:
        raise ConfigError(f"train_step: {error}") from error
    if autocast and not step.optimization.autocast:
        raise ConfigError(f"--autocast: {type(step).__name__} does not pass it on; leave it out")
    return step


def _make_discriminator(
    node: Tree, path: str, *, seed: int, device: torch.device, tuning: Tuning
) -> torch.nn.Module:
    with seeded(stable_hash(seed, "weights"), "discriminator"):
        discriminator: torch.nn.Module = build(node, path=path).to(device)
    tuning.apply(discriminator, [discriminator])
    return discriminator


def _with_discriminators(value: Any, path: str, make: Callable[[Tree, str], torch.nn.Module]) -> Any:
    """A copy of a config's value in which discriminators are already built.

    Their first weights must not depend on what else draws random numbers, and they are tuned before their optimizer
    is made.
    """
    if isinstance(value, Mapping):
        if "type" in value and slot_of(path) is DISCRIMINATORS:
            return make(value, path)
        return {key: _with_discriminators(child, f"{path}.{key}", make) for key, child in value.items()}
    if isinstance(value, list | tuple):
        return [_with_discriminators(child, f"{path}[{i}]", make) for i, child in enumerate(value)]
    return value
