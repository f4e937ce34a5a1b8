"""Builds the parts of a run from the sections of a config."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from vq import distributed
from vq.config import trained_section
from vq.data import FeatureLoader, ImageLoader, TokenLoader, UndecodableSetError
from vq.engine.assembly.checks import check_data, check_losses
from vq.engine.assembly.class_names import check_class_names
from vq.engine.assembly.stored_features import check_features
from vq.engine.callbacks import (
    BestScores,
    Callback,
    ConsoleProgress,
    Guarded,
    ImageGrid,
    MetricsFile,
    Profile,
    WandB,
    tensorboard_if_installed,
)
from vq.engine.evaluation.base import AnyEvaluator
from vq.engine.loop.checkpointer import Checkpointer
from vq.engine.loop.launch import Machine
from vq.engine.loop.step_runner import StepRunner
from vq.engine.loop.trainer import Trainer
from vq.engine.loop.validation import Validation
from vq.engine.steps.base import TrainStep
from vq.errors import ConfigError
from vq.generators.sampling import sampler_of
from vq.ops.keyed import seeded
from vq.registry import build, build_value
from vq.tokenizers import Tokenizer
from vq.tokenizers.checkpoint import CheckpointError

Tree = Mapping[str, Any]
logger = logging.getLogger(__name__)


def section(config: Tree, name: str) -> Tree:
    """A section of the config.

    Raises:
        ConfigError: If the config has none of this name.
    """
    if name not in config:
        raise ConfigError(f"the config has no section {name!r}; add {name} = dict(type=..., ...)")
    node: Tree = config[name]
    return node


def make_tokenizer(config: Tree, *, seed: int = 0) -> Tokenizer:
    """The config's tokenizer; its first weights are a function of the seed."""
    with seeded(seed, "weights"):
        tokenizer: Tokenizer = build(section(config, "tokenizer"), path="tokenizer")
    return tokenizer


def make_frozen_tokenizer(config: Tree) -> Tokenizer:
    """The trained tokenizer of a page that trains a model over it, in eval mode and without gradients."""
    try:
        tokenizer: Tokenizer = build(section(config, "tokenizer"), path="tokenizer")
    except CheckpointError as error:
        raise ConfigError(f"tokenizer: {error}") from error
    return tokenizer.eval().requires_grad_(requires_grad=False)


def make_tokenizer_below(config: Tree) -> Tokenizer | None:
    """The frozen tokenizer of a page that trains a model over it; None if it trains a tokenizer, or needs none."""
    trained = trained_section(config)
    is_without = trained == "tokenizer" or (trained == "probe" and "tokenizer" not in config)
    return None if is_without else make_frozen_tokenizer(config)


def make_model(config: Tree, *, seed: int = 0, frozen_tokenizer: Tokenizer | None = None) -> torch.nn.Module:
    """The model that the page trains: its generator or its probe if it has one, else its tokenizer.

    Args:
        config: The resolved config.
        seed: The first weights are a function of it.
        frozen_tokenizer: From `make_tokenizer_below`; it becomes a part of a probe.
    """
    trained = trained_section(config)
    if trained == "tokenizer":
        return make_tokenizer(config, seed=seed)
    shared = {} if frozen_tokenizer is None else {"tokenizer": frozen_tokenizer}
    with seeded(seed, "weights"):
        model: torch.nn.Module = build(section(config, trained), path=trained, shared=shared)
    return model


def make_loader(config: Tree, name: str) -> Any:
    """The loader of the section `name` (`train_data` or `val_data`), of any kind, after its own checks."""
    loader: ImageLoader | TokenLoader | FeatureLoader = build(section(config, name), path=name)
    try:
        loader.check()
    except (ValueError, UndecodableSetError) as error:
        raise ConfigError(f"{name}: {error}") from error
    return loader


def make_sampling(config: Tree, changes: Mapping[str, Any]) -> Mapping[str, Any]:
    """The sampling options of the page's evaluator, with some values changed; None changes nothing.

    Raises:
        ConfigError: If a setting does not exist, or its value is out of range.
    """
    node = section(config, "evaluator").get("sampling") or {}
    given = {name: value for name, value in changes.items() if value is not None}
    sampling: dict[str, Any] = build_value({**node, **given}, path="evaluator.sampling")
    try:
        sampler_of(**sampling)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"evaluator.sampling: {error}") from error
    return sampling


def make_evaluator(config: Tree, *, frozen_tokenizer: Tokenizer | None = None) -> AnyEvaluator:
    """The config's evaluator; that of a generator gets the tokenizer that decodes its indices."""
    shared = {} if frozen_tokenizer is None else {"tokenizer": frozen_tokenizer}
    evaluator: AnyEvaluator = build(section(config, "evaluator"), path="evaluator", shared=shared)
    return evaluator


def make_checkpointer(config: Tree, run: Path) -> Checkpointer:
    """The checkpointer of a run folder."""
    node = section(config, "checkpointer")
    checkpointer: Checkpointer = build(
        node, path="checkpointer", directory=run / "checkpoints", config=dict(config)
    )
    return checkpointer


def make_callbacks(
    config: Tree,
    run: Path,
    *,
    wandb: Mapping[str, str] | None = None,
    profile: tuple[int, int] | None = None,
    directions: Mapping[str, bool] | None = None,
    batch_size: int | None = None,
) -> list[Callback]:
    """The callbacks that every run has on rank 0: console, files and loggers; none on the other ranks.

    Args:
        config: The resolved config.
        run: The run folder.
        wandb: The `name`, `project` and `entity` with which to log to Weights & Biases too; None to do without.
        profile: The first and the last step of a trace; None for no trace.
        directions: For each score of the validation, whether a larger value is better.
        batch_size: Images per step.
    """
    if distributed.rank() > 0:
        return []
    best = BestScores(directory=run, directions=directions or {})
    callbacks: list[Callback] = [
        MetricsFile(directory=run),
        ConsoleProgress(batch_size=batch_size, best=best),
        *tensorboard_if_installed(run, config),
        ImageGrid(directory=run),
        best,
    ]
    if profile is not None:
        callbacks.append(Profile(directory=run, first=profile[0], last=profile[1]))
    if wandb is not None:
        callbacks.append(WandB(directory=run, config=config, **wandb))
    return callbacks


def make_score_callback(config: Tree, directory: Path, *, wandb: Mapping[str, str] | None) -> Callback:
    """The callbacks that log the scores of checkpoints outside training: TensorBoard if installed, W&B if asked for."""
    if distributed.rank() > 0:
        return Callback()
    directory.mkdir(parents=True, exist_ok=True)
    callbacks = tensorboard_if_installed(directory, config)
    if wandb is not None:  # the training's own run in W&B goes on by itself
        callbacks.append(WandB(directory=directory, config=config, id_name="wandb_id_scores.txt", **wandb))
    return Guarded(callbacks)


def make_trainer(
    config: Tree,
    run: Path,
    train_step: TrainStep,
    machine: Machine,
    *,
    seed: int,
    wandb: Mapping[str, str] | None = None,
    profile: tuple[int, int] | None = None,
    frozen_tokenizer: Tokenizer | None = None,
) -> Trainer:
    """The trainer of a run with all its parts, ready to `fit`; data that do not fit the model are refused."""
    train_data, val_data = make_loader(config, "train_data"), make_loader(config, "val_data")
    for name, loader in (("train_data", train_data), ("val_data", val_data)):
        if distributed.rank() == 0:
            logger.info("%s: %s", name, loader.dataset.describe())
        check_data(train_step.model, frozen_tokenizer, loader, name)
    if isinstance(train_data, FeatureLoader):
        check_features(config, train_step, train_data)
    check_losses(train_step, train_data)
    check_class_names(train_step.model, train_data.dataset.class_names, val_data.dataset.class_names)
    try:  # the global batch must divide over ranks and micro-batches
        next(iter(train_data.train_batches(seed=seed, micro_batches=train_step.accumulate)))
    except (ValueError, UndecodableSetError) as error:
        raise ConfigError(f"train_data: {error}") from error
    evaluator = make_evaluator(config, frozen_tokenizer=frozen_tokenizer)
    trainer: Trainer = build(
        section(config, "trainer"),
        path="trainer",
        shared={"directory": run},
        runner=StepRunner(train_step=train_step, data=train_data, seed=seed),
        validation=Validation(evaluator=evaluator, data=val_data),
        checkpointer=make_checkpointer(config, run),
    )
    own = make_callbacks(
        config,
        run,
        wandb=wandb,
        profile=profile,
        directions=evaluator.directions(),
        batch_size=train_data.batch_size,
    )
    trainer.callback = Guarded([*own, *trainer.callbacks] if distributed.rank() == 0 else [])
    logger.info("%s", machine)
    return trainer
