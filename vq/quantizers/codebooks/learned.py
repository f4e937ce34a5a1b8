"""The codebook of VQ-VAE whose codes are a parameter."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from vq.ops.numerics.reductions import count_and_sum, mean_square
from vq.quantizers.codebooks.base import Codebook, step_size
from vq.quantizers.parts.initialization import Initialization, NormalInit, UniformInit
from vq.quantizers.parts.revival import Revival
from vq.registry import CODEBOOKS


@CODEBOOKS.register_module()
class LearnedCodebook(Codebook):
    """Keeps codes as a parameter that the optimizer moves towards the vectors that chose them.

    A revival or k-means writes into the parameter at the beginning of a forward. The optimizer does not know: Adam's
    moments of a moved code stay, and have faded as far as the code was unused.

    Source: van den Oord et al. 2017 (VQ-VAE), https://arxiv.org/abs/1711.00937, second term of eq. 3.

    Args:
        size: Number of codes.
        dim: Length of each code.
        init: How the codes are initialised; None is `UniformInit()`.
        revival: How unused codes are replaced; None never replaces them.
        usage_decay: Fraction of the average usage that is kept in each step; None is 0.99. Only for a revival.

    Raises:
        ValueError: If there is a `usage_decay` but no revival, which alone needs the usage.
    """

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
        super().__init__(size=size, dim=dim, init=init or UniformInit(), revival=revival)
        if usage_decay is not None and revival is None:
            raise ValueError(
                f"LearnedCodebook: expected no usage_decay without a revival, got {usage_decay}, which has no effect; "
                f"leave it out, or add a revival"
            )
        self.usage_decay = 0.99 if usage_decay is None else usage_decay
        self.weight = nn.Parameter(self.init.draw(size, dim))
        if revival is not None:
            self.register_buffer("usage", torch.ones(size))

    @classmethod
    def example(cls) -> "LearnedCodebook":
        """Returns 16 codes of length 4."""
        return cls(size=16, dim=4, init=NormalInit())

    @property
    def vectors(self) -> Float[Tensor, "size dim"]:
        """The parameter; a copy of it if a backward follows and a revival may move codes before it."""
        is_moved = self.revival is not None and self.training and torch.is_grad_enabled()
        return self.weight.clone() if is_moved else self.weight

    def loss(
        self,
        z: Float[Tensor, "n dim"],
        code: Float[Tensor, "n dim"],
        mask: Bool[Tensor, "n"] | None = None,
    ) -> Float[Tensor, ""]:
        """Computes the mean squared difference of codes and vectors, with a gradient to the codes only."""
        return mean_square(code, z.detach(), mask)

    def statistics(
        self, z: Float[Tensor, "n dim"], indices: Int[Tensor, "n"], mask: Bool[Tensor, "n"]
    ) -> Float[Tensor, "flat"] | None:
        """Counts the vectors of each code if there is a revival."""
        if self.revival is None:
            return None
        return count_and_sum(z[:, :0].to(self.usage.dtype), indices, mask, self.size)

    def learn(self, counts: Float[Tensor, "size"], sums: Float[Tensor, "size 0"]) -> None:
        """Moves the average usage towards the counts of this step; the codes learn by gradient."""
        self.usage.lerp_(counts, step_size(1 - self.usage_decay, counts))

    def _searched(self) -> Float[Tensor, "size dim"] | None:
        return None if self.revival is None else super()._searched()

    def average_usage(self) -> Float[Tensor, "size"]:
        """Returns the moving average of the counts."""
        return self.usage

    def set_codes(
        self,
        vectors: Float[Tensor, "size dim"],
        usage: Float[Tensor, "size"],
        is_moved: Bool[Tensor, "size"],
    ) -> None:
        """Overwrites the parameter and, with a revival, the usage."""
        self.weight.copy_(vectors)
        if self.revival is not None:
            self.usage.copy_(usage)
