"""Binary spherical quantization: the nearest corner of a cube inscribed in the unit sphere (BSQ)."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from vq.ops.directions import unit
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
class BinarySphericalQuantizer(Quantizer):
    r"""Projects each vector onto the unit sphere and replaces its channels by their signs over sqrt(bits) (BSQ).

    With $u = z / |z|$ the code is $c = sign(u) / \sqrt{bits}$, which is on the sphere too, so the error is
    bounded: $|u - c| < \sqrt 2$. A vector of zeros has u = 0 and no gradient. Bit i of the index is 1 if channel i
    is positive; 0 counts as negative.

    The loss is `entropy_weight` times $E[H(p)] - \gamma H(E[p])$ with $p = softmax_k(-|u - c_k|^2 / \tau)$, in
    which each bit is independently 1 with the probability sigmoid(4 u / (tau sqrt(bits))), plus `commitment_weight`
    times the mean of $(u - sg(c))^2$. In training the two entropies are those of the vectors of all ranks.

    Source: Zhao et al. 2024, https://arxiv.org/abs/2406.07548, section 4; weights as in its published configs.
    Differs from the source: the paper's softmax is of tau u c; its tau is 2 over `temperature`. The published
        code has big-endian indices (see `vq.ops.digits.reverse_digits`).

    Args:
        bits: Number of channels, from 1 to 62.
        entropy_weight: Weight of the two entropy terms together.
        diversity_weight: Weight gamma of the entropy of the mean distribution, within the entropy terms.
        temperature: Temperature tau of the softmax, in units of squared distance.
        commitment_weight: Weight of the commitment loss; the bounded error needs none.
        group_bits: Maximum number of bits, up to 24, whose H(E[p]) is computed jointly. More bits are split into
            groups (see `bit_entropies`). 1 is the paper's approximation, which pushes each bit to be 0 and 1
            equally often; 18 is exact for 18 bits.

    Raises:
        ValueError: If `bits` or `group_bits` is out of range, or the temperature is not positive.

    Example:
        >>> quantizer = BinarySphericalQuantizer(bits=4)
        >>> quantizer(torch.tensor([[0.2, -0.1, 3.0, 1.0]])).quantized
        tensor([[ 0.5000, -0.5000,  0.5000,  0.5000]])
    """

    def __init__(
        self,
        *,
        bits: int,
        entropy_weight: float = 0.1,
        diversity_weight: float = 1.0,
        temperature: float = 1.0,
        commitment_weight: float = 0.0,
        group_bits: int = 1,
    ) -> None:
        super().__init__()
        check_bits("BinarySphericalQuantizer", bits, group_bits, temperature)
        self.codebook_size, self.codebook_dim = 2**bits, bits
        self.entropy_weight, self.diversity_weight = entropy_weight, diversity_weight
        self.temperature, self.commitment_weight = temperature, commitment_weight
        self.group_bits = group_bits

    @classmethod
    def example(cls) -> "BinarySphericalQuantizer":
        """Returns a quantizer of 6 bits, which has 64 codes."""
        return cls(bits=6)

    def _forward(self, z: Float[Tensor, "*lead dim"], mask: Bool[Tensor, "*lead"] | None) -> QuantizeOutput:
        on_sphere = unit(z)
        # The signs of z, not of the unit vector, whose smallest channels may have been rounded to 0.
        code = sign_codes(z, self._magnitude)
        entropies = sign_entropies(
            on_sphere,
            mask,
            magnitude=self._magnitude,
            temperature=self.temperature,
            group_bits=self.group_bits,
            across_ranks=self.training,
        )
        commitment_loss = self._over_ranks(mean_square(on_sphere, code, mask))
        entropy_loss = entropies.loss(self.diversity_weight)
        return QuantizeOutput(
            quantized=replace_value(on_sphere, code),
            indices=sign_indices(z),
            loss=self.entropy_weight * entropy_loss + self.commitment_weight * commitment_loss,
            metrics=entropies.metrics() | {"commitment_loss": commitment_loss.detach()},
        )

    def _encode(self, z: Float[Tensor, "*lead dim"]) -> Int[Tensor, "*lead"]:
        return sign_indices(z)

    def _decode(self, indices: Int[Tensor, "*lead"], dtype: torch.dtype) -> Float[Tensor, "*lead dim"]:
        return codes_of_indices(indices, self.codebook_dim, self._magnitude, dtype)

    @property
    def _magnitude(self) -> float:
        """The absolute value of each channel of a code: half the edge of the cube."""
        return float(self.codebook_dim**-0.5)
