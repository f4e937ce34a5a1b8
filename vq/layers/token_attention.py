"""Attention between tokens, without its linear layers."""

from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from vq.ops.numerics.precision import at_least_float32
from vq.registry import LAYERS


class TokenAttention(nn.Module, ABC):
    """Mixes the values of a sequence by the similarity of its queries and keys, each head by itself.

    It has no parameters, so that one object serves all blocks of a transformer.
    """

    def features(self, x: Float[Tensor, "b heads n dim"]) -> Float[Tensor, "b heads n dim"]:
        """Maps queries and keys before their positions are encoded; the default returns them unchanged."""
        return x

    @abstractmethod
    def forward(
        self,
        query: Float[Tensor, "b heads n dim"],
        key: Float[Tensor, "b heads n dim"],
        value: Float[Tensor, "b heads n dim"],
    ) -> Float[Tensor, "b heads n dim"]:
        """Returns the mixed values.

        Args:
            query: Queries that `features` returned, with their positions.
            key: Keys that `features` returned, with their positions.
            value: Values.
        """


@LAYERS.register_module()
class SoftmaxAttention(TokenAttention):
    """Averages the values with the weights softmax(q k^T / sqrt(dim)); its cost grows with n squared.

    Source: Vaswani et al. 2017, https://arxiv.org/abs/1706.03762, eq. 1.
    Differs from the source: only the kernel differs, which never stores the (n, n) weights.

    Args:
        causal: Whether a token attends only to itself and to the tokens before it.
    """

    def __init__(self, *, causal: bool = False) -> None:
        super().__init__()
        self.causal = causal

    def forward(
        self,
        query: Float[Tensor, "b heads n dim"],
        key: Float[Tensor, "b heads n dim"],
        value: Float[Tensor, "b heads n dim"],
    ) -> Float[Tensor, "b heads n dim"]:
        """Returns the averages of the values."""
        return F.scaled_dot_product_attention(query, key, value, is_causal=self.causal)


@LAYERS.register_module()
class LinearAttention(TokenAttention):
    """Sums the values with the weights silu(q) silu(k)^T, then normalizes the sums; its cost grows with n.

    Without a softmax, q (k^T v) needs no (n, n) weights. There is no denominator either: instead the result of each
    head is normalized to mean 0 and variance 1. If it is causal, the sequence is split into chunks: within a chunk
    the weights are computed, and all earlier chunks contribute one (dim, dim) matrix.

    Source: Qin et al. 2022, https://arxiv.org/abs/2210.10340, section 4.1 (NormAttention).
    Differs from the source: a layer norm without parameters for each head; computed in float32 at least.

    Args:
        causal: Whether a token attends only to itself and to the tokens before it.
        chunk_size: Number of tokens in a chunk, which changes the speed, not the result.

    Raises:
        ValueError: If `chunk_size` is below 1.
    """

    def __init__(self, *, causal: bool = False, chunk_size: int = 64) -> None:
        super().__init__()
        if chunk_size < 1:
            raise ValueError(f"LinearAttention: expected a chunk_size of at least 1, got {chunk_size}")
        self.causal, self.chunk_size = causal, chunk_size

    def features(self, x: Float[Tensor, "b heads n dim"]) -> Float[Tensor, "b heads n dim"]:
        """Applies silu."""
        return F.silu(x)

    def forward(
        self,
        query: Float[Tensor, "b heads n dim"],
        key: Float[Tensor, "b heads n dim"],
        value: Float[Tensor, "b heads n dim"],
    ) -> Float[Tensor, "b heads n dim"]:
        """Returns the normalized sums of the values."""
        # In sums over all tokens bfloat16 would lose small terms.
        with torch.autocast(value.device.type, enabled=False):
            q, k, v = (at_least_float32(x) for x in (query, key, value))
            mixed = self._causal(q, k, v) if self.causal else q @ (k.transpose(-1, -2) @ v)
            return F.layer_norm(mixed, mixed.shape[-1:]).to(value.dtype)

    def _causal(
        self,
        query: Float[Tensor, "b heads n dim"],
        key: Float[Tensor, "b heads n dim"],
        value: Float[Tensor, "b heads n dim"],
    ) -> Float[Tensor, "b heads n dim"]:
        before = query.new_zeros(*query.shape[:2], query.shape[-1], value.shape[-1])
        parts = []
        for q, k, v in zip(
            *(torch.split(x, self.chunk_size, dim=2) for x in (query, key, value)), strict=True
        ):
            parts.append(q @ before + (q @ k.transpose(-1, -2)).tril() @ v)
            before = before + k.transpose(-1, -2) @ v
        return torch.cat(parts, dim=2)
