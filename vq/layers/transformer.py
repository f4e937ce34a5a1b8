"""The transformer of encoders and decoders: blocks of attention between tokens and of a per-token MLP.

It sees whole grids at once, and its attention and positions are arguments. The transformer of the generators
(`vq.generators.DecoderTransformer`) is a separate class: it generates with a key-value cache, and follows the
published layouts of GPT-2 and Llama.
"""

import math

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from vq.layers.positions import Places, Positions
from vq.layers.token_attention import SoftmaxAttention, TokenAttention
from vq.registry import LAYERS


class TransformerBlock(nn.Module):
    """Adds to each token what it attends to, then the output of a per-token MLP with two layers.

    Layer norm, attention, sum; layer norm, linear, GELU, linear, sum.

    Source: Dosovitskiy et al. 2020, https://arxiv.org/abs/2010.11929, eq. 2 and 3.
    Differs from the source: keys have no bias, which would cancel in the softmax.

    Args:
        width: Number of channels of the tokens.
        num_heads: Number of heads of the attention.
        hidden: Number of channels inside the MLP.
        norm_eps: Added to the variance in the layer norms.
    """

    def __init__(self, *, width: int, num_heads: int, hidden: int, norm_eps: float = 1e-6) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm1 = nn.LayerNorm(width, eps=norm_eps)
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width, eps=norm_eps)
        self.up = nn.Linear(width, hidden)
        self.down = nn.Linear(hidden, width)

    def forward(
        self,
        tokens: Float[Tensor, "b m c"],
        places: Places,
        attention: TokenAttention,
        positions: Positions | None,
    ) -> Float[Tensor, "b m c"]:
        """Returns tokens of the same shape.

        Args:
            tokens: Tokens without a position, followed by those with one.
            places: Row and column of the tokens with a position.
            attention: Attention between the tokens.
            positions: Encoding of the positions in queries and keys; None for no positions.
        """
        normed = self.norm1(tokens)
        query, key, value = (
            rearrange(layer(normed), "b n (heads dim) -> b heads n dim", heads=self.num_heads)
            for layer in (self.query, self.key, self.value)
        )
        query, key = attention.features(query), attention.features(key)
        if positions is not None:
            query, key = _rotate(query, places, positions), _rotate(key, places, positions)
        found = attention(query, key, value)
        tokens = tokens + self.out(rearrange(found, "b heads n dim -> b n (heads dim)"))
        return tokens + self.down(F.gelu(self.up(self.norm2(tokens))))


@LAYERS.register_module()
class Transformer(nn.Module):
    """Applies blocks in which tokens attend to each other, then a layer norm.

    Source: Dosovitskiy et al. 2020, https://arxiv.org/abs/2010.11929, eq. 1 to 4.
    Differs from the source: positions and attention are arguments; linear layers are initialised by
        `start_linear_layers`, and those whose output is added to the tokens are divided by sqrt(2 * their depth), as
        in BEiT (Bao et al. 2021, https://arxiv.org/abs/2106.08254).

    Args:
        width: Number of channels of the tokens.
        depth: Number of blocks.
        num_heads: Number of heads of the attention; a divisor of `width`.
        mlp_ratio: Number of channels inside the per-token MLP, in units of `width`.
        attention: Attention between the tokens; None is `SoftmaxAttention()`.
        positions: Encoding of the positions; None for no positions, which makes the order of the tokens irrelevant.
        norm_eps: Added to the variance in the layer norms.

    Raises:
        ValueError: If a number is below 1, `num_heads` does not divide `width`, or `norm_eps` is not positive.

    Example:
        >>> transformer = Transformer(width=8, depth=1, num_heads=2)
        >>> transformer(torch.zeros(1, 6, 8), places=grid_places((2, 3)), grid=(2, 3)).shape
        torch.Size([1, 6, 8])
    """

    def __init__(
        self,
        *,
        width: int,
        depth: int,
        num_heads: int,
        mlp_ratio: float = 4.0,
        attention: TokenAttention | None = None,
        positions: Positions | None = None,
        norm_eps: float = 1e-6,
    ) -> None:
        super().__init__()
        if min(width, depth, num_heads) < 1 or width % num_heads or mlp_ratio <= 0:
            raise ValueError(
                f"Transformer: expected width, depth and num_heads of at least 1, num_heads a divisor of width, "
                f"and a positive mlp_ratio, got {width}, {depth}, {num_heads} and {mlp_ratio}"
            )
        if not norm_eps > 0:
            raise ValueError(
                f"Transformer: expected a positive norm_eps, got {norm_eps}; the usual one is 1e-6"
            )
        self.width = width
        self.attention = SoftmaxAttention() if attention is None else attention
        self.positions = positions
        hidden = round(width * mlp_ratio)
        self.blocks = nn.ModuleList(
            TransformerBlock(width=width, num_heads=num_heads, hidden=hidden, norm_eps=norm_eps)
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width, eps=norm_eps)
        start_linear_layers(self)
        with torch.no_grad():
            for number, block in enumerate(self.blocks, start=1):
                for layer in (block.get_submodule("out"), block.get_submodule("down")):
                    layer.get_parameter("weight").div_(math.sqrt(2 * number))

    def forward(
        self,
        tokens: Float[Tensor, "b n c"],
        *,
        places: Places,
        grid: tuple[int, int],
        extra: Float[Tensor, "b m c"] | None = None,
    ) -> Float[Tensor, "b m_and_n c"]:
        """Returns normalized tokens, those without a position first.

        Args:
            tokens: Tokens with a position in a grid.
            places: Row and column of each of these tokens.
            grid: Number of rows and columns.
            extra: Tokens without a position, which are put before the others.
        """
        x = tokens if self.positions is None else self.positions.add(tokens, places, grid)
        if extra is not None:
            x = torch.cat([extra.to(x.dtype), x], dim=1)
        for block in self.blocks:
            x = block(x, places, self.attention, self.positions)
        return self.norm(x)


def grid_places(grid: tuple[int, int], device: torch.device | str | None = None) -> Places:
    """Returns the row and column of each position of a grid, row by row.

    Example:
        >>> grid_places((2, 2)).tolist()
        [[0, 0], [0, 1], [1, 0], [1, 1]]
    """
    rows, columns = (torch.arange(count, device=device) for count in grid)
    return torch.cartesian_prod(rows, columns)


def start_linear_layers(network: nn.Module) -> None:
    """Draws linear weights from a truncated normal distribution of deviation 0.02 sqrt(768 / inputs); biases are 0.

    A layer with 768 inputs thus starts as in BEiT (Bao et al. 2021, https://arxiv.org/abs/2106.08254), and narrower
    layers, which would hardly pass anything on with the same deviation, keep the scale of their outputs.
    """
    for module in network.modules():
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=0.02 * math.sqrt(768 / module.in_features))
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def _rotate(
    x: Float[Tensor, "b heads m dim"], places: Places, positions: Positions
) -> Float[Tensor, "b heads m dim"]:
    """Encodes the positions of the tokens that have one; `extra` tokens come before them."""
    count = len(places)
    if count == x.shape[2]:
        return positions.rotate(x, places)
    extra = x[:, :, :-count]
    return torch.cat([extra, positions.rotate(x[:, :, -count:], places)], dim=2)
