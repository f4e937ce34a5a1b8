"""Reads what a run folder holds. Nothing in it is required: what is missing or damaged is noted and left out."""

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vq.engine.loop.resuming import ARGUMENTS
from vq.engine.loop.run_lock import LOCK
from vq.engine.loop.stopping import ENDED
from vq.engine.reporting.log_lines import Event, events_in
from vq.files import read_json, read_regular
from vq.tokenizers.checkpoint import checkpoints_in

METRICS = "metrics.jsonl"
MARKS = ("config.json", METRICS, "log.txt", "environment.json", "checkpoints")
"""Of these, a run folder has at least one."""
LARGEST = 2**30
"""The largest file that is read, in bytes."""
LARGEST_STEP = 2**53
LARGEST_VALUE = 1e100
DEEPEST = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A row of `metrics.jsonl`.

    Attributes:
        step: Optimizer steps taken.
        split: `train`, or `val` for a validation.
        values: Scalar -> value, which may be nan or infinite.
    """

    step: int
    split: str
    values: dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scoring:
    """The `metrics.json` that `vq val` or `vq test` wrote.

    Attributes:
        place: Its folder below the run folder, such as `val/iter_500`.
        scores: Score -> value.
        stamps: Score -> what it was computed from and how.
    """

    place: str
    scores: dict[str, float]
    stamps: dict[str, dict[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What is known of a run.

    Attributes:
        name: How the report calls it.
        folder: Its folder.
        config: The resolved config; empty if there is none.
        config_text: The same as a page, or as JSON.
        environments: The content of `environment.json`, once for each time that it changed, oldest first.
        rows: The rows of `metrics.jsonl`, in the order of the file.
        events: What the log says about the course of the training.
        ended: Why the last training ended before its last step; empty if it did not.
        is_locked: Whether there is a `run.lock`.
        seed: That of the newest checkpoint.
        checkpoints: The steps that checkpoints hold, in order.
        pictures: Step -> the picture of the validation at that step.
        scorings: The scores that `vq val` and `vq test` computed.
        generated: The grids that `vq generate` drew.
        notes: What is missing or damaged.
    """

    name: str
    folder: Path
    config: dict[str, Any]
    config_text: str
    environments: list[dict[str, Any]]
    rows: list[Row]
    events: list[Event]
    ended: str
    is_locked: bool
    seed: Any
    checkpoints: list[int]
    pictures: dict[int, Path]
    scorings: list[Scoring]
    generated: list[Path]
    notes: list[str]

    def rows_of(self, split: str) -> list[Row]:
        """The rows of a split by step; of several rows of one step, the last one."""
        found = {row.step: row for row in self.rows if row.split == split}
        return [found[step] for step in sorted(found)]

    @property
    def last_step(self) -> int:
        """The last step that a row or a checkpoint reports."""
        return max([0, *(row.step for row in self.rows), *self.checkpoints])

    @property
    def max_steps(self) -> int | None:
        """The number of steps that the config asks for."""
        return _integer(self.config, "trainer", "max_steps")

    @property
    def batch_size(self) -> int | None:
        """The images of a step, over all ranks."""
        return _integer(self.config, "train_data", "batch_size")

    def class_of(self, *place: str) -> str:
        """The short name of the class at a place of the config; empty if there is none."""
        node: Any = self.config
        for key in (*place, "type"):
            node = node.get(key) if isinstance(node, dict) else None
        return node.rpartition(".")[2] if isinstance(node, str) else ""

    @property
    def environment(self) -> dict[str, Any]:
        """How the latest training was started."""
        return self.environments[-1] if self.environments else {}


def is_run(folder: Path) -> bool:
    """Whether a folder has any of the files by which a run is known."""
    return folder.is_dir() and any((folder / name).exists() for name in MARKS)


def read_run(folder: Path, name: str) -> Run:
    """Reads a run folder.

    Args:
        folder: `work_dirs/NAME`, or a copy of it.
        name: How the report calls it.
    """
    notes: list[str] = []
    config = _object(folder / "config.json", notes)
    checkpoints = checkpoints_in(folder / "checkpoints")
    steps = sorted(int(path.name.removeprefix("iter_")) for path in checkpoints)
    return Run(
        name=name,
        folder=folder,
        config=config,
        config_text=_text(folder / "config_resolved.py", [], 2**24) or json.dumps(config, indent=2),
        environments=_environments(folder, notes),
        rows=_rows(folder / METRICS, notes),
        events=events_in(_text(folder / "log.txt", notes)),
        ended=_text(folder / ENDED, []).strip(),
        is_locked=(folder / LOCK).exists(),
        seed=_object(checkpoints[0] / ARGUMENTS, []).get("seed") if checkpoints else None,
        checkpoints=steps,
        pictures=_pictures(folder),
        scorings=list(_scorings(folder, notes)),
        generated=sorted([*folder.glob("*_grid.png"), *folder.glob("generated/*_grid.png")]),
        notes=notes,
    )


def _integer(config: dict[str, Any], section: str, key: str) -> int | None:
    node = config.get(section)
    value = node.get(key) if isinstance(node, dict) else None
    return value if isinstance(value, int) and value > 0 else None


def _object(file: Path, notes: list[str]) -> dict[str, Any]:
    """The object in a JSON file; empty, with a note, if there is none."""
    try:
        found = read_json(file)
    except FileNotFoundError:
        notes.append(f"{file.name} is missing")
    except (OSError, ValueError) as error:
        notes.append(f"{file.name} cannot be read: {error}")
    else:
        if isinstance(found, dict) and not _is_nested_deeply(found):
            return found
        problem = "one that is nested too deeply" if isinstance(found, dict) else type(found).__name__
        notes.append(f"{file.name}: expected an object, got {problem}")
    return {}


def _text(file: Path, notes: list[str], most: int = LARGEST) -> str:
    try:
        return read_regular(file, most=most).decode("utf-8", errors="replace")
    except FileNotFoundError:
        notes.append(f"{file.name} is missing")
    except OSError as error:
        notes.append(f"{file.name} cannot be read: {error}")
    return ""


def _environments(folder: Path, notes: list[str]) -> list[dict[str, Any]]:
    """The present `environment.json`, preceded by those that it replaced."""
    number = {path: path.name.removeprefix("environment.json.") for path in folder.glob("environment.json.*")}
    old = sorted((int(text), path) for path, text in number.items() if re.fullmatch(r"[0-9]{1,9}", text))
    found = [_object(file, notes) for file in (*(path for _, path in old), folder / "environment.json")]
    return [record for record in found if record]


def _rows(file: Path, notes: list[str]) -> list[Row]:
    lines = _text(file, notes).split("\n")
    lines = [line for line in lines if line.strip()]
    rows = [row for line in lines if (row := _row(line)) is not None]
    if damaged := len(lines) - len(rows):
        notes.append(f"{file.name}: skipped {damaged} of {len(lines)} lines, which are damaged")
    return rows


def _row(line: str) -> Row | None:
    """The row in a line of JSON; None for anything else."""
    try:
        found = json.loads(line)
        step, split = found.pop("step"), found.pop("split")
        if not (isinstance(split, str) and type(step) is int and 0 <= step < LARGEST_STEP):
            return None
        return Row(step=step, split=split, values=_numbers(found))
    except (ValueError, RecursionError, AttributeError, KeyError, TypeError):
        return None


def _numbers(found: dict[str, Any]) -> dict[str, float]:
    """The values that are numbers; the few that a chart cannot show become 0 or infinite."""
    numbers = {}
    for name, value in found.items():
        if isinstance(value, int | float) and not isinstance(value, bool):
            if abs(value) > LARGEST_VALUE:
                numbers[name] = math.inf if value > 0 else -math.inf
            else:
                numbers[name] = 0.0 if abs(value) < 1 / LARGEST_VALUE else float(value)
    return numbers


def _is_nested_deeply(node: Any) -> bool:
    """Whether a value read from JSON has more levels than anything that vq writes."""
    level = [node]
    for _ in range(DEEPEST):
        level = [
            child
            for parent in level
            if isinstance(parent, dict | list)
            for child in (parent.values() if isinstance(parent, dict) else parent)
        ]
        if not level:
            return False
    return True


def _pictures(folder: Path) -> dict[int, Path]:
    """The pictures of validations; those of `vq val` at steps without one."""
    files = [*folder.glob("val/iter_*/reconstructions.png"), *folder.glob("images/iter_*.png")]
    found = {}
    for file in files:
        name = file.stem if file.parent.name == "images" else file.parent.name
        if re.fullmatch(r"iter_[0-9]{1,15}", name):
            found[int(name.removeprefix("iter_"))] = file
    return dict(sorted(found.items()))


def _scorings(folder: Path, notes: list[str]) -> Iterator[Scoring]:
    steps = [
        (path, path.parent.name.removeprefix("iter_")) for path in folder.glob("val/iter_*/metrics.json")
    ]
    scored = sorted((int(text), path) for path, text in steps if re.fullmatch(r"[0-9]{1,15}", text))
    for file in [*(path for _, path in scored), folder / "test" / "metrics.json"]:
        if not file.exists():
            continue
        record, place = _object(file, notes), str(file.parent.relative_to(folder))
        scores, stamps = record.get("scores"), record.get("stamp")
        if not isinstance(scores, dict):
            notes.append(f"{place}/metrics.json holds no scores")
            continue
        stamps = stamps if isinstance(stamps, dict) else {}
        common = {"num_images": record.get("num_images")}
        found = {name: stamps.get(name) for name in scores}
        known = {name: value if isinstance(value, dict) else common for name, value in found.items()}
        yield Scoring(place=place, scores=_numbers(scores), stamps=known)
