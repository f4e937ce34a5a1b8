"""Backups of checkpoints in another folder: hard links, which need no space, or copies on another file system."""

import errno
import logging
import os
import shutil
import tempfile
from abc import ABC, abstractmethod
from pathlib import Path

from vq.engine.loop.checkpoint_folder import SCORES, CheckpointFolder
from vq.files import fsync, write_atomically
from vq.text import printable
from vq.tokenizers.checkpoint import checkpoints_in, step_of
from vq.tokenizers.manifest import MANIFEST, verify

CANNOT_LINK = (errno.EXDEV, errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOSYS)
"""The errors of a file system that cannot make a hard link; the file is then copied."""
logger = logging.getLogger(__name__)


class Backup(ABC):
    """A second place for the checkpoints of a run, each of which is complete there, or absent. Nothing is removed."""

    @abstractmethod
    def prepare(self, directory: Path) -> str:
        """Makes the place ready for the checkpoints of a folder; returns what their backups will be.

        Raises:
            OSError: If the place or the folder cannot be written.
        """

    @abstractmethod
    def free_bytes(self) -> int | None:
        """The free space; None if it is not known."""

    @abstractmethod
    def add(self, checkpoint: Path) -> bool:
        """Adds a complete checkpoint, or only its scores if it is there; returns whether it was new.

        If the backup has another checkpoint of that step, this one is renamed.

        Raises:
            OSError: If it cannot be written, or the checkpoint or its copy is damaged.
        """

    def add_all(self, directory: Path) -> int:
        """Adds all complete checkpoints of a folder that the backup lacks; returns how many there were.

        What is damaged, or cannot be written, is logged.
        """
        count = 0
        for checkpoint in reversed(checkpoints_in(directory)):
            if checkpoint.is_symlink() or not (checkpoint / MANIFEST).is_file():
                continue
            try:
                count += self.add(checkpoint)
            except Exception as error:  # remote file systems raise exceptions of their own
                reason = getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"
                logger.error("%s: no backup in %s: %s", checkpoint, self, printable(str(reason)))
        return count


class FolderBackup(Backup):
    """Hard links in another folder, or copies if it is on another file system."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __str__(self) -> str:
        return str(self.folder)

    def prepare(self, directory: Path) -> str:
        """Makes the folder, and tries whether a file can be linked into it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (
            tempfile.TemporaryDirectory(dir=self.folder) as folder,
            tempfile.NamedTemporaryFile(dir=directory) as file,
        ):
            is_linked = link_or_copy(Path(file.name), Path(folder) / "file")
        return "hard links" if is_linked else "copies on another file system"

    def free_bytes(self) -> int:
        """The free space of the file system."""
        return shutil.disk_usage(self.folder).free

    def add(self, checkpoint: Path) -> bool:
        """Links or copies the files into `iter_N.partial`, verifies them and renames the folder."""
        target = self.folder / checkpoint.name
        if _is_same(checkpoint, target):
            _copy_if_changed(checkpoint / SCORES, target / SCORES)
            return False
        backups = CheckpointFolder(self.folder)
        partial = backups.partial(step_of(checkpoint))
        self.folder.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(partial, ignore_errors=True)  # of a process that was killed
        partial.mkdir()
        try:
            for file in sorted(checkpoint.iterdir()):
                link_or_copy(file, partial / file.name)
            if problem := verify(partial):
                raise OSError(errno.EIO, f"the checkpoint or its backup is damaged: {problem}")
            fsync(partial)
            backups.publish(partial)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        return True


def link_or_copy(source: Path, target: Path) -> bool:
    """Makes a file that is a link to another one, or its copy if the file systems differ; returns whether it links."""
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in CANNOT_LINK:
            raise
        shutil.copy2(source, target)
        fsync(target)
        return False
    return True


def _copy_if_changed(source: Path, target: Path) -> None:
    """Copies a small file, if it exists and the copy is missing or has another content."""
    if source.is_file():
        content = source.read_bytes()
        if not target.is_file() or target.read_bytes() != content:
            write_atomically(target, content)


def _is_same(checkpoint: Path, other: Path) -> bool:
    try:
        return (checkpoint / MANIFEST).read_bytes() == (other / MANIFEST).read_bytes()
    except OSError:
        return False
