"""Checks of the disk: what a training will write against the free space."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from vq.data import ImageLoader, TokenLoader
from vq.engine.doctor.building import FAULTS
from vq.engine.doctor.case import Case
from vq.engine.doctor.findings import Finding, bytes_in_words, ok, trouble, warning
from vq.engine.loop.checkpoint_files import estimated_bytes
from vq.engine.loop.checkpoint_folder import most_at_once
from vq.tokenizers.checkpoint import checkpoints_in

WORK_DIRS = Path("work_dirs")
ROW_BYTES = 600  # of metrics.jsonl, and about as many of TensorBoard
OPTIMISTIC = 0.9
"""The part of the free space that a training may fill without a warning."""


def check_disk(case: Case) -> Iterator[Finding]:
    """Whether the run folder can be written, and holds all that the training writes."""
    folder = _existing(case.run or WORK_DIRS)
    if not os.access(folder, os.W_OK | os.X_OK) or os.statvfs(folder).f_flag & os.ST_RDONLY:
        yield trouble(str(folder), "cannot be written", "change its permissions, or work in another folder")
        return
    if case.step.error is not None:
        yield warning("disk", "the size of a checkpoint is not known, because the model cannot be built here")
        return
    yield from space(case, shutil.disk_usage(folder).free, folder)


def space(case: Case, free: int, folder: Path) -> Iterator[Finding]:
    """Compares what the training writes with the free space.

    Args:
        case: The training.
        free: Free bytes.
        folder: Where they are.
    """
    size = estimated_bytes(case.step.value.step)
    count = checkpoints_at_once(case)
    others = _pictures(case) + 2 * ROW_BYTES * case.max_steps // int(
        case.tree["trainer"].get("log_every", 50)
    )
    total = size * count + others
    words = f"{count} checkpoints of {bytes_in_words(size)} and {bytes_in_words(others)} of pictures and logs"
    if total > free:
        full = max(1, max(0, free - others) // max(1, size)) * case.saves_every
        yield trouble(
            "disk", f"{folder} has {bytes_in_words(free)} free, and the run writes {words}",
            "free some space, or set checkpointer.keep", step=min(full, case.max_steps),
        )  # fmt: skip
    elif total > OPTIMISTIC * free:
        yield warning(
            "disk", f"{folder} has {bytes_in_words(free)} free, and the run writes {words}", "free some space",
            step=case.max_steps,
        )  # fmt: skip
    else:
        yield ok("disk", f"the run writes {words}; {bytes_in_words(free)} are free")


def checkpoints_at_once(case: Case) -> int:
    """How many new checkpoints will exist side by side, one of them while it is written."""
    saves = -(-case.max_steps // case.saves_every)
    rules = {name: case.tree["checkpointer"].get(name) for name in ("keep", "keep_every", "keep_best")}
    if rules["keep"] is None or _has_linked_backups(case):
        return saves
    there = 0 if case.run is None else len(checkpoints_in(case.run / "checkpoints"))
    return min(saves, max(1, most_at_once(**rules, max_steps=case.max_steps) - there))


def _has_linked_backups(case: Case) -> bool:
    """Whether each checkpoint stays on this disk as a backup."""
    backup_to = case.tree["checkpointer"].get("backup_to")
    if backup_to is None or "://" in str(backup_to):
        return False
    return _existing(Path(backup_to)).stat().st_dev == _existing(case.run or WORK_DIRS).stat().st_dev


def check_store(case: Case) -> Iterator[Finding]:
    """The sizes of the token stores that a generator is trained on."""
    for name, loader in case.loaders().items():
        if isinstance(loader, TokenLoader):
            root = Path(loader.dataset.root)
            size = sum(file.stat().st_size for file in root.rglob("*") if file.is_file())
            yield ok(name, f"{loader.num_samples:,} images in {root}, {bytes_in_words(size)}")


def _pictures(case: Case) -> int:
    """The bytes of the pictures of all validations, each of which TensorBoard gets too, as PNGs that do not shrink."""
    loader = case.val_data.value
    try:
        height, width = loader.image_size if isinstance(loader, ImageLoader) else (0, 0)
    except FAULTS:
        return 0
    shown = 2 * int(case.tree["evaluator"].get("num_grid_images", 16))
    return 2 * 3 * height * width * shown * -(-case.max_steps // case.validates_every)


def _existing(path: Path) -> Path:
    """The folder itself, or the nearest one above it that exists."""
    absolute = path.absolute()
    return next(folder for folder in (absolute, *absolute.parents) if folder.is_dir())
