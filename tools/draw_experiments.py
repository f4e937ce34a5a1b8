"""Draws the results of all experiments in a folder as one picture, a panel for each: docs/images/experiments.svg.

    python -m tools.draw_experiments                         # experiments/*/table.csv
    python -m tools.draw_experiments --out mine.svg results

A panel shows by how much each contestant's score differs from that of the baseline, with the 95 % interval over the
seeds. `vq compare` writes the tables.
"""

import argparse
import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import wrap
from typing import Any

from vq import cli
from vq.engine.comparison.plot import COUNTS, GREY, MARKERS, TIE
from vq.errors import UserError
from vq.files import write_atomically
from vq.text import printable

SCORES = {
    "psnr": "PSNR, dB",
    "lpips_vgg": "LPIPS-vgg; to the left is better",
    "loss": "validation loss, nats per token; to the left is better",
    "loss_per_position": "validation loss, nats per position; to the left is better",
}
COLUMNS = 2


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """The table of an experiment.

    Attributes:
        title: Its question.
        score: The name of the score that decided.
        lines: Name, difference from the baseline, half of its interval, and its colour; best first.
    """

    title: str
    score: str
    lines: Sequence[tuple[str, float, float, str]]


def read(folder: Path) -> Experiment:
    """Reads `table.md` and `table.csv` of an experiment.

    Raises:
        UserError: If a file is missing, or is not a table of `vq compare`.
    """
    try:
        title = (folder / "table.md").read_text(encoding="utf-8").splitlines()[0].removeprefix("# ")
        with (folder / "table.csv").open(encoding="utf-8", newline="") as stream:
            rows = list(csv.DictReader(stream))
        (half,) = (key for key in rows[0] if key.endswith("_half") and key != "difference_half")
        lines = [
            (row["name"], float(row["difference"] or 0), float(row["difference_half"] or 0), _colour(row))
            for row in rows
        ]
    except (OSError, ValueError, IndexError, KeyError) as error:
        raise UserError(
            f"{printable(str(folder))}: expected the tables of vq compare, got {error}"
        ) from error
    return Experiment(title=title, score=half.removesuffix("_half"), lines=lines)


def _colour(row: dict[str, str]) -> str:
    return GREY if not row["difference"] else TIE if row["tie"] != "False" else COUNTS


def svg_of(experiments: Sequence[Experiment]) -> bytes:
    """Draws a panel for each experiment. Equal tables have equal bytes."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    content = io.BytesIO()
    columns = min(COLUMNS, len(experiments))
    groups = [experiments[i : i + columns] for i in range(0, len(experiments), columns)]
    heights = [4 + max(len(each.lines) for each in group) for group in groups]
    with mpl.rc_context({"svg.hashsalt": "vq", "svg.fonttype": "path", "font.size": 9}):
        figure = Figure(figsize=(5.2 * columns, 0.24 * sum(heights)), layout="tight")
        panels = figure.subplots(len(groups), columns, squeeze=False, height_ratios=heights)
        for panel in panels.flat:
            panel.set_visible(False)
        for group, row in zip(groups, panels, strict=True):
            for each, axes in zip(group, row, strict=False):
                _draw(axes, each)
        figure.savefig(content, format="svg", metadata={"Date": None, "Creator": None})
    return content.getvalue()


def _draw(axes: Any, experiment: Experiment) -> None:
    axes.set_visible(True)
    axes.axvline(0, color=GREY, linewidth=1, linestyle=":")
    for row, (_, difference, half, colour) in enumerate(experiment.lines):
        marker = MARKERS[colour]
        axes.errorbar(difference, row, xerr=half or None, fmt=marker, color=colour, capsize=2, markersize=4)
    names = [printable(name) for name, *_ in experiment.lines]
    axes.set_yticks(range(len(names)), names, parse_math=False)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.grid(axis="x", color="#dddddd", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.set_xlabel(printable(SCORES.get(experiment.score, experiment.score)), parse_math=False)
    axes.set_title("\n".join(wrap(printable(experiment.title), 44)), fontsize=9, parse_math=False)


def main(arguments: Sequence[str] | None = None) -> Path:
    """Runs the command; returns the picture."""
    parser = cli.tool_parser(__doc__)
    parser.add_argument(
        "folder", nargs="?", type=Path, default=Path("experiments"), help="default: experiments"
    )
    parser.add_argument("--out", type=Path, default=Path("docs/images/experiments.svg"), metavar="SVG")
    given: argparse.Namespace = parser.parse_args(arguments)
    folders = sorted(table.parent for table in given.folder.glob("*/table.csv"))
    if not folders:
        raise UserError(
            f"{given.folder}: expected folders with a table.csv, found none; run vq compare first"
        )
    experiments = sorted(map(read, folders), key=lambda each: (-len(each.lines), each.title))
    if not all(math.isfinite(d) and math.isfinite(h) for e in experiments for _, d, h, _ in e.lines):
        raise UserError(f"{given.folder}: a difference is not a number; look at its table.md")
    write_atomically(given.out, svg_of(experiments))
    cli.say(f"wrote {given.out}: {len(experiments)} experiments")
    return given.out


if __name__ == "__main__":
    cli.main(main)
