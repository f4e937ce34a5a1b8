"""The deviation of a set of vectors from orthogonality."""

from jaxtyping import Bool, Float
from torch import Tensor

from vq.ops.directions import unit


def orthogonality(
    codes: Float[Tensor, "size dim"], counted: Bool[Tensor, "size"] | None = None
) -> Float[Tensor, ""]:
    r"""Computes $\sum_{i,j} (\hat e_i \hat e_j)^2 / K^2 - 1/K$ of the K counted codes: 0 if they are orthogonal.

    $\| E E^T \|^2 = \| E^T E \|^2$, so the matrix is (dim, dim) and not (size, size). More codes than
    dimensions cannot all be orthogonal; the smallest value is then $1/dim - 1/K$.

    Source: Shin et al. 2021, https://arxiv.org/abs/2112.00384, eq. 2, on codes of length 1.

    Args:
        codes: Codes of any length. A code of length 0 is orthogonal to all codes, including itself.
        counted: True for the codes that count; None if all do.

    Example:
        >>> import torch
        >>> orthogonality(2 * torch.eye(3)).item()
        0.0
    """
    directions = unit(codes)
    if counted is None:
        count = codes.new_tensor(len(codes))
    else:
        directions = directions * counted[:, None]
        count = counted.sum().clamp_min(1).to(codes.dtype)
    gram = directions.T @ directions
    # 1 / K is computed from the squared lengths of the codes, so that the result is exactly 0 if no code counts.
    return gram.square().sum() / count.square() - directions.square().sum() / count.square()
