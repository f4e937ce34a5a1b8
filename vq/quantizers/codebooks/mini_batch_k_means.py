"""Mini-batch k-means as a codebook: each code is the mean of all vectors that have chosen it."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from vq.ops.numerics.precision import computed_in
from vq.ops.numerics.reductions import count_and_sum
from vq.quantizers.codebooks.base import Codebook, step_size
from vq.quantizers.parts.initialization import Initialization, KMeansInit
from vq.quantizers.parts.revival import Revival
from vq.registry import CODEBOOKS


@CODEBOOKS.register_module()
class MiniBatchKMeansCodebook(Codebook):
    r"""Keeps each code as the mean of all vectors that have chosen it since the training began.

    Let $c_k$ be the number and $s_k$ the sum of the vectors of all ranks and micro-batches that chose code k in a
    step. Then $n_k \leftarrow n_k + c_k$ and $e_k \leftarrow e_k + (s_k - c_k e_k) / n_k$. The rate falls with the
    number of vectors seen, so that the codes converge; use `EMACodebook` if the vectors drift, as those of an encoder
    that is trained do. With `CosineDistance` it is spherical k-means: a code is the direction of the mean of unit
    vectors.

    Source: Sculley 2010, "Web-scale k-means clustering", https://doi.org/10.1145/1772690.1772862, algorithm 1.
    Differs from the source: all vectors of a step are assigned before the codes move, and move them at once. The
        codes begin as the clusters of the first batch. A code that is initialised or revived counts as the mean of as
        many vectors as its usage says, so the vectors of the first batch count once in the clustering and once in the
        first step.

    Args:
        size: Number of codes.
        dim: Length of each code.
        init: How the codes are initialised; None is `KMeansInit()`. Codes that are not initialised from data count
            as the mean of no vector: the first vectors replace them.
        revival: How unused codes are replaced; None never replaces them.
        usage_decay: Fraction of the average usage that is kept in each step; None is 0.99. Only for a revival.

    Raises:
        ValueError: If there is a `usage_decay` but no revival, which alone needs the usage.
    """

    weight: Tensor
    counts: Tensor
    usage: Tensor

    def __init__(
        self,
        *,
        size: int,
        dim: int,
        init: Initialization | None = None,
        revival: Revival | None = None,
        usage_decay: float | None = None,
    ) -> None:
        super().__init__(size=size, dim=dim, init=init or KMeansInit(), revival=revival)
        if usage_decay is not None and revival is None:
            raise ValueError(
                f"MiniBatchKMeansCodebook: expected no usage_decay without a revival, got {usage_decay}, which has no "
                f"effect; leave it out, or add a revival"
            )
        self.usage_decay = 0.99 if usage_decay is None else usage_decay
        self.register_buffer("weight", self.init.draw(size, dim))
        # Integers stay exact: in float32, a count that has reached 2^24 no longer grows by 1.
        self.register_buffer("counts", torch.zeros(size, dtype=torch.int64))
        if revival is not None:
            self.register_buffer("usage", torch.ones(size))

    @classmethod
    def example(cls) -> "MiniBatchKMeansCodebook":
        """Returns 16 codes of length 4."""
        return cls(size=16, dim=4)

    @property
    def vectors(self) -> Float[Tensor, "size dim"]:
        """The means, without a gradient."""
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
        return count_and_sum(z.to(computed_in(self.weight.dtype)), indices, mask, self.size)

    def learn(self, counts: Float[Tensor, "size"], sums: Float[Tensor, "size dim"]) -> None:
        """Moves each code to the mean of its vectors, those of this step included."""
        self.counts += counts.round().long()
        rate = counts / self.counts.clamp_min(1).to(counts.dtype)
        means = torch.div(sums, counts.clamp_min(1)[:, None], out=sums)  # `sums` is not needed any more
        self.weight.lerp_(means.to(self.weight.dtype), rate.to(self.weight.dtype)[:, None])
        if self.revival is not None:
            self.usage.lerp_(counts.to(self.usage.dtype), step_size(1 - self.usage_decay, counts))

    def average_usage(self) -> Float[Tensor, "size"]:
        """Returns the moving average of the counts of a step."""
        return self.usage

    def set_codes(
        self,
        vectors: Float[Tensor, "size dim"],
        usage: Float[Tensor, "size"],
        is_moved: Bool[Tensor, "size"],
    ) -> None:
        """Overwrites codes and usage; a moved code counts as the mean of `usage` vectors, of at least one."""
        self.weight.copy_(vectors)
        self.counts.copy_(torch.where(is_moved, usage.round().clamp_min(1).long(), self.counts))
        if self.revival is not None:
            self.usage.copy_(usage)
