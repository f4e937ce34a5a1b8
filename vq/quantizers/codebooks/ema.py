"""The codebook of VQ-VAE whose codes are exponential moving averages of the vectors that chose them."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from vq.ops.numerics.reductions import count_and_sum
from vq.quantizers.codebooks.base import Codebook, step_size
from vq.quantizers.parts.initialization import Initialization, KMeansInit, NormalInit
from vq.quantizers.parts.revival import Revival
from vq.registry import CODEBOOKS


@CODEBOOKS.register_module()
class EMACodebook(Codebook):
    r"""Keeps each code as the exponential moving average of the vectors that chose it.

    Let $c_k$ be the number and $s_k$ the sum of the vectors of all ranks that chose code k in a step. Then
    $n_k \leftarrow g n_k + (1 - g) c_k$, $m_k \leftarrow g m_k + (1 - g) s_k$,
    $e_k = m_k / \tilde n_k$ with $\tilde n_k = \frac{n_k + \epsilon}{N + K \epsilon} N$, $N = \sum_k n_k$.

    Keep the module in float32 and use autocast: in half precision the averages lose counts.

    Source: van den Oord et al. 2017 (VQ-VAE), https://arxiv.org/abs/1711.00937, eq. 6 to 8 (appendix A.1);
        the smoothing of the counts is that of its published implementation.
    Differs from the source: the averages begin at n = 1 and m = e, or with the clusters of k-means. Averages
        that begin at 0 would throw unused codes far away in the first step. Steps that saw no vectors do not
        count.

    Args:
        size: Number of codes.
        dim: Length of each code.
        decay: Fraction g of the averages that is kept in each step, in [0, 1).
        eps: Smoothing of the counts.
        init: How the codes are initialised; None is `KMeansInit()`.
        revival: How unused codes are replaced; None never replaces them.

    Raises:
        ValueError: If the decay is not in [0, 1).
    """

    weight: Tensor
    usage: Tensor
    sums: Tensor

    def __init__(
        self,
        *,
        size: int,
        dim: int,
        decay: float = 0.99,
        eps: float = 1e-5,
        init: Initialization | None = None,
        revival: Revival | None = None,
    ) -> None:
        super().__init__(size=size, dim=dim, init=init or KMeansInit(), revival=revival)
        if not 0 <= decay < 1:
            raise ValueError(f"EMACodebook: expected a decay in [0, 1), got {decay}")
        self.decay, self.eps = decay, eps
        # Buffers, not parameters: they have no gradient, and DistributedDataParallel broadcasts them.
        self.register_buffer("weight", self.init.draw(size, dim))
        self.register_buffer("usage", torch.ones(size))
        self.register_buffer("sums", self.weight.clone())

    @classmethod
    def example(cls) -> "EMACodebook":
        """Returns 16 codes of length 4 that are initialised at random."""
        return cls(size=16, dim=4, init=NormalInit())

    @property
    def vectors(self) -> Float[Tensor, "size dim"]:
        """The averages, without a gradient."""
        return self.weight

    def loss(
        self,
        z: Float[Tensor, "n dim"],
        code: Float[Tensor, "n dim"],
        mask: Bool[Tensor, "n"] | None = None,
    ) -> Float[Tensor, ""]:
        """Returns 0: the codes learn in `update`, not by gradient."""
        return z.new_zeros(())

    def statistics(
        self, z: Float[Tensor, "n dim"], indices: Int[Tensor, "n"], mask: Bool[Tensor, "n"]
    ) -> Float[Tensor, "flat"]:
        """Counts and sums the vectors of each code."""
        return count_and_sum(z.to(self.sums.dtype), indices, mask, self.size)

    def learn(self, counts: Float[Tensor, "size"], sums: Float[Tensor, "size dim"]) -> None:
        """Moves the averages towards the counts and sums of this step."""
        step = step_size(1 - self.decay, counts)
        self.usage.lerp_(counts, step)
        self.sums.lerp_(sums, step)
        total = self.usage.sum()
        smoothed = (self.usage + self.eps) / (total + self.size * self.eps) * total
        # The weight of lerp is exactly 1, or 0 in a step without vectors, which must not change even a rounding.
        means = torch.div(self.sums, smoothed[:, None], out=sums)  # `sums` is not needed any more
        self.weight.lerp_(means, (step > 0).to(self.weight.dtype))

    def average_usage(self) -> Float[Tensor, "size"]:
        """Returns the moving average of the counts."""
        return self.usage

    def set_codes(
        self,
        vectors: Float[Tensor, "size dim"],
        usage: Float[Tensor, "size"],
        is_moved: Bool[Tensor, "size"],
    ) -> None:
        """Overwrites codes and usage, and makes the sums of moved codes consistent with them."""
        # With its old sum a moved code would jump back in the next update.
        self.sums.copy_(torch.where(is_moved[:, None], vectors * usage[:, None], self.sums))
        self.weight.copy_(vectors)
        self.usage.copy_(usage)
