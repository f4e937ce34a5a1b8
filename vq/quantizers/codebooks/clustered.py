"""The clustered codebook of CVQ-VAE: unused codes move to where the vectors are."""

from typing import cast, get_args

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from vq.ops.numerics.reductions import count_and_sum, mean_square
from vq.quantizers.codebooks.anchors import AnchorKind, Anchors, draw_anchors, merge_anchors
from vq.quantizers.codebooks.base import Codebook
from vq.quantizers.parts.initialization import Initialization, UniformInit
from vq.registry import CODEBOOKS


@CODEBOOKS.register_module()
class ClusteredCodebook(Codebook):
    r"""Keeps codes as a parameter and pulls each towards a vector of the batch, the more the less it is used.

    Let $c_k / n$ be the fraction of the vectors of all ranks that chose code k. After the search of a training step
    $N_k \leftarrow g N_k + (1 - g) c_k / n$, $a_k = \exp(-10 N_k K / (1 - g) - 0.001)$ and
    $e_k \leftarrow (1 - a_k) e_k + a_k f_k$, where the anchor $f_k$ is a vector of the batches of all ranks. A code
    of average use, $N_k = 1 / K$, does not move: $a_k = e^{-1000}$ for g = 0.99. N begins at 0, so that in the first
    steps codes that are not chosen jump to vectors.

    Used codes learn by gradient, like those of `LearnedCodebook`. `ContrastiveRegulariser` is the optional loss term
    of the paper.

    Under `accumulate` the anchors of the micro-batches are those of one large batch: exactly for `"closest"`, in
    distribution for the random ones.

    Source: Zheng and Vedaldi 2023 (CVQ-VAE), https://arxiv.org/abs/2307.15139, eq. 4 to 6.
    Differs from the source: statistics and anchors are those of all ranks; `"random"` draws from the batch,
        not from a pool that batches fill; `"probrandom"` draws with probability proportional to exp(-|z - e|^2),
        which on the unit sphere is exp(2 cos) up to a factor, not exp(cos).

    Args:
        size: Number of codes, K.
        dim: Length of each code.
        decay: Fraction g of the usage that is kept in each step, in [0, 1).
        anchor: Kind of the anchors: `"closest"` vector to the code, `"probrandom"` for a random vector that is
            more likely the nearer it is, or `"random"`.
        init: How the codes are initialised; None is `UniformInit()`.

    Raises:
        ValueError: If the decay is not in [0, 1), or the anchor is none of the three.
    """

    collected = ("_pending", "_anchors")
    usage: Tensor

    def __init__(
        self,
        *,
        size: int,
        dim: int,
        decay: float = 0.99,
        anchor: str = "closest",
        init: Initialization | None = None,
    ) -> None:
        super().__init__(size=size, dim=dim, init=init or UniformInit(), revival=None)
        if not 0 <= decay < 1:
            raise ValueError(f"ClusteredCodebook: expected a decay in [0, 1), got {decay}")
        if anchor not in get_args(AnchorKind):
            raise ValueError(
                f"ClusteredCodebook: expected an anchor out of {', '.join(get_args(AnchorKind))}, got {anchor!r}"
            )
        self.decay, self.anchor = decay, cast(AnchorKind, anchor)
        self.weight = nn.Parameter(self.init.draw(size, dim))
        self.register_buffer("usage", torch.zeros(size))
        self._anchors: Anchors | None = None

    @classmethod
    def example(cls) -> "ClusteredCodebook":
        """Returns 16 codes of length 4."""
        return cls(size=16, dim=4)

    @property
    def vectors(self) -> Float[Tensor, "size dim"]:
        """The parameter; a copy of it if a backward follows, because codes move before the backward."""
        return self.weight.clone() if self.training and torch.is_grad_enabled() else self.weight

    def loss(
        self,
        z: Float[Tensor, "n dim"],
        code: Float[Tensor, "n dim"],
        mask: Bool[Tensor, "n"] | None = None,
    ) -> Float[Tensor, ""]:
        """Computes the mean squared difference of codes and vectors, with a gradient to the codes only."""
        return mean_square(code, z.detach(), mask)

    def _collect(self, z: Float[Tensor, "n dim"], indices: Int[Tensor, "n"], mask: Bool[Tensor, "n"]) -> None:
        """Adds to the pending statistics, and draws anchors before the codes move."""
        codes = self.weight.float() if self.weight.dtype.itemsize < 4 else self.weight
        anchors = draw_anchors(self.anchor, z.to(codes.dtype), mask, codes)
        if self._anchors is not None:
            anchors = merge_anchors(self.anchor, self._anchors, anchors)
        self._anchors = anchors
        super()._collect(z, indices, mask)

    def statistics(
        self, z: Float[Tensor, "n dim"], indices: Int[Tensor, "n"], mask: Bool[Tensor, "n"]
    ) -> Float[Tensor, "flat"]:
        """Counts the vectors of each code."""
        return count_and_sum(z[:, :0].to(self.usage.dtype), indices, mask, self.size)

    def learn(self, counts: Float[Tensor, "size"], sums: Float[Tensor, "size 0"]) -> None:
        """Updates the usage and pulls the codes towards their anchors."""
        anchors, self._anchors = self._anchors, None
        if anchors is None:
            return
        total = counts.sum()
        there_are_any = (total > 0).to(counts.dtype)
        self.usage.lerp_(counts / total.clamp_min(1), (1 - self.decay) * there_are_any)
        pull = self.pull().to(counts.dtype) * there_are_any
        self.weight.lerp_(anchors.vectors.to(self.weight.dtype), pull.to(self.weight.dtype)[:, None])

    def pull(self) -> Float[Tensor, "size"]:
        """Computes how far each code moves towards its anchor in a step: the fraction a, in (0, 1)."""
        return torch.exp(-10 * self.usage * self.size / (1 - self.decay) - 1e-3)

    def set_codes(
        self,
        vectors: Float[Tensor, "size dim"],
        usage: Float[Tensor, "size"],
        is_moved: Bool[Tensor, "size"],
    ) -> None:
        """Overwrites the parameter and the usage, which is kept as a fraction of all vectors."""
        self.weight.copy_(vectors)
        self.usage.copy_(usage / usage.sum())
