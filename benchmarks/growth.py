"""How the cost of each hot path grows on a CPU: a plot in logarithmic axes, and the fitted exponents.

    python benchmarks/growth.py [--threads 1] [--repeats 5] [--plot docs/images/growth.svg] [--out FILE]

Time of the nearest code against the number of vectors (N), of codes (K) and of dimensions (D), of tokenization against
images, and of sampling against images and tokens. The points of all series are timed in turn, and medians are taken.
With one thread the time is that of the processor, which other programs disturb less. An exponent is the slope of a
line through the logarithms of the last three points: 1 is linear. The memory of the nearest code is the peak of what
one search allocates, without its result.

The target: no path grows faster than with the power 1.15 of its size. Sampling against tokens is reported without a
target: attention over the tokens so far makes it quadratic in the end. `benchmarks/gpu.sh growth` does the same on a
GPU.
"""

import argparse
import json
import math
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import torch

from vq.generators import DecoderTransformer, TransformerGenerator
from vq.networks import StridedCNNDecoder, StridedCNNEncoder
from vq.ops.distance import nearest_code
from vq.quantizers import FiniteScalarQuantizer
from vq.tokenizers import ImageTokenizer

MOST = 1.15
LAST = 3
"""The number of points that an exponent is fitted to; small sizes have constant costs."""

Side = Callable[[], object]


@dataclass(frozen=True, slots=True)
class Series:
    """The cost of one path against one of its sizes.

    Attributes:
        path: What runs.
        axis: The size that grows.
        values: Its values.
        build: Makes what is timed for a value.
        most: The target of the exponent; None for none.
    """

    path: str
    axis: str
    values: Sequence[int]
    build: Callable[[int], Side]
    most: float | None = MOST


def search(n: int, size: int, dim: int) -> Side:
    torch.manual_seed(0)
    z, codes = torch.randn(n, dim), torch.randn(size, dim)
    return lambda: nearest_code(z, codes)


def encoding(images: int) -> Side:
    torch.manual_seed(0)
    tokenizer = ImageTokenizer(
        encoder=StridedCNNEncoder(widths=(32, 64), num_blocks=1),
        quantizer=FiniteScalarQuantizer(levels=[8, 6, 5]),
        decoder=StridedCNNDecoder(widths=(32, 64), num_blocks=1),
    ).eval()
    batches = torch.rand(images, 3, 32, 32).split(32)
    return lambda: [tokenizer.encode(batch) for batch in batches]


def sampling(images: int, tokens: int) -> Side:
    torch.manual_seed(0)
    generator = TransformerGenerator(
        transformer=DecoderTransformer(width=128, depth=2, num_heads=4),
        vocabulary_size=1024,
        num_classes=10,
        grid=(tokens,),
    ).eval()
    label = torch.arange(images) % 10
    return lambda: generator.generate(label, seeds=label, guidance=2.0, top_k=100)


EVERYTHING = [
    Series("nearest code", "N", (1024, 4096, 16384, 65536), lambda n: search(n, 1024, 16)),
    Series("nearest code", "K", (256, 1024, 4096, 16384), lambda size: search(2048, size, 16)),
    Series("nearest code", "D", (16, 64, 256, 1024), lambda dim: search(2048, 1024, dim)),
    Series("tokenization", "images", (8, 32, 128, 512), encoding),
    Series("sampling", "images", (2, 8, 32, 128), lambda images: sampling(images, 64)),
    Series("sampling", "tokens", (32, 64, 128, 256, 512), lambda tokens: sampling(4, tokens), None),
]


def exponent(costs: dict[int, float]) -> float:
    """The slope of the line through the logarithms of the last points."""
    x, y = (torch.tensor([math.log(v) for v in values][-LAST:]) for values in (costs.keys(), costs.values()))
    return float(((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum())


@torch.no_grad()
def measure(everything: Sequence[Series], repeats: int, clock: Callable[[], float]) -> list[dict[int, float]]:
    """The median time in ms of each point of each series."""
    sides = {
        (i, value): series.build(value) for i, series in enumerate(everything) for value in series.values
    }
    times: dict[tuple[int, int], list[float]] = {key: [] for key in sides}
    for turn in range(repeats + 1):
        for key, run in sides.items():
            start = clock()
            run()
            if turn > 0:  # the first turn warms up
                times[key].append(1e3 * (clock() - start))
    return [
        {value: statistics.median(times[i, value]) for value in series.values}
        for i, series in enumerate(everything)
    ]


def peak_memory(run: Side) -> float:
    """The peak in MiB of the memory that a function allocates on the CPU."""
    with torch.profiler.profile(profile_memory=True, acc_events=True) as profile:
        run()
    events = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
    now = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        now += event.nbytes()
        peak = max(peak, now)
    return peak / 2**20


def plot(everything: Sequence[Series], found: list[dict[int, float]], file: Path) -> None:
    """Draws time against size for each path, in logarithmic axes, beside a linear growth from the last point."""
    import matplotlib as mpl
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullFormatter

    mpl.rcParams["svg.hashsalt"] = "vq"  # equal figures give equal files
    figure = Figure(figsize=(10, 6), layout="constrained")
    for axes, series, costs in zip(figure.subplots(2, 3).flat, everything, found, strict=True):
        sizes, times = list(costs), list(costs.values())
        axes.loglog(sizes, [times[-1] * size / sizes[-1] for size in sizes], color="0.7", label="linear")
        axes.loglog(sizes, times, marker="o", label=f"exponent {exponent(costs):.2f}")
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set(title=series.path, xlabel=series.axis, ylabel="ms")
        axes.legend()
    figure.savefig(file, metadata={"Date": None} if file.suffix == ".svg" else None)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--plot", type=Path, help="the file of the plot, .svg or .png; it needs Matplotlib")
    parser.add_argument("--out", type=Path, help="also write the figures here, as JSON")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    found = measure(
        EVERYTHING, arguments.repeats, time.process_time if arguments.threads == 1 else time.perf_counter
    )
    problems, rows = [], []
    for series, costs in zip(EVERYTHING, found, strict=True):
        slope = exponent(costs)
        points = ", ".join(f"{size}: {ms:.2f}" for size, ms in costs.items())
        print(f"{series.path:13} against {series.axis:6} exponent {slope:5.2f}   ms at {points}")
        rows.append({"path": series.path, "axis": series.axis, "exponent": round(slope, 3), "ms": costs})
        if series.most is not None and slope > series.most:
            problems.append(
                f"{series.path} against {series.axis}: exponent {slope:.2f} (target {series.most})"
            )
    memory: dict[str, dict[int, float]] = {
        "N": {n: peak_memory(search(n, 1024, 16)) for n in (16384, 65536, 262144)},
        "K": {size: peak_memory(search(2048, size, 16)) for size in (4096, 16384, 65536)},
    }
    for axis, mib in memory.items():
        points = ", ".join(f"{size}: {found:.1f}" for size, found in mib.items())
        (before, less), (last, more) = list(mib.items())[-2:]
        print(
            f"memory of the nearest code: MiB at {axis} {points}; "
            f"{2**20 * (more - less) / (last - before):.1f} bytes for each further {axis}"
        )
    if arguments.plot:
        plot(EVERYTHING, found, arguments.plot)
    if arguments.out:
        record = {
            "command": " ".join(["python", *sys.argv]),
            "date": date.today().isoformat(),
            "hardware": f"{platform.machine()}, {arguments.threads} threads, torch {torch.__version__}",
            "rows": rows,
            "memory_of_nearest_code_mib": memory,
            "missed": problems,
        }
        arguments.out.write_text(json.dumps(record, indent=2) + "\n")
    print("\n".join(f"missed: {problem}" for problem in problems) or "every target is met")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
