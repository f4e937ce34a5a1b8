"""The clustered codebook of CVQ-VAE: codes that are not used move to where the vectors are."""

from typing import cast, get_args

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from vq.ops.numerics.reductions import count_and_sum, mean_square
from vq.quantizers.codebooks.anchors import AnchorKind, Anchors, draw_anchors, merge_anchors
from vq.quantizers.codebooks.learned import Codebook
from vq.quantizers.parts.initialization import Initialization, UniformInit
from vq.registry import CODEBOOKS


@CODEBOOKS.register_module()
class ClusteredCodebook(Codebook):
    r"""Keeps codes as a parameter, and pulls each towards a vector of the batch, the less used the more.

    After the search of a training step, with the share $c_k / n$ of the vectors of all ranks that chose
    code k: $N_k \leftarrow g N_k + (1 - g) c_k / n$, $a_k = \exp(-10 N_k K / (1 - g) - 0.001)$,
    $e_k \leftarrow (1 - a_k) e_k + a_k f_k$. The anchor $f_k$ is a vector of the batches of all ranks. A
    code of mean use, $N_k = 1 / K$, does not move: $a_k = e^{-1000}$. N begins at 0, so in the first steps
    the codes that are not chosen jump to vectors.

    Used codes learn by gradient, like those of `LearnedCodebook`. `ContrastiveRegulariser` is the paper's
    optional term.

    Under `accumulate` the anchors of the micro-batches are those of one large batch: the closest exactly,
    the random ones in distribution.

    Source: Zheng and Vedaldi 2023 (CVQ-VAE), https://arxiv.org/abs/2307.15139, eq. 4 to 6.
    Differs from the source: statistics and anchors are those of all ranks; `"random"` draws from the batch,
        not from a pool that batches fill; `"probrandom"` draws in proportion to exp(-|z - e|^2), which on
        the unit sphere is exp(2 cos) up to a factor, not exp(cos).

    Args:
        size: The number of codes, K.
        dim: The length of each.
        decay: g, in [0, 1).
        anchor: `"closest"` vector to the code, `"probrandom"`: drawn, near ones more often, or `"random"`.
        init: Where the codes begin.

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
                f"ClusteredCodebook: expected an anchor of {', '.join(get_args(AnchorKind))}, got {anchor!r}"
            )
        self.decay, self.anchor = decay, cast(AnchorKind, anchor)
        self.weight = nn.Parameter(self.init.draw(size, dim))
        self.register_buffer("usage", torch.zeros(size))
        self._anchors: Anchors | None = None

    @classmethod
    def example(cls) -> "ClusteredCodebook":
        """Sixteen codes of length 4."""
        return cls(size=16, dim=4)

    @property
    def vectors(self) -> Float[Tensor, "size dim"]:
        """The parameter; where there will be a backward a copy, because codes move before it."""
        return self.weight.clone() if self.training and torch.is_grad_enabled() else self.weight

    def loss(
        self,
        z: Float[Tensor, "n dim"],
        code: Float[Tensor, "n dim"],
        mask: Bool[Tensor, "n"] | None = None,
    ) -> Float[Tensor, ""]:
        """The mean squared difference, with a gradient to the codes only."""
        return mean_square(code, z.detach(), mask)

    def _collect(self, z: Float[Tensor, "n dim"], indices: Int[Tensor, "n"], mask: Bool[Tensor, "n"]) -> None:
        """See `Codebook`; also looks for anchors, before codes move."""
        codes = self.weight.float() if self.weight.dtype.itemsize < 4 else self.weight
        anchors = draw_anchors(self.anchor, z.to(codes.dtype), mask, codes)
        if self._anchors is not None:
            anchors = merge_anchors(self.anchor, self._anchors, anchors)
        self._anchors = anchors
        super()._collect(z, indices, mask)

    def _statistics(
        self, z: Float[Tensor, "n dim"], indices: Int[Tensor, "n"], mask: Bool[Tensor, "n"]
    ) -> Tensor | None:
        return count_and_sum(z[:, :0].to(self.usage.dtype), indices, mask, self.size)

    def _learn(self, counts: Float[Tensor, "size"], sums: Float[Tensor, "size dim_or_0"]) -> None:
        anchors, self._anchors = self._anchors, None
        if anchors is None:
            return
        total = counts.sum()
        there_are_any = (total > 0).to(counts.dtype)
        self.usage.lerp_(counts / total.clamp_min(1), (1 - self.decay) * there_are_any)
        pull = self.pull().to(counts.dtype) * there_are_any
        self.weight.lerp_(anchors.vectors.to(self.weight.dtype), pull.to(self.weight.dtype)[:, None])

    def pull(self) -> Float[Tensor, "size"]:
        """a, by how much each code goes to its anchor in a step, in (0, 1)."""
        return torch.exp(-10 * self.usage * self.size / (1 - self.decay) - 1e-3)

    def _place(
        self,
        vectors: Float[Tensor, "size dim"],
        usage: Float[Tensor, "size"],
        is_moved: Bool[Tensor, "size"],
    ) -> None:
        self.weight.copy_(vectors)
        self.usage.copy_(usage / usage.sum())
