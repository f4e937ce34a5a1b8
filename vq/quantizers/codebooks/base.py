"""The interface of a codebook, and the order in which codes are initialised, revived, searched and learned."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from vq.distributed import all_reduce_sum
from vq.ops.gradients import replace_value
from vq.ops.numerics.reductions import split_counts
from vq.quantizers.learning import Part
from vq.quantizers.parts.initialization import Initialization
from vq.quantizers.parts.revival import Revival


class Codebook(Part, ABC):
    """Holds a finite set of code vectors and learns them.

    In a training forward the quantizer calls `prepare`, searches among `codes`, calls `update`, and adds `loss` to
    its own loss. What a codebook learns from statistics is summed over all ranks. What it learns by gradient is left
    to the optimizer and to DistributedDataParallel.

    A quantizer may use its codebook several times in one forward. Then only the first `prepare` initialises or
    revives codes, and everything that `update` was given is learned at once, at the end of the forward. Outside of a
    quantizer's forward both methods act immediately.

    Subclasses implement `vectors`, `loss` and `example`. A codebook that learns from statistics also implements
    `statistics` and `learn`. One whose codes can be set from outside (initialization from data, warm-up, revival)
    implements `set_codes`, and `average_usage` if it can be revived. A codebook around another one, such as
    `AffineCodebook`, calls these four methods of the inner codebook.

    Args:
        size: Number of codes.
        dim: Length of each code.
        init: How the codes are initialised.
        revival: How unused codes are replaced; None never replaces them.

    Raises:
        ValueError: If `size` or `dim` is not positive.
    """

    has_state = True
    collected: ClassVar[tuple[str, ...]] = ("_pending",)
    """Names of the attributes that hold what micro-batches have collected."""
    initialised: Tensor
    idle: Tensor

    def __init__(self, *, size: int, dim: int, init: Initialization, revival: Revival | None) -> None:
        super().__init__()
        if size < 1 or dim < 1:
            raise ValueError(f"{type(self).__name__}: expected positive size and dim, got {size} and {dim}")
        self.size, self.dim = size, dim
        self.init, self.revival = init, revival
        # The tensor is stored in checkpoints; the bool can be read in `forward` without waiting for the device.
        # uint8, because not every communication back end can reduce or broadcast bool.
        self.register_buffer("initialised", torch.tensor(not init.needs_data, dtype=torch.uint8))
        self._awaits_data = init.needs_data
        if revival is not None and revival.needs_idle:
            self.register_buffer("idle", torch.zeros(size, dtype=torch.int64))
        self.is_accumulating = False
        self._pending: Tensor | None = None
        self._is_prepared = False
        self._calls: list[tuple[Tensor, Tensor, Tensor]] = []
        self._before: list[Tensor] | None = None
        self._first_codes: Tensor | None = None

    @property
    @abstractmethod
    def vectors(self) -> Float[Tensor, "size dim"]:
        """The current codes."""

    @property
    def learns_by_gradient(self) -> bool:
        """Whether a gradient with respect to the codes reaches a parameter."""
        with torch.enable_grad():
            return self.vectors.requires_grad

    @property
    def codes(self) -> Float[Tensor, "size dim"]:
        """The codes to search: `vectors`, or during a recomputation their values in the original forward."""
        return self.vectors if self._first_codes is None else replace_value(self.vectors, self._first_codes)

    @abstractmethod
    def loss(
        self,
        z: Float[Tensor, "n dim"],
        code: Float[Tensor, "n dim"],
        mask: Bool[Tensor, "n"] | None = None,
    ) -> Float[Tensor, ""]:
        """Computes the loss whose gradient moves the codes; 0 if they do not learn by gradient.

        Args:
            z: Vectors that were quantized.
            code: The code selected for each vector, with its gradient.
            mask: True for the vectors that count; None if all do.
        """

    @classmethod
    @abstractmethod
    def example(cls) -> "Codebook":
        """Returns a small instance, on which the contract tests run."""

    def statistics(
        self, z: Float[Tensor, "n dim"], indices: Int[Tensor, "n"], mask: Bool[Tensor, "n"]
    ) -> Float[Tensor, "flat"] | None:
        """Computes the counts and sums that `learn` needs from this rank's vectors; None if it needs none.

        Args:
            z: This rank's vectors.
            indices: The code of each vector.
            mask: True for the vectors that count.

        Returns:
            The result of `count_and_sum`. It is summed over micro-batches and ranks before it reaches `learn`.
        """
        return None

    def learn(self, counts: Float[Tensor, "size"], sums: Float[Tensor, "size dim_or_0"]) -> None:
        """Updates the codes once per optimizer step; called only if `statistics` returns something.

        Args:
            counts: Number of vectors of all ranks and micro-batches that chose each code.
            sums: Sum of these vectors for each code. Implementations may overwrite it.
        """

    def average_usage(self) -> Float[Tensor, "size"]:
        """Returns how many vectors of all ranks choose each code in an average step.

        Raises:
            NotImplementedError: If this codebook does not track usage, so that it cannot revive codes.
        """
        raise NotImplementedError(
            f"{type(self).__name__}: expected average_usage() for a revival, got a codebook without it; implement "
            f"it, or leave the revival out"
        )

    def set_codes(
        self,
        vectors: Float[Tensor, "size dim"],
        usage: Float[Tensor, "size"],
        is_moved: Bool[Tensor, "size"],
    ) -> None:
        """Overwrites the codes and their usage, with all state that depends on them.

        Args:
            vectors: New value of every code, moved or not.
            usage: New average usage of every code.
            is_moved: True for the codes that changed. The others must keep their value bit for bit.

        Raises:
            NotImplementedError: If the codes of this codebook cannot be set.
        """
        raise NotImplementedError(
            f"{type(self).__name__}: expected set_codes() to initialise codes from data or to revive them, got a "
            f"codebook without it; implement it, or use neither"
        )

    @torch.no_grad()
    def prepare(self, z: Float[Tensor, "n dim"], mask: Bool[Tensor, "n"]) -> None:
        """Initialises the codes from data if that is still to be done, and otherwise revives dead codes.

        Called before the search of a training forward. Of several accumulated micro-batches only the first one
        revives codes, from its own vectors: if codes moved in between, the micro-batches would differ from one large
        batch.

        Args:
            z: This rank's vectors.
            mask: True for the vectors that may be used.
        """
        if self.event is None:
            self._begin_or_revive(z, mask)
        elif not self._is_prepared:
            self._is_prepared = True
            if not self.event.is_replay:
                self._begin_or_revive(z, mask)
            self.event.has_drawn(z.device)

    def _begin_or_revive(self, z: Float[Tensor, "n dim"], mask: Bool[Tensor, "n"]) -> None:
        if self._awaits_data:
            vectors, usage = self.init.fit(z.detach().to(self.vectors.dtype), mask, self.size)
            self._remember()
            self.begin(vectors, usage)
        elif self.revival is not None and self._pending is None:
            self._remember()
            self._revive(self.revival, z.detach(), mask)

    @torch.no_grad()
    def begin(self, vectors: Float[Tensor, "size dim"], usage: Float[Tensor, "size"]) -> None:
        """Initialises the codes with the given vectors instead of with `init`.

        Args:
            vectors: The codes, the same on every rank.
            usage: How many vectors of all ranks choose each code in a step.
        """
        # EMACodebook divides sums by usage, so a code without any vector needs a positive usage too.
        self.set_codes(vectors, usage.clamp_min(1), torch.ones_like(usage, dtype=torch.bool))
        if self.revival is not None and self.revival.needs_idle:
            self.idle.zero_()
        self.initialised.fill_(1)
        self._awaits_data = False

    @torch.no_grad()
    def update(self, z: Float[Tensor, "n dim"], indices: Int[Tensor, "n"], mask: Bool[Tensor, "n"]) -> None:
        """Learns from which vectors chose which code; called after the search of a training forward.

        Inside `accumulate` it only collects statistics, from which the next update outside learns.

        Args:
            z: This rank's vectors.
            indices: The code of each vector.
            mask: True for the vectors that count.
        """
        if self.event is None:
            self._collect(z, indices, mask)
            self._learn_unless_accumulating()
        elif not self.event.is_replay:
            # Keep the vectors, which the backward keeps anyway: sums of each codebook would need more memory.
            self._calls.append((z.detach(), indices, mask))

    def _collect(self, z: Float[Tensor, "n dim"], indices: Int[Tensor, "n"], mask: Bool[Tensor, "n"]) -> None:
        """Adds the statistics of these vectors to those that are pending."""
        statistics = self.statistics(z, indices, mask)
        if statistics is not None:
            self._pending = statistics if self._pending is None else statistics + self._pending

    def _learn_unless_accumulating(self) -> None:
        if self.is_accumulating or self._pending is None:
            return
        # The name is reused so that the tensor before the reduction is freed: with many codes it is large.
        statistics, self._pending = self._pending, None
        statistics = all_reduce_sum(statistics)
        counts, sums = split_counts(statistics, self.size)
        if self.revival is not None and self.revival.needs_idle:
            # Steps without any vector do not count as idle.
            self.idle.copy_(torch.where(counts > 0, 0, self.idle + (counts.sum() > 0)))
        self.learn(counts, sums)

    @torch.no_grad()
    def _commit(self) -> None:
        calls, self._calls = self._calls, []
        for z, indices, mask in calls:
            self._collect(z, indices, mask)
        if calls:
            self._learn_unless_accumulating()

    def _remember(self) -> None:
        """Keeps a copy of the state until the end of the forward, in case the forward raises."""
        if self.event is not None and not torch.compiler.is_compiling():
            self._before = [tensor.detach().clone() for tensor in self._tensors()]

    @torch.no_grad()
    def _undo(self) -> None:
        if self._before is None:
            return
        for tensor, before in zip(self._tensors(), self._before, strict=True):
            tensor.copy_(before)
        self._awaits_data = not bool(self.initialised)

    def _tensors(self) -> list[Shaped[Tensor, "..."]]:
        return [*self.parameters(), *self.buffers()]

    def _close(self) -> None:
        super()._close()
        self._is_prepared, self._calls, self._before, self._first_codes = False, [], None, None

    def _searched(self) -> Float[Tensor, "size dim"] | None:
        return self.vectors.detach().clone()

    def _search_again(self, codes: Float[Tensor, "size dim"] | None) -> None:
        self._first_codes = codes

    def _revive(self, revival: Revival, z: Float[Tensor, "n dim"], mask: Bool[Tensor, "n"]) -> None:
        vectors, usage = self.vectors.detach(), self.average_usage()
        idle = self.idle if revival.needs_idle else torch.zeros_like(usage, dtype=torch.int64)
        revived = revival.revive(vectors, usage, z.to(vectors.dtype), mask, idle)
        if revival.needs_idle:
            self.idle.masked_fill_(revived.is_moved, 0)
        self.set_codes(*revived)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        super()._load_from_state_dict(state_dict, prefix, *rest)
        if (saved := state_dict.get(f"{prefix}initialised")) is not None:
            self._awaits_data = not bool(saved)


def step_size(step: float, counts: Float[Tensor, "size"]) -> Float[Tensor, ""]:
    """Returns `step`, or 0 if no vector was counted, so that empty batches change no average.

    The result is a tensor, because reading the counts would wait for the device.
    """
    return step * (counts.sum() > 0).to(counts.dtype)
