"""The rows of `metrics.jsonl`, and the best scores among them."""

import itertools
import json
import logging
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxtyping import UInt8
from torch import Tensor

from vq.engine.callbacks.base import Callback, Scalars
from vq.engine.callbacks.not_finite import NonFiniteLossError
from vq.files import append_whole, why, write_atomically
from vq.registry import CALLBACKS

logger = logging.getLogger(__name__)


@CALLBACKS.register_module()
class MetricsFile(Callback):
    """Appends a line of JSON to `metrics.jsonl` for every log step and validation.

    Every row also says when it was made: `time/unix`, in seconds since 1970, and `time/elapsed`, in seconds since this
    process began to train.

    A row that cannot be written, for example because the disk is full, is kept in memory and written with a later one;
    the file never ends in part of a row. Rows of steps that a resumed run repeats are moved to `metrics.jsonl.1` (or
    `.2`, ...).
    """

    def __init__(self, *, directory: Path) -> None:
        self.path = directory / "metrics.jsonl"
        self._started = time.monotonic()
        self._waiting: list[str] = []
        self._validated: set[int] = set()

    def on_start(self, step: int, max_steps: int) -> None:
        """Moves rows after `step`, which a resumed run writes again, and damaged rows to another file."""
        self._started = time.monotonic()
        self._move_rows_after(step)

    def _move_rows_after(self, step: int) -> None:
        lines = self.path.read_bytes().splitlines(keepends=True) if self.path.exists() else []
        rows = [(line, _row(line)) for line in lines]
        kept = [(line, row) for line, row in rows if row is not None and row["step"] <= step]
        moved = [line for line, row in rows if row is None or row["step"] > step]
        self._validated = {row["step"] for _, row in kept if row.get("split") == "val"}
        if moved:
            aside = next(p for i in itertools.count(1) if not (p := Path(f"{self.path}.{i}")).exists())
            write_atomically(aside, b"".join(moved))
            write_atomically(self.path, b"".join(line for line, _ in kept))
            logger.info("%d rows of %s after step %d are now in %s", len(moved), self.path, step, aside.name)

    def on_log(self, step: int, scalars: Scalars) -> None:
        """Appends `{"step": ..., "split": "train", ...}`."""
        self._append({"step": step, "split": "train", **scalars})

    def on_not_finite(self, error: NonFiniteLossError, back_to: int | None) -> None:
        """Appends `{"step": ..., "split": "not_finite", ...}` with the values and all samples of the failed step.

        If training goes back, the rows after the step to which it goes are moved first; the row gets that step.
        """
        row: dict[str, Any] = {"failed_step": error.step, "not_finite": error.what}
        if error.origin is not None:
            row |= {"batch": error.origin.batch, "samples": error.origin.all_keys}
        if back_to is not None:
            self._move_rows_after(back_to)
            row["num_skipped"] = len(row["samples"])
        self._append({"step": error.step if back_to is None else back_to, "split": "not_finite", **row})

    def on_evaluation_end(self, step: int, scores: Scalars, picture: UInt8[Tensor, "3 h w"]) -> None:
        """Appends `{"step": ..., "split": "val", ...}`; once per step, also if a resumed run validates it again."""
        if step not in self._validated:
            self._validated.add(step)
            self._append({"step": step, "split": "val", **scores})

    def on_end(self, step: int) -> None:
        """Writes the rows that are still in memory."""
        if self._waiting:
            self._write()

    def _append(self, row: dict[str, Any]) -> None:
        elapsed = time.monotonic() - self._started
        row |= {"time/unix": round(time.time(), 3), "time/elapsed": round(elapsed, 3)}
        self._waiting.append(json.dumps(row) + "\n")
        self._write()

    def _write(self) -> None:
        try:
            append_whole(self.path, "".join(self._waiting).encode("utf-8"))
        except OSError as error:
            raise OSError(
                error.errno, f"{self.path}: {why(error)}; {len(self._waiting)} rows are kept in memory"
            ) from error
        self._waiting = []


@CALLBACKS.register_module()
class BestScores(Callback):
    """Logs at the end which validation had the best value of each score; of equal values, the earliest.

    Validations of an earlier part of the run, which this process continues, count too.

    Args:
        directory: The run folder, with `metrics.jsonl`.
        directions: For each score, whether a larger value is better; others are not ranked.
    """

    def __init__(self, *, directory: Path, directions: Mapping[str, bool]) -> None:
        self.path, self.directions = directory / "metrics.jsonl", dict(directions)

    def on_end(self, step: int) -> None:
        """Logs the best scores, if there was a validation."""
        if best := [f"{name} {value:.4g} at step {at}" for name, (value, at) in self.found().items()]:
            logger.info("best scores: %s", ", ".join(best))

    def found(self) -> dict[str, tuple[float, int]]:
        """Score -> its best value so far and the step; of the scores that any validation has computed."""
        lines = self.path.read_bytes().splitlines(keepends=True) if self.path.exists() else []
        rows = [row for line in lines if (row := _row(line)) is not None and row.get("split") == "val"]
        best = {}
        for name, is_higher_better in self.directions.items():
            known = [(row[name], row["step"]) for row in rows if math.isfinite(row.get(name, math.nan))]
            if known:
                sign = -1 if is_higher_better else 1
                best[name] = min(known, key=lambda pair: (sign * pair[0], pair[1]))
        return best


def _row(line: bytes) -> dict[str, Any] | None:
    """The row that a complete line of JSON holds; None for anything else."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    is_row = isinstance(row, dict) and isinstance(row.get("step"), int) and line.endswith(b"\n")
    return row if is_row else None
