"""The contrastive loss term of CVQ-VAE, which pulls every code to some vectors and pushes it from others."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from vq.ops.contrast import contrast
from vq.quantizers.parts.regularisers import Regulariser
from vq.registry import QUANTIZER_PARTS


@QUANTIZER_PARTS.register_module()
@dataclass(frozen=True, kw_only=True)
class ContrastiveRegulariser(Regulariser):
    """Pulls each code to its nearest vectors and pushes it from its farther half (InfoNCE); all codes take part.

    Each rank contrasts its own vectors. The scores of every code are sorted, which is slow for very many codes.

    Source: Zheng and Vedaldi 2023 (CVQ-VAE), https://arxiv.org/abs/2307.15139, section 3.3.
    Differs from the source: the similarity is -|z - e|^2 / 2, which on the unit sphere is the cosine of the source up
        to a constant.

    Args:
        weight: Weight of the loss term.
        temperature: Divisor of the similarities.
    """

    weight: float = 1.0
    temperature: float = 0.07

    def __call__(
        self,
        z: Float[Tensor, "n dim"],
        codes: Float[Tensor, "size dim"],
        indices: Int[Tensor, "n"],
        mask: Bool[Tensor, "n"] | None = None,
        *,
        across_ranks: bool,
    ) -> tuple[Float[Tensor, ""], Mapping[str, Float[Tensor, ""]]]:
        """Returns the weighted mean of the codes' losses; ranks exchange nothing."""
        counted = torch.ones(len(z), dtype=torch.bool, device=z.device) if mask is None else mask
        value = contrast(z, codes, counted, self.temperature)
        return self.weight * value, {"contrast": value.detach()}
