"""Output heads of a generator's transformer: from one vector per position to the logits of its indices."""

from abc import ABC, abstractmethod

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from vq.generators.decoder import DecoderTransformer, KeyValueCache, start_normal
from vq.generators.errors import GeneratorError
from vq.generators.sampling import Position, Sampler
from vq.ops.numerics.constants import constant, multiples


class Head(nn.Module, ABC):
    """Predicts the indices of each position from the transformer's output vector there."""

    @abstractmethod
    def forward(
        self, hidden: Float[Tensor, "b l c"], indices: Int64[Tensor, "b l q"]
    ) -> Float[Tensor, "b l q v"]:
        """Computes logits from the vectors and, where an index depends on those before it, the true indices."""

    @abstractmethod
    def draw(
        self,
        hidden: Float[Tensor, "rows c"],
        sampler: Sampler,
        position: Position,
        uniform: Float[Tensor, "b q"],
        given: Int64[Tensor, "b q"],
    ) -> Int64[Tensor, "b q"]:
        """Samples the indices of one position.

        Args:
            hidden: One vector per row of the network's batch.
            sampler: Draws indices from logits.
            position: The position that is sampled.
            uniform: One number in [0, 1) for each draw.
            given: -1 for indices that are sampled; all others are kept.
        """


class LinearHead(Head):
    """Computes the logits of a single index per position by a linear map.

    Args:
        width: Channels of the vectors.
        vocabulary_size: Number of codes.
    """

    def __init__(self, *, width: int, vocabulary_size: int) -> None:
        super().__init__()
        self.logits = nn.Linear(width, vocabulary_size, bias=False)
        start_normal(self)

    def forward(
        self, hidden: Float[Tensor, "b l c"], indices: Int64[Tensor, "b l q"]
    ) -> Float[Tensor, "b l q v"]:
        """Computes the logits of the index of each position."""
        logits: Tensor = self.logits(hidden)
        return logits[:, :, None]

    def draw(
        self,
        hidden: Float[Tensor, "rows c"],
        sampler: Sampler,
        position: Position,
        uniform: Float[Tensor, "b q"],
        given: Int64[Tensor, "b q"],
    ) -> Int64[Tensor, "b q"]:
        """Samples the index of one position."""
        logits = sampler.guided(self.logits(hidden), position.progress)
        index = sampler.pick(logits, uniform[:, 0], place=position.place)
        return index[:, None].where(given < 0, given)


class DepthHead(Head):
    """Predicts several indices per position, one after the other, with a small transformer over the depth.

    The transformer's first token is the vector of the position. Token d is the sum of the embeddings of the first d
    indices.

    Source: Lee et al. 2022, https://arxiv.org/abs/2203.01941, section 3.2.2, eq. 12 (RQ-Transformer).
    Differs from the source: each depth has its own embedding table and its own linear map to logits, so that the
        head also fits grouped indices, whose codebooks share nothing.

    Args:
        transformer: A transformer that is applied causally over the depth.
        width: Channels of the vectors of the positions.
        vocabulary_size: The number of codes of each index.
        num_indices: The number of indices per position.

    Raises:
        ValueError: If the style of the transformer has no class key; there is no class token among the indices.
    """

    def __init__(
        self, *, transformer: DecoderTransformer, width: int, vocabulary_size: int, num_indices: int
    ) -> None:
        super().__init__()
        if not transformer.has_class_key:
            raise GeneratorError(
                "depth_transformer: expected a style with class_key=True, got False; the indices of a position have no "
                "class token"
            )
        inner = transformer.width
        self.project = nn.Linear(width, inner, bias=False)
        self.tables = nn.Embedding((num_indices - 1) * vocabulary_size, inner)
        self.positions = nn.Embedding(num_indices, inner)
        self.vocabulary_size, self.num_indices = vocabulary_size, num_indices
        start_normal(self)
        self.transformer = transformer
        self.logits = nn.Parameter(0.02 * torch.randn(num_indices, vocabulary_size, inner))

    def forward(
        self, hidden: Float[Tensor, "b l c"], indices: Int64[Tensor, "b l q"]
    ) -> Float[Tensor, "b l q v"]:
        """Computes the logits of all depths at once, from the true indices (teacher forcing)."""
        offsets = constant(multiples, self.num_indices - 1, self.vocabulary_size, device=indices.device)
        before = self.tables(indices[..., :-1] + offsets).cumsum(2)
        x = torch.cat([self.project(hidden)[:, :, None], before], dim=2) + self.positions.weight
        out = self.transformer(x.flatten(0, 1)).unflatten(0, x.shape[:2])
        return torch.einsum("blqc,qvc->blqv", out, self.logits.to(out.dtype))

    def draw(
        self,
        hidden: Float[Tensor, "rows c"],
        sampler: Sampler,
        position: Position,
        uniform: Float[Tensor, "b q"],
        given: Int64[Tensor, "b q"],
    ) -> Int64[Tensor, "b q"]:
        """Samples the indices of one position, depth by depth."""
        depths = len(self.logits)
        cache = KeyValueCache(self.transformer, rows=len(hidden), length=depths)
        x = self.project(hidden)
        indices: list[Tensor] = []
        for depth in range(depths):
            if depth == 1:
                x = torch.zeros_like(x)
            if depth > 0:
                x = x + self.tables(sampler.rows(indices[-1]) + (depth - 1) * self.vocabulary_size)
            out = self.transformer((x + self.positions.weight[depth])[:, None], cache=cache)[:, 0]
            logits = sampler.guided(out @ self.logits[depth].T, position.progress)
            index = sampler.pick(logits, uniform[:, depth], place=position.place, depth=depth)
            indices.append(index.where(given[:, depth] < 0, given[:, depth]))
        return torch.stack(indices, dim=1)
