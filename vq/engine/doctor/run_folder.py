"""Checks of the folder of a run that exists: its lock, its checkpoints, and what would be continued."""

import errno
import fcntl
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from vq.engine.doctor.building import FAULTS
from vq.engine.doctor.case import Case
from vq.engine.doctor.findings import Finding, bytes_in_words, first_lines, from_error, ok, trouble, warning
from vq.engine.loop.resuming import accepted_changes, changes_between
from vq.engine.loop.run_lock import LOCK, STALE_SECONDS, holder_of
from vq.files import read_json
from vq.tokenizers.checkpoint import checkpoints_in, step_of
from vq.tokenizers.manifest import verify

READ_WHOLE = 20 * 2**30
"""Bytes of checkpoints up to which all are compared with their checksums; of more, the two newest are."""


def check_lock(case: Case) -> Iterator[Finding]:
    """Whether another process trains in the folder."""
    path = _folder(case) / LOCK
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return
    try:
        holder = holder_of(descriptor)
        is_held = _is_locked(descriptor)
        is_elsewhere = holder is not None and holder.host != socket.gethostname()
        if is_elsewhere and time.time() - os.fstat(descriptor).st_mtime < STALE_SECONDS:
            is_held = True
    finally:
        os.close(descriptor)
    if is_held:
        yield trouble(
            str(path), f"{holder or 'another process'} is training in this folder",
            "wait for its end, stop it, or choose another NAME",
        )  # fmt: skip


def _is_locked(descriptor: int) -> bool:
    """Whether another process holds the lock; this one holds a shared lock for a moment, and writes nothing."""
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno in (errno.EACCES, errno.EAGAIN)
    fcntl.lockf(descriptor, fcntl.LOCK_UN)
    return False


def check_leftovers(case: Case) -> Iterator[Finding]:
    """What a killed process left half-written."""
    folder = _folder(case) / "checkpoints"
    for partial in sorted(folder.glob("iter_*.partial")):
        size = sum(file.stat().st_size for file in partial.rglob("*") if file.is_file())
        yield warning(str(partial), f"half-written ({bytes_in_words(size)}); the next training removes it")


def check_checkpoints(case: Case) -> Iterator[Finding]:
    """Compares the checkpoints with their manifests, and says which one `--auto-resume` would continue."""
    there = checkpoints_in(_folder(case) / "checkpoints")
    if not there:
        return
    total = sum(file.stat().st_size for path in there for file in path.rglob("*") if file.is_file())
    problems = {
        path: verify(path, None if total <= READ_WHOLE or i < 2 else ()) for i, path in enumerate(there)
    }
    for path, problem in problems.items():
        if problem is not None:
            yield warning(str(path), f"damaged: {problem}", "it is skipped")
    good = [path for path, problem in problems.items() if problem is None]
    if not good:
        yield trouble(
            str(there[0].parent),
            f"each of {len(there)} checkpoints is damaged",
            "--load-from DIR of another run, or another NAME",
        )
        return
    yield ok("checkpoints", f"{len(good)} of {len(there)} are intact, the newest is {good[0].name}")
    yield from _continued(case, good[0])


def _continued(case: Case, newest: Path) -> Iterator[Finding]:
    """What a training of this name would do with the newest checkpoint, or with the given one."""
    options = case.options
    if not options.auto_resume and not options.load_from:
        yield trouble(
            str(_folder(case)),
            "already holds a trained run",
            "continue it with --auto-resume, or choose another NAME",
        )
        return
    source = newest if options.auto_resume else Path(str(options.load_from))
    arguments = {"autocast": options.autocast, "ranks": case.world.ranks}
    if options.seed is not None:
        arguments["seed"] = options.seed
    try:
        changes = accepted_changes(source, case.tree, arguments)
    except FAULTS as error:
        yield from_error(str(source), error)
        return
    if changes:
        yield warning(
            str(source), f"{len(changes)} change(s) will be applied: {first_lines(map(str, changes), 6)}"
        )
    left = case.max_steps - step_of(source)
    if left <= 0:
        yield warning(
            "trainer.max_steps", f"{case.max_steps:,}, and {source.name} is there already: nothing is left to train",
            "raise it to train longer",
        )  # fmt: skip
    else:
        yield ok("resume", f"continues from {source}; {left:,} of {case.max_steps:,} steps are left")


def check_stored_config(case: Case) -> Iterator[Finding]:
    """What differs from the config that the folder holds, if it has no checkpoint yet."""
    file = _folder(case) / "config.json"
    if not file.is_file() or checkpoints_in(file.parent / "checkpoints"):
        return
    try:
        changes = changes_between(read_json(file), case.tree)
    except FAULTS as error:
        yield from_error(str(file), error)
        return
    if changes:
        yield warning(
            str(file),
            f"differs in {len(changes)} values: {first_lines(map(str, changes), 6)}",
            "it is replaced",
        )


def _folder(case: Case) -> Path:
    assert case.run is not None  # the checks of this module run only if there is one
    return case.run
