"""One forward of a quantizer with all that it calls: what its codebooks learn, they learn once, at its end."""

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
    """A quantizer or a codebook: what takes part in the forward of the outermost quantizer.

    Attributes:
        has_state: Whether training forwards change something.
        event: The forward that is running; None between forwards.
    """

    has_state: ClassVar[bool] = False
    event: "Event | None" = None

    def _open(self, event: "Event") -> None:
        self.event = event

    def _close(self) -> None:
        self.event = None

    def _commit(self) -> None:
        """Learns what the event has collected."""

    def _undo(self) -> None:
        """Goes back to the state before the event, which has failed."""

    def _searched(self) -> Tensor | None:
        """A copy of the codes that the event has searched, if they can change later; None if they cannot."""
        return None

    def _search_again(self, codes: Tensor | None) -> None:
        """For a recomputation: searches what `_searched` gave in the first forward."""


class Event:
    """One forward of an outermost quantizer.

    Args:
        mask: Which positions of `z` count on this rank; None is all.
        count: The number of positions.
        record: What is kept for a recomputation, or what this recomputation repeats; None if neither.
        zero: In a compiled forward that learns what `refuse_recomputation` gives.
        is_replay: Whether this is a recomputation, in which nothing learns.
    """

    def __init__(
        self,
        mask: Bool[Tensor, "*mask"] | None,
        count: int,
        record: Record | None,
        *,
        zero: Tensor | None = None,
        is_replay: bool,
    ) -> None:
        self.record, self.is_replay = record, is_replay
        # Asked before anything learns, and added to the loss, or the compiler would leave it out.
        self._zero = zero
        self._mask, self._count = mask, count
        self._total: Tensor | None = None
        self._num_draws = 0

    def weighted(self, mean: Float[Tensor, ""]) -> Float[Tensor, ""]:
        """A mean over this rank's vectors, times its share of the vectors of all ranks, times the number of ranks.

        DistributedDataParallel takes the mean of the ranks' gradients, which so is the gradient of the mean over
        the vectors of all ranks.
        """
        if world_size() == 1:
            return mean
        count = torch.tensor(self._count) if self._mask is None else self._mask.sum()
        count = count.to(mean.device, torch.float64)
        if self._total is None:
            self._total = all_reduce_sum_with_gradient(count)
        return mean * (count * world_size() / self._total.clamp_min(1)).to(mean.dtype)

    def average(self, scalars: list[Float[Tensor, ""]]) -> list[Float[Tensor, ""]]:
        """The means over ranks of what `weighted` was used in, each with the gradient of this rank's own."""
        if self._zero is not None:
            scalars = [scalars[0] + self._zero, *scalars[1:]]
        if self._total is None:
            return scalars
        own = torch.stack([scalar.detach() for scalar in scalars])
        means = all_reduce_sum_with_gradient(own).detach() / world_size()
        return [replace_value(scalar, mean) for scalar, mean in zip(scalars, means, strict=True)]

    def has_drawn(self, device: torch.device) -> None:
        """Called after what learns has drawn random numbers: a recomputation does not, but goes on as if it had."""
        if self.record is not None:
            self.record.pass_draws(self._num_draws, device, is_replay=self.is_replay)
            self._num_draws += 1


@contextmanager
def one_event(
    quantizer: nn.Module, z: Shaped[Tensor, "*shape"], mask: Bool[Tensor, "*mask"] | None, count: int
) -> Iterator[Event]:
    """Inside, the codebooks below `quantizer` collect; they learn at the end, or not at all if it raises.

    A forward inside of a backward is a recomputation (activation checkpointing). It learns nothing, searches the
    codes of the forward that it repeats, calls no collective, and goes on with the same random numbers.

    Args:
        quantizer: The outermost one.
        z: What is quantized.
        mask: Which positions count; None is all.
        count: The number of positions.

    Raises:
        RuntimeError: If it is a recomputation of a forward that is not remembered.
    """
    parts = [part for part in quantizer.modules() if isinstance(part, Part)]
    learns = any(part.training for part in parts) and (
        world_size() > 1 or any(part.has_state for part in parts)
    )
    # A compiled forward cannot ask whether it is repeated.
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
