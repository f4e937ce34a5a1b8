"""The plot of an experiment as SVG: the score of each contestant with its interval over the seeds."""

import io
from typing import Any

from vq.engine.comparison.table import Results
from vq.text import printable

COUNTS, TIE, GREY = "#0072b2", "#d55e00", "#777777"
"""Of a difference that counts, of one that does not, and of what stands beside; distinguishable in any vision."""
MARKERS = {COUNTS: "o", TIE: "s", GREY: "D"}


def svg_of(results: Results) -> bytes:
    """Draws a row for each contestant, best on top. Equal results have equal bytes."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    content = io.BytesIO()
    with mpl.rc_context({"svg.hashsalt": "vq", "svg.fonttype": "path", "font.size": 10}):
        figure = Figure(figsize=(8, 1.3 + 0.3 * len(results.lines)), layout="constrained")
        axes = figure.subplots()
        _draw(axes, results)
        figure.savefig(content, format="svg", metadata={"Date": None, "Creator": None})
    return content.getvalue()


def _draw(axes: Any, results: Results) -> None:
    drawn = set()
    for row, line in enumerate(results.lines):
        colour = GREY if line.difference is None else TIE if not line.difference.excludes_zero else COUNTS
        label = {
            GREY: "baseline",
            TIE: f"not told apart from {printable(results.baseline)}",
            COUNTS: f"differs from {printable(results.baseline)}",
        }[colour]
        axes.errorbar(
            line.score.mean,
            row,
            xerr=line.score.half or None,
            fmt=MARKERS[colour],
            color=colour,
            capsize=3,
            label=None if colour in drawn else label,
        )
        drawn.add(colour)
        axes.plot(list(line.values.values()), [row] * len(line.values), "|", color=GREY, markersize=7)
        if line.name == results.baseline:
            axes.axvline(line.score.mean, color=GREY, linewidth=1, linestyle=":")
    names = [printable(line.name) for line in results.lines]
    axes.set_yticks(range(len(names)), names, parse_math=False)
    axes.invert_yaxis()
    axes.grid(axis="x", color="#dddddd", linewidth=0.7)
    axes.set_axisbelow(True)
    seeds = max(line.score.num_seeds for line in results.lines)
    interval = ", mean and 95 % interval; | is a seed" if seeds > 1 else ", one seed"
    axes.set_xlabel(printable(results.title_of_score) + interval, parse_math=False)
    legend = axes.legend(fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, frameon=False)
    for text in legend.get_texts():
        text.set_parse_math(False)
    axes.set_title(printable(results.title), pad=22, parse_math=False)
