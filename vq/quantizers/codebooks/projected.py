"""The codebook of SimVQ: one linear map moves all codes together."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from vq.ops.numerics.reductions import mean_square
from vq.quantizers.codebooks.base import Codebook
from vq.quantizers.parts.initialization import Initialization, NormalInit
from vq.registry import CODEBOOKS


@CODEBOOKS.register_module()
class ProjectedCodebook(Codebook):
    """Maps random coefficients that never learn to the codes by one learned linear map (SimVQ).

    With $e_k = W c_k + b$ the loss $|sg(z) - e|^2$ moves W and b, and with them every code, also those that no vector
    chose. So codes do not die, and there is nothing to revive.

    The codes are computed in every forward and every `decode`, which takes size x dim^2 products: as many as the
    search takes for dim vectors.

    Source: Zhu et al. 2024 (SimVQ), https://arxiv.org/abs/2411.02038, section 4; the bias is that of its
        published implementation.
    Differs from the source: W begins as the identity and b at 0, not at random, so that `init` determines the
        first codes as it does for any other codebook. An initialization from data sets the coefficients once.

    Args:
        size: Number of codes.
        dim: Length of each code.
        init: How the coefficients, and so the codes, are initialised; None is Gaussian with the standard deviation
            dim^-0.5.
    """

    coefficients: Tensor

    def __init__(self, *, size: int, dim: int, init: Initialization | None = None) -> None:
        super().__init__(size=size, dim=dim, init=init or NormalInit(), revival=None)
        self.register_buffer("coefficients", self.init.draw(size, dim))
        self.weight = nn.Parameter(torch.eye(dim))
        self.bias = nn.Parameter(torch.zeros(dim))

    @classmethod
    def example(cls) -> "ProjectedCodebook":
        """Returns 16 codes of length 4."""
        return cls(size=16, dim=4)

    @property
    def vectors(self) -> Float[Tensor, "size dim"]:
        """The mapped coefficients; computed at each access."""
        return F.linear(self.coefficients, self.weight, self.bias)

    def loss(
        self,
        z: Float[Tensor, "n dim"],
        code: Float[Tensor, "n dim"],
        mask: Bool[Tensor, "n"] | None = None,
    ) -> Float[Tensor, ""]:
        """Computes the mean squared difference of codes and vectors, with a gradient to the linear map only."""
        return mean_square(code, z.detach(), mask)

    def _searched(self) -> None:
        return None  # only the optimizer moves the codes

    def set_codes(
        self,
        vectors: Float[Tensor, "size dim"],
        usage: Float[Tensor, "size"],
        is_moved: Bool[Tensor, "size"],
    ) -> None:
        """Overwrites the coefficients and resets the linear map to the identity."""
        # Without a revival all codes are set at once, so the map can be reset.
        self.coefficients.copy_(vectors)
        self.weight.copy_(torch.eye(self.dim).to(self.weight))
        self.bias.zero_()
