"""Run by test_ranks.py: the tiny page on ranks and micro-batches, from its files to its weights, in float64.

In float32 two orders of a sum differ by 1e-7 of it, and training enlarges that up to threefold a step, by how much
depends on the processor. In float64 the same growth over six steps (3^6 times some 1e-15) stays below 1e-10.

The ranks are forked from this process after it has computed what one process does.
"""

import os
import sys
import tempfile
import warnings
from datetime import timedelta
from multiprocessing import get_context
from typing import Any

import torch
import torch.distributed as dist
from commands import TINY
from torch import Tensor

from vq import config, distributed
from vq.engine import assemble
from vq.ops.keyed import stable_hash

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
    step = assemble.make_step(tree, assemble.make_tokenizer(tree, seed=SEED).double().train())
    batches = assemble.grouped_batches(assemble.make_loader(tree, "train_data"), SEED, accumulate, 0)
    for number in range(STEPS):
        torch.manual_seed(stable_hash(SEED, "step", number, distributed.rank()))
        step(next(batches), number)
    average = {f"average.{name}": tensor for name, tensor in step.weight_ema.average.items()}
    return {n: t.detach().clone() for n, t in (step.model.state_dict() | average).items()}


def run_rank(rank: int, size: int, store: str, expected: dict[str, dict[str, Tensor]]) -> None:
    torch.set_num_threads(1)
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    dist.init_process_group(
        "gloo", init_method=f"file://{store}", rank=rank, world_size=size, timeout=timedelta(seconds=60)
    )
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
    dist.barrier()
    dist.destroy_process_group()


def main() -> int:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    expected = {case: weights(overrides, 1) for case, (overrides, _) in CASES.items()}
    context = get_context("fork")
    for size in (2, 4):
        with tempfile.TemporaryDirectory() as folder:
            ranks = [
                context.Process(target=run_rank, args=(rank, size, f"{folder}/store", expected))
                for rank in range(size)
            ]
            for process in ranks:
                process.start()
            for process in ranks:
                process.join()
            if any(process.exitcode for process in ranks):
                return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
