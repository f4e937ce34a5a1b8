"""Forks gloo ranks from a process that runs on one thread; the rank scripts use it, each a program of its own."""

import faulthandler
import os
import sys
import tempfile
from collections.abc import Callable
from datetime import timedelta
from multiprocessing import get_context

import torch
import torch.distributed as dist


def run_on_ranks(work: Callable[[int, int], None], *sizes: int) -> int:
    """Runs `work(rank, size)` on `size` ranks, for each size in turn; returns 1 as soon as a rank fails, else 0.

    What the program has computed before is there in every rank.
    """
    context = get_context("fork")
    for size in sizes:
        with tempfile.TemporaryDirectory() as folder:
            ranks = [
                context.Process(target=_join, args=(work, rank, size, f"{folder}/store"))
                for rank in range(size)
            ]
            for process in ranks:
                process.start()
            for process in ranks:
                process.join()
            failed = {rank: process.exitcode for rank, process in enumerate(ranks) if process.exitcode}
            if failed:
                sys.stderr.write(f"exit codes by rank: {failed}\n")
                return 1
    return 0


def _join(work: Callable[[int, int], None], rank: int, size: int, store: str) -> None:
    faulthandler.enable()  # a rank that crashes shows where
    torch.set_num_threads(1)
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    dist.init_process_group(
        "gloo", init_method=f"file://{store}", rank=rank, world_size=size, timeout=timedelta(seconds=100)
    )
    work(rank, size)
    dist.barrier()
    dist.destroy_process_group()
