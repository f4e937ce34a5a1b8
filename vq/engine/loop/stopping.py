"""Stopping before the work is done: a signal asked for it, or the time limit is reached."""

import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

import torch
import torch.distributed as dist

from vq import distributed
from vq.files import write_atomically
from vq.text import printable, without_secrets

SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1") if hasattr(signal, name)
)
"""The signals that ask a command to end; not all systems have each."""

Handler = Callable[[int, FrameType | None], Any] | int | signal.Handlers | None
"""What `signal.signal` takes and returns."""

ENDED = "run.ended"
"""The file in a run folder that states why its last training ended early."""

REPEAT_SECONDS = 2.0
"""Under torchrun, a signal within this time of the first is a copy of it: schedulers signal every process of a job,
and torchrun then passes its own copy on."""


class Stopped(SystemExit):
    """Ends a command after a signal, with exit code 128 + signal.

    Like every `SystemExit` it passes through `except Exception`; a command needs no handler for it.

    Args:
        number: The signal.
    """

    def __init__(self, number: int) -> None:
        self.signal = signal.Signals(number)
        super().__init__(128 + number)

    def __str__(self) -> str:
        return f"stopped by {self.signal.name}"


@contextmanager
def noted(run: Path) -> Iterator[None]:
    """If an error or a signal ends the training inside, `run.ended` states which, until the next training begins."""
    file = run / ENDED
    if distributed.rank() == 0:
        file.unlink(missing_ok=True)
    try:
        yield
    except BaseException as error:
        reason = (str(error).splitlines() or [""])[0] or type(error).__name__
        if distributed.rank() == 0:
            with suppress(OSError):  # a full disk, for example: the first error matters more
                write_atomically(file, f"{printable(without_secrets(reason))}\n")
        raise


class StopRequest:
    """Inside its `with`, SIGTERM, SIGINT, SIGHUP and SIGUSR1 request a stop instead of killing the process.

    The first signal sets `requested`; the work continues until the code that owns the loop checks it, saves what it
    has, and ends with `exit_code`. A second signal ends the process at once with 128 + its number. SIGTERM, SIGHUP and
    SIGUSR1 stay ignored if they were ignored before the `with`, as SIGHUP is under `nohup`. Forked children, such as
    the workers of a data loader, ignore all of them and leave the decision to their parent.

    There are two ways to use it, which may be combined::

        with StopRequest() as stop:
            for shard in shards:
                write(shard)                # is always finished
                if stop.requested:
                    raise stop.error()      # a Stopped, which is a SystemExit with the right code

        with StopRequest() as stop, stop.at_once():
            measure()                       # a signal raises Stopped here; `finally` and `with` clean up

    The second form suits work that leaves nothing half-written when an exception passes through it. Outside the main
    thread, where Python allows no handlers, nothing is caught and `requested` stays False.

    Attributes:
        signal: The first signal that was received; None if there was none.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._is_at_once = False
        self._asked_at = math.inf
        self._previous: dict[int, Handler] = {}
        self._process = os.getpid()

    @property
    def requested(self) -> bool:
        """Whether a signal was received."""
        return self.signal is not None

    @property
    def exit_code(self) -> int:
        """128 + the signal; 0 if none was received."""
        return 0 if self.signal is None else 128 + self.signal

    def error(self) -> Stopped:
        """The exception to raise in order to end; only after a signal was received."""
        if self.signal is None:
            raise RuntimeError(
                "StopRequest.error: expected a signal, but none was received; check `requested` first"
            )
        return Stopped(self.signal)

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Inside, a signal raises `Stopped` at once; one that was received before raises it on entry.

        Native code that a signal interrupts may drop the `Stopped` or raise an error of its own in its place, as
        safetensors does while it reads a file. After a signal, the block therefore ends with `Stopped` in any case.
        """
        was, self._is_at_once = self._is_at_once, True
        try:
            if self.requested:
                raise self.error()
            yield
            if self.requested:
                raise self.error()
        except Exception as error:
            if self.requested:
                raise self.error() from error
            raise
        finally:
            self._is_at_once = was

    def __enter__(self) -> "StopRequest":
        self._process = os.getpid()
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                # `nohup` ignores SIGHUP on purpose; shells ignore SIGINT for any job in the background.
                if number == signal.SIGINT or signal.getsignal(number) is not signal.SIG_IGN:
                    self._previous[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            if signal.getsignal(number) == self._on_signal:  # else another one was set inside, and stays
                signal.signal(number, handler)
        self._previous = {}

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:
            return
        now = time.monotonic()
        if self.requested:
            is_copy = "TORCHELASTIC_RUN_ID" in os.environ and now - self._asked_at < REPEAT_SECONDS
            if not is_copy:
                sys.stderr.write(f"second signal ({signal.Signals(number).name}): ending at once\n")
                sys.stderr.flush()
                os._exit(128 + number)
            return
        self.signal, self._asked_at = signal.Signals(number), now
        if self._is_at_once:
            raise self.error()


class StopDecision:
    """Whether a training ends before its last step: its time is over, or one of its ranks received a signal.

    All ranks have to end after the same step. After every step each rank contributes its wish to an asynchronous
    reduction on the CPU (gloo), which runs beside the next step, so that no rank waits for a GPU. With several ranks
    the result is therefore known one step later.

    Args:
        stop: What catches the signals.
        max_minutes: End after so long; None for no limit.
    """

    def __init__(self, stop: StopRequest, max_minutes: float | None = None) -> None:
        self.stop, self.max_minutes = stop, max_minutes
        self.deadline = math.inf if max_minutes is None else time.monotonic() + 60 * max_minutes
        self._group: Any = dist.new_group(backend="gloo") if distributed.world_size() > 1 else None
        self._pending: tuple[dist.Work, torch.Tensor] | None = None
        self._signal: int | None = None

    def after_step(self, *, may_time_out: bool) -> str:
        """The reason to end after this step; empty to continue. With several ranks it is that of the step before.

        Args:
            may_time_out: Whether the time limit counts at this step.
        """
        wish = self._wish(may_time_out=may_time_out)
        if self._group is None:
            return self._reason(wish)
        answer = self._collect()
        self._send(wish)
        return self._reason(answer)

    def now(self) -> str:
        """The reason to end now, by the present wishes of all ranks; every rank waits for the others."""
        if self._group is None:
            return self._reason(self._wish(may_time_out=False))
        earlier = self._collect()
        self._send(self._wish(may_time_out=False))
        return self._reason(max(earlier, self._collect()))

    def raise_if_stopped(self) -> None:
        """Raises `Stopped` if the decision was to end because of a signal."""
        if self._signal is not None:
            raise Stopped(self._signal)

    def _wish(self, *, may_time_out: bool) -> int:
        """0: continue; 1: the time is over; 2 + number: a signal."""
        if self.stop.signal is not None:
            return 2 + self.stop.signal
        return int(may_time_out and time.monotonic() > self.deadline)

    def _reason(self, wish: int) -> str:
        if wish > 1:
            self._signal = wish - 2
            return f"{signal.Signals(self._signal).name} asked for it"
        return f"{self.max_minutes} minutes are over" if wish else ""

    def _send(self, wish: int) -> None:
        tensor = torch.tensor([wish], dtype=torch.int32, device="cpu")
        work = dist.all_reduce(tensor, op=dist.ReduceOp.MAX, group=self._group, async_op=True)
        assert work is not None
        self._pending = work, tensor

    def _collect(self) -> int:
        """The largest wish of the last reduction; 0 before the first."""
        if self._pending is None:
            return 0
        work, tensor = self._pending
        self._pending = None
        work.wait()
        return int(tensor)
