"""What a VQ-KD step spends outside its networks: `python benchmarks/vqkd_step.py`.

One side is the real training step of the page. The other runs only its networks on the same batch: the encoder and
the decoder forward and backward, and the teacher forward. Both take turns in one process, with the same weights, and
the median of the ratio of a pair is reported. The difference is the quantizer, the losses, the optimizer, the
conversion of the images and all bookkeeping. On a CPU, the time is that of the process on the cores (one thread), to
which other programs on the machine add little. Bar: at most 10 % of the step.
"""

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vq import config
from vq.engine import assembly
from vq.ops.images import to_signed_unit

BAR = 0.10
WARM_UP = 2


def clock() -> float:
    """Seconds of this process on the CPU, or of the clock on the wall after the GPU has finished its work."""
    if not torch.cuda.is_available():
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def seconds(call: Callable[[], object]) -> float:
    start = clock()
    call()
    return clock() - start


class Parts:
    """Adds up the time that a step spends in some of its parts."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def watch(self, name: str, module: nn.Module) -> None:
        """Times the forward of a module."""
        started: list[float] = []
        module.register_forward_pre_hook(lambda *_: started.append(clock()))
        module.register_forward_hook(lambda *_: self._add(name, started.pop()))

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        start = clock()
        yield
        self._add(name, start)

    def _add(self, name: str, start: float) -> None:
        self.seconds[name] = self.seconds.get(name, 0.0) + clock() - start


class NetworksAlone:
    """The encoder and the decoder forward and backward, and the teacher forward."""

    def __init__(self, step: Any, teacher: nn.Module) -> None:
        self.tokenizer, self.teacher, self.autocast = (
            step.tokenizer,
            teacher,
            step.optimization.networks_autocast,
        )
        self.parameters = [p for p in self.tokenizer.parameters() if p.requires_grad]

    def __call__(self, image: Tensor) -> None:
        for parameter in self.parameters:
            parameter.grad = None
        with self.autocast():
            features = self.tokenizer.decode_features(self.tokenizer.latent(image))
            self.teacher(image)
        features.backward(torch.ones_like(features))


def make(args: argparse.Namespace) -> tuple[Any, dict[str, Tensor]]:
    """The page's step in training mode, and a batch of the page's images."""
    tree = config.load(args.config, overrides=config.parse_assignments(args.override)).to_dict()
    if args.batch:
        tree["train_data"]["batch_size"] = args.batch
    tokenizer = assembly.make_tokenizer(tree).to(args.device)
    step = assembly.make_step(tree, tokenizer, autocast=args.autocast)
    tokenizer.train()
    if args.image_size:
        shape = (tree["train_data"]["batch_size"], 3, args.image_size, args.image_size)
        return step, {"image": torch.randint(256, shape, dtype=torch.uint8)}
    return step, next(assembly.make_loader(tree, "train_data").train_batches(seed=0))


def measure(step: Any, batch: dict[str, Tensor], rounds: int) -> tuple[dict[str, list[float]], Parts]:
    """Seconds of the whole step and of its networks, in turn, and what the parts of all steps took together."""
    (loss,) = step.losses.values()
    alone, parts = NetworksAlone(step, loss.teacher), Parts()
    image = step.image_of(batch)
    for number in range(WARM_UP):  # warms up; the codes are initialised
        step([batch], number)
        alone(image)
    parts.watch("quantizer", step.tokenizer.quantizer)
    update = step.optimization.step

    def timed_update() -> Any:
        with parts.timed("optimizer"):
            return update()

    step.optimization.step = timed_update
    times: dict[str, list[float]] = {"step": [], "networks": [], "teacher": []}
    for number in range(WARM_UP, rounds + WARM_UP):
        times["step"].append(seconds(lambda n=number: step([batch], n)))  # type: ignore[misc]
        times["networks"].append(seconds(lambda: alone(image)))
        with step.optimization.networks_autocast():
            times["teacher"].append(seconds(lambda: loss.teacher(image)))
    with parts.timed("conversion of the images"):
        for _ in range(rounds):
            to_signed_unit(batch["image"].to(step.device))
    return times, parts


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", default="configs/vqkd/256_emoji.py")
    parser.add_argument("--override", nargs="+", default=[], help="as of vq train")
    parser.add_argument("--rounds", type=int, default=15, help="timed steps of each side")
    parser.add_argument("--batch", type=int, help="images; default: the page's")
    parser.add_argument("--image-size", type=int, help="use noise of this size instead of the page's images")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--autocast", action="store_true")
    parser.add_argument("--out", type=Path, help="also write the figures here, as JSON")
    args = parser.parse_args()

    torch.set_num_threads(1)
    step, batch = make(args)
    times, parts = measure(step, batch, args.rounds)
    pairs = list(zip(times["step"], times["networks"], strict=True))
    outside = statistics.median(1 - networks / whole for whole, networks in pairs)
    medians = {name: statistics.median(values) for name, values in times.items()}
    shares = {name: value / sum(times["step"]) for name, value in parts.seconds.items()}
    print(f"a step of {len(batch['image'])} images: median {1000 * medians['step']:.1f} ms")
    print(f"its networks alone: median {1000 * medians['networks']:.1f} ms, of which the teacher takes "
          f"{1000 * medians['teacher']:.1f} ms")  # fmt: skip
    for name, share in shares.items():
        print(f"  {name}: {100 * share:.1f} % of the step")
    print(f"outside encoder, decoder and teacher: {100 * outside:.1f} % (bar: at most {100 * BAR:.0f} %)")
    if args.out:
        record = {
            "command": "python " + " ".join(sys.argv),
            "date": date.today().isoformat(),
            "hardware": f"{platform.machine()}; {torch.get_num_threads()} threads; torch {torch.__version__}",
            "seconds": times,
            "outside": outside,
            "share_of_parts": shares,
            "bar": BAR,
        }
        args.out.write_text(json.dumps(record, indent=2) + "\n")
    sys.exit(outside > BAR)


if __name__ == "__main__":
    main()
