"""Line charts as SVG inside a `data:` address. Their text is numbers and units alone; titles are text of the page."""

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from vq import packages
from vq.engine.reporting.blocks import Picture, Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#a3568a", "#000000", "#b8860b", "#3a8fc4")
"""Distinguishable also with a deficient colour vision, and dark enough on white."""
DASHES = ("", "7 3", "2 2", "9 3 2 3")
"""As of `stroke-dasharray`, so that lines differ also in black and white."""
MOST_POINTS = 400
LISTED = 8
"""Values of a line in the table below its chart."""
INCHES = (5.0, 2.9)
INSIDE = (0.15, 0.18, 0.83, 0.76)
"""Left, bottom, width and height of the axes, as fractions; automatic margins would take twice as long."""
Item = TypeVar("Item")


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A line of a chart.

    Attributes:
        run: The name of its run.
        number: The number of the run in the report, which decides colour and dashes.
        xs: Increasing.
        ys: As many values; those that are not finite are gaps.
    """

    run: str
    number: int
    xs: Sequence[float | int]
    ys: Sequence[float]

    @property
    def finite(self) -> list[tuple[float | int, float]]:
        """The points that can be drawn."""
        return [(x, y) for x, y in zip(self.xs, self.ys, strict=True) if math.isfinite(y)]


def style_of(number: int) -> tuple[str, str]:
    """The colour of the line of a run, and its dashes."""
    return COLOURS[number % len(COLOURS)], DASHES[number % len(DASHES)]


def line_chart(
    title: str,
    lines: Sequence[Line],
    *,
    x: str = "step",
    marks: Sequence[float] = (),
    form: str = ".4g",
    log_from: float = 30.0,
) -> Picture | None:
    """Draws lines.

    Args:
        title: What is drawn.
        lines: One per run.
        x: What the horizontal axis is.
        marks: Where a vertical line is drawn.
        form: The format of the values in the table.
        log_from: The scale is logarithmic if all values are positive and they span a larger factor than this one.

    Returns:
        The picture; None if no line has two finite values.
    """
    drawn = [line for line in lines if line.finite]
    if max((len(line.finite) for line in drawn), default=0) < 2:
        return None
    values = [y for line in drawn for _, y in line.finite]
    is_log = min(values) > 0 and max(values) > log_from * min(values)
    bucket = max(math.ceil(len(line.ys) / MOST_POINTS) for line in drawn)
    remarks = [
        "logarithmic scale" if is_log else "",
        f"each point is the mean of {bucket} values; the band reaches from the least to the greatest"
        if bucket > 1
        else "",
        _gaps(lines),
    ]
    return Picture(
        source=_svg(drawn, x=x, marks=marks, is_log=is_log, bucket=bucket),
        alt=f"Line chart of {title} by {x}. {' '.join(_in_words(line, x, form) for line in drawn)}",
        caption=title,
        remark="; ".join(filter(None, remarks)),
        values=_table(title, drawn, x, form),
    )


def _gaps(lines: Sequence[Line]) -> str:
    count = sum(len(line.ys) - len(line.finite) for line in lines)
    return f"{count} values are not finite and are left out" if count else ""


def _in_words(line: Line, x: str, form: str) -> str:
    (first, start), (last, end) = line.finite[0], line.finite[-1]
    lowest, highest = (pick(line.finite, key=lambda point: point[1]) for pick in (min, max))
    return (
        f"{line.run}: {start:{form}} at {x} {first:,g}, {end:{form}} at {x} {last:,g}; "
        f"lowest {lowest[1]:{form}} at {lowest[0]:,g}, highest {highest[1]:{form}} at {highest[0]:,g}."
    )


def _table(title: str, lines: Sequence[Line], x: str, form: str) -> Table:
    """Some values of each line at equal distances, with the first and the last."""
    chosen = sorted({x for line in lines for x, _ in evenly(line.finite, LISTED)})
    points = [dict(line.finite) for line in lines]
    rows = [[f"{at:,g}", *(f"{own[at]:{form}}" if at in own else "–" for own in points)] for at in chosen]
    header = [x, *(line.run for line in lines)] if len(lines) > 1 else [x, title]
    return Table(caption=f"Values of {title}", header=header, rows=rows, is_numeric=True)


def evenly(items: Sequence[Item], most: int) -> list[Item]:
    """At most so many items at about equal distances, with the first and the last.

    Example:
        >>> evenly(range(10), 4)
        [0, 3, 6, 9]
    """
    if len(items) <= most:
        return list(items)
    return [items[round(i * (len(items) - 1) / (most - 1))] for i in range(most)]


def _svg(lines: Sequence[Line], *, x: str, marks: Sequence[float], is_log: bool, bucket: int) -> str:
    packages.require("matplotlib", needed_by="vq report")
    import matplotlib as mpl
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullFormatter

    content = io.BytesIO()
    # Equal charts have equal bytes: element names do not depend on chance, and no date is written.
    with mpl.rc_context({"svg.hashsalt": "vq", "svg.fonttype": "path", "font.size": 11}):
        figure = Figure(figsize=INCHES)
        axes = figure.add_axes(INSIDE)
        for line in lines:
            _draw(axes, line, bucket)
        for mark in marks:
            axes.axvline(mark, color="#777777", linewidth=1, linestyle=":")
        if is_log:
            axes.set_yscale("log")
            axes.yaxis.set_minor_formatter(NullFormatter())
        else:
            axes.ticklabel_format(axis="y", useOffset=False)
        axes.set_xlabel(x)
        axes.grid(color="#dddddd", linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
        figure.savefig(content, format="svg", metadata={"Date": None, "Creator": None})
    return f"data:image/svg+xml;base64,{base64.b64encode(content.getvalue()).decode('ascii')}"


def _draw(axes: "Axes", line: Line, bucket: int) -> None:
    colour, dashes = style_of(line.number)
    numbers = [float(part) for part in dashes.split()]
    style: Any = (0, numbers) if numbers else "solid"
    points = line.finite
    groups = [points[i : i + bucket] for i in range(0, len(points), bucket)]
    xs = [group[-1][0] for group in groups]
    ys = [math.fsum(y for _, y in group) / len(group) for group in groups]
    if bucket > 1:
        low, high = ([pick(y for _, y in group) for group in groups] for pick in (min, max))
        axes.fill_between(xs, low, high, color=colour, alpha=0.2, linewidth=0)
    marker = "o" if len(xs) < 12 else ""
    axes.plot(xs, ys, color=colour, linestyle=style, linewidth=1.6, marker=marker, markersize=4)
