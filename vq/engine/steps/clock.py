"""How long the parts of a training step take on their device, measured without waiting for it."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

FORWARD, BACKWARD, OPTIMIZER, DISCRIMINATOR = "forward", "backward", "optimizer", "discriminator"
PARTS = (FORWARD, BACKWARD, OPTIMIZER, DISCRIMINATOR)
"""The parts of a step. The discriminator's are its own forward pass, backward pass and optimizer together."""


class StepClock:
    """Measures the parts of the latest training step.

    On a CUDA device, an event is recorded in the stream at each boundary of two parts. It costs microseconds, and its
    time is read in `seconds`, when the device has passed it. On a CPU, the clock of the host is read. On other devices
    nothing is measured, because the host does not know when they compute.

    Time that belongs to no part, such as that of the losses, belongs to the forward pass.

    Args:
        device: Where the step computes.

    Example:
        >>> clock = StepClock(torch.device("cpu"))
        >>> clock.start()
        >>> with clock.part(BACKWARD):
        ...     pass
        >>> with clock.part(OPTIMIZER):
        ...     pass
        >>> clock.stop()
        >>> sorted(clock.seconds())
        ['backward', 'forward', 'optimizer']
    """

    def __init__(self, device: torch.device) -> None:
        self._type = device.type
        self._marks: list[tuple[str, Any]] = []
        self._part = ""

    def start(self) -> None:
        """Begins a step; the times of the step before are dropped."""
        self._marks = []
        self._mark(FORWARD)

    def stop(self) -> None:
        """Ends the step."""
        self._mark("")

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Inside, time belongs to this part of the step."""
        before = self._part
        self._mark(name)
        try:
            yield
        finally:
            self._mark(before)

    def seconds(self) -> dict[str, float]:
        """The time of each part of the latest step; waits for the device if it has not finished the step.

        A step that does not tell its backward pass apart has no times.
        """
        found: dict[str, float] = {}
        for (name, begin), (_, end) in zip(self._marks, self._marks[1:], strict=False):
            if name:
                found[name] = found.get(name, 0.0) + self._between(begin, end)
        return found if BACKWARD in found else {}

    def _mark(self, part: str) -> None:
        """From now on, time belongs to this part; to none if it is empty."""
        self._part = part
        if self._type == "cuda":
            event = torch.cuda.Event(enable_timing=True)
            event.record()
            self._marks.append((part, event))
        elif self._type == "cpu":
            self._marks.append((part, time.perf_counter()))

    def _between(self, begin: Any, end: Any) -> float:
        if self._type == "cuda":
            end.synchronize()
            return float(begin.elapsed_time(end)) / 1000
        return float(end - begin)
