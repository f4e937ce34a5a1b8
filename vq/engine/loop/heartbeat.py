"""Ends a training when one of its ranks no longer responds, or when torchrun is gone."""

import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch.distributed as dist

from vq import distributed, failures
from vq.engine.loop.lost_ranks import Ranks

logger = logging.getLogger(__name__)
PARENT_SECONDS = 0.5
"""How often a rank checks that torchrun still exists."""

UNWINDING_SECONDS = 3.0
"""How long a rank may take to end by its own error after another rank has died; one that waits for a GPU never does."""


@contextmanager
def watched_parent() -> Iterator[None]:
    """Inside, a process that torchrun started ends at once when torchrun was killed or crashed.

    Otherwise it would continue to train, and write into the same folder as the job that replaces it.
    """
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        yield
        return
    parent, ended = os.getppid(), threading.Event()

    def watch() -> None:
        while not ended.wait(PARENT_SECONDS):
            if os.getppid() != parent:
                _end(f"torchrun (process {parent}) is gone; rank {os.environ.get('RANK')} ends", 1)

    threading.Thread(target=watch, name="watch parent", daemon=True).start()
    try:
        yield
    finally:
        ended.set()


@contextmanager
def heartbeat(timeout: float) -> Iterator[None]:
    """Inside, the run ends with exit code 2 and an error that names a rank which gives no sign of life.

    Every rank increments a counter in the process group's store, from a thread of its own. Rank 0 watches the others,
    and rank 1 watches rank 0. A rank that waits in a collective still gives signs of life; one that is stopped, or
    whose machine hangs, does not. Every rank also notices when another rank of its machine has died. Needs a process
    group.

    Args:
        timeout: Seconds without a sign of life after which the run ends.
    """
    ended = threading.Event()
    beat = _Heart(timeout, ended)
    thread = threading.Thread(target=beat.run, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(timeout=2 * beat.interval)


class _Heart:
    """Gives the signs of life of this rank, and looks for those of others."""

    def __init__(self, timeout: float, ended: threading.Event) -> None:
        self.timeout, self.ended, self.interval = timeout, ended, max(0.2, min(5.0, timeout / 5))
        own, count = distributed.rank(), distributed.world_size()
        self.own, self.others = own, list(range(1, count)) if own == 0 else [0] if own == 1 else []
        # A separate connection: the main thread may wait in the store for a long time.
        store = dist.distributed_c10d._get_default_store().clone()
        self.store = dist.distributed_c10d.PrefixStore("vq/heartbeat", store)
        self.name = f"{os.getpid()} {socket.gethostname()}"
        self.ranks = Ranks()

    def run(self) -> None:
        count, woke_at = 0, time.monotonic()
        signs: dict[int, tuple[str, float]] = {}
        while not self.ended.wait(self.interval):
            now = time.monotonic()
            if now - woke_at > 2 * self.interval + 1:  # this process itself was stopped
                signs = {rank: (sign, now) for rank, (sign, _) in signs.items()}
            woke_at, count = now, count + 1
            try:
                self.store.set(str(self.own), f"{count} {self.name}")
                for rank in self.others:
                    if self.store.check([str(rank)]):
                        sign = self.store.get(str(rank)).decode()
                        if rank not in signs or signs[rank][0] != sign:
                            signs[rank] = sign, now
            except Exception:  # the store is gone: the run has ended, or is about to
                return
            for rank, (sign, since) in signs.items():
                if now - since > self.timeout and not self.ended.is_set():
                    self._give_up(rank, sign)
            if (lost := self.ranks.lost()) and not self.ended.wait(UNWINDING_SECONDS):
                _end(f"error: {lost}" if self.ranks.speaks() else "", 2)

    def _give_up(self, rank: int, sign: str) -> None:
        _, pid, host = sign.split(" ", 2)
        with suppress(Exception):  # the store is gone
            failures.claim_message()  # the other ranks need not say that this one has been killed
        if host == socket.gethostname() and _is_sibling(int(pid)):
            # A stopped process ignores the SIGTERM that torchrun sends; torchrun would wait for it for 30 s.
            os.kill(int(pid), signal.SIGKILL)
        _end(
            f"error: rank {rank} (process {pid} on {host}) has given no sign of life for {self.timeout:.0f} s "
            f"(--timeout): it is stopped, or its machine hangs; the run ends. Continue it with --auto-resume",
            2,
        )


def _is_sibling(pid: int) -> bool:
    """Whether a process of this machine has the same parent as this one."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return False
    return int(fields[1]) == os.getppid()


def _end(message: str, code: int) -> None:
    """Ends this process, whatever its main thread is waiting for, with a message unless it is empty."""
    try:
        if not message:
            return
        logger.error("%s", message)
        if distributed.rank() > 0 or not logging.getLogger("vq").handlers:
            sys.stderr.write(f"{message}\n")
            sys.stderr.flush()
    finally:
        os._exit(code)
