"""Binary spherical quantization: the nearest corner of a cube inscribed in the unit sphere (BSQ)."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from vq.ops.digits import pack_digits, unpack_digits
from vq.ops.directions import unit
from vq.ops.gradients import replace_value
from vq.ops.numerics.constants import constant, int64s
from vq.ops.numerics.reductions import mean_square
from vq.quantizers.base import QuantizeOutput, Quantizer
from vq.quantizers.lookup_free import check_bits
from vq.quantizers.parts.regularisers import bit_entropies
from vq.registry import QUANTIZERS


@QUANTIZERS.register_module()
class BinarySphericalQuantizer(Quantizer):
    r"""Puts each vector on the unit sphere and replaces its channels by their signs over sqrt(bits) (BSQ).

    With $u = z / |z|$ the code is $c = sign(u) / \sqrt{bits}$, which is on the sphere too, so the error is
    bounded: $|u - c| < \sqrt 2$. A vector of zeros has u = 0 and no gradient. Bit i of the index says whether
    channel i is positive; 0 counts as negative.

    The loss is `entropy_weight` times $E[H(p)] - \gamma H(E[p])$ with $p = softmax_k(-|u - c_k|^2 / \tau)$, in
    which each bit is independently 1 with the probability sigmoid(4 u / (tau sqrt(bits))). In training the
    two entropies are those of the vectors of all ranks.

    Source: Zhao et al. 2024, https://arxiv.org/abs/2406.07548, section 4; weights as in its published configs.
    Differs from the source: the paper's softmax is of tau u c; its tau is 2 over `temperature`. The published
        code has big-endian indices (see `vq.ops.digits.reverse_digits`).

    Args:
        bits: The number of channels, at most 62.
        entropy_weight: Of both entropy terms.
        diversity_weight: gamma, of the entropy of the mean distribution within them.
        temperature: tau.
        commitment_weight: Of the mean of $(u - sg(c))^2$; the bounded error needs none.
        group_bits: H(E[p]) is counted in groups of at most this many bits (see `bit_entropies`), at most
            24. The paper's approximation is 1: each bit is to be 0 and 1 equally often. 18 is exact for 18
            bits.

    Raises:
        ValueError: If there are too few or too many bits, or the temperature is not positive.

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
        """Six bits, 64 codes."""
        return cls(bits=6)

    def _forward(self, z: Float[Tensor, "*lead dim"], mask: Bool[Tensor, "*lead"] | None) -> QuantizeOutput:
        on_sphere = unit(z)
        bits = z > 0
        code = (bits.to(z.dtype) * 2 - 1) * self._radius
        sample, codebook = bit_entropies(
            on_sphere.reshape(-1, self.codebook_dim) * (4 * self._radius / self.temperature),
            None if mask is None else mask.reshape(-1),
            group_bits=self.group_bits,
            across_ranks=self.training,
        )
        entropy_loss = sample - self.diversity_weight * codebook
        commitment_loss = self._over_ranks(mean_square(on_sphere, code, mask))
        return QuantizeOutput(
            quantized=replace_value(on_sphere, code),
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
        return (unpack_digits(indices, self._levels(indices)).to(dtype) * 2 - 1) * self._radius

    def _levels(self, like: Tensor) -> Int[Tensor, "dim"]:
        return constant(int64s, *[2] * self.codebook_dim, device=like.device)

    @property
    def _radius(self) -> float:
        """Half the edge of the cube: the size of each channel of a code."""
        return float(self.codebook_dim**-0.5)
