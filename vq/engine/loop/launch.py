"""Where a command runs: device, processes, threads, precision; and its log."""

import errno
import json
import logging
import logging.handlers
import os
import platform
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist

from vq import __version__, distributed, failures
from vq.config import write_and_keep
from vq.engine.loop.heartbeat import heartbeat, watched_parent
from vq.engine.loop.lost_ranks import lost_ranks_named
from vq.errors import UserError
from vq.files import why
from vq.text import printable, without_secrets

logger = logging.getLogger(__name__)
TIMEOUT_SECONDS = 600.0
"""Default time after which a rank without a sign of life ends the run."""

RELEASE_SECONDS = 0.2
"""How long the threads of gloo may take to release their last tensors: torch aborts the process if one of them does so
while the interpreter ends, and models that were wrapped keep these threads alive until then (seen with torch 2.15)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What a command runs on.

    Attributes:
        device: The device of this rank.
        rank: The number of this rank.
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


class LaunchError(UserError, RuntimeError):
    """A device that does not exist, or a process group that cannot be joined."""


class UnreachableError(LaunchError):
    """Nobody listens where the processes are to meet."""

    is_of_one_process = True


@contextmanager
def launched(
    *, device: str | None, autocast: bool = False, timeout: float = TIMEOUT_SECONDS
) -> Iterator[Machine]:
    """Joins the process group that torchrun prepared, if any, and leaves it at the end.

    A process of torchrun ends when torchrun is gone, and all of them end when one gives no sign of life.

    Args:
        device: `cuda`, `cpu` or None for CUDA if it is available. Ranks on CUDA use nccl, others gloo.
        autocast: Whether the networks run in bfloat16; kept in the `Machine`.
        timeout: Seconds after which a rank that gives no sign of life ends the command.

    Raises:
        LaunchError: If the device does not exist here, or the process group cannot be joined.
    """
    if not timeout > 0:
        raise LaunchError(f"--timeout: expected seconds above 0, got {timeout:g}")
    kind = ("cuda" if torch.cuda.is_available() else "cpu") if device is None else device
    local_rank, world_size = _number("LOCAL_RANK", 0), _number("WORLD_SIZE", 1)
    if kind == "cuda":
        kind = f"cuda:{local_rank}"
    _check_device(kind, device)
    if kind.startswith("cuda"):
        torch.cuda.set_device(kind)
    # torchrun gives each process one thread; without it torch takes every core in every process.
    if world_size > 1 or "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, _cores() // distributed.local_world_size()))
    with watched_parent(), _joined(kind, world_size, timeout):
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


@contextmanager
def _joined(kind: str, world_size: int, timeout: float) -> Iterator[None]:
    """Inside, this process belongs to the process group."""
    if world_size == 1:
        yield
        return
    _wait_for_meeting(world_size, timeout)
    # Longer than that of the heartbeat, whose error names the missing rank.
    patience = timedelta(seconds=1.25 * timeout + 10)
    try:
        backend = "nccl" if kind.startswith("cuda") else "gloo"
        if restarts := _number("TORCHELASTIC_RESTART_COUNT", 0):
            # torch would look into the store of the start that has failed, and may wait for its processes.
            store = dist.distributed_c10d.PrefixStore(f"vq/restart_{restarts}", failures.torchrun_store())
            store.set_timeout(patience)
            rank = _number("RANK", 0)
            dist.init_process_group(backend, store=store, rank=rank, world_size=world_size, timeout=patience)
        else:
            dist.init_process_group(backend, timeout=patience)
    except (RuntimeError, ValueError) as error:
        address = f"{os.environ.get('MASTER_ADDR', '?')}:{os.environ.get('MASTER_PORT', '?')}"
        raise LaunchError(
            f"rank {os.environ.get('RANK', '?')} of {world_size} cannot join the others at {address}: {error}. "
            f"Start several processes with torchrun --standalone, or give each job a MASTER_PORT of its own"
        ) from error
    try:
        with lost_ranks_named(), heartbeat(timeout):
            yield
    finally:
        dist.destroy_process_group()
        if backend == "gloo":
            time.sleep(RELEASE_SECONDS)


def _wait_for_meeting(world_size: int, timeout: float) -> None:
    """Returns once somebody listens at MASTER_ADDR and MASTER_PORT, which the first process does if torchrun does not.

    Raises:
        UnreachableError: If nobody does within `timeout` seconds.
    """
    rank, address = _number("RANK", 0), os.environ.get("MASTER_ADDR")
    if address is None or (rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"):
        return
    port, deadline = _number("MASTER_PORT", 0), time.monotonic() + timeout
    while True:
        try:
            with socket.create_connection((address, port), timeout=max(0.1, deadline - time.monotonic())):
                return
        except OSError as error:
            if time.monotonic() > deadline:
                raise UnreachableError(
                    f"rank {rank} of {world_size}: expected the first process, or torchrun, at {address}:{port} "
                    f"(MASTER_ADDR, MASTER_PORT), got no connection for {timeout:g} s (--timeout): {why(error)}; start "
                    f"it, correct the address, or open the port in the firewall"
                ) from error
        time.sleep(min(0.2, timeout))


def _number(variable: str, default: int) -> int:
    text = os.environ.get(variable, str(default))
    if not text.isdecimal():
        raise LaunchError(f"the environment variable {variable}: expected a number, got {text!r}")
    return int(text)


def _check_device(kind: str, given: str | None) -> None:
    """Refuses a device on which no tensor can be created."""
    place = f"device {kind}" if given is None else f"--device {printable(given) or repr(given)}"
    try:
        if torch.device(kind).type == "meta":
            raise LaunchError(f"{place}: the meta device computes nothing; use cuda or cpu")
        if kind.startswith("cuda") and not torch.cuda.is_available():
            raise LaunchError(
                f"{place}: there is no GPU that torch {torch.__version__} can use; use --device cpu"
            )
        torch.zeros(1, device=kind).add_(1)
    except (RuntimeError, AssertionError, NotImplementedError, ImportError) as error:
        if isinstance(error, LaunchError):
            raise
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise LaunchError(
            f"{place}: expected cuda, cpu, or another device of this machine, got: {reason}"
        ) from error


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def open_log(path: Path | None, *, is_held: bool = False) -> None:
    """Sends the project's log to the console and, if given, to a file, on rank 0; other ranks log errors only.

    Args:
        path: The file; lines are appended, each with its date and time.
        is_held: Hold the file's lines back until `release_log`; without that call they are never written.
    """
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
        handlers.append(_LogFile(path))
        if not is_held:
            path.touch()
    for handler in handlers:
        is_file = isinstance(handler, _LogFile)
        datefmt = "%Y-%m-%d %H:%M:%S" if is_file else "%H:%M:%S"
        handler.setFormatter(_Lines("%(asctime)s %(message)s", datefmt=datefmt))
        root.addHandler(_Held(handler) if is_file and is_held else handler)


def release_log() -> None:
    """Writes the lines that were held back, and from now on each line at once."""
    root = logging.getLogger("vq")
    for held in [handler for handler in root.handlers if isinstance(handler, _Held)]:
        root.removeHandler(held)
        root.addHandler(held.let_go())


class _Lines(logging.Formatter):
    """Shows names and errors from outside as text: they cannot start a line or send control codes to the terminal.

    What looks like a key, a token or a password is hidden.
    """

    def format(self, record: logging.LogRecord) -> str:
        """The line of a record, or its lines where a message of this project has several."""
        if isinstance(record.args, tuple):
            record = logging.makeLogRecord({**vars(record), "args": tuple(map(_as_text, record.args))})
        return "\n".join(map(printable, without_secrets(super().format(record)).split("\n")))


def _as_text(argument: object) -> object:
    """A message of this project keeps its lines; a name or a path becomes one line."""
    if isinstance(argument, UserError):
        return str(argument)
    return printable(str(argument)) if isinstance(argument, str | Path | BaseException) else argument


class _Held(logging.handlers.MemoryHandler):
    """Holds the lines of a log back."""

    def __init__(self, handler: logging.Handler) -> None:
        super().__init__(2**16, logging.CRITICAL + 1, handler, flushOnClose=False)

    def shouldFlush(self, record: logging.LogRecord) -> bool:  # noqa: N802 - the name is logging's
        """Never: only `let_go` writes."""
        return False

    def let_go(self) -> logging.Handler:
        """Writes the lines, and returns the handler for all further ones."""
        handler = self.target
        assert handler is not None
        self.flush()
        self.close()
        return handler


class _LogFile(logging.Handler):
    """Appends each line to a file. While the disk has no room, lines are kept in memory, and the console says so once.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path.absolute()
        self.kept: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Writes the lines that are kept and this one, all or none."""
        self.kept.append(self.format(record) + "\n")
        try:
            self._write("".join(self.kept).encode("utf-8", "backslashreplace"))
        except OSError as error:
            if len(self.kept) == 1:
                sys.stderr.write(
                    f"{printable(str(self.path))}: {why(error)}; lines of the log are kept in memory until they can "
                    f"be written\n"
                )
            return
        self.kept.clear()

    def _write(self, content: bytes) -> None:
        with self.path.open("ab", buffering=0) as file:
            size = file.tell()
            try:
                if file.write(content) != len(content):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            except OSError:
                with suppress(OSError):  # what is no regular file has no size
                    file.truncate(size)
                raise


class _Console(logging.Handler):
    """Writes to the present `sys.stderr`: a progress bar replaces it, so that lines appear above the bar."""

    def emit(self, record: logging.LogRecord) -> None:
        sys.stderr.write(self.format(record) + "\n")


def close_log() -> None:
    """Closes the log."""
    root = logging.getLogger("vq")
    for handler in list(root.handlers):
        root.removeHandler(handler)
        handler.close()


def write_environment(path: Path, machine: Machine) -> None:
    """Records how a run was started: command, versions, hardware, commit; without keys, tokens and passwords."""
    separator = "\x1f"  # counts as a space
    command = without_secrets(separator.join([sys.executable, *sys.argv])).split(separator)
    record = {
        "command": command,
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
