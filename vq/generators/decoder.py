"""The transformer of the generators: causal with a static cache of keys and values, or looking both ways."""

from abc import ABC, abstractmethod
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from vq.generators.errors import GeneratorError
from vq.ops.numerics.precision import at_least_float32
from vq.registry import LAYERS

Rotation = Float[Tensor, "2 n pairs"]
"""Cosines and sines of the angles by which the pairs of channels of a head turn at each of n places."""

LLAMA_SIZES: dict[str, dict[str, int]] = {
    "B": {"width": 768, "depth": 12, "num_heads": 12, "hidden": 2048},
    "L": {"width": 1024, "depth": 24, "num_heads": 16, "hidden": 2816},
    "XL": {"width": 1280, "depth": 36, "num_heads": 20, "hidden": 3584},
    "XXL": {"width": 1536, "depth": 48, "num_heads": 24, "hidden": 4096},
    "3B": {"width": 3200, "depth": 24, "num_heads": 32, "hidden": 8704},
    "medium": {"width": 1024, "depth": 24, "num_heads": 16, "hidden": 2816},
}
"""Arguments of `DecoderTransformer` by the name of the size: LlamaGen's, and `medium`, GPT-2's name for L."""


class DecoderStyle(ABC):
    """What a block is made of: its norm, its network a token, biases, and how it learns about places."""

    has_bias: bool
    is_rotary: bool
    has_qk_norm: bool

    @abstractmethod
    def norm(self, width: int) -> nn.Module:
        """The normalization of a vector."""

    @abstractmethod
    def feed_forward(self, width: int, hidden: int | None) -> nn.Module:
        """The network of each token by itself; `hidden` is its inner width, None for the style's own."""


@LAYERS.register_module()
class LlamaStyle(DecoderStyle):
    """RMS norm, SwiGLU, rotary positions, no biases.

    Source: Touvron et al. 2023, https://arxiv.org/abs/2302.13971, section 2.2; with two axes as in Sun et al.
        2024, https://arxiv.org/abs/2406.06525 (LlamaGen).
    Differs from the source: the norm of queries and keys is an option (Henry et al. 2020,
        https://arxiv.org/abs/2010.04245).

    Args:
        qk_norm: Whether queries and keys are normalized before they meet.
    """

    has_bias, is_rotary = False, True

    def __init__(self, *, qk_norm: bool = False) -> None:
        self.has_qk_norm = qk_norm

    def norm(self, width: int) -> nn.Module:
        """See `DecoderStyle`."""
        return nn.RMSNorm(width, eps=1e-5)

    def feed_forward(self, width: int, hidden: int | None) -> nn.Module:
        """See `DecoderStyle`; two thirds of 4 * width, up to a multiple of 256 (of 16 below a width of 256)."""
        unit = 256 if width >= 256 else 16
        return GatedNetwork(width=width, hidden=hidden or -(-8 * width // 3 // unit) * unit)


@LAYERS.register_module()
class GPT2Style(DecoderStyle):
    """Layer norm, GELU, a learned vector a place, biases.

    Source: Radford et al. 2019, "Language models are unsupervised multitask learners", section 2.3.
    Differs from the source: the norm of queries and keys is an option.

    Args:
        qk_norm: Whether queries and keys are normalized before they meet.
    """

    has_bias, is_rotary = True, False

    def __init__(self, *, qk_norm: bool = False) -> None:
        self.has_qk_norm = qk_norm

    def norm(self, width: int) -> nn.Module:
        """See `DecoderStyle`."""
        return nn.LayerNorm(width, eps=1e-5)

    def feed_forward(self, width: int, hidden: int | None) -> nn.Module:
        """See `DecoderStyle`; 4 * width."""
        inner = hidden or 4 * width
        return nn.Sequential(nn.Linear(width, inner), nn.GELU(approximate="tanh"), nn.Linear(inner, width))


class GatedNetwork(nn.Module):
    """Multiplies two linear images of a vector, one through SiLU, and maps the product back (SwiGLU).

    Source: Shazeer 2020, https://arxiv.org/abs/2002.05202, eq. 6.
    Differs from the source: both images are one matrix product.

    Args:
        width: Channels of input and output.
        hidden: Channels of the product.
    """

    def __init__(self, *, width: int, hidden: int) -> None:
        super().__init__()
        self.up = nn.Linear(width, 2 * hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Float[Tensor, "*b c"]) -> Float[Tensor, "*b c"]:
        """Vectors to vectors."""
        gate, value = self.up(x).chunk(2, dim=-1)
        out: Tensor = self.down(F.silu(gate) * value)
        return out


class KeyValueCache:
    """Keys and values of the tokens so far, in memory that is taken once for the whole sequence.

    Args:
        transformer: Whose keys and values.
        rows: Sequences at a time.
        length: Tokens of a whole sequence.
    """

    def __init__(self, transformer: "DecoderTransformer", *, rows: int, length: int) -> None:
        weight = next(transformer.parameters())
        shape = (2, rows, transformer.num_kv_heads, length, transformer.head_width)
        # A CPU's attention of one bfloat16 query takes five times as long as of a float32 one.
        is_slow = weight.dtype == torch.bfloat16 and weight.device.type == "cpu"
        dtype = torch.float32 if is_slow else weight.dtype
        self.blocks = [weight.new_zeros(shape, dtype=dtype) for _ in transformer.blocks]
        self.length = 0
        """Tokens so far."""


class DecoderBlock(nn.Module):
    """Adds to each token what it finds at the others, then what a network makes of the sum.

    Args:
        width: Channels of the tokens.
        num_heads: Heads of the queries.
        num_kv_heads: Heads of keys and values; each serves `num_heads` / `num_kv_heads` heads of queries
            (Ainslie et al. 2023, https://arxiv.org/abs/2305.13245).
        hidden: Channels inside the network; None for the style's own.
        style: What the block is made of.
        dropout: Probability with which a channel of either sum's second term is dropped in training.
    """

    def __init__(
        self,
        *,
        width: int,
        num_heads: int,
        num_kv_heads: int,
        hidden: int | None,
        style: DecoderStyle,
        dropout: float,
    ) -> None:
        super().__init__()
        self.num_heads, self.num_kv_heads, self.dropout = num_heads, num_kv_heads, dropout
        head_width = width // num_heads
        self.norm1 = style.norm(width)
        self.query_key_value = nn.Linear(
            width, (num_heads + 2 * num_kv_heads) * head_width, bias=style.has_bias
        )
        self.query_norm = style.norm(head_width) if style.has_qk_norm else nn.Identity()
        self.key_norm = style.norm(head_width) if style.has_qk_norm else nn.Identity()
        self.out = nn.Linear(width, width, bias=style.has_bias)
        self.norm2 = style.norm(width)
        self.feed_forward = style.feed_forward(width, hidden)

    def forward(
        self,
        x: Float[Tensor, "b n c"],
        rotation: Rotation | None = None,
        memory: Float[Tensor, "2 b kv length dim"] | None = None,
        start: int = 0,
        causal: bool = True,
    ) -> Float[Tensor, "b n c"]:
        """Tokens to tokens.

        Args:
            x: All tokens, or with a cache the next ones.
            rotation: By which queries and keys turn.
            memory: Keys and values of this block; those of `x` are written into it.
            start: Tokens in the memory already; with more than 0, `x` is one token.
            causal: Whether a token sees itself and those before it only.
        """
        found = self._attend(self.norm1(x), rotation, memory, start, causal)
        x = x + F.dropout(self.out(found), self.dropout, self.training)
        return x + F.dropout(self.feed_forward(self.norm2(x)), self.dropout, self.training)

    def _attend(
        self, x: Tensor, rotation: Tensor | None, memory: Tensor | None, start: int, causal: bool
    ) -> Tensor:
        heads = self.query_key_value(x).unflatten(-1, (self.num_heads + 2 * self.num_kv_heads, -1))
        query, key, value = heads.transpose(1, 2).split(
            [self.num_heads, self.num_kv_heads, self.num_kv_heads], dim=1
        )
        query, key = self.query_norm(query), self.key_norm(key)
        if rotation is not None:
            query, key = turned(query, rotation), turned(key, rotation)
        if memory is not None:
            end = start + x.shape[1]
            memory[0, :, :, start:end] = key
            memory[1, :, :, start:end] = value
            key, value = memory[:, :, :, :end]
            query = query.to(key.dtype)
        found = F.scaled_dot_product_attention(
            query,
            key,
            value,
            is_causal=causal and x.shape[1] > 1,
            enable_gqa=self.num_heads != self.num_kv_heads,
        )
        return found.transpose(1, 2).flatten(2).to(x.dtype)


@LAYERS.register_module()
class DecoderTransformer(nn.Module):
    """Sends tokens through blocks in which they look at each other, and normalizes what comes out.

    Linear layers start from a normal distribution of deviation 0.02, those that add to the tokens smaller by
    sqrt(2 * depth), biases from 0.

    Source: Radford et al. 2019 (GPT-2, section 2.3, which says what starts smaller), Touvron et al. 2023,
        https://arxiv.org/abs/2302.13971; see the styles.
    Differs from the source: see the styles.

    Args:
        width: Channels of the tokens.
        depth: Number of blocks.
        num_heads: Heads of the attention; a divisor of `width`.
        num_kv_heads: Heads of keys and values, a divisor of `num_heads`; None for as many.
        hidden: Channels inside the network a token; None for the style's own.
        style: What a block is made of; `LlamaStyle()` if None.
        dropout: In training, of what is added to the tokens.

    Raises:
        ValueError: If a number is out of range, or heads do not divide what they share.

    Example:
        >>> DecoderTransformer(width=16, depth=1, num_heads=2)(torch.zeros(1, 5, 16)).shape
        torch.Size([1, 5, 16])
    """

    def __init__(
        self,
        *,
        width: int,
        depth: int,
        num_heads: int,
        num_kv_heads: int | None = None,
        hidden: int | None = None,
        style: DecoderStyle | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        style = LlamaStyle() if style is None else style
        num_kv_heads = num_heads if num_kv_heads is None else num_kv_heads
        _check(
            width=width,
            depth=depth,
            num_heads=num_heads,
            num_kv_heads=num_kv_heads,
            hidden=hidden,
            style=style,
            dropout=dropout,
        )
        self.width, self.num_kv_heads, self.head_width = width, num_kv_heads, width // num_heads
        self.is_rotary = style.is_rotary
        parts: dict[str, Any] = {"width": width, "num_heads": num_heads, "num_kv_heads": num_kv_heads}
        parts |= {"hidden": hidden, "style": style, "dropout": dropout}
        self.blocks = nn.ModuleList(DecoderBlock(**parts) for _ in range(depth))
        self.norm = style.norm(width)
        start_normal(self)
        with torch.no_grad():
            for block in self.blocks:
                last = list(block.get_submodule("feed_forward").modules())[-1]
                for layer in (block.get_submodule("out"), last):
                    layer.get_parameter("weight").mul_((2 * depth) ** -0.5)

    def forward(
        self,
        x: Float[Tensor, "b n c"],
        *,
        rotation: Rotation | None = None,
        cache: KeyValueCache | None = None,
        causal: bool = True,
    ) -> Float[Tensor, "b n c"]:
        """Tokens to normalized tokens.

        Args:
            x: All tokens; with a cache the first ones, or, once there are some in it, one more at a time.
            rotation: Of these tokens.
            cache: Holds the tokens before; these are added.
            causal: Whether a token sees itself and those before it only.
        """
        start = 0 if cache is None else cache.length
        for i, block in enumerate(self.blocks):
            x = block(x, rotation, None if cache is None else cache.blocks[i], start, causal)
        if cache is not None:
            cache.length += x.shape[1]
        normed: Tensor = self.norm(x)
        return normed


def turned(x: Float[Tensor, "b heads n dim"], rotation: Rotation) -> Float[Tensor, "b heads n dim"]:
    """Turns channels 2i and 2i + 1 by the i-th angle.

    Source: Su et al. 2021, https://arxiv.org/abs/2104.09864, eq. 34.
    """
    cos, sin = rotation
    first, second = at_least_float32(x).reshape(*x.shape[:-1], -1, 2).unbind(-1)
    return torch.stack([first * cos - second * sin, first * sin + second * cos], -1).flatten(-2).to(x.dtype)


def start_normal(network: nn.Module) -> None:
    """Draws the weights of linear layers and tables from a normal distribution of deviation 0.02; biases are 0."""
    for module in network.modules():
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=0.02)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)


def _check(
    *,
    width: int,
    depth: int,
    num_heads: int,
    num_kv_heads: int,
    hidden: int | None,
    style: DecoderStyle,
    dropout: float,
) -> None:
    if min(width, depth, num_heads, num_kv_heads, 1 if hidden is None else hidden) < 1:
        raise GeneratorError(
            f"DecoderTransformer: expected width, depth, num_heads, num_kv_heads and hidden of at least 1, got "
            f"{width}, {depth}, {num_heads}, {num_kv_heads} and {hidden}"
        )
    if width % num_heads or num_heads % num_kv_heads:
        raise GeneratorError(
            f"DecoderTransformer: expected a width of equal heads and heads of equal groups, got width {width}, "
            f"num_heads {num_heads} and num_kv_heads {num_kv_heads}"
        )
    if style.is_rotary and (width // num_heads) % 4:
        raise GeneratorError(
            f"DecoderTransformer: expected heads of a multiple of 4 channels, which rotary positions of two axes "
            f"need, got {width // num_heads}"
        )
    if not 0 <= dropout < 1:
        raise GeneratorError(f"DecoderTransformer: expected a dropout in [0, 1), got {dropout}")
