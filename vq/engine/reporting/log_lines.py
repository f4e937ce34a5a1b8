"""The course of a training as its `log.txt` tells it: starts, resumes, stops, faults and whatever else was logged."""

import re
from dataclasses import dataclass

LINE = re.compile(r"((?:\d{4}-\d\d-\d\d )?\d\d:\d\d:\d\d) (.*)")
STEP = re.compile(r"step (\d+)/(\d+)  eta ")
ROUTINE = re.compile(
    r"step \d+/\d+  eta |validation at step \d+: |examined: |no TensorBoard files|changed since the checkpoint: none"
)
"""Lines that are no events: their values are in `metrics.jsonl`."""
KINDS = (
    ("start", re.compile(r"config: ")),
    ("machine", re.compile(r"(cpu|cuda|mps)[^ ]*, (float32|bfloat16)")),
    ("resume", re.compile(r"continuing from ")),
    ("change", re.compile(r"changed since the checkpoint|\d+ rows of .* after step ")),
    ("stop", re.compile(r"stopping at step ")),
    (
        "fault",
        re.compile(
            r".*(failed in|ended early|damaged|could not|cannot|Training continues|no sign of life|is gone|not finite"
            r"|disk is full|not enough|Error)"
        ),
    ),
)
"""What begins a line of each kind; the first that matches counts, and any other line is a note."""
KILLED = "the training before this line ended without a message: it was killed, or ended by an error"


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """A line of the log.

    Attributes:
        when: Date and time; logs of earlier versions have no date.
        kind: `start`, `machine`, `resume`, `change`, `stop`, `fault` or `note`.
        what: The message.
    """

    when: str
    kind: str
    what: str


def events_in(log: str) -> list[Event]:
    r"""The lines of a log that are not routine, without notes that repeat an earlier one.

    A training that ended without a message becomes an event too.

    Args:
        log: The text of `log.txt`.

    Example:
        >>> [event.kind for event in events_in("03:04:05 config: a.py\n03:04:06 step 1/2  eta 0:00:01")]
        ['start']
    """
    events: list[Event] = []
    told: set[str] = set()
    is_open = False  # a training has begun, and neither stopped nor reached its last step
    for line in log.split("\n"):
        if (parts := LINE.fullmatch(line.rstrip("\r"))) is None:
            continue  # of a message of several lines, the first line is shown
        when, what = parts.groups()
        if step := STEP.match(what):
            is_open = is_open and int(step[1]) < int(step[2])
        if ROUTINE.match(what):
            continue
        kind = next((kind for kind, pattern in KINDS if pattern.match(what)), "note")
        if kind == "start":
            if is_open:
                events.append(Event(when=when, kind="fault", what=KILLED))
            is_open = True
        is_open = is_open and kind != "stop"
        if kind not in ("note", "machine") or what not in told:
            events.append(Event(when=when, kind=kind, what=what))
        told.add(what)
    return events
