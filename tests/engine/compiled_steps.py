"""Run by test_tuning.py: steps of compiled networks have the losses of plain ones, and their checkpoints are alike.

Everything is in float64, so that sums in another order cannot matter on any processor: what differs by more than
1e-9 is computed differently.

`compiled_steps.py FOLDER BACKEND CASE...`, on one process or under torchrun; FOLDER is empty.
"""

import sys
import warnings
from functools import partialmethod
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from commands import TINY
from torch import nn

from vq import config, distributed
from vq.engine import Checkpointer, TrainStep, assembly
from vq.engine.loop.launch import launched
from vq.engine.steps.tuning import Tuning

STEPS = 3
SGD = {"type": "torch.optim.SGD", "lr": 0.002}
NETWORK = {"widths": [8]}
ADVERSARIAL = {
    "type": "AdversarialStep",
    "weights": {"l1": 1.0, "quantizer": 1.0, "adversarial": 0.8},
    "adversary": {
        "type": "Adversary",
        "discriminator": {"type": "PatchDiscriminator", "base_width": 4, "depth": 1},
        "objective": {"type": "HingeObjective"},
        "optimizer": SGD,
        "penalties": {"r1": {"type": "R1Penalty", "every": 2}},
        "weights": {"objective": 1.0, "r1": 0.1},
    },
}
GENERATOR = {
    "type": "TransformerGenerator",
    "transformer": {
        "type": "DecoderTransformer",
        "width": 16,
        "depth": 1,
        "num_heads": 2,
        "style": {"type": "vq.generators.LlamaStyle"},
        "dropout": 0.0,
    },
    "vocabulary_size": 16,
    "num_classes": 4,
    "grid": [2, 2],
    "class_dropout": 0.0,
}


def tree_of(case: str) -> dict[str, Any]:
    tree = config.load(TINY).to_dict()
    tree["tokenizer"]["encoder"] = {"type": "StridedCNNEncoder", **NETWORK}
    tree["tokenizer"]["decoder"] = {"type": "StridedCNNDecoder", **NETWORK}
    tree["train_step"] |= {"optimizer": SGD, "accumulate": 2}
    if case == "adversarial":
        tree["train_step"] |= ADVERSARIAL
    if case == "proposal":
        kept = {"optimizer": SGD, "weight_ema": 0.9, "accumulate": 2}
        tree |= {"generator": GENERATOR, "train_step": {"type": "ProposalStep", **kept}}
    return tree


def make(tree: dict[str, Any], tuning: Tuning) -> TrainStep:
    step = assembly.make_step(tree, assembly.make_model(tree, seed=1).double().train(), tuning=tuning)
    if "adversary" in tree["train_step"]:
        step.adversary.discriminator.double()
    return step


def batches(tree: dict[str, Any]) -> Any:
    if "generator" not in tree:
        return assembly.make_loader(tree, "train_data").train_batches(seed=0, micro_batches=2)
    numbers = torch.Generator().manual_seed(distributed.rank())
    label = torch.arange(4)
    return iter(
        [{"indices": torch.randint(16, (4, 2, 2), generator=numbers), "label": label} for _ in range(99)]
    )


def train(step: TrainStep, stream: Any, first: int = 0) -> list[dict[str, float]]:
    rows = []
    for number in range(first, first + STEPS):
        torch.manual_seed(number)
        scalars = step(list(islice(stream, 2)), number)
        rows.append({name: float(value) for name, value in scalars.items()})
    return rows


def compare(name: str, rows: list[dict[str, float]], wanted: list[dict[str, float]]) -> None:
    for number, (row, expected) in enumerate(zip(rows, wanted, strict=True)):
        assert row.keys() == expected.keys()
        for key, value in expected.items():
            # Accuracies are means in float32, whose spacing is 1.2e-7.
            tolerance = 2e-7 if key.endswith("accuracy") else 1e-9
            assert abs(row[key] - value) <= tolerance * (1 + abs(value)), (
                f"{name}, step {number}, {key}: {row[key]}, plain {value}"
            )


def check(case: str, folder: Path) -> None:
    tree = tree_of(case)
    plain, compiled = make(tree, Tuning()), make(tree, Tuning(is_compiled=True))
    streams = [batches(tree) for _ in range(3)]
    expected, rows = train(plain, streams[0]), train(compiled, streams[1])
    compare(case, rows, expected)
    assert list(compiled.model.state_dict()) == list(plain.model.state_dict())
    assert list(compiled.weight_ema.average) == list(plain.weight_ema.average)

    # What a compiled run saved, a plain one continues.
    checkpointer = Checkpointer(directory=folder, config=tree, every=1)
    checkpointer.save(compiled, STEPS)
    restored = make(tree, Tuning())
    assert checkpointer.restore(restored, folder / f"iter_{STEPS}") == STEPS
    for name, tensor in compiled.model.state_dict().items():
        assert torch.equal(tensor, restored.model.state_dict()[name]), name
    for _ in range(2 * STEPS):
        next(streams[2])
    compare(f"{case}, resumed", train(restored, streams[2], STEPS), train(compiled, streams[1], STEPS))
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0, "nothing was compiled"


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    nn.Module.compile = partialmethod(nn.Module.compile, backend=sys.argv[2])  # type: ignore[method-assign]
    with launched(device="cpu"):
        for given in sys.argv[3:]:
            torch._dynamo.reset()
            torch._dynamo.utils.counters.clear()
            check(given, Path(sys.argv[1]) / given)
