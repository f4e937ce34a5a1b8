"""Lookup-free quantization: the signs of the channels are the index (LFQ)."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from vq.ops.digits import pack_digits, unpack_digits
from vq.ops.gradients import replace_value
from vq.ops.numerics.constants import constant, int64s
from vq.ops.numerics.reductions import mean_square
from vq.quantizers.base import QuantizeOutput, Quantizer
from vq.quantizers.parts.regularisers import bit_entropies
from vq.registry import QUANTIZERS


@QUANTIZERS.register_module()
class LookupFreeQuantizer(Quantizer):
    r"""Replaces each channel by its sign, -1 or 1 (LFQ); there are $2^{bits}$ codes and no codebook.

    Bit i of the index says whether channel i is positive; 0 counts as negative. The loss is
    `entropy_weight` times $E[H(p)] - \gamma H(E[p])$ with $p = softmax_k(-|z - c_k|^2 / \tau)$ over all
    codes, plus `commitment_weight` times the mean of $(z - sg(c))^2$. In training the two entropies are
    those of the vectors of all ranks. Without them the codebook collapses to a few codes.

    p factorises into the bits, each 1 with the probability sigmoid(4 z / tau). So E[H(p)] is exact and
    costs nothing, and H(E[p]) needs no tensor of vectors times codes.

    Source: Yu et al. 2023 (MAGVIT-v2), https://arxiv.org/abs/2310.05737, eq. 3 to 5.
    Differs from the source: eq. 4's second term is weighted; commitment is averaged over channels too.

    Args:
        bits: The number of channels, at most 62.
        entropy_weight: Of both entropy terms.
        diversity_weight: gamma, of the entropy of the mean distribution within them.
        temperature: tau.
        commitment_weight: Of the distance to the code; Open-MAGVIT2 uses 0.25.
        group_bits: Codes of more bits count H(E[p]) in groups of at most this many bits (see
            `bit_entropies`), at most 24; Open-MAGVIT2 splits 18 bits into 9 and 9.

    Raises:
        ValueError: If there are too few or too many bits, or the temperature is not positive.

    Example:
        >>> LookupFreeQuantizer(bits=3)(torch.tensor([[0.2, -0.1, 3.0]])).indices.tolist()
        [5]
    """

    def __init__(
        self,
        *,
        bits: int,
        entropy_weight: float = 0.1,
        diversity_weight: float = 1.0,
        temperature: float = 0.01,
        commitment_weight: float = 0.25,
        group_bits: int = 18,
    ) -> None:
        super().__init__()
        check_bits("LookupFreeQuantizer", bits, group_bits, temperature)
        self.codebook_size, self.codebook_dim = 2**bits, bits
        self.entropy_weight, self.diversity_weight = entropy_weight, diversity_weight
        self.temperature, self.commitment_weight = temperature, commitment_weight
        self.group_bits = group_bits

    @classmethod
    def example(cls) -> "LookupFreeQuantizer":
        """Six bits, 64 codes."""
        return cls(bits=6)

    def _forward(self, z: Float[Tensor, "*lead dim"], mask: Bool[Tensor, "*lead"] | None) -> QuantizeOutput:
        bits = z > 0
        code = bits.to(z.dtype) * 2 - 1
        sample, codebook = bit_entropies(
            z.reshape(-1, self.codebook_dim) * (4 / self.temperature),
            None if mask is None else mask.reshape(-1),
            group_bits=self.group_bits,
            across_ranks=self.training,
        )
        entropy_loss = sample - self.diversity_weight * codebook
        commitment_loss = self._over_ranks(mean_square(z, code, mask))
        return QuantizeOutput(
            quantized=replace_value(z, code),
            indices=pack_digits(bits.long(), self._levels(z)),
            loss=self.entropy_weight * entropy_loss + self.commitment_weight * commitment_loss,
            metrics={
                "sample_entropy": sample.detach(),
                "codebook_entropy": codebook.detach(),
                "commitment_loss": commitment_loss.detach(),
            },
        )

    def _encode(self, z: Float[Tensor, "*lead dim"]) -> Int[Tensor, "*lead"]:
        return pack_digits((z > 0).long(), self._levels(z))

    def _decode(self, indices: Int[Tensor, "*lead"], dtype: torch.dtype) -> Float[Tensor, "*lead dim"]:
        return unpack_digits(indices, self._levels(indices)).to(dtype) * 2 - 1

    def _levels(self, like: Tensor) -> Int[Tensor, "dim"]:
        return constant(int64s, *[2] * self.codebook_dim, device=like.device)


def check_bits(place: str, bits: int, group_bits: int, temperature: float) -> None:
    """Refuses what a quantizer of signs cannot do.

    Raises:
        ValueError: If bits, group_bits or temperature are out of range.
    """
    if not 1 <= bits <= 62:
        raise ValueError(f"{place}: expected 1 to 62 bits, got {bits}; an index is int64")
    if not 1 <= group_bits <= 24:
        raise ValueError(
            f"{place}: expected group_bits in [1, 24], got {group_bits}; the mean distribution has "
            f"2^group_bits entries"
        )
    if temperature <= 0:
        raise ValueError(f"{place}: expected a positive temperature, got {temperature}")
