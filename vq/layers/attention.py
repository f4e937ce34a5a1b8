"""Attention between the positions of a feature map."""

import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from vq.layers.norm import group_norm


class SpatialAttention(nn.Module):
    """Lets every position of a feature map attend to all positions, and adds the result to the features.

    One head over all channels: softmax(q k^T / sqrt(c)) v between two 1x1 convolutions. Its cost grows with the
    square of h*w, so the networks use it at their lowest resolution only.

    Source: Esser et al. 2021, https://arxiv.org/abs/2012.09841, table 7 (non-local block).
    Differs from the source: only the kernel differs, which never stores the (h*w, h*w) weights.

    Args:
        channels: Number of channels of the input and of the output.
    """

    def __init__(self, *, channels: int) -> None:
        super().__init__()
        self.norm = group_norm(channels)
        self.query = nn.Conv2d(channels, channels, 1)
        self.key = nn.Conv2d(channels, channels, 1)
        self.value = nn.Conv2d(channels, channels, 1)
        self.out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Returns features of the same shape."""
        normed = self.norm(x)
        # In channels_last memory these are views, because the channels are the innermost axis already.
        query, key, value = (
            rearrange(layer(normed), "b c h w -> b 1 (h w) c") for layer in (self.query, self.key, self.value)
        )
        found = F.scaled_dot_product_attention(query, key, value)
        return x + self.out(rearrange(found, "b 1 (h w) c -> b c h w", h=x.shape[2]))
