"""What every generator is: indices and a class to logits, and a class and a seed to indices."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64, Shaped
from torch import Tensor, nn

from vq.generators.errors import GeneratorError
from vq.generators.sampling import Guidance, Sampler, sampler_of
from vq.layers.modes import evaluating
from vq.ops.numerics.integers import as_int64
from vq.ops.numerics.precision import at_least_float32

Ranges = Sequence[Sequence[int]]
"""(start, stop) of the values of each index of a place, or one pair for all of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneratorOutput:
    """What a generator thinks of given indices.

    Attributes:
        logits: Of every index, place after place in raster order.
        loss: Mean cross-entropy of an index, in nats, in float32.
        accuracy: Share of the indices that were the likeliest.
        num_scored: How many indices these two are means of: those of a set are weighted by it.
    """

    logits: Float[Tensor, "b l q v"]
    loss: Float[Tensor, ""]
    accuracy: Float[Tensor, ""]
    num_scored: Int64[Tensor, ""]


class Generator(nn.Module, ABC):
    """Proposes the indices of a picture, given its class.

    In training mode a class is replaced by none, class `num_classes`, with probability `class_dropout`, which
    is what guidance needs in sampling.

    Args:
        vocabulary_size: Number of codes.
        num_classes: Number of classes.
        grid: Places of a picture: (rows, columns), or (length,) for a sequence.
        num_indices: Indices a place.
        class_dropout: Probability in [0, 1].

    Raises:
        ValueError: If a number is below 1, or the probability is outside its range.
    """

    def __init__(
        self,
        *,
        vocabulary_size: int,
        num_classes: int,
        grid: Sequence[int],
        num_indices: int = 1,
        class_dropout: float = 0.1,
    ) -> None:
        super().__init__()
        name = type(self).__name__
        as_int64(
            f"{name}: vocabulary_size, num_classes, num_indices and grid",
            [vocabulary_size, num_classes, num_indices, *grid],
        )
        if min(vocabulary_size, num_classes, num_indices) < 1:
            raise GeneratorError(
                f"{name}: expected vocabulary_size, num_classes and num_indices of at least 1, got "
                f"{vocabulary_size}, {num_classes} and {num_indices}"
            )
        if len(grid) not in (1, 2) or min(grid) < 1:
            raise GeneratorError(f"{name}: expected a grid (rows, columns) or (length,), got {tuple(grid)}")
        if not 0 <= class_dropout <= 1:
            raise GeneratorError(f"{name}: expected a class_dropout in [0, 1], got {class_dropout}")
        self.vocabulary_size, self.num_classes, self.num_indices = vocabulary_size, num_classes, num_indices
        self.grid, self.num_places, self.class_dropout = tuple(grid), math.prod(grid), class_dropout

    def forward(self, indices: Shaped[Tensor, "b *places"], label: Shaped[Tensor, "b"]) -> GeneratorOutput:
        """Every index is proposed from the class and from true indices (teacher forcing).

        Values are checked on the CPU; on another device, which would have to wait, they are taken as they are.
        The loss is over the whole vocabulary, also where a tokenizer uses a part of it at an index of a place: the
        generator learns which.

        Args:
            indices: (b, *grid), or (b, places); with `num_indices` > 1 one more axis. Any integer type.
            label: Classes, of any integer type; `num_classes` stands for none.

        Raises:
            ValueError: If the shape is not the grid's, an index or a class is out of range, or not an integer.
        """
        flat = self._flattened(as_int64("indices", indices))
        label = as_int64("label", label)
        self._check_range("indices", flat, self.vocabulary_size)
        self._check_range("label", label, self.num_classes + 1)
        if self.training and self.class_dropout > 0:
            dropped = torch.rand(label.shape, device=label.device) < self.class_dropout
            label = label.masked_fill(dropped, self.num_classes)
        return self.propose(flat, label)

    @abstractmethod
    def propose(self, indices: Int64[Tensor, "b l q"], label: Int64[Tensor, "b"]) -> GeneratorOutput:
        """Checked indices in raster order, and classes, to what the generator thinks of them."""

    @torch.no_grad()
    def generate(
        self,
        label: Shaped[Tensor, "b"] | Sequence[Any],
        *,
        seeds: Shaped[Tensor, "b"] | Sequence[Any],
        guidance: Guidance | float = 1.0,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        prefix: Shaped[Tensor, "b *given"] | None = None,
        ranges: Ranges | None = None,
    ) -> Int64[Tensor, "b *places"]:
        """Classes and seeds to indices, in eval mode.

        A picture depends on its class, its seed and these settings, not on the others of its batch.

        Args:
            label: Classes, Python's integers or a tensor of any integer type; `num_classes` stands for none.
            seeds: One number a picture, likewise; from -2^63 to 2^63 - 1.
            guidance: See `Guidance`; a number is a constant scale.
            temperature: See `Sampler`.
            top_k: See `Sampler`.
            top_p: See `Sampler`.
            prefix: Indices of the first places in raster order, which the picture keeps: (b, places), with
                `num_indices` > 1 (b, places, num_indices).
            ranges: In which the indices are drawn, as a tokenizer's `index_ranges` says: (start, stop) for each
                index of a place, or one pair for all. None allows the whole vocabulary.

        Returns:
            (b, *grid), with `num_indices` > 1 (b, *grid, num_indices).

        Raises:
            ValueError: If a class, an index or a setting is out of range or not an integer, or shapes do not agree.
            NotFiniteLogitsError: If the network's logits are not finite.
        """
        device = next(self.parameters()).device
        label, seeds = as_int64("label", label, device=device), as_int64("seeds", seeds, device=device)
        if label.ndim != 1 or seeds.shape != label.shape:
            raise GeneratorError(
                f"generate: expected one label and one seed a picture, got shapes {tuple(label.shape)} and "
                f"{tuple(seeds.shape)}"
            )
        self._check_range("label", label.cpu(), self.num_classes + 1)
        allowed = None if ranges is None else self._checked_ranges(ranges)
        sampler = sampler_of(
            guidance=guidance, temperature=temperature, top_k=top_k, top_p=top_p, ranges=allowed
        )
        given = self._given(prefix, label, allowed or ((0, self.vocabulary_size),))
        rows = label if sampler.copies == 1 else torch.cat([label, torch.full_like(label, self.num_classes)])
        with evaluating(self):
            indices = self.draw(rows, sampler, seeds, given)
        stack = (self.num_indices,) if self.num_indices > 1 else ()
        return indices.reshape(len(label), *self.grid, *stack)

    @abstractmethod
    def draw(
        self,
        label: Int64[Tensor, "rows"],
        sampler: Sampler,
        seeds: Int64[Tensor, "b"],
        given: Int64[Tensor, "b l q"],
    ) -> Int64[Tensor, "b l q"]:
        """Draws pictures.

        Args:
            label: A class a row of the network: with guidance the pictures' classes, then as many times none.
            sampler: Turns logits into indices.
            seeds: One a picture.
            given: Indices that are kept, in raster order; -1 where one is to be drawn.
        """

    def _flattened(self, indices: Tensor) -> Tensor:
        stack = (self.num_indices,) if self.num_indices > 1 else ()
        if tuple(indices.shape[1:]) not in ((*self.grid, *stack), (self.num_places, *stack)):
            raise GeneratorError(
                f"{type(self).__name__}: expected indices of the shape (b, {_listed((*self.grid, *stack))}), got "
                f"{tuple(indices.shape)}; the grid of the generator must be that of the tokens"
            )
        return indices.reshape(len(indices), self.num_places, self.num_indices)

    def _given(
        self, prefix: Tensor | None, label: Tensor, ranges: tuple[tuple[int, int], ...]
    ) -> Int64[Tensor, "b l q"]:
        given = label.new_full((len(label), self.num_places, self.num_indices), -1)
        if prefix is None:
            return given
        prefix = as_int64("prefix", prefix, device=label.device)
        count = prefix.shape[1] if prefix.ndim > 1 else 0
        stack = (self.num_indices,) if self.num_indices > 1 else ()
        if tuple(prefix.shape) != (len(label), count, *stack) or count > self.num_places:
            raise GeneratorError(
                f"prefix: expected the shape ({_listed((len(label), 'places', *stack))}) with at most "
                f"{self.num_places} places, got {tuple(prefix.shape)}"
            )
        given[:, :count] = prefix.reshape(len(label), count, self.num_indices)
        for depth in range(self.num_indices):
            start, stop = ranges[depth if len(ranges) > 1 else 0]
            self._check_range("prefix", given[:, :count, depth].cpu(), stop, start)
        return given

    def _checked_ranges(self, ranges: Ranges) -> tuple[tuple[int, int], ...]:
        pairs = tuple((pair[0], pair[-1]) for pair in ranges if len(pair) == 2)
        if len(pairs) != len(ranges) or len(pairs) not in (1, self.num_indices):
            raise GeneratorError(
                f"ranges: expected one pair (start, stop), or one for each of the {self.num_indices} indices of a "
                f"place, got {ranges}; is the generator made for another tokenizer?"
            )
        if not all(0 <= start < stop <= self.vocabulary_size for start, stop in pairs):
            raise GeneratorError(
                f"ranges: expected 0 <= start < stop <= {self.vocabulary_size}, the generator's vocabulary_size, got "
                f"{ranges}; is the generator made for another tokenizer?"
            )
        return pairs

    def _check_range(self, name: str, values: Tensor, stop: int, start: int = 0) -> None:
        if values.device.type != "cpu" or values.numel() == 0:
            return
        lowest, highest = (int(x) for x in values.aminmax())
        if lowest < start or highest >= stop:
            what = (
                f"the generator has {self.num_classes} classes, and the class of none is the last"
                if name == "label"
                else "is it another tokenizer's?"
            )
            raise GeneratorError(
                f"{name}: expected {start} to {stop - 1}, got {lowest if lowest < start else highest}; {what}"
            )


def generator_output(logits: Float[Tensor, "b l q v"], indices: Int64[Tensor, "b l q"]) -> GeneratorOutput:
    """Logits and the true indices to the mean cross-entropy, in float32, and the share of right guesses.

    Example:
        >>> out = generator_output(torch.zeros(1, 2, 1, 4), torch.tensor([[[0], [3]]]))
        >>> round(out.loss.item(), 4), out.accuracy.item()
        (1.3863, 0.5)
    """
    loss = F.cross_entropy(at_least_float32(logits.flatten(0, 2)), indices.flatten())
    accuracy = (logits.detach().argmax(-1) == indices).float().mean()
    count = torch.full((), indices.numel(), device=indices.device)
    return GeneratorOutput(logits=logits, loss=loss, accuracy=accuracy, num_scored=count)


def _listed(parts: Sequence[object]) -> str:
    return ", ".join(str(part) for part in parts)
