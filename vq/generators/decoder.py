"""The transformer of the generators: causal with a static key-value cache, or bidirectional.

`vq.layers.transformer` is the transformer of encoders and decoders. The two are separate because they follow different
sources: that one is the bidirectional ViT block, with the parameter names of published ViTs; this one has a cache,
grouped queries, rotary positions and the GPT-2 and Llama blocks, with their initialization.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from vq.generators.errors import GeneratorError
from vq.ops.numerics.precision import at_least_float32
from vq.registry import LAYERS

Rotation = Float[Tensor, "2 n dim"]
"""For each of n positions and each channel, the cosine and the signed sine of the angle that rotates its pair."""

Append = Callable[[Tensor, Tensor], tuple[Tensor, Tensor | None]]
"""Stores keys and values, and returns all that are stored and which of them exist (`KeyValueCache.append`)."""

LLAMA_SIZES: dict[str, dict[str, int]] = {
    "B": {"width": 768, "depth": 12, "num_heads": 12, "hidden": 2048},
    "L": {"width": 1024, "depth": 24, "num_heads": 16, "hidden": 2816},
    "XL": {"width": 1280, "depth": 36, "num_heads": 20, "hidden": 3584},
    "XXL": {"width": 1536, "depth": 48, "num_heads": 24, "hidden": 4096},
    "3B": {"width": 3200, "depth": 24, "num_heads": 32, "hidden": 8704},
    "medium": {"width": 1024, "depth": 24, "num_heads": 16, "hidden": 2816},
}
"""Arguments of `DecoderTransformer` by the name of the size: LlamaGen's sizes, and `medium`, GPT-2's name for L."""


class DecoderStyle(ABC):
    """The parts of a block: its norm, its per-token MLP, whether layers have biases, and its position encoding."""

    has_bias: bool
    is_rotary: bool
    has_qk_norm: bool
    has_class_key: bool = True

    @abstractmethod
    def norm(self, width: int) -> nn.Module:
        """Builds a normalization of vectors."""

    @abstractmethod
    def feed_forward(self, width: int, hidden: int | None) -> nn.Module:
        """Builds the per-token MLP; `hidden` is its inner width, None for the style's default."""


@LAYERS.register_module()
class LlamaStyle(DecoderStyle):
    """RMS norm, SwiGLU, rotary positions and no biases.

    Source: Touvron et al. 2023, https://arxiv.org/abs/2302.13971, section 2.2; with two axes as in Sun et al.
        2024, https://arxiv.org/abs/2406.06525 (LlamaGen).
    Differs from the source: queries and keys can be normalized (Henry et al. 2020,
        https://arxiv.org/abs/2010.04245).

    Args:
        qk_norm: Whether queries and keys are normalized before the dot product.
        class_key: Whether the class token has a query and a key. If not, both are zero, so that every position gives
            the class token an attention score of 0, as in the published weights of LlamaGen.
    """

    has_bias, is_rotary = False, True

    def __init__(self, *, qk_norm: bool = False, class_key: bool = True) -> None:
        self.has_qk_norm, self.has_class_key = qk_norm, class_key

    def norm(self, width: int) -> nn.Module:
        """Builds an RMS norm."""
        return nn.RMSNorm(width, eps=1e-5)

    def feed_forward(self, width: int, hidden: int | None) -> nn.Module:
        """Builds a `GatedNetwork`; its default inner width is 8/3 of `width`, rounded up.

        It is rounded up to a multiple of 256, or of 16 if `width` is below 256.
        """
        unit = 256 if width >= 256 else 16
        return GatedNetwork(width=width, hidden=hidden or -(-8 * width // 3 // unit) * unit)


@LAYERS.register_module()
class GPT2Style(DecoderStyle):
    """Layer norm, GELU, a learned vector per position, and biases.

    Source: Radford et al. 2019, "Language models are unsupervised multitask learners", section 2.3.
    Differs from the source: queries and keys can be normalized.

    Args:
        qk_norm: Whether queries and keys are normalized before the dot product.
    """

    has_bias, is_rotary = True, False

    def __init__(self, *, qk_norm: bool = False) -> None:
        self.has_qk_norm = qk_norm

    def norm(self, width: int) -> nn.Module:
        """Builds a layer norm."""
        return nn.LayerNorm(width, eps=1e-5)

    def feed_forward(self, width: int, hidden: int | None) -> nn.Module:
        """Builds an MLP with one hidden layer; its default inner width is 4 * `width`."""
        inner = hidden or 4 * width
        return nn.Sequential(nn.Linear(width, inner), nn.GELU(approximate="tanh"), nn.Linear(inner, width))


class GatedNetwork(nn.Module):
    """Multiplies two linear projections of a vector, one passed through SiLU, and projects the product back (SwiGLU).

    Source: Shazeer 2020, https://arxiv.org/abs/2002.05202, eq. 6.
    Differs from the source: both projections are computed by one matrix product.

    Args:
        width: Channels of input and output.
        hidden: Channels of the product.
    """

    def __init__(self, *, width: int, hidden: int) -> None:
        super().__init__()
        self.up = nn.Linear(width, 2 * hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Float[Tensor, "*b c"]) -> Float[Tensor, "*b c"]:
        """Applies the network to each vector."""
        gate, value = self.up(x).chunk(2, dim=-1)
        out: Tensor = self.down(F.silu(gate) * value)
        return out


class KeyValueCache:
    """Holds the keys and values of the tokens so far, in memory allocated once for the whole sequence.

    Args:
        transformer: The transformer whose keys and values are stored.
        rows: The batch size.
        length: The number of tokens of a whole sequence.

    Attributes:
        length: The number of tokens stored so far.
        position: If set, the number of tokens stored so far, as a tensor that takes the place of `length`: a step that
            is recorded in a CUDA graph reads it again in each replay. The token that follows is a single one.
    """

    def __init__(self, transformer: "DecoderTransformer", *, rows: int, length: int) -> None:
        weight = next(transformer.parameters())
        shape = (2, rows, transformer.num_kv_heads, length, transformer.head_width)
        # On a CPU, attention with a single bfloat16 query takes five times as long as with a float32 query.
        is_slow = weight.dtype == torch.bfloat16 and weight.device.type == "cpu"
        dtype = torch.float32 if is_slow else weight.dtype
        self.blocks = [weight.new_zeros(shape, dtype=dtype) for _ in transformer.blocks]
        self.length = 0
        self.position: Int64[Tensor, "1"] | None = None

    def append(
        self, block: int, key: Float[Tensor, "b kv n dim"], value: Float[Tensor, "b kv n dim"]
    ) -> tuple[Float[Tensor, "2 b kv stored dim"], Bool[Tensor, "1 stored"] | None]:
        """Stores the next keys and values of a block.

        Returns:
            All keys and values stored so far. With a `position`, the whole memory, and which of it is stored.
        """
        memory = self.blocks[block]
        if self.position is None:
            end = self.length + key.shape[2]
            memory[0, :, :, self.length : end] = key
            memory[1, :, :, self.length : end] = value
            return memory[:, :, :, :end], None
        memory.index_copy_(3, self.position, torch.stack([key, value]).to(memory.dtype))
        return memory, (torch.arange(memory.shape[3], device=memory.device) <= self.position)[None]


class DecoderBlock(nn.Module):
    """A pre-norm transformer block: attention and a per-token MLP, each added to its input.

    Args:
        width: Channels of the tokens.
        num_heads: Number of query heads.
        num_kv_heads: Number of key and value heads; each serves `num_heads` / `num_kv_heads` query heads
            (Ainslie et al. 2023, https://arxiv.org/abs/2305.13245).
        hidden: Inner width of the MLP; None for the style's default.
        style: The parts of the block.
        dropout: Dropout probability of the two residual branches.
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
        append: Append | None = None,
        causal: bool = True,
    ) -> Float[Tensor, "b n c"]:
        """Applies the block.

        Args:
            x: All tokens, or the next ones if there is a cache.
            rotation: The rotary positions of `x`; None for none.
            append: Stores the keys and values of `x` in a cache, and returns all that are stored; None for no cache.
                If tokens were stored before, `x` must be a single token.
            causal: Whether a token attends only to itself and to those before it.
        """
        found = self._attend(self.norm1(x), rotation, append, causal)
        x = x + F.dropout(self.out(found), self.dropout, self.training)
        return x + F.dropout(self.feed_forward(self.norm2(x)), self.dropout, self.training)

    def _attend(self, x: Tensor, rotation: Tensor | None, append: Append | None, causal: bool) -> Tensor:
        heads = self.query_key_value(x).unflatten(-1, (self.num_heads + 2 * self.num_kv_heads, -1))
        query, key, value = heads.transpose(1, 2).split(
            [self.num_heads, self.num_kv_heads, self.num_kv_heads], dim=1
        )
        query, key = self.query_norm(query), self.key_norm(key)
        if rotation is not None:
            query, key = apply_rotary(query, rotation), apply_rotary(key, rotation)
        mask = None
        if append is not None:
            (key, value), mask = append(key, value)
            query = query.to(key.dtype)
        found = F.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=mask,
            is_causal=causal and x.shape[1] > 1,
            enable_gqa=self.num_heads != self.num_kv_heads,
        )
        return found.transpose(1, 2).flatten(2).to(x.dtype)


@LAYERS.register_module()
class DecoderTransformer(nn.Module):
    """A stack of transformer blocks, followed by a norm.

    Weights of linear layers are initialized from a normal distribution with standard deviation 0.02, biases to 0.
    The last layer of each residual branch is scaled down by sqrt(2 * depth).

    Source: Radford et al. 2019 (GPT-2, section 2.3, for the initialization); Touvron et al. 2023,
        https://arxiv.org/abs/2302.13971. `LlamaStyle` and `GPT2Style` say in what they differ.

    Args:
        width: Channels of the tokens.
        depth: Number of blocks.
        num_heads: Number of query heads; a divisor of `width`.
        num_kv_heads: Number of key and value heads, a divisor of `num_heads`; None for `num_heads`.
        hidden: Inner width of the per-token MLP; None for the style's default.
        style: The parts of a block; `LlamaStyle()` if None.
        dropout: Dropout probability of the residual branches.

    Raises:
        ValueError: If a number is out of range or not divisible as required.

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
        self.is_rotary, self.has_class_key = style.is_rotary, style.has_class_key
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
        """Applies all blocks and the final norm.

        Args:
            x: All tokens. With a cache, the first tokens, and afterwards one token at a time.
            rotation: The rotary positions of `x`; None for none.
            cache: Holds the keys and values of earlier tokens; those of `x` are appended.
            causal: Whether a token attends only to itself and to those before it.
        """
        for i, block in enumerate(self.blocks):
            x = block(x, rotation, None if cache is None else partial(cache.append, i), causal)
        if cache is not None and cache.position is None:
            cache.length += x.shape[1]
        normed: Tensor = self.norm(x)
        return normed


def apply_rotary(x: Float[Tensor, "b heads n dim"], rotation: Rotation) -> Float[Tensor, "b heads n dim"]:
    """Turns channels 2i and 2i + 1 by the i-th angle.

    Source: Su et al. 2021, https://arxiv.org/abs/2104.09864, eq. 34.
    """
    cos, sin = rotation
    exact = at_least_float32(x)
    swapped = exact.unflatten(-1, (-1, 2)).flip(-1).flatten(-2)
    return (exact * cos + swapped * sin).to(x.dtype)


def rotation_by(angle: Float[Tensor, "n pairs"]) -> Rotation:
    """Returns what `apply_rotary` multiplies by to turn pair i by the i-th angle.

    Example:
        >>> apply_rotary(torch.tensor([[[[1.0, 0.0]]]]), rotation_by(torch.tensor([[torch.pi / 2]]))).round()
        tensor([[[[-0., 1.]]]])
    """
    sin = angle.sin()
    return torch.stack([angle.cos().repeat_interleave(2, -1), torch.stack([-sin, sin], -1).flatten(-2)])


def start_normal(network: nn.Module) -> None:
    """Initializes linear and embedding weights from a normal distribution with deviation 0.02, and biases to 0."""
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
            f"DecoderTransformer: expected num_heads to divide width and num_kv_heads to divide num_heads, got width "
            f"{width}, num_heads {num_heads} and num_kv_heads {num_kv_heads}"
        )
    if style.is_rotary and (width // num_heads) % 4:
        raise GeneratorError(
            f"DecoderTransformer: expected width / num_heads to be a multiple of 4, which rotary positions on two axes "
            f"need, got {width // num_heads}"
        )
    if not 0 <= dropout < 1:
        raise GeneratorError(f"DecoderTransformer: expected a dropout in [0, 1), got {dropout}")
