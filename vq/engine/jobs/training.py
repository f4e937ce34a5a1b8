"""Trains the config of a run, or builds everything and prints the plan."""

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vq import config as configs
from vq import distributed
from vq.data import ImageLoader
from vq.engine import assembly
from vq.engine.jobs.given_weights import GivenWeights
from vq.engine.loop.checkpointer import Checkpointer
from vq.engine.loop.launch import Machine, release_log, write_environment
from vq.engine.loop.resuming import recorded_arguments
from vq.engine.loop.stopping import noted
from vq.engine.loop.trainer import Trainer
from vq.engine.steps.tuning import Tuning

if TYPE_CHECKING:
    from mmengine.config import Config

DEFAULT_SEED = 3407
logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingOptions:
    """What the command line decides of a training.

    Attributes:
        seed: Base seed; None for that of the checkpoint to continue from, else `DEFAULT_SEED`.
        auto_resume: Continue from the newest valid checkpoint of the run, if there is one.
        load_from: A checkpoint folder to continue from; with `auto_resume` only if the run has no checkpoint.
        weights: Loaded into the model before a new training.
        tuning: Memory layout and compilation.
        wandb: Log to Weights & Biases too.
    """

    seed: int | None = None
    auto_resume: bool = False
    load_from: str | None = None
    weights: GivenWeights = field(default_factory=GivenWeights)
    tuning: Tuning = field(default_factory=Tuning)
    wandb: bool = False


def train(config: "Config", run: Path, machine: Machine, options: TrainingOptions) -> dict[str, float]:
    """Trains, and returns the scores of the last validation.

    The files of the run are changed only once everything is built: what is refused leaves them as they are.
    """
    logger.info("config: %s", config.filename)
    tree = config.to_dict()
    checkpoint = _checkpoint_to_continue(options, assembly.make_checkpointer(tree, run))
    arguments = _arguments(options, machine, checkpoint)
    trainer = _build(tree, run, machine, options, seed=arguments["seed"], device=machine.device)
    trainer.checkpointer.arguments = arguments
    step = 0
    if checkpoint is not None:
        step = trainer.checkpointer.restore(trainer.train_step, checkpoint)
        logger.info("continuing from %s: %d steps are done", checkpoint, step)
    trainer.prepare(step)
    release_log()
    if machine.rank == 0:
        configs.save(config, run)
        write_environment(run / "environment.json", machine)
    with noted(run):
        return trainer.fit(step)


def plan(config: "Config", run: Path, machine: Machine, options: TrainingOptions) -> None:
    """Builds all parts on the CPU and logs what a training would do; trains and writes nothing."""
    tree = config.to_dict()
    seed = DEFAULT_SEED if options.seed is None else options.seed
    trainer = _build(tree, run, machine, TrainingOptions(), seed=seed, device="cpu")
    data, step = trainer.runner.data, trainer.train_step
    local = data.batch_size // distributed.world_size() // step.accumulate
    if (trained := configs.trained_section(tree)) != "tokenizer":
        lines = [f"parameters: {sum(p.numel() for p in step.model.parameters()):,} ({trained})"]
    else:
        assert isinstance(data, ImageLoader)  # `make_trainer` has checked it
        lines = assembly.describe(step, image_size=data.image_size, batch=local)
    for line in lines:
        logger.info("%s", line)
    logger.info(
        "plan: %d steps of %d images (%d per rank x %d micro-batches), %.1f epochs of %d images; "
        "%d validation images every %d steps; checkpoints every %d steps in %s",
        trainer.max_steps,
        data.batch_size,
        local,
        step.accumulate,
        trainer.max_steps * data.batch_size / data.num_samples,
        data.num_samples,
        trainer.validation.data.num_samples,
        trainer.validation.every,
        trainer.checkpointer.every,
        run,
    )
    logger.info("dry run: nothing was trained or written")


def _build(
    tree: dict[str, Any], run: Path, machine: Machine, options: TrainingOptions, *, seed: int, device: str
) -> Trainer:
    """The trainer of a config, its model on the device and with the weights that the options give."""
    frozen = assembly.make_tokenizer_below(tree)
    frozen = None if frozen is None else frozen.to(device)
    model = assembly.make_model(tree, seed=seed, frozen_tokenizer=frozen).to(device)
    options.weights.load_into(model)
    train_step = assembly.make_step(
        tree,
        model,
        seed=seed,
        autocast=machine.autocast,
        frozen_tokenizer=frozen,
        tuning=options.tuning,
    )
    return assembly.make_trainer(
        tree, run, train_step, machine, seed=seed, wandb=options.wandb, frozen_tokenizer=frozen
    )


def _checkpoint_to_continue(options: TrainingOptions, checkpointer: Checkpointer) -> Path | None:
    """The checkpoint to continue from; None for a new run."""
    found = checkpointer.to_resume(may_be_none=bool(options.load_from)) if options.auto_resume else None
    return Path(options.load_from) if found is None and options.load_from else found


def _arguments(options: TrainingOptions, machine: Machine, checkpoint: Path | None) -> dict[str, Any]:
    """What decides the numbers besides the config; stored with each checkpoint.

    A seed that is not given stays that of the checkpoint.
    """
    before = {} if checkpoint is None else recorded_arguments(checkpoint)
    return {
        "seed": before.get("seed", DEFAULT_SEED) if options.seed is None else options.seed,
        "autocast": machine.autocast,
        "channels_last": options.tuning.is_channels_last,
        "compile": options.tuning.is_compiled,
        "ranks": machine.world_size,
    }
