"""The exit of a transformer that proposes indices: a vector a place to the logits of its indices."""

from abc import ABC, abstractmethod

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from vq.generators.decoder import DecoderTransformer, KeyValueCache, start_normal
from vq.generators.sampling import Position, Sampler
from vq.ops.numerics.constants import constant, multiples


class Head(nn.Module, ABC):
    """Proposes the indices of each place from a vector that knows what came before."""

    @abstractmethod
    def forward(
        self, hidden: Float[Tensor, "b l c"], indices: Int64[Tensor, "b l q"]
    ) -> Float[Tensor, "b l q v"]:
        """Vectors and the true indices to logits."""

    @abstractmethod
    def draw(
        self,
        hidden: Float[Tensor, "rows c"],
        sampler: Sampler,
        position: Position,
        uniform: Float[Tensor, "b q"],
        given: Int64[Tensor, "b q"],
    ) -> Int64[Tensor, "b q"]:
        """Draws the indices of one place.

        Args:
            hidden: A vector a row of the network.
            sampler: Turns logits into indices.
            position: Which place.
            uniform: A number for each draw.
            given: Indices that are kept; -1 where one is to be drawn.
        """


class LinearHead(Head):
    """One index a place: logits are a linear map.

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
        """See `Head`."""
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
        """See `Head`."""
        logits = sampler.guided(self.logits(hidden), position.progress)
        index, _ = sampler.pick(logits, uniform[:, 0], place=position.place)
        return index[:, None].where(given < 0, given)


class DepthHead(Head):
    """Several indices a place, one after the other: a small transformer runs along the stack.

    Its first token is the place's vector, its d-th the sum of the vectors of the d indices before.

    Source: Lee et al. 2022, https://arxiv.org/abs/2203.01941, section 3.2.2, eq. 12 (RQ-Transformer).
    Differs from the source: each depth has its own table and its own linear map to logits, so that grouped
        indices, whose codebooks share nothing, are the same case.

    Args:
        transformer: Causal, along the stack.
        width: Channels of the places' vectors.
        vocabulary_size: Number of codes of each index.
        num_indices: Indices a place.
    """

    def __init__(
        self, *, transformer: DecoderTransformer, width: int, vocabulary_size: int, num_indices: int
    ) -> None:
        super().__init__()
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
        """See `Head`."""
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
        """See `Head`."""
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
            index, _ = sampler.pick(logits, uniform[:, depth], place=position.place, depth=depth)
            indices.append(index.where(given[:, depth] < 0, given[:, depth]))
        return torch.stack(indices, dim=1)
