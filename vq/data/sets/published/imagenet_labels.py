"""The classes of ImageNet's validation images while they are all in one folder, from the files that list them."""

import csv
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from vq.data.base import DataError
from vq.data.sets.published.agreement import bad_line, check_same_images, lines_of
from vq.files import read_json
from vq.packages import require
from vq.text import printable, shown

_WNID = re.compile(r"n\d{8}")
_DEVKIT = "ILSVRC2012_validation_ground_truth.txt"
_LINES = "imagenet_2012_validation_synset_labels.txt"

LABEL_FILES = (
    "LOC_val_solution.csv (Kaggle), Annotations/CLS-LOC/val/*.xml (the official archive), "
    f"ILSVRC2012_devkit_t12/data/{_DEVKIT} with meta.mat, or {_LINES}"
)
"""Where the classes may come from, for error messages."""


def is_wnid(name: str) -> bool:
    """Whether a name is a WordNet ID, such as `n01440764`."""
    return _WNID.fullmatch(name) is not None


def validation_wnids(root: Path, names: Sequence[str]) -> list[str] | None:
    """Returns the WordNet ID of each validation image, or None if there is no label file.

    Args:
        root: The folder of ImageNet. The first of these that it contains is used: `LOC_val_solution.csv`;
            `Annotations/CLS-LOC/val`, also below `ILSVRC`; the devkit's ground truth and `meta.mat`, in
            `ILSVRC2012_devkit_t12/data`, `data` or directly; `imagenet_2012_validation_synset_labels.txt`.
        names: The names of the images, such as `ILSVRC2012_val_00000001.JPEG`.

    Raises:
        DataError: If the label file cannot be read, or lists other images than `names`.
    """
    sources: list[tuple[str, Callable[[Path], dict[str, str]]]] = [
        ("LOC_val_solution.csv", _from_kaggle),
        ("ILSVRC/Annotations/CLS-LOC/val", _from_annotations),
        ("Annotations/CLS-LOC/val", _from_annotations),
        (f"ILSVRC2012_devkit_t12/data/{_DEVKIT}", _from_devkit),
        (f"data/{_DEVKIT}", _from_devkit),
        (_DEVKIT, _from_devkit),
        (_LINES, _from_lines),
    ]
    for place, read in sources:
        if (root / place).exists():
            listed = read(root / place)
            stems = [name.rpartition(".")[0] for name in names]
            check_same_images("ImageNet", root / place, listed=listed, found=stems)
            return [listed[stem] for stem in stems]
    return None


def reference_images(root: Path, split: str) -> list[str] | None:
    """Returns the images that `annotations/SPLIT.json` lists, as `WNID/NAME`; None without it and `synsets.json`.

    Raises:
        DataError: If a file cannot be read, or has another content.
    """
    annotations, synsets = root / "annotations" / f"{split}.json", root / "synsets.json"
    if not (annotations.exists() and synsets.exists()):
        return None
    try:
        wnids = {int(number): str(synset["WNID"]) for number, synset in read_json(synsets).items()}
        entries = [(int(entry["synset_id"]), str(entry["name"])) for entry in read_json(annotations)]
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise DataError(
            f'ImageNet: expected a list of {{"name", "synset_id"}} in {printable(str(annotations))} and '
            f'{{"1": {{"WNID"}}, ...}} in {printable(str(synsets))}, got {type(error).__name__}: {error}; '
            "write the two files again, or remove them: the class folders give the labels too"
        ) from error
    if unknown := {number for number, _ in entries} - wnids.keys():
        raise _unknown(annotations, min(unknown), synsets.name)
    return [f"{wnids[number]}/{name}" for number, name in entries]


def _from_kaggle(file: Path) -> dict[str, str]:
    """Reads lines such as `ILSVRC2012_val_00048981,n03995372 85 1 499 272`, below a header."""
    found: dict[str, str] = {}
    for number, row in enumerate(csv.reader(lines_of("ImageNet", file)), start=1):
        if number == 1 and row[:1] == ["ImageId"]:
            continue
        name, prediction = row if len(row) == 2 else ("", "")
        if not name or name in found:
            raise bad_line("ImageNet", file, number, row, "NAME,WNID x y x y with another NAME in each line")
        found[name] = _one_wnid(file, _WNID.findall(prediction), f"line {number}")
    return found


def _from_annotations(folder: Path) -> dict[str, str]:
    """Reads the `<name>` of the objects in one XML file per image."""
    found = {}
    for file in sorted(folder.glob("*.xml")):
        wnids = re.findall(r"<name>\s*(\S*?)\s*</name>", "\n".join(lines_of("ImageNet", file)))
        found[file.stem] = _one_wnid(file, wnids, "the <name>s")
    return found


def _from_devkit(file: Path) -> dict[str, str]:
    """Reads one ILSVRC2012_ID per line. `meta.mat` maps them to WordNet IDs, whose sorted order is another one."""
    wnids = _devkit_wnids(file.with_name("meta.mat"))
    found = {}
    for number, line in enumerate(lines_of("ImageNet", file), start=1):
        if not re.fullmatch(r"\s*\d{1,4}\s*", line):
            raise bad_line("ImageNet", file, number, line, "an ILSVRC2012_ID from 1 to 1000")
        if int(line) not in wnids:
            raise _unknown(file, int(line), "meta.mat")
        found[_numbered(number)] = wnids[int(line)]
    return found


def _from_lines(file: Path) -> dict[str, str]:
    """Reads one WordNet ID per line, in the order of the images."""
    return {
        _numbered(number): _one_wnid(file, [line.strip()], f"line {number}")
        for number, line in enumerate(lines_of("ImageNet", file), start=1)
    }


def _devkit_wnids(file: Path) -> dict[int, str]:
    """Returns the WordNet ID of each of the classes; groups of classes are left out."""
    io: Any = require("scipy", needed_by="ImageNet (to read meta.mat)").io
    try:
        synsets = io.loadmat(file, squeeze_me=True, variable_names=["synsets"])["synsets"].reshape(-1)
        return {
            int(synset["ILSVRC2012_ID"]): str(synset["WNID"])
            for synset in synsets
            if int(synset["num_children"]) == 0
        }
    except Exception as error:  # damaged files make SciPy raise errors of many kinds
        raise DataError(
            f"ImageNet: expected the devkit's meta.mat with `synsets` at {printable(str(file))}, got "
            f"{type(error).__name__}: {error}; unpack ILSVRC2012_devkit_t12.tar.gz again"
        ) from error


def _numbered(number: int) -> str:
    return f"ILSVRC2012_val_{number:08d}"


def _one_wnid(file: Path, wnids: Sequence[str], place: str) -> str:
    if len(set(wnids)) != 1 or not is_wnid(wnids[0]):
        raise DataError(
            f"ImageNet: expected one WordNet ID such as n01440764 in {place} of {printable(str(file))}, got "
            f"{shown(sorted(set(wnids)))}; get the file again"
        )
    return wnids[0]


def _unknown(file: Path, number: int, table: str) -> DataError:
    return DataError(
        f"ImageNet: {printable(str(file))} has the class number {number}, which {table} does not list as a class; "
        "use two files of one release"
    )
