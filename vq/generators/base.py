"""The interface of a generator: `forward` scores given indices, `generate` samples new ones from a class and a seed."""

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
"""One pair (start, stop) of allowed values for each index of a position, or one pair for all of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneratorOutput:
    """The predictions of a generator for given indices.

    Attributes:
        logits: The logits of every index; positions are in raster order.
        loss: Mean cross-entropy per index, in nats, in float32.
        accuracy: The fraction of indices to which the generator gave the highest logit.
        num_scored: The number of indices that `loss` and `accuracy` are averaged over. Averages over a set weight
            batches by it.
    """

    logits: Float[Tensor, "b l q v"]
    loss: Float[Tensor, ""]
    accuracy: Float[Tensor, ""]
    num_scored: Int64[Tensor, ""]


class Generator(nn.Module, ABC):
    """Models the indices of an image, given its class.

    In training mode the class is replaced by the "no class" label, `num_classes`, with probability `class_dropout`.
    Classifier-free guidance needs this.

    Args:
        vocabulary_size: The number of codes.
        num_classes: The number of classes.
        grid: The shape of an image's index map: (rows, columns), or (length,) for a sequence.
        num_indices: The number of indices per position.
        class_dropout: A probability in [0, 1].

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
        self.grid, self.num_positions, self.class_dropout = tuple(grid), math.prod(grid), class_dropout

    def forward(self, indices: Shaped[Tensor, "b *places"], label: Shaped[Tensor, "b"]) -> GeneratorOutput:
        """Predicts every index from the class and the true indices (teacher forcing).

        The range of the values is checked on the CPU only, because on another device the check would block.
        The loss is over the whole vocabulary, even if the tokenizer uses only a part of it for some of the indices
        of a position: the generator learns which part.

        Args:
            indices: (b, *grid) or (b, positions); with `num_indices` > 1 there is one more axis. Any integer type.
            label: Classes, of any integer type; `num_classes` means "no class".

        Raises:
            ValueError: If the shape does not match the grid, or an index or a class is out of range or not an integer.
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
        """Predicts indices that are already checked and flattened in raster order."""

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
        """Samples indices in eval mode, one image for each class and seed.

        An image depends on its class, its seed and the settings alone, not on the rest of the batch.

        Args:
            label: Classes, as Python integers or a tensor of any integer type; `num_classes` means "no class".
            seeds: One integer per image, from -2^63 to 2^63 - 1.
            guidance: The guidance scale, or a `Guidance` schedule.
            temperature: Divides the logits (`Sampler`).
            top_k: Samples among this many of the likeliest indices (`Sampler`); None for all.
            top_p: Samples among the likeliest indices with this total probability (`Sampler`); None for all.
            prefix: Given indices of the first positions in raster order, which are kept: (b, positions), or
                (b, positions, num_indices) with `num_indices` > 1.
            ranges: The allowed values (start, stop) of each index of a position, or one pair for all, as in a
                tokenizer's `index_ranges`. None allows the whole vocabulary.

        Returns:
            (b, *grid), or (b, *grid, num_indices) with `num_indices` > 1.

        Raises:
            ValueError: If a class, an index or a setting is out of range or not an integer, or shapes do not match.
            NotFiniteLogitsError: If the network's logits are not finite.
        """
        label, seeds = self._checked_requests(label, seeds)
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
        """Samples the indices of a batch of images.

        Args:
            label: One class per row of the network's batch. With guidance, the classes of the images are followed by
                as many "no class" labels.
            sampler: Draws indices from logits.
            seeds: One seed per image.
            given: Indices in raster order; -1 marks those that are sampled, all others are kept.
        """

    def _checked_requests(
        self, label: Shaped[Tensor, "b"] | Sequence[Any], seeds: Shaped[Tensor, "b"] | Sequence[Any]
    ) -> tuple[Int64[Tensor, "b"], Int64[Tensor, "b"]]:
        """Classes and seeds as int64 tensors on the network's device."""
        device = next(self.parameters()).device
        label, seeds = as_int64("label", label, device=device), as_int64("seeds", seeds, device=device)
        if label.ndim != 1 or seeds.shape != label.shape:
            raise GeneratorError(
                f"generate: expected one label and one seed per image, got shapes {tuple(label.shape)} and "
                f"{tuple(seeds.shape)}"
            )
        self._check_range("label", label.cpu(), self.num_classes + 1)
        return label, seeds

    def _flattened(self, indices: Tensor) -> Tensor:
        stack = (self.num_indices,) if self.num_indices > 1 else ()
        if tuple(indices.shape[1:]) not in ((*self.grid, *stack), (self.num_positions, *stack)):
            raise GeneratorError(
                f"{type(self).__name__}: expected indices of shape (b, {_listed((*self.grid, *stack))}), got "
                f"{tuple(indices.shape)}; set the generator's grid to that of the tokens"
            )
        return indices.reshape(len(indices), self.num_positions, self.num_indices)

    def _given(
        self, prefix: Tensor | None, label: Tensor, ranges: tuple[tuple[int, int], ...]
    ) -> Int64[Tensor, "b l q"]:
        given = label.new_full((len(label), self.num_positions, self.num_indices), -1)
        if prefix is None:
            return given
        prefix = as_int64("prefix", prefix, device=label.device)
        count = prefix.shape[1] if prefix.ndim > 1 else 0
        stack = (self.num_indices,) if self.num_indices > 1 else ()
        if tuple(prefix.shape) != (len(label), count, *stack) or count > self.num_positions:
            raise GeneratorError(
                f"prefix: expected shape ({_listed((len(label), 'positions', *stack))}) with at most "
                f"{self.num_positions} positions, got {tuple(prefix.shape)}"
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
                f"position, got {ranges}; was the generator trained for a different tokenizer?"
            )
        if not all(0 <= start < stop <= self.vocabulary_size for start, stop in pairs):
            raise GeneratorError(
                f"ranges: expected 0 <= start < stop <= {self.vocabulary_size}, the generator's vocabulary_size, got "
                f"{ranges}; was the generator trained for a different tokenizer?"
            )
        return pairs

    def _check_range(self, name: str, values: Tensor, stop: int, start: int = 0) -> None:
        if values.device.type != "cpu" or values.numel() == 0:
            return
        lowest, highest = (int(x) for x in values.aminmax())
        if lowest < start or highest >= stop:
            what = (
                f"the generator has {self.num_classes} classes, and label {self.num_classes} means no class"
                if name == "label"
                else "do the indices come from a different tokenizer?"
            )
            raise GeneratorError(
                f"{name}: expected {start} to {stop - 1}, got {lowest if lowest < start else highest}; {what}"
            )


def generator_output(logits: Float[Tensor, "b l q v"], indices: Int64[Tensor, "b l q"]) -> GeneratorOutput:
    """Computes the mean cross-entropy, in float32, and the accuracy of logits against the true indices.

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
