"""Blocks of tokens with a gated MLP, and a projection of tokens by attention (ViTamin, UniTok)."""

import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn


class GatedMLP(nn.Module):
    """Normalizes tokens and multiplies two linear maps of them, one of which passes a GELU; a third maps the product.

    Source: Chen et al. 2024 (ViTamin), https://arxiv.org/abs/2404.02132; `GeGluMlp` in models/vitamin.py of
        https://github.com/FoundationVision/UniTok.

    Args:
        width: Number of channels of the tokens.
        hidden: Number of channels of the product.
    """

    def __init__(self, *, width: int, hidden: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.gate = nn.Linear(width, hidden)
        self.up = nn.Linear(width, hidden)
        self.down = nn.Linear(hidden, width)

    def forward(self, tokens: Float[Tensor, "b n c"]) -> Float[Tensor, "b n c"]:
        """Returns tokens of the same shape."""
        x = self.norm(tokens)
        return self.down(F.gelu(self.gate(x), approximate="tanh") * self.up(x))


class GatedBlock(nn.Module):
    """Adds to each token what it attends to, then the output of a gated MLP.

    Source: Chen et al. 2024 (ViTamin), https://arxiv.org/abs/2404.02132, and its published code, in which both
        the block and the MLP normalize the input of the MLP.
    Differs from the source: keys have no bias, which would cancel in the softmax.

    Args:
        width: Number of channels of the tokens.
        num_heads: Number of heads of the attention; a divisor of `width`.
        hidden: Number of channels inside the MLP.
    """

    def __init__(self, *, width: int, num_heads: int, hidden: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = GatedMLP(width=width, hidden=hidden)

    def forward(self, tokens: Float[Tensor, "b n c"]) -> Float[Tensor, "b n c"]:
        """Returns tokens of the same shape."""
        x = self.norm1(tokens)
        found = _attended(self.query(x), self.key(x), self.value(x), self.num_heads)
        tokens = tokens + self.out(rearrange(found, "b heads n dim -> b n (heads dim)"))
        return tokens + self.mlp(self.norm2(tokens))


class AttentionProjection(nn.Module):
    """Maps tokens to another number of channels, by attention and a linear map, then adds the output of a gated MLP.

    A head of the attention has as many channels as the narrower side. To fewer channels the heads are averaged, to
    more they are concatenated.

    Source: Ma et al. 2025 (UniTok), https://arxiv.org/abs/2502.20321; `AttnProjection` in models/vqvae.py of
        https://github.com/FoundationVision/UniTok.
    Differs from the source: keys have no bias, which would cancel in the softmax.

    Args:
        in_channels: Number of channels of the input.
        out_channels: Number of channels of the output; a divisor or a multiple of `in_channels`.

    Raises:
        ValueError: If neither number divides the other.
    """

    def __init__(self, *, in_channels: int, out_channels: int) -> None:
        super().__init__()
        narrow, wide = sorted((in_channels, out_channels))
        if narrow < 1 or wide % narrow:
            raise ValueError(
                f"AttentionProjection: expected numbers of channels of which one divides the other, got {in_channels} "
                f"and {out_channels}"
            )
        self.num_heads, self.is_averaged = wide // narrow, in_channels > out_channels
        self.norm1 = nn.LayerNorm(in_channels)
        self.query = nn.Linear(in_channels, wide)
        self.key = nn.Linear(in_channels, wide, bias=False)
        self.value = nn.Linear(in_channels, wide)
        self.out = nn.Linear(out_channels, out_channels)
        self.shortcut_norm = nn.LayerNorm(in_channels)
        self.shortcut = nn.Linear(in_channels, out_channels)
        self.norm2 = nn.LayerNorm(out_channels)
        self.mlp = GatedMLP(width=out_channels, hidden=2 * out_channels)

    def forward(self, tokens: Float[Tensor, "b n c_in"]) -> Float[Tensor, "b n c_out"]:
        """Returns as many tokens."""
        x = self.norm1(tokens)
        found = _attended(self.query(x), self.key(x), self.value(x), self.num_heads)
        joined = (
            found.mean(dim=1) if self.is_averaged else rearrange(found, "b heads n dim -> b n (heads dim)")
        )
        mapped = self.shortcut(self.shortcut_norm(tokens)) + self.out(joined)
        return mapped + self.mlp(self.norm2(mapped))


def _attended(
    query: Float[Tensor, "b n c"], key: Float[Tensor, "b n c"], value: Float[Tensor, "b n c"], num_heads: int
) -> Float[Tensor, "b heads n dim"]:
    q, k, v = (rearrange(x, "b n (heads dim) -> b heads n dim", heads=num_heads) for x in (query, key, value))
    return F.scaled_dot_product_attention(q, k, v)
