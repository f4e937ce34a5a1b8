"""Checks of memory and of time: a step on the meta device against the device and the host."""

import functools
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from vq.engine.doctor.case import Case
from vq.engine.doctor.findings import Finding, bytes_in_words, first_lines, ok, trouble, warning
from vq.engine.doctor.tracing import Trace
from vq.engine.evaluation.progress import duration
from vq.engine.steps.base import TrainStep
from vq.errors import ConfigError

CONTEXT = 2**30
"""What CUDA takes for itself, with its libraries; about so much."""
HEADROOM = 0.9
"""The part of the memory that a step may fill without a warning: allocators cannot use all of it."""
WORKER = 300 * 2**20
"""Memory of a worker process that it does not share, about."""
EFFICIENCY = 0.25
"""The speed of a training step, relative to the matrix product of `measured_speed`; 0.05 to 0.3 on four small pages."""
LONG = 3 * 24 * 3600
"""Seconds of a training on a CPU from which on there is a warning."""


def check_memory(case: Case) -> Iterator[Finding]:
    """The memory of a step against that of the device, and of worker processes against that of the host."""
    if case.step.error is not None:
        yield warning("memory", "not estimated, because the model cannot be built here")
        return
    if case.trace.error is not None:
        reason = " ".join(str(case.trace.error).split()).partition("; ")[0]
        yield warning(
            "memory", f"not estimated, because a step cannot be taken on the meta device: {reason[:200]}"
        )
        return
    trace: Trace = case.trace.value
    is_gpu = torch.device(case.device).type == "cuda"
    try:
        elsewhere = on_other_ranks(case.step.value.step, case.world.ranks)
    except ConfigError as error:
        yield trouble("train_step.strategy", *str(error).split("; ", 1))
        return
    needed = trace.bytes(autocast=case.options.autocast) - elsewhere + (CONTEXT if is_gpu else 0)
    if left_out := case.step.value.left_out:
        yield warning("memory", f"estimated without {first_lines(left_out)}, whose weights are missing")
    host = available_memory()
    workers = int(case.tree["train_data"].get("num_workers", 0)) * case.world.local_ranks * WORKER
    if is_gpu:
        if torch.cuda.is_available():
            yield from fits(
                case, needed, torch.cuda.get_device_properties(case.device).total_memory, "the GPU", elsewhere
            )
        if host is not None and workers > host:
            yield trouble(
                "memory", f"the worker processes take about {bytes_in_words(workers)}, and the host has "
                f"{bytes_in_words(host)} left", "lower train_data.num_workers", step=1,
            )  # fmt: skip
    elif host is not None:
        yield from fits(case, needed * case.world.local_ranks + workers, host, "the host", elsewhere)


def on_other_ranks(step: TrainStep, num_ranks: int) -> int:
    """The bytes of weights, averages and moments that a rank does not hold, because the model is divided.

    Gradients are divided too, but only once a block is done; they count whole.

    Args:
        step: After a step on the meta device, so that its optimizer has moments.
        num_ranks: The number of ranks of the training.

    Raises:
        ConfigError: If this number of ranks cannot divide the model.
    """
    optimization = step.optimization
    part = optimization.strategy.part(num_ranks)
    total = 0
    for parameter in optimization.strategy.divided(step.model):
        moments = optimization.optimizer.inner.state.get(parameter, {}).values()
        alike = [m for m in moments if isinstance(m, torch.Tensor) and m.shape == parameter.shape]
        copies = [parameter, *alike] + [parameter] * (optimization.weight_ema is not None)
        total += sum(tensor.nbytes for tensor in copies)
    return round(total * (1 - part))


def fits(case: Case, needed: int, there: int, where: str, elsewhere: int = 0) -> Iterator[Finding]:
    """Compares the memory that a step needs with the memory that there is.

    Args:
        case: The training.
        needed: Bytes.
        there: Bytes.
        where: Whose memory, in words.
        elsewhere: Bytes of weights and moments that other ranks hold.
    """
    trace: Trace = case.trace.value
    words = (
        f"a step with micro-batches of {trace.batch} needs {bytes_in_words(needed)} "
        f"({bytes_in_words(trace.held - elsewhere)} of weights and optimizer; the rest within about 15 %) of "
        f"{bytes_in_words(there)} of {where}"
    )
    cure = "lower the batch size, or raise train_step.accumulate" + (
        "" if case.options.autocast or where == "the host" else ", or use --autocast"
    )
    if needed > there:
        yield trouble("memory", words, cure, step=1)
    elif needed > HEADROOM * there:
        yield warning("memory", words, cure, step=1)
    else:
        yield ok("memory", words)


def available_memory() -> int | None:
    """The bytes of host memory that new processes can have; None where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    found = next((line for line in lines if line.startswith("MemAvailable:")), None)
    return None if found is None else int(found.split()[1]) * 1024


def step_seconds(case: Case) -> float | None:
    """A rough estimate of the seconds of a step, from its arithmetic and the measured speed; None if it is unknown."""
    if case.trace.error is not None or (case.device.startswith("cuda") and not torch.cuda.is_available()):
        return None
    trace: Trace = case.trace.value
    speed = measured_speed(case.device, torch.bfloat16 if case.options.autocast else torch.float32)
    return trace.flops / (EFFICIENCY * speed)


def check_time(case: Case) -> Iterator[Finding]:
    """The time of the whole training, roughly, on this device."""
    seconds = step_seconds(case)
    if seconds is None:
        return
    total = seconds * case.max_steps
    if not case.device.startswith("cuda") and total > LONG:
        yield warning(
            "time", f"on this CPU about {_long_time(total)} for {case.max_steps:,} steps, within a factor of 5",
            "train on a GPU, or with a smaller page (vq configs '*_emoji')", step=1,
        )  # fmt: skip
    else:
        words = f"about {duration(total)} for {case.max_steps:,} steps of {seconds:.2g} s"
        yield ok("time", f"{words}, within a factor of 5")


def _long_time(seconds: float) -> str:
    days = seconds / 86400
    return f"{days:,.0f} days" if days < 730 else f"{days / 365:,.0f} years"


@functools.cache
def measured_speed(device: str, dtype: torch.dtype) -> float:
    """Floating-point operations per second of a matrix product, the best of 0.2 seconds."""
    is_gpu = torch.device(device).type == "cuda"
    side = 4096 if is_gpu else 768
    a = torch.ones(side, side, device=device, dtype=dtype)
    best = float("inf")
    deadline = time.perf_counter() + 0.2
    while time.perf_counter() < deadline:  # the first one warms up; other programs slow some of them down
        started = time.perf_counter()
        a @ a
        if is_gpu:
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - started)
    return 2 * side**3 / best
