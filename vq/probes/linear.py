"""The linear probe: batch normalization and a linear layer over fixed features."""

from collections.abc import Callable
from typing import Any, cast

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from vq.layers.batch_norm import SyncedBatchNorm1d
from vq.probes.features import ProbeFeatures
from vq.registry import PROBES


@PROBES.register_module()
class LinearProbe(nn.Module):
    """Classifies images by fixed features: batch normalization without learned scale and shift, then a linear layer.

    Only the linear layer is trained. The state dict has the layer and the statistics of the normalization; the
    features, and the tokenizer inside them, are not part of it. `.to(...)` and `.double()` apply to them too.

    Source: He et al. 2022, https://arxiv.org/abs/2111.06377, appendix A.1 (linear probing).
    Differs from the source: the features are what `features` says.

    Args:
        features: Maps an image, or its indices, to one vector. On a page without the tokenizer that they need, they
            arrive as a function of it, which is refused.
        num_classes: The number of classes.

    Raises:
        ValueError: If `num_classes` is below 2, or `features` lack their tokenizer.
    """

    def __init__(self, *, features: ProbeFeatures | Callable[..., ProbeFeatures], num_classes: int) -> None:
        super().__init__()
        if not isinstance(features, ProbeFeatures):
            raise ValueError(
                "features: need the tokenizer that they are computed with; give the page a section tokenizer, such as "
                "tokenizer = dict(type=pretrained_tokenizer, weights=[...])"
            )
        if num_classes < 2:
            raise ValueError(f"num_classes: expected at least 2, got {num_classes}")
        self.num_classes = num_classes
        self._outside = (features,)  # in a tuple, so that its weights are not those of this module
        self.norm = SyncedBatchNorm1d(features=features.dim, eps=1e-6)
        self.linear = nn.Linear(features.dim, num_classes)

    @property
    def features(self) -> ProbeFeatures:
        """Maps an image, or its indices, to the vector that is classified."""
        return self._outside[0]

    def forward(self, features: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch num_classes"]:
        """Maps features to logits; in training mode it also updates the statistics of the normalization."""
        logits: Tensor = self.linear(self.norm(features.to(self.linear.weight.dtype)))
        return logits

    @torch.no_grad()
    def classify(
        self, image: Shaped[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch num_classes"]:
        """Maps images, uint8 pixels or floats in [-1, 1], to logits."""
        logits: Tensor = self(self.features(image))
        return logits

    def _apply(self, fn: Any, recurse: bool = True) -> "LinearProbe":
        cast("Any", self.features)._apply(fn, recurse)
        cast("Any", super())._apply(fn, recurse)
        return self
