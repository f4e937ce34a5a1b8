"""What the trainer adds to a step of about 20 ms: `fit` against a bare loop over the same model and images.

Both sides train equal models on the same batches, a stretch of steps each in turn, and wait for the device once at the
end of a stretch. The trainer has its console, metrics file and keyed seeding; neither side validates or saves.
"""

import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu.timing import Rows, Side
from vq import config
from vq.data import Batch, ImageLoader
from vq.engine import assembly
from vq.engine.loop.launch import Machine, open_log
from vq.engine.loop.step_runner import StepRunner
from vq.engine.steps.base import TrainStep

PAGE = Path(__file__).parents[2] / "tests" / "tiny_page.py"
NEVER = 10**9
WANTED_MS = 20.0
LARGEST_OVERHEAD = 0.03


class StretchIsOverError(Exception):
    """Leaves `fit` in the middle, before the validation and the checkpoint of a run's end."""


class Repeated(ImageLoader):
    """Yields one batch again and again, so that neither side waits for data, and raises after `steps`."""

    def __init__(self, loader: ImageLoader, steps: int) -> None:
        self.loader, self.steps = loader, steps
        self.batch: Batch = next(iter(loader.train_batches(seed=0)))
        self.dataset = loader.dataset

    def train_batches(self, **arguments: int) -> Iterator[Batch]:
        """The batch, `steps` times."""
        for _ in range(self.steps):
            yield self.batch
        raise StretchIsOverError


def tree_of(batch_size: int, width: int, side: int) -> dict[str, Any]:
    """A page whose step takes about 20 ms on a GPU with a suitable batch."""
    network = {"base_width": width, "multipliers": [1, 2], "num_blocks": 1}
    tree = config.load(
        PAGE,
        overrides={
            ".trainer.max_steps": NEVER, ".evaluator.every": NEVER, ".checkpointer.every": NEVER,
            ".trainer.log_every": 50, ".train_data.batch_size": batch_size,
            ".train_data.dataset.image_size": side, ".val_data.dataset.image_size": side,
            ".train_data.dataset.num_images": max(64, batch_size),
        },
    ).to_dict()  # fmt: skip
    for part in ("encoder", "decoder"):
        tree["tokenizer"][part] |= network
    return tree


def made_step(tree: dict[str, Any], device: torch.device) -> TrainStep:
    """A training step on a device."""
    return assembly.make_step(tree, assembly.make_tokenizer(tree).to(device).train())


def bare_loop(step: TrainStep, loader: Repeated) -> Side:
    """Calls the step for each batch and does nothing else."""
    number = 0

    def run() -> None:
        nonlocal number
        with suppress(StretchIsOverError):
            for batch in loader.train_batches():
                step([batch], number)
                number += 1

    return run


def trainer_loop(tree: dict[str, Any], device: torch.device, loader: Repeated, folder: Path) -> Side:
    """`fit` over the same batches."""
    open_log(folder / "log.txt")
    step = made_step(tree, device)
    machine = Machine(
        device=str(device), rank=0, world_size=1, threads=torch.get_num_threads(), autocast=False
    )
    trainer = assembly.make_trainer(tree, folder, step, machine, seed=0)
    trainer.runner = StepRunner(train_step=step, data=loader, seed=0)
    number = 0

    def run() -> None:
        nonlocal number
        with suppress(StretchIsOverError):
            trainer.fit(number)
        number += loader.steps

    return run


def fitting_batch(rows: Rows, width: int, side: int) -> int:
    """The smallest power of 2 of images whose step takes 20 ms."""
    for batch_size in (16, 32, 64, 128, 256, 512):
        tree = tree_of(batch_size, width, side)
        run = bare_loop(made_step(tree, rows.device), Repeated(assembly.make_loader(tree, "train_data"), 5))
        run()
        if rows.milliseconds(run) / 5 >= WANTED_MS:
            break
    return batch_size


def main() -> None:
    """Measures the row."""
    rows = Rows(__doc__)
    width, side, steps = rows.size(64, 8), rows.size(64, 16), rows.size(50, 4)
    title = f"{steps} steps of about {WANTED_MS:.0f} ms, {side} px"
    if title in rows.found:
        return
    batch_size = 8 if rows.is_small else fitting_batch(rows, width, side)
    tree = tree_of(batch_size, width, side)
    loader = Repeated(assembly.make_loader(tree, "train_data"), steps)
    with tempfile.TemporaryDirectory() as folder:
        rows.measure(
            title,
            {
                "trainer": lambda: trainer_loop(tree, rows.device, loader, Path(folder)),
                "bare loop": lambda: bare_loop(made_step(tree, rows.device), loader),
            },
            bars={"bare loop": 1 / (1 + LARGEST_OVERHEAD)},
            rounds=7,
            warm_up=1,
            facts={"images": batch_size},
            derive=lambda ms: {"ms a step": ms / steps},
        )


if __name__ == "__main__":
    main()
