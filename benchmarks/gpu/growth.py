"""How the cost of each hot path grows with vectors, codes, dimensions, tokens and images, and a plot of it.

Each point is a row. A series ends with a row whose facts are the exponents of time and memory between its last two
points: 1 is linear. The plot needs matplotlib and is written beside the JSON file.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from benchmarks.gpu.entropy import lookup_free
from benchmarks.gpu.sampling import generator, sample
from benchmarks.gpu.timing import Rows, Side
from benchmarks.gpu.tokenization import encode_all, tuned_tokenizer
from vq.ops.distance import nearest_code


@dataclass(frozen=True, slots=True)
class Series:
    """The cost of one path against one of its sizes.

    Attributes:
        path: What runs.
        axis: The size that grows.
        values: Its values on a GPU.
        small: Its values where only shown to run.
        build: Makes what is timed for a value.
    """

    path: str
    axis: str
    values: Sequence[int]
    small: Sequence[int]
    build: Callable[[int], Side]

    def title(self, value: int) -> str:
        """The name of a point's row."""
        return f"{self.path}, {self.axis} {value}"


def all_series(rows: Rows) -> list[Series]:
    """The series, cheapest first."""

    def search(n: int, size: int, dim: int) -> Side:
        torch.manual_seed(0)
        z, codes = (torch.randn(count, dim, device=rows.device) for count in (n, size))
        return lambda: nearest_code(z, codes)

    def entropies(n: int, bits: int) -> Side:
        torch.manual_seed(0)
        return lookup_free(bits, torch.randn(n, bits, device=rows.device))

    def sampling(tokens: int, images: int) -> Side:
        return sample(generator(rows, "B", tokens, torch.bfloat16), images)

    tokenizer = tuned_tokenizer(rows)
    side = rows.size(256, 32)

    def encoding(images: int) -> Side:
        batch = torch.randint(256, (images, 3, side, side), dtype=torch.uint8, device=rows.device)

        def run() -> None:
            with torch.no_grad(), torch.autocast(rows.device.type, torch.bfloat16):
                encode_all(tokenizer, [batch])

        return run

    n, size, dim = rows.size(8192, 32), rows.size(16384, 64), rows.size(64, 8)
    powers = [2**k for k in range(10, 19, 2)]
    return [
        Series("nearest code", "N", [*powers, 2**20], (32, 64), lambda n: search(n, size, dim)),
        Series("nearest code", "K", powers, (32, 64), lambda size: search(n, size, dim)),
        Series("nearest code", "D", (8, 32, 128, 512), (4, 8), lambda dim: search(n, size, dim)),
        Series("LFQ with entropies", "N", powers[:-1], (32, 64), lambda n: entropies(n, rows.size(12, 4))),
        Series("LFQ with entropies", "K", powers, (16, 32), lambda k: entropies(n, int(math.log2(k)))),
        Series("encoder", "images", (8, 16, 32, 64), (1, 2), encoding),
        Series("sampling", "images", (2, 8, 32, 128), (1, 2), lambda b: sampling(rows.size(64, 4), b)),
        Series("sampling", "tokens", (64, 256, 1024), (4, 8), lambda t: sampling(t, rows.size(8, 1))),
    ]


def measure(rows: Rows, series: Series) -> None:
    """Measures the points of a series, and the exponents of its last two."""
    values = series.small if rows.is_small else series.values
    for value in values:
        rows.measure(
            series.title(value), {"vq": lambda value=value: series.build(value)}, rounds=5, warm_up=2
        )
    found = [rows.found[series.title(value)]["vq"] for value in values[-2:]]
    title = f"{series.path} against {series.axis}"
    if title in rows.found or not all("ms" in side for side in found):
        return
    step = math.log(values[-1] / values[-2])
    facts = {"exponent of time": math.log(found[1]["ms"] / found[0]["ms"]) / step}
    if all(side["peak_mib"] for side in found):
        facts["exponent of memory"] = math.log(found[1]["peak_mib"] / found[0]["peak_mib"]) / step
    rows.keep(title, {"facts": facts, "bars": {}})


def plot(rows: Rows, everything: Sequence[Series]) -> None:
    """Draws time against size for each path, in logarithmic axes."""
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        return
    figure = Figure(figsize=(4 * len(everything), 4), layout="constrained")
    for axes, series in zip(figure.subplots(1, len(everything)), everything, strict=True):
        points: dict[int, Any] = {
            value: rows.found.get(series.title(value), {}).get("vq", {})
            for value in (series.small if rows.is_small else series.values)
        }
        measured = {value: side["ms"] for value, side in points.items() if "ms" in side}
        axes.loglog(list(measured), list(measured.values()), marker="o")
        axes.set(title=series.path, xlabel=series.axis, ylabel="ms")
    figure.savefig(rows.out.with_suffix(".svg"))


def main() -> None:
    """Measures every series, and draws the plot."""
    rows = Rows(__doc__)
    everything = all_series(rows)
    for series in everything:
        measure(rows, series)
    plot(rows, everything)


if __name__ == "__main__":
    main()
