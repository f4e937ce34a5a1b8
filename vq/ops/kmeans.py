"""k-means on one machine: seeding, then Lloyd steps, both in tiles of codes."""

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from vq.ops.distance import common_centre, nearest_code
from vq.ops.numerics.reductions import count_and_sum, split_counts

Seeding = Literal["k-means++", "random"]

# Copies of a vector must differ a little; of equal codes only the one with the lowest index would ever be chosen.
COPY_NOISE = 0.01


def k_means(
    vectors: Float[Tensor, "n dim"],
    size: int,
    *,
    steps: int = 10,
    seeding: Seeding = "k-means++",
    generator: torch.Generator | None = None,
) -> tuple[Float[Tensor, "size dim"], Float[Tensor, "size"]]:
    """Clusters vectors; returns the centres, and the number of vectors nearest to each.

    If there are no more vectors than centres, every vector is a centre, and the others are copies of randomly
    drawn vectors plus Gaussian noise of 1 % of each channel's standard deviation. A cluster that loses
    all its vectors keeps its centre.

    Source: Lloyd 1982; seeds by Arthur and Vassilvitskii 2007 ("k-means++").
    Differs from the source: the number of steps is fixed; there is no test for convergence.

    Args:
        vectors: Finite vectors; at least one.
        size: Number of centres.
        steps: Number of Lloyd steps after the seeding.
        seeding: `"k-means++"` draws each seed with a probability proportional to its squared distance from the
            nearest seed before it; `"random"` draws different vectors.
        generator: CPU generator; None is the default one.
    """
    if len(vectors) <= size:
        centres = _copy_up(vectors, size, generator)
    elif seeding == "random":
        centres = vectors[torch.randperm(len(vectors), generator=generator)[:size].to(vectors.device)]
    else:
        centres = vectors[_far_apart(vectors, size, generator)]
    everything = torch.ones(len(vectors), dtype=torch.bool, device=vectors.device)
    origin = common_centre(vectors)  # sums relative to it lose fewer digits if the vectors are far from 0
    for _ in range(steps if len(vectors) > size else 0):
        indices = nearest_code(vectors, centres)
        counts, sums = split_counts(count_and_sum(vectors - origin, indices, everything, size), size)
        centres = torch.where(counts[:, None] > 0, origin + sums / counts[:, None].clamp_min(1), centres)
    indices = nearest_code(vectors, centres)
    return centres, split_counts(count_and_sum(vectors[:, :0], indices, everything, size), size)[0]


def _copy_up(
    vectors: Float[Tensor, "n dim"], size: int, generator: torch.Generator | None
) -> Float[Tensor, "size dim"]:
    missing = size - len(vectors)
    drawn = torch.randint(len(vectors), (missing,), generator=generator).to(vectors.device)
    noise = torch.randn(missing, vectors.shape[1], generator=generator).to(vectors)
    spread = vectors.std(dim=0, correction=0)
    return torch.cat([vectors, vectors[drawn] + COPY_NOISE * spread * noise])


def _far_apart(
    vectors: Float[Tensor, "n dim"], size: int, generator: torch.Generator | None
) -> Int[Tensor, "size"]:
    """Draws the rows of k-means++ seeds."""
    draws = torch.rand(size, generator=generator).to(vectors)
    first = (draws[0] * len(vectors)).long().clamp_max(len(vectors) - 1)
    chosen = first.new_empty(size)
    chosen[0] = first
    distance = (vectors - vectors[first]).square().sum(dim=1)
    for k in range(1, size):
        cumulative = distance.double().cumsum(0)
        total = cumulative[-1]
        # If every vector equals a seed (there are duplicates), draw from all vectors.
        by_distance = torch.searchsorted(cumulative, draws[k] * total, right=True)
        anyone = (draws[k] * len(vectors)).long()
        chosen[k] = torch.where(total > 0, by_distance, anyone).clamp_max(len(vectors) - 1)
        distance = torch.minimum(distance, (vectors - vectors[chosen[k]]).square().sum(dim=1))
    return chosen
