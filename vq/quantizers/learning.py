"""Learning events: one forward of a quantizer with all parts that it calls.

Codebooks collect during the event what they will learn, and learn once, at its end.
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor, nn

from vq.distributed import all_reduce_sum_with_gradient, repeatable, world_size
from vq.ops.gradients import replace_value
from vq.quantizers.recomputation import (
    Record,
    is_in_backward,
    keep_record,
    new_record,
    record_to_repeat,
    refuse_recomputation,
)


class Part(nn.Module):
    """A quantizer or a codebook: a module that takes part in the forward of the outermost quantizer.

    Attributes:
        has_state: Whether training forwards change buffers or parameters.
        event: The running forward; None between forwards.
    """

    has_state: ClassVar[bool] = False
    event: "Event | None" = None

    def _open(self, event: "Event") -> None:
        self.event = event

    def _close(self) -> None:
        self.event = None

    def _commit(self) -> None:
        """Learns what was collected during the event."""

    def _undo(self) -> None:
        """Restores the state before the event, which has failed."""

    def _searched(self) -> Float[Tensor, "size dim"] | None:
        """Returns a copy of the codes that were searched in the event; None if they cannot change later."""
        return None

    def _search_again(self, codes: Float[Tensor, "size dim"] | None) -> None:
        """Makes a recomputation search the codes that `_searched` returned in the original forward."""


class Event:
    """Holds what the parts of one forward of an outermost quantizer share.

    Args:
        mask: True for the positions of `z` on this rank that count; None if all do.
        count: Number of positions.
        record: What is kept for a recomputation, or what this recomputation repeats; None if neither.
        zero: Result of `refuse_recomputation` in a compiled forward that learns, else None.
        is_replay: Whether this is a recomputation, in which nothing learns.
    """

    def __init__(
        self,
        mask: Bool[Tensor, "*mask"] | None,
        count: int,
        record: Record | None,
        *,
        zero: Float[Tensor, ""] | None = None,
        is_replay: bool,
    ) -> None:
        self.record, self.is_replay = record, is_replay
        # Evaluated before anything learns, and added to the loss so that the compiler does not remove it.
        self._zero = zero
        self._mask, self._count = mask, count
        self._total: Tensor | None = None
        self._num_draws = 0

    def weighted(self, mean: Float[Tensor, ""]) -> Float[Tensor, ""]:
        """Weights a mean over this rank's vectors such that its average over the ranks is the mean over all vectors.

        The weight is this rank's share of the vectors, times the number of ranks. DistributedDataParallel averages
        gradients over the ranks, which then gives the gradient of the mean over all vectors.
        """
        if world_size() == 1:
            return mean
        count = torch.tensor(self._count) if self._mask is None else self._mask.sum()
        count = count.to(mean.device, torch.float64, non_blocking=True)
        if self._total is None:
            self._total = all_reduce_sum_with_gradient(count)
        return mean * (count * world_size() / self._total.clamp_min(1)).to(mean.dtype)

    def average(self, scalars: list[Float[Tensor, ""]]) -> list[Float[Tensor, ""]]:
        """Averages scalars that `weighted` returned over the ranks; each keeps the gradient of its own value."""
        if self._zero is not None:
            scalars = [scalars[0] + self._zero, *scalars[1:]]
        if self._total is None:
            return scalars
        own = torch.stack([scalar.detach() for scalar in scalars])
        means = all_reduce_sum_with_gradient(own).detach() / world_size()
        return [replace_value(scalar, mean) for scalar, mean in zip(scalars, means, strict=True)]

    def has_drawn(self, device: torch.device) -> None:
        """Records that a learning part has drawn random numbers.

        A recomputation does not draw them, but continues with the generators in the recorded state. So everything
        after the draw sees the same random numbers.
        """
        if self.record is not None:
            self.record.pass_draws(self._num_draws, device, is_replay=self.is_replay)
            self._num_draws += 1


@contextmanager
def one_event(
    quantizer: nn.Module, z: Shaped[Tensor, "*shape"], mask: Bool[Tensor, "*mask"] | None, count: int
) -> Iterator[Event]:
    """Collects what the codebooks below `quantizer` learn; they learn at the end, or not at all if the block raises.

    A forward inside a backward is a recomputation (activation checkpointing). It learns nothing, searches the codes
    of the forward that it repeats, calls no collective, and continues with the same random numbers.

    Args:
        quantizer: The outermost quantizer.
        z: Vectors to quantize.
        mask: True for the positions that count; None if all do.
        count: Number of positions.

    Raises:
        RuntimeError: If this is a recomputation of a forward that is not on record.
    """
    parts = [part for part in quantizer.modules() if isinstance(part, Part)]
    learns = any(part.training for part in parts) and (
        world_size() > 1 or any(part.has_state for part in parts)
    )
    # A compiled forward cannot find out whether it is a recomputation.
    is_replay = learns and not torch.compiler.is_compiling() and is_in_backward()
    record = record_to_repeat(quantizer, z) if is_replay else new_record(z) if learns else None
    zero = refuse_recomputation(z.detach()) if learns and torch.compiler.is_compiling() else None
    event = Event(mask, count, record, zero=zero, is_replay=is_replay)
    is_done = False
    try:
        for number, part in enumerate(parts):
            part._open(event)
            if is_replay and record is not None:
                part._search_again(record.codes[number])
        with nullcontext() if record is None else repeatable(record.reduced, is_replay=is_replay):
            yield event
        if not is_replay:
            if record is not None:
                record.codes = [part._searched() for part in parts]
            for part in parts:
                part._commit()
        event.has_drawn(z.device)
        is_done = True
    finally:
        for part in parts:
            if not is_done:
                part._undo()
            part._close()
    if record is not None and not is_replay:
        keep_record(quantizer, record)
