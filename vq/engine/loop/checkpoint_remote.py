"""Backups of checkpoints in a remote store, through fsspec."""

import itertools
from pathlib import Path
from typing import Any

from vq.engine.loop.checkpoint_backup import Backup, FolderBackup
from vq.engine.loop.checkpoint_folder import SCORES
from vq.errors import ConfigError
from vq.packages import require
from vq.tokenizers.manifest import MANIFEST, read_manifest

PROTOCOLS = ("s3", "gs", "gcs", "az", "abfs", "hf", "file", "memory")
"""The kinds of stores. fsspec knows others, some of which nest addresses or start programs."""


def backup_of(checkpoints: Path, backup_to: str) -> Backup:
    """The backup BACKUP_TO/NAME/checkpoints of a folder of checkpoints work_dirs/NAME/checkpoints.

    Args:
        checkpoints: The folder.
        backup_to: A folder, or an address such as `s3://bucket/backups`.

    Raises:
        ConfigError: If it is an address of a kind that is not supported.

    Example:
        >>> print(backup_of(Path("work_dirs/vqgan/1024/checkpoints"), "/backups"))
        /backups/vqgan/1024/checkpoints
    """
    parts = checkpoints.parts
    start = len(parts) - parts[::-1].index("work_dirs") if "work_dirs" in parts else len(parts) - 2
    below = parts[start:]
    protocol, separator, _ = backup_to.partition("://")
    if not separator:
        return FolderBackup(Path(backup_to, *below))
    if protocol not in PROTOCOLS:
        raise ConfigError(
            f"checkpointer.backup_to: expected a folder, or an address that begins with one of "
            f"{', '.join(f'{name}://' for name in PROTOCOLS)}, got {backup_to!r}"
        )
    return RemoteBackup("/".join((backup_to.rstrip("/"), *below)))


class RemoteBackup(Backup):
    """Copies in a store without renaming: the manifest is written last, and no folder without one is a checkpoint."""

    def __init__(self, address: str) -> None:
        self.address = address

    def __str__(self) -> str:
        return self.address

    def prepare(self, directory: Path) -> str:
        """Tries whether the store can be written."""
        files, root = self._store()
        files.pipe_file(f"{root}/.writable", b"")
        files.rm_file(f"{root}/.writable")
        return "copies in a remote store"

    def free_bytes(self) -> None:
        """Not known."""

    def add(self, checkpoint: Path) -> bool:
        """Uploads the files, compares their sizes with the manifest, and uploads the manifest."""
        files, root = self._store()
        target, manifest = f"{root}/{checkpoint.name}", (checkpoint / MANIFEST).read_bytes()
        is_new = (
            not files.exists(f"{target}/{MANIFEST}") or files.cat_file(f"{target}/{MANIFEST}") != manifest
        )
        if is_new:
            if files.exists(f"{target}/{MANIFEST}"):
                _set_aside(files, target)
            files.makedirs(target, exist_ok=True)
            for name, entry in read_manifest(checkpoint).items():
                files.put_file(str(checkpoint / name), f"{target}/{name}")
                if (found := files.info(f"{target}/{name}")["size"]) != entry.bytes:
                    raise OSError(f"{target}/{name} has {found} bytes, expected {entry.bytes}")
            files.pipe_file(f"{target}/{MANIFEST}", manifest)
        if (checkpoint / SCORES).is_file():
            files.pipe_file(f"{target}/{SCORES}", (checkpoint / SCORES).read_bytes())
        return is_new

    def _store(self) -> tuple[Any, str]:
        fsspec = require("fsspec", needed_by="checkpointer.backup_to with an address")
        files, root = fsspec.url_to_fs(self.address)
        files.makedirs(root, exist_ok=True)
        return files, root.rstrip("/")


def _set_aside(files: Any, target: str) -> None:
    """Renames a folder of a store to a name that is not taken."""
    for i in itertools.count(1):
        if not files.exists(f"{target}.replaced_{i}"):
            files.mv(target, f"{target}.replaced_{i}", recursive=True)
            return
