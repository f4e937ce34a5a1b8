"""How far a set of vectors is from being orthogonal."""

from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F


def orthogonality(
    codes: Float[Tensor, "size dim"], counted: Bool[Tensor, "size"] | None = None
) -> Float[Tensor, ""]:
    r"""$\sum_{i,j} (\hat e_i \hat e_j)^2 / K^2 - 1/K$ of the K counted codes: 0 if they are orthogonal.

    $\| E E^T \|^2 = \| E^T E \|^2$, so the matrix is (dim, dim) and not (size, size). More codes than
    dimensions cannot all be orthogonal; the least value is then $1/dim - 1/K$.

    Source: Shin et al. 2021, https://arxiv.org/abs/2112.00384, eq. 2, on codes of length 1.

    Args:
        codes: A code of length 0 is orthogonal to everything, also to itself.
        counted: Which codes count; None is all.

    Example:
        >>> import torch
        >>> orthogonality(2 * torch.eye(3)).item()
        0.0
    """
    unit = F.normalize(codes, dim=-1)
    if counted is None:
        count = codes.new_tensor(len(codes))
    else:
        unit = unit * counted[:, None]
        count = counted.sum().clamp_min(1).to(codes.dtype)
    gram = unit.T @ unit
    # The 1 / K is taken as the codes' own squared lengths, which keeps 0 exact where none counts.
    return gram.square().sum() / count.square() - unit.square().sum() / count.square()
