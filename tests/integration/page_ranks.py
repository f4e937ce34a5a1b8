"""Run by test_ranks.py: the tiny page on ranks and micro-batches, from its files to its weights, in float64.

In float32 two orders of a sum differ by 1e-7 of it, and training enlarges that up to threefold a step, by how much
depends on the processor. In float64 the same growth over six steps (3^6 times some 1e-15) stays below 1e-10.

The ranks are forked from this process after it has computed what one process does.
"""

import sys
import warnings
from functools import partial
from typing import Any

import torch
from commands import TINY
from forked_ranks import run_on_ranks
from torch import Tensor

from vq import config
from vq.engine import assembly
from vq.engine.loop.step_runner import StepRunner

STEPS, SEED = 6, 3
SGD: dict[str, Any] = {".train_step.optimizer": {"type": "torch.optim.SGD", "lr": 0.05, "momentum": 0.9}}
# k-means needs data before the first search, and the first micro-batch is all that is there by then.
NO_KMEANS: dict[str, Any] = {".tokenizer.quantizer.codebook.init": {"type": "vq.quantizers.NormalInit"}}
CASES: dict[str, tuple[dict[str, Any], int]] = {
    "sgd": (SGD, 1),
    "adam": ({}, 1),
    "micro-batches": ({**SGD, **NO_KMEANS}, 2),
}


def weights(overrides: dict[str, Any], accumulate: int) -> dict[str, Tensor]:
    """The weights, the average, and the codebook's state after a few steps."""
    options = {"max_steps": STEPS, "accumulate": accumulate}
    tree = config.load(TINY, options=options, overrides=overrides).to_dict()
    step = assembly.make_step(tree, assembly.make_tokenizer(tree, seed=SEED).double().train())
    runner = StepRunner(train_step=step, data=assembly.make_loader(tree, "train_data"), seed=SEED)
    for _ in runner.run(stop=STEPS):
        pass
    average = {f"average.{name}": tensor for name, tensor in step.weight_ema.average.items()}
    return {n: t.detach().clone() for n, t in (step.model.state_dict() | average).items()}


def run_rank(rank: int, size: int, expected: dict[str, dict[str, Tensor]]) -> None:
    for case, (overrides, accumulate) in CASES.items():
        found = weights(overrides, accumulate)
        assert found.keys() == expected[case].keys()
        for name, tensor in expected[case].items():
            torch.testing.assert_close(
                found[name],
                tensor,
                atol=1e-9,
                rtol=0,
                msg=lambda m, n=name, c=case: f"{c}, {size} ranks, {n}: {m}",
            )


def main() -> int:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    expected = {case: weights(overrides, 1) for case, (overrides, _) in CASES.items()}
    return run_on_ranks(partial(run_rank, expected=expected), 2, 4)


if __name__ == "__main__":
    sys.exit(main())
