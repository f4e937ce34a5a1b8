"""Shows findings: as a table on a terminal, as lines elsewhere, and as JSON."""

import json
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from vq.engine.doctor.findings import Finding, Level, count
from vq.text import printable

MARKS = {Level.TROUBLE: "✗", Level.WARNING: "!", Level.OK: "✓"}
STYLES = {Level.TROUBLE: "bold red", Level.WARNING: "yellow", Level.OK: "green"}


def show(console: Console, subject: str, findings: Sequence[Finding]) -> None:
    """Prints the subject, a table of the findings, and a summary; without a terminal, one line each without colours."""
    if not console.is_terminal:
        for line in (printable(subject), *lines(findings)):
            console.file.write(f"{line}\n")
        return
    console.print(Text(printable(subject), style="bold"))
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    table.add_column(width=1)
    table.add_column(no_wrap=True, style="dim")
    table.add_column(overflow="fold", ratio=2)
    table.add_column(overflow="fold", ratio=7)
    for finding in findings:
        mark = Text(MARKS[finding.level], style=STYLES[finding.level])
        is_ok = finding.level is Level.OK
        what = Text(printable(finding.what), style="dim" if is_ok else "")
        if finding.cure:
            what.append(f"\n→ {printable(finding.cure)}", style="cyan")
        table.add_row(mark, finding.shows, Text(printable(finding.place), style="dim" if is_ok else ""), what)
    console.print(table)
    worst = next((level for level in (Level.TROUBLE, Level.WARNING) if count(findings, level)), Level.OK)
    console.print(Text(summary(findings), style=STYLES[worst]))


def lines(findings: Sequence[Finding]) -> list[str]:
    """One line for each finding, and the summary."""
    return [*map(line, findings), summary(findings)]


def line(finding: Finding) -> str:
    """A finding as one line of printable text.

    Example:
        >>> line(Finding(level=Level.TROUBLE, place="disk", what="is full", cure="free some space", step=500))
        'trouble  step 500: disk: is full; free some space'
    """
    when = f"{finding.shows}: " if finding.shows else ""
    cure = f"; {finding.cure}" if finding.cure else ""
    return printable(f"{finding.level:<8} {when}{finding.place}: {finding.what}{cure}")


def summary(findings: Sequence[Finding]) -> str:
    """The number of findings of each level.

    Example:
        >>> summary([])
        '0 troubles, 0 warnings, 0 checks are fine'
    """
    trouble, warnings, fine = (count(findings, level) for level in (Level.TROUBLE, Level.WARNING, Level.OK))
    return (
        f"{trouble} trouble{'' if trouble == 1 else 's'}, {warnings} warning{'' if warnings == 1 else 's'}, "
        f"{fine} check{' is' if fine == 1 else 's are'} fine"
    )


def as_json(subject: str, findings: Sequence[Finding]) -> str:
    """The findings as JSON, in the same order."""
    content = {
        "subject": printable(subject),
        "troubles": count(findings, Level.TROUBLE),
        "warnings": count(findings, Level.WARNING),
        "findings": [finding.as_dict() for finding in findings],
    }
    return json.dumps(content, indent=2)
