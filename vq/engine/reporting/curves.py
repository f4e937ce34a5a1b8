"""Scalars over the steps of a training: losses, scores, and the tables of scores."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from vq.engine.reporting.blocks import Block, Gallery, Heading, Table
from vq.engine.reporting.charts import Line, line_chart
from vq.engine.reporting.run_folder import Row, Run
from vq.engine.reporting.wording import UNKNOWN, number

CODEBOOK = ("codebook_usage", "perplexity", "entropy_bits", "bits_per_pixel", "quantizer/")
"""What the names of scalars of the codebook begin with."""


def losses(runs: Sequence[Run]) -> Iterator[Block]:
    """Charts of the losses, and of all other scalars of the training steps but those of the codebook and times."""
    yield from curves(runs, "train", lambda name: name.startswith("loss/"))
    others = curves(
        runs, "train", lambda name: not name.startswith(("loss/", "time/")) and not name.startswith(CODEBOOK)
    )
    for block in others:
        yield Heading(text="Other scalars of the training steps")
        yield block


def scores(runs: Sequence[Run]) -> Iterator[Block]:
    """The scores of validations during training, over the steps, and of `vq val` and `vq test`, with their stamps."""
    last = [run.rows_of("val")[-1:] for run in runs]
    names = dict.fromkeys(name for own in last for row in own for name in row.values if not _is_time(name))
    if names:
        cells = [{name: number(v) for row in own for name, v in row.values.items()} for own in last]
        rows = [[name, *(own.get(name, UNKNOWN) for own in cells)] for name in names]
        steps = ["step", *(f"{own[0].step:,}" if own else UNKNOWN for own in last)]
        yield Table(
            caption="The last validation during training",
            header=["", *(run.name for run in runs)],
            rows=[steps, *rows],
            is_numeric=True,
        )
    yield from curves(runs, "val", lambda name: not _is_time(name) and not name.startswith(CODEBOOK))
    for run in runs:
        yield from _scorings(run)


def curves(runs: Sequence[Run], split: str, is_wanted: Callable[[str], bool]) -> Iterator[Gallery]:
    """A chart of each wanted scalar, with a line of each run that has it.

    Args:
        runs: The runs of the report.
        split: `train` or `val`.
        is_wanted: Whether to draw the scalar of a name.
    """
    rows = [run.rows_of(split) for run in runs]
    names = dict.fromkeys(name for own in rows for row in own for name in row.values if is_wanted(name))
    charts = [line_chart(name, list(lines_of(runs, rows, name))) for name in names]
    if drawn := [chart for chart in charts if chart is not None]:
        yield Gallery(pictures=drawn, has_legend=len(runs) > 1)


def lines_of(runs: Sequence[Run], rows: Sequence[Sequence[Row]], name: str) -> Iterator[Line]:
    """The values of a scalar by step, for each run that has it.

    Args:
        runs: The runs of the report.
        rows: The rows of each run.
        name: The scalar.
    """
    for position, (run, own) in enumerate(zip(runs, rows, strict=True)):
        if points := [(row.step, row.values[name]) for row in own if name in row.values]:
            xs, ys = zip(*points, strict=True)
            yield Line(run=run.name, number=position, xs=xs, ys=ys)


def _is_time(name: str) -> bool:
    return name.startswith("time/")


def _scorings(run: Run) -> Iterator[Table]:
    """What `vq val` and `vq test` computed: a row for each checkpoint, and the stamps of the last one."""
    if not run.scorings:
        return
    names = list(dict.fromkeys(name for found in run.scorings for name in found.scores))
    rows = [
        [found.place, *(number(found.scores[name]) if name in found.scores else UNKNOWN for name in names)]
        for found in run.scorings
    ]
    yield Table(
        caption=f"Scores of the checkpoints of {run.name}", header=["", *names], rows=rows, is_numeric=True
    )
    last = run.scorings[-1]
    stamped = [
        [name, number(value), *_stamp(last.stamps.get(name, {}))] for name, value in last.scores.items()
    ]
    caption = f"How the scores of {run.name}, {last.place} were computed"
    yield Table(caption=caption, header=["score", "value", "images", "weights", "with"], rows=stamped)


def _stamp(stamp: Mapping[str, Any]) -> list[str]:
    """The number of images, the kind of weights, and the rest of a stamp in words; a hash by its first digits."""
    known = {
        key: re.sub(r"\b([0-9a-f]{12})[0-9a-f]{52}\b", r"\1", str(v))
        for key, v in stamp.items()
        if v is not None
    }
    images, weights = known.pop("num_images", UNKNOWN), known.pop("weights", UNKNOWN)
    words = "; ".join(f"{key.replace('_', ' ')}: {value}" for key, value in known.items())
    return [images, weights, words or UNKNOWN]
