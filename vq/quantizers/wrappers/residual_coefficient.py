"""Residual coefficients: an image as a few codes, each the coefficients of a learned pattern (Rcq)."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from vq.ops.numerics.constants import constant
from vq.quantizers.base import QuantizeOutput, Quantizer
from vq.quantizers.finite_scalar import FiniteScalarQuantizer
from vq.registry import QUANTIZERS


@QUANTIZERS.register_module()
class ResidualCoefficientQuantizer(Quantizer):
    r"""Quantizes the mean of the residual over all positions, times a learned pattern, stage by stage (Rcq).

    Stage k quantizes $c_k = Q(mean_{xy}(z - sg(\sum_{j<k} c_j B_j)))$, one vector per image. The code is
    $\sum_k c_k \odot B_k(x, y)$, channel by channel, with $B_k(x, y) = MLP(x, y, k)$. So an image has `depth`
    indices, whatever its size: `z` is (..., h, w, dim) and `indices` is (..., depth). A mask is over images.

    The patterns learn from the task alone. Its gradient reaches z through the means, so that it is the same at
    every position. Whatever varies over the positions can be represented by the patterns only, so expect far worse
    results than from `MultiScaleResidualQuantizer`. This class is an experiment.

    Source: Doraemonzzz/vector-quantize, `residual_coef_quantizer`, an untested plan there; there is no paper.
    Differs from the source: coordinates are scaled to [-1, 1] and pass a linear layer with a bias first. The source
        normalises (x, y, k) as whole numbers, after which (1, 1, 1) and (2, 2, 2) are the same. The coefficients
        may come from any quantizer, not only FSQ.

    Args:
        quantizer: Quantizer of the coefficients, shared by all stages, with one index per vector.
        grid: Height and width of the features.
        depth: Number of stages.
        hidden_dim: Width of the MLP.

    Raises:
        ValueError: If the grid, the depth or the width is not positive, or the quantizer has more than one
            index per vector.

    Example:
        >>> quantizer = ResidualCoefficientQuantizer(
        ...     quantizer=FiniteScalarQuantizer(levels=[5, 5]), grid=(4, 4), depth=3
        ... )
        >>> quantizer(torch.randn(7, 4, 4, 2)).indices.shape
        torch.Size([7, 3])
    """

    def __init__(
        self, *, quantizer: Quantizer, grid: tuple[int, int] | list[int], depth: int, hidden_dim: int = 128
    ) -> None:
        super().__init__()
        if len(grid) != 2 or min(*grid, depth, hidden_dim) < 1:
            raise ValueError(
                f"ResidualCoefficientQuantizer: expected a positive grid (height, width), depth and hidden_dim, "
                f"got {tuple(grid)}, {depth} and {hidden_dim}"
            )
        if quantizer.index_shape or quantizer.grid:
            raise ValueError(
                f"ResidualCoefficientQuantizer: expected a quantizer with one index per vector, got one with the "
                f"index_shape {quantizer.index_shape}"
            )
        self.quantizer, self.depth, self.grid = quantizer, depth, tuple(grid)
        self.codebook_size, self.codebook_dim = quantizer.codebook_size, quantizer.codebook_dim
        self.index_shape = (depth,)
        self.first = nn.Linear(3, hidden_dim)
        self.norm = nn.LayerNorm(hidden_dim)
        self.last = nn.Linear(hidden_dim, self.codebook_dim, bias=False)

    @classmethod
    def example(cls) -> "ResidualCoefficientQuantizer":
        """Returns three stages over a grid of 2 x 3."""
        return cls(quantizer=FiniteScalarQuantizer(levels=[5, 4, 3]), grid=(2, 3), depth=3, hidden_dim=8)

    def _forward(
        self, z: Float[Tensor, "*lead h w dim"], mask: Bool[Tensor, "*lead"] | None
    ) -> QuantizeOutput:
        patterns = self._patterns(z.dtype)
        total = torch.zeros_like(z)
        indices, losses = [], []
        metrics: dict[str, Tensor] = {}
        for number in range(self.depth):
            output = self.quantizer((z - total.detach()).mean(dim=(-3, -2)), mask)
            total = total + output.quantized[..., None, None, :] * patterns[number]
            indices.append(output.indices)
            losses.append(output.loss)
            metrics |= {f"stage{number}/{name}": value for name, value in output.metrics.items()}
        return QuantizeOutput(
            quantized=total,
            indices=torch.stack(indices, dim=-1),
            loss=torch.stack(losses).mean(),
            metrics=metrics,
        )

    def _encode(self, z: Float[Tensor, "*lead h w dim"]) -> Int[Tensor, "*lead stages"]:
        patterns = self._patterns(z.dtype)
        total, indices = torch.zeros_like(z), []
        for number in range(self.depth):
            indices.append(self.quantizer.encode((z - total).mean(dim=(-3, -2))))
            code = self.quantizer.decode(indices[-1], z.dtype)
            total = total + code[..., None, None, :] * patterns[number]
        return torch.stack(indices, dim=-1)

    def _decode(
        self, indices: Int[Tensor, "*lead stages"], dtype: torch.dtype
    ) -> Float[Tensor, "*lead h w dim"]:
        codes = [self.quantizer.decode(own, dtype) for own in indices.unbind(-1)]
        patterns = self._patterns(dtype)
        total = torch.zeros(
            *indices.shape[:-1], *self.grid, self.codebook_dim, dtype=dtype, device=indices.device
        )
        for number, code in enumerate(codes):  # in the order of `forward`: the sum is the same bit for bit
            total = total + code[..., None, None, :] * patterns[number]
        return total

    def _patterns(self, dtype: torch.dtype) -> Float[Tensor, "stages h w dim"]:
        """Computes B of every stage in `dtype`, even if the module is in half precision."""
        coordinates = constant(_coordinates, self.depth, *self.grid, dtype, device=self.first.weight.device)
        hidden = F.linear(coordinates, self.first.weight.to(dtype), self.first.bias.to(dtype))
        weight, bias = self.norm.weight.to(dtype), self.norm.bias.to(dtype)
        hidden = F.silu(F.layer_norm(hidden, hidden.shape[-1:], weight, bias, self.norm.eps))
        return F.linear(hidden, self.last.weight.to(dtype))


def _coordinates(depth: int, height: int, width: int, dtype: torch.dtype) -> Float[Tensor, "stages h w 3"]:
    """Returns the coordinates of every stage and position, each axis from -1 to 1."""
    axes = [
        torch.linspace(-1, 1, n, dtype=dtype) if n > 1 else torch.zeros(1, dtype=dtype)
        for n in (depth, height, width)
    ]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)
