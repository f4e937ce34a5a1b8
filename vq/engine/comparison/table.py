"""The table of an experiment: means and intervals over the seeds, as Markdown and CSV."""

import csv
import io
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vq.engine.comparison.significance import Interval, difference, interval, ranks
from vq.text import markdown, spreadsheet_cell

Row = Mapping[str, Any]
KNOWN = {
    "psnr": ("PSNR (dB)", "{:.2f}"),
    "ssim": ("SSIM", "{:.3f}"),
    "l1_unit": ("L1 [0,1]", "{:.4f}"),
    "mse_unit": ("MSE [0,1]", "{:.4f}"),
    "codebook_usage": ("usage", "{:.1%}"),
    "perplexity": ("perplexity", "{:.0f}"),
    "codebook_size": ("codes", "{:.0f}"),
    "bits_per_token": ("bits per token", "{:.1f}"),
    "tokens_per_image": ("tokens per image", "{:.0f}"),
    "bits_per_image": ("bits per image", "{:.0f}"),
    "train_eval_mse": ("eval / train MSE", "{:.2f}"),
    "images_per_second": ("images/s", "{:.0f}"),
}
"""Title and format of a column; a score that is not among them has its own name. Not all measured values are shown."""
MEASURED = (
    "codebook_size",
    "bits_per_token",
    "tokens_per_image",
    "bits_per_image",
    "train_eval_mse",
    "images_per_second",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One contestant in the table.

    Attributes:
        name: Its name.
        rank: 1 + how many are better by a difference that counts.
        score: The score that decides.
        values: Seed -> the score that decides.
        difference: From the baseline, paired by seed; None for the baseline, and if no seed is in both.
        means: The mean of every value over the seeds.
    """

    name: str
    rank: int
    score: Interval
    values: Mapping[int, float]
    difference: Interval | None
    means: Mapping[str, float]

    @property
    def is_tie(self) -> bool:
        """Whether the difference from the baseline may be chance."""
        return self.difference is not None and not self.difference.excludes_zero


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """The table, best first.

    Attributes:
        title: One line.
        score: The name of the score that decides.
        baseline: The contestant with which the others are compared.
        lines: One for each contestant.
    """

    title: str
    score: str
    baseline: str
    lines: Sequence[Line]

    @property
    def title_of_score(self) -> str:
        """The title of the column of the score that decides."""
        return KNOWN.get(self.score, (self.score, ""))[0]

    @property
    def columns(self) -> list[str]:
        """The values that every contestant has; sizes per image only where the contestants differ in them."""
        first = [key for key in self.lines[0].means if key != self.score]
        shown = [key for key in first if all(key in line.means for line in self.lines)]
        if len({line.means.get("tokens_per_image") for line in self.lines}) == 1:
            shown = [key for key in shown if not key.endswith("_per_image")]
        return shown

    def header(self) -> list[str]:
        """The titles of the columns."""
        others = [KNOWN.get(key, (key, ""))[0] for key in self.columns]
        return ["rank", "name", self.title_of_score, f"minus {self.baseline}", *others]

    def cells(self) -> list[list[str]]:
        """The cells of each row, as text."""
        form = KNOWN.get(self.score, ("", "{:.4g}"))[1]
        return [
            [
                str(line.rank),
                line.name,
                _with_interval(line.score, form),
                _difference(line, form),
                *(KNOWN.get(key, ("", "{:.4g}"))[1].format(line.means[key]) for key in self.columns),
            ]
            for line in self.lines
        ]


def results_of(
    title: str, rows: Sequence[Row], *, score: str, baseline: str, is_higher_better: bool
) -> Results:
    """Compares contestants.

    Args:
        title: One line.
        rows: The rows of the contestants, one for each seed.
        score: The score that decides.
        baseline: The contestant with which the others are compared.
        is_higher_better: Of the score.
    """
    names = list(dict.fromkeys(row["name"] for row in rows))
    own = {name: [row for row in rows if row["name"] == name] for name in names}
    values = {name: {row["seed"]: float(row["scores"][score]) for row in own[name]} for name in names}
    placed = ranks(values, is_higher_better=is_higher_better)
    lines = [
        Line(
            name=name,
            rank=placed[name],
            score=interval(list(values[name].values())),
            values=values[name],
            difference=difference(values[name], values.get(baseline, {})) if name != baseline else None,
            means=_means(own[name]),
        )
        for name in names
    ]
    sign = -1 if is_higher_better else 1
    lines.sort(key=lambda line: sign * line.score.mean)
    return Results(title=title, score=score, baseline=baseline, lines=lines)


def _means(rows: Sequence[Row]) -> dict[str, float]:
    """The mean of each value that every row of a contestant has."""
    found = [
        {**row["scores"], **{k: v for k, v in row.get("measured", {}).items() if k in MEASURED}}
        for row in rows
    ]
    return {
        key: statistics.mean(each[key] for each in found) for key in found[0] if all(key in f for f in found)
    }


def _with_interval(found: Interval, form: str) -> str:
    half = "" if found.half is None else f" ± {form.format(found.half)}"
    return form.format(found.mean) + half


def _difference(line: Line, form: str) -> str:
    if line.difference is None:
        return ""
    sign = "+" if line.difference.mean >= 0 else ""
    if line.difference.half is None:
        return f"{sign}{form.format(line.difference.mean)} (1 seed)"
    return sign + _with_interval(line.difference, form) + (" (tie)" if line.is_tie else "")


def markdown_table(results: Results, notes: Sequence[str]) -> str:
    """The table as Markdown, below its title and above its notes; names are escaped."""
    header = [markdown(title) for title in results.header()]
    lines = [
        f"# {markdown(results.title)}",
        "",
        "| " + " | ".join(header) + " |",
        "|---:|---" + "|---:" * (len(header) - 2) + "|",
        *("| " + " | ".join(map(markdown, cells)) + " |" for cells in results.cells()),
        "",
        *(f"* {markdown(note)}" for note in notes),
    ]
    return "\n".join(lines) + "\n"


def csv_table(results: Results) -> str:
    """Every value of every contestant: means over the seeds, the interval and the difference."""
    content = io.StringIO(newline="")
    keys = list(dict.fromkeys(key for line in results.lines for key in line.means))
    extra = ["rank", "seeds", f"{results.score}_half", "difference", "difference_half", "tie"]
    writer = csv.DictWriter(content, ["name", *extra, *keys])
    writer.writeheader()
    for line in results.lines:
        found = line.difference
        writer.writerow(
            {
                "name": spreadsheet_cell(line.name),
                "rank": line.rank,
                "seeds": line.score.num_seeds,
                f"{results.score}_half": line.score.half,
                "difference": None if found is None else found.mean,
                "difference_half": None if found is None else found.half,
                "tie": "" if found is None or found.half is None else line.is_tie,
                **line.means,
            }
        )
    return content.getvalue()
