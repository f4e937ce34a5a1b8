"""Trains a tokenizer or a generator: `vq train NAME CONFIG`, or `torchrun ... -m vq.train NAME CONFIG`."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vq import cli
from vq import config as configs
from vq.run_config import config_to_continue

if TYPE_CHECKING:
    from mmengine.config import Config

    from vq.engine.loop.checkpointer import Checkpointer
    from vq.engine.loop.launch import Machine

DEFAULT_SEED = 3407


def arguments() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = cli.parser(
        "train",
        "Trains the tokenizer (or the generator) of CONFIG and writes everything to work_dirs/NAME. "
        "Several processes: auto_torchrun -m vq.train NAME CONFIG",
        "vq train emoji fsq/1000_emoji --override .trainer.max_steps:200\n  vq train emoji --auto-resume",
    )
    cli.add_run(parser)
    cli.add_machine(parser)
    cli.add_tuning(parser)
    cli.add_weights(parser)
    parser.add_argument(
        "--seed",
        type=int,
        help="decides weights, order, augmentation (default: that of the checkpoint which is continued, else 3407)",
    )
    parser.add_argument(
        "--load-from",
        metavar="DIR",
        help="continue from this checkpoint folder, e.g. work_dirs/X/checkpoints/iter_100",
    )
    parser.add_argument(
        "--auto-resume",
        action="store_true",
        help="continue from the newest valid checkpoint of NAME, if there is one",
    )
    parser.add_argument(
        "--timeout",
        type=float,
        default=600.0,
        metavar="SECONDS",
        help="end the run when another process of it gives no sign of life for so long (default 600)",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="build everything, print the plan, train nothing"
    )
    parser.add_argument(
        "--wandb", action="store_true", help="log to Weights & Biases too (WANDB_MODE=offline works)"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Runs the command; returns the scores of the last validation."""
    args = arguments().parse_args(argv)
    run = cli.run_directory(args.name)
    config = cli.load_config(args, args.config or config_to_continue(args.name, run, args.load_from))

    from vq import pretrained
    from vq.engine.loop.launch import launched, open_log
    from vq.engine.loop.run_lock import RunLock
    from vq.engine.loop.stopping import StopRequest

    launch = launched(device=args.device, autocast=args.autocast, timeout=args.timeout)
    with StopRequest() as stop, stop.at_once(), launch as machine:
        if args.dry_run:
            open_log(None)
            with pretrained.without_writing():
                return _plan(args, run, config, machine)
        with RunLock(run):
            _refuse_overwriting(args, run)
            # A command that is refused leaves the files of a run that it would continue as they are.
            open_log(run / "log.txt", is_held=args.auto_resume or bool(args.load_from))
            try:
                return _fit(args, run, config, machine)
            except ModuleNotFoundError as error:
                raise cli.UsageError(str(error)) from error


def _fit(args: argparse.Namespace, run: Path, config: "Config", machine: "Machine") -> dict[str, float]:
    from vq.engine import assembly
    from vq.engine.loop.launch import release_log, write_environment
    from vq.engine.loop.stopping import noted
    from vq.engine.loop.trainer import logger
    from vq.engine.steps.tuning import Tuning
    from vq.tokenizers.checkpoint import find_weights, load_weights

    logger.info("config: %s", config.filename)
    tree = config.to_dict()
    checkpoint = _checkpoint(args, assembly.make_checkpointer(tree, run))
    arguments = _recorded(args, checkpoint)
    seed = arguments["seed"]
    model = assembly.make_model(tree, seed=seed).to(machine.device)
    frozen = assembly.make_frozen_tokenizer(tree).to(machine.device) if "generator" in tree else None
    if args.load_model_from:
        files = [find_weights(path) for path in args.load_model_from]
        load_weights(model, files, allow_missing=args.allow_missing, allow_unexpected=args.allow_unexpected)
    tuning = Tuning(is_channels_last=args.channels_last, is_compiled=args.compile)
    train_step = assembly.make_step(
        tree, model, seed=seed, autocast=args.autocast, frozen_tokenizer=frozen, tuning=tuning
    )
    trainer = assembly.make_trainer(
        tree, run, train_step, machine, seed=seed, wandb=args.wandb, frozen_tokenizer=frozen
    )
    trainer.checkpointer.arguments = arguments
    step = 0
    if checkpoint is not None:
        step = trainer.checkpointer.restore(train_step, checkpoint)
        logger.info("continuing from %s: %d steps are done", checkpoint, step)
    trainer.prepare(step)
    release_log()
    if machine.rank == 0:  # only now it is known that the run can begin
        configs.save(config, run)
        write_environment(run / "environment.json", machine)
    with noted(run):
        return trainer.fit(step)


def _checkpoint(args: argparse.Namespace, checkpointer: "Checkpointer") -> Path | None:
    """The checkpoint to continue from; None for a new run."""
    found = checkpointer.to_resume(may_be_none=bool(args.load_from)) if args.auto_resume else None
    return Path(args.load_from) if found is None and args.load_from else found


def _recorded(args: argparse.Namespace, checkpoint: Path | None) -> dict[str, Any]:
    """What the command line decides of the numbers; each checkpoint keeps it. A seed that is not given stays."""
    from vq import distributed
    from vq.engine.loop.resuming import recorded_arguments

    before = {} if checkpoint is None else recorded_arguments(checkpoint)
    return {
        "seed": before.get("seed", DEFAULT_SEED) if args.seed is None else args.seed,
        "autocast": args.autocast,
        "channels_last": args.channels_last,
        "compile": args.compile,
        "ranks": distributed.world_size(),
    }


def _refuse_overwriting(args: argparse.Namespace, run: Path) -> None:
    from vq.tokenizers.checkpoint import checkpoints_in

    if not args.auto_resume and not args.load_from and checkpoints_in(run / "checkpoints"):
        raise cli.UsageError(
            f"{run} already holds a trained run; continue it with --auto-resume, or choose another NAME"
        )


def _plan(args: argparse.Namespace, run: Path, config: "Config", machine: "Machine") -> dict[str, float]:
    """Builds all parts, trains nothing, writes nothing."""
    from vq import distributed
    from vq.engine import assembly
    from vq.engine.loop.trainer import logger

    tree = config.to_dict()
    seed = DEFAULT_SEED if args.seed is None else args.seed
    model = assembly.make_model(tree, seed=seed)
    frozen = assembly.make_frozen_tokenizer(tree) if "generator" in tree else None
    step = assembly.make_step(tree, model, autocast=args.autocast, frozen_tokenizer=frozen)
    assembly.make_trainer(tree, run, step, machine, seed=seed, frozen_tokenizer=frozen)
    train, val = (assembly.make_loader(tree, name) for name in ("train_data", "val_data"))
    local = train.batch_size // distributed.world_size() // step.accumulate
    max_steps = tree["trainer"]["max_steps"]
    epochs = max_steps * train.batch_size / train.num_samples
    if frozen is None:
        lines = assembly.describe(tree, image_size=train.image_size, batch=local, autocast=args.autocast)
    else:
        lines = [f"parameters: {sum(p.numel() for p in model.parameters()):,} (generator)"]
    for line in lines:
        logger.info("%s", line)
    logger.info(
        "plan: %d steps of %d images (%d a rank x %d micro-batches), %.1f epochs of %d images; "
        "%d validation images every %d steps; checkpoints every %d steps in %s",
        max_steps,
        train.batch_size,
        local,
        step.accumulate,
        epochs,
        train.num_samples,
        val.num_samples,
        tree["evaluator"].get("every", 1000),
        tree["checkpointer"]["every"],
        run,
    )
    logger.info("dry run: nothing was trained or written")
    return {}


if __name__ == "__main__":
    cli.main(main)
