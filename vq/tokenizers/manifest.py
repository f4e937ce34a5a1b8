"""The manifest of a checkpoint folder: the size and the SHA-256 of each of its files."""

import json
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from vq.files import sha256_of

MANIFEST = "MANIFEST.json"
_MAX_BYTES = 2**20


class ManifestError(ValueError):
    """A manifest that is not one: unreadable, cut, or of another form."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What a manifest says about a file."""

    bytes: int
    sha256: str


def read_manifest(checkpoint: Path) -> dict[str, Entry]:
    """The files that a checkpoint's manifest lists, by name.

    Raises:
        FileNotFoundError: If there is no manifest.
        ManifestError: If it cannot be read or has another form, or the folder `iter_N` is named after another step.
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
            f"{MANIFEST} is that of step {step!r}: the folder was renamed, or holds another's files"
        )
    for name, entry in entries.items():
        if type(entry.bytes) is not int or not isinstance(entry.sha256, str) or Path(name).name != name:
            raise ManifestError(f"{MANIFEST} cannot be read: its entry for {name!r} is {entry}")
    return entries


def verify_file(file: Path) -> str | None:
    """What is wrong with one file according to the manifest beside it; None if it is as written, or none lists it."""
    if not (file.parent / MANIFEST).exists():
        return None
    try:
        expected = read_manifest(file.parent).get(file.name)
        if expected is None:
            return None
        if file.stat().st_size != expected.bytes:
            return f"{file.name} has {file.stat().st_size} bytes, expected {expected.bytes}"
        if sha256_of(file) != expected.sha256:
            return f"{file.name} has another checksum than when it was written"
    except (OSError, ManifestError) as error:
        return str(error)
    return None


def verify(checkpoint: Path, names: Collection[str] | None = None) -> str | None:
    """What is wrong with a checkpoint folder; None if its files are as the manifest says.

    Args:
        checkpoint: A folder `iter_N`.
        names: The files whose content is read and compared; of the others only the sizes are. None for all.
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
                return f"{name} has another checksum than when it was written"
    except (OSError, ValueError) as error:  # a name that no file can have, a folder that may not be read
        return f"a file cannot be read: {error}"
    return None
