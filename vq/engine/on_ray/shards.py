"""Shards of a token or feature store, written by the workers of a Ray cluster."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from vq.data import ImageLoader
from vq.data.stores.token_shards import ShardFiles
from vq.engine.evaluation.pace import Pace
from vq.engine.jobs.store_writing import Recorder, Shard, write_shards
from vq.engine.jobs.token_folder import SETTINGS
from vq.engine.on_ray.pool import Answer, Task, Workers


@dataclass(frozen=True, slots=True, kw_only=True)
class RayShards:
    """Writes shards on the workers of a cluster: an argument of `write_store`.

    A shard is one task. If a worker ends, the shard that it had begun is written again, to the same bytes.

    Attributes:
        workers: The workers.
    """

    workers: Workers

    def __call__(
        self,
        recorder: Recorder,
        loader: ImageLoader,
        shards: Sequence[Shard],
        on_progress: Callable[[int], None],
    ) -> Pace:
        """Writes the shards; the pace is the sum over the workers."""
        pace = Pace(total=0.0, busy=0.0, waited=0.0)
        if not shards:
            return pace
        directory = shards[0][0].directory.absolute()
        job = _ShardJob(recorder=recorder, loader=loader, directory=directory)
        tasks = [{"number": files.number, "start": i.start, "stop": i.stop} for files, i in shards]
        answers = self.workers.run(job, tasks, shared=directory / SETTINGS)
        for (_, items), answer in zip(shards, answers, strict=True):
            on_progress(len(items))
            pace = Pace(**{name: value + answer.facts[name] for name, value in asdict(pace).items()})
        return pace


@dataclass(frozen=True, slots=True, kw_only=True)
class _ShardJob:
    recorder: Recorder
    loader: ImageLoader
    directory: Path

    def to(self, device: str) -> None:
        self.recorder.to(device)

    def __call__(self, task: Task) -> Answer:
        files = ShardFiles(directory=self.directory, number=task["number"])
        items = range(task["start"], task["stop"])
        pace = write_shards(self.recorder, self.loader, [(files, items)], lambda n: None)
        return Answer(facts=asdict(pace))
