"""Trains contestants under equal conditions and compares them: `vq compare configs/compare/league.py`."""

import argparse
import logging
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vq import cli
from vq.text import file_name, without_secrets

if TYPE_CHECKING:
    from vq.engine.comparison.contestant import Contestant
    from vq.engine.comparison.experiment import Experiment

logger = logging.getLogger("vq.compare")  # __name__ is __main__ under python -m
EXAMPLE = """\
vq compare compare/league --only fsq ema --seeds 0 1 2

A page of an experiment is any page, or starts from one, and has two more sections:

  _base_ = "fsq/1000_emoji.py"

  from vq.engine import Comparison
  from vq.quantizers import FiniteScalarQuantizer

  contestants = dict(
      baseline=dict(),                                     # the page as it is
      ternary=dict(tokenizer=dict(quantizer=dict(type=FiniteScalarQuantizer, levels=(3,) * 6))),
      large_batch=dict(train_data=dict(batch_size=128)),   # a dict without type changes the keys it names
      slow={".train_step.optimizer.lr": 1e-4},             # a key with a dot is an override
      bf16=dict(arguments=["--autocast"]),                 # options of vq train
  )
  comparison = dict(type=Comparison, seeds=(0, 1, 2), baseline="baseline", score="psnr", cpu_hours=1.0)

Each contestant is trained by vq train, in work_dirs/compare/PAGE/CONTESTANT_seedN_HASH. A command that was stopped
continues where it was. A contestant's row is written to OUT/PAGE/rows when it finishes, and is used by every later
command as long as its config is the same. OUT/PAGE can be committed: table.md, table.csv, plot.svg, report.html"""


def arguments() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = cli.parser(
        "compare",
        "Trains every contestant of an experiment's page with every seed, exactly as vq train does, one on each GPU or "
        "one on each core; then writes a table in which a difference counts if its paired 95 % interval over the seeds "
        "excludes 0. Rows that exist are not computed again.",
        EXAMPLE,
    )
    parser.add_argument(
        "pages",
        nargs="+",
        metavar="CONFIG",
        help="pages with a section contestants = dict(NAME=dict(...), ...)",
    )
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="train only these contestants")
    parser.add_argument(
        "--seeds",
        type=int,
        nargs="+",
        default=[],
        metavar="N",
        help="train with these seeds (default: the page's)",
    )
    parser.add_argument(
        "--steps",
        type=cli.positive,
        help="training steps of the page (default: its own); short for an override",
    )
    parser.add_argument(
        "--jobs",
        type=cli.positive,
        metavar="N",
        help="train so many at a time (default: one per GPU, or per core)",
    )
    parser.add_argument(
        "--name", help="folder of the experiment in OUT and in work_dirs/compare (default: that of the page)"
    )
    parser.add_argument("--device", choices=("cuda", "cpu"), help="default: cuda if there is a GPU")
    parser.add_argument(
        "--out", type=Path, default=Path("experiments"), metavar="DIR", help="folder of results (experiments)"
    )
    cli.add_config_changes(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> list[Path]:
    """Runs the command; returns the files that it wrote."""
    args = arguments().parse_args(argv)
    cli.check_out(args.out)
    if args.name is not None and (len(args.pages) > 1 or file_name(args.name) != args.name):
        raise cli.UsageError(
            f"--name {args.name}: expected one page, and a name of letters, digits and _ - + . ="
        )
    for option, values in (("--seeds", args.seeds), ("--only", args.only)):
        if len(set(values)) < len(values):
            raise cli.UsageError(f"{option} {' '.join(map(str, values))}: a value is given twice")
    if args.steps is not None:
        args.override = [f".trainer.max_steps:{args.steps}", *args.override]
    experiments = [_experiment(args, page) for page in args.pages]

    from vq.engine.loop.launch import open_log

    with cli.ends_on_signal():
        open_log(None)
        prepared = [(experiment, *experiment.prepare()) for experiment in experiments]
        return [file for each in prepared for file in _run(*each)]


def _experiment(args: argparse.Namespace, page: str) -> "Experiment":
    args.config = page
    tree = cli.load_page(args).to_dict()
    names = list(tree.get("contestants", {}))
    if not names:
        raise cli.UsageError(
            f"{page}: expected a section contestants = dict(name=dict(...), ...), got none; `vq compare --help` and "
            f"configs/compare/league.py show one"
        )
    for name in args.only:
        if name not in names:
            raise cli.UsageError(f"{page}: has no contestant {name!r}; there are: {', '.join(names)}")

    from vq import train
    from vq.engine.comparison.experiment import Experiment, Places

    return Experiment(
        name=args.name or _name(args, page),
        tree=tree,
        only=args.only,
        seeds=args.seeds,
        out=args.out,
        work_dirs=cli.WORK_DIRS,
        places=Places.of(args.device, args.jobs),
        train=train.main,
        command=_command(args, page),
    )


def _command(args: argparse.Namespace, page: str) -> str:
    """The command that computes the rows of a page; where and in which order they are computed is left out."""
    file = Path(page)
    shown = file.relative_to(Path.cwd()) if file.is_absolute() and file.is_relative_to(Path.cwd()) else file
    words = ["vq", "compare", str(shown)]
    for option in ("config_options", "override", "weights"):
        if values := getattr(args, option):
            words += [f"--{option.replace('_', '-')}", *values]
    return without_secrets(shlex.join(words + (["--name", args.name] if args.name else [])))


def _name(args: argparse.Namespace, page: str) -> str:
    """The name of an experiment: that of its page, and the changes of the command line."""
    changes = [re.sub(r"[^\w.]+", "-", word).strip("-") for word in (*args.config_options, *args.override)]
    return file_name("_".join([Path(page).stem, *changes]))


def _run(
    experiment: "Experiment", everyone: "Sequence[Contestant]", missing: "Sequence[Contestant]"
) -> list[Path]:
    files = experiment.run(everyone, missing)
    for line in files[0].read_text(encoding="utf-8").splitlines() if files else []:
        logger.info("%s", line)
    for file in files:
        logger.info("wrote %s", file)
    return files


if __name__ == "__main__":
    cli.main(main)
