"""The checkpoints in a run's folder: which of them are valid, and which are removed or set aside."""

import itertools
import logging
import math
import os
import shutil
from pathlib import Path

from vq.engine.loop.checkpoint_files import TRAIN_STATE
from vq.files import fsync, read_json
from vq.tokenizers.checkpoint import WEIGHTS, checkpoints_in, step_of
from vq.tokenizers.manifest import MANIFEST, ManifestError, read_manifest, verify

SCORES = "validation.json"
"""The scores of the validation, added to a finished checkpoint; the manifest does not name it."""
logger = logging.getLogger(__name__)


class CheckpointFolder:
    """A folder of checkpoints `iter_N`, which all belong to one trajectory.

    Checkpoints of another trajectory are renamed to `iter_N.replaced_1`, a name that nothing takes for a checkpoint.
    What this project did not write is left alone. Only rank 0 may change the folder.

    Args:
        directory: `work_dirs/NAME/checkpoints`.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._valid: set[Path] = set()  # written or verified by this process

    def partial(self, step: int) -> Path:
        """The folder in which the checkpoint of a step is written before it is whole."""
        return self.directory / f"iter_{step}.partial"

    def publish(self, partial: Path) -> None:
        """Gives a finished checkpoint its name, from which moment on it is found."""
        final = partial.with_suffix("")
        if os.path.lexists(final):  # a resumed run reaches this step again, or something else has the name
            _set_aside(final, "is written again")
        partial.rename(final)
        fsync(self.directory)
        self._valid.add(final)

    def sweep(self) -> None:
        """Removes what a killed process left half-written."""
        for leftover in self.directory.glob("iter_*.partial"):
            if leftover.is_dir() and not leftover.is_symlink():
                shutil.rmtree(leftover)

    def set_newer_aside(self, step: int) -> None:
        """Renames the checkpoints after `step`, which belong to another trajectory."""
        for checkpoint in checkpoints_in(self.directory):
            if step_of(checkpoint) > step and (checkpoint.is_symlink() or not _is_foreign(checkpoint)):
                _set_aside(checkpoint, "belongs to a training that this one replaces")

    def prune(self, step: int, limit: int, *, every: int | None = None, best: Path | None = None) -> None:
        """Removes checkpoints up to `step`; damaged ones among those that are examined are set aside.

        Args:
            step: Later checkpoints are left alone.
            limit: How many of the newest valid ones remain.
            every: Those whose step is a multiple of this number remain too.
            best: A checkpoint that remains too.
        """
        num_kept = 0
        for checkpoint in self._own(step):
            is_kept = checkpoint == best or (every is not None and step_of(checkpoint) % every == 0)
            if num_kept == limit and is_kept:
                continue
            try:
                if not self._is_valid(checkpoint):
                    _set_aside(checkpoint, "is damaged")
                elif num_kept < limit:
                    num_kept += 1
                else:
                    # It is swept later, should this process be killed here.
                    leftover = checkpoint.with_suffix(".partial")
                    checkpoint.rename(leftover)
                    shutil.rmtree(leftover)
            except OSError as error:
                logger.warning("%s: could not be removed: %s", checkpoint, error.strerror or error)

    def best(self, step: int, score: str, *, higher_is_better: bool) -> Path | None:
        """The valid checkpoint up to `step` with the best finite value of a score; the earliest of several equal ones.

        Args:
            step: Later checkpoints do not count.
            score: The name of a score in their validations. Checkpoints that were not validated do not count.
            higher_is_better: Whether the largest value is the best, or the smallest.
        """
        found = [(read_scores(checkpoint).get(score, math.nan), checkpoint) for checkpoint in self._own(step)]
        sign = -1 if higher_is_better else 1
        ranked = sorted((sign * v, step_of(path), path) for v, path in found if math.isfinite(v))
        return next((path for _, _, path in ranked if self._is_valid(path)), None)

    def _own(self, step: int) -> list[Path]:
        """The checkpoints of this project up to a step, valid or not, the newest first."""
        return [
            path
            for path in checkpoints_in(self.directory)
            if path.name == f"iter_{step_of(path)}" and step_of(path) <= step and not _is_foreign(path)
        ]

    def num_checkpoints(self) -> int:
        """How many checkpoints of this project there are, valid or not."""
        return len([path for path in checkpoints_in(self.directory) if not _is_foreign(path)])

    def newest_valid(self) -> Path | None:
        """The newest checkpoint whose files are all there and unchanged; damaged ones are logged."""
        for checkpoint in checkpoints_in(self.directory):
            problem = verify(checkpoint)
            if problem is None:
                return checkpoint
            logger.warning("%s is damaged (%s); falling back to the one before", checkpoint, problem)
        return None

    def newest_or_problems(self) -> tuple[Path | None, list[str]]:
        """The newest valid checkpoint; where all are damaged, what is wrong with each."""
        present = [p for p in checkpoints_in(self.directory) if not _is_foreign(p) or p.is_symlink()]
        found = self.newest_valid() if present else None
        return found, [] if found else [f"{path.name} ({verify(path)})" for path in present]

    def _is_valid(self, checkpoint: Path) -> bool:
        """Whether it is valid; one that was valid before is examined for missing and truncated files only."""
        if checkpoint in self._valid:
            return _has_its_sizes(checkpoint)
        if verify(checkpoint) is None:
            self._valid.add(checkpoint)
            return True
        return False


def most_at_once(
    *, keep: int, keep_every: int | None = None, keep_best: str | None = None, max_steps: int
) -> int:
    """How many checkpoints of a run can exist side by side, one of them while it is written."""
    every = 0 if keep_every is None else max_steps // keep_every
    return max(keep, 2) + 1 + every + (keep_best is not None)


def read_scores(checkpoint: Path) -> dict[str, float]:
    """The scores of the validation of a checkpoint; empty if it was not validated."""
    try:
        return {str(name): float(value) for name, value in read_json(checkpoint / SCORES).items()}
    except (OSError, ValueError, AttributeError, TypeError):
        return {}


def _is_foreign(checkpoint: Path) -> bool:
    """Whether this project did not write it: a link, or a folder without any file of a checkpoint."""
    return checkpoint.is_symlink() or not any(
        (checkpoint / name).exists() for name in (MANIFEST, WEIGHTS, TRAIN_STATE)
    )


def _has_its_sizes(checkpoint: Path) -> bool:
    try:
        files = read_manifest(checkpoint)
        return bool(files) and all(
            (checkpoint / name).stat().st_size == entry.bytes for name, entry in files.items()
        )
    except (OSError, ManifestError):
        return False


def _set_aside(checkpoint: Path, reason: str) -> None:
    """Renames a folder so that it is never taken for a checkpoint, and logs it."""
    for i in itertools.count(1):
        aside = checkpoint.with_name(f"{checkpoint.name}.replaced_{i}")
        if not os.path.lexists(aside):
            os.rename(checkpoint, aside)
            logger.warning("%s %s; it is kept as %s", checkpoint, reason, aside.name)
            return
