"""Autoregressive generation with a causal transformer."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from vq.generators.base import Generator, GeneratorOutput, generator_output
from vq.generators.decoder import DecoderTransformer, KeyValueCache, Rotation
from vq.generators.errors import GeneratorError
from vq.generators.graphs import RECORDED, can_be_recorded, graph_sampler, run_steps
from vq.generators.heads import DepthHead, Head, LinearHead
from vq.generators.packed import packed_weights
from vq.generators.sampling import Position, Sampler, uniform_numbers
from vq.generators.stem import TokenStem, order_of
from vq.ops.numerics.constants import constant, int64s
from vq.registry import GENERATORS


@GENERATORS.register_module()
class TransformerGenerator(Generator):
    """Predicts the indices of each position from the class and the positions before it, with a causal transformer.

    p(indices | class) = prod_t p(indices at position order[t] | class, indices at order[0], ..., order[t - 1])

    Training runs over the whole sequence at once. Sampling runs over one token per step, with a static cache.

    Source: Sun et al. 2024, https://arxiv.org/abs/2406.06525, section 3.2 (LlamaGen); several indices per position:
        Lee et al. 2022, https://arxiv.org/abs/2203.01941.
    Differs from the source: any grid; the class token is not rotated, whereas the source sets its queries and keys to
        zero, as `LlamaStyle(class_key=False)` does; the map to logits is initialized from a normal distribution, not
        with zeros.

    Args:
        transformer: The transformer over the positions.
        vocabulary_size: The number of codes.
        num_classes: The number of classes.
        grid: (rows, columns) or (length,).
        order: "raster"; "zigzag", which is low frequencies first if row and column of a position are its frequencies;
            or all positions in the order in which they are generated. `FrequencyEncoder` and `FrequencyPatches`
            output their positions in zigzag order already, so "raster" is the right choice for them.
        num_indices: The number of indices per position.
        depth_transformer: The transformer over the indices of a position; required if there are several, and only
            then.
        class_dropout: The probability in [0, 1] of training without the class.

    Raises:
        ValueError: If a number is out of range, the order is invalid, or `depth_transformer` is missing or superfluous.

    Example:
        >>> import torch
        >>> generator = TransformerGenerator(
        ...     transformer=DecoderTransformer(width=16, depth=1, num_heads=2),
        ...     vocabulary_size=8, num_classes=3, grid=(2, 3),
        ... )
        >>> generator.generate(torch.tensor([0, 2]), seeds=torch.tensor([0, 1]), guidance=2.0, top_k=4).shape
        torch.Size([2, 2, 3])
    """

    def __init__(
        self,
        *,
        transformer: DecoderTransformer,
        vocabulary_size: int,
        num_classes: int,
        grid: Sequence[int],
        order: str | Sequence[int] = "raster",
        num_indices: int = 1,
        depth_transformer: DecoderTransformer | None = None,
        class_dropout: float = 0.1,
    ) -> None:
        super().__init__(
            vocabulary_size=vocabulary_size,
            num_classes=num_classes,
            grid=grid,
            num_indices=num_indices,
            class_dropout=class_dropout,
        )
        if (num_indices > 1) != (depth_transformer is not None):
            raise GeneratorError(
                f"TransformerGenerator: expected a depth_transformer for num_indices above 1 and only then, got "
                f"num_indices {num_indices} and {'none' if depth_transformer is None else 'one'}"
            )
        width = transformer.width
        self.stem = TokenStem(
            width=width,
            vocabulary_size=vocabulary_size,
            num_classes=num_classes,
            num_indices=num_indices,
            grid=grid,
            head_width=transformer.head_width if transformer.is_rotary else None,
            has_class_key=transformer.has_class_key,
        )
        self.transformer = transformer
        self.head: Head = (
            LinearHead(width=width, vocabulary_size=vocabulary_size)
            if depth_transformer is None
            else DepthHead(
                transformer=depth_transformer,
                width=width,
                vocabulary_size=vocabulary_size,
                num_indices=num_indices,
            )
        )
        self.order = tuple(order_of(order, grid).tolist())

    def propose(self, indices: Int64[Tensor, "b l q"], label: Int64[Tensor, "b"]) -> GeneratorOutput:
        """Predicts all indices in one pass."""
        order = constant(int64s, *self.order, device=indices.device)
        ordered, before = indices[:, order], order[:-1]
        x = self.stem(label, ordered[:, :-1], before)
        hidden = self.transformer(x, rotation=self.stem.rotation(before))
        logits = self.head(hidden, ordered)
        return generator_output(logits[:, order.argsort()], indices)

    def draw(
        self,
        label: Int64[Tensor, "rows"],
        sampler: Sampler,
        seeds: Int64[Tensor, "b"],
        given: Int64[Tensor, "b l q"],
    ) -> Int64[Tensor, "b l q"]:
        """Samples the indices in `order`, one position per step; on a CUDA device the steps are one CUDA graph."""
        order = constant(int64s, *self.order, device=given.device)
        given = given[:, order]
        # Each uniform number belongs to a position and a depth, whatever the order.
        uniform = uniform_numbers(seeds, self.num_positions * self.num_indices)
        batch = _Batch(
            order=order,
            given=given,
            indices=given.clone(),
            uniform=uniform.view(len(seeds), self.num_positions, -1)[:, order],
            rotation=self.stem.rotation(order),
            cache=KeyValueCache(self.transformer, rows=len(label), length=self.num_positions),
        )
        # The positions that are given for all images pass through the network at once.
        known = (given >= 0).all(2).all(0).long().cumprod(0).sum().item()
        first = min(int(known), self.num_positions - 1)
        left = self.num_positions - first
        # For fewer than some tens of steps, packing would cost more than it saves.
        packing = packed_weights(self, rows=len(label)) if left >= 32 else nullcontext()
        with packing:
            self._start(batch, sampler, label, first)
            size = self.vocabulary_size
            if can_be_recorded(sampler, device=given.device, num_steps=left, vocabulary_size=size):
                self._replay(batch, sampler, first + 1)
            else:
                self._go_on(batch, sampler, first + 1)
        return batch.indices[:, order.argsort()]

    def _start(self, batch: "_Batch", sampler: Sampler, label: Tensor, first: int) -> None:
        """Passes the class and the given indices before a position through the network, and samples that position."""
        x = self.stem(label, sampler.rows(batch.indices[:, :first]), batch.order[:first])
        turn = None if batch.rotation is None else batch.rotation[:, : first + 1]
        hidden = self.transformer(x, rotation=turn, cache=batch.cache)[:, -1]
        batch.indices[:, first] = self.head.draw(
            hidden, sampler, self._position(first), batch.uniform[:, first], batch.given[:, first]
        )

    def _go_on(self, batch: "_Batch", sampler: Sampler, first: int) -> None:
        """Samples all positions from the given one on."""
        steps = torch.arange(self.num_positions, device=batch.order.device)
        for t in range(first, self.num_positions):
            self._step(batch, sampler, steps[t : t + 1], self._position(t))

    def _replay(self, batch: "_Batch", sampler: Sampler, first: int) -> None:
        """Samples all positions from the given one on with one step that is recorded in a CUDA graph."""
        step = torch.full((1,), first, device=batch.order.device)
        recorded = graph_sampler(sampler, step, self.num_positions)

        def sample() -> None:
            self._step(batch, recorded, step, RECORDED)
            step.add_(1)

        batch.cache.position = step
        run_steps(sample, self.num_positions - first, step.device)
        batch.cache.position = None
        if not bool(recorded.is_finite):
            self._go_on(batch, sampler, first)  # raises the error, which names the image and the position

    def _step(self, batch: "_Batch", sampler: Sampler, t: Int64[Tensor, "1"], position: Position) -> None:
        """Passes the index before position t through the network, and samples position t."""
        x = self.stem.of_indices(sampler.rows(batch.indices[:, t - 1]), batch.order[t - 1])
        turn = None if batch.rotation is None else batch.rotation[:, t]
        hidden = self.transformer(x, rotation=turn, cache=batch.cache)[:, -1]
        drawn = self.head.draw(hidden, sampler, position, batch.uniform[:, t][:, 0], batch.given[:, t][:, 0])
        batch.indices[:, t] = drawn[:, None]

    def _position(self, t: int) -> Position:
        return Position(place=self.order[t], progress=t / self.num_positions)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Batch:
    """A batch of images while they are sampled. Positions are in the order of sampling.

    Attributes:
        order: The position in raster order of each of them.
        given: The indices that are given; -1 where an index is sampled.
        indices: The indices so far.
        uniform: The numbers that decide the draws.
        rotation: The rotary positions; None if positions are learned.
        cache: The keys and values so far.
    """

    order: Int64[Tensor, "l"]
    given: Int64[Tensor, "b l q"]
    indices: Int64[Tensor, "b l q"]
    uniform: Float[Tensor, "b l q"]
    rotation: Rotation | None
    cache: KeyValueCache
