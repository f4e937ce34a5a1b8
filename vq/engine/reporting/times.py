"""Where the time of a training went, as the rows of `metrics.jsonl` tell it."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from vq.engine.reporting.run_folder import Row
from vq.engine.steps.clock import PARTS

ELAPSED, CLOCK, STEP, DATA = "time/elapsed", "time/unix", "time/step", "time/data"


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """How long a run took.

    Attributes:
        total: Seconds of all trainings of the run, without the time in between.
        validation: Those of validations, and of the checkpoints that were saved just before one.
        data: The share of the time of steps that they waited for their data, from 0 to 1; None if no row has it.
        parts: Part of a step, such as `forward` -> its share of the time of steps; of the parts that any row has.
        pace: The last of some steps, and the mean seconds of one of them.
        starts: The time on the clock at which each training began, in seconds since 1970.
        progress: Time on the clock, and the step that was then done.
    """

    total: float
    validation: float
    data: float | None
    parts: dict[str, float]
    pace: list[tuple[int, float]]
    starts: list[float]
    progress: list[tuple[float, int]]

    @property
    def median_pace(self) -> float | None:
        """The median of the seconds of a step; None if there is none."""
        return statistics.median(seconds for _, seconds in self.pace) if self.pace else None


def times_of(rows: Sequence[Row]) -> Times | None:
    """Adds up the times of a run.

    Args:
        rows: In the order of the file.

    Returns:
        The times; None if the rows do not have them, as those of version 0.1 do not.
    """
    timed = [
        row for row in rows if all(math.isfinite(row.values.get(name, math.nan)) for name in (ELAPSED, CLOCK))
    ]
    if not timed:
        return None
    total = validation = 0.0
    pace, starts = [], []
    before: Row | None = None
    for row in timed:
        seconds = row.values[ELAPSED]
        if before is None or seconds < before.values[ELAPSED]:  # another process continues
            starts.append(row.values[CLOCK] - seconds)
            before = None
        took = seconds - (before.values[ELAPSED] if before else 0.0)
        total += took
        if row.split == "val":
            validation += took
        elif before is not None and row.step > before.step:
            pace.append((row.step, took / (row.step - before.step)))
        before = row
    return Times(
        total=total,
        validation=validation,
        data=_share_of_steps(rows, DATA, pace),
        parts=_parts(rows, pace),
        pace=pace,
        starts=starts,
        progress=[(row.values[CLOCK], row.step) for row in timed],
    )


def logged_share(rows: Sequence[Row], name: str) -> float | None:
    """The share of the logged steps that a part of them took; None if no row has both times."""
    steps = [row.values for row in rows if name in row.values and STEP in row.values]
    return _share([values[name] for values in steps], [values[STEP] for values in steps])


def _parts(rows: Sequence[Row], pace: Sequence[tuple[int, float]]) -> dict[str, float]:
    """The share of each part of a step; together with that of the data at most 1."""
    shares = {part: _share_of_steps(rows, f"time/{part}", pace) for part in PARTS}
    known = {part: share for part, share in shares.items() if share is not None}
    left = 1.0 - (_share_of_steps(rows, DATA, pace) or 0.0)
    # The logged steps may have been slower than the others, so that their parts are more than the whole.
    most = max(1.0, sum(known.values()) / left) if left > 0 else math.inf
    return {part: share / most for part, share in known.items()}


def _share_of_steps(rows: Sequence[Row], name: str, pace: Sequence[tuple[int, float]]) -> float | None:
    """The mean time of a part of the logged steps over the mean seconds of a step.

    On a GPU, the time of a logged step is not the one to compare with: it includes the steps queued before it.
    """
    found = [row.values[name] for row in rows if name in row.values]
    return _share(found, [seconds for _, seconds in pace]) if pace else logged_share(rows, name)


def _share(part: Sequence[float], whole: Sequence[float]) -> float | None:
    """The mean of a part over the mean of the whole, at most 1; None if either is unknown."""
    part, whole = ([value for value in values if math.isfinite(value)] for values in (part, whole))
    if not part or not whole or not statistics.fmean(whole) > 0:
        return None
    return min(1.0, max(0.0, statistics.fmean(part) / statistics.fmean(whole)))
