"""Loss terms that keep codes in use: the entropy of the choice and the orthogonality of the codes."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from vq.distributed import all_reduce_sum_with_gradient
from vq.ops.distance import centred
from vq.ops.entropy import (
    bit_distribution_sum,
    bit_entropy,
    distance_logits,
    entropy,
    softmax_sums,
)
from vq.ops.orthogonality import orthogonality
from vq.registry import QUANTIZER_PARTS


class Entropies(NamedTuple):
    """Holds the two entropies of a soft choice among codes, in nats.

    Args:
        sample: Mean over vectors of the entropy of each vector's distribution; low if the choices are certain.
        codebook: Entropy of the mean distribution; high if all codes are used evenly. Never below `sample`.
    """

    sample: Float[Tensor, ""]
    codebook: Float[Tensor, ""]

    def loss(self, diversity_weight: float = 1.0) -> Float[Tensor, ""]:
        """Returns the loss that makes choices certain and usage even: sample - diversity_weight * codebook."""
        return self.sample - diversity_weight * self.codebook

    def metrics(self) -> dict[str, Float[Tensor, ""]]:
        """Returns both entropies as detached scalars to log."""
        return {"sample_entropy": self.sample.detach(), "codebook_entropy": self.codebook.detach()}


def softmax_entropies(
    z: Float[Tensor, "n dim"],
    codes: Float[Tensor, "size dim"],
    bias: Float[Tensor, "size"],
    mask: Bool[Tensor, "n"] | None = None,
    *,
    across_ranks: bool,
) -> Entropies:
    """Computes the entropies of softmax(z . codes + bias) without storing it; 0 without any vector.

    Args:
        z: Vectors.
        codes: Codes whose products with a vector are its logits, up to the bias.
        bias: Number added to the logits of each code.
        mask: True for the vectors that count; None if all do.
        across_ranks: Whether the entropies are those of the vectors of all ranks. Then every rank must make the
            same calls.
    """
    weight = _weights(z, mask)
    entropies, distribution = softmax_sums(z, codes, bias, weight)
    return _entropies(entropies, weight.sum(), [distribution], across_ranks)


def divergence_from_uniform(
    z: Float[Tensor, "n dim"],
    codes: Float[Tensor, "size dim"],
    bias: Float[Tensor, "size"],
    mask: Bool[Tensor, "n"] | None = None,
) -> Float[Tensor, ""]:
    r"""Computes the mean over this rank's vectors of $KL(p \| uniform) = \log K + \sum p \log p$.

    Here $p = softmax(z e_k + b_k)$, which is not stored. The result is 0 for a uniform p and log K for a certain one;
    0 without any vector.
    """
    weight = _weights(z, mask)
    count = weight.sum()
    return (math.log(len(codes)) * count - softmax_sums(z, codes, bias, weight)[0]) / count.clamp_min(1)


def bit_entropies(
    logits: Float[Tensor, "n bits"],
    mask: Bool[Tensor, "n"] | None = None,
    *,
    group_bits: int,
    across_ranks: bool,
) -> Entropies:
    """Computes the entropies over all 2^bits patterns of bits that are 1 with the probability sigmoid(logit).

    The sample entropy is exact: the bits of one vector are independent, so it is the sum of their entropies. The
    codebook entropy is exact for up to `group_bits` bits. More bits are split into groups of nearly equal size, and
    the entropies of the groups are added. That is an upper bound, because it ignores that the groups may depend on
    each other across the batch.

    Args:
        logits: Logit of each bit.
        mask: True for the vectors that count; None if all do.
        group_bits: Maximum number of bits in a group. Time grows with 2^group_bits, and memory per vector with
            2^(group_bits / 2).
        across_ranks: Whether the entropies are those of the vectors of all ranks. Then every rank must make the
            same calls.
    """
    weight = _weights(logits, mask)
    sums = [bit_distribution_sum(group, weight) for group in _groups(logits, group_bits)]
    return _entropies(weight @ bit_entropy(logits).sum(dim=1), weight.sum(), sums, across_ranks)


def _groups(logits: Float[Tensor, "n bits"], group_bits: int) -> Sequence[Float[Tensor, "n some"]]:
    return logits.tensor_split(-(-logits.shape[1] // group_bits), dim=1)


def _weights(z: Float[Tensor, "n dim"], mask: Bool[Tensor, "n"] | None) -> Float[Tensor, "n"]:
    return z.new_ones(len(z)) if mask is None else mask.to(z.dtype)


def _entropies(
    sample_sum: Float[Tensor, ""],
    count: Float[Tensor, ""],
    distribution_sums: Sequence[Float[Tensor, "_"]],
    across_ranks: bool,
) -> Entropies:
    # All sums are reduced in one message. The mean distribution must be that of all ranks, with a gradient to each:
    # a rank by itself would spread its own few vectors evenly over the codes.
    flat = torch.cat([sample_sum[None], count[None], *distribution_sums])
    if across_ranks:
        flat = all_reduce_sum_with_gradient(flat)
    means = flat / flat[1].detach().clamp_min(1)
    parts = torch.split(means[2:], [len(part) for part in distribution_sums])
    return Entropies(means[0], torch.stack([entropy(part) for part in parts]).sum())


class Regulariser(ABC):
    """Computes a further loss term of a quantizer that has a set of codes."""

    @abstractmethod
    def __call__(
        self,
        z: Float[Tensor, "n dim"],
        codes: Float[Tensor, "size dim"],
        indices: Int[Tensor, "n"],
        mask: Bool[Tensor, "n"] | None = None,
        *,
        across_ranks: bool,
    ) -> tuple[Float[Tensor, ""], Mapping[str, Float[Tensor, ""]]]:
        """Returns the weighted loss term, and detached scalars to log.

        Args:
            z: Vectors in the space in which they are compared with the codes.
            codes: All codes, with their gradient.
            indices: The code of each vector.
            mask: True for the vectors that count; None if all do.
            across_ranks: Whether to use the vectors of all ranks, as in training. False in eval, where ranks may
                have different numbers of batches and must not wait for each other.
        """


@QUANTIZER_PARTS.register_module()
@dataclass(frozen=True, kw_only=True)
class EntropyRegulariser(Regulariser):
    r"""Makes each choice certain and all codes used: $E[H(p)] - \gamma H(E[p])$ with $p = softmax(-d^2 / \tau)$.

    With gamma = 1 the value is minus the mutual information of vector and code, between -log size and 0.

    Source: Yu et al. 2023 (MAGVIT-v2), https://arxiv.org/abs/2310.05737, eq. 4, applied to any codebook.

    Args:
        weight: Weight of the loss term.
        diversity_weight: Weight gamma of the entropy of the mean distribution.
        temperature: Temperature tau of the softmax, in units of squared distance.
    """

    weight: float = 0.1
    diversity_weight: float = 1.0
    temperature: float = 0.01

    def __call__(
        self,
        z: Float[Tensor, "n dim"],
        codes: Float[Tensor, "size dim"],
        indices: Int[Tensor, "n"],
        mask: Bool[Tensor, "n"] | None = None,
        *,
        across_ranks: bool,
    ) -> tuple[Float[Tensor, ""], Mapping[str, Float[Tensor, ""]]]:
        """Returns the weighted difference of the entropies, and both entropies to log."""
        z, codes = centred(z, codes)
        scaled, bias = distance_logits(z, codes, self.temperature)
        entropies = softmax_entropies(scaled, codes, bias, mask, across_ranks=across_ranks)
        return self.weight * entropies.loss(self.diversity_weight), entropies.metrics()


@QUANTIZER_PARTS.register_module()
@dataclass(frozen=True, kw_only=True)
class OrthogonalRegulariser(Regulariser):
    """Pushes the codes towards being orthogonal to each other.

    Source: Shin et al. 2021, https://arxiv.org/abs/2112.00384, eq. 2.

    Args:
        weight: Weight of the loss term; the paper uses 10.
        only_used: Whether only codes count that some vector of the batches of all ranks chose.
    """

    weight: float = 10.0
    only_used: bool = False

    def __call__(
        self,
        z: Float[Tensor, "n dim"],
        codes: Float[Tensor, "size dim"],
        indices: Int[Tensor, "n"],
        mask: Bool[Tensor, "n"] | None = None,
        *,
        across_ranks: bool,
    ) -> tuple[Float[Tensor, ""], Mapping[str, Float[Tensor, ""]]]:
        """Returns the weighted squared deviation of the codes from orthogonality.

        The codes are the same on all ranks, so the ranks only exchange how often each code is chosen.
        """
        weights = _weights(z, mask)
        usage = codes.new_zeros(len(codes)).index_add_(0, indices, weights)
        if across_ranks:
            usage = all_reduce_sum_with_gradient(usage)
        value = orthogonality(codes, usage > 0 if self.only_used else None)
        # A batch without any vector has no loss. The factor is a tensor: reading the sum would wait for the device.
        return self.weight * value * (usage.sum() > 0), {"orthogonality": value.detach()}
