"""What a check finds, and the order in which findings are shown."""

import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from vq.text import printable

NEVER = None
"""The step of a fault that no error message would ever show: the training ends, and its numbers are wrong."""


class Level(StrEnum):
    """How serious a finding is: trouble ends or spoils a training, a warning may be intended, ok is information."""

    OK = "ok"
    WARNING = "warning"
    TROUBLE = "trouble"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One line of the examination.

    Attributes:
        level: How serious it is.
        place: What it is about: a place in the config, a file or folder, an option, or a part of the machine.
        what: What was found.
        cure: What to do about it; "" if nothing has to be done.
        step: The optimizer step at which a training would show it: 0 before the first step, `NEVER` if it would not.
    """

    level: Level
    place: str
    what: str
    cure: str = ""
    step: int | None = 0

    @property
    def shows(self) -> str:
        """When a training would show it, in words.

        Example:
            >>> Finding(level=Level.TROUBLE, place="disk", what="full", step=5000).shows
            'step 5,000'
        """
        if self.level is Level.OK:
            return ""
        if self.step is NEVER:
            return "never"
        return f"step {self.step:,}" if self.step else "at start"

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON; the text is printable, whatever names are in it."""
        texts = {name: printable(getattr(self, name)) for name in ("place", "what", "cure")}
        return {"level": str(self.level), **texts, "step": self.step}


Findings = Iterable[Finding]


def ok(place: str, what: str) -> Finding:
    """Something that is as it should be, with its figures."""
    return Finding(level=Level.OK, place=place, what=what)


def warning(place: str, what: str, cure: str = "", *, step: int | None = 0) -> Finding:
    """Something that may be intended."""
    return Finding(level=Level.WARNING, place=place, what=what, cure=cure, step=step)


def trouble(place: str, what: str, cure: str = "", *, step: int | None = 0) -> Finding:
    """Something that ends the training, or makes its result worthless."""
    return Finding(level=Level.TROUBLE, place=place, what=what, cure=cure, step=step)


def from_error(place: str, error: BaseException, *, step: int | None = 0) -> Finding:
    """The trouble that an error reports.

    The message of an error says the cure after the last semicolon, and often begins with the place in the config, which
    may be more exact than the given one.
    """
    text = " ".join(str(error).split()) or type(error).__name__
    while (inner := re.match(r"([\w.\[\]]+): ", text)) and inner[1].startswith(place):
        place, text = inner[1], text[inner.end() :]
    what, separator, cure = text.rpartition("; ")
    return trouble(place, what if separator else text, cure if separator else "", step=step)


def ordered(findings: Iterable[Finding]) -> list[Finding]:
    """The faults that show latest first, of equal ones trouble first; what is ok follows in the order of the checks."""
    found = list(findings)
    faults = [finding for finding in found if finding.level is not Level.OK]
    faults.sort(key=lambda f: (-math.inf if f.step is None else -f.step, f.level is Level.WARNING))
    return faults + [finding for finding in found if finding.level is Level.OK]


def count(findings: Sequence[Finding], level: Level) -> int:
    """How many findings have a level."""
    return sum(finding.level is level for finding in findings)


def first_lines(names: Iterable[str], most: int = 3) -> str:
    """The first of some names, separated by commas.

    Example:
        >>> first_lines(["a.png", "b.png", "c.png", "d.png"])
        'a.png, b.png, c.png, ...'
    """
    shown = list(names)
    return ", ".join(shown[:most]) + (", ..." if len(shown) > most else "")


def bytes_in_words(size: int | float) -> str:
    """A number of bytes with a unit.

    Example:
        >>> bytes_in_words(3 * 2**30), bytes_in_words(1536)
        ('3.0 GiB', '1.5 KiB')
    """
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.1f} {unit}" if unit != "bytes" else f"{size:.0f} bytes"
        size /= 1024
    return f"{size:.1f} TiB"


Check = Callable[[Any], Findings]
"""A function of a `Case`."""
