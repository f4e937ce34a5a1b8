"""Images of a generator, drawn and written by the workers of a Ray cluster."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from vq.engine.jobs.generation import ImageSource, Wanted, draw_images
from vq.engine.jobs.sample_folder import SETTINGS
from vq.engine.on_ray.pool import Answer, Task, Workers


@dataclass(frozen=True, slots=True, kw_only=True)
class RayImages:
    """Draws batches of images on the workers of a cluster: an argument of `write_images`.

    A batch is one task. If a worker ends, the batch that it had begun is drawn again, to the same files.

    Attributes:
        workers: The workers.
    """

    workers: Workers

    def __call__(
        self, source: ImageSource, batches: Sequence[Sequence[Wanted]], folder: Path
    ) -> Iterator[dict[str, str]]:
        """Yields the SHA-256 of each file of a batch by its name, in the order of the batches."""
        if not batches:
            return
        job = _ImageJob(source=source, batches=batches, folder=folder)
        tasks = [{"batch": i} for i in range(len(batches))]
        for answer in self.workers.run(job, tasks, shared=folder / SETTINGS):
            yield dict(answer.facts)


@dataclass(frozen=True, slots=True, kw_only=True)
class _ImageJob:
    source: ImageSource
    batches: Sequence[Sequence[Wanted]]
    folder: Path

    def to(self, device: str) -> None:
        self.source.to(device)

    def __call__(self, task: Task) -> Answer:
        (hashes,) = draw_images(self.source, [self.batches[task["batch"]]], self.folder)
        return Answer(facts=hashes)
