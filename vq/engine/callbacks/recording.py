"""What steps do, operator by operator: a trace for Perfetto or chrome://tracing, and the longest operators."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

NUM_OPERATORS = 10


class Recording:
    """Records everything that this process computes, from its construction on; the steps are slower meanwhile."""

    def __init__(self) -> None:
        os.environ.setdefault("KINETO_LOG_LEVEL", "6")  # else torch's profiler writes to the console
        gpu = [ProfilerActivity.CUDA] if torch.cuda.is_available() else []
        self._profile = profile(activities=[ProfilerActivity.CPU, *gpu])
        self._profile.start()

    def mark_step(self) -> None:
        """Marks the end of a step in the trace."""
        self._profile.step()

    def write(self, file: Path) -> list[str]:
        """Ends the recording and writes the trace as Chrome JSON.

        Args:
            file: Its name ends with `.json` or `.json.gz`.

        Returns:
            The lines of `longest_operators`.
        """
        self._profile.stop()
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_name(f"partial_{file.name}")
        self._profile.export_chrome_trace(str(partial))
        os.replace(partial, file)
        return list(longest_operators(self._profile.key_averages()))


def longest_operators(averages: Sequence[Any]) -> Iterator[str]:
    """The lines of a table of the operators that took longest by themselves, on the GPU if one was used.

    Args:
        averages: What `torch.profiler.profile.key_averages` returns.
    """
    operators = [one for one in averages if not one.key.startswith("ProfilerStep")]
    is_on_gpu = any(one.self_device_time_total for one in operators)
    time_of = {
        one.key: one.self_device_time_total if is_on_gpu else one.self_cpu_time_total for one in operators
    }
    total = sum(time_of.values()) or 1
    yield f"{'time':>10} {'share':>7} {'calls':>7}  operator, by its own time on the {'GPU' if is_on_gpu else 'CPU'}"
    for one in sorted(operators, key=lambda one: -time_of[one.key])[:NUM_OPERATORS]:
        spent = time_of[one.key]
        yield f"{spent / 1000:>7.1f} ms {spent / total:>7.1%} {one.count:>7}  {one.key}"
