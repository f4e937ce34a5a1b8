"""Objectives that keep codes in use: entropy of the choice, orthogonality of the codes."""

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
    """The two entropies of a soft choice, in nats.

    Args:
        sample: The mean over vectors of the entropy of each vector's distribution; low is decided.
        codebook: The entropy of the mean distribution; high is even use. Never below `sample`.
    """

    sample: Float[Tensor, ""]
    codebook: Float[Tensor, ""]


def softmax_entropies(
    z: Float[Tensor, "n dim"],
    codes: Float[Tensor, "size dim"],
    bias: Float[Tensor, "size"],
    mask: Bool[Tensor, "n"] | None = None,
    *,
    across_ranks: bool,
) -> Entropies:
    """The entropies of softmax(z . codes + bias), streamed; 0 without any vector.

    Args:
        z: The vectors.
        codes: What each is multiplied with.
        bias: What is added for each code.
        mask: Which vectors count; None is all.
        across_ranks: Over the vectors of all ranks; every rank must then call it, with the same intent.
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
    r"""The mean over this rank's vectors of $KL(p \| uniform) = \log K + \sum p \log p$, streamed.

    Here $p = softmax(z e_k + b_k)$. Between 0 (p is uniform) and log K (p is certain); 0 without any vector.
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
    r"""The entropies over all 2^bits patterns of bits that are 1 with the probability sigmoid(logit).

    The sample entropy is exact: bits of one vector are independent, so it is the sum of theirs. The
    codebook entropy is exact for up to `group_bits` bits. More are split into groups of nearly equal
    size, and the entropies of the groups are added: an upper bound, because it ignores that groups may
    depend on each other across the batch.

    Args:
        logits: Of each bit.
        mask: Which vectors count; None is all.
        group_bits: Time grows with 2^group_bits, memory with 2^(group_bits / 2) a vector.
        across_ranks: See `softmax_entropies`.
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
    # One message for all of it. The mean distribution is that of all ranks, and its gradient comes back:
    # each rank on its own would only spread its own few vectors evenly.
    flat = torch.cat([sample_sum[None], count[None], *distribution_sums])
    if across_ranks:
        flat = all_reduce_sum_with_gradient(flat)
    means = flat / flat[1].detach().clamp_min(1)
    parts = torch.split(means[2:], [len(part) for part in distribution_sums])
    return Entropies(means[0], torch.stack([entropy(part) for part in parts]).sum())


class Regulariser(ABC):
    """Adds to the loss of a quantizer with a set of codes."""

    @abstractmethod
    def __call__(
        self,
        z: Float[Tensor, "n dim"],
        codes: Float[Tensor, "size dim"],
        indices: Int[Tensor, "n"],
        mask: Bool[Tensor, "n"] | None = None,
        *,
        across_ranks: bool,
    ) -> tuple[Float[Tensor, ""], Mapping[str, Tensor]]:
        """The weighted objective, and detached scalars to log.

        Args:
            z: The vectors, as they are compared with the codes.
            codes: All codes, with their gradient.
            indices: The code of each vector.
            mask: Which vectors count; None is all.
            across_ranks: Over the vectors of all ranks, as in training; False in eval, where ranks may
                have different numbers of batches and must not wait for each other.
        """


@QUANTIZER_PARTS.register_module()
@dataclass(frozen=True, kw_only=True)
class EntropyRegulariser(Regulariser):
    r"""Makes each choice decided and all codes used: $E[H(p)] - \gamma H(E[p])$ with $p = softmax(-d^2 / \tau)$.

    With gamma 1 it lies in [-log size, 0]: minus the mutual information of vector and code.

    Source: Yu et al. 2023 (MAGVIT-v2), https://arxiv.org/abs/2310.05737, eq. 4, for any codebook.

    Args:
        weight: What the objective is multiplied with.
        diversity_weight: gamma, the weight of the entropy of the mean distribution.
        temperature: tau, in units of squared distance.
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
    ) -> tuple[Float[Tensor, ""], Mapping[str, Tensor]]:
        """See `Regulariser`."""
        z, codes = centred(z, codes)
        scaled, bias = distance_logits(z, codes, self.temperature)
        sample, codebook = softmax_entropies(scaled, codes, bias, mask, across_ranks=across_ranks)
        loss = self.weight * (sample - self.diversity_weight * codebook)
        return loss, {"sample_entropy": sample.detach(), "codebook_entropy": codebook.detach()}


@QUANTIZER_PARTS.register_module()
@dataclass(frozen=True, kw_only=True)
class OrthogonalRegulariser(Regulariser):
    """Pushes the codes towards right angles to each other.

    Source: Shin et al. 2021, https://arxiv.org/abs/2112.00384, eq. 2.

    Args:
        weight: What the objective is multiplied with; the paper uses 10.
        only_used: Only among the codes that some vector of the ranks' batches chose.
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
    ) -> tuple[Float[Tensor, ""], Mapping[str, Tensor]]:
        """See `Regulariser`; the codes are the same on all ranks, which only agree on how often each is chosen."""
        weights = _weights(z, mask)
        usage = codes.new_zeros(len(codes)).index_add_(0, indices, weights)
        if across_ranks:
            usage = all_reduce_sum_with_gradient(usage)
        value = orthogonality(codes, usage > 0 if self.only_used else None)
        # Batches without a vector teach nothing, this included; asked without waiting for the device.
        return self.weight * value * (usage.sum() > 0), {"orthogonality": value.detach()}
