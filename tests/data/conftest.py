"""A set whose images encode their own number, and functions run by the ranks of a real process group."""

import multiprocessing
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from vq.data import ImageDataset, UndecodableImage


class NumberedImages(ImageDataset):
    """Image i holds i (modulo 256) in its first channel, and its columns and rows in the others."""

    def __init__(self, count: int, *, broken: Sequence[int] = (), sizes: Sequence[int] = (12,)) -> None:
        self.count, self.broken, self.sizes = count, set(broken), sizes
        self.read_items: list[int] = []

    def __len__(self):
        return self.count

    def read(self, index):
        self.read_items.append(index)
        if index in self.broken:
            raise UndecodableImage(self.key(index), "made so")
        size = self.sizes[index % len(self.sizes)]
        rows = torch.arange(size, dtype=torch.uint8).expand(size, size)
        return torch.stack([torch.full_like(rows, index % 256), rows, rows.T])

    def key(self, index):
        return f"image-{index}"

    def label(self, index):
        return 0 if index < 0.9 * self.count else 1

    @property
    def class_names(self):
        return ("common", "rare")


@pytest.fixture
def numbered() -> type[NumberedImages]:
    return NumberedImages


@pytest.fixture
def on_ranks(tmp_path: Path) -> Callable[[int, Callable[[], Any]], list[Any]]:
    """Runs a function in several processes that form a gloo group, and returns their results in rank order."""

    def work(rank: int, ranks: int, function: Callable[[], Any], results: Any) -> None:
        dist.init_process_group("gloo", init_method=f"file://{tmp_path}/{ranks}", rank=rank, world_size=ranks)
        results.put((rank, function()))
        dist.barrier()
        dist.destroy_process_group()

    def run(ranks: int, function: Callable[[], Any]) -> list[Any]:
        context = multiprocessing.get_context("fork")  # a new interpreter would take seconds per rank
        results = context.Queue()
        processes = [
            context.Process(target=work, args=(rank, ranks, function, results)) for rank in range(ranks)
        ]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12: this process has threads
            for process in processes:
                process.start()
        try:
            found = dict(results.get(timeout=120) for _ in processes)
            for process in processes:
                process.join(60)
        finally:
            for process in processes:
                process.kill()  # a rank that hangs would keep pytest from ending
        assert [process.exitcode for process in processes] == [0] * ranks
        return [found[rank] for rank in range(ranks)]

    return run
