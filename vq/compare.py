"""Trains quantizers against each other: `vq compare configs/compare/league.py`."""

import argparse
import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vq import cli
from vq.text import file_name

if TYPE_CHECKING:
    from vq.engine.jobs.league import League

logger = logging.getLogger("vq.compare")  # __name__ is __main__ under python -m


def arguments() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = cli.parser(
        "compare",
        "Trains every quantizer in the page's `contestants` (or every tokenizer in its `tokenizers`) with the page's "
        "networks, data, losses and number of steps, each exactly as vq.train would, and writes one table (Markdown, "
        "CSV, a plot) to work_dirs/compare/PAGE. Results that exist are not computed again.",
        "vq compare compare/league --steps 400 --seeds 0 1 2 --only fsq ema",
    )
    parser.add_argument(
        "pages",
        nargs="+",
        metavar="CONFIG",
        help="pages with a section contestants = dict(...) or tokenizers = dict(...)",
    )
    parser.add_argument("--steps", type=cli.positive, help="training steps of each (default: the page's)")
    parser.add_argument(
        "--seeds", type=int, nargs="+", default=[0], help="train each with each seed (default 0)"
    )
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="train only these contestants")
    parser.add_argument("--out", type=Path, default=cli.WORK_DIRS / "compare", metavar="DIR")
    cli.add_config_changes(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> list[Path]:
    """Runs the command; returns the files of the tables."""
    args = arguments().parse_args(argv)
    cli.check_out(args.out)
    for option, values in (("--seeds", args.seeds), ("--only", args.only)):
        if len(set(values)) < len(values):
            raise cli.UsageError(f"{option} {' '.join(map(str, values))}: a value is given twice")
    pages = [(page, *_contestants(args, page)) for page in args.pages]

    from vq.engine.jobs.league import League
    from vq.engine.loop.launch import launched, open_log

    leagues = [
        League(
            tree=tree,
            names=names,
            seeds=args.seeds,
            steps=args.steps or tree["trainer"]["max_steps"],
            folder=_folder(args, page),
        )
        for page, tree, names in pages
    ]
    with cli.ends_on_signal(), launched(device="cpu") as machine:
        open_log(None)
        for league in leagues:
            league.check()
        logger.info("%s", machine)
        written = [file for league in leagues for file in _run(league)]
    return written


def _contestants(args: argparse.Namespace, page: str) -> tuple[dict[str, Any], list[str]]:
    """The config of a page, and the names of the contestants that take part."""
    args.config = page
    tree = cli.load_config(args).to_dict()
    names = [*tree.get("contestants", {}), *tree.get("tokenizers", {})]
    if not names:
        raise cli.UsageError(
            f"{page}: expected a section contestants = dict(name=dict(type=...), ...) or tokenizers, got neither; "
            f"configs/compare/league.py shows one"
        )
    for name in args.only:
        if name not in names:
            raise cli.UsageError(f"{page}: has no contestant {name!r}; there are: {', '.join(names)}")
    return tree, args.only or names


def _folder(args: argparse.Namespace, page: str) -> Path:
    """A folder for a page with these changes: tables of other settings are not overwritten."""
    changes = [re.sub(r"[^\w.]+", "-", word).strip("-") for word in (*args.config_options, *args.override)]
    return Path(args.out) / file_name("_".join([Path(page).stem, *changes]))


def _run(league: "League") -> list[Path]:
    files = league.run()
    for line in files[0].read_text(encoding="utf-8").splitlines():
        logger.info("%s", line)
    for file in files:
        logger.info("wrote %s", file)
    return files


if __name__ == "__main__":
    cli.main(main)
