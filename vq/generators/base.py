"""What every generator is: indices and a class to logits, and a class and a seed to indices."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from vq.generators.sampling import ConstantGuidance, Guidance, Sampler


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
        if min(vocabulary_size, num_classes, num_indices) < 1:
            raise ValueError(
                f"{name}: expected vocabulary_size, num_classes and num_indices of at least 1, got "
                f"{vocabulary_size}, {num_classes} and {num_indices}"
            )
        if len(grid) not in (1, 2) or min(grid) < 1:
            raise ValueError(f"{name}: expected a grid (rows, columns) or (length,), got {tuple(grid)}")
        if not 0 <= class_dropout <= 1:
            raise ValueError(f"{name}: expected a class_dropout in [0, 1], got {class_dropout}")
        self.vocabulary_size, self.num_classes, self.num_indices = vocabulary_size, num_classes, num_indices
        self.grid, self.num_places, self.class_dropout = tuple(grid), math.prod(grid), class_dropout

    def forward(self, indices: Int64[Tensor, "b *places"], label: Int64[Tensor, "b"]) -> GeneratorOutput:
        """Every index is proposed from the class and from true indices (teacher forcing).

        Values are checked on the CPU; on another device, which would have to wait, they are taken as they are.

        Args:
            indices: (b, *grid), or (b, places); with `num_indices` > 1 one more axis.
            label: Classes; `num_classes` stands for none.

        Raises:
            ValueError: If the shape is not the grid's, or an index or a class is out of range.
        """
        flat = self._flattened(indices)
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
        label: Int64[Tensor, "b"],
        *,
        seeds: Int64[Tensor, "b"],
        guidance: Guidance | float = 1.0,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        prefix: Int64[Tensor, "b *given"] | None = None,
    ) -> Int64[Tensor, "b *places"]:
        """Classes and seeds to indices, in eval mode.

        A picture depends on its class, its seed and these settings, not on the others of its batch.

        Args:
            label: Classes; `num_classes` stands for none.
            seeds: One number a picture.
            guidance: See `Guidance`; a number is a constant scale.
            temperature: See `Sampler`.
            top_k: See `Sampler`.
            top_p: See `Sampler`.
            prefix: Indices of the first places in raster order, which the picture keeps: (b, places), with
                `num_indices` > 1 (b, places, num_indices).

        Returns:
            (b, *grid), with `num_indices` > 1 (b, *grid, num_indices).

        Raises:
            ValueError: If a class, an index or a setting is out of range, or shapes do not agree.
        """
        if label.ndim != 1 or seeds.shape != label.shape:
            raise ValueError(
                f"generate: expected one label and one seed a picture, got shapes {tuple(label.shape)} and "
                f"{tuple(seeds.shape)}"
            )
        self._check_range("label", label, self.num_classes + 1)
        if isinstance(guidance, int | float):
            guidance = ConstantGuidance(float(guidance))
        sampler = Sampler(guidance=guidance, temperature=temperature, top_k=top_k, top_p=top_p)
        given = self._given(prefix, label)
        rows = label if sampler.copies == 1 else torch.cat([label, torch.full_like(label, self.num_classes)])
        was_training = self.training
        self.eval()
        try:
            indices = self.draw(rows, sampler, seeds.to(label.device), given)
        finally:
            self.train(was_training)
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
            raise ValueError(
                f"{type(self).__name__}: expected indices of the shape (b, {_listed((*self.grid, *stack))}), got "
                f"{tuple(indices.shape)}; the grid of the generator must be that of the tokens"
            )
        return indices.reshape(len(indices), self.num_places, self.num_indices)

    def _given(self, prefix: Tensor | None, label: Tensor) -> Tensor:
        given = label.new_full((len(label), self.num_places, self.num_indices), -1)
        if prefix is None:
            return given
        count = prefix.shape[1] if prefix.ndim > 1 else 0
        stack = (self.num_indices,) if self.num_indices > 1 else ()
        if tuple(prefix.shape) != (len(label), count, *stack) or count > self.num_places:
            raise ValueError(
                f"prefix: expected the shape ({_listed((len(label), 'places', *stack))}) with at most "
                f"{self.num_places} places, got {tuple(prefix.shape)}"
            )
        self._check_range("prefix", prefix, self.vocabulary_size)
        given[:, :count] = prefix.reshape(len(label), count, self.num_indices)
        return given

    def _check_range(self, name: str, values: Tensor, count: int) -> None:
        if values.device.type != "cpu" or values.numel() == 0:
            return
        lowest, highest = (int(x) for x in values.aminmax())
        if lowest < 0 or highest >= count:
            what = "the class of none is the last" if name == "label" else "is it another tokenizer's?"
            raise ValueError(
                f"{name}: expected 0 to {count - 1}, got {lowest if lowest < 0 else highest}; {what}"
            )


def generator_output(logits: Float[Tensor, "b l q v"], indices: Int64[Tensor, "b l q"]) -> GeneratorOutput:
    """Logits and the true indices to the mean cross-entropy, in float32, and the share of right guesses.

    Example:
        >>> out = generator_output(torch.zeros(1, 2, 1, 4), torch.tensor([[[0], [3]]]))
        >>> round(out.loss.item(), 4), out.accuracy.item()
        (1.3863, 0.5)
    """
    loss = F.cross_entropy(logits.flatten(0, 2).float(), indices.flatten())
    accuracy = (logits.detach().argmax(-1) == indices).float().mean()
    count = torch.full((), indices.numel(), device=indices.device)
    return GeneratorOutput(logits=logits, loss=loss, accuracy=accuracy, num_scored=count)


def _listed(parts: Sequence[object]) -> str:
    return ", ".join(str(part) for part in parts)
