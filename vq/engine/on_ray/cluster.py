"""A Ray cluster: one that exists already, or one that is started on this machine for a single command."""

import logging
import os
import secrets
import signal
import socket
import tempfile
import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

from vq import packages
from vq.engine.loop.stopping import SIGNALS
from vq.engine.on_ray.pool import Workers
from vq.errors import UserError
from vq.files import why
from vq.text import printable

logger = logging.getLogger(__name__)

CONNECT_SECONDS = 10.0
"""Time in which the cluster must accept a connection."""

QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DATA_LOG_LEVEL": "ERROR"}
LOCAL = {
    **QUIET,
    # The name is misleading: without "clusters", Ray listens on the loopback interface only.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    # Ray reports an error for each worker whose arguments are large, because they might be lost; here they are not.
    "RAY_BACKEND_LOG_LEVEL": "fatal",
}
"""Environment variables for Ray, and for a cluster on this machine; those that the user has set take precedence."""


class ClusterError(UserError, RuntimeError):
    """A Ray cluster that cannot be reached, or that lacks what the workers need."""


@contextmanager
def ray_workers(
    *, address: str | None, count: int | None, device: str | None, autocast: bool
) -> Iterator[Workers]:
    """Joins a Ray cluster, or starts one on this machine, and leaves or ends it when the block ends.

    Args:
        address: `HOST:PORT` of a cluster, `auto` for the one that runs on this machine, or None to start one.
        count: The number of workers; by default one per GPU of the cluster, or one per CPU on the CPU.
        device: `cpu` or `cuda`; by default `cuda` if the cluster has GPUs.
        autocast: Whether the networks run in bfloat16.

    Raises:
        MissingPackageError: If Ray is not installed.
        ClusterError: If the cluster cannot be reached, or has no such device.
    """
    with ExitStack() as stack:
        stack.enter_context(_environment(QUIET if address else _local_variables()))
        ray = packages.require("ray", needed_by="--engine ray")
        stack.callback(ray.shutdown)
        if address is None:
            kind = device or ("cuda" if torch.cuda.is_available() else "cpu")
            _start(ray, stack, kind, count)
        else:
            _join(ray, address)
        workers = _workers(ray, count=count, device=device, autocast=autocast)
        logger.info("%s, of Ray %s", workers, ray.__version__)
        yield workers


def _workers(ray: Any, *, count: int | None, device: str | None, autocast: bool) -> Workers:
    """The workers that the cluster has room for."""
    resources = ray.cluster_resources()
    kind = device or ("cuda" if resources.get("GPU", 0) >= 1 else "cpu")
    room = int(resources.get("GPU" if kind == "cuda" else "CPU", 0))
    if room < 1:
        unit = "GPU" if kind == "cuda" else "CPU"
        raise ClusterError(
            f"--engine ray: expected a cluster with at least one {unit}, got none; add a node"
            + (", or use --device cpu" if kind == "cuda" else "")
        )
    if count is not None and count > room:
        raise ClusterError(
            f"--ray-workers {count}: expected at most the {room} {'GPUs' if kind == 'cuda' else 'CPUs'} of the "
            f"cluster, one for each worker; lower it, or add nodes"
        )
    return Workers(count=count or room, device=kind, autocast=autocast)


def _local_variables() -> dict[str, str]:
    has_token = {"RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & os.environ.keys()
    # Without a token of its own, Ray would write one to the user's home folder.
    return LOCAL if has_token else {**LOCAL, "RAY_AUTH_TOKEN": secrets.token_hex(32)}


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    """Inside, these environment variables have values, unless they had some before."""
    added = {name: value for name, value in values.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            del os.environ[name]


def _start(ray: Any, stack: ExitStack, kind: str, count: int | None) -> None:
    """Starts a cluster on this machine, in a folder of its own, which is removed at the end."""
    gpus = torch.cuda.device_count() if kind == "cuda" else 0
    if kind == "cuda" and not gpus:
        raise ClusterError("--device cuda: there is no GPU here; use --device cpu, or --ray-address")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    folder = tempfile.TemporaryDirectory(prefix="vq_ray_", ignore_cleanup_errors=True)
    shut_down = stack.pop_all()  # the folder is removed after the cluster has ended
    stack.enter_context(folder)
    stack.push(shut_down)
    _init(
        ray,
        address="local",
        num_cpus=count or cores if kind == "cpu" else cores,
        num_gpus=gpus,
        include_dashboard=False,
        _temp_dir=folder.name,
    )


def _join(ray: Any, address: str) -> None:
    """Joins a cluster that runs already.

    Raises:
        ClusterError: If there is none.
    """
    if address != "auto":
        host, _, port = address.rpartition(":")
        try:
            socket.create_connection((host, int(port)), timeout=CONNECT_SECONDS).close()
        except OSError as error:
            raise ClusterError(
                f"--ray-address {printable(address)}: expected a Ray cluster there, got no connection: {why(error)}; "
                f"start it with `ray start --head`, or leave the address out to start one on this machine"
            ) from error
    try:
        _init(ray, address=address)
    except (ConnectionError, RuntimeError, ray.exceptions.RayError) as error:
        reason = printable((str(error).strip().splitlines() or [type(error).__name__])[0])
        raise ClusterError(
            f"--ray-address {printable(address)}: expected a Ray cluster that this process may join, got: {reason}; "
            f"start it with `ray start --head`, or leave the address out to start one on this machine"
        ) from error


def _init(ray: Any, **arguments: Any) -> None:
    """Calls `ray.init`, without its own signal handlers and log lines."""
    is_main = threading.current_thread() is threading.main_thread()
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ray.init(log_to_driver=False, logging_level=logging.ERROR, **arguments)
    if is_main:
        for number, handler in handlers.items():
            signal.signal(number, handler)
