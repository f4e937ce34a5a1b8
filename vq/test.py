"""Validates one checkpoint by its path: `vq test NAME [CONFIG] --load-model-from F`."""

import argparse
import logging
import re
from collections.abc import Sequence
from pathlib import Path

from vq import cli
from vq.run_config import config_for

logger = logging.getLogger("vq.test")  # __name__ is __main__ under python -m


def arguments() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = cli.parser(
        "test",
        "Validates one checkpoint, given by its path, and writes work_dirs/NAME/test/metrics.json and pictures.",
        "vq test fsq/1000_emoji --load-model-from work_dirs/fsq/1000_emoji/checkpoints/iter_1000",
    )
    cli.add_run(parser, exists=True)
    cli.add_machine(parser)
    cli.add_weights(parser, required=True)
    cli.add_visual(parser)
    cli.add_tokenize(parser)
    cli.add_wandb(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Runs the command; returns the scores."""
    args = arguments().parse_args(argv)
    run = cli.run_directory(args.name)
    tree = config_for(args, run=None, weights=args.load_model_from)

    from vq.engine.jobs.scoring import scorer_of
    from vq.engine.loop.launch import launched, open_log

    with cli.ends_on_signal(), launched(device=args.device, autocast=args.autocast) as machine:
        given, folder = cli.given_weights(args, args.load_model_from), run / "test"
        step = _step(given.files()[-1])
        open_log(folder / "log.txt")
        logger.info("%s", machine)
        with scorer_of(
            tree,
            folder,
            machine,
            name=f"{run.name}-test",
            wandb=args.wandb,
            visual=args.visual,
            is_tokenized=args.tokenize,
        ) as scorer:
            return scorer.score(given, folder, step=step)


def _step(weights: Path) -> int:
    """The step in the name of a weight file's folder, 0 if it is not that of a checkpoint."""
    from vq.tokenizers.checkpoint import step_of

    return step_of(weights.parent) if re.fullmatch(r"iter_\d+", weights.parent.name) else 0


if __name__ == "__main__":
    cli.main(main)
