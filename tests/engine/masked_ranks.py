"""Run by test_proposal.py: two and three ranks score masked generation as one process does.

The ranks are forked from this process, which has no threads.
"""

import json
import os
import sys
import tempfile
import warnings
from datetime import timedelta
from multiprocessing import get_context

import torch
import torch.distributed as dist
from commands import TINY

from vq import config
from vq.engine import ProposalEvaluator, assemble
from vq.generators import DecoderTransformer, GPT2Style, MaskedGenerator

ACCURACY_ROUNDING = 5e-7
"""The share of right guesses is a mean in float32 for each batch, rounded by up to 6e-8 of itself, then added up."""


def masked_scores(tokenizer: torch.nn.Module, batch_size: int) -> dict[str, float]:
    """A generator that knows nothing, on 13 pictures: each batch masks another share of its indices."""
    torch.manual_seed(0)
    generator = MaskedGenerator(
        transformer=DecoderTransformer(width=16, depth=1, num_heads=2, style=GPT2Style()),
        vocabulary_size=16, num_classes=4, grid=(8, 8),
    )  # fmt: skip
    for parameter in generator.parameters():
        parameter.data.mul_(8)  # so that pictures differ in their loss
    generator.double()  # sums in another order then differ by about 1e-16
    page = config.load(TINY, overrides={".val_data.batch_size": batch_size}).to_dict()
    found = ProposalEvaluator(tokenizer=tokenizer).evaluate(generator, assemble.make_loader(page, "val_data"))
    assert found.num_images == 13
    return dict(found.scores)


def run_rank(rank: int, size: int, store: str, expected: dict[str, float]) -> None:
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    dist.init_process_group(
        "gloo", init_method=f"file://{store}", rank=rank, world_size=size, timeout=timedelta(seconds=100)
    )
    tokenizer = assemble.make_tokenizer(config.load(TINY).to_dict(), seed=1).eval()
    found = masked_scores(tokenizer, batch_size=6)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        tolerance = ACCURACY_ROUNDING if name == "token_accuracy" else 1e-9
        assert abs(found[name] - value) < tolerance * abs(value), (
            f"{size} ranks: {name} {found[name]}, not {value}"
        )
    dist.barrier()
    dist.destroy_process_group()


def main() -> int:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    expected, context = json.loads(sys.argv[1]), get_context("fork")
    for size in (2, 3):
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
