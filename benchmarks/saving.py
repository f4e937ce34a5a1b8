"""What saving costs the training: `OMP_NUM_THREADS=1 python benchmarks/saving.py`.

A checkpoint is copied between two steps and then written by a thread, which uses a second core. The real `fit` takes
stretches of steps, each of which saves once. The network has 8 million parameters, so that a checkpoint of weights,
averages and moments has 130 MB and is written during several steps of a small batch. Bar: these steps take at most 1.05
times as long as the other steps of their stretch (the median; without the time in which other programs have the cores).
The step that ends with the copy is reported apart.
"""

import argparse
import json
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import date
from itertools import pairwise
from pathlib import Path

import torch
from loop import NEVER, StretchIsOverError

from vq import config
from vq.data import Batch, ImageLoader
from vq.engine import assembly
from vq.engine.loop.checkpoint_files import estimated_bytes
from vq.engine.loop.launch import Machine, open_log
from vq.engine.loop.step_runner import StepRunner
from vq.engine.loop.trainer import Trainer

BAR = 1.05
WIDTHS, BATCH_SIZE = [96, 192, 384], 4
Times = dict[str, list[float]]


class WatchingLoader(ImageLoader):
    """Yields the batches of a stretch of steps; notes when each was asked for and if a checkpoint was being written."""

    def __init__(self, loader: ImageLoader, steps: int, checkpoints: Path) -> None:
        self.loader, self.steps, self.checkpoints = loader, steps, checkpoints
        self.seen: list[tuple[float, bool]] = []

    def train_batches(self, **arguments: int) -> Iterator[Batch]:
        batches = self.loader.train_batches(**arguments)
        for _ in range(self.steps):
            self._look()
            yield next(batches)
        self._look()
        raise StretchIsOverError

    def _look(self) -> None:
        self.seen.append((time_on_a_core(), any(self.checkpoints.glob("*.partial"))))


def time_on_a_core() -> float:
    """Seconds, without those in which this thread was ready to run and other programs had the cores."""
    queued = Path("/proc/thread-self/schedstat")  # of Linux
    waited = int(queued.read_text().split()[1]) if queued.exists() else 0
    return time.perf_counter() - waited / 1e9


def stretch(
    trainer: Trainer, loader: ImageLoader, first: int, steps: int, every: int
) -> Iterator[tuple[str, float]]:
    """The kind and the seconds of each step of a stretch of `fit`, without the first two."""
    watching = WatchingLoader(loader, steps, trainer.checkpointer.directory)
    trainer.runner = StepRunner(train_step=trainer.train_step, data=watching, seed=0)
    trainer.checkpointer.every = every
    with suppress(StretchIsOverError):
        trainer.fit(first)
    for i, ((began, before), (ended, after)) in enumerate(pairwise(watching.seen)):
        if i < 2:
            continue
        if (first + i + 1) % every == 0:
            yield "copying", ended - began
        else:
            yield "writing" if before or after else "other", ended - began


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=16, help="steps of a stretch")
    parser.add_argument("--stretches", type=int, default=20, help="how many stretches")
    parser.add_argument("--out", type=Path, help="also write the figures here, as JSON")
    args = parser.parse_args()

    changes = {f".tokenizer.{part}.widths": WIDTHS for part in ("encoder", "decoder")}
    never = {".trainer.max_steps": NEVER, ".evaluator.every": NEVER, ".checkpointer.every": NEVER}
    small = {".train_data.batch_size": BATCH_SIZE, ".checkpointer.keep": 2}
    tree = config.load("configs/fsq/1000_emoji.py", overrides={**changes, **never, **small}).to_dict()
    machine = Machine(device="cpu", rank=0, world_size=1, threads=torch.get_num_threads(), autocast=False)
    loader = assembly.make_loader(tree, "train_data")
    copying, writing, others, ratios, costs = (list[float]() for _ in range(5))
    with tempfile.TemporaryDirectory(dir=".") as folder:
        open_log(Path(folder) / "log.txt")
        train_step = assembly.make_step(tree, assembly.make_tokenizer(tree))
        trainer = assembly.make_trainer(tree, Path(folder), train_step, machine, seed=0)
        for first in range(0, args.stretches * args.steps, args.steps):
            times: Times = {"other": [], "copying": [], "writing": []}
            for kind, seconds in stretch(trainer, loader, first, args.steps, first + args.steps // 2):
                times[kind].append(1000 * seconds)
            usual = statistics.median(times["other"])
            ratios += [found / usual for found in times["writing"]]
            others.append(usual)
            writing += times["writing"]
            copying += [found - usual for found in times["copying"]]
            costs.append(sum(found / usual - 1 for found in times["copying"] + times["writing"]))
    record = {
        "command": "python " + " ".join(sys.argv),
        "date": date.today().isoformat(),
        "hardware": f"{platform.machine()}; {machine}",
        "checkpoint_mb": estimated_bytes(train_step) / 1e6,
        "step_ms": statistics.median(others),
        "copy_ms": statistics.median(copying),
        "writing_step_ms": statistics.median(writing),
        "writing_steps": len(writing),
        "ratio": statistics.median(ratios),
        "bar": BAR,
        "steps_that_a_save_costs": statistics.median(costs),
    }
    print(json.dumps(record, indent=2))
    if args.out:
        args.out.write_text(json.dumps(record, indent=2) + "\n")
    sys.exit(record["ratio"] > BAR)


if __name__ == "__main__":
    main()
