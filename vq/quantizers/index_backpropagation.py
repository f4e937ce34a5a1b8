"""Index backpropagation: a hard choice whose gradient reaches every code (IBQ)."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from vq.ops.backpropagation import choose_with_soft_gradient
from vq.ops.distance import common_centre, largest_product
from vq.ops.numerics.reductions import mean_square
from vq.quantizers.base import QuantizeOutput, Quantizer
from vq.quantizers.parts.initialization import Initialization, NormalInit, UniformInit
from vq.quantizers.parts.regularisers import softmax_entropies
from vq.registry import QUANTIZERS


@QUANTIZERS.register_module()
class IndexBackpropagationQuantizer(Quantizer):
    r"""Selects the code with the largest product with z; the gradient is that of a softmax over all codes (IBQ).

    With $p = softmax_k(z e_k)$ and $A = onehot(argmax p) + p - sg(p)$ the code is $q = \sum_k A_k e_k$. Its value
    is the selected code $\hat q$; its gradient reaches z and every code through p, so that unused codes move too
    (there is no straight-through gradient to z). The loss is

    $|q - z|^2 + |sg(\hat q) - z|^2 + \beta |\hat q - sg(z)|^2 + w (E[H(p_\tau)] - H(E[p_\tau]))$

    with $p_\tau = softmax_k(z e_k / \tau)$ and H(E[p]) over the vectors of all ranks. Search, gradient and
    entropies are computed in tiles: no tensor of vectors times codes exists, not even between forward and backward.

    Source: Shi et al. 2024, https://arxiv.org/abs/2412.02692, section 3.2; the weights of the three terms and the
        temperature of the entropy are those of its published implementation.
    Differs from the source: the loss is computed in eval too.

    Args:
        size: Number of codes.
        dim: Last axis of `z` and length of the codes.
        commitment_weight: Weight beta, which here belongs to the term that moves the code.
        entropy_weight: Weight w of the entropies.
        temperature: Temperature tau of the entropies only.
        init: How the codes are initialised; None is uniform in +-1/size. It must not need data.

    Raises:
        ValueError: If size, dim or temperature is not positive, a weight is negative, or `init` needs data.

    Example:
        >>> quantizer = IndexBackpropagationQuantizer(size=512, dim=64)
        >>> quantizer(torch.randn(2, 8, 8, 64)).indices.shape
        torch.Size([2, 8, 8])
    """

    def __init__(
        self,
        *,
        size: int,
        dim: int,
        commitment_weight: float = 0.25,
        entropy_weight: float = 0.05,
        temperature: float = 0.01,
        init: Initialization | None = None,
    ) -> None:
        super().__init__()
        place = "IndexBackpropagationQuantizer"
        if size < 1 or dim < 1 or temperature <= 0:
            raise ValueError(
                f"{place}: expected positive size, dim and temperature, got {size}, {dim} and {temperature}"
            )
        if commitment_weight < 0 or entropy_weight < 0:
            raise ValueError(
                f"{place}: expected weights of at least 0, got commitment_weight={commitment_weight} and "
                f"entropy_weight={entropy_weight}"
            )
        init = init or UniformInit()
        if init.needs_data:
            raise ValueError(
                f"{place}: expected an init that draws codes, got {type(init).__name__}, which needs data"
            )
        self.codebook_size, self.codebook_dim = size, dim
        self.commitment_weight, self.entropy_weight = commitment_weight, entropy_weight
        self.temperature = temperature
        self.codes = nn.Parameter(init.draw(size, dim))

    @classmethod
    def example(cls) -> "IndexBackpropagationQuantizer":
        """Returns a quantizer with 16 codes of length 4."""
        return cls(size=16, dim=4, init=NormalInit(std=1.0))

    def _forward(self, z: Float[Tensor, "*lead dim"], mask: Bool[Tensor, "*lead"] | None) -> QuantizeOutput:
        vectors, codes = z.reshape(-1, self.codebook_dim), self.codes.to(z.dtype)
        counted = None if mask is None else mask.reshape(-1)
        indices = largest_product(vectors, codes)
        soft = choose_with_soft_gradient(vectors, codes, indices)
        hard = F.embedding(indices, codes)
        soft_loss = self._over_ranks(mean_square(soft, vectors, counted))
        pull_loss = self._over_ranks(mean_square(hard.detach(), vectors, counted))
        code_loss = self._over_ranks(mean_square(hard, vectors.detach(), counted))
        loss = soft_loss + pull_loss + self.commitment_weight * code_loss
        metrics = {"quantization_loss": loss.detach()}
        if self.entropy_weight:
            entropies = softmax_entropies(
                vectors / self.temperature,
                codes - common_centre(codes),  # the softmax is the same, in more exact arithmetic
                codes.new_zeros(self.codebook_size),
                counted,
                across_ranks=self.training,
            )
            loss = loss + self.entropy_weight * entropies.loss()
            metrics |= entropies.metrics()
        return QuantizeOutput(
            quantized=soft.view(z.shape), indices=indices.view(z.shape[:-1]), loss=loss, metrics=metrics
        )

    def _encode(self, z: Float[Tensor, "*lead dim"]) -> Int[Tensor, "*lead"]:
        vectors = z.reshape(-1, self.codebook_dim)
        return largest_product(vectors, self.codes.to(z.dtype)).view(z.shape[:-1])

    def _decode(self, indices: Int[Tensor, "*lead"], dtype: torch.dtype) -> Float[Tensor, "*lead dim"]:
        return F.embedding(indices, self.codes.to(dtype))
