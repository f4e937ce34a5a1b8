"""Names the rank whose process has died, as by SIGKILL, instead of the failures that follow from it on the others."""

import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch.distributed as dist

from vq import distributed, failures
from vq.engine.loop.stopping import Stopped
from vq.errors import UserError

LEFT = "left"
"""The entry of a process that ends in an orderly way: with its work done, or with an error of its own."""

BURIAL_SECONDS = 1.0
"""How long a process whose connections are closed may take to disappear."""


class LostRankError(UserError, RuntimeError):
    """A rank of this machine has died; the message names it.

    Attributes:
        is_of_one_process: Whether this process prints the message for all.
    """

    def __init__(self, message: str, *, is_of_one_process: bool) -> None:
        super().__init__(message)
        self.is_of_one_process = is_of_one_process


class Ranks:
    """The processes of the other ranks on this machine, and whether one of them has died.

    The ranks find each other through the store of the process group, so all of them must make one. The processes of
    other machines cannot be examined.
    """

    def __init__(self) -> None:
        store = dist.distributed_c10d._get_default_store().clone()
        self.store: Any = dist.distributed_c10d.PrefixStore("vq/processes", store)
        self.own, host = distributed.rank(), socket.gethostname()
        self.store.set(str(self.own), f"{os.getpid()} {host}")
        others = [rank for rank in range(distributed.world_size()) if rank != self.own]
        entries = [entry.decode().split(" ", 1) for entry in self.store.multi_get(list(map(str, others)))]
        self.processes = {
            rank: int(entry[0]) for rank, entry in zip(others, entries, strict=True) if entry[1:] == [host]
        }

    def leave(self) -> None:
        """Tells the others that this process ends in an orderly way."""
        with suppress(Exception):  # the store has ended with torchrun, or with the first process
            self.store.set(str(self.own), LEFT)

    def lost(self) -> str:
        """A sentence that names a rank of this machine that has died; empty if there is none."""
        for rank, process in self.processes.items():
            if not _exists(process) and self._entry(rank) != LEFT:
                return (
                    f"rank {rank} (process {process} on {socket.gethostname()}) has died without a message: it was "
                    f"killed, ran out of memory or crashed; the other processes end. Start the command again, a "
                    f"training with --auto-resume"
                )
        return ""

    def speaks(self) -> bool:
        """Whether this process prints the message for all; true for the first process that asks."""
        try:
            return failures.claim_message()
        except Exception:  # the store has ended with the first process
            return self.own < min(
                (r for r, process in self.processes.items() if _exists(process)), default=self.own + 1
            )

    def _entry(self, rank: int) -> str:
        try:
            return str(self.store.get(str(rank)).decode())
        except Exception:  # as in `speaks`
            return ""


@contextmanager
def lost_ranks_named() -> Iterator[None]:
    """Inside, an error that follows from the death of another rank is replaced by one that names that rank.

    Such are the error of a collective operation, and the SIGTERM that torchrun sends to the processes that are left.
    Without a process group nothing is replaced.

    Raises:
        LostRankError: On every rank of the machine on which a rank has died.
    """
    if distributed.world_size() == 1:
        yield
        return
    ranks = Ranks()
    try:
        yield
    except (RuntimeError, Stopped) as error:
        if isinstance(error, UserError):
            raise
        # torchrun sends a signal after the death, but a connection is closed shortly before it.
        if lost := _awaited(ranks, 0.0 if isinstance(error, Stopped) else BURIAL_SECONDS):
            raise LostRankError(lost, is_of_one_process=ranks.speaks()) from error
        raise
    finally:
        ranks.leave()


def _awaited(ranks: Ranks, seconds: float) -> str:
    """What `Ranks.lost` says within this time. If it names a rank, SIGTERM is ignored from then on.

    torchrun sends it to the processes that are left, which would end before they have said why.
    """
    is_main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN) if is_main else None
    deadline = time.monotonic() + seconds
    while not (lost := ranks.lost()) and time.monotonic() < deadline:
        time.sleep(0.05)
    if is_main and not lost:
        signal.signal(signal.SIGTERM, before)
    return lost


def _exists(process: int) -> bool:
    """Whether a process of this machine runs. One that has ended and was not waited for yet does not."""
    with suppress(OSError):
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    try:
        os.kill(process, 0)  # signal 0 only asks
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
