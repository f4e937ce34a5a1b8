"""Revival: how codes that are hardly ever chosen are replaced."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from vq.distributed import all_reduce_sum, rank, world_size
from vq.registry import QUANTIZER_PARTS


class Revived(NamedTuple):
    """Holds a codebook after a revival.

    Attributes:
        vectors: All codes, moved or not.
        usage: New average usage of each code.
        is_moved: True for the codes that were replaced.
    """

    vectors: Float[Tensor, "size dim"]
    usage: Float[Tensor, "size"]
    is_moved: Bool[Tensor, "size"]


class Revival(ABC):
    """Moves codes that are hardly used to where the vectors are.

    A codebook calls `revive` at the beginning of a training forward, before the search: a moved code can be chosen at
    once, and codes do not change between a forward and its backward. The result must be the same on every rank, and
    computing it must not wait for the device.
    """

    needs_idle: ClassVar[bool] = False
    """Whether the codebook must count for how many steps each code was not chosen, and pass the counts to `revive`."""

    @abstractmethod
    def revive(
        self,
        vectors: Float[Tensor, "size dim"],
        usage: Float[Tensor, "size"],
        z: Float[Tensor, "n dim"],
        mask: Bool[Tensor, "n"],
        idle: Int[Tensor, "size"],
    ) -> Revived:
        """Replaces some of the codes.

        Args:
            vectors: Codes.
            usage: Exponential average of how many vectors of all ranks choose each code in a step.
            z: This rank's vectors; their number may differ between ranks.
            mask: True for the vectors that may be used.
            idle: Number of consecutive steps in which no vector of any rank chose each code; zeros unless
                `needs_idle` is set.
        """


@QUANTIZER_PARTS.register_module()
@dataclass(frozen=True, kw_only=True)
class ReplaceDeadCodes(Revival):
    """Replaces every dead code by a random vector of the batches of all ranks.

    Source: Zeghidour et al. 2021 (SoundStream), https://arxiv.org/abs/2107.03312, section III-C.
    Differs from the source: a code is dead relative to the mean usage, not below 2 vectors per step, so that the
        threshold has the same meaning for every batch size, codebook size and number of ranks.

    Args:
        threshold: Fraction of the mean usage below which a code is dead, in (0, 1). A replaced code gets this usage,
            so that it is replaced again in the next step unless it is chosen.

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
        """Replaces the dead codes, unless no rank has a vector."""
        least = self.threshold * usage.mean()
        return _replace(vectors, usage, z, mask, is_dead=usage < least, new_usage=least)


@QUANTIZER_PARTS.register_module()
@dataclass(frozen=True, kw_only=True)
class ReplaceRareCodes(Revival):
    """Replaces every code that too few vectors choose by a random vector of the batches of all ranks.

    The threshold depends on the batch size and the codebook size; that of `ReplaceDeadCodes` does not. Averages
    begin at 1 (or with the clusters of k-means), so a threshold above 1 replaces, in the first steps, every code
    that is not chosen at once.

    Source: Zeghidour et al. 2021 (SoundStream), https://arxiv.org/abs/2107.03312, section III-C, where the
        threshold is 2; Lee et al. 2022 (RQ-VAE), https://arxiv.org/abs/2203.01941, use 1.

    Args:
        threshold: Number of vectors of all ranks in an average step below which a code is replaced. A replaced code
            gets this usage.

    Raises:
        ValueError: If the threshold is not positive.
    """

    threshold: float = 0.5

    def __post_init__(self) -> None:
        if self.threshold <= 0:
            raise ValueError(
                f"ReplaceRareCodes: expected a positive threshold, in vectors per step, got {self.threshold}"
            )

    def revive(
        self,
        vectors: Float[Tensor, "size dim"],
        usage: Float[Tensor, "size"],
        z: Float[Tensor, "n dim"],
        mask: Bool[Tensor, "n"],
        idle: Int[Tensor, "size"],
    ) -> Revived:
        """Replaces the rare codes, unless no rank has a vector."""
        least = torch.full_like(usage[0], self.threshold)
        return _replace(vectors, usage, z, mask, is_dead=usage < least, new_usage=least)


@QUANTIZER_PARTS.register_module()
@dataclass(frozen=True, kw_only=True)
class ReplaceUnusedCodes(Revival):
    """Replaces every code that no vector has chosen for some steps by a random vector of the batches of all ranks.

    A single vector keeps a code alive, however large the batch. The codebook counts the steps in its buffer
    `idle`, which is part of checkpoints.

    Source: the published implementation of Huh et al. 2023 (vqtorch), https://arxiv.org/abs/2305.08842.
    Differs from the source: no noise is added to the vector, and it is drawn from the vectors of all ranks.

    Args:
        patience: Number of consecutive steps without any vector after which a code is replaced.

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
        """Replaces the codes that were unused for `patience` steps, unless no rank has a vector."""
        # A moved code gets the initial usage of 1, so that its average follows its vectors at once.
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
    """Replaces the dead codes by random vectors, unless no rank has a vector."""
    drawn, has_vectors = draw_from_all_ranks(z, mask, len(vectors))
    is_moved = is_dead & has_vectors
    return Revived(
        vectors=torch.where(is_moved[:, None], drawn.to(vectors.dtype), vectors),
        usage=torch.where(is_moved, new_usage, usage),
        is_moved=is_moved,
    )


def draw_from_all_ranks(
    z: Float[Tensor, "n dim"], mask: Bool[Tensor, "n"], count: int
) -> tuple[Float[Tensor, "count dim"], Bool[Tensor, ""]]:
    """Draws vectors uniformly, with replacement, from those of all ranks together.

    Rank 0 draws positions in the concatenation of all ranks' vectors. So the result is the same on every rank, and
    does not depend on how the vectors are divided among ranks. Nothing waits for the device, because no shape
    depends on the number of vectors.

    Args:
        z: This rank's vectors; may be empty.
        mask: True for the vectors that can be drawn.
        count: Number of draws.

    Returns:
        The drawn vectors, 0 if no rank has any; and whether some rank has a vector.
    """
    # The message holds the draws of rank 0, then the number of vectors of each rank; in double precision, because
    # positions may go into the millions.
    uniform = torch.rand(count, device=z.device).double()
    lengths = torch.zeros(world_size(), dtype=torch.float64, device=z.device)
    lengths[rank()] = mask.sum()
    message = all_reduce_sum(torch.cat([uniform if rank() == 0 else torch.zeros_like(uniform), lengths]))
    uniform, lengths = message[:count], message[count:]

    position = (uniform * lengths.sum()).long() - lengths[: rank()].sum().long()
    is_here = (position >= 0) & (position < mask.sum())
    if len(z):
        # The row of the (position + 1)-th vector that the mask allows.
        row = torch.searchsorted(mask.cumsum(0), position + 1).clamp(0, len(z) - 1)
        own = torch.where(is_here[:, None], z[row], 0.0)
    else:
        own = z.new_zeros(count, z.shape[1])
    return all_reduce_sum(own), lengths.sum() > 0
