"""Times the sides of a row in turn on one device, and keeps each row as soon as it is measured."""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu.installation import PEERS, hardware

Side = Callable[[], object]
Facts = dict[str, Any]
PEER_MODULES = {package.module for package in PEERS}
NOT_INSTALLED = "not installed"


class NotInstalledError(Exception):
    """A peer that is not there."""


class Rows:
    """The rows of one section, in a JSON file that grows row by row.

    A row that is in the file already is not measured again, so that a section that was cut short goes on with the next.
    The file says on which device its rows were measured; rows of different devices are never mixed.

    Args:
        description: The section's docstring, for `--help`.
    """

    def __init__(self, description: str | None) -> None:
        given = _arguments(description)
        self.out: Path = given.out
        self.device = torch.device(given.device)
        self.is_small: bool = given.small
        self.llamagen: Path | None = given.llamagen
        self.about = {
            "hardware": hardware(given.device), "small": given.small, "torch": torch.__version__,
            "date": date.today().isoformat(),
        }  # fmt: skip
        self.found: dict[str, Any] = self._rows_on_disk()
        if given.retry:
            self.found = {title: row for title, row in self.found.items() if not has_failed(row)}
        torch.zeros(1, device=self.device)  # a device that is not there ends the section here
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False

    def _rows_on_disk(self) -> dict[str, Any]:
        if not self.out.is_file():
            return {}
        stored = json.loads(self.out.read_text())
        for key in ("hardware", "small"):
            if stored["about"][key] != self.about[key]:
                raise SystemExit(
                    f"{self.out}: expected rows with {key} {self.about[key]!r}, got {stored['about'][key]!r}; give "
                    "another --out"
                )
        return dict(stored["rows"])

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
        warm_up: int = 3,
        facts: Facts | None = None,
        derive: Callable[[float], Facts] | None = None,
        most_mib: float | None = None,
    ) -> None:
        """Measures a row: builds its sides, warms them up, times them in turn and writes medians and ranges.

        Args:
            title: The name of the row.
            sides: Side -> a function that builds it and returns what is timed. The first one is ours. A side that
                cannot be built or run is recorded with its error.
            bars: Side -> at least how many times as fast as it ours must be.
            rounds: How often each side is timed.
            warm_up: How often each side is run before; the memory is that of one more run.
            facts: What else is known of the row, such as FLOPs.
            derive: Returns further facts of the median time of our side, in ms.
            most_mib: Our side's peak of memory must be below this.
        """
        if title in self.found:
            return
        row: dict[str, Any] = {"facts": facts or {}}
        runs: dict[str, Side] = {}
        for name, build in sides.items():
            try:
                runs[name] = build()
                row[name] = {"peak_mib": self._warm_up(runs[name], warm_up)}
            except Exception as error:
                runs.pop(name, None)
                row[name] = {"error": in_one_line(error)}
            if self.device.type == "cuda":
                torch.cuda.empty_cache()  # one side that needs most of the memory leaves none in pieces
        times: dict[str, list[float]] = {name: [] for name in runs}
        for _ in range(1 if self.is_small else rounds):
            for name, run in runs.items():
                times[name].append(self.milliseconds(run))
        for name, found in times.items():
            row[name] |= {"ms": statistics.median(found), "from": min(found), "to": max(found)}
        ours = next(iter(sides))
        if derive is not None and "ms" in row[ours]:
            row["facts"] |= derive(row[ours]["ms"])
        row["bars"] = _judged(row, ours, bars or {})
        if most_mib is not None:
            peak = row[ours].get("peak_mib")
            verdict = "not measured" if peak is None else "met" if peak < most_mib else "missed"
            row["bars"][f"under {most_mib:.0f} MiB"] = verdict
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

    def keep(self, title: str, row: dict[str, Any], *, is_quiet: bool = False) -> None:
        """Writes a row, and prints it unless told not to."""
        self.found[title] = row
        self.out.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.out.with_suffix(".tmp")
        temporary.write_text(json.dumps({"about": self.about, "rows": self.found}, indent=1) + "\n")
        temporary.replace(self.out)
        if not is_quiet:
            print(f"{title}: {_summary(row)}", file=sys.stderr, flush=True)

    def _warm_up(self, run: Side, times: int) -> float | None:
        """Runs a side until it is compiled, and returns the peak of its memory above what was there, in MiB."""
        for _ in range(1 if self.is_small else times):
            run()
        if self.device.type != "cuda":
            return None
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        torch.cuda.synchronize()
        return round((torch.cuda.max_memory_allocated() - before) / 2**20, 1)


def in_one_line(error: BaseException) -> str:
    """The first line of an error; `not installed` if a peer's package is missing."""
    if isinstance(error, NotInstalledError):
        return f"{NOT_INSTALLED}; {error}"
    if isinstance(error, ModuleNotFoundError) and (error.name or "").partition(".")[0] in PEER_MODULES:
        return NOT_INSTALLED
    lines = f"{type(error).__name__}: {error}".splitlines()
    return lines[0][:300]


def has_failed(row: dict[str, Any]) -> bool:
    """Whether `--retry` measures a row again: a side has an error, or a test did not pass."""
    return row.get("outcome", "passed") not in ("passed", "skipped") or any(
        isinstance(side, dict) and "error" in side for side in row.values()
    )


def _arguments(description: str | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="the JSON file of this section")
    parser.add_argument("--device", default="cuda", help="cpu only shows that the section runs")
    parser.add_argument("--small", action="store_true", help="tiny sizes, whose figures mean nothing")
    parser.add_argument("--retry", action="store_true", help="measure rows with an error again")
    parser.add_argument(
        "--llamagen", type=Path, metavar="DIR", help="a checkout of FoundationVision/LlamaGen"
    )
    return parser.parse_args()


def _summary(row: dict[str, Any]) -> str:
    """A row in one line."""
    if "outcome" in row:
        return f"{row['outcome']} in {row['seconds']:.1f} s {row.get('reason', '')}".rstrip()
    said = [
        f"{name} {side['ms']:.3f} ms" if "ms" in side else f"{name}: {side['error']}"
        for name, side in row.items()
        if name not in ("facts", "bars")
    ]
    said += [f"{bar} {verdict}" for bar, verdict in row.get("bars", {}).items()]
    said += [f"{name} {value}" for name, value in row.get("facts", {}).items()]
    return "; ".join(said)


def _judged(row: dict[str, Any], ours: str, bars: dict[str, float]) -> dict[str, str]:
    judged = {}
    for name, factor in bars.items():
        if "ms" not in row.get(name, {}) or "ms" not in row[ours]:
            judged[f"{factor:.3g}x {name}"] = "not measured"
            continue
        ratio = row[name]["ms"] / row[ours]["ms"]
        judged[f"{factor:.3g}x {name}"] = f"{'met' if ratio >= factor else 'missed'}: {ratio:.2f}"
    return judged
