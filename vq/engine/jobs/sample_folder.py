"""A folder of generated images: it records how they were made and which are complete, and holds no others."""

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vq import distributed
from vq.data.sets.image_folder import EXTENSIONS
from vq.errors import UserError
from vq.files import read_json, remove_unfinished, write_atomically
from vq.text import printable

logger = logging.getLogger(__name__)
SETTINGS = "settings.json"
SAMPLES = "samples.json"


class SampleFolderError(UserError, ValueError):
    """A folder that cannot take generated images, because it holds others."""


def claim(folder: Path, picture: Path, record: Mapping[str, Any], files: Sequence[str]) -> None:
    """Prepares a folder for images of these settings, on rank 0; every rank waits.

    Images that an earlier run with the same settings wrote and that are no longer wanted are removed, and so are files
    that a killed process left half-written.

    Args:
        folder: Made if it is missing.
        picture: The file of the grid.
        record: The settings; ready for JSON.
        files: The names of the wanted images.

    Raises:
        SampleFolderError: On every rank, if the folder holds images of other settings or of another origin.
    """
    problem = ""
    if distributed.rank() == 0:
        try:
            _claim(folder, picture, record, set(files))
        except SampleFolderError as error:
            problem = str(error)
    if problem := distributed.broadcast_object(problem):
        raise SampleFolderError(problem)


def _claim(folder: Path, picture: Path, record: Mapping[str, Any], wanted: set[str]) -> None:
    place = printable(str(folder))
    if folder.exists() and not folder.is_dir():
        raise SampleFolderError(f"{place}: expected a folder, got a file; choose another --out")
    left = _remove_unfinished(folder)
    if left := left + remove_unfinished(folder.parent, picture.name):
        logger.info("removed %d unfinished files of processes that were killed from %s", len(left), place)
    there = _pictures(folder)
    if not (folder / SETTINGS).exists():
        foreign = sorted(there) + ([picture.name] if picture.exists() else [])
        if foreign:
            raise SampleFolderError(
                f"{place}: expected no images in it and no {printable(picture.name)} beside it, got "
                f"{printable(foreign[0])}, which `vq generate` did not write; remove it, or choose another --out"
            )
        write_atomically(folder / SETTINGS, json.dumps(record, indent=1))
        return
    known = _read(folder / SETTINGS)
    different = [k for k in sorted({*known, *record}) if known.get(k) != record.get(k)]
    if different:
        changes = ", ".join(f"{k}: {known.get(k)} there, {record.get(k)} now" for k in different)
        raise SampleFolderError(
            f"{place}: holds images made otherwise ({printable(changes)}); choose another --out"
        )
    own = read_hashes(folder)
    old = (there | _noted(folder, own)) - wanted
    if foreign := sorted(old - set(own)):
        raise SampleFolderError(
            f"{place}: {printable(foreign[0])} is not an image that `vq generate` noted, and would be counted "
            f"as a sample; remove it, or choose another --out"
        )
    for name in old:
        (folder / name).unlink()
    if old:
        logger.info("removed %d images of an earlier run that are no longer wanted from %s", len(old), place)


def note_hashes(folder: Path, hashes: Mapping[str, str]) -> None:
    """Notes the SHA-256 of images that this rank has just written; a restarted run reads the notes."""
    lines = "".join(json.dumps([name, value]) + "\n" for name, value in hashes.items())
    with _notes(folder, distributed.rank()).open("a", encoding="utf-8") as stream:
        stream.write(lines)


def read_hashes(folder: Path) -> dict[str, str]:
    """The SHA-256 of each image by its name, from `finish` and from the later notes of all ranks."""
    hashes: dict[str, str] = {}
    if (folder / SAMPLES).exists():
        samples = _read(folder / SAMPLES).get("samples", [])
        for sample in [sample for sample in samples if isinstance(sample, dict)]:
            for entry in (sample, sample.get("array")):  # an image of many channels has an array too
                if isinstance(entry, dict) and "file" in entry:
                    hashes[str(entry["file"])] = str(entry.get("sha256"))  # an older folder has none
    for notes in sorted(folder.glob(".written_*.jsonl")):
        for line in notes.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                name, value = json.loads(line)
            except (ValueError, TypeError, RecursionError):
                continue  # a line that was cut when the run was killed: its image is generated again
            hashes[str(name)] = str(value)
    return hashes


def finish(folder: Path, record: Mapping[str, Any]) -> None:
    """Writes `samples.json`, which replaces the notes of the ranks; removes half-written images of killed processes."""
    _remove_unfinished(folder)
    write_atomically(folder / SAMPLES, json.dumps(record, indent=1))
    for notes in folder.glob(".written_*.jsonl"):
        notes.unlink()


def _remove_unfinished(folder: Path) -> list[str]:
    return remove_unfinished(folder, "class*.png", "class*.npy", SETTINGS, SAMPLES)


def _notes(folder: Path, rank: int) -> Path:
    return folder / f".written_{rank}.jsonl"


def _pictures(folder: Path) -> set[str]:
    """The names of all files that a reader of the folder takes for images."""
    if not folder.is_dir():
        return set()
    return {
        entry.name
        for entry in folder.iterdir()
        if entry.suffix.lower() in EXTENSIONS and not entry.name.startswith(".")
    }


def _noted(folder: Path, own: Mapping[str, str]) -> set[str]:
    """The names of the arrays in the folder that an earlier run noted."""
    return {entry.name for entry in folder.glob("*.npy") if entry.name in own}


def _read(file: Path) -> dict[str, Any]:
    try:
        found = read_json(file)
        if not isinstance(found, dict):
            raise ValueError(f"expected an object, got {type(found).__name__}")
    except (OSError, ValueError) as error:
        raise SampleFolderError(
            f"{printable(str(file))}: cannot be read: {printable(str(error))}; remove its folder, or choose "
            f"another --out"
        ) from error
    return found
