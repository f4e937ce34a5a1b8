"""The page of an experiment as one HTML file that loads nothing: table, plot, pictures and every run."""

import base64
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from vq import __version__
from vq.engine.comparison.table import Results
from vq.engine.evaluation.progress import duration
from vq.engine.reporting.blocks import Block, Code, Gallery, Picture, Section, Table, Text
from vq.engine.reporting.page import MARK, TEMPLATES
from vq.engine.reporting.pictures import PictureError, embedded
from vq.engine.reporting.rendering import render
from vq.text import file_name

Row = Mapping[str, Any]
WIDE = 600
"""In pixels; pictures from this width on stand below each other."""


def html_of(results: Results, rows: Sequence[Row], notes: Sequence[str], svg: bytes, pictures: Path) -> str:
    """The text of the page.

    Args:
        results: The table.
        rows: The rows of all contestants and seeds.
        notes: How to read the table, and how it was made.
        svg: The plot.
        pictures: The folder with a picture of each contestant, of the same images.
    """
    sections = [
        Section(name="results", title="Results", blocks=list(_results(results, notes, svg))),
        Section(name="pictures", title="Pictures", blocks=list(_pictures(results, pictures))),
        Section(name="runs", title="Runs", blocks=list(_runs(results, rows))),
    ]
    return render(
        TEMPLATES / "report.html",
        title=results.title,
        names=[],
        styles=[],
        sections=[section for section in sections if section.blocks],
        css=Markup((TEMPLATES / "report.css").read_text(encoding="utf-8")),
        mark=Markup(MARK.decode()),
        written=time.strftime("%Y-%m-%d %H:%M:%S"),
        version=__version__,
    )


def _results(results: Results, notes: Sequence[str], svg: bytes) -> Iterator[Block]:
    in_words = "; ".join(f"{cells[1]} {cells[2]}" for cells in results.cells())
    plot = Picture(
        source=f"data:image/svg+xml;base64,{base64.b64encode(svg).decode('ascii')}",
        alt=f"{results.title_of_score} of each contestant: {in_words}",
        caption=f"{results.title_of_score} of each contestant",
    )
    yield Gallery(pictures=[plot], is_wide=True)
    rank, name, *others = results.header()
    cells = [[own, placed, *rest] for placed, own, *rest in results.cells()]
    yield Table(caption="Means over the seeds", header=[name, rank, *others], rows=cells, is_numeric=True)
    for note in notes:
        yield Text(text=note)


def _pictures(results: Results, folder: Path) -> Iterator[Block]:
    shown, without = [], []
    words = "rows of images of the validation set, each above the row of their reconstructions"
    for line in results.lines:
        file = folder / f"{file_name(line.name)}.png"
        if not file.exists():
            without.append(line.name)
            continue
        try:
            shown.append(embedded(file, alt=f"{line.name}: {words}", caption=line.name))
        except PictureError as error:
            yield Text(text=f"The picture of {line.name} cannot be shown: {error}")
    if shown:
        yield Text(text=f"The same images for each contestant, best first: {words}.")
        yield Gallery(pictures=shown, is_wide=max(picture.width for picture in shown) > WIDE)
    if without:
        yield Text(
            text=f"No picture, because pictures are kept of the first seed only: {', '.join(without)}."
        )


def _runs(results: Results, rows: Sequence[Row]) -> Iterator[Block]:
    ordered = [row for line in results.lines for row in rows if row["name"] == line.name]
    cells = [
        [
            f"{row['name']}, seed {row['seed']}",
            f"{row['scores'][results.score]:.6g}",
            str(row["steps"]),
            duration(float(row["measured"].get("seconds", 0.0))),
            f"{row['measured']['cpu_seconds'] / 3600:.3f}",
            f"{row['hardware']['device']}, {row['hardware']['threads']} thread(s)",
            row["page_sha256"][:8],
        ]
        for row in ordered
    ]
    header = ["run", results.title_of_score, "steps", "time", "CPU hours", "hardware", "page"]
    yield Table(caption="Every run", header=header, rows=cells)
    commands = [f"{row['command']}\n    {row['train_command']}" for row in ordered]
    yield Code(summary="Commands", text="\n".join(dict.fromkeys(commands)))
