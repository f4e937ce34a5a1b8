"""Jobs on the workers of a Ray cluster: each task is done once, whatever workers end, and answered in order."""

import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Shaped

from vq import __version__, failures
from vq.errors import UserError

Task = Mapping[str, int]
"""What one call of a job is about, in numbers."""

MAX_ATTEMPTS = 3
"""How many workers may end over one task before the command ends."""

MOST_TASKS = 10_000
"""Ray keeps a record of each of its tasks; longer jobs put several calls into one."""


class WorkerError(UserError, RuntimeError):
    """An error of a worker that a user can correct, or a worker that ended too often."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The result of one task.

    Attributes:
        facts: Ready for JSON.
        arrays: Name -> array.
    """

    facts: Mapping[str, Any]
    arrays: Mapping[str, Shaped[np.ndarray, "*shape"]] = field(default_factory=dict)


@runtime_checkable
class Job(Protocol):
    """Work that consists of independent tasks. It is copied to the workers once, on the CPU."""

    def to(self, device: str) -> None:
        """Moves the networks to the device of the worker."""

    def __call__(self, task: Task) -> Answer:
        """Does a task. A task that was begun by a worker that ended is done again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Workers:
    """The workers of a Ray cluster, one process each.

    Attributes:
        count: How many there are.
        device: `cpu` or `cuda`; on `cuda` each has a GPU.
        autocast: Whether the networks run in bfloat16.
    """

    count: int
    device: str
    autocast: bool

    def __str__(self) -> str:
        precision = "bfloat16 autocast" if self.autocast else "float32"
        return f"{self.count} workers on {self.device}, {precision}"

    def run(self, job: Job, tasks: Sequence[Task], *, shared: Path | None = None) -> Iterator[Answer]:
        """Yields the answer of each task, in order.

        Args:
            job: Copied to each worker.
            tasks: The tasks.
            shared: A file that the command has written, if the workers write beside it; each must see it.

        Raises:
            WorkerError: If a worker met an error that a user can correct, or a task ended `MAX_ATTEMPTS` workers.
        """
        import ray
        import ray.data

        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.execution_options.preserve_order = True
        attempts = ray.remote(num_cpus=0)(_Attempts).remote()
        setting = _Setting(
            self.device, self.autocast, os.getcwd(), str((shared or Path()).absolute()), _versions()
        )
        blocks = min(len(tasks), MOST_TASKS)
        answers = ray.data.from_items([dict(task) for task in tasks], override_num_blocks=blocks).map_batches(
            _Worker,
            batch_size=1,
            fn_constructor_args=(job, setting, attempts),
            compute=ray.data.ActorPoolStrategy(size=min(self.count, blocks), max_tasks_in_flight_per_actor=2),
            **({"num_gpus": 1} if self.device == "cuda" else {"num_cpus": 1}),
        )
        for row in answers.iter_rows():
            yield _answer(row)


def _answer(row: Mapping[str, Any]) -> Answer:
    if row["error"]:
        raise WorkerError(row["error"])
    arrays = {name: value for name, value in row.items() if name not in ("facts", "error")}
    return Answer(facts=json.loads(row["facts"]), arrays=arrays)


def _versions() -> str:
    return f"vq {__version__}, torch {torch.__version__}"


@dataclass(frozen=True, slots=True)
class _Setting:
    """What a worker has to agree on with the process of the command.

    Attributes:
        device: Where the networks run.
        autocast: Whether they run in bfloat16.
        cwd: The folder that relative paths of the config start from.
        shared: A file or folder of the command that must exist.
        versions: Of the packages that compute.
    """

    device: str
    autocast: bool
    cwd: str
    shared: str
    versions: str

    def take(self) -> None:
        """Makes this process a worker.

        Raises:
            WorkerError: If it does not have the same files or packages as the command.
        """
        node = os.uname().nodename
        if _versions() != self.versions:
            raise WorkerError(
                f"--engine ray: expected {self.versions} on each node, got {_versions()} on {node}; install the same"
            )
        if not Path(self.cwd).is_dir() or not Path(self.shared).exists():
            raise WorkerError(
                f"--engine ray: expected {self.shared} on each node, got no such file on {node}; start the command "
                f"in a folder on a file system that all nodes share, with an --out there"
            )
        os.chdir(self.cwd)
        torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))


class _Attempts:
    """Counts how often each unfinished task was begun, in a process of its own that outlives the workers."""

    def __init__(self) -> None:
        self._begun: Counter[str] = Counter()

    def begin(self, task: str) -> int:
        """Adds an attempt; returns how many there are now."""
        self._begun[task] += 1
        return self._begun[task]

    def end(self, task: str) -> None:
        """Forgets the attempts of a task that was done."""
        del self._begun[task]


class _Worker:
    """What Ray keeps in each worker: the job, which it prepares at its first task, so that an error is an answer.

    Ray starts a worker that has ended again, and repeats its task, without limit.
    """

    def __init__(self, job: Job, setting: _Setting, attempts: Any) -> None:
        self._job, self._setting, self._attempts, self._is_ready = job, setting, attempts, False

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        task = {name: int(values[0]) for name, values in batch.items()}
        try:
            answer = self._do(task)
        except Exception as error:
            message = failures.user_message(error)
            if message is None:  # a defect, which is shown with its traceback
                raise
            return {"facts": ["{}"], "error": [message]}
        arrays = {name: array[None] for name, array in answer.arrays.items()}
        return {"facts": [json.dumps(answer.facts)], "error": [""], **arrays}

    def _do(self, task: Task) -> Answer:
        import ray

        name = ", ".join(f"{key} {value}" for key, value in task.items())
        if ray.get(self._attempts.begin.remote(name)) > MAX_ATTEMPTS:
            raise WorkerError(
                f"--engine ray: expected a worker that does the task ({name}), got {MAX_ATTEMPTS} that ended over "
                f"it; if memory was full, lower the batch size, num_workers or --ray-workers. What is complete is kept"
            )
        if not self._is_ready:
            self._setting.take()
            self._job.to(self._setting.device)
            self._is_ready = True
        with torch.no_grad(), torch.autocast(self._setting.device, torch.bfloat16, self._setting.autocast):
            answer = self._job(task)
        self._attempts.end.remote(name)
        return answer
