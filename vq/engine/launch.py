"""Where a command runs: device, processes, threads, precision; said aloud before work begins."""

import json
import logging
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist

from vq import __version__, distributed
from vq.config import write_and_keep

logger = logging.getLogger(__name__)
TIMEOUT = timedelta(minutes=10)


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What a command runs with.

    Attributes:
        device: This rank's.
        rank: Its number.
        world_size: Processes over all machines.
        threads: CPU threads of this process.
        autocast: Whether the networks run in bfloat16.
    """

    device: str
    rank: int
    world_size: int
    threads: int
    autocast: bool

    def __str__(self) -> str:
        precision = "bfloat16 autocast" if self.autocast else "float32"
        ranks = f"{self.world_size} process" + ("es" if self.world_size > 1 else "")
        return f"{self.device}, {precision}, {ranks} x {self.threads} threads, torch {torch.__version__}"


@contextmanager
def launched(*, device: str | None, autocast: bool = False) -> Iterator[Machine]:
    """Joins the process group that torchrun prepared, if any, and leaves it at the end.

    Args:
        device: `cuda`, `cpu` or None for what there is. Ranks on CUDA use nccl, others gloo.
        autocast: Passed on.
    """
    kind = device or ("cuda" if torch.cuda.is_available() else "cpu")
    local_rank, world_size = int(os.environ.get("LOCAL_RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    if kind == "cuda":
        kind = f"cuda:{local_rank}"
        torch.cuda.set_device(local_rank)
    # torchrun gives each process one thread; without it torch takes every core in every process.
    if world_size > 1 or "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, _cores() // distributed.local_world_size()))
    if world_size > 1:
        dist.init_process_group("nccl" if kind.startswith("cuda") else "gloo", timeout=TIMEOUT)
    try:
        yield Machine(
            device=kind,
            rank=distributed.rank(),
            world_size=world_size,
            threads=torch.get_num_threads(),
            autocast=autocast,
        )
    finally:
        close_log()
        if dist.is_initialized():
            dist.destroy_process_group()


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def open_log(path: Path | None) -> None:
    """Sends the project's log to the console and, if given, to a file; rank 0 only, others stay quiet."""
    close_log()
    root = logging.getLogger("vq")
    root.propagate = False
    if distributed.rank() > 0:
        root.setLevel(logging.ERROR)
        return
    root.setLevel(logging.INFO)
    handlers: list[logging.Handler] = [_Console()]
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        handlers.append(logging.FileHandler(path, encoding="utf-8"))
    for handler in handlers:
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", datefmt="%H:%M:%S"))
        root.addHandler(handler)


class _Console(logging.Handler):
    """Writes to whatever stderr is at the moment: a progress bar redirects it, to keep lines above itself."""

    def emit(self, record: logging.LogRecord) -> None:
        sys.stderr.write(self.format(record) + "\n")


def close_log() -> None:
    """Ends what `open_log` began."""
    root = logging.getLogger("vq")
    for handler in list(root.handlers):
        root.removeHandler(handler)
        handler.close()


def write_environment(path: Path, machine: Machine) -> None:
    """Records what a run was started with: command, versions, hardware, commit."""
    record = {
        "command": [sys.executable, *sys.argv],
        "machine": asdict(machine),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cores": _cores(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "versions": {"vq": __version__, "torch": torch.__version__},
        "commit": _git("rev-parse", "HEAD"),
        "changed_files": _git("status", "--porcelain"),
    }
    write_and_keep(path, json.dumps(record, indent=2))


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
