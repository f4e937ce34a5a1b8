"""Writes one page that shows what runs did: `vq report RUN [RUN ...]`."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from vq import cli

REPORT = "report.html"


def arguments() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = cli.parser(
        "report",
        "Writes one HTML file that shows what runs did: commands, configs and how they differ, losses, scores, "
        "pictures, use of the codebook, speed, and a time line of starts, resumes, stops and faults. The file loads "
        "nothing and can be sent as it is. Of a run that is damaged or incomplete it shows what is there, and it says "
        "what is missing.",
        "vq report fsq/1000_emoji\n  vq report fsq/1000_emoji ema/1024_emoji --out comparison.html",
    )
    parser.add_argument(
        "runs",
        nargs="+",
        metavar="RUN",
        help="a run in work_dirs, or the path of a run folder somewhere else",
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help=f"the file to write (default: {REPORT} in the folder of the run; of several runs, in work_dirs). "
        "An earlier report is replaced, any other file is not",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> Path:
    """Runs the command; returns the file that it wrote."""
    args = arguments().parse_args(argv)
    folders = {name: _folder(name) for name in args.runs}
    if len({folder.resolve() for folder in folders.values()}) < len(args.runs):
        raise cli.UsageError(f"RUN {' '.join(args.runs)}: a run is given twice")
    only = next(iter(folders.values())) if len(folders) == 1 else cli.WORK_DIRS
    out: Path = args.out or only / REPORT
    cli.check_out(out.parent)

    from vq.engine.reporting.page import check_replaceable, write_report
    from vq.engine.reporting.run_folder import read_run

    check_replaceable(out)
    runs = [read_run(folder, _shown(folder)) for folder in folders.values()]
    write_report(runs, out)
    cli.say(f"wrote {out} ({out.stat().st_size / 2**20:.1f} MiB)")
    return out


def _folder(name: str) -> Path:
    """The run folder that a word of the command line means.

    Raises:
        UsageError: If there is none.
    """
    from vq.engine.reporting.run_folder import MARKS, is_run

    folder = Path(name)
    if not (folder.is_absolute() or ".." in folder.parts) and is_run(cli.WORK_DIRS / name):
        return cli.WORK_DIRS / name
    if is_run(folder):
        return folder
    if folder.is_dir():
        raise cli.UsageError(f"RUN {name}: expected a run folder, got one without any of {', '.join(MARKS)}")
    raise cli.UsageError(f"RUN {name}: there is no such run in {cli.WORK_DIRS}{cli.known_runs(name)}")


def _shown(folder: Path) -> str:
    """The name of a run in the report: that of its folder below work_dirs, or its path."""
    is_inside = folder.is_relative_to(cli.WORK_DIRS)
    return str(folder.relative_to(cli.WORK_DIRS) if is_inside else folder)


if __name__ == "__main__":
    cli.main(main)
