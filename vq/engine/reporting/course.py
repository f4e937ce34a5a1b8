"""Speed, where the time went, and what happened when."""

import math
from collections.abc import Iterator, Sequence

from vq.engine.evaluation.progress import duration
from vq.engine.reporting.blocks import Bars, Block, Gallery, Table, Text
from vq.engine.reporting.charts import Line, line_chart
from vq.engine.reporting.curves import lines_of
from vq.engine.reporting.run_folder import Run
from vq.engine.reporting.times import DATA, STEP, Times, logged_share
from vq.engine.reporting.wording import UNKNOWN
from vq.engine.steps.clock import BACKWARD, DISCRIMINATOR, FORWARD, OPTIMIZER

MOST_EVENTS = 300
PARTS_IN_WORDS = {
    FORWARD: "forward pass and losses",
    BACKWARD: "backward pass",
    OPTIMIZER: "optimizer",
    DISCRIMINATOR: "discriminator: its forward pass, backward pass and optimizer",
}


def speed(runs: Sequence[Run], times: Sequence[Times | None]) -> Iterator[Block]:
    """Images per second, the times of the logged steps, and where the time of each run went.

    Args:
        runs: The runs of the report.
        times: Those of each run, where its rows have them.
    """
    lines = [
        Line(
            run=run.name,
            number=number,
            xs=[step for step, _ in spent.pace],
            ys=[run.batch_size / seconds if seconds > 0 else float("nan") for _, seconds in spent.pace],
        )
        for number, (run, spent) in enumerate(zip(runs, times, strict=True))
        if spent is not None and run.batch_size
    ]
    images = line_chart("images per second, without validations", lines)
    rows = [run.rows_of("train") for run in runs]
    logged = [
        line_chart(f"{name} of the logged steps, in seconds", list(lines_of(runs, rows, name)))
        for name in (STEP, DATA)
    ]
    if charts := [chart for chart in (images, *logged) if chart is not None]:
        yield Gallery(pictures=charts, has_legend=len(runs) > 1)
    for run, spent in zip(runs, times, strict=True):
        yield from _shares(run, spent)


def _shares(run: Run, spent: Times | None) -> Iterator[Block]:
    """Where the time of a run, or of its steps, went."""
    waiting = logged_share(run.rows, DATA)
    if spent is not None and spent.total > 0:
        shares = _shares_of_steps(spent)
        steps = spent.total - spent.validation
        others = "logging and other checkpoints"
        if not spent.parts:  # rows of an earlier version, or of a device on which the parts are not measured
            others = f"forward, backward, optimizer, {others}"
        parts = {name: steps * share for name, share in shares.items()} | {
            others: steps * max(0.0, 1.0 - sum(shares.values())),
            "validation, and the checkpoints saved just before it": spent.validation,
        }
        rows = [(name, duration(seconds), seconds / spent.total) for name, seconds in parts.items()]
        yield Bars(caption=f"Where the {duration(spent.total)} of {run.name} went", rows=rows)
        if shares:
            yield Text(text=f"Estimated from the logged steps: {', '.join(shares)}.")
    elif waiting is not None:
        both = {"waiting for data": waiting, "forward, backward and optimizer": 1 - waiting}
        rows = [(name, f"{share:.1%}", share) for name, share in both.items()]
        yield Bars(caption=f"Where the time of the logged steps of {run.name} went", rows=rows)


def _shares_of_steps(spent: Times) -> dict[str, float]:
    """What the time of steps was spent on, in words -> its share; without what is not known."""
    waiting = {} if spent.data is None else {"waiting for data": spent.data}
    return waiting | {PARTS_IN_WORDS[part]: share for part, share in spent.parts.items()}


def timeline(runs: Sequence[Run], times: Sequence[Times | None]) -> Iterator[Block]:
    """The steps by the clock, and the events of the log.

    Args:
        runs: The runs of the report.
        times: Those of each run, where its rows have them.
    """
    for number, (run, spent) in enumerate(zip(runs, times, strict=True)):
        if spent is not None:
            hours = [(clock - spent.starts[0]) / 3600 for clock, _ in spent.progress]
            steps = [float(step) for _, step in spent.progress]
            line = Line(run=run.name, number=number, xs=hours, ys=steps)
            chart = line_chart(
                f"steps done by {run.name}; a dotted line marks the start of each training",
                [line],
                x="hours since the first start",
                marks=[(start - spent.starts[0]) / 3600 for start in spent.starts],
                form=",.0f",
                log_from=math.inf,
            )
            yield Gallery(pictures=[chart] if chart else [])
        events = [[event.when, event.kind, event.what] for event in run.events]
        if run.ended:
            events.append([UNKNOWN, "end", f"the last training ended early: {run.ended}"])
        if events:
            left = len(events) - MOST_EVENTS
            more = f"; {left} lines before these are in log.txt" if left > 0 else ""
            caption = f"Starts, resumes, stops, faults and other messages of {run.name}{more}"
            yield Table(caption=caption, header=["time", "kind", "message"], rows=events[-MOST_EVENTS:])
