"""Writes what the sections found as one JSON file and one Markdown table."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any


def report_of(
    folder: Path, known: Iterable[str], about: dict[str, Any], ended: dict[str, str]
) -> dict[str, Any]:
    """Collects the files of all sections in a folder, those of earlier calls included.

    Args:
        folder: Where the sections write.
        known: The names of all sections, in their order.
        about: The command, the date, the hardware and the packages of this call.
        ended: How each section of this call ended; sections of earlier calls keep how they ended then.
    """
    before = _read(folder / "report.json").get("ended", {})
    sections = {name: _read(folder / f"{name}.json") for name in known}
    return {
        **about, "ended": before | ended,
        "sections": {name: section for name, section in sections.items() if section},
    }  # fmt: skip


def _read(file: Path) -> dict[str, Any]:
    """What a file holds; nothing if it is not there or damaged, so that one section cannot hide the others."""
    try:
        return dict(json.loads(file.read_text()))
    except (OSError, ValueError):
        return {}


def markdown(report: dict[str, Any]) -> str:
    """The report as Markdown."""
    packages = ", ".join(f"{name} {version}" for name, version in report["packages"].items())
    lines = [
        f"# GPU figures, {report['date']}",
        "",
        f"{report['hardware']}; `{report['command']}`",
        "",
        packages,
        "",
    ]
    for name, how in report["ended"].items():
        section = report["sections"].get(name, {"about": {}, "rows": {}})
        about = section["about"]
        lines += [f"## {name}: {how}", ""]
        if about:
            lines += [f"{about['hardware']}, torch {about['torch']}, {about['date']}", ""]
        if about.get("small"):
            lines += ["Tiny sizes: these figures only show that the section runs.", ""]
        lines += [*_table(section["rows"]), ""]
    return "\n".join(lines)


def _table(rows: dict[str, Any]) -> list[str]:
    if not rows:
        return ["no rows"]
    if all("outcome" in row for row in rows.values()):
        cells = [
            (title, row["outcome"], f"{row['seconds']:.1f}", row.get("reason", ""))
            for title, row in rows.items()
        ]
        return _lines(("row", "outcome", "s", "reason"), cells)
    cells = [cell for title, row in rows.items() for cell in _cells(title, row)]
    return _lines(("row", "side", "median ms", "range", "peak MiB", "bars and facts"), cells)


def _cells(title: str, row: dict[str, Any]) -> Iterable[tuple[str, ...]]:
    """The lines of a row: one for each side, of which the first shows the bars, and one for the facts."""
    bars = "; ".join(f"{bar} {verdict}" for bar, verdict in row.get("bars", {}).items())
    for name, side in row.items():
        if name in ("bars", "facts"):
            continue
        if "ms" not in side:
            yield title, name, side["error"], "", "", ""
            continue
        spread, peak = f"{side['from']:.3f} to {side['to']:.3f}", side.get("peak_mib")
        yield title, name, f"{side['ms']:.3f}", spread, "" if peak is None else f"{peak:.1f}", bars
        bars = ""
    if row.get("facts"):
        facts = ", ".join(f"{name} {_number(value)}" for name, value in row["facts"].items())
        yield title, "", "", "", "", facts


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _lines(titles: tuple[str, ...], cells: Iterable[tuple[str, ...]]) -> list[str]:
    head = [f"| {' | '.join(titles)} |", "|" + "---|" * len(titles)]
    return head + [f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in cells]
