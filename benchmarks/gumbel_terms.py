"""Two terms that a development log asks about, for `configs/compare/gumbel.py`; nothing else uses them."""

from dataclasses import replace
from typing import Any

from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from vq.quantizers import GumbelQuantizer
from vq.quantizers.base import QuantizeOutput
from vq.registry import QUANTIZERS


@QUANTIZERS.register_module()
class GumbelWithMinus(GumbelQuantizer):
    """Subtracts the divergence from uniform, so that certain choices are rewarded.

    Args:
        minus_kl_weight: What the divergence is multiplied by before it is subtracted.
        **options: Those of `GumbelQuantizer`, without `kl_weight`.
    """

    def __init__(self, *, minus_kl_weight: float, **options: Any) -> None:
        super().__init__(kl_weight=0.0, **options)
        self.kl_weight = -minus_kl_weight


@QUANTIZERS.register_module()
class GumbelWithCrossEntropy(GumbelQuantizer):
    """Adds the cross-entropy of the logits with the code that was drawn, for one process without masks.

    Args:
        cross_entropy_weight: Its weight.
        **options: Those of `GumbelQuantizer`.
    """

    def __init__(self, *, cross_entropy_weight: float, **options: Any) -> None:
        super().__init__(**options)
        self.cross_entropy_weight = cross_entropy_weight

    def _forward(self, z: Float[Tensor, "*lead dim"], mask: Bool[Tensor, "*lead"] | None) -> QuantizeOutput:
        out = super()._forward(z, mask)
        logits = F.linear(z, self.to_logits.weight, self.to_logits.bias)
        certainty = F.cross_entropy(logits.flatten(0, -2), out.indices.flatten())
        return replace(out, loss=out.loss + self.cross_entropy_weight * certainty)
