"""Runs all checks of a case."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from vq import pretrained
from vq.engine.doctor import (
    data,
    disk,
    environment,
    memory,
    overlap,
    rank_memory,
    run_folder,
    schedule,
    weights,
    world,
)
from vq.engine.doctor.case import Case
from vq.engine.doctor.findings import Check, Finding, ordered, trouble, warning

SECTIONS = ("train_data", "val_data", "train_step", "trainer", "evaluator", "checkpointer")
"""The sections that every page of a training has."""

MACHINE: list[Check] = [
    environment.check_versions,
    environment.check_torchvision,
    environment.check_device,
    environment.check_precision,
    environment.check_tuning,
    environment.check_loggers,
    world.check_environment,
]
"""The checks that need no config."""

CONFIG: list[Check] = [
    weights.check_weights,
    weights.check_given_weights,
    data.check_sets,
    data.check_sizes,
    data.check_images_of_sets,
    data.check_reading,
    data.check_classes,
    overlap.check_overlap,
    world.check_batches,
    world.check_workers,
    world.check_shared_memory,
    schedule.check_epochs,
    schedule.check_events,
    schedule.check_warmup,
    schedule.check_rates,
    memory.check_memory,
    rank_memory.check_ranks,
    memory.check_time,
    disk.check_store,
    disk.check_disk,
]
"""The checks of a config."""

RUN: list[Check] = [
    run_folder.check_lock,
    run_folder.check_leftovers,
    run_folder.check_checkpoints,
    run_folder.check_stored_config,
]
"""The checks of the folder of a run."""


def examine(case: Case) -> list[Finding]:
    """Runs all checks of a case; nothing is trained or written.

    Returns:
        All findings, those that a training would show latest first.
    """
    missing = [name for name in SECTIONS if case.tree and name not in case.tree]
    found = [trouble("config", f"has no section {name}, so nothing can be trained") for name in missing]
    of_config = [*CONFIG, *(RUN if case.run is not None else ())] if case.tree and not missing else []
    with _quiet(), pretrained.without_writing():
        for check in [*MACHINE, *of_config]:
            try:
                found += check(case)
            except Exception as error:  # one check that fails must not hide what the others find
                name = f"{check.__module__.rpartition('.')[2]}.{check.__name__}"
                found.append(warning("doctor", f"{name} could not be done: {type(error).__name__}: {error}"))
    return ordered(found)


@contextmanager
def _quiet() -> Iterator[None]:
    """Inside, the parts that are built and read log nothing: the findings say it."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
