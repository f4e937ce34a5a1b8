"""Finite scalar perturbation: evenly used bins of bounded channels, and noise of their width in training (FSP)."""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from vq.distributed import all_reduce_sum_with_gradient
from vq.ops.digits import pack_digits, unpack_digits
from vq.ops.gradients import replace_value
from vq.ops.numerics.constants import constant, int64s
from vq.quantizers.base import QuantizeOutput, Quantizer
from vq.quantizers.finite_scalar import check_levels
from vq.registry import QUANTIZERS

UNIFORM_VARIANCE = {"tanh": math.pi**2 / 12, "normal": 1.0}
"""Variance of the distribution whose CDF is the activation, that is, of a channel that it maps to a uniform one."""


@QUANTIZERS.register_module()
class ScalarPerturbationQuantizer(Quantizer):
    r"""Maps each channel to [0, 1] by a CDF and replaces it by the centre of one of L bins of equal width (FSP).

    With $x = (1 + \tanh z) / 2$, or the CDF of the normal distribution, the digit of a channel is
    $n = \lfloor L x \rfloor$, and its code is $\sqrt{12}\,((n + 1/2) / L - 1/2)$, in (-sqrt(3), sqrt(3)). If x is
    uniform, the bins are used evenly, their centres are the best codes, and a channel of a code has nearly unit
    variance. The index is the number with the digits n, the first channel least significant.

    In training each channel is replaced, with the probability `perturbation_rate`, by $x + u$ with u uniform in
    $\pm \eta / (2 L)$ instead of the centre, unless $x + u$ is outside of [0, 1]; then it stays x. The index is still
    that of the bin of x. The gradient passes straight through to x in both cases.

    The loss makes x uniform: `mean_weight` times the mean over channels of $\mu^2$, plus `variance_weight` times that
    of $(s^2 - \sigma^2)^2$. Here mu and s^2 are mean and variance of a channel of z over the vectors of all ranks, and
    sigma^2 is the variance of the distribution with this CDF: pi^2 / 12 for tanh, 1 for normal.

    Source: Zhai et al. 2026 (VP-VAE), https://arxiv.org/abs/2602.17133, eq. 13 to 18. The scale sqrt(12), the choice
        per channel and the weights are those of the port in vector-quantize-pytorch.
    Differs from the source: the published code divides sums of squares by n - 1, not n, in the variance. Its sigmoid
        activation is tanh of z / 2.

    Args:
        levels: Number of bins L of each channel, each at least 3.
        activation: CDF that maps a channel to [0, 1].
        perturbation_rate: Fraction of the channels that are perturbed in training; the paper uses 1/2.
        width: Width eta of the noise in units of a bin.
        mean_weight: Weight of the means in the loss.
        variance_weight: Weight of the variances in the loss.

    Raises:
        ValueError: If `levels` is empty, a level is below 3, the codebook has 2^63 codes or more, the activation is
            not known, or `perturbation_rate` is not in [0, 1].

    Example:
        >>> ScalarPerturbationQuantizer(levels=[4])(torch.tensor([[0.1], [-9.0]])).indices
        tensor([2, 0])
    """

    def __init__(
        self,
        *,
        levels: Sequence[int],
        activation: Literal["tanh", "normal"] = "tanh",
        perturbation_rate: float = 0.5,
        width: float = 1.0,
        mean_weight: float = 0.1,
        variance_weight: float = 0.07,
    ) -> None:
        super().__init__()
        place = "ScalarPerturbationQuantizer"
        check_levels(place, levels)
        if activation not in UNIFORM_VARIANCE:
            raise ValueError(
                f"{place}: expected an activation of {', '.join(UNIFORM_VARIANCE)}, got {activation}"
            )
        if not 0 <= perturbation_rate <= 1:
            raise ValueError(f"{place}: expected a perturbation_rate in [0, 1], got {perturbation_rate}")
        self.levels, self.activation = tuple(levels), activation
        self.perturbation_rate, self.width = perturbation_rate, width
        self.mean_weight, self.variance_weight = mean_weight, variance_weight
        self.codebook_size, self.codebook_dim = math.prod(levels), len(levels)

    @classmethod
    def example(cls) -> "ScalarPerturbationQuantizer":
        """Returns a quantizer with even and odd levels, which has 240 codes."""
        return cls(levels=[8, 6, 5])

    def _forward(self, z: Float[Tensor, "*lead dim"], mask: Bool[Tensor, "*lead"] | None) -> QuantizeOutput:
        x = self._cdf(z)
        digits = self._digits(x)
        value = self._code(digits, z.dtype)
        if self.training and self.perturbation_rate > 0:
            is_perturbed = torch.rand_like(x) < self.perturbation_rate
            value = torch.where(is_perturbed, self._spread(self._perturbed(x.detach())), value)
        mean_loss, variance_loss = self._uniformity(z, mask)
        return QuantizeOutput(
            quantized=replace_value(self._spread(x), value),
            indices=pack_digits(digits, self._levels(z)),
            loss=self.mean_weight * mean_loss + self.variance_weight * variance_loss,
            metrics={"mean_loss": mean_loss.detach(), "variance_loss": variance_loss.detach()},
        )

    def _encode(self, z: Float[Tensor, "*lead dim"]) -> Int[Tensor, "*lead"]:
        return pack_digits(self._digits(self._cdf(z)), self._levels(z))

    def _decode(self, indices: Int[Tensor, "*lead"], dtype: torch.dtype) -> Float[Tensor, "*lead dim"]:
        return self._code(unpack_digits(indices, self._levels(indices)), dtype)

    def _cdf(self, z: Float[Tensor, "*lead dim"]) -> Float[Tensor, "*lead dim"]:
        return (z.tanh() + 1) / 2 if self.activation == "tanh" else torch.special.ndtr(z)

    def _digits(self, x: Float[Tensor, "*lead dim"]) -> Int[Tensor, "*lead dim"]:
        # NaN has no integer value: its digit is 0, and the code that is returned stays NaN.
        levels = self._levels(x)
        return torch.minimum((x * levels).floor().nan_to_num(0.0).long(), levels - 1)

    def _code(self, digits: Int[Tensor, "*lead dim"], dtype: torch.dtype) -> Float[Tensor, "*lead dim"]:
        levels = self._levels(digits)
        return (2 * digits + 1 - levels).to(dtype) * (math.sqrt(3) / levels.to(dtype))

    def _perturbed(self, x: Float[Tensor, "*lead dim"]) -> Float[Tensor, "*lead dim"]:
        moved = x + (torch.rand_like(x) - 0.5) * self.width / self._levels(x)
        return torch.where((moved >= 0) & (moved <= 1), moved, x)

    def _spread(self, x: Float[Tensor, "*lead dim"]) -> Float[Tensor, "*lead dim"]:
        """Maps [0, 1] to an interval around 0 on which the uniform distribution has unit variance."""
        return (x - 0.5) * math.sqrt(12)

    def _uniformity(
        self, z: Float[Tensor, "*lead dim"], mask: Bool[Tensor, "*lead"] | None
    ) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """Computes the squared errors of the means and the variances of the channels; 0 without any vector."""
        vectors = z.reshape(-1, self.codebook_dim)
        weight = vectors.new_ones(len(vectors)) if mask is None else mask.reshape(-1).to(z.dtype)
        sums = torch.cat([weight.sum()[None], weight @ vectors, weight @ vectors.square()])
        if self.training:
            sums = all_reduce_sum_with_gradient(sums)
        count = sums[0].detach()
        mean, square = (sums[1:] / count.clamp_min(1)).chunk(2)
        variance = square - mean.square()
        variance_error = (variance - UNIFORM_VARIANCE[self.activation]) * count.clamp_max(1)
        return mean.square().mean(), variance_error.square().mean()

    def _levels(self, like: Shaped[Tensor, "..."]) -> Int[Tensor, "dim"]:
        return constant(int64s, *self.levels, device=like.device)
