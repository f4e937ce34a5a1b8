"""The manifest of a checkpoint folder, which records the size and the SHA-256 of each file."""

import json
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from vq.files import sha256_of

MANIFEST = "MANIFEST.json"
_MAX_BYTES = 2**20


class ManifestError(ValueError):
    """A manifest that is unreadable, truncated or malformed."""


@dataclass(frozen=True, slots=True)
class Entry:
    """The size and the SHA-256 of one file, as recorded in the manifest."""

    bytes: int
    sha256: str


def read_manifest(checkpoint: Path) -> dict[str, Entry]:
    """Reads the files that a checkpoint's manifest lists, by name.

    Raises:
        FileNotFoundError: If there is no manifest.
        ManifestError: If it cannot be read, is malformed, or records a step other than that of the folder's name.
    """
    path = checkpoint / MANIFEST
    if not path.is_file():
        raise FileNotFoundError(f"{MANIFEST} is missing")
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise ManifestError(f"{MANIFEST} has more than {_MAX_BYTES} bytes")
        content = json.loads(path.read_bytes().decode("utf-8"))
        files, step = content["files"], content.get("step")
        entries = {str(name): Entry(entry["bytes"], entry["sha256"]) for name, entry in files.items()}
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise ManifestError(f"{MANIFEST} cannot be read: {type(error).__name__}: {error}") from error
    named = re.fullmatch(r"iter_(\d+)", checkpoint.name)
    if named is not None and step is not None and step != int(named[1]):
        raise ManifestError(
            f"{MANIFEST} belongs to step {step!r}: the folder was renamed, or holds files of another checkpoint"
        )
    for name, entry in entries.items():
        if type(entry.bytes) is not int or not isinstance(entry.sha256, str) or Path(name).name != name:
            raise ManifestError(f"{MANIFEST} cannot be read: its entry for {name!r} is {entry}")
    return entries


def verify_file(file: Path) -> str | None:
    """Compares a file with the manifest beside it; returns what is wrong, or None if it matches or is not listed."""
    if not (file.parent / MANIFEST).exists():
        return None
    try:
        expected = read_manifest(file.parent).get(file.name)
        if expected is None:
            return None
        if file.stat().st_size != expected.bytes:
            return f"{file.name} has {file.stat().st_size} bytes, expected {expected.bytes}"
        if sha256_of(file) != expected.sha256:
            return f"{file.name}: checksum mismatch"
    except (OSError, ManifestError) as error:
        return str(error)
    return None


def verify(checkpoint: Path, names: Collection[str] | None = None) -> str | None:
    """Compares a checkpoint folder with its manifest; returns what is wrong, or None if all files match.

    Args:
        checkpoint: A folder `iter_N`.
        names: The files whose content is compared; for the others, only the size is. None for all.
    """
    try:
        entries = read_manifest(checkpoint)
    except (FileNotFoundError, ManifestError) as error:
        return str(error)
    unlisted = [name for name in names or [] if name not in entries]
    if unlisted or not entries:
        return f"{MANIFEST} does not list {', '.join(unlisted) or 'any file'}"
    try:
        for name, expected in entries.items():
            file = checkpoint / name
            if not file.is_file():
                return f"{name} is missing"
            if file.stat().st_size != expected.bytes:
                return f"{name} has {file.stat().st_size} bytes, expected {expected.bytes}"
            if (names is None or name in names) and sha256_of(file) != expected.sha256:
                return f"{name}: checksum mismatch"
    except (OSError, ValueError) as error:  # an invalid file name, or a folder without read permission
        return f"a file cannot be read: {error}"
    return None
