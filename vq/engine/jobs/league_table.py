"""The table of a league: means over the seeds, as Markdown, CSV and a plot."""

import csv
import io
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vq.files import write_atomically
from vq.text import markdown, printable, spreadsheet_cell

Row = dict[str, Any]
COLUMNS = (
    ("psnr", "PSNR (dB)", "{:.2f}"),
    ("l1_unit", "L1 [0,1]", "{:.4f}"),
    ("codebook_usage", "usage", "{:.1%}"),
    ("perplexity", "perplexity", "{:.0f}"),
    ("codebook_size", "codes", "{:.0f}"),
    ("bits_per_token", "bits per token", "{:.1f}"),
    ("tokens_per_image", "tokens per image", "{:.0f}"),
    ("bits_per_image", "bits per image", "{:.0f}"),
    ("train_eval_mse", "eval / train MSE", "{:.2f}"),
    ("images_per_second", "images/s", "{:.0f}"),
    ("peak_mib", "peak MiB", "{:.0f}"),
)
"""Key of a row, title of its column, and format of its values."""


def summarise(rows: Sequence[Row]) -> list[Row]:
    """The mean and the spread of each contestant over its seeds, best PSNR first."""
    names = list(dict.fromkeys(row["name"] for row in rows))
    table = []
    for name in names:
        own = [row for row in rows if row["name"] == name]
        summary: Row = {"name": name, "seeds": len(own)}
        for key, _, _ in columns(rows):
            values = [row[key] for row in own]
            summary[key] = statistics.mean(values)
            summary[f"{key}_spread"] = max(values) - min(values)
        table.append(summary)
    return sorted(table, key=lambda row: -row["psnr"])


def columns(rows: Sequence[Row]) -> list[tuple[str, str, str]]:
    """The columns that every row has; the sizes per image only where the contestants differ in them."""
    shown = [column for column in COLUMNS if all(column[0] in row for row in rows)]
    if len({row.get("tokens_per_image") for row in rows}) == 1:
        shown = [column for column in shown if not column[0].endswith("_per_image")]
    return shown


def write_table(table: Sequence[Row], title: str, folder: Path) -> list[Path]:
    """Writes `table.md`, `table.csv` and `table.png`; names are escaped in each of them."""
    text, comma, plot = (folder / f"table.{end}" for end in ("md", "csv", "png"))
    shown = columns(table)
    header = ["name", *(title for _, title, _ in shown)]
    lines = [markdown(title), "", "| " + " | ".join(header) + " |", "|---" + "|---:" * len(shown) + "|"]
    for row in table:
        cells = [markdown(row["name"])]
        for key, _, form in shown:
            spread = f" ± {row[key + '_spread'] / 2:.2f}" if key == "psnr" and row["seeds"] > 1 else ""
            cells.append(form.format(row[key]) + spread)
        lines.append("| " + " | ".join(cells) + " |")
    write_atomically(text, "\n".join(lines) + "\n")
    content = io.StringIO(newline="")
    writer = csv.DictWriter(content, list(table[0]))
    writer.writeheader()
    writer.writerows({**row, "name": spreadsheet_cell(row["name"])} for row in table)
    write_atomically(comma, content.getvalue())
    _plot(table, title, plot)
    return [text, comma, plot]


def _plot(table: Sequence[Row], title: str, path: Path) -> None:
    """Draws a bar of PSNR for each contestant, best on top, coloured by codebook usage."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(9, 0.32 * len(table) + 1.5), layout="constrained")
    colours = mpl.colormaps["viridis"]([row["codebook_usage"] for row in table])
    bars = axes.barh(range(len(table)), [row["psnr"] for row in table], color=colours)
    axes.set_yticks(range(len(table)), [printable(row["name"]) for row in table], parse_math=False)
    labels = [f"{row['psnr']:.2f} dB, {row['bits_per_token']:.0f} bits per token" for row in table]
    axes.bar_label(bars, labels, padding=3, fontsize=8)
    axes.invert_yaxis()
    lowest, highest = min(row["psnr"] for row in table), max(row["psnr"] for row in table)
    span = max(highest - lowest, 1.0)
    axes.set(xlim=(lowest - 0.3 * span, highest + 0.4 * span), xlabel="validation PSNR (dB)")
    axes.set_title(printable(title), parse_math=False)
    figure.colorbar(mpl.cm.ScalarMappable(cmap="viridis"), ax=axes, label="codebook usage")
    figure.savefig(path, dpi=110)
    plt.close(figure)
