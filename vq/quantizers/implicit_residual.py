"""Residual quantization with implicit neural codebooks (QINCo): the codes of a stage depend on the sum before it."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn
from torch.nn import functional as F

from vq.ops.distance import nearest_code
from vq.ops.gradients import replace_value
from vq.ops.numerics.integers import as_int64
from vq.ops.numerics.precision import computed_in
from vq.ops.numerics.reductions import mean_square
from vq.quantizers.base import QuantizeOutput, Quantizer, learnable
from vq.quantizers.codebooks.base import Codebook
from vq.quantizers.codebooks.learned import LearnedCodebook
from vq.registry import QUANTIZERS

# Codes whose adapted values are computed at once for all vectors.
CODES_PER_TILE = 16


@QUANTIZERS.register_module()
class ImplicitResidualQuantizer(Quantizer):
    r"""Quantizes residuals in stages whose codes a network computes from the sum of the codes before them (QINCo).

    With the base codes $c$ of stage k and the sum $\hat x_k$ of the codes of the stages before it, stage k chooses
    among the K codes $f_k(c, \hat x_k)$ the one nearest to $z - \hat x_k$. The first stage chooses among its base
    codes. $f$ adds to c a linear map of $(c, \hat x)$, and then `num_blocks` times $W_2 \max(W_1 x, 0)$ to the result
    x. The loss is the mean over the stages of $|sg(z) - \hat x_{k+1}|^2$, which moves base codes and networks, also
    those of the stages before, plus `commitment_weight` times $|z - sg(\hat x_{k+1})|^2$. The gradient of the task
    passes straight through to z.

    The base codes are those of any codebooks that learn by gradient. Initialization from data and revival place them
    where the residuals are; in the beginning f changes them little. Each search evaluates f for all pairs of vectors
    and codes, 16 codes at a time. That takes about 2 `num_blocks` `hidden_dim` times as many operations as the search
    of `ResidualQuantizer`. Decoding evaluates f once per stage.

    Source: Huijben et al. 2024 (QINCo), https://arxiv.org/abs/2401.14732, section 3.
    Differs from the source: z is learned too, so there is a commitment loss. The squared differences are means. The
        linear map begins at 0 and $W_2$ at a tenth of the usual size, so that stages begin as residual VQ; in the
        published code both begin as usual, and the base codes as those of a trained residual quantizer.

    Args:
        codebooks: Base codes of the stages in order, all of one size and length.
        hidden_dim: Width h of the networks; the published code uses 256.
        num_blocks: Number L of residual blocks of each network; the published code uses 4.
        commitment_weight: Weight of the commitment loss.

    Raises:
        ValueError: If there are no codebooks, they differ in size or length or do not learn by gradient, or
            `hidden_dim` or `num_blocks` is not positive.

    Example:
        >>> quantizer = ImplicitResidualQuantizer.example()
        >>> quantizer(torch.randn(5, 4)).indices.shape
        torch.Size([5, 3])
    """

    def __init__(
        self,
        *,
        codebooks: Sequence[Codebook],
        hidden_dim: int = 256,
        num_blocks: int = 4,
        commitment_weight: float = 0.25,
    ) -> None:
        super().__init__()
        if len({(codebook.size, codebook.dim) for codebook in codebooks}) != 1:
            raise ValueError(
                f"ImplicitResidualQuantizer: expected at least one codebook, all of one size and dim, got (size, dim) "
                f"{[(codebook.size, codebook.dim) for codebook in codebooks]}"
            )
        for codebook in codebooks:
            if not codebook.learns_by_gradient:
                raise ValueError(
                    f"ImplicitResidualQuantizer: expected codebooks that learn by gradient, got "
                    f"{type(codebook).__name__}, whose codes would ignore the networks; use LearnedCodebook"
                )
        if min(hidden_dim, num_blocks) < 1:
            raise ValueError(
                f"ImplicitResidualQuantizer: expected positive hidden_dim and num_blocks, got {hidden_dim} and "
                f"{num_blocks}"
            )
        self.commitment_weight = commitment_weight
        self.codebook_size, self.codebook_dim = codebooks[0].size, codebooks[0].dim
        self.index_shape = (len(codebooks),)
        self.codebooks = nn.ModuleList(codebooks)
        self.networks = nn.ModuleList(
            _CodeNetwork(self.codebook_dim, hidden_dim, num_blocks) for _ in codebooks[1:]
        )

    @classmethod
    def example(cls) -> "ImplicitResidualQuantizer":
        """Returns three stages with 16 learned base codes of length 4."""
        return cls(codebooks=[LearnedCodebook.example() for _ in range(3)], hidden_dim=8, num_blocks=2)

    def decode_prefix(
        self, indices: Shaped[Tensor, "*lead_and_stages"], depth: int, dtype: torch.dtype | None = None
    ) -> Float[Tensor, "*lead dim"]:
        """Returns the sum of the codes of the first `depth` stages: a coarser version of the same vectors.

        Args:
            indices: Indices of all stages, or of the first `depth` stages at least.
            depth: Number of stages to sum.
            dtype: Dtype of the result; the default is that of `decode`.

        Raises:
            ValueError: If the depth is not in [1, number of stages], or an index is not an integer in range.
        """
        if not 1 <= depth <= len(self.codebooks):
            raise ValueError(
                f"ImplicitResidualQuantizer: expected a depth in [1, {len(self.codebooks)}], got {depth}"
            )
        whole = self._in_range(as_int64("ImplicitResidualQuantizer.decode_prefix: indices", indices))
        dtype = dtype or self._own_precision()
        return self._decode(whole[..., :depth], computed_in(dtype)).to(dtype)

    def _forward(self, z: Float[Tensor, "*lead dim"], mask: Bool[Tensor, "*lead"] | None) -> QuantizeOutput:
        vectors = z.reshape(-1, self.codebook_dim)
        counted = None if mask is None else mask.reshape(-1)
        usable = learnable(vectors, mask)
        total, indices, losses = torch.zeros_like(vectors), [], []
        metrics: dict[str, Tensor] = {}
        for number, codebook in enumerate(self._books()):
            rest = (vectors - total).detach()
            if self.training:
                codebook.prepare(rest, usable)
            index = self._nearest(number, rest, total.detach())
            if self.training:
                codebook.update(rest, index, usable)
            total = total + self._code(number, index, total)
            codebook_loss = self._over_ranks(mean_square(total, vectors.detach(), counted))
            commitment_loss = self._over_ranks(mean_square(vectors, total.detach(), counted))
            losses.append(codebook_loss + self.commitment_weight * commitment_loss)
            metrics[f"stage{number}/codebook_loss"] = codebook_loss.detach()
            indices.append(index)
        return QuantizeOutput(
            quantized=replace_value(z, total.view(z.shape)),
            indices=torch.stack(indices, dim=-1).view(*z.shape[:-1], len(indices)),
            loss=torch.stack(losses).mean(),
            metrics=metrics,
        )

    def _encode(self, z: Float[Tensor, "*lead dim"]) -> Int[Tensor, "*lead stages"]:
        vectors = z.reshape(-1, self.codebook_dim)
        total, indices = torch.zeros_like(vectors), []
        for number in range(len(self.codebooks)):
            indices.append(self._nearest(number, vectors - total, total))
            total = total + self._code(number, indices[-1], total)
        return torch.stack(indices, dim=-1).view(*z.shape[:-1], len(indices))

    def _decode(self, indices: Int[Tensor, "*lead stages"], dtype: torch.dtype) -> Float[Tensor, "*lead dim"]:
        lead, stages = indices.shape[:-1], indices.shape[-1]
        flat = indices.reshape(-1, stages) if stages else indices
        total = torch.zeros(flat.shape[0], self.codebook_dim, dtype=dtype, device=indices.device)
        for number in range(stages):
            total = total + self._code(number, flat[:, number], total)
        return total.view(*lead, self.codebook_dim)

    def _code(
        self, number: int, index: Int[Tensor, "n"], total: Float[Tensor, "n dim"]
    ) -> Float[Tensor, "n dim"]:
        """Computes the codes that a stage adds to these sums."""
        code = F.embedding(index, self._books()[number].codes.to(total.dtype))
        return self.networks[number - 1](code, total) if number else code

    @torch.no_grad()
    def _nearest(
        self, number: int, rest: Float[Tensor, "n dim"], total: Float[Tensor, "n dim"]
    ) -> Int[Tensor, "n"]:
        """Returns for each vector the index of the code of a stage that is nearest to what is left over."""
        codes = self._books()[number].codes.to(rest.dtype)
        if number == 0:
            return nearest_code(rest, codes)
        best = torch.full_like(rest[:, 0], torch.inf)
        index = torch.zeros_like(best, dtype=torch.int64)
        for first in range(0, len(codes), CODES_PER_TILE):
            adapted = self.networks[number - 1](codes[first : first + CODES_PER_TILE], total[:, None])
            smallest, where = (rest[:, None] - adapted).square().sum(dim=2).min(dim=1)
            is_better = smallest < best  # a NaN never is, so that the index stays in range
            best = torch.where(is_better, smallest, best)
            index = torch.where(is_better, where + first, index)
        return index

    def _books(self) -> list[Codebook]:
        return [codebook for codebook in self.codebooks if isinstance(codebook, Codebook)]


class _CodeNetwork(nn.Module):
    """Computes the code f(c, x) of a base code c after the sum x of the codes before it.

    Args:
        dim: Length of codes.
        hidden_dim: Width of the residual blocks.
        num_blocks: Number of residual blocks.
    """

    def __init__(self, dim: int, hidden_dim: int, num_blocks: int) -> None:
        super().__init__()
        self.join = nn.Linear(2 * dim, dim)
        nn.init.zeros_(self.join.weight)
        nn.init.zeros_(self.join.bias)
        self.blocks = nn.ModuleList(_Block(dim, hidden_dim) for _ in range(num_blocks))

    def forward(
        self, codes: Float[Tensor, "*#pairs dim"], sums: Float[Tensor, "*#pairs dim"]
    ) -> Float[Tensor, "*pairs dim"]:
        """Returns the codes, in the precision of the sums; the leading axes are broadcast."""
        of_code, of_sum = self.join.weight.to(sums.dtype).chunk(2, dim=1)
        x = codes + F.linear(codes, of_code, self.join.bias.to(sums.dtype)) + F.linear(sums, of_sum)
        for block in self.blocks:
            x = block(x)
        return x


class _Block(nn.Module):
    """Adds W_2 max(W_1 x, 0) to x.

    Args:
        dim: Last axis of x.
        hidden_dim: Last axis of W_1 x.
    """

    def __init__(self, dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.widen = nn.Linear(dim, hidden_dim, bias=False)
        self.narrow = nn.Linear(hidden_dim, dim, bias=False)
        with torch.no_grad():
            self.narrow.weight.mul_(0.1)

    def forward(self, x: Float[Tensor, "*lead dim"]) -> Float[Tensor, "*lead dim"]:
        """Returns the sum, in the precision of x."""
        hidden = F.relu(F.linear(x, self.widen.weight.to(x.dtype)))
        return x + F.linear(hidden, self.narrow.weight.to(x.dtype))
