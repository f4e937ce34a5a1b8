"""The one place where configs and objects meet: sections become the parts of a run."""

import inspect
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from vq import distributed
from vq.data import ImageLoader, TokenLoader, UndecodableSetError
from vq.engine.assembly.checks import check_data
from vq.engine.assembly.class_names import check_class_names
from vq.engine.evaluation.evaluator import Evaluator
from vq.engine.loop.callbacks import (
    Callback,
    ConsoleProgress,
    Guarded,
    ImageGrid,
    MetricsFile,
    WandB,
    tensorboard_if_installed,
)
from vq.engine.loop.checkpointer import Checkpointer
from vq.engine.loop.launch import Machine
from vq.engine.loop.step_runner import StepRunner
from vq.engine.loop.trainer import Trainer
from vq.engine.loop.validation import Validation
from vq.engine.steps.alternating import codebook_parameters
from vq.engine.steps.base import TrainStep
from vq.engine.steps.discriminator_side import Adversary
from vq.engine.steps.generator import decay_groups
from vq.engine.steps.schedules import Constant, Schedule
from vq.engine.steps.tuning import Tuning, networks_of
from vq.errors import ConfigError
from vq.generators import Generator
from vq.generators.sampling import sampler_of
from vq.ops.keyed import seeded, stable_hash
from vq.registry import build, build_value, resolve
from vq.text import shown
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
    """The trained tokenizer of a page that trains a generator: eval mode, no gradient."""
    try:
        tokenizer: Tokenizer = build(section(config, "tokenizer"), path="tokenizer")
    except CheckpointError as error:
        raise ConfigError(f"tokenizer: {error}") from error
    return tokenizer.eval().requires_grad_(requires_grad=False)


def make_model(config: Tree, *, seed: int = 0) -> torch.nn.Module:
    """What the page trains: its generator if it has one, else its tokenizer."""
    if "generator" not in config:
        return make_tokenizer(config, seed=seed)
    with seeded(seed, "weights"):
        generator: Generator = build(section(config, "generator"), path="generator")
    return generator


def make_loader(config: Tree, name: str) -> Any:
    """The `ImageLoader` or `TokenLoader` of section `name` (`train_data` or `val_data`), checked."""
    loader: ImageLoader | TokenLoader = build(section(config, name), path=name)
    try:
        loader.check()
    except (ValueError, UndecodableSetError) as error:
        raise ConfigError(f"{name}: {error}") from error
    return loader


def make_sampling(config: Tree, changes: Mapping[str, Any]) -> Mapping[str, Any]:
    """How the page's evaluator samples, with some values changed; None changes nothing.

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


def make_evaluator(config: Tree, *, frozen_tokenizer: Tokenizer | None = None) -> Evaluator:
    """The config's evaluator; that of a generator gets the tokenizer which decodes."""
    runtime: dict[str, Any] = {} if frozen_tokenizer is None else {"tokenizer": frozen_tokenizer}
    evaluator: Evaluator = build(section(config, "evaluator"), path="evaluator", **runtime)
    return evaluator


def make_step(
    config: Tree,
    model: torch.nn.Module,
    *,
    seed: int = 0,
    autocast: bool = False,
    frozen_tokenizer: torch.nn.Module | None = None,
    tuning: Tuning | None = None,
) -> TrainStep:
    """The training step: its optimizers get their parameters, its schedule the length of the run.

    Args:
        config: The resolved config.
        model: What it trains; tuned in place, and then moved.
        seed: That of the model's first weights; a discriminator's first weights are a function of it too.
        autocast: Run the networks in bfloat16.
        frozen_tokenizer: What makes a generator's indices of images.
        tuning: For the model and its discriminator.
    """
    runtime = {"tokenizer": model, "autocast": autocast}
    with seeded(seed, "weights"):
        return _make_step(config, model, frozen_tokenizer, tuning or Tuning(), runtime)


def _make_step(
    config: Tree,
    model: torch.nn.Module,
    frozen_tokenizer: torch.nn.Module | None,
    tuning: Tuning,
    runtime: dict[str, Any],
) -> TrainStep:
    node = section(config, "train_step")
    tuning.apply(model, networks_of(model))
    if str(tuning):
        logger.info("%s", tuning)
    if isinstance(model, Generator):
        runtime |= {"generator": model, "tokenizer": frozen_tokenizer}
        return _build_step(config, node, "train_step", decay_groups(model), tuning, **runtime)
    tokenizer = model
    if "step" not in node:
        return _build_step(config, node, "train_step", list(tokenizer.parameters()), tuning, **runtime)
    # A step around another one has the codes, and the inner one everything else.
    codes = codebook_parameters(tokenizer)
    others = [p for p in tokenizer.parameters() if all(p is not code for code in codes)]
    inner = _build_step(config, node["step"], "train_step.step", others, tuning, **runtime)
    return _build_step(config, node, "train_step", codes, tuning, step=inner)


def _build_step(
    config: Tree, node: Tree, path: str, parameters: Sequence[Any], tuning: Tuning, **runtime: Any
) -> TrainStep:
    """A step whose `optimizer` moves `parameters` by its `schedule`."""
    optimizer = build(_child(node, "optimizer", path), path=f"{path}.optimizer", params=parameters)
    built: dict[str, Any] = {"optimizer": optimizer}
    if "step" not in node:
        built["schedule"] = _build_schedule(node, path, section(config, "trainer").get("max_steps"))
    if "adversary" in node:
        device = next(runtime["tokenizer"].parameters()).device
        built["adversary"] = _build_adversary(
            config, _child(node, "adversary", path), f"{path}.adversary", device, tuning
        )
    if "step" in runtime:
        built["step"] = runtime.pop("step")
    step: TrainStep = build(_without(node, built), path=path, **built, **runtime)
    return step


def _child(node: Tree, key: str, path: str) -> Tree:
    """The node at a key of another node."""
    child = node.get(key)
    if not isinstance(child, Mapping) or "type" not in child:
        raise ConfigError(f"{path}.{key}: expected dict(type=..., ...), got {shown(child)}")
    return child


def _without(node: Tree, built: Mapping[str, Any]) -> Tree:
    """A node without the children that are built already: what remains must not be given at run time too."""
    return {key: value for key, value in node.items() if key not in built}


def _build_adversary(config: Tree, node: Tree, path: str, device: torch.device, tuning: Tuning) -> Adversary:
    """The discriminator's side; its first weights are a function of the seed that the tokenizer's came from."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stable_hash(torch.initial_seed(), "discriminator"))
        discriminator = build(_child(node, "discriminator", path), path=f"{path}.discriminator").to(device)
    tuning.apply(discriminator, [discriminator])
    parameters = [p for p in discriminator.parameters() if p.requires_grad]
    start, end = node.get("start_step", 0), section(config, "trainer").get("max_steps")
    if end is not None and start >= end:
        logger.warning(
            "%s.start_step: the run ends at step %d, before step %d: no discriminator", path, end, start
        )
        end = start + 1
    optimizer = build(_child(node, "optimizer", path), path=f"{path}.optimizer", params=parameters)
    built = {
        "discriminator": discriminator,
        "optimizer": optimizer,
        "schedule": _build_schedule(node, path, None if end is None else end - start),
    }
    return build(_without(node, built), path=path, **built)  # type: ignore[no-any-return]


def _build_schedule(node: Tree, path: str, total_steps: int | None) -> Schedule:
    """The node's schedule, by default a constant rate; one that ends gets the number of steps."""
    if node.get("schedule") is None:
        return Constant()
    schedule, path = _child(node, "schedule", path), f"{path}.schedule"
    takes = inspect.signature(resolve(schedule["type"], path)).parameters
    length: dict[str, Any] = {"total_steps": total_steps} if "total_steps" in takes else {}
    built: Schedule = build(schedule, path=path, **length)
    return built


def make_checkpointer(config: Tree, run: Path) -> Checkpointer:
    """The checkpointer of a run folder."""
    node = section(config, "checkpointer")
    checkpointer: Checkpointer = build(
        node, path="checkpointer", directory=run / "checkpoints", config=dict(config)
    )
    return checkpointer


def make_callback(config: Tree, run: Path, *, wandb: bool) -> Callback:
    """What looks at a run: on rank 0 the console and the files, elsewhere nothing."""
    if distributed.rank() > 0:
        return Callback()
    callbacks = [
        ConsoleProgress(),
        MetricsFile(directory=run),
        *tensorboard_if_installed(run),
        ImageGrid(directory=run),
    ]
    if wandb:
        callbacks.append(WandB(directory=run, name=run.name, config=config))
    return Guarded(callbacks)


def make_score_callback(config: Tree, directory: Path, *, name: str, wandb: bool) -> Callback:
    """What is shown the scores of checkpoints outside training: TensorBoard if installed, and W&B if asked for."""
    if distributed.rank() > 0:
        return Callback()
    directory.mkdir(parents=True, exist_ok=True)
    callbacks = tensorboard_if_installed(directory)
    if wandb:
        callbacks.append(WandB(directory=directory, name=name, config=config))
    return Guarded(callbacks)


def make_trainer(
    config: Tree,
    run: Path,
    train_step: TrainStep,
    machine: Machine,
    *,
    seed: int,
    wandb: bool = False,
    frozen_tokenizer: Tokenizer | None = None,
) -> Trainer:
    """Everything of a run, ready to `fit`; wrong sizes and missing data are refused here."""
    train_data, val_data = make_loader(config, "train_data"), make_loader(config, "val_data")
    for name, loader in (("train_data", train_data), ("val_data", val_data)):
        check_data(train_step.model, frozen_tokenizer, loader, name)
    check_class_names(train_step.model, train_data.dataset.class_names, val_data.dataset.class_names)
    try:  # the global batch must divide over ranks and micro-batches
        next(iter(train_data.train_batches(seed=seed, micro_batches=train_step.accumulate)))
    except (ValueError, UndecodableSetError) as error:
        raise ConfigError(f"train_data: {error}") from error
    evaluator = make_evaluator(config, frozen_tokenizer=frozen_tokenizer)
    trainer: Trainer = build(
        section(config, "trainer"),
        path="trainer",
        runner=StepRunner(train_step=train_step, data=train_data, seed=seed),
        validation=Validation(evaluator=evaluator, data=val_data),
        checkpointer=make_checkpointer(config, run),
        callback=make_callback(config, run, wandb=wandb),
    )
    logger.info("%s", machine)
    return trainer
