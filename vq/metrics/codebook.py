"""Scores of a codebook: how much of it a whole set of images uses, and how evenly."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from vq.metrics.base import Images, Indices, ReconstructionMetric
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
class CodebookUsage(ReconstructionMetric):
    """Counts which codes occur anywhere in the set (key `codebook_usage`, a fraction of the codebook, 0..1).

    Over the whole set and all ranks: a number over a window or a batch is smaller, and grows with it. A
    set with fewer tokens than codes cannot reach 1. The indices of stacked quantizers are pooled; with `levels`
    each group or depth is counted too (`codebook_usage_0`, ...).

    Args:
        codebook_size: The number of codes.
        levels: The length of the indices' last axis, for stacked quantizers.

    Raises:
        ValueError: If `codebook_size` or `levels` is below 1.
    """

    higher_is_better = True
    counts: Tensor

    def __init__(self, *, codebook_size: int, levels: int = 1) -> None:
        super().__init__()
        self.codebook_size, self.levels = _checked("CodebookUsage", codebook_size, levels)
        self.add_sum("counts", shape=(levels, codebook_size + 1), dtype=torch.int64)

    def accumulate(self, *, image: Images, reconstruction: Images, indices: Indices) -> None:
        """Adds the indices' counts."""
        self.counts += _counts_by_level(indices, self.codebook_size, self.levels, "CodebookUsage")

    def result(self) -> dict[str, float]:
        """`codebook_usage`, in 0..1, and that of each level if there are several.

        Raises:
            ValueError: If some indices were out of range.
        """
        used = _known(self.counts, "CodebookUsage") > 0
        scores = {"codebook_usage": used.any(dim=0).double().mean().item()}
        if self.levels > 1:
            shares = used.double().mean(dim=1).tolist()
            scores |= {f"codebook_usage_{level}": share for level, share in enumerate(shares)}
        return scores


@METRICS.register_module()
class Perplexity(ReconstructionMetric):
    """Measures how evenly the set uses the codes (keys `perplexity`, `entropy_bits` and `bits_per_pixel`).

    exp of the entropy of the histogram over the whole set and all ranks, 1..codebook_size: the size of the codebook
    that would say as much if all its codes were equally frequent. `entropy_bits` is that entropy in bits a token, and
    `bits_per_pixel` what an ideal code for single tokens would take for a pixel of the image. The indices of stacked
    quantizers are pooled; with `levels` each group or depth has its own numbers too (`perplexity_0`,
    `entropy_bits_0`, ...), and `bits_per_pixel` adds up the levels' own entropies.

    Source: van den Oord et al. 2017, https://arxiv.org/abs/1711.00937 (in its public code).
    Differs from the source: over the whole set; the mean of the batches' perplexities is smaller.

    Args:
        codebook_size: The number of codes.
        levels: The length of the indices' last axis, for stacked quantizers.

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

    def accumulate(self, *, image: Images, reconstruction: Images, indices: Indices) -> None:
        """Adds the indices' counts and the images' areas."""
        self.counts += _counts_by_level(indices, self.codebook_size, self.levels, "Perplexity")
        self.pixels += len(image) * image.shape[2] * image.shape[3]

    def result(self) -> dict[str, float]:
        """`perplexity`, in 1..codebook_size, `entropy_bits`, in 0..log2(codebook_size), and the rest.

        Raises:
            ValueError: If some indices were out of range.
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
    if strangers := int(counts[:, -1].sum()):
        raise ValueError(
            f"{place}: expected indices in [0, {counts.shape[1] - 1}), got {strangers} outside of it; "
            "give the codebook_size of the quantizer that made them"
        )
    return counts[:, :-1]
