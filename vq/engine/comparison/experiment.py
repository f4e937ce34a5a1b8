"""Trains the contestants of a page that have no row yet, side by side, and writes the tables of all."""

import json
import logging
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import torch
from rich.progress import Progress, TaskID

from vq import packages
from vq.engine import assembly
from vq.engine.comparison.contestant import (
    Contestant,
    ContestantError,
    Row,
    Train,
    contestants_of,
    train_and_measure,
)
from vq.engine.comparison.plan import Comparison
from vq.engine.comparison.report import PICTURES, write_results
from vq.engine.evaluation.progress import duration, progress_bar
from vq.engine.jobs.own_process import OwnProcess
from vq.errors import ConfigError, UserError
from vq.files import write_atomically
from vq.registry import build
from vq.text import file_name, printable

POLL_SECONDS = 0.5
PATIENCE = 20.0
"""Seconds that a training has to save its step when the command is stopped."""
logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Where contestants are trained: one on each GPU, or one on each core with one thread.

    Attributes:
        device: `cuda` or `cpu`.
        count: How many are trained at the same time.
    """

    device: str
    count: int

    @classmethod
    def of(cls, device: str | None, jobs: int | None) -> "Places":
        """The places of this machine.

        Args:
            device: `cuda`, `cpu`, or None for CUDA if there is a GPU.
            jobs: How many to use; None for all GPUs or all cores.
        """
        kind = device or ("cuda" if torch.cuda.is_available() else "cpu")
        most = torch.cuda.device_count() if kind == "cuda" else _cores()
        return cls(device=kind, count=jobs or most)

    def environment(self, place: int) -> dict[str, str]:
        """The variables of the process that trains at a place."""
        if self.device != "cuda":
            return {"OMP_NUM_THREADS": "1"}  # numbers do not depend on how many are trained at the same time
        threads = str(max(1, _cores() // self.count))
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
        gpus = visible.split(",") if visible else [str(i) for i in range(torch.cuda.device_count())]
        return {"OMP_NUM_THREADS": threads, "CUDA_VISIBLE_DEVICES": gpus[place % len(gpus)]}


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def check_packages(*, num_seeds: int) -> None:
    """Finds out before the first training whether the packages are there that the results need.

    Raises:
        MissingPackageError: If one is not.
    """
    packages.require("matplotlib", needed_by="vq compare")
    if num_seeds > 1:
        packages.require("scipy", needed_by="vq compare with several seeds")


@dataclass(frozen=True, slots=True, kw_only=True)
class Experiment:
    """A page with contestants, and what the command line says of it.

    Attributes:
        name: The name of its folder in `out` and in `work_dirs/compare`.
        tree: The page.
        only: The contestants to train; empty for all.
        seeds: The seeds to train with; empty for those of the page.
        out: The folder of results.
        work_dirs: The folder of all runs.
        places: Where contestants are trained.
        train: The command `vq train`.
        command: The command that computes all rows, for the rows.
    """

    name: str
    tree: Mapping[str, Any]
    only: Sequence[str]
    seeds: Sequence[int]
    out: Path
    work_dirs: Path
    places: Places
    train: Train
    command: str

    @property
    def folder(self) -> Path:
        """Rows and tables are written there; rows that it holds are not computed again."""
        return self.out / self.name

    def plan(self) -> Comparison:
        """The section `comparison` of the page, or its defaults."""
        node = self.tree.get("comparison")
        plan: Comparison = Comparison() if node is None else build(node, path="comparison")
        names = list(self.tree["contestants"])
        plan.baseline = plan.baseline or names[0]
        if plan.baseline not in names:
            raise ConfigError(
                f"comparison.baseline: expected one of {', '.join(names)}, got {plan.baseline!r}"
            )
        return plan

    def prepare(self) -> tuple[list[Contestant], list[Contestant]]:
        """All contestants, and those which this command trains; what cannot be built or drawn is refused.

        Raises:
            ConfigError: For the first contestant that cannot be built, or that has not the score that decides.
            MissingPackageError: If a package is missing that the results need.
            ContestantError: If a stored row cannot be read.
        """
        plan = self.plan()
        seeds = [*dict.fromkeys([*plan.seeds, *self.seeds])]
        check_packages(num_seeds=len(seeds))
        everyone = contestants_of(self.tree, self.name, seeds)
        _check_score(plan.score, everyone)
        chosen = [
            each
            for each in everyone
            if each.name in (self.only or self.tree["contestants"])
            and each.seed in (self.seeds or plan.seeds)
        ]
        return everyone, [each for each in chosen if each.stored_row(self.folder) is None]

    def run(self, everyone: Sequence[Contestant], missing: Sequence[Contestant]) -> list[Path]:
        """Trains what has no row yet, and returns the files of the results; the arguments are those of `prepare`.

        Raises:
            ContestantError: If some contestants could not be trained; the rows and tables of the others are written.
        """
        plan = self.plan()
        budget = "" if plan.cpu_hours is None else f", stated budget {plan.cpu_hours:g} CPU hours"
        logger.info(
            "%s: %d runs to train, %d at a time%s", self.name, len(missing), self.places.count, budget
        )
        failures = Training(experiment=self, waiting=list(missing)).run() if missing else []
        rows = [row for each in everyone if (row := each.stored_row(self.folder)) is not None]
        is_higher_better = _directions(everyone[0])[plan.score]
        written = (
            write_results(self.name, rows, plan, self.folder, is_higher_better=is_higher_better)
            if rows
            else []
        )
        if failures:
            raise ContestantError("\n".join(failures))
        return written


def _check_score(score: str, everyone: Sequence[Contestant]) -> None:
    """Finds out before the first training whether every contestant will have the score that decides."""
    kinds = {
        json.dumps([node.get("type") for node in each.config["evaluator"].get("metrics", [])]): each
        for each in everyone
    }
    for each in kinds.values():  # a network of a metric is loaded once per combination of metrics
        directions = _directions(each)
        if score not in directions:
            raise ConfigError(
                f"comparison.score: expected a score by which the evaluator of {each.name!r} can rank "
                f"({', '.join(sorted(directions))}), got {score!r}"
            )


def _directions(contestant: Contestant) -> dict[str, bool]:
    """Whether a larger value is better, for each score of the contestant's evaluator."""
    config = contestant.config
    below = assembly.make_tokenizer_below(config)
    return assembly.make_evaluator(config, frozen_tokenizer=below).directions()


@dataclass(slots=True, kw_only=True)
class Training:
    """The trainings of an experiment while they run, each in a process of its own.

    Attributes:
        experiment: The experiment.
        waiting: The contestants that have not begun.
        running: The contestant and the place of each process.
        failures: A message for each contestant that could not be trained.
        done: The steps of the contestants that have ended.
    """

    experiment: Experiment
    waiting: list[Contestant]
    running: dict[OwnProcess, tuple[Contestant, int]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    done: int = 0

    def run(self) -> list[str]:
        """Trains all; one bar shows the steps of all. Returns the messages of those that failed."""
        count, started = len(self.waiting), time.monotonic()
        total = sum(each.steps for each in self.waiting)
        with progress_bar() as bar:
            task = bar.add_task(printable(self.experiment.name), total=total, note="")
            try:
                while self.waiting or self.running:
                    self._start()
                    for receiver in wait([own.receiver for own in self.running], timeout=POLL_SECONDS):
                        own = next(each for each in self.running if each.receiver is receiver)
                        self._finish(own)
                        left = (time.monotonic() - started) * (total / max(1, self.done) - 1)
                        ended = count - len(self.waiting) - len(self.running)
                        logger.info("%d of %d runs have ended, eta %s", ended, count, duration(left))
                    self._show(bar, task)
            finally:
                for own in self.running:
                    own.stop()
                for own in self.running:
                    own.end(PATIENCE)
        return self.failures

    def _start(self) -> None:
        """Starts contestants at the places that are free."""
        places = self.experiment.places
        free = set(range(places.count)) - {place for _, place in self.running.values()}
        for place in sorted(free)[: len(self.waiting)]:
            contestant = self.waiting.pop(0)
            function = partial(
                train_and_measure,
                contestant,
                self.experiment.train,
                work_dirs=self.experiment.work_dirs,
                device=places.device,
            )
            self.running[OwnProcess(function, places.environment(place))] = contestant, place

    def _finish(self, own: OwnProcess) -> None:
        """Writes the row of a process that has ended."""
        contestant, _ = self.running.pop(own)
        self.done += contestant.steps
        who = f"contestant {contestant.name!r}, seed {contestant.seed}"
        try:
            row: Row = own.result()
        except UserError as error:
            self.failures.append(f"{who}: {error}")
        except (OSError, RuntimeError) as error:
            console = self.experiment.work_dirs / contestant.run / "console.txt"
            self.failures.append(f"{who}: {error}; {console} has what it printed")
        else:
            row = {
                "experiment": self.experiment.name,
                **row,
                "command": contestant.command(self.experiment.command),
            }
            write_atomically(contestant.row_file(self.experiment.folder), json.dumps(row, indent=2) + "\n")
            self._keep_picture(contestant)
            shown = "  ".join(f"{name} {value:.4g}" for name, value in row["scores"].items())
            logger.info("%s seed %d: %s", contestant.name, contestant.seed, shown)
            return
        logger.error("%s", self.failures[-1])

    def _keep_picture(self, contestant: Contestant) -> None:
        """Copies the picture of the last validation, for the first seed of the page."""
        run = self.experiment.work_dirs / contestant.run
        picture = run / "images" / f"iter_{contestant.steps}.png"
        if contestant.seed == self.experiment.plan().seeds[0] and picture.exists():
            kept = self.experiment.folder / PICTURES / f"{file_name(contestant.name)}.png"
            write_atomically(kept, picture.read_bytes())

    def _show(self, bar: Progress, task: TaskID) -> None:
        """Moves the bar to the number of steps of all contestants."""
        running = [contestant for contestant, _ in self.running.values()]
        steps = sum(_steps_done(self.experiment.work_dirs / each.run) for each in running)
        names = ", ".join(f"{each.name} {each.seed}" for each in running)
        bar.update(task, completed=self.done + steps, note=printable(names))


def _steps_done(run: Path) -> int:
    """The step of the last complete row of scalars that a run has written."""
    try:
        lines = (run / "metrics.jsonl").read_bytes().splitlines()
        return int(json.loads(lines[-1])["step"]) if lines else 0
    except (OSError, ValueError, KeyError, TypeError):
        return 0
