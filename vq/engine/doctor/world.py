"""Checks of processes, worker processes and shared memory."""

import os
from collections.abc import Iterator
from pathlib import Path

from vq.data import ImageLoader
from vq.engine.doctor.building import FAULTS
from vq.engine.doctor.case import Case
from vq.engine.doctor.findings import Finding, bytes_in_words, ok, trouble, warning

PREFETCHED = 2
"""The batches that each worker process prepares in advance, torch's default."""
SHARED_MEMORY = Path("/dev/shm")


def check_environment(case: Case) -> Iterator[Finding]:
    """Whether the variables of torchrun are numbers, and complete."""
    for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE", "RANK", "LOCAL_RANK"):
        text = os.environ.get(name, "0")
        if not text.isdecimal():
            yield trouble(
                name, f"the environment variable is {text!r}, expected a number", "start with torchrun"
            )
    if case.world.ranks > 1:
        missing = [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
        if missing:
            yield trouble(
                "WORLD_SIZE", f"says {case.world.ranks} processes, but {', '.join(missing)} is not set",
                "start with torchrun, or unset WORLD_SIZE",
            )  # fmt: skip


def check_batches(case: Case) -> Iterator[Finding]:
    """Whether the batches divide evenly into ranks and micro-batches."""
    ranks, parts = case.world.ranks, case.world.ranks * case.accumulate
    total = int(case.tree["train_data"]["batch_size"])
    if total % parts:
        yield trouble(
            "train_data.batch_size",
            f"{total} images do not divide into {ranks} rank(s) x {case.accumulate} micro-batch(es)",
            f"use a multiple of {parts}, such as {max(1, round(total / parts)) * parts}",
        )  # fmt: skip
    else:
        words = f"{ranks} process{'es' if ranks > 1 else ''} x {case.accumulate} micro-batch"
        yield ok(
            "batch", f"{total} per step: {words}{'es' if case.accumulate > 1 else ''} of {case.micro_batch}"
        )
    if (val := int(case.tree["val_data"]["batch_size"])) % ranks:
        yield trouble(
            "val_data.batch_size", f"{val} images do not divide into {ranks} ranks",
            f"use a multiple of {ranks}", step=0,
        )  # fmt: skip


def check_workers(case: Case) -> Iterator[Finding]:
    """The worker processes of the loaders against the cores of this machine."""
    workers = {name: int(case.tree[name].get("num_workers", 0)) for name in ("train_data", "val_data")}
    for name, count in workers.items():
        if count * case.world.local_ranks > case.world.cores:
            yield warning(
                f"{name}.num_workers",
                f"{count} workers x {case.world.local_ranks} process(es) on {case.world.cores} cores compete for them",
                f"{max(0, case.world.cores // case.world.local_ranks)} are enough", step=1,
            )  # fmt: skip
    is_gpu = case.device.startswith("cuda")
    if is_gpu and workers["train_data"] == 0 and isinstance(case.train_data.value, ImageLoader):
        yield warning(
            "train_data.num_workers", "0: the GPU waits while the main process decodes images",
            f"set it to {max(1, case.world.cores // case.world.local_ranks)}", step=1,
        )  # fmt: skip


def check_shared_memory(case: Case) -> Iterator[Finding]:
    """Whether the shared memory holds the batches that worker processes prepare in advance."""
    if not SHARED_MEMORY.is_dir():
        return
    status = os.statvfs(SHARED_MEMORY)
    yield from shared_memory(case, status.f_bavail * status.f_frsize)


def shared_memory(case: Case, free: int) -> Iterator[Finding]:
    """Compares the batches in advance with the free bytes of the shared memory."""
    needed = 0
    for name, loader in case.loaders().items():
        workers = int(case.tree[name].get("num_workers", 0))
        if not workers or not isinstance(loader, ImageLoader):
            continue
        try:
            image = loader.fixed_batch(1)["image"]
        except FAULTS:
            continue
        batch = case.micro_batch if name == "train_data" else loader.batch_size // case.world.ranks
        needed += image.nbytes * batch * workers * PREFETCHED * case.world.local_ranks
    if needed > free:
        yield trouble(
            "shared memory",
            f"{SHARED_MEMORY} has {bytes_in_words(free)} free, and prefetched batches take {bytes_in_words(needed)}",
            "lower num_workers, or give a container more (docker run --shm-size)", step=1,
        )  # fmt: skip
    elif needed:
        yield ok(
            "shared memory", f"prefetched batches take {bytes_in_words(needed)} of {bytes_in_words(free)}"
        )
