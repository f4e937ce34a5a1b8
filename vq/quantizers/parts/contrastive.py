"""The contrastive objective of CVQ-VAE: every code near to some vectors and far from most."""

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
    """Pulls each code's nearest vectors to it and pushes its farther half away (InfoNCE); all codes take part.

    Each rank contrasts its own vectors. Every code's scores are sorted: slow for very many codes.

    Source: Zheng and Vedaldi 2023 (CVQ-VAE), https://arxiv.org/abs/2307.15139, section 3.3.
    Differs from the source: the similarity is -|z - e|^2 / 2, which on the unit sphere is the source's cosine.

    Args:
        weight: What the objective is multiplied with.
        temperature: What similarities are divided by.
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
    ) -> tuple[Float[Tensor, ""], Mapping[str, Tensor]]:
        """See `Regulariser`; nothing is exchanged between ranks."""
        counted = torch.ones(len(z), dtype=torch.bool, device=z.device) if mask is None else mask
        value = contrast(z, codes, counted, self.temperature)
        return self.weight * value, {"contrast": value.detach()}
