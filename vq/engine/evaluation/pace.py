"""Measures which part of a job's time its network computes, and which part it waits for images."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from vq import distributed


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """The seconds of a job, summed over the ranks.

    Attributes:
        total: From the first batch that was asked for to the last result that was written.
        busy: In which the network computed.
        waited: In which the network had nothing to compute because the next batch had not been read.
    """

    total: float
    busy: float
    waited: float

    def __str__(self) -> str:
        """One line, such as `the network computed for 96 % of the time and waited for images for 3 %`."""
        return (
            f"the network computed for {self.busy / self.total:.0%} of the time and waited for images for "
            f"{self.waited / self.total:.0%}"
        ).replace("%", " %")


class PaceMeter:
    """Measures the pace of a job on one rank.

    On a CUDA device the host runs ahead of the network. So events measure when the network computes, and the time that
    the host waits for a batch counts only as far as the network did not compute meanwhile.

    Args:
        device: Where the network is.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._started = time.perf_counter()
        self._busy = self._waited = 0.0
        self._unread: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Inside, the host waits for a batch."""
        started = time.perf_counter()
        yield
        self._waited += time.perf_counter() - started

    @contextmanager
    def computing(self) -> Iterator[None]:
        """Inside, the host runs the network, or hands work to its device."""
        if self._device.type == "cuda":
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            stream = torch.cuda.current_stream(self._device)
            begin.record(stream)
            yield
            end.record(stream)
            self._unread.append((begin, end))
        else:
            started = time.perf_counter()
            yield
            self._busy += time.perf_counter() - started

    def settle(self) -> None:
        """Reads the events so far; to be called when the device has computed all, such as at the end of a shard."""
        for begin, end in self._unread:
            self._busy += begin.elapsed_time(end) / 1e3
        self._unread.clear()

    def pace(self) -> Pace:
        """Returns the pace of all ranks since the meter was made; every rank calls this."""
        total = time.perf_counter() - self._started
        own = (total, self._busy, max(0.0, min(self._waited, total - self._busy)))
        total, busy, waited = (sum(values) for values in zip(*distributed.gather_objects(own), strict=True))
        return Pace(total=total, busy=busy, waited=waited)
