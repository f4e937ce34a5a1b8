"""The codebook usage of tokenizers with several levels, for each level separately."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from vq.metrics.base import CodeMetric, Images, Indices
from vq.metrics.codebook import count_codes, entropy
from vq.registry import METRICS


@METRICS.register_module()
class LevelUsage(CodeMetric):
    """Computes the codebook usage and perplexity of each level (`codebook_usage[LEVEL]`, `perplexity[LEVEL]`).

    The levels divide one range of indices, one level after the other, as a `TwoLevelTokenizer` packs them.

    Args:
        codebook_sizes: The number of codes of each level, by its name, in the order of the indices.

    Raises:
        ValueError: If there is no level, or a number is below 1.
    """

    higher_is_better = True
    counts: Tensor

    def __init__(self, *, codebook_sizes: Mapping[str, int]) -> None:
        super().__init__()
        if not codebook_sizes or min(codebook_sizes.values()) < 1:
            raise ValueError(
                f"LevelUsage: expected codebook_sizes of at least 1, one per level, got {dict(codebook_sizes)}; give "
                "those of the tokenizer's quantizers"
            )
        self.codebook_sizes = dict(codebook_sizes)
        self.add_sum("counts", shape=(sum(codebook_sizes.values()) + 1,), dtype=torch.int64)

    def accumulate(self, *, image: Images, indices: Indices) -> None:
        """Adds the counts of the codes of a batch."""
        self.counts += count_codes(indices, len(self.counts) - 1)

    def ranked_scores(self) -> Sequence[str]:
        """Names the scores by which models can be ranked."""
        return [
            f"{name}[{level}]" for level in self.codebook_sizes for name in ("codebook_usage", "perplexity")
        ]

    def result(self) -> dict[str, float]:
        """Computes `codebook_usage[LEVEL]`, in 0..1, and `perplexity[LEVEL]`, from 1 to the codebook size.

        Raises:
            ValueError: If indices were out of range.
        """
        if num_out_of_range := int(self.counts[-1]):
            raise ValueError(
                f"LevelUsage: expected indices in [0, {len(self.counts) - 1}), got {num_out_of_range} out of range; "
                "give the sizes of the codebooks that they come from"
            )
        scores = {}
        parts = torch.split(self.counts[:-1], list(self.codebook_sizes.values()))
        for level, counts in zip(self.codebook_sizes, parts, strict=True):
            scores[f"codebook_usage[{level}]"] = (counts > 0).double().mean().item()
            scores[f"perplexity[{level}]"] = entropy(counts).exp().item()
        return scores
