"""Lookup-free quantization: the signs of the channels are the index (LFQ)."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from vq.ops.gradients import replace_value
from vq.ops.numerics.reductions import mean_square
from vq.quantizers.base import QuantizeOutput, Quantizer
from vq.quantizers.parts.signs import (
    check_bits,
    codes_of_indices,
    sign_codes,
    sign_entropies,
    sign_indices,
)
from vq.registry import QUANTIZERS


@QUANTIZERS.register_module()
class LookupFreeQuantizer(Quantizer):
    r"""Replaces each channel by its sign, -1 or 1 (LFQ): $2^{bits}$ codes without a codebook.

    Bit i of the index is 1 if channel i is positive; 0 counts as negative. The loss is `entropy_weight` times
    $E[H(p)] - \gamma H(E[p])$ with $p = softmax_k(-|z - c_k|^2 / \tau)$ over all codes, plus `commitment_weight`
    times the mean of $(z - sg(c))^2$. In training the two entropies are those of the vectors of all ranks. Without
    them the quantizer uses only a few codes.

    p factorises into the bits, each 1 with the probability sigmoid(4 z / tau). So E[H(p)] is exact and cheap, and
    H(E[p]) needs no tensor of vectors times codes.

    Source: Yu et al. 2023 (MAGVIT-v2), https://arxiv.org/abs/2310.05737, eq. 3 to 5.
    Differs from the source: the second term of eq. 4 has a weight; the commitment loss is averaged over the
        channels too.

    Args:
        bits: Number of channels, from 1 to 62.
        entropy_weight: Weight of the two entropy terms together.
        diversity_weight: Weight gamma of the entropy of the mean distribution, within the entropy terms.
        temperature: Temperature tau of the softmax, in units of squared distance.
        commitment_weight: Weight of the commitment loss; Open-MAGVIT2 uses 0.25.
        group_bits: Maximum number of bits, up to 24, whose H(E[p]) is computed jointly. More bits are split into
            groups (see `bit_entropies`); Open-MAGVIT2 splits 18 bits into 9 and 9.

    Raises:
        ValueError: If `bits` or `group_bits` is out of range, or the temperature is not positive.

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
        """Returns a quantizer of 6 bits, which has 64 codes."""
        return cls(bits=6)

    def _forward(self, z: Float[Tensor, "*lead dim"], mask: Bool[Tensor, "*lead"] | None) -> QuantizeOutput:
        code = sign_codes(z, 1.0)
        entropies = sign_entropies(
            z,
            mask,
            magnitude=1.0,
            temperature=self.temperature,
            group_bits=self.group_bits,
            across_ranks=self.training,
        )
        commitment_loss = self._over_ranks(mean_square(z, code, mask))
        entropy_loss = entropies.loss(self.diversity_weight)
        return QuantizeOutput(
            quantized=replace_value(z, code),
            indices=sign_indices(z),
            loss=self.entropy_weight * entropy_loss + self.commitment_weight * commitment_loss,
            metrics=entropies.metrics() | {"commitment_loss": commitment_loss.detach()},
        )

    def _encode(self, z: Float[Tensor, "*lead dim"]) -> Int[Tensor, "*lead"]:
        return sign_indices(z)

    def _decode(self, indices: Int[Tensor, "*lead"], dtype: torch.dtype) -> Float[Tensor, "*lead dim"]:
        return codes_of_indices(indices, self.codebook_dim, 1.0, dtype)
