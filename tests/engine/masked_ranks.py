"""Run by test_proposal.py: two and three ranks score masked generation as one process does.

The ranks are forked from this process, which has no threads.
"""

import json
import sys
import warnings
from functools import partial

import torch
from commands import TINY
from forked_ranks import run_on_ranks

from vq import config
from vq.engine import ProposalEvaluator, assembly
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
    found = ProposalEvaluator(tokenizer=tokenizer).evaluate(generator, assembly.make_loader(page, "val_data"))
    assert found.num_images == 13
    return dict(found.scores)


def run_rank(rank: int, size: int, expected: dict[str, float]) -> None:
    tokenizer = assembly.make_tokenizer(config.load(TINY).to_dict(), seed=1).eval()
    found = masked_scores(tokenizer, batch_size=6)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        tolerance = ACCURACY_ROUNDING if name == "token_accuracy" else 1e-9
        assert abs(found[name] - value) < tolerance * abs(value), (
            f"{size} ranks: {name} {found[name]}, not {value}"
        )


def main() -> int:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    expected = json.loads(sys.argv[1])
    return run_on_ranks(partial(run_rank, expected=expected), 2, 3)


if __name__ == "__main__":
    sys.exit(main())
