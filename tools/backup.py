"""Adds all runs to a folder of backups; a changed file replaces its backup, and nothing else is removed there.

    python tools/backup.py work_dirs backups

Checkpoints and other files that are written once become hard links, which need no space of their own as long as the run
has them too. Logs, which grow, are copied if they have changed, as is everything if BACKUPS is on another file system.
A checkpoint is verified first, and is in the backup as a whole or not at all. Unfinished files (`*.partial`) and locks
are left out.
"""

import filecmp
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from vq import cli
from vq.engine.loop.checkpoint_backup import FolderBackup, link_or_copy
from vq.engine.loop.run_lock import LOCK
from vq.errors import UserError
from vq.files import fsync

WRITTEN_ONCE = {".bin", ".jpg", ".npy", ".npz", ".png", ".pt", ".safetensors"}
"""Files with these endings are replaced as a whole, never changed, so a link keeps their content."""


def back_up_folder(source: Path, target: Path) -> tuple[int, int]:
    """Adds all files below a folder to another one; returns the numbers of new checkpoints and of other new files."""
    num_checkpoints = num_files = 0
    for folder, folders, files in os.walk(source):
        here, there = Path(folder), target / Path(folder).relative_to(source)
        if here.name == "checkpoints":
            num_checkpoints += FolderBackup(there).add_all(here)
            folders[:] = []
            continue
        folders[:] = sorted(name for name in folders if not name.endswith(".partial"))
        for name in sorted(files):
            if name != LOCK and not name.endswith(".partial") and (here / name).is_file():
                num_files += back_up_file(here / name, there / name)
    return num_checkpoints, num_files


def back_up_file(source: Path, target: Path) -> bool:
    """Links or copies a file, unless the backup has it with this content; returns whether it was new."""
    if target.exists() and (target.samefile(source) or filecmp.cmp(source, target)):
        return False
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f"{target.name}.partial")
    partial.unlink(missing_ok=True)
    if source.suffix in WRITTEN_ONCE:
        link_or_copy(source, partial)
    else:
        shutil.copy2(source, partial)
        fsync(partial)
    partial.replace(target)
    return True


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command."""
    parser = cli.tool_parser(__doc__)
    parser.add_argument("work_dirs", type=Path, help="the folder of the runs")
    parser.add_argument(
        "backups", type=Path, help="the folder of the backups, which is made if it does not exist"
    )
    args = parser.parse_args(argv)
    source, target = args.work_dirs.resolve(), args.backups.resolve()
    if not source.is_dir():
        raise UserError(f"{args.work_dirs}: expected the folder of the runs, found none")
    if target.is_relative_to(source) or source.is_relative_to(target):
        raise UserError(
            f"{args.backups}: expected a folder outside {args.work_dirs}, which would be in its own backup"
        )
    num_checkpoints, num_files = back_up_folder(source, target)
    Console().print(
        f"{args.backups}: {num_checkpoints} new checkpoints, {num_files} other new or changed files"
    )


if __name__ == "__main__":
    cli.main(main)
