"""What bfloat16 and int8 weights cost a generator: the cross-entropy of held-out tokens.

    python benchmarks/weight_dtypes.py RUN [--images 500] [--out FILE]

RUN is a run folder of a trained generator, such as that of the digits (minutes on a CPU):

    vq train fsq/240_digits fsq/240_digits
    vq tokenize fsq/240_digits --train
    vq tokenize fsq/240_digits
    vq train ar/llama_digits ar/llama_digits --config-options max_steps:600

The held-out tokens are the validation tokens of the run's config, whose paths start in the current folder. The side
`int8, packed` is what sampling on a CPU with VNNI computes: the inputs of each product are rounded to 8 bits as well,
with one scale for each row. The target: the token perplexity of each side is at most 1.01 times that of float32.
"""

import argparse
import json
import math
import platform
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from datetime import date
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vq.config import load
from vq.generators import Generator, convert_weights, load_generator
from vq.generators.packed import packed_weights
from vq.registry import build

MOST = 1.01
SIDES = ("float32", "bfloat16", "int8", "int8, packed")


def held_out(run: Path, images: int) -> list[tuple[Tensor, Tensor]]:
    """Batches of validation tokens and their classes."""
    data: Any = build(load(run / "config.json").to_dict()["val_data"], path="val_data")
    return list(_at_most(data, images))


def _at_most(data: Any, images: int) -> Iterator[tuple[Tensor, Tensor]]:
    for batch in data.pass_batches():
        yield batch["indices"][:images], batch["label"][:images]
        images -= len(batch["label"])
        if images <= 0:
            return


@torch.no_grad()
def score(generator: Generator, batches: list[tuple[Tensor, Tensor]], *, is_packed: bool) -> dict[str, float]:
    """The mean cross-entropy in nats, the token perplexity and the accuracy over all tokens."""
    sums = torch.zeros(3, dtype=torch.float64)
    for indices, label in batches:
        rows = indices.numel()
        with packed_weights(generator, rows=rows) if is_packed else nullcontext():
            out = generator(indices, label)
        count = int(out.num_scored)
        sums += torch.tensor([float(out.loss) * count, float(out.accuracy) * count, count])
    nats, accuracy = (sums[:2] / sums[2]).tolist()
    return {"nats": nats, "perplexity": math.exp(nats), "accuracy": accuracy, "tokens": float(sums[2])}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("run", type=Path, metavar="RUN")
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--out", type=Path, help="also write the figures here, as JSON")
    arguments = parser.parse_args()
    batches = held_out(arguments.run, arguments.images)
    found: dict[str, dict[str, float]] = {}
    for side in SIDES:
        generator = load_generator(arguments.run)
        if side != "float32":
            convert_weights(generator, side.partition(",")[0])
        found[side] = score(generator, batches, is_packed="packed" in side)
        nats, perplexity, accuracy = (found[side][name] for name in ("nats", "perplexity", "accuracy"))
        print(
            f"{side:14} {nats:.5f} nats  perplexity {perplexity:.4f}  accuracy {100 * accuracy:.2f} %",
            flush=True,
        )
    exact = found["float32"]["perplexity"]
    problems = [
        f"{side}: {scores['perplexity'] / exact:.4f} times the perplexity of float32 (target {MOST})"
        for side, scores in found.items()
        if scores["perplexity"] > MOST * exact
    ]
    if arguments.out:
        record = {
            "command": " ".join(["python", *sys.argv]),
            "date": date.today().isoformat(),
            "hardware": f"{platform.machine()}, torch {torch.__version__}",
            "vnni": torch.cpu._is_vnni_supported(),
            "scores": found,
            "missed": problems,
        }
        arguments.out.write_text(json.dumps(record, indent=2) + "\n")
    print("\n".join(f"missed: {problem}" for problem in problems) or "the target is met")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
