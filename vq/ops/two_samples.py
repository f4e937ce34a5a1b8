"""Comparisons of two sets of feature vectors, and the inception score of one: pure functions, in float64."""

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

_ROWS = 1024  # rows of a table of distances that are computed at a time


def kernel_distance(
    features_a: Float[Tensor, "a dim"], features_b: Float[Tensor, "b dim"]
) -> Float64[Tensor, ""]:
    """Computes the unbiased squared distance of two sets' mean embeddings (KID); around 0, also below, for equal sets.

    The kernel is (x . y / dim + 1)^3; pairs of a vector with itself are left out.

    Source: Binkowski et al. 2018, https://arxiv.org/abs/1801.01401, section 4.

    Args:
        features_a: At least two vectors.
        features_b: At least two vectors.

    Example:
        >>> x = torch.tensor([[1.0], [0.0]])
        >>> kernel_distance(x, x).item()
        -3.5
    """
    a, b = features_a.double(), features_b.double()
    return _mean_over_pairs(a) + _mean_over_pairs(b) - 2 * _kernel(a, b).mean()


def kernel_distances(
    features_a: Float[Tensor, "a dim"],
    features_b: Float[Tensor, "b dim"],
    *,
    num_subsets: int,
    subset_size: int,
    seed: int,
) -> Float64[Tensor, "num_subsets"]:
    """Computes `kernel_distance` of random subsets, which are drawn as torch-fidelity draws them from the same seed.

    Args:
        features_a: At least `subset_size` vectors; their order determines the subsets.
        features_b: At least `subset_size` vectors.
        num_subsets: Number of pairs of subsets.
        subset_size: Number of vectors that are drawn from each set, without repetition.
        seed: Seed of the draws.
    """
    draws = np.random.RandomState(seed)
    found = []
    for _ in range(num_subsets):
        a, b = (
            torch.from_numpy(draws.choice(len(features), subset_size, replace=False)).to(features.device)
            for features in (features_a, features_b)
        )
        found.append(kernel_distance(features_a[a], features_b[b]))
    return torch.stack(found)


def precision_and_recall(
    generated: Float[Tensor, "a dim"], real: Float[Tensor, "b dim"], *, neighbours: int = 3
) -> tuple[Float64[Tensor, ""], Float64[Tensor, ""]]:
    """Computes the fractions of `generated` among the real vectors and of `real` among the generated ones, in [0, 1].

    A vector is among a set if it is in the ball of some member, whose radius is the distance to the member's
    `neighbours`-th nearest other member.

    Source: Kynkäänniemi et al. 2019, https://arxiv.org/abs/1904.06991, eqs. 1 and 2.

    Args:
        generated: More than `neighbours` vectors.
        real: More than `neighbours` vectors.
        neighbours: Number k of the paper.

    Returns:
        Precision and recall.

    Example:
        >>> real = torch.arange(5.0)[:, None]
        >>> [x.item() for x in precision_and_recall(real / 100, real, neighbours=1)]
        [1.0, 0.2]
    """
    # Only differences matter; relative to a common centre their squares lose fewer digits.
    centre = real.double().mean(dim=0)
    generated, real = generated.double() - centre, real.double() - centre
    return _covered(generated, real, neighbours), _covered(real, generated, neighbours)


def inception_score(logits: Float[Tensor, "n classes"]) -> Float64[Tensor, ""]:
    """Computes the exponential of the mean divergence of class distributions from their mean, in [1, classes].

    Source: Salimans et al. 2016, https://arxiv.org/abs/1606.03498, section 4.

    Args:
        logits: One row per image; at least one.

    Example:
        >>> round(inception_score(100 * torch.eye(4)).item(), 6)
        4.0
    """
    log_probability = logits.double().log_softmax(dim=1)
    probability = log_probability.exp()
    mean = probability.mean(dim=0)
    negative_entropy = (probability * log_probability).sum(dim=1).mean()
    return (negative_entropy - torch.xlogy(mean, mean).sum()).exp()


def _kernel(a: Float64[Tensor, "a dim"], b: Float64[Tensor, "b dim"]) -> Float64[Tensor, "a b"]:
    return (a @ b.T / a.shape[1] + 1) ** 3


def _mean_over_pairs(x: Float64[Tensor, "n dim"]) -> Float64[Tensor, ""]:
    """Computes the mean kernel of all pairs of different vectors of a set."""
    kernel = _kernel(x, x)
    return (kernel.sum() - kernel.diagonal().sum()) / (len(x) * (len(x) - 1))


def _covered(
    points: Float64[Tensor, "a dim"], members: Float64[Tensor, "b dim"], neighbours: int
) -> Float64[Tensor, ""]:
    # The nearest member of a member is itself, at distance 0.
    radii = torch.cat(
        [torch.cdist(rows, members).kthvalue(neighbours + 1).values for rows in torch.split(members, _ROWS)]
    )
    inside = [(torch.cdist(rows, members) <= radii).any(dim=1) for rows in torch.split(points, _ROWS)]
    return torch.cat(inside).double().mean()
