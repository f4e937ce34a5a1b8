"""Metrics of a codebook: how much of it a whole set of images uses, and how evenly."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from vq.metrics.base import CodeMetric, Images, Indices
from vq.registry import METRICS


def count_codes(indices: Int[Tensor, "*lead"], codebook_size: int) -> Int[Tensor, "{codebook_size}+1"]:
    """Counts how often each code occurs, without waiting for the GPU.

    Args:
        indices: Code indices.
        codebook_size: The number of codes.

    Returns:
        The count of each code, int64, and the count of indices that are out of range.

    Example:
        >>> count_codes(torch.tensor([[0, 2], [2, 7]]), codebook_size=4).tolist()
        [1, 0, 2, 0, 1]
    """
    flat = indices.reshape(-1).long()
    is_known = (flat >= 0) & (flat < codebook_size)
    counts = torch.zeros(codebook_size + 1, dtype=torch.int64, device=indices.device)
    return counts.index_add_(0, torch.where(is_known, flat, codebook_size), torch.ones_like(flat))


def entropy(counts: Int[Tensor, "codebook_size"]) -> Float[Tensor, ""]:
    """Computes the entropy of the distribution given by counts, in nats, in float64; 0 if all counts are 0.

    Example:
        >>> round(entropy(torch.tensor([5, 5, 0])).item(), 4)
        0.6931
    """
    probability = counts.double() / counts.sum().clamp_min(1)
    return -torch.xlogy(probability, probability).sum()


@METRICS.register_module()
class CodebookUsage(CodeMetric):
    """Computes the fraction of the codebook that occurs in the set (key `codebook_usage`, 0..1).

    Codes are counted over the whole set and all ranks. The usage over a batch or a window is smaller and grows with its
    size. A set with fewer tokens than codes cannot reach 1. The indices of stacked quantizers are pooled; with
    `levels`, each group or depth is also scored separately (`codebook_usage_0`, ...).

    Args:
        codebook_size: The number of codes.
        levels: The size of the last axis of the indices, for stacked quantizers.

    Raises:
        ValueError: If `codebook_size` or `levels` is below 1.
    """

    higher_is_better = True
    counts: Tensor

    def __init__(self, *, codebook_size: int, levels: int = 1) -> None:
        super().__init__()
        self.codebook_size, self.levels = _checked("CodebookUsage", codebook_size, levels)
        self.add_sum("counts", shape=(levels, codebook_size + 1), dtype=torch.int64)

    def accumulate(self, *, image: Images, indices: Indices) -> None:
        """Adds the counts of the codes of a batch."""
        self.counts += _counts_by_level(indices, self.codebook_size, self.levels, "CodebookUsage")

    def ranked_scores(self) -> Sequence[str]:
        """Names the scores by which models can be ranked."""
        return ["codebook_usage"]

    def result(self) -> dict[str, float]:
        """Computes `codebook_usage`, in 0..1, and that of each level if there are several.

        Raises:
            ValueError: If indices were out of range.
        """
        used = _known(self.counts, "CodebookUsage") > 0
        scores = {"codebook_usage": used.any(dim=0).double().mean().item()}
        if self.levels > 1:
            shares = used.double().mean(dim=1).tolist()
            scores |= {f"codebook_usage_{level}": share for level, share in enumerate(shares)}
        return scores


@METRICS.register_module()
class Perplexity(CodeMetric):
    """Computes how evenly the set uses the codes (keys `perplexity`, `entropy_bits` and `bits_per_pixel`).

    `perplexity` is the exponential of the entropy of the code histogram over the whole set and all ranks. It is the
    size of the codebook, 1..codebook_size, that has the same entropy if all codes are equally frequent. `entropy_bits`
    is that entropy in bits per token. `bits_per_pixel` is the mean length of an ideal code for single tokens, per pixel
    of the image. The indices of stacked quantizers are pooled; with `levels`, each group or depth also has its own
    scores (`perplexity_0`, `entropy_bits_0`, ...), and `bits_per_pixel` sums the entropies of the levels.

    Source: van den Oord et al. 2017, https://arxiv.org/abs/1711.00937 (in its public code).
    Differs from the source: the histogram is that of the whole set; the mean of the perplexities of batches is smaller.

    Args:
        codebook_size: The number of codes.
        levels: The size of the last axis of the indices, for stacked quantizers.

    Raises:
        ValueError: If `codebook_size` or `levels` is below 1.
    """

    higher_is_better = True
    counts: Tensor
    pixels: Tensor

    def __init__(self, *, codebook_size: int, levels: int = 1) -> None:
        super().__init__()
        self.codebook_size, self.levels = _checked("Perplexity", codebook_size, levels)
        self.add_sum("counts", shape=(levels, codebook_size + 1), dtype=torch.int64)
        self.add_sum("pixels", dtype=torch.int64)

    def accumulate(self, *, image: Images, indices: Indices) -> None:
        """Adds the counts of the codes and the number of pixels of a batch."""
        self.counts += _counts_by_level(indices, self.codebook_size, self.levels, "Perplexity")
        self.pixels += len(image) * image.shape[2] * image.shape[3]

    def ranked_scores(self) -> Sequence[str]:
        """Names the scores by which models can be ranked."""
        return ["perplexity", "entropy_bits"]

    def result(self) -> dict[str, float]:
        """Computes the scores: `perplexity` is in 1..codebook_size, `entropy_bits` in 0..log2(codebook_size).

        Raises:
            ValueError: If indices were out of range.
        """
        counts = _known(self.counts, "Perplexity")
        nats = entropy(counts.sum(dim=0)).item()
        own = [entropy(level).item() for level in counts]
        bits = sum(n * t for n, t in zip(own, counts.sum(dim=1).tolist(), strict=True)) / math.log(2)
        scores = {
            "perplexity": math.exp(nats),
            "entropy_bits": nats / math.log(2),
            "bits_per_pixel": bits / max(int(self.pixels), 1),
        }
        if self.levels > 1:
            for level, n in enumerate(own):
                scores |= {f"perplexity_{level}": math.exp(n), f"entropy_bits_{level}": n / math.log(2)}
        return scores


def _checked(place: str, codebook_size: int, levels: int) -> tuple[int, int]:
    if codebook_size < 1:
        raise ValueError(
            f"{place}: expected a codebook_size of at least 1, got {codebook_size}; give the quantizer's"
        )
    if levels < 1:
        raise ValueError(f"{place}: expected at least 1 level, got {levels}; leave it out if there is one")
    return codebook_size, levels


def _counts_by_level(
    indices: Int[Tensor, "*lead"], codebook_size: int, levels: int, place: str
) -> Int[Tensor, "{levels} {codebook_size}+1"]:
    if levels == 1:
        return count_codes(indices, codebook_size)[None]
    if indices.shape[-1] != levels:
        raise ValueError(
            f"{place}: expected indices whose last axis is {levels} levels, got {tuple(indices.shape)}; give the "
            "quantizer's number of groups or depths"
        )
    by_level = indices.reshape(-1, levels).unbind(dim=1)
    return torch.stack([count_codes(level, codebook_size) for level in by_level])


def _known(counts: Int[Tensor, "levels bins"], place: str) -> Int[Tensor, "levels bins-1"]:
    if num_out_of_range := int(counts[:, -1].sum()):
        raise ValueError(
            f"{place}: expected indices in [0, {counts.shape[1] - 1}), got {num_out_of_range} out of range; "
            "give the codebook_size of the quantizer that they come from"
        )
    return counts[:, :-1]
