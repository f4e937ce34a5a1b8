"""Writes what an experiment found: the table as Markdown and CSV, the plot, and the page."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vq.engine.comparison.page import html_of
from vq.engine.comparison.plan import Comparison
from vq.engine.comparison.plot import svg_of
from vq.engine.comparison.table import Results, csv_table, markdown_table, results_of
from vq.files import write_atomically

Row = Mapping[str, Any]
PICTURES = "pictures"
"""The folder of the pictures of an experiment, one for each contestant."""


def write_results(
    name: str, rows: Sequence[Row], plan: Comparison, folder: Path, *, is_higher_better: bool
) -> list[Path]:
    """Writes `table.md`, `table.csv`, `plot.svg` and `report.html`, and returns their paths.

    Args:
        name: The name of the experiment.
        rows: The rows of its contestants.
        plan: What decides.
        folder: The folder of the experiment.
        is_higher_better: Of the score that decides.
    """
    results = results_of(
        plan.question or name,
        rows,
        score=plan.score,
        baseline=plan.baseline or "",
        is_higher_better=is_higher_better,
    )
    notes = notes_of(rows, plan, results)
    svg = svg_of(results)
    files: dict[str, str | bytes] = {
        "table.md": markdown_table(results, notes),
        "table.csv": csv_table(results),
        "plot.svg": svg,
        "report.html": html_of(results, rows, notes, svg, folder / PICTURES),
    }
    for file, content in files.items():
        write_atomically(folder / file, content)
    return [folder / file for file in files]


def notes_of(rows: Sequence[Row], plan: Comparison, results: Results) -> list[str]:
    """How to read the table, and how it was made."""
    seeds = sorted({row["seed"] for row in rows})
    steps = sorted({row["steps"] for row in rows})
    hours = sum(row["measured"]["cpu_seconds"] for row in rows) / 3600
    stated = "" if plan.cpu_hours is None else f" of {plan.cpu_hours:g} that were stated"
    hardware = sorted(
        {
            f"{r['hardware']['device']}, {r['hardware']['threads']} thread(s), torch {r['hardware']['torch']}"
            for r in rows
        }
    )
    several = (
        "± is the 95 % interval of the mean over the seeds. A difference is paired by seed and counts if its 95 % "
        "interval excludes 0; a tie does not. The rank is 1 + the number of contestants that are better by a "
        "difference that counts."
        if len(seeds) > 1
        else "One seed: nothing is known of how far chance moves a score, so no difference counts."
    )
    return [
        f"{', '.join(map(str, steps))} steps; seeds {', '.join(map(str, seeds))}; the baseline is {results.baseline}.",
        several,
        f"{hours:.2f} CPU hours{stated}; {'; '.join(hardware)}.",
        *sorted({f"Command: {row['command'].partition(' --only ')[0]}" for row in rows}),
    ]
