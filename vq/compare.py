"""Trains quantizers against each other: `python -m vq.compare configs/compare/league.py`."""

import argparse
import logging
import re
from collections.abc import Sequence
from pathlib import Path

from vq import cli
from vq.text import file_name, printable

logger = logging.getLogger("vq.compare")  # __name__ is __main__ under python -m


def arguments() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = cli.parser(
        "compare",
        "Trains every quantizer in the page's `contestants` (or every tokenizer in its `tokenizers`) with the page's "
        "networks, data, losses, budget and seeds, "
        "and writes one table (Markdown, CSV, a plot) to work_dirs/compare/PAGE. Results that are there are not "
        "computed again.",
        "python -m vq.compare configs/compare/league.py --steps 400 --seeds 0 1 2 --only fsq ema",
    )
    parser.add_argument(
        "pages",
        nargs="+",
        metavar="CONFIG",
        help="pages with a section contestants = dict(...) or tokenizers = dict(...)",
    )
    parser.add_argument("--steps", type=cli.positive, help="training steps of each (default: the page's)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="default: 0")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="some of the contestants")
    parser.add_argument("--out", type=Path, default=cli.WORK_DIRS / "compare", metavar="DIR")
    cli.add_config_changes(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> list[Path]:
    """Runs the command; returns the files it wrote."""
    args = arguments().parse_args(argv)
    cli.check_out(args.out)
    for option, values in (("--seeds", args.seeds), ("--only", args.only)):
        if len(set(values)) < len(values):
            raise cli.UsageError(f"{option} {' '.join(map(str, values))}: a value is given twice")
    configs = []
    for page in args.pages:
        args.config = page
        tree = cli.load_config(args).to_dict()
        names = [*tree.get("contestants", {}), *tree.get("tokenizers", {})]
        if not names:
            raise cli.UsageError(
                f"{page}: has no section contestants = dict(name=dict(type=...), ...), and no tokenizers"
            )
        for name in args.only:
            if name not in names:
                raise cli.UsageError(f"{page}: has no contestant {name!r}; there are: {', '.join(names)}")
        configs.append((Path(page), tree, args.only or names))

    from vq.engine.evaluation.progress import progress_bar
    from vq.engine.jobs import league
    from vq.engine.loop.launch import launched, open_log
    from vq.engine.loop.stopping import StopRequest

    written = []
    with StopRequest() as stop, stop.at_once(), launched(device="cpu") as machine:
        open_log(None)
        for _, tree, names in configs:
            league.check_contestants(tree, names)
        logger.info("%s", machine)
        for page, tree, names in configs:
            changes = [
                re.sub(r"[^\w.]+", "-", word).strip("-") for word in (*args.config_options, *args.override)
            ]
            folder = args.out / file_name("_".join([page.stem, *changes]))
            folder.mkdir(parents=True, exist_ok=True)
            steps = args.steps or tree["trainer"]["max_steps"]
            rows = []
            progress = progress_bar()
            task = progress.add_task(printable(page.stem), total=len(names) * len(args.seeds), note="")
            with progress:
                for name in names:
                    for seed in args.seeds:
                        progress.update(task, note=printable(name))
                        row = league.result_of(tree, name, seed, steps, folder)
                        logger.info("%-14s seed %d: PSNR %.2f, usage %.1f %%", name, seed, row["psnr"],
                                    100 * row["codebook_usage"])  # fmt: skip
                        rows.append(row)
                        progress.advance(task)
            title = (
                f"{folder.name}: {steps} steps of {tree['train_data']['batch_size']} images, "
                f"{len(args.seeds)} seed(s); {league.platform_line()}"
            )
            files = league.write_table(league.summarise(rows), title, folder)
            for line in files[0].read_text(encoding="utf-8").splitlines():
                logger.info("%s", line)
            written += files
            for path in files:
                logger.info("wrote %s", path)
    return written


if __name__ == "__main__":
    cli.main(main)
