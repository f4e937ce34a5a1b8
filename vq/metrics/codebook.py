"""Scores of a codebook: how much of it a whole set of images uses, and how evenly."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from vq.metrics.base import Images, Indices, Metric
from vq.registry import METRICS


def count_codes(indices: Int[Tensor, "*lead"], codebook_size: int) -> Int[Tensor, "{codebook_size}+1"]:
    """Code indices to how often each code occurs, in int64; indices out of range go into one bin more.

    Nothing waits for the GPU.

    Example:
        >>> count_codes(torch.tensor([[0, 2], [2, 7]]), codebook_size=4).tolist()
        [1, 0, 2, 0, 1]
    """
    flat = indices.reshape(-1).long()
    is_known = (flat >= 0) & (flat < codebook_size)
    counts = torch.zeros(codebook_size + 1, dtype=torch.int64, device=indices.device)
    return counts.index_add_(0, torch.where(is_known, flat, codebook_size), torch.ones_like(flat))


def entropy(counts: Int[Tensor, "codebook_size"]) -> Float[Tensor, ""]:
    """Counts to the entropy of the distribution they make, in nats, in float64; 0 if all are 0.

    Example:
        >>> round(entropy(torch.tensor([5, 5, 0])).item(), 4)
        0.6931
    """
    probability = counts.double() / counts.sum().clamp_min(1)
    return -torch.xlogy(probability, probability).sum()


@METRICS.register_module()
class CodebookUsage(Metric):
    """Counts which codes occur anywhere in the set (key `codebook_usage`, a fraction of the codebook, 0..1).

    Over the whole set and all ranks: a number over a window or a batch is smaller, and grows with it. A
    set with fewer tokens than codes cannot reach 1. The indices of stacked quantizers are pooled.

    Args:
        codebook_size: The number of codes.

    Raises:
        ValueError: If `codebook_size` is below 1.
    """

    higher_is_better = True
    counts: Tensor

    def __init__(self, *, codebook_size: int) -> None:
        super().__init__()
        self.codebook_size = _checked("CodebookUsage", codebook_size)
        self.add_sum("counts", shape=(codebook_size + 1,), dtype=torch.int64)

    def accumulate(self, *, image: Images, reconstruction: Images, indices: Indices) -> None:
        """Adds the indices' counts."""
        self.counts += count_codes(indices, self.codebook_size)

    def result(self) -> dict[str, float]:
        """`codebook_usage`, in 0..1.

        Raises:
            ValueError: If some indices were out of range.
        """
        used = _known(self.counts, "CodebookUsage") > 0
        return {"codebook_usage": used.double().mean().item()}


@METRICS.register_module()
class Perplexity(Metric):
    """Measures how evenly the set uses the codes (keys `perplexity`, 1..codebook_size, and `entropy_bits`).

    exp of the entropy of the histogram over the whole set and all ranks: the size of the codebook that would
    say as much if all its codes were equally frequent. `entropy_bits` is that entropy in bits a token. The
    indices of stacked quantizers are pooled.

    Source: van den Oord et al. 2017, https://arxiv.org/abs/1711.00937 (in its public code).
    Differs from the source: over the whole set; the mean of the batches' perplexities is smaller.

    Args:
        codebook_size: The number of codes.

    Raises:
        ValueError: If `codebook_size` is below 1.
    """

    higher_is_better = True
    counts: Tensor

    def __init__(self, *, codebook_size: int) -> None:
        super().__init__()
        self.codebook_size = _checked("Perplexity", codebook_size)
        self.add_sum("counts", shape=(codebook_size + 1,), dtype=torch.int64)

    def accumulate(self, *, image: Images, reconstruction: Images, indices: Indices) -> None:
        """Adds the indices' counts."""
        self.counts += count_codes(indices, self.codebook_size)

    def result(self) -> dict[str, float]:
        """`perplexity`, in 1..codebook_size, and `entropy_bits`, in 0..log2(codebook_size).

        Raises:
            ValueError: If some indices were out of range.
        """
        nats = entropy(_known(self.counts, "Perplexity")).item()
        return {"perplexity": math.exp(nats), "entropy_bits": nats / math.log(2)}


def _checked(place: str, codebook_size: int) -> int:
    if codebook_size < 1:
        raise ValueError(
            f"{place}: expected a codebook_size of at least 1, got {codebook_size}; give the quantizer's"
        )
    return codebook_size


def _known(counts: Int[Tensor, "bins"], place: str) -> Int[Tensor, "bins-1"]:
    if strangers := int(counts[-1]):
        raise ValueError(
            f"{place}: expected indices in [0, {len(counts) - 1}), got {strangers} outside of it; "
            "give the codebook_size of the quantizer that made them"
        )
    return counts[:-1]
