"""What the trainer costs over a bare loop of the same model: `python benchmarks/loop.py`.

Both sides train the same tokenizer (same weights, batches, optimizer, average of weights) in one process, a
stretch of steps each in turn, and the medians of the time a step are compared. The trainer's side is the
real `fit` with its console, metrics file, TensorBoard and keyed seeding; neither side validates or saves.
Bar: at most 1.03. The marks by which a step measures its forward pass, backward pass and optimizer are
also timed by themselves; bar: at most 1 % of a step.
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
from typing import Any

import torch

from vq import config
from vq.data import Batch, ImageLoader
from vq.engine import assembly
from vq.engine.loop.launch import Machine, open_log
from vq.engine.loop.step_runner import StepRunner
from vq.engine.loop.trainer import Trainer
from vq.engine.steps.clock import BACKWARD, OPTIMIZER, StepClock
from vq.ops.images import to_signed_unit

BAR = 1.03
CLOCK_BAR = 0.01
NEVER = 10**9
Times = list[float]


class StretchIsOverError(Exception):
    """Leaves `fit` in the middle, before the validation and the checkpoint of a run's end."""


class TimedLoader(ImageLoader):
    """Yields the batches of a stretch of steps, and notes when each was asked for."""

    def __init__(self, loader: ImageLoader, steps: int) -> None:
        self.loader, self.steps, self.times = loader, steps, Times()

    def train_batches(self, **arguments: int) -> Iterator[Batch]:
        batches = self.loader.train_batches(**arguments)
        for _ in range(self.steps):
            self.times.append(time.perf_counter())
            yield next(batches)
        self.times.append(time.perf_counter())
        raise StretchIsOverError


def train_with_framework(trainer: Trainer, loader: ImageLoader, first: int, steps: int) -> Times:
    """Seconds of each step of a stretch of `fit`, without the first."""
    timed = TimedLoader(loader, steps)
    trainer.runner = StepRunner(train_step=trainer.train_step, data=timed, seed=0)
    with suppress(StretchIsOverError):
        trainer.fit(first)
    return durations(timed.times)


class BareLoop:
    """What one would write by hand: the model, the losses, the optimizer, and nothing else."""

    def __init__(self, tree: dict[str, Any]) -> None:
        step = assembly.make_step(tree, assembly.make_tokenizer(tree))
        self.tokenizer, self.optimizer = step.tokenizer.train(), step.optimization.optimizer.inner
        self.losses, self.weights, self.clip = (
            step.losses,
            step.weights,
            tree["train_step"].get("max_gradient_norm"),
        )
        self.average = [p.detach().clone() for p in self.tokenizer.parameters()] if step.weight_ema else []

    def train(self, loader: ImageLoader, first: int, steps: int) -> Times:
        """Seconds of each step of a stretch, without the first."""
        timed = TimedLoader(loader, steps)
        parameters = list(self.tokenizer.parameters())
        with suppress(StretchIsOverError):
            for batch in timed.train_batches(seed=0, start_step=first):
                image = to_signed_unit(batch["image"])
                output = self.tokenizer(image)
                loss = self.weights["quantizer"] * output.quantize.loss
                for name, function in self.losses.items():
                    loss = loss + self.weights[name] * function(output.reconstruction, image)
                self.optimizer.zero_grad()
                loss.backward()
                if self.clip:
                    torch.nn.utils.clip_grad_norm_(parameters, self.clip)
                self.optimizer.step()
                if self.average:
                    torch._foreach_lerp_(self.average, [p.detach() for p in parameters], 0.001)
        return durations(timed.times)


def seconds_of_marks() -> float:
    """What the clock of a step takes for its marks, with one micro-batch."""
    clock, steps = StepClock(torch.device("cpu")), 1000
    best = float("inf")
    for _ in range(10):
        started = time.perf_counter()
        for _ in range(steps):
            clock.start()
            with clock.part(BACKWARD):
                pass
            with clock.part(OPTIMIZER):
                pass
            clock.stop()
        best = min(best, (time.perf_counter() - started) / steps)
    return best


def durations(times: Times) -> Times:
    """From one step's start to the next; the first step of a stretch warms up."""
    return [later - earlier for earlier, later in pairwise(times[1:])]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", default="configs/fsq/1000_emoji.py")
    parser.add_argument("--steps", type=int, default=12, help="steps of a stretch")
    parser.add_argument("--stretches", type=int, default=12, help="stretches of each side")
    parser.add_argument("--out", type=Path, help="also write the figures here, as JSON")
    args = parser.parse_args()

    never = {".trainer.max_steps": NEVER, ".evaluator.every": NEVER, ".checkpointer.every": NEVER}
    tree = config.load(args.config, overrides=never).to_dict()
    machine = Machine(device="cpu", rank=0, world_size=1, threads=torch.get_num_threads(), autocast=False)
    loader = assembly.make_loader(tree, "train_data")
    for index in range(len(loader.dataset)):  # no side pays for decoding a picture the first time
        loader.dataset.read(index)
    framework: Times = []
    bare: Times = []
    with tempfile.TemporaryDirectory() as folder:
        open_log(Path(folder) / "log.txt")
        train_step = assembly.make_step(tree, assembly.make_tokenizer(tree))
        trainer = assembly.make_trainer(tree, Path(folder), train_step, machine, seed=0)
        by_hand = BareLoop(tree)
        for stretch in range(args.stretches):
            first = stretch * args.steps
            framework += train_with_framework(trainer, loader, first, args.steps)
            bare += by_hand.train(loader, first, args.steps)

    ratio = statistics.median(framework) / statistics.median(bare)
    print(f"bare loop    median {1000 * statistics.median(bare):8.2f} ms a step over {len(bare)} steps")
    print(
        f"the trainer  median {1000 * statistics.median(framework):8.2f} ms a step over {len(framework)} steps"
    )
    print(f"ratio {ratio:.4f} (bar: at most {BAR})")
    marks = seconds_of_marks() / statistics.median(bare)
    print(f"marks of the step's parts {marks:.4%} of a step (bar: at most {CLOCK_BAR:.0%})")
    if args.out:
        record = {
            "command": "python " + " ".join(sys.argv),
            "date": date.today().isoformat(),
            "hardware": f"{platform.machine()}; {machine}",
            "bare_ms": 1000 * statistics.median(bare),
            "trainer_ms": 1000 * statistics.median(framework),
            "ratio": ratio,
            "bar": BAR,
            "marks_ratio": marks,
            "marks_bar": CLOCK_BAR,
        }
        args.out.write_text(json.dumps(record, indent=2) + "\n")
    sys.exit(ratio > BAR or marks > CLOCK_BAR)


if __name__ == "__main__":
    main()
