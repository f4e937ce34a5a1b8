"""Writes the report of runs as one HTML file, which loads nothing."""

import time
from collections.abc import Sequence
from pathlib import Path

from markupsafe import Markup

from vq import __version__
from vq.engine.reporting.charts import style_of
from vq.engine.reporting.rendering import render
from vq.engine.reporting.run_folder import Run
from vq.engine.reporting.sections import sections_of
from vq.errors import UserError
from vq.files import write_atomically

TEMPLATES = Path(__file__).with_name("templates")
MARK = b'<meta name="generator" content="vq report">'
"""What begins the head of every report, so that a report may replace a report and nothing else."""


class ReportError(UserError, ValueError):
    """A report that cannot be written, because there is another file in its place."""


def check_replaceable(file: Path) -> None:
    """Checks that a path is free, or that a report is there, which will be replaced.

    Raises:
        ReportError: If something else is there.
    """
    if not file.exists():
        return
    if not file.is_file():
        raise ReportError(
            f"--out {file}: expected a file, got a folder; give a file such as {file / 'report.html'}"
        )
    with file.open("rb") as stream:
        if MARK not in stream.read(1000):
            raise ReportError(
                f"--out {file}: is not a report of vq and is not overwritten; choose another --out"
            )


def write_report(runs: Sequence[Run], file: Path) -> None:
    """Writes the page atomically.

    Args:
        runs: One or more.
        file: The file, which is free or holds a report.

    Raises:
        ReportError: If another file is there.
    """
    check_replaceable(file)
    write_atomically(file, html_of(runs))


def html_of(runs: Sequence[Run]) -> str:
    """The text of the page."""
    names = [run.name for run in runs]
    return render(
        TEMPLATES / "report.html",
        title=f"Report of {names[0]}" if len(names) == 1 else f"Report of {len(names)} runs",
        names=names,
        styles=[style_of(number) for number in range(len(names))],
        sections=sections_of(runs),
        css=Markup((TEMPLATES / "report.css").read_text(encoding="utf-8")),
        mark=Markup(MARK.decode()),
        written=time.strftime("%Y-%m-%d %H:%M:%S"),
        version=__version__,
    )
