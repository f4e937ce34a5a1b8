"""How a run uses its codes: over the steps, and in its token stores."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from vq.engine.reporting.blocks import Block, Gallery, Heading, Picture, Table, Text
from vq.engine.reporting.charts import Line, line_chart
from vq.engine.reporting.codes import Histogram, histograms
from vq.engine.reporting.curves import CODEBOOK, curves
from vq.engine.reporting.pictures import PictureError, embedded
from vq.engine.reporting.run_folder import Run

LISTED_CODES = 10
ENLARGED = 3
"""How many pixels of the page show a pixel of a patch."""


def codebook(runs: Sequence[Run]) -> Iterator[Block]:
    """Usage and perplexity over the steps, and the counts of codes in token stores."""
    yield from curves(runs, "val", lambda name: name.startswith(CODEBOOK))
    yield from curves(runs, "train", lambda name: name.startswith(CODEBOOK))
    for number, run in enumerate(runs):
        for histogram in histograms(run.folder, run.notes):
            yield from _histogram(run, number, histogram)
        if sheets := list(_atlas(run)):
            yield Heading(text=f"Patches of {run.name} by code")
            yield Text(
                text="Each row shows patches of the images that are encoded as one code. The most used code has the "
                "first row of the first sheet, the least used one the last row of the last sheet."
            )
            yield Gallery(pictures=sheets)


def _histogram(run: Run, number: int, histogram: Histogram) -> Iterator[Block]:
    counts, codes = histogram.counts.sort(descending=True, stable=True)
    uses, order, total = counts.tolist(), codes.tolist(), max(1, int(counts.sum()))
    unused = sum(count == 0 for count in uses)
    read = "" if histogram.num_images == histogram.num_stored else f"{histogram.num_images:,} of "
    place = f"{run.name}, {histogram.place}"
    yield Heading(text=f"Codes in {place}")
    yield Text(
        text=f"{read}{histogram.num_stored:,} images, {total:,} indices; "
        f"{unused:,} of {len(uses):,} codes are never used."
    )
    drawn = [float(count) for count in uses if count]
    line = Line(run=run.name, number=number, xs=range(1, len(drawn) + 1), ys=drawn)
    chart = line_chart(
        f"uses of each code in {place}", [line], x="code, the most used one first", form=",.0f"
    )
    yield Gallery(pictures=[chart] if chart else [])
    used = [
        [str(code), f"{count:,}", f"{count / total:.3%}"]
        for code, count in zip(order, uses, strict=True)
        if count
    ]
    pairs = zip(used[:LISTED_CODES], used[::-1][:LISTED_CODES], strict=True)
    rows = [[str(rank), *most, *least] for rank, (most, least) in enumerate(pairs, start=1)]
    header = ["rank", "most used code", "uses", "share", "least used code", "uses", "share"]
    yield Table(caption=f"Most and least used codes in {place}", header=header, rows=rows, is_numeric=True)


def _atlas(run: Run) -> Iterator[Picture]:
    """The first and the last sheet of each atlas that `tools/visualize_patches.py` drew of the run's token stores."""
    for folder in sorted(run.folder.glob("tokens/*/patches")):
        sheets = sorted(folder.glob("index_0_sheet_*.png"))
        for file in dict.fromkeys([*sheets[:1], *sheets[-1:]]):
            title = (
                f"{folder.parent.relative_to(run.folder)}, sheet {sheets.index(file) + 1} of {len(sheets)}"
            )
            try:
                sheet = embedded(file, alt=f"Patches by code of {run.name}, {title}", caption=title)
            except PictureError as error:
                run.notes.append(f"{file.relative_to(run.folder)} cannot be shown: {error}")
            else:
                yield replace(sheet, width=ENLARGED * sheet.width, height=ENLARGED * sheet.height)
