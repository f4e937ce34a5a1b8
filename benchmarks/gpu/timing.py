"""Times the sides of a row in turn on one device, and keeps each row as soon as it is measured."""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

Side = Callable[[], object]


class Rows:
    """The rows of one section, in a JSON file that grows row by row.

    A row that is in the file already is not measured again, so that a section that was cut short goes on with the next.

    Args:
        description: The section's docstring, for `--help`.
    """

    def __init__(self, description: str | None) -> None:
        parser = argparse.ArgumentParser(
            description=description, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        parser.add_argument("--out", type=Path, required=True, help="the JSON file of this section")
        parser.add_argument("--device", default="cuda", help="cpu only shows that the section runs")
        parser.add_argument("--small", action="store_true", help="tiny sizes, whose figures mean nothing")
        given = parser.parse_args()
        self.out: Path = given.out
        self.device = torch.device(given.device)
        self.is_small: bool = given.small
        self.found: dict[str, Any] = json.loads(self.out.read_text()) if self.out.is_file() else {}
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False

    def size(self, large: int, small: int) -> int:
        """Returns a size, or a tiny one if the section only shows that it runs."""
        return small if self.is_small else large

    def measure(
        self,
        title: str,
        sides: dict[str, Callable[[], Side]],
        *,
        bars: dict[str, float] | None = None,
        rounds: int = 9,
        facts: dict[str, float | str] | None = None,
    ) -> None:
        """Measures a row: builds its sides, warms them up, times them in turn and writes medians and ranges.

        Args:
            title: The name of the row.
            sides: Side -> a function that builds it and returns what is timed. The first one is ours. A side that
                cannot be built or run is recorded with its error.
            bars: Side -> at least how many times as fast as it ours must be.
            rounds: How often each side is timed.
            facts: What else is known of the row, such as FLOPs.
        """
        if title in self.found:
            return
        row: dict[str, Any] = {"facts": facts or {}}
        runs: dict[str, Side] = {}
        for name, build in sides.items():
            try:
                runs[name] = build()
                row[name] = {"peak_mib": self._warm_up(runs[name])}
            except Exception as error:
                runs.pop(name, None)
                row[name] = {"error": f"{type(error).__name__}: {error}".splitlines()[0][:300]}
        times: dict[str, list[float]] = {name: [] for name in runs}
        for _ in range(1 if self.is_small else rounds):
            for name, run in runs.items():
                times[name].append(self.milliseconds(run))
        for name, found in times.items():
            row[name] |= {"ms": statistics.median(found), "from": min(found), "to": max(found)}
        row["bars"] = _judged(row, next(iter(sides)), bars or {})
        self.keep(title, row)

    def milliseconds(self, run: Side) -> float:
        """Times one call, with CUDA events on a GPU."""
        if self.device.type != "cuda":
            start = time.perf_counter()
            run()
            return 1e3 * (time.perf_counter() - start)
        first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize()
        first.record()
        run()
        last.record()
        torch.cuda.synchronize()
        return float(first.elapsed_time(last))

    def keep(self, title: str, row: dict[str, Any]) -> None:
        """Writes a row, and prints it."""
        self.found[title] = row
        self.out.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.out.with_suffix(".tmp")
        temporary.write_text(json.dumps(self.found, indent=1) + "\n")
        temporary.replace(self.out)
        sides = {name: side for name, side in row.items() if name not in ("facts", "bars")}
        said = ", ".join(
            f"{name} {side['ms']:.3f} ms" if "ms" in side else f"{name} {side}"
            for name, side in sides.items()
        )
        print(f"{title}: {said}; {row.get('bars', {})}", file=sys.stderr, flush=True)

    def _warm_up(self, run: Side) -> float | None:
        """Runs a side until it is compiled, and returns the peak of its memory above what was there, in MiB."""
        for _ in range(1 if self.is_small else 3):
            run()
        if self.device.type != "cuda":
            return None
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        torch.cuda.synchronize()
        return round((torch.cuda.max_memory_allocated() - before) / 2**20, 1)


def _judged(row: dict[str, Any], ours: str, bars: dict[str, float]) -> dict[str, str]:
    judged = {}
    for name, factor in bars.items():
        if "ms" not in row.get(name, {}) or "ms" not in row[ours]:
            judged[f"{factor}x {name}"] = "not measured"
            continue
        ratio = row[name]["ms"] / row[ours]["ms"]
        judged[f"{factor}x {name}"] = f"{'met' if ratio >= factor else 'missed'}: {ratio:.2f}"
    return judged
