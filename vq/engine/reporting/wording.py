"""How a report writes values."""

import time
from collections.abc import Sequence

UNKNOWN = "–"


def number(value: float) -> str:
    """A number with five digits.

    Example:
        >>> number(0.123456), number(23.5), number(1234567.0)
        ('0.12346', '23.5', '1.2346e+06')
    """
    return f"{value:,.5g}" if abs(value) < 1e5 else f"{value:.4e}"


def date(seconds: float) -> str:
    """The local date and time of seconds since 1970."""
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
    except (OverflowError, ValueError, OSError):
        return UNKNOWN


def some_steps(steps: Sequence[int]) -> str:
    """Steps in words; of many, their number, the first and the last.

    Example:
        >>> some_steps([100, 200]), some_steps(range(0, 1000, 100))
        ('100, 200', '10, from 0 to 900')
    """
    if not steps:
        return "none"
    if len(steps) <= 4:
        return ", ".join(f"{step:,}" for step in steps)
    return f"{len(steps)}, from {steps[0]:,} to {steps[-1]:,}"
