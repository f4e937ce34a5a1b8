"""Trains the config of a run, or builds everything and prints the plan."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vq import config as configs
from vq import distributed
from vq.data import ImageLoader
from vq.engine import assembly
from vq.engine.assembly.same_data import DATA, check_same_data, identity_of
from vq.engine.jobs.given_weights import GivenWeights
from vq.engine.jobs.restarts import note_start
from vq.engine.loop.checkpointer import Checkpointer
from vq.engine.loop.launch import Machine, release_log, write_environment
from vq.engine.loop.lost_ranks import lost_ranks_named
from vq.engine.loop.resuming import SKIPPED, recorded_arguments
from vq.engine.loop.stopping import noted
from vq.engine.loop.trainer import Trainer
from vq.engine.steps.tuning import Tuning
from vq.errors import ConfigError
from vq.ops.numerics.determinism import COST
from vq.text import holds_secret

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
        wandb: The names with which to log to Weights & Biases too, as for `make_callbacks`; None to do without.
        is_deterministic: Whether every sum is computed in a fixed order.
        may_data_differ: Whether a training may continue with other images than those it began with.
        profile: The first and the last step to record, counted from the start of the command.
    """

    seed: int | None = None
    auto_resume: bool = False
    load_from: str | None = None
    weights: GivenWeights = field(default_factory=GivenWeights)
    tuning: Tuning = field(default_factory=Tuning)
    wandb: Mapping[str, str] | None = None
    is_deterministic: bool = False
    may_data_differ: bool = False
    profile: tuple[int, int] | None = None


def train(config: "Config", run: Path, machine: Machine, options: TrainingOptions) -> dict[str, float]:
    """Trains, and returns the scores of the last validation.

    The files of the run are changed only once everything is built: what is refused leaves them as they are.
    """
    logger.info("config: %s", config.filename)
    if options.is_deterministic:
        logger.info("%s", COST)
    tree = config.to_dict()
    _refuse_secrets(tree)
    checkpoint = _checkpoint_to_continue(options, assembly.make_checkpointer(tree, run))
    arguments = _arguments(options, machine, checkpoint)
    trainer = _build(tree, run, machine, options, seed=arguments["seed"], device=machine.device)
    arguments[DATA] = identity_of(trainer.runner.data)
    trainer.checkpointer.arguments = arguments
    trainer.skip(arguments[SKIPPED])
    step = 0
    if checkpoint is not None:
        check_same_data(checkpoint, tree, arguments[DATA], may_differ=options.may_data_differ)
        step = trainer.checkpointer.restore(trainer.train_step, checkpoint)
        logger.info("continuing from %s: %d steps are done", checkpoint, step)
    trainer.prepare(step)
    note_start(run)
    release_log()
    if machine.rank == 0:
        configs.save(config, run)
        write_environment(run / "environment.json", machine)
    with noted(run), lost_ranks_named():
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
        tree,
        run,
        train_step,
        machine,
        seed=seed,
        wandb=options.wandb,
        profile=options.profile,
        frozen_tokenizer=frozen,
    )


def _checkpoint_to_continue(options: TrainingOptions, checkpointer: Checkpointer) -> Path | None:
    """The checkpoint to continue from; None for a new run."""
    found = checkpointer.to_resume(may_be_none=bool(options.load_from)) if options.auto_resume else None
    return Path(options.load_from) if found is None and options.load_from else found


def _refuse_secrets(node: Any, place: str = "") -> None:
    """Refuses a config with a key, a token or a password: it is stored with the run and with all weights."""
    if isinstance(node, str) and holds_secret(place, node):
        raise ConfigError(
            f"{place}: expected no key, token or password, got what looks like one; a config is stored with the run "
            f"and in every file of weights; give it as an environment variable, or rename the setting if it is none"
        )
    if isinstance(node, list | tuple):
        node = dict(enumerate(node))
    if isinstance(node, Mapping):
        for key, child in node.items():
            _refuse_secrets(child, f"{place}.{key}".lstrip("."))


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
        "deterministic": options.is_deterministic,
        "ranks": machine.world_size,
        SKIPPED: before.get(SKIPPED, []),
    }
