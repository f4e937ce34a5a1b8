"""How code vectors are kept, and how they learn."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from vq.distributed import all_reduce_sum
from vq.ops.gradients import replace_value
from vq.ops.numerics.reductions import count_and_sum, mean_square, split_counts
from vq.quantizers.learning import Part
from vq.quantizers.parts.initialization import Initialization, KMeansInit, NormalInit, UniformInit
from vq.quantizers.parts.revival import Revival
from vq.registry import CODEBOOKS


class Codebook(Part, ABC):
    """A finite set of code vectors that learns.

    A quantizer calls `prepare`, then searches among `codes`, then calls `update`, and adds `loss` to its
    own. What is learnt by statistics is reduced over all ranks; what is learnt by gradient is the
    optimizer's, and DistributedDataParallel's.

    In a quantizer's forward only the first `prepare` begins or revives codes, and what `update` is shown is
    learnt at the end, all at once. Called by themselves both act at once.

    Args:
        size: The number of codes.
        dim: The length of each.
        init: Where they begin.
        revival: What happens to unused codes; None leaves them alone.

    Raises:
        ValueError: If size or dim is not positive.
    """

    has_state = True
    collected: ClassVar[tuple[str, ...]] = ("_pending",)
    """The attributes that hold what micro-batches have collected."""
    initialised: Tensor
    idle: Tensor

    def __init__(self, *, size: int, dim: int, init: Initialization, revival: Revival | None) -> None:
        super().__init__()
        if size < 1 or dim < 1:
            raise ValueError(f"{type(self).__name__}: expected positive size and dim, got {size} and {dim}")
        self.size, self.dim = size, dim
        self.init, self.revival = init, revival
        # The tensor is what a checkpoint keeps, the bool is what forward may ask without waiting for the
        # device. uint8, because not every back end reduces or broadcasts bool.
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
        """The codes as they are now."""

    @property
    def learns_by_gradient(self) -> bool:
        """Whether a gradient that reaches the codes moves something."""
        with torch.enable_grad():
            return self.vectors.requires_grad

    @property
    def codes(self) -> Float[Tensor, "size dim"]:
        """The codes to search: `vectors` or, in a recomputation, their values in the forward that it repeats."""
        return self.vectors if self._first_codes is None else replace_value(self.vectors, self._first_codes)

    @abstractmethod
    def loss(
        self,
        z: Float[Tensor, "n dim"],
        code: Float[Tensor, "n dim"],
        mask: Bool[Tensor, "n"] | None = None,
    ) -> Float[Tensor, ""]:
        """The objective that moves the codes by gradient; 0 where they learn otherwise.

        Args:
            z: The vectors.
            code: The code selected for each, with its gradient.
            mask: Which vectors count; None is all.
        """

    @classmethod
    @abstractmethod
    def example(cls) -> "Codebook":
        """A small one, on which the contract tests run."""

    @torch.no_grad()
    def prepare(self, z: Float[Tensor, "n dim"], mask: Bool[Tensor, "n"]) -> None:
        """Before the search of a training forward: initialises once from data, then revives dead codes.

        Inside a window of accumulated micro-batches only the first one revives, from its own vectors: codes that
        moved would make the micro-batches differ from one large batch.
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
        """Starts from these codes, instead of where `init` would have put them.

        Args:
            vectors: The codes, the same on every rank.
            usage: How many vectors of all ranks choose each in a step.
        """
        # A code nobody is near to still needs a weight: vectors are sums divided by usage.
        self._place(vectors, usage.clamp_min(1), torch.ones_like(usage, dtype=torch.bool))
        if self.revival is not None and self.revival.needs_idle:
            self.idle.zero_()
        self.initialised.fill_(1)
        self._awaits_data = False

    @torch.no_grad()
    def update(self, z: Float[Tensor, "n dim"], indices: Int[Tensor, "n"], mask: Bool[Tensor, "n"]) -> None:
        """After the search of a training forward: learns from which vectors chose which code.

        Inside `accumulate` it only adds to what the next update outside will learn.

        Args:
            z: This rank's vectors.
            indices: The code of each.
            mask: Which vectors count.
        """
        if self.event is None:
            self._collect(z, indices, mask)
            self._learn_unless_accumulating()
        elif not self.event.is_replay:
            # The vectors themselves, which the backward keeps anyway: sums for every codebook would cost more.
            self._calls.append((z.detach(), indices, mask))

    def _collect(self, z: Float[Tensor, "n dim"], indices: Int[Tensor, "n"], mask: Bool[Tensor, "n"]) -> None:
        """Adds these vectors to what will be learnt."""
        statistics = self._statistics(z, indices, mask)
        if statistics is not None:
            self._pending = statistics if self._pending is None else statistics + self._pending

    def _learn_unless_accumulating(self) -> None:
        if self.is_accumulating or self._pending is None:
            return
        # The name is used again on purpose: with many codes each of these tensors is large.
        statistics, self._pending = self._pending, None
        statistics = all_reduce_sum(statistics)
        counts, sums = split_counts(statistics, self.size)
        if self.revival is not None and self.revival.needs_idle:
            # A step without any vector is none.
            self.idle.copy_(torch.where(counts > 0, 0, self.idle + (counts.sum() > 0)))
        self._learn(counts, sums)

    @torch.no_grad()
    def _commit(self) -> None:
        calls, self._calls = self._calls, []
        for z, indices, mask in calls:
            self._collect(z, indices, mask)
        if calls:
            self._learn_unless_accumulating()

    def _remember(self) -> None:
        """Keeps the state until the end of a forward that may fail."""
        if self.event is not None and not torch.compiler.is_compiling():
            self._before = [tensor.detach().clone() for tensor in self._tensors()]

    @torch.no_grad()
    def _undo(self) -> None:
        if self._before is None:
            return
        for tensor, before in zip(self._tensors(), self._before, strict=True):
            tensor.copy_(before)
        self._awaits_data = not bool(self.initialised)

    def _tensors(self) -> list[Tensor]:
        return [*self.parameters(), *self.buffers()]

    def _close(self) -> None:
        super()._close()
        self._is_prepared, self._calls, self._before, self._first_codes = False, [], None, None

    def _searched(self) -> Tensor | None:
        return self.vectors.detach().clone()

    def _search_again(self, codes: Tensor | None) -> None:
        self._first_codes = codes

    def _revive(self, revival: Revival, z: Float[Tensor, "n dim"], mask: Bool[Tensor, "n"]) -> None:
        vectors, usage = self.vectors.detach(), self._usage()
        idle = self.idle if revival.needs_idle else torch.zeros_like(usage, dtype=torch.int64)
        revived = revival.revive(vectors, usage, z.to(vectors.dtype), mask, idle)
        if revival.needs_idle:
            self.idle.masked_fill_(revived.is_moved, 0)
        self._place(*revived)

    def _statistics(
        self, z: Float[Tensor, "n dim"], indices: Int[Tensor, "n"], mask: Bool[Tensor, "n"]
    ) -> Tensor | None:
        """What `_learn` needs of this rank's batch; None if nothing."""
        return None

    def _learn(self, counts: Float[Tensor, "size"], sums: Float[Tensor, "size dim_or_0"]) -> None:
        """Changes state by the sums over all ranks and micro-batches of one optimizer step."""

    def _usage(self) -> Float[Tensor, "size"]:
        """The average number of vectors that choose each code in a step."""
        raise NotImplementedError(f"{type(self).__name__} does not count usage and cannot revive codes")

    def _place(
        self,
        vectors: Float[Tensor, "size dim"],
        usage: Float[Tensor, "size"],
        is_moved: Bool[Tensor, "size"],
    ) -> None:
        """Sets vectors and usage from outside, with all state that goes with them."""
        raise NotImplementedError(f"{type(self).__name__} cannot be set from outside")

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        super()._load_from_state_dict(state_dict, prefix, *rest)
        if (saved := state_dict.get(f"{prefix}initialised")) is not None:
            self._awaits_data = not bool(saved)


@CODEBOOKS.register_module()
class LearnedCodebook(Codebook):
    """Keeps codes as a parameter that the optimizer moves towards the vectors that chose them.

    Source: van den Oord et al. 2017 (VQ-VAE), https://arxiv.org/abs/1711.00937, second term of eq. 3.

    A revival or k-means writes into the parameter at the beginning of a forward. The optimizer is not told:
    Adam's moments of a moved code stay, and fade as the code was not used.

    Args:
        size: The number of codes.
        dim: The length of each.
        init: Where they begin.
        revival: What happens to unused codes; None leaves them alone.
        usage_decay: With a revival, how much of the average usage stays in each step; None is 0.99.

    Raises:
        ValueError: If there is a usage_decay but no revival, which alone needs the usage.
    """

    usage: Tensor

    def __init__(
        self,
        *,
        size: int,
        dim: int,
        init: Initialization | None = None,
        revival: Revival | None = None,
        usage_decay: float | None = None,
    ) -> None:
        super().__init__(size=size, dim=dim, init=init or UniformInit(), revival=revival)
        if usage_decay is not None and revival is None:
            raise ValueError(
                f"LearnedCodebook: expected no usage_decay without a revival, got {usage_decay}, which has no effect; "
                f"leave it out, or add a revival"
            )
        self.usage_decay = 0.99 if usage_decay is None else usage_decay
        self.weight = nn.Parameter(self.init.draw(size, dim))
        if revival is not None:
            self.register_buffer("usage", torch.ones(size))

    @classmethod
    def example(cls) -> "LearnedCodebook":
        """Sixteen codes of length 4."""
        return cls(size=16, dim=4, init=NormalInit())

    @property
    def vectors(self) -> Float[Tensor, "size dim"]:
        """The parameter; where there will be a backward and a revival may move codes before it, a copy."""
        is_moved = self.revival is not None and self.training and torch.is_grad_enabled()
        return self.weight.clone() if is_moved else self.weight

    def loss(
        self,
        z: Float[Tensor, "n dim"],
        code: Float[Tensor, "n dim"],
        mask: Bool[Tensor, "n"] | None = None,
    ) -> Float[Tensor, ""]:
        """The mean squared difference, with a gradient to the codes only."""
        return mean_square(code, z.detach(), mask)

    def _statistics(
        self, z: Float[Tensor, "n dim"], indices: Int[Tensor, "n"], mask: Bool[Tensor, "n"]
    ) -> Tensor | None:
        if self.revival is None:
            return None
        return count_and_sum(z[:, :0].to(self.usage.dtype), indices, mask, self.size)

    def _learn(self, counts: Float[Tensor, "size"], sums: Float[Tensor, "size dim_or_0"]) -> None:
        self.usage.lerp_(counts, _step_size(1 - self.usage_decay, counts))

    def _searched(self) -> Tensor | None:
        return None if self.revival is None else super()._searched()

    def _usage(self) -> Float[Tensor, "size"]:
        return self.usage

    def _place(
        self,
        vectors: Float[Tensor, "size dim"],
        usage: Float[Tensor, "size"],
        is_moved: Bool[Tensor, "size"],
    ) -> None:
        self.weight.copy_(vectors)
        if self.revival is not None:
            self.usage.copy_(usage)


@CODEBOOKS.register_module()
class EMACodebook(Codebook):
    r"""Keeps each code as the exponential moving average of the vectors that chose it.

    With the counts $c_k$ and the sums $s_k$ of a step, over all ranks:
    $n_k \leftarrow g n_k + (1 - g) c_k$, $m_k \leftarrow g m_k + (1 - g) s_k$,
    $e_k = m_k / \tilde n_k$ with $\tilde n_k = \frac{n_k + \epsilon}{N + K \epsilon} N$, $N = \sum_k n_k$.

    Source: van den Oord et al. 2017 (VQ-VAE), https://arxiv.org/abs/1711.00937, eq. 6 to 8 (appendix A.1);
        the smoothing of the counts is that of its published implementation.
    Differs from the source: the averages begin at n = 1 and m = e, or with the clusters of k-means, not at
        0, which would throw unused codes far away in the first step. A step without any vector is none.

    Keep the module in float32 and use autocast: averages lose counts in half precision.

    Args:
        size: The number of codes.
        dim: The length of each.
        decay: g, how much stays in each step, in [0, 1).
        eps: The smoothing of the counts.
        init: Where the codes begin.
        revival: What happens to unused codes; None leaves them alone.

    Raises:
        ValueError: If the decay is not in [0, 1).
    """

    weight: Tensor
    usage: Tensor
    sums: Tensor

    def __init__(
        self,
        *,
        size: int,
        dim: int,
        decay: float = 0.99,
        eps: float = 1e-5,
        init: Initialization | None = None,
        revival: Revival | None = None,
    ) -> None:
        super().__init__(size=size, dim=dim, init=init or KMeansInit(), revival=revival)
        if not 0 <= decay < 1:
            raise ValueError(f"EMACodebook: expected a decay in [0, 1), got {decay}")
        self.decay, self.eps = decay, eps
        # Buffers, not parameters: they have no gradient, and DistributedDataParallel broadcasts them.
        self.register_buffer("weight", self.init.draw(size, dim))
        self.register_buffer("usage", torch.ones(size))
        self.register_buffer("sums", self.weight.clone())

    @classmethod
    def example(cls) -> "EMACodebook":
        """Sixteen codes of length 4, from random vectors."""
        return cls(size=16, dim=4, init=NormalInit())

    @property
    def vectors(self) -> Float[Tensor, "size dim"]:
        """The averages."""
        return self.weight

    def loss(
        self,
        z: Float[Tensor, "n dim"],
        code: Float[Tensor, "n dim"],
        mask: Bool[Tensor, "n"] | None = None,
    ) -> Float[Tensor, ""]:
        """Zero: the codes learn in `update`."""
        return z.new_zeros(())

    def _statistics(
        self, z: Float[Tensor, "n dim"], indices: Int[Tensor, "n"], mask: Bool[Tensor, "n"]
    ) -> Tensor | None:
        return count_and_sum(z.to(self.sums.dtype), indices, mask, self.size)

    def _learn(self, counts: Float[Tensor, "size"], sums: Float[Tensor, "size dim_or_0"]) -> None:
        step = _step_size(1 - self.decay, counts)
        self.usage.lerp_(counts, step)
        self.sums.lerp_(sums, step)
        total = self.usage.sum()
        smoothed = (self.usage + self.eps) / (total + self.size * self.eps) * total
        # lerp by exactly 1, or by 0 in a step without vectors, which must not even change a rounding.
        means = torch.div(self.sums, smoothed[:, None], out=sums)  # the step's sums are not needed any more
        self.weight.lerp_(means, (step > 0).to(self.weight.dtype))

    def _usage(self) -> Float[Tensor, "size"]:
        return self.usage

    def _place(
        self,
        vectors: Float[Tensor, "size dim"],
        usage: Float[Tensor, "size"],
        is_moved: Bool[Tensor, "size"],
    ) -> None:
        # Without its sum a moved code would jump back in the next update.
        self.sums.copy_(torch.where(is_moved[:, None], vectors * usage[:, None], self.sums))
        self.weight.copy_(vectors)
        self.usage.copy_(usage)


@contextmanager
def accumulate(module: nn.Module) -> Iterator[None]:
    """Inside, training forwards of the codebooks below `module` only collect; the next one outside learns.

    With every micro-batch of an optimizer step but the last inside, the codebooks learn once and as from
    one large batch. It is the counterpart of `DistributedDataParallel.no_sync`. What is collected is not
    part of the `state_dict`: save between optimizer steps. Where the block raises, what it has collected is
    dropped. K-means and revival take their vectors from the first micro-batch.

    Example:
        >>> from vq.quantizers import EMACodebook, VectorQuantizer
        >>> quantizer = VectorQuantizer(codebook=EMACodebook(size=8, dim=2))
        >>> with accumulate(quantizer):
        ...     _ = quantizer(torch.randn(16, 2))
        >>> _ = quantizer(torch.randn(16, 2))
    """
    books = [book for book in module.modules() if isinstance(book, Codebook)]
    before = [(book.is_accumulating, [getattr(book, name) for name in book.collected]) for book in books]
    is_done = False
    try:
        for book in books:
            book.is_accumulating = True
        yield
        is_done = True
    finally:
        for book, (was_accumulating, collected) in zip(books, before, strict=True):
            book.is_accumulating = was_accumulating
            if not is_done:
                for name, value in zip(book.collected, collected, strict=True):
                    setattr(book, name, value)


def _step_size(step: float, counts: Float[Tensor, "size"]) -> Float[Tensor, ""]:
    """`step`, or 0 if there was no vector at all: as a tensor, because asking would wait for the device."""
    return step * (counts.sum() > 0).to(counts.dtype)
