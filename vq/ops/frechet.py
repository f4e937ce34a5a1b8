"""The Fréchet distance of two Gaussians, in float64, and the moments that it is computed from."""

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

_TOLERANCE = 1e-9  # largest error of the trace term by Cholesky, relative to the two traces


def moments(
    total: Float64[Tensor, "dim"], outer: Float64[Tensor, "dim dim"], count: int | Int64[Tensor, ""]
) -> tuple[Float64[Tensor, "dim"], Float64[Tensor, "dim dim"]]:
    """Converts the sums of vectors and of their outer products to the mean and the covariance (divided by count - 1).

    Args:
        total: Sum of the vectors.
        outer: Sum of their outer products x x^T.
        count: Number of vectors; at least 2 for a finite covariance.

    Example:
        >>> x = torch.tensor([[0.0, 1.0], [2.0, 5.0]], dtype=torch.float64)
        >>> mean, covariance = moments(x.sum(0), x.T @ x, 2)
        >>> mean.tolist(), covariance.tolist()
        ([1.0, 3.0], [[2.0, 4.0], [4.0, 8.0]])
    """
    mean = total / count
    covariance = (outer - torch.outer(total, mean)) / (count - 1)
    return mean, (covariance + covariance.T) / 2


def frechet_distance(
    mean_a: Float[Tensor, "dim"],
    covariance_a: Float[Tensor, "dim dim"],
    mean_b: Float[Tensor, "dim"],
    covariance_b: Float[Tensor, "dim dim"],
) -> Float64[Tensor, ""]:
    """Computes the squared Fréchet (2-Wasserstein) distance of two Gaussians, which is 0 for equal ones.

    |m_a - m_b|^2 + tr(A) + tr(B) - 2 tr((A B)^(1/2)). The last trace is the sum of the roots of the
    eigenvalues of L^T B L, with A = L L^T by Cholesky, so that no matrix root is computed. If A is
    singular, or so nearly that rounding could change the tenth digit, it is the nuclear norm of
    F^T G, with A = F F^T and B = G G^T by eigenvectors, without the null spaces.

    NaN or infinity in a moment gives NaN.

    Source: Dowson and Landau 1982, https://doi.org/10.1016/0047-259X(82)90077-X, eq. 4.

    Args:
        mean_a: First mean.
        covariance_a: First covariance, symmetric and positive semi-definite.
        mean_b: Second mean.
        covariance_b: Second covariance, symmetric and positive semi-definite.

    Example:
        >>> one, zero = torch.eye(2), torch.zeros(2)
        >>> frechet_distance(zero, one, zero + 3, 4 * one).item()
        20.0
    """
    mean_a, covariance_a, mean_b, covariance_b = (
        part.double() for part in (mean_a, covariance_a, mean_b, covariance_b)
    )
    traces = covariance_a.trace() + covariance_b.trace()
    apart = (mean_a - mean_b).square().sum()
    if not bool(torch.isfinite(traces + apart + covariance_a.sum() + covariance_b.sum())):
        return torch.full_like(traces, torch.nan)
    root = _root_by_cholesky(covariance_a, covariance_b, float(traces) * _TOLERANCE)
    if root is None:
        root = _root_by_eigenvectors(covariance_a, covariance_b)
    return apart + traces - 2 * root


def frechet_distance_of_features(
    features_a: Float[Tensor, "a dim"], features_b: Float[Tensor, "b dim"]
) -> Float64[Tensor, ""]:
    """Computes the squared Fréchet distance from features, without a covariance; fastest for few vectors.

    With centred X and Y the trace term is the nuclear norm of X Y^T / sqrt((a - 1)(b - 1)), which is
    exact at every rank and has at most the size a x b.

    Args:
        features_a: At least two vectors.
        features_b: At least two vectors.

    Example:
        >>> x = torch.tensor([[0.0], [2.0]])
        >>> frechet_distance_of_features(x, x + 3).item()
        9.0
    """
    features_a, features_b = features_a.double(), features_b.double()
    mean_a, mean_b = features_a.mean(dim=0), features_b.mean(dim=0)
    a = (features_a - mean_a) / (len(features_a) - 1) ** 0.5
    b = (features_b - mean_b) / (len(features_b) - 1) ** 0.5
    root = torch.linalg.svdvals(_short(a) @ _short(b).T).sum()
    return (mean_a - mean_b).square().sum() + a.square().sum() + b.square().sum() - 2 * root


def _short(x: Float64[Tensor, "n dim"]) -> Float64[Tensor, "short dim"]:
    """Returns at most `dim` rows with the same x^T x, on which alone the nuclear norm of a product with x depends."""
    if len(x) <= x.shape[1]:
        return x
    return torch.linalg.qr(x, mode="r").R


def _root_by_cholesky(
    a: Float64[Tensor, "dim dim"], b: Float64[Tensor, "dim dim"], tolerance: float
) -> Float64[Tensor, ""] | None:
    """Computes tr((A B)^(1/2)); None if A is not positive definite or the rounding error may exceed `tolerance`."""
    factor, info = torch.linalg.cholesky_ex(a)
    if int(info) != 0:
        return None
    squared = torch.linalg.eigvalsh(factor.T @ b @ factor)
    # The error of an eigenvalue m is a few eps times the largest one; that of its root is this over 2 sqrt(m).
    error = 4 * torch.finfo(squared.dtype).eps * squared[-1].clamp_min(0)
    roots = squared.clamp_min(0).sqrt()
    if float((error / (2 * roots + error.sqrt())).sum()) > tolerance:
        return None
    return roots.sum()


def _root_by_eigenvectors(
    a: Float64[Tensor, "dim dim"], b: Float64[Tensor, "dim dim"]
) -> Float64[Tensor, ""]:
    # Equal matrices have equal factors, so that the distance of a set to itself is 0 up to the last digits.
    return torch.linalg.svdvals(_factor(a).T @ _factor(b)).sum()


def _factor(covariance: Float64[Tensor, "dim dim"]) -> Float64[Tensor, "dim rank"]:
    """Returns F with F F^T = covariance and as many columns as it has eigenvalues above rounding."""
    # With fewer images than dimensions the other dimensions hold rounding errors only, on which eigh may take a minute
    # or not converge. The pivoted factorisation stops at the rank.
    factor = _pivoted_cholesky(covariance.cpu()).to(covariance.device)
    if factor.shape[1] < len(covariance):
        return factor
    values, vectors = torch.linalg.eigh(covariance)
    noise = len(values) * torch.finfo(values.dtype).eps * values[-1].clamp_min(0)
    kept = values > noise
    return vectors[:, kept] * values[kept].sqrt()


def _pivoted_cholesky(covariance: Float64[Tensor, "dim dim"]) -> Float64[Tensor, "dim rank"]:
    """Returns F with F F^T = covariance and one column for each pivot above the rounding of the largest variance.

    Source: Higham 2002, Accuracy and Stability of Numerical Algorithms, section 10.3.
    """
    dim, rest = len(covariance), covariance.diagonal().clone()  # the variances that F does not explain yet
    noise = dim * torch.finfo(rest.dtype).eps * rest.max()
    columns = torch.zeros_like(covariance)  # one column of F in each row
    for k in range(dim):
        variance, pivot = rest.max(dim=0)
        if not variance > noise:
            return columns[:k].T
        columns[k] = (covariance[pivot] - columns[:k, pivot] @ columns[:k]) / variance.sqrt()
        rest = (rest - columns[k].square()).index_fill(0, pivot, 0)
    return columns.T
