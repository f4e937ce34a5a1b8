"""The checkpoints in a run's folder: which of them are valid, and which are removed or set aside."""

import itertools
import logging
import os
import shutil
from pathlib import Path

from vq.engine.loop.checkpoint_files import TRAIN_STATE
from vq.files import fsync
from vq.tokenizers.checkpoint import WEIGHTS, checkpoints_in, step_of
from vq.tokenizers.manifest import MANIFEST, ManifestError, read_manifest, verify

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

    def prune(self, step: int, limit: int) -> None:
        """Removes all but the `limit` newest valid checkpoints up to `step`; damaged ones are set aside."""
        num_kept = 0
        for checkpoint in checkpoints_in(self.directory):
            is_ours = checkpoint.name == f"iter_{step_of(checkpoint)}" and not _is_foreign(checkpoint)
            if not is_ours or step_of(checkpoint) > step:
                continue
            try:
                if not self._is_valid(checkpoint):
                    _set_aside(checkpoint, "is damaged")
                elif num_kept < limit:
                    num_kept += 1
                else:
                    leftover = checkpoint.with_suffix(
                        ".partial"
                    )  # swept later, should this process be killed here
                    checkpoint.rename(leftover)
                    shutil.rmtree(leftover)
            except OSError as error:
                logger.warning("%s: could not be removed: %s", checkpoint, error.strerror or error)

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
