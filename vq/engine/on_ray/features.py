"""Features of a set for its reference statistics, computed by the workers of a Ray cluster."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vq.data import ImageLoader
from vq.engine.on_ray.pool import Answer, Task, Workers
from vq.metrics import StatisticsCollector
from vq.networks.frozen.features import FeatureNetwork

IMAGES_PER_TASK = 1024
"""About how many images a task covers: whole batches, at least one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RayFeatures:
    """Adds the features of a set that the workers of a cluster compute: an argument of `collect`.

    The workers return the features of each batch, and this process sums them in the order of the set, as a command
    without a cluster does. So the sums are equal to the last bit, whatever the number of workers.

    Attributes:
        workers: The workers.
    """

    workers: Workers

    def __call__(
        self, collector: StatisticsCollector, loader: ImageLoader, on_progress: Callable[[int], None]
    ) -> list[str]:
        """Adds the features of all images; returns the names of those that cannot be decoded."""
        job = _FeatureJob(network=collector.network, rgb=collector.rgb, loader=loader)
        size = loader.batch_size * max(1, IMAGES_PER_TASK // loader.batch_size)
        tasks = [
            {"start": start, "stop": min(start + size, loader.num_samples)}
            for start in range(0, loader.num_samples, size)
        ]
        undecodable: list[str] = []
        for task, answer in zip(tasks, self.workers.run(job, tasks), strict=True):
            undecodable += answer.facts["undecodable"]
            for features in _batches(answer, collector.pool.total.device):
                collector.add(features)
            on_progress(task["stop"] - task["start"])
        return undecodable


def _batches(answer: Answer, device: torch.device) -> Iterator[dict[str, Tensor]]:
    """The features of each batch of a task."""
    sizes = answer.facts["sizes"]
    parts = {
        kind: torch.from_numpy(values.copy()).to(device).split(sizes)
        for kind, values in answer.arrays.items()
    }
    return ({kind: parts[kind][i] for kind in parts} for i in range(len(sizes)))


@dataclass(frozen=True, slots=True, kw_only=True)
class _FeatureJob:
    network: FeatureNetwork
    rgb: Sequence[int] | None
    loader: ImageLoader

    def to(self, device: str) -> None:
        self.network.to(device)

    def __call__(self, task: Task) -> Answer:
        collector = StatisticsCollector(network=self.network, rgb=self.rgb)
        device = next(self.network.buffers()).device
        size = self.loader.batch_size
        groups = [range(i, min(i + size, task["stop"])) for i in range(task["start"], task["stop"], size)]
        undecodable: list[str] = []
        found: list[dict[str, Tensor]] = []
        for batch in self.loader.chosen_batches(groups, checksums=False):
            undecodable += batch["undecodable"]
            if batch["key"]:
                found.append(collector.features(batch["image"].to(device)))
        kinds = found[0].keys() & {"pool", "spatial"} if found else ()
        return Answer(
            facts={"undecodable": undecodable, "sizes": [len(features["pool"]) for features in found]},
            arrays={kind: torch.cat([features[kind] for features in found]).cpu().numpy() for kind in kinds},
        )
