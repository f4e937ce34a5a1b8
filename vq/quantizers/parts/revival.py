"""What becomes of codes that are (almost) never chosen."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from vq.distributed import all_reduce_sum, rank, world_size
from vq.registry import QUANTIZER_PARTS


class Revived(NamedTuple):
    """A codebook after a revival.

    Attributes:
        vectors: The codes, moved or not.
        usage: What their usage counts as from now on.
        is_moved: Which codes have moved.
    """

    vectors: Float[Tensor, "size dim"]
    usage: Float[Tensor, "size"]
    is_moved: Bool[Tensor, "size"]


class Revival(ABC):
    """Moves codes that are hardly used to where the vectors are.

    A codebook calls it at the beginning of a training forward, before the search, so a moved code can be
    chosen at once, and nothing changes between a forward and its backward. The result must be the same on
    every rank, and must not wait for the device.
    """

    needs_idle: ClassVar[bool] = False
    """Whether the codebook keeps a buffer `idle`, which `revive` then gets."""

    @abstractmethod
    def revive(
        self,
        vectors: Float[Tensor, "size dim"],
        usage: Float[Tensor, "size"],
        z: Float[Tensor, "n dim"],
        mask: Bool[Tensor, "n"],
        idle: Int[Tensor, "size"],
    ) -> Revived:
        """Moves codes.

        Args:
            vectors: The codes.
            usage: How many vectors (of all ranks) choose each code in a step: an exponential average.
            z: This rank's vectors, as many as it has.
            mask: Which of them may be used.
            idle: For how many steps in a row no vector of any rank has chosen each code; 0 if this class
                does not need it.
        """


@QUANTIZER_PARTS.register_module()
@dataclass(frozen=True, kw_only=True)
class ReplaceDeadCodes(Revival):
    """Puts every dead code on a random vector of the batches of all ranks.

    Source: Zeghidour et al. 2021 (SoundStream), https://arxiv.org/abs/2107.03312, section III-C.
    Differs from the source: dead is relative to the mean usage, not below 2 vectors a step, so it means
    the same for every batch size, codebook size and number of ranks.

    Args:
        threshold: The fraction of the mean usage below which a code is dead, in (0, 1). A replaced code
            counts as used that often, so it is replaced again in the next step unless it is chosen.

    Raises:
        ValueError: If the threshold is not in (0, 1).
    """

    threshold: float = 0.1

    def __post_init__(self) -> None:
        if not 0 < self.threshold < 1:
            raise ValueError(
                f"ReplaceDeadCodes: expected a threshold in (0, 1), a fraction of the mean usage, "
                f"got {self.threshold}"
            )

    def revive(
        self,
        vectors: Float[Tensor, "size dim"],
        usage: Float[Tensor, "size"],
        z: Float[Tensor, "n dim"],
        mask: Bool[Tensor, "n"],
        idle: Int[Tensor, "size"],
    ) -> Revived:
        """Replaces the dead codes, or none if no rank has a vector."""
        floor = self.threshold * usage.mean()
        return _replace(vectors, usage, z, mask, is_dead=usage < floor, new_usage=floor)


@QUANTIZER_PARTS.register_module()
@dataclass(frozen=True, kw_only=True)
class ReplaceRareCodes(Revival):
    """Puts every code that too few vectors choose on a random vector of the batches of all ranks.

    Source: Zeghidour et al. 2021 (SoundStream), https://arxiv.org/abs/2107.03312, section III-C, where the
        threshold is 2; Lee et al. 2022 (RQ-VAE), https://arxiv.org/abs/2203.01941, use 1.

    The number means another thing at another batch or codebook size: `ReplaceDeadCodes` does not have to be
    set anew. Averages begin at 1 (or with the clusters of k-means), so a threshold above 1 replaces, in the
    first steps, every code that is not chosen at once.

    Args:
        threshold: How many vectors, of all ranks and in an average step, a code needs to be kept. A replaced
            code counts as used that often.

    Raises:
        ValueError: If the threshold is not positive.
    """

    threshold: float = 0.5

    def __post_init__(self) -> None:
        if self.threshold <= 0:
            raise ValueError(
                f"ReplaceRareCodes: expected a positive threshold, in vectors a step, got {self.threshold}"
            )

    def revive(
        self,
        vectors: Float[Tensor, "size dim"],
        usage: Float[Tensor, "size"],
        z: Float[Tensor, "n dim"],
        mask: Bool[Tensor, "n"],
        idle: Int[Tensor, "size"],
    ) -> Revived:
        """Replaces the rare codes, or none if no rank has a vector."""
        floor = torch.full_like(usage[0], self.threshold)
        return _replace(vectors, usage, z, mask, is_dead=usage < floor, new_usage=floor)


@QUANTIZER_PARTS.register_module()
@dataclass(frozen=True, kw_only=True)
class ReplaceUnusedCodes(Revival):
    """Puts every code that nobody has chosen for some steps on a random vector of the batches of all ranks.

    A single vector keeps a code alive, however large the batch. The codebook counts the steps in its buffer
    `idle`, which a checkpoint keeps.

    Source: the published implementation of Huh et al. 2023 (vqtorch), https://arxiv.org/abs/2305.08842.
    Differs from the source: no noise is added to the vector; it is drawn from all ranks.

    Args:
        patience: After how many steps in a row without a vector a code is replaced.

    Raises:
        ValueError: If the patience is below 1.
    """

    needs_idle: ClassVar[bool] = True
    patience: int = 20

    def __post_init__(self) -> None:
        if self.patience < 1:
            raise ValueError(
                f"ReplaceUnusedCodes: expected a patience of at least 1 step, got {self.patience}"
            )

    def revive(
        self,
        vectors: Float[Tensor, "size dim"],
        usage: Float[Tensor, "size"],
        z: Float[Tensor, "n dim"],
        mask: Bool[Tensor, "n"],
        idle: Int[Tensor, "size"],
    ) -> Revived:
        """Replaces the codes that have waited too long, or none if no rank has a vector."""
        # A moved code weighs what it weighed at the beginning, so its average follows its vectors at once.
        one = torch.ones_like(usage[0])
        return _replace(vectors, usage, z, mask, is_dead=idle >= self.patience, new_usage=one)


def _replace(
    vectors: Float[Tensor, "size dim"],
    usage: Float[Tensor, "size"],
    z: Float[Tensor, "n dim"],
    mask: Bool[Tensor, "n"],
    *,
    is_dead: Bool[Tensor, "size"],
    new_usage: Float[Tensor, ""],
) -> Revived:
    """Puts the dead codes on random vectors, or none if no rank has a vector."""
    drawn, there_are_any = draw_from_all_ranks(z, mask, len(vectors))
    is_moved = is_dead & there_are_any
    return Revived(
        vectors=torch.where(is_moved[:, None], drawn.to(vectors.dtype), vectors),
        usage=torch.where(is_moved, new_usage, usage),
        is_moved=is_moved,
    )


def draw_from_all_ranks(
    z: Float[Tensor, "n dim"], mask: Bool[Tensor, "n"], count: int
) -> tuple[Float[Tensor, "count dim"], Bool[Tensor, ""]]:
    """Draws vectors, with replacement, uniformly from those of all ranks together.

    The draw is a position in the concatenation of all ranks' vectors, made on rank 0: the result is the
    same on every rank, and the same however the vectors are divided among ranks. Nothing waits for the
    device: shapes do not depend on the number of vectors.

    Args:
        z: This rank's vectors, possibly none.
        mask: Which of them can be drawn.
        count: How many to draw.

    Returns:
        The vectors, 0 if there are none at all; and whether there are any.
    """
    # Row 0 of `messages` is the draw of rank 0, then one row for each rank's number of vectors; double,
    # for a position in millions of vectors.
    uniform = torch.rand(count, device=z.device).double()
    lengths = torch.zeros(world_size(), dtype=torch.float64, device=z.device)
    lengths[rank()] = mask.sum()
    message = all_reduce_sum(torch.cat([uniform if rank() == 0 else torch.zeros_like(uniform), lengths]))
    uniform, lengths = message[:count], message[count:]

    position = (uniform * lengths.sum()).long() - lengths[: rank()].sum().long()
    is_here = (position >= 0) & (position < mask.sum())
    if len(z):
        # The row of the (position + 1)-th vector that can be drawn.
        row = torch.searchsorted(mask.cumsum(0), position + 1).clamp(0, len(z) - 1)
        own = torch.where(is_here[:, None], z[row], 0.0)
    else:
        own = z.new_zeros(count, z.shape[1])
    return all_reduce_sum(own), lengths.sum() > 0
